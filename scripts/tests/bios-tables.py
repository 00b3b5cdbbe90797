#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's bios-tables-test, case by case, in TAP.

A few of the tables on record hold an address that SeaBIOS chose, and
Debian's SeaBIOS, built differently from QEMU's own, chooses another.  So a
case passes if it passes, or if QEMU without the series fails it with the
very same words; those are marked in the output.

usage: bios-tables.py PROGRAM OURS STOCK [PREFIX]
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# Replaces KVM by TCG: what KVM of this host can do shows in the tables
TCG = os.path.join(HERE, 'tcg/qemu-system-x86_64')
# Debian 12's SeaBIOS waits half a minute for every AHCI disk; this does not
FIRMWARE = os.path.join(HERE, '../../build/guest/seabios/usr/share/seabios')
TIMEOUT = 120
MANY_CPUS = 'requires x2APIC feature in CPU'
SAME = ' (as QEMU without the series: not as on record)'


def run(program, binary, *args):
    """Exit status (or a word) and output of one run of the test program."""
    env = dict(os.environ, QTEST_QEMU_BINARY=TCG, TCG_QEMU_BINARY=binary,
               TCG_QEMU_FIRMWARE=FIRMWARE)
    try:
        done = subprocess.run([program, *args], env=env, text=True,
                              stdin=subprocess.DEVNULL, timeout=TIMEOUT,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, errors='replace')
    except subprocess.TimeoutExpired as late:
        return 'timeout', (late.stdout or b'').decode(errors='replace')
    return done.returncode, done.stdout


def said(output):
    """What a failed case said of the tables, without names that vary."""
    lines = [line for line in output.splitlines()
             if line.startswith(('acpi-test:', 'ERROR:'))]
    return re.sub(r'/tmp/\w+-\w+', 'TEMP', '\n'.join(lines))


def alone(case, cases):
    """Arguments that choose @case, but not those that it is a prefix of."""
    below = (other for other in cases if other.startswith(case + '/'))
    return ['-p', case] + [word for other in below for word in ('-s', other)]


def check(program, chosen, ours, stock):
    """(passed, remark, output) of one case, chosen by these arguments."""
    status, output = run(program, ours, *chosen)
    if status == 0:
        return True, '', output
    if MANY_CPUS in output:
        return True, ' # SKIP it is about 260 CPUs, which need KVM', output
    other, other_output = run(program, stock, *chosen)
    if said(output) and \
            (status, said(output)) == (other, said(other_output)):
        return True, SAME, output
    return False, '', output


def main(program, ours, stock, prefix='/'):
    """Run all cases whose path begins with @prefix."""
    status, listing = run(program, ours, '-l')
    # GLib of Debian 13 lists them in TAP, as comments
    paths = [line.removeprefix('# ') for line in listing.splitlines()]
    cases = [path for path in paths if path.startswith(prefix)]
    if status or not cases:
        print(f'Bail out! {program} lists no test: {listing}')
        return 1
    print(f'1..{len(cases)}')
    failed = 0
    for number, case in enumerate(cases, 1):
        passed, remark, output = check(program, alone(case, cases),
                                       ours, stock)
        failed += not passed
        if not passed:
            print(''.join(f'# {line}\n' for line in output.splitlines()))
        print(f'{"ok" if passed else "not ok"} {number} {case}{remark}',
              flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
