# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process: started, watched, asked by QMP, ended."""

import json
import os
from pathlib import Path
import socket
import subprocess
import tempfile
import time

from assets import TOP, DebianError
from vtd_guest import Control, GuestFailure


def find_qemu():
    default = TOP / 'build/obj/default/qemu-system-x86_64'
    path = os.environ.get('QEMU') or os.environ.get('QEMU_TEST_QEMU_BINARY') \
        or default
    if not os.access(path, os.X_OK):
        raise DebianError(f'{path}: no such program: build it with "make", or '
                          'set QEMU to a qemu-system-x86_64')
    return str(path)


class Machine:
    """To be used in a "with" statement: the process ends with it."""

    def __init__(self, args, log, interactive=False):
        self.directory = tempfile.TemporaryDirectory(prefix='vtd-demo-')
        base = Path(self.directory.name)
        self.qmp_path = base / 'qmp'
        self.control = Control(base / 'control', log, self.alive)
        self.interactive = interactive
        self.errors = base / 'stderr'
        self.args = [find_qemu(), *args]
        if interactive:
            self.args += ['-serial', 'mon:stdio']
        else:
            self.args += Control.args(self.control.path, log)
            self.args += ['-qmp', f'unix:{self.qmp_path},server=on,wait=off']
        self.process = None
        self.qmp_file = None

    def __enter__(self):
        if self.interactive:
            self.process = subprocess.Popen(self.args)
            return self
        with open(self.errors, 'w') as errors:
            self.process = subprocess.Popen(self.args, stderr=errors,
                                            stdin=subprocess.DEVNULL)
        try:
            self.control.connect()
            self._connect_qmp()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.control.close()
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.directory.cleanup()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def error_text(self):
        """What QEMU itself had to say, without its usual hint on hubs"""
        try:
            lines = self.errors.read_text().splitlines()
        except FileNotFoundError:
            return ''
        return '\n'.join(line for line in lines
                         if 'not connected to host network' not in line)

    def _connect_qmp(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(str(self.qmp_path))
        self.qmp_file = connection.makefile('rw')
        self.qmp_file.readline()
        self.qmp('qmp_capabilities')

    def qmp(self, command, **arguments):
        json.dump({'execute': command, 'arguments': arguments}, self.qmp_file)
        self.qmp_file.write('\n')
        self.qmp_file.flush()
        while True:
            answer = json.loads(self.qmp_file.readline() or '{"error": "EOF"}')
            if 'return' in answer:
                return answer['return']
            if 'error' in answer:
                raise GuestFailure(f'QMP {command}: {answer["error"]}')

    def register(self, address):
        """A 32-bit register in physical memory, as the guest sees it"""
        text = self.qmp('human-monitor-command',
                        **{'command-line': f'xp /1wx {address:#x}'})
        return int(text.split()[-1], 16)

    def wait(self, seconds):
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.alive()
