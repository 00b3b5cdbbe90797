#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""All of QEMU's qtests for x86_64, by QEMU's own "meson test", in TAP.

Some of them ask more of a host than it may have (KVM that runs guests, file
systems with extended attributes, QEMU's own build of SeaBIOS).  So a test
passes if it passes, or if it says the very same with QEMU without the series;
those are marked in the output.
"""

import json
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'scripts'))

from serieslib import build                             # noqa: E402

OURS = os.path.join(TOP, 'build/obj/default')
STOCK = os.path.join(TOP, 'build/obj/stock')
LOG = os.path.join(OURS, 'meson-logs/testlog-thorough.json')
TIMEOUT = 1200
SAME = ' (as QEMU without the series)'


def said(output):
    """What a test says of why it failed"""
    return [line for line in output.splitlines()
            if line.startswith(('not ok', 'Bail out!'))]


def as_stock(test):
    """Does @test fail in the same way with QEMU without the series?"""
    env = dict(os.environ, **test['env'])
    env['QTEST_QEMU_BINARY'] = os.path.join(STOCK, 'qemu-system-x86_64')
    try:
        done = subprocess.run(test['command'], cwd=OURS, env=env, text=True,
                              stdin=subprocess.DEVNULL, timeout=TIMEOUT,
                              stdout=subprocess.PIPE, errors='replace',
                              stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return False
    words = said(test['stdout'])
    return bool(words) and done.returncode and words == said(done.stdout)


def report(number, test):
    """One line of TAP; True if the test passed"""
    name = test['name'].split(' / ')[-1]
    passed, remark = test['result'] in ('OK', 'SKIP'), ''
    if test['result'] == 'SKIP':
        remark = ' # SKIP by the test itself'
    elif not passed and as_stock(test):
        passed, remark = True, SAME
    if not passed:
        print(''.join(f'# {line}\n' for line in test['stdout'].splitlines()
                      if not line.startswith('# starting QEMU')))
    print(f'{"ok" if passed else "not ok"} {number} {name}{remark}',
          flush=True)
    return passed


def main():
    """Build and run them all, then look at each result."""
    env = build.environment()
    subprocess.run(['ninja', 'all'], cwd=OURS, env=env, check=True,
                   stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if os.path.exists(LOG):
        os.unlink(LOG)
    subprocess.run(['pyvenv/bin/meson', 'test', '--no-rebuild', '--setup',
                    'thorough', '--suite', 'qtest-x86_64'],
                   cwd=OURS, env=env, check=False,
                   stdin=subprocess.DEVNULL, stdout=sys.stderr)
    with open(LOG, encoding='utf-8') as log:
        tests = [json.loads(line) for line in log]
    print(f'1..{len(tests)}')
    results = [report(number, test) for number, test in enumerate(tests, 1)]
    return 0 if tests and all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
