#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Linux behind the VT-d unit in scalable mode, with second-stage and with
# first-stage tables: disks, network and VFIO work, and they do go through the
# unit.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

import test_x86_64_vtd_migration as migration
from vtd_guest import nic_pair
from vtd_guest.testcase import UNIT_BASE, VTDGuestTest

EDU = ['-device', 'edu']
SECOND = 'intremap=on,x-scalable-mode=on'
FIRST = f'{SECOND},x-flts=on'

# VT-d specification, 11.4.5: RTADDR_REG, and its field TTM in scalable mode
RTADDR = UNIT_BASE + 0x20
TTM_MASK, TTM_SCALABLE = 3 << 10, 1 << 10


def vfio_faults(write, unmapped_write, unmapped_read):
    """
    The accesses that guest/vfio-edu.c lets the device make and that must be
    stopped: a write to a page mapped for reading, also when the translation
    for reading is in the cache, and accesses to a page no longer mapped.
    """
    return [
        rf'DMA Write.* fault addr 0x800000 .*reason {write}\]',
        rf'DMA Write.* fault addr 0x400000 .*reason {unmapped_write}\]',
        rf'DMA Read.* fault addr 0x400000 .*reason {unmapped_read}\]',
    ]


# VT-d specification, 7.1.3: SGN.6, SGN.7; and SFS.2, an entry not present
SECOND_FAULTS = vfio_faults('0x85', '0x85', '0x86')
FIRST_FAULTS = vfio_faults('0x85', '0x71', '0x71')


class VTDScalableGuest(VTDGuestTest):

    def work(self, unit, append='', domains='DMA-FQ', kernel=None, cpu=None):
        """Boot in scalable mode, and do all the I/O."""
        if cpu:
            self.vm.add_args('-cpu', cpu)
        disks = self.new_disks('virtio', 'nvme', 'ahci')
        guest = self.boot(unit, disks, f'intel_iommu=sm_on {append}',
                          nic_pair() + EDU, kernel)
        self.assert_unit_on()
        self.assertEqual(self.register(RTADDR) & TTM_MASK, TTM_SCALABLE,
                         guest.log_text())
        self.assert_domains(domains)
        for disk in disks:
            self.assert_disk_works(disk)
        self.assert_network_works()
        self.assert_quiet()

    def wide(self, unit, kernel=None, cpu='max,la57=on'):
        """Linux uses 5 levels if the unit has them, whatever the CPU has."""
        self.work(f'{unit},aw-bits=57', kernel=kernel, cpu=cpu)
        self.assert_levels(5)
        self.assert_vfio_works(FIRST_FAULTS if unit == FIRST else SECOND_FAULTS)


class VTDScalable(VTDScalableGuest):

    def test_second_stage(self):
        self.work(SECOND)
        self.assert_vfio_works(SECOND_FAULTS)
        self.assert_quiet()

    def test_second_stage_caching_mode(self):
        self.work(f'{SECOND},caching-mode=on', domains='DMA')
        self.assert_vfio_works(SECOND_FAULTS)

    def test_pass_through(self):
        self.work(SECOND, 'iommu=pt', domains='identity')
        # A device in user space gets a domain of its own all the same
        self.assert_vfio_works(SECOND_FAULTS)

    def test_first_stage(self):
        self.work(FIRST)
        self.assert_vfio_works(FIRST_FAULTS)
        self.assert_quiet()

    def test_first_stage_57_bits(self):
        self.wide(FIRST)

    def test_second_kernel_second_stage(self):
        self.work(SECOND, kernel=self.need_kernel('QEMU_TEST_VTD_KERNEL2'))
        self.assert_vfio_works(SECOND_FAULTS)

    def test_second_kernel_first_stage(self):
        self.work(FIRST, kernel=self.need_kernel('QEMU_TEST_VTD_KERNEL2'))
        self.assert_vfio_works(FIRST_FAULTS)


class VTDScalableMigration(migration.VTDMigration):
    """The same streams, with RTADDR.TTM and IQA.DW in them"""

    def common_args(self, unit, disks, append, kernel=None):
        return super().common_args(FIRST, disks,
                                   f'intel_iommu=sm_on {append}', kernel)


if __name__ == '__main__':
    VTDGuestTest.main()
