# SPDX-License-Identifier: GPL-2.0-or-later
"""The check suites of the root meson.build: build for them, run, count.

What is counted is what ran: subtests where a program reports them (JUnit
log), and the program's own end (JSON log), because a program that dies or
hangs after its last good subtest has failed.  A test that was asked for and
left no result has failed too.
"""

import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

from . import base, build, say, work
from .say import Fail

CHECK = os.path.join(work.BUILD, 'check')
LONG = 'long'
# Seconds after which a silent run says that it is alive.
HEARTBEAT = 60

GOOD = ('OK', 'EXPECTEDFAIL')

# The line of a failed program's output that says why: Python's exceptions,
# GLib's assertions, the sanitizers
REASON = re.compile(r'^(?:# *|not ok .* - )?((?:\w+\.)*\w*(?:Error|Failure): .*'
                    r'|ERROR:.*|.*: runtime error: .*|==\d+==ERROR: .*)',
                    re.MULTILINE)
# So many of them, and so much of each, are repeated at the end of a run.
REASONS = 3
REASON_LENGTH = 200


# The list of tests ----------------------------------------------------------

def _meson(*args):
    return ['/usr/bin/python3', '-c', 'import sys; '
            'from mesonbuild.mesonmain import main; '
            'sys.argv[0] = "meson"; sys.exit(main())', *args]


def _run(label, *args):
    return say.run_logged(label, _meson(*args), work.log('check-setup'),
                          cwd=work.ROOT, env=build.environment())


def _setup():
    """Configure build/check, always anew: its test list is a second's work."""
    if os.path.exists(os.path.join(CHECK, 'build.ninja')):
        try:
            _run('check list', 'setup', '--reconfigure', CHECK, work.ROOT)
            return
        except Fail:
            say.info('check list: build/check is unusable, making it anew')
    shutil.rmtree(CHECK, ignore_errors=True)
    _run('check list', 'setup', CHECK, work.ROOT)


def _tests():
    """{name: set of suites} of all tests."""
    path = os.path.join(CHECK, 'meson-info', 'intro-tests.json')
    with open(path, encoding='utf-8') as file:
        return {test['name']: {suite.rpartition(':')[2]
                               for suite in test['suite']}
                for test in json.load(file)}


def select(tests, suite, names, with_long):
    """
    Names of the tests asked for; a wrong word is an error.  Suite "vtd-long"
    is those of "vtd" that take long.
    """
    suites = set().union(*tests.values()) - {LONG}
    suites |= {f'{name}-{LONG}' for belongs in tests.values()
               if LONG in belongs for name in belongs - {LONG}}
    suites = sorted(suites)
    only_long = bool(suite) and suite.endswith('-' + LONG)
    if suite and suite not in suites:
        raise Fail(f'there is no suite "{suite}"; there are: '
                   + ', '.join(suites))
    for name in names:
        if name not in tests:
            raise Fail(f'there is no test "{name}"; there are: '
                       + ', '.join(sorted(tests)))
    if names:
        return list(names)
    if only_long:
        wanted = {suite.rpartition('-')[0], LONG}
        return [name for name, belongs in tests.items() if wanted <= belongs]
    return [name for name, belongs in tests.items()
            if (not suite or suite in belongs)
            and (with_long or LONG not in belongs)]


# Running --------------------------------------------------------------------

def _prepare(tests, chosen):
    """Build what the chosen tests run."""
    used = set().union(*(tests[name] for name in chosen))
    base.load()
    if used - {'series', LONG}:
        for kind in build.KINDS:
            if kind != 'asan' or any(name.startswith('asan-')
                                     for name in chosen):
                build.build(kind)
        for kernel in ('', '6.12'):
            env = dict(os.environ)
            if kernel:
                env['KERNEL'] = kernel
            done = subprocess.run([os.path.join(work.ROOT, 'demo/run'),
                                   'assets'], env=env,
                                  stdin=subprocess.DEVNULL)
            if done.returncode:
                raise Fail('the guest\'s kernel and initramfs could not be '
                           'made (demo/run assets)')


def _follow(proc, start):
    """Pass a command's output on, and say so when it is silent for long."""
    waiter = selectors.DefaultSelector()
    waiter.register(proc.stdout, selectors.EVENT_READ)
    while True:
        if not waiter.select(timeout=HEARTBEAT):
            print(f'  tests are running ({int(time.monotonic() - start)} s)',
                  flush=True)
            continue
        data = os.read(proc.stdout.fileno(), 65536)
        if not data:
            return
        sys.stdout.buffer.write(data)
        sys.stdout.flush()


