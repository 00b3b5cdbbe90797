#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a kernel's log counts as its end: tests of vtd_guest.control.

The warnings that do not count are few; nothing else may hide behind them.
"""

from pathlib import Path
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2]
                       / 'tests/functional'))

import tap                                                  # noqa: E402
from vtd_guest.control import find_fatal                    # noqa: E402

CUT = '[ 9.31] ------------[ cut here ]------------\r\n'
TRACE = ('[ 9.31] RIP: 0010:x\r\n[ 9.31] Call Trace:\r\n[ 9.31]  <IRQ>\r\n')
END = '[ 9.32] ---[ end trace 0000000000000000 ]---\r\n'
LINES = {
    'ahci': '[ 9.31] WARNING: CPU: 1 PID: 158 at drivers/ata/libata-core.c:'
            '4878 ata_qc_complete+0x23c/0x2e0 [libata]\r\n',
    'vfio': '[ 9.31] WARNING: CPU: 0 PID: 295 at drivers/iommu/intel/dmar.c:'
            '1555 qi_flush_piotlb+0xe3/0x100\r\n',
}
OTHER = '[ 9.31] WARNING: CPU: 0 PID: 1 at fs/x.c:1 some_function+0x1/0x2\r\n'
BETWEEN = '[ 9.31] e1000e: EEE TX LPI TIMER: 00000000\r\n'


def fatal(text):
    return find_fatal(text.encode())


class GuestLog(unittest.TestCase):

    def test_harmless(self):
        """At each point where the log may have been read"""
        for line in LINES.values():
            for between in ('', BETWEEN):
                text = CUT + between + line + TRACE + END + 'more\r\n'
                for end in range(len(text) + 1):
                    self.assertIsNone(fatal(text[:end]), text[:end])

    def test_other_warnings(self):
        other = CUT + OTHER + TRACE + END
        for line in LINES.values():
            harmless = CUT + line + TRACE + END
            for text in (other, harmless + other, other + harmless,
                         harmless.replace(END, '') + other,
                         line + TRACE, other + line):
                self.assertIn(fatal(text)[0],
                              (OTHER.strip(), line.strip()), text)
            self.assertEqual(fatal(harmless + other)[0], OTHER.strip())

    def test_worse(self):
        for what in ('Kernel panic - not syncing', 'BUG: ', 'Oops: ',
                     'rcu_preempt detected stalls', 'soft lockup'):
            for line in LINES.values():
                self.assertTrue(fatal(CUT + line + TRACE + END + what))
        for what in ('Kernel panic - not syncing', 'BUG: ', 'Oops: '):
            for line in LINES.values():
                self.assertTrue(fatal(CUT + line + TRACE + what))

    def test_around(self):
        said, around = fatal('a' * 5000 + '\nBUG: here\n' + 'b' * 5000)
        self.assertEqual(said, 'BUG: here')
        self.assertEqual(fatal('x\nCall Trace:\ny')[0], 'Call Trace:')
        self.assertEqual(fatal('x\nBUG: end')[0], 'BUG: end')
        self.assertTrue(around.startswith('aaa') and 'BUG: here' in around)
        self.assertLess(len(around), 5000)

    def test_nothing(self):
        self.assertIsNone(fatal(''))
        self.assertIsNone(fatal('[ 0.1] Linux version 6.1\r\n'))


if __name__ == '__main__':
    sys.exit(tap.main())
