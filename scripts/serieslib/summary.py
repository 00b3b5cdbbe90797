# SPDX-License-Identifier: GPL-2.0-or-later
"""What really ran: meson's JUnit file, subtests counted one by one."""

import os
import xml.etree.ElementTree as ElementTree

from .say import Fail


def count(path):
    """(passed, failed, skipped, names of what failed)"""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as err:
        raise Fail(f'no results of a test run in {path}: {err}')
    passed = failed = skipped = 0
    bad = []
    for suite in root.iter('testsuite'):
        before = failed
        for case in suite.findall('testcase'):
            if case.find('skipped') is not None:
                skipped += 1
            elif case.find('failure') is not None or \
                    case.find('error') is not None:
                failed += 1
                bad.append(f'{suite.get("name")}: {case.get("name")}')
            else:
                passed += 1
        # A program that died between its subtests
        wrong = int(suite.get('errors', 0)) + int(suite.get('failures', 0))
        if wrong and failed == before:
            failed += 1
            bad.append(suite.get('name'))
    return passed, failed, skipped, bad


def run(directory):
    """Print the closing line; returns whether the run was good."""
    path = os.path.join(directory, 'meson-logs', 'testlog.junit.xml')
    passed, failed, skipped, bad = count(path)
    for name in bad:
        print(f'  failed: {name}')
    if passed + failed == 0:
        print('  no test ran')
    print(f'{passed} passed, {failed} failed'
          + (f', {skipped} skipped' if skipped else ''))
    return passed > 0 and failed == 0
