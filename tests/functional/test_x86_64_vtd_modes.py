#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Linux behind the VT-d unit, in each way in which it can use it: disks,
# network and VFIO work, and they do go through the unit.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

from vtd_guest import nic_pair
from vtd_guest.testcase import VTDGuestTest

EDU = ['-device', 'edu']

# The accesses that guest/vfio-edu.c lets the device make and that must be
# stopped: a write to a page mapped for reading, also when the translation for
# reading is in the cache, and accesses to a page no longer mapped
# (VT-d specification, 7.1.3, fault reasons 5 and 6)
VFIO_FAULTS = [
    r'DMA Write.* fault addr 0x800000 .*reason 0x0?5\]',
    r'DMA Write.* fault addr 0x400000 .*reason 0x0?5\]',
    r'DMA Read.* fault addr 0x400000 .*reason 0x0?6\]',
]


class VTDModes(VTDGuestTest):

    def work(self, unit, append='', domains='DMA-FQ', interrupts=True,
             kernel=None, cpu=None):
        """Boot, look at what Linux made of the unit, and do all the I/O."""
        disks = self.new_disks('virtio', 'nvme', 'ahci')
        if cpu:
            self.vm.add_args('-cpu', cpu)
        guest = self.boot(unit, disks, append, nic_pair() + EDU, kernel)
        self.assertTrue('DMAR: IOMMU enabled' in guest.log_text())
        self.assert_unit_on(interrupts)
        facts = self.assert_domains(domains)
        self.assertEqual(facts['unit'], 'dmar0')
        for disk in disks:
            self.assert_disk_works(disk)
        self.assert_network_works()
        return guest, int(facts['cap'], 16), disks

    def assert_remapped(self, mode):
        line = f'Enabled IRQ remapping in {mode} mode'
        self.assertTrue(line in self.guest.log_text(), f'not logged: {line}')
        counts = self.irq_counts()
        self.assertGreater(counts.get('IR-PCI-MSI', 0)
                           + sum(n for chip, n in counts.items()
                                 if chip.startswith('IR-PCI-MSI')), 100)
        self.assertGreater(counts.get('IR-IO-APIC', 0), 0)
        self.assertFalse([chip for chip in counts
                          if chip.startswith('PCI-MSI')])

    def move_interrupts(self, disks):
        """Each change of an affinity changes a remapping entry in place."""
        for mask in (2, 1, 2):
            self.guest.run(f'move_irqs {mask}')
            for disk in disks:
                self.assert_disk_works(disk)
            self.assert_network_works(rounds=3)

    @staticmethod
    def sagaw_and_mgaw(cap):
        """VT-d specification, 11.4.2: adjusted widths, maximum width"""
        return cap >> 8 & 0x1f, (cap >> 16 & 0x3f) + 1

    def test_lazy(self):
        _, cap, disks = self.work('intremap=on')
        self.assert_remapped('xapic')
        self.assert_quiet()
        self.assert_vfio_works(VFIO_FAULTS)
        self.move_interrupts(disks)
        self.assert_quiet()

    def test_strict_48_bits(self):
        _, cap, _ = self.work('intremap=on,aw-bits=48', 'iommu.strict=1',
                              domains='DMA')
        self.assertEqual(self.sagaw_and_mgaw(cap), (0x6, 48))
        self.assert_remapped('xapic')
        self.assert_vfio_works(VFIO_FAULTS)
        self.assert_quiet()

    def test_57_bits(self):
        _, cap, _ = self.work('intremap=on,aw-bits=57', cpu='max,la57=on')
        self.assertEqual(self.sagaw_and_mgaw(cap), (0xe, 57))
        self.assert_levels(5)
        self.assert_vfio_works(VFIO_FAULTS)
        self.assert_quiet()

    def test_pass_through_39_bits(self):
        _, cap, _ = self.work('intremap=on,aw-bits=39', 'iommu=pt',
                              domains='identity')
        self.assertEqual(self.sagaw_and_mgaw(cap), (0x2, 39))
        self.assert_remapped('xapic')
        # A device in user space gets a domain of its own all the same
        self.assert_vfio_works(VFIO_FAULTS)
        self.assert_quiet()

    def test_caching_mode(self):
        """Linux does not batch invalidations for a unit in this mode."""
        _, cap, _ = self.work('intremap=on,caching-mode=on', domains='DMA')
        self.assertTrue(cap & 1 << 7, 'CAP.CM')
        self.assert_remapped('xapic')
        self.assert_vfio_works(VFIO_FAULTS)
        self.assert_quiet()

    def test_x2apic(self):
        _, _, disks = self.work('intremap=on,eim=on', cpu='max,+x2apic')
        self.assert_remapped('x2apic')
        self.assertTrue('x2apic enabled' in self.guest.log_text())
        self.move_interrupts(disks)
        self.assert_quiet()

    def test_without_interrupt_remapping(self):
        guest, _, disks = self.work('intremap=off', interrupts=False)
        self.assertFalse('Enabled IRQ remapping' in guest.log_text())
        counts = self.irq_counts()
        self.assertFalse([chip for chip in counts if chip.startswith('IR-')])
        self.assertGreater(sum(n for chip, n in counts.items()
                               if chip.startswith('PCI-MSI')), 100)
        self.assert_quiet()

    def test_second_kernel_lazy(self):
        kernel = self.need_kernel('QEMU_TEST_VTD_KERNEL2')
        _, _, disks = self.work('intremap=on', kernel=kernel)
        self.assert_remapped('xapic')
        self.assert_vfio_works(VFIO_FAULTS)
        self.move_interrupts(disks)
        self.assert_quiet()

    def test_second_kernel_strict_x2apic(self):
        kernel = self.need_kernel('QEMU_TEST_VTD_KERNEL2')
        self.work('intremap=on,eim=on,aw-bits=48', 'iommu.strict=1',
                  domains='DMA', kernel=kernel, cpu='max,+x2apic')
        self.assert_remapped('x2apic')
        self.assert_vfio_works(VFIO_FAULTS)
        self.assert_quiet()


if __name__ == '__main__':
    VTDGuestTest.main()
