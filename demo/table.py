# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's result: what was tried, what was seen, OK or not."""

import textwrap

TRIED, SEEN = 34, 66


class Table:
    def __init__(self):
        self.rows = []
        self.missing = []

    def expect(self, tried):
        """Announce a row: until it has come, the result is not good."""
        self.missing.append(tried)

    def row(self, tried, seen, good):
        if tried in self.missing:
            self.missing.remove(tried)
        self.rows.append((tried, seen, bool(good)))
        print(f'demo: {tried}: {"OK" if good else "NOT OK"}', flush=True)

    def good(self):
        return bool(self.rows) and not self.missing and \
            all(good for _, _, good in self.rows)

    def show(self, seconds):
        rows = self.rows + [(tried, 'not reached', False)
                            for tried in self.missing]
        line = f'+{"-" * (TRIED + 2)}+{"-" * (SEEN + 2)}+--------+'
        print(line)
        self._print('What was tried', 'What was seen', 'Result')
        print(line)
        for tried, seen, good in rows:
            self._print(tried, seen, 'OK' if good else 'NOT OK')
        print(line)
        failed = sum(not good for _, _, good in rows)
        verdict = f'{failed} NOT OK' if failed else 'all OK'
        print(f'{len(rows)} rows, {verdict}, {seconds:.0f} seconds')

    @staticmethod
    def _print(tried, seen, result):
        left = textwrap.wrap(tried, TRIED) or ['']
        right = textwrap.wrap(seen, SEEN) or ['']
        for i in range(max(len(left), len(right))):
            a = left[i] if i < len(left) else ''
            b = right[i] if i < len(right) else ''
            c = result if i == 0 else ''
            print(f'| {a:{TRIED}} | {b:{SEEN}} | {c:6} |')
