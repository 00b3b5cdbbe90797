# SPDX-License-Identifier: GPL-2.0-or-later
"""unittest's results as meson reads them"""

import sys
import unittest


class Tap(unittest.TextTestResult):
    """One line for each test, as meson reads it."""

    number = 0

    def _line(self, word, test, more=''):
        Tap.number += 1
        print(f'{word} {Tap.number} {test.id().partition(".")[2]}{more}',
              flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._line('ok', test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._line('not ok', test)

    def addError(self, test, err):
        super().addError(test, err)
        self._line('not ok', test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._line('ok', test, f' # SKIP {reason}')


def main():
    """Run the tests of the program; returns its exit status."""
    tests = unittest.defaultTestLoader.loadTestsFromModule(
        sys.modules['__main__'])
    print(f'1..{tests.countTestCases()}', flush=True)
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=0,
                                     resultclass=Tap).run(tests)
    return 0 if result.wasSuccessful() else 1
