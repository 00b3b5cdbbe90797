# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user sees: messages, errors, and the progress of long commands.

An error that the user can meet is a Fail: one message that names the thing
and says what to do.  Anything else that escapes is a bug of the tool.
"""

import collections
import errno
import os
import re
import selectors
import signal
import subprocess
import sys
import time

# Seconds between two lines of progress where the output is no terminal.
QUIET_SECONDS = 20
TAIL_LINES = 15
# What lines of progress begin with; a comment where the output is TAP.
MARK = '  '

NO_SPACE = re.compile(r'no space left on device|not enough free space|'
                      r'disk quota exceeded', re.I)


class Fail(Exception):
    """A condition to report in plain words, without a traceback."""


def no_space(where):
    return Fail(f'no space left on the disk that holds {where}: free some '
                'and run the same command again (see "Disk use" in README.md)')


def from_os_error(err, where):
    """The Fail that says what an OSError means to the user."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(where)
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Fail(f'cannot write {err.filename or where}: {err.strerror}; '
                    'use a checkout that you may write')
    name = f'{err.filename}: ' if err.filename else ''
    return Fail(f'{name}{err.strerror}')


class Line:
    """One line of progress: rewritten on a terminal, rationed elsewhere."""

    def __init__(self, label):
        self.label = label
        self.start = self.printed = time.monotonic()
        self.tty = sys.stdout.isatty()
        self.text = ''

    def _seconds(self):
        return int(time.monotonic() - self.start)

    def show(self, text=None):
        if text is not None:
            self.text = text
        now = time.monotonic()
        line = f'{MARK}{self.label}: {self.text} ({self._seconds()} s)'
        if self.tty:
            sys.stdout.write('\r\033[K' + line[:118])
            sys.stdout.flush()
        elif now - self.printed >= QUIET_SECONDS:
            print(line, flush=True)
            self.printed = now

    def end(self, text):
        if self.tty:
            sys.stdout.write('\r\033[K')
        print(f'{MARK}{self.label}: {text} ({self._seconds()} s)', flush=True)

    def drop(self):
        if self.tty:
            sys.stdout.write('\r\033[K')
            sys.stdout.flush()


def info(text):
    print(f'{MARK}{text}', flush=True)


def warn(text):
    print(f'  warning: {text}', file=sys.stderr, flush=True)


def need_program(name, package):
    """The path of a program, or a Fail that names its Debian package."""
    for directory in os.environ.get('PATH', os.defpath).split(os.pathsep):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    raise Fail(f'the program {name} is missing: run "make deps", or install '
               f'the package {package}')


def _pump(proc, log, line, watch):
    """Copy a command's output to its log; return its last lines."""
    tail = collections.deque(maxlen=400)
    waiter = selectors.DefaultSelector()
    waiter.register(proc.stdout, selectors.EVENT_READ)
    rest = b''
    while True:
        if not waiter.select(timeout=5):
            line.show()
            continue
        data = os.read(proc.stdout.fileno(), 65536)
        if not data:
            break
        log.write(data)
        *done, rest = (rest + data).split(b'\n')
        for raw in done:
            text = raw.decode(errors='replace').rstrip()
            tail.append(text)
            line.show(watch(text) if watch else None)
    if rest:
        tail.append(rest.decode(errors='replace'))
    return list(tail)


def run_logged(label, cmd, log_path, *, cwd=None, env=None, watch=None,
               keep_fds=(), done='done', explain=None):
    """Run a long command: output to a log, one line of progress here.

    watch(line) may return the text to show.  explain(lines) may turn the
    output of a failed command into a better Fail.
    """
    os.makedirs(os.path.dirname(log_path), exist_ok=True)
    line = Line(label)
    with open(log_path, 'wb', buffering=0) as log:
        log.write(('$ ' + ' '.join(cmd) + '\n').encode())
        try:
            proc = subprocess.Popen(cmd, cwd=cwd, env=env,
                                    stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT,
                                    pass_fds=keep_fds)
        except FileNotFoundError:
            raise Fail(f'the program {cmd[0]} is missing: run "make deps"')
        try:
            tail = _pump(proc, log, line, watch)
            status = proc.wait()
        except BaseException:
            proc.send_signal(signal.SIGINT)
            try:
                proc.wait(timeout=10)
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
            line.drop()
            raise
    if status == 0:
        line.end(done)
        return tail
    line.drop()
    better = explain(tail) if explain else None
    if better:
        raise better
    if any(NO_SPACE.search(text) for text in tail):
        raise no_space(cwd or os.getcwd())
    raise Fail(f'{label} failed (exit status {status}); the end of its log:\n'
               + '\n'.join('    ' + text for text in tail[-TAIL_LINES:])
               + f'\n  whole log: {log_path}')