def _run_meson(chosen):
    shutil.rmtree(os.path.join(CHECK, 'meson-logs'), ignore_errors=True)
    os.makedirs(os.path.join(CHECK, 'meson-logs'))
    command = _meson('test', '-C', CHECK, '--no-rebuild', '--print-errorlogs',
                     '--num-processes', str(min(os.cpu_count() or 1, 4)),
                     *chosen)
    start = time.monotonic()
    terminal = sys.stdout.isatty()
    proc = subprocess.Popen(command, env=build.environment(),
                            stdin=subprocess.DEVNULL,
                            stdout=None if terminal else subprocess.PIPE)
    try:
        if not terminal:
            _follow(proc, start)
        proc.wait()
    except BaseException:
        proc.terminate()
        proc.wait()
        raise


# Counting -------------------------------------------------------------------

def _plain(name):
    """"files" of meson's "qemu-series:series / files"."""
    return name.rpartition(' / ')[2]


def _programs(logs):
    """{test: what meson recorded of it} of the programs that ran."""
    results = {}
    try:
        with open(os.path.join(logs, 'testlog.json'),
                  encoding='utf-8') as file:
            for line in file:
                test = json.loads(line)
                results[_plain(test['name'])] = test
    except (OSError, ValueError) as err:
        say.warn(f'no results of a test run: {err}')
    return results


def _reasons(test):
    """Why the recorded program failed, in its own words."""
    output = test.get('stdout', '') + '\n' + test.get('stderr', '')
    found = dict.fromkeys(match.group(1)[:REASON_LENGTH]
                          for match in REASON.finditer(output))
    return list(found)[:REASONS]


def _subtests(logs):
    """{test: [(subtest, "passed" | "failed" | "skipped")]}"""
    try:
        root = ElementTree.parse(
            os.path.join(logs, 'testlog.junit.xml')).getroot()
    except (OSError, ElementTree.ParseError):
        return {}
    found = {}
    for suite in root.iter('testsuite'):
        project, dot, test = suite.get('name', '').partition('.')
        if not dot:
            continue    # programs without subtests, of which JSON tells
        for case in suite.findall('testcase'):
            result = 'passed'
            if case.find('skipped') is not None:
                result = 'skipped'
            elif case.find('failure') is not None or \
                    case.find('error') is not None:
                result = 'failed'
            found.setdefault(_plain(test), []).append((case.get('name'), result))
    return found


def count(logs, chosen):
    """({"passed": n, ...}, [(name of what failed, reasons)])"""
    programs, subtests = _programs(logs), _subtests(logs)
    counts = dict(passed=0, failed=0, skipped=0)
    bad = []
    for name in chosen:
        test = programs.get(name, {'result': 'did not run'})
        result = test['result']
        parts = subtests.get(name, [])
        for _, outcome in parts:
            counts[outcome] += 1
        failed = [f'{name}: {part}' for part, outcome in parts
                  if outcome == 'failed']
        if result in GOOD:
            counts['passed'] += not parts
        elif result == 'SKIP':
            # All of its subtests were skipped, or it had nothing to say.
            if not parts:
                counts['failed'] += 1
                failed.append(f'{name}: ran no test')
        elif not failed:
            counts['failed'] += 1
            failed.append(f'{name}: {result}')
        if failed:
            reasons = _reasons(test)
            bad += [(part, []) for part in failed[:-1]]
            bad.append((failed[-1], reasons))
    return counts, bad


def report(counts, bad):
    """Print the closing line; returns whether the run was good."""
    for name, reasons in bad:
        print('\n    '.join([f'  failed: {name}', *reasons]))
    if counts['passed'] + counts['failed'] == 0:
        print('  no test ran')
    print(f'{counts["passed"]} passed, {counts["failed"]} failed'
          + (f', {counts["skipped"]} skipped' if counts['skipped'] else ''),
          flush=True)
    return counts['passed'] > 0 and counts['failed'] == 0


def run(suite, names, with_long):
    """Build, run and count; returns whether all passed."""
    with work.locked():
        build.ensure_tools()
        _setup()
    tests = _tests()
    chosen = select(tests, suite, names, with_long)
    _prepare(tests, chosen)
    _run_meson(chosen)
    return report(*count(os.path.join(CHECK, 'meson-logs'), chosen))
