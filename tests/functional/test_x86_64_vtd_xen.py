#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The Xen hypervisor drives the VT-d unit, by code that owes nothing to Linux;
# a Linux dom0 uses disks and network through it.
#
# See vtd_guest/testcase.py for the variables that name Xen and the kernel.

import re

from vtd_guest import nic_pair
from vtd_guest.testcase import GSTS, GSTS_IRES, GSTS_QIES, GSTS_RTPS, \
    GSTS_TES, VTDGuestTest

# No RAM and no device is there on a machine with 1 GiB
HOLE = 0x50000000

# What Xen says of a request that the unit has refused, and of a unit that
# does not answer
COMPLAINT = re.compile(r'\[VT-D\](?:DMAR:|INTR-REMAP:).*|'
                       r'\[VT-D\].*(?:time|error|fail|invalid).*', re.I)


def comma(text):
    """In an argument where a comma ends a file's name"""
    return str(text).replace(',', ',,')


class VTDXen(VTDGuestTest):

    def xen_args(self, unit, disks, options):
        image, initramfs = self.boot_files(self.kernel)
        names = ','.join(disk.name for disk in disks)
        kernel = f'{image} console=hvc0 panic=1 vtd.disks={names}'
        args = ['-machine', 'kernel-irqchip=split', '-accel', 'tcg',
                '-smp', '2', '-m', '1024', '-nodefaults',
                '-device', f'intel-iommu,{unit}']
        for disk in disks:
            args += disk.args()
        return args + nic_pair() + [
            '-device', 'edu,dma_mask=0xffffffffffffffff',
            '-kernel', self.need_file('QEMU_TEST_VTD_XEN'),
            '-append', 'com1=115200,8n1 console=com1 loglvl=all '
            f'guest_loglvl=all dom0_mem=512M iommu=1,verbose {options}',
            '-initrd', f'{comma(kernel)},{comma(initramfs)}']

    def boot_xen(self, unit, options=''):
        self.disks = self.new_disks('virtio', 'nvme', 'ahci')
        self.vm.add_args(*self.xen_args(unit, self.disks, options))
        self.guest = self.launch(self.vm)
        self.guest.wait_ready(400)
        return self.guest

    def assert_says(self, *lines):
        log = self.guest.log_text()
        for line in lines:
            self.assertTrue(line in log, f'Xen does not say: {line}')

    def complaints(self):
        return COMPLAINT.findall(self.guest.new_log_text())

    def assert_interrupts(self):
        """Devices have interrupted, by the ways that Xen gives to dom0."""
        text = self.guest.run('cat /proc/interrupts')
        for chip, name in (('-msi-x', 'virtio'), ('-msi-x', 'nvme'),
                           ('-msi', 'ahci'), ('-ioapic-edge', 'ttyS1')):
            counts = [sum(int(n) for n in line.split()[1:3])
                      for line in text.splitlines()
                      if name in line and f'{chip} ' in line]
            self.assertGreater(sum(counts), 0, f'{name}: no {chip}')

    def work(self):
        gsts = self.register(GSTS)
        wanted = GSTS_TES | GSTS_RTPS | GSTS_QIES | GSTS_IRES
        self.assertEqual(gsts & wanted, wanted, f'GSTS is {gsts:#x}')
        self.assert_says('Intel VT-d Queued Invalidation enabled.',
                         'Intel VT-d Interrupt Remapping enabled.',
                         'I/O virtualisation enabled',
                         'Interrupt remapping enabled')
        for disk in self.disks:
            self.assert_disk_works(disk)
        self.assert_network_works()
        self.assert_interrupts()
        self.assertEqual(self.complaints(), [])

    def assert_stopped(self):
        """The DMA that nothing allows, and Xen's words for it"""
        self.guest.run(f'edu_reads_from {HOLE:#x}')
        said = self.complaints()
        self.assertEqual(len(said), 2, said)
        self.assertRegex(said[0], r'DMAR:\[DMA Read\] Request device '
                         rf'\[0000:00:05\.0\] fault addr {HOLE:x}')
        self.assertRegex(said[1], r'DMAR: reason 06 - PTE Read access')
        self.guest.forgive()
        self.assert_disk_works(self.disks[0])

    def test_xapic(self):
        self.boot_xen('intremap=on,eim=off')
        self.work()
        self.assert_stopped()

    def test_x2apic(self):
        self.vm.add_args('-cpu', 'max,+x2apic')
        self.boot_xen('intremap=on,eim=on')
        self.assert_says('Switched to APIC driver x2apic')
        self.work()


if __name__ == '__main__':
    VTDGuestTest.main()
