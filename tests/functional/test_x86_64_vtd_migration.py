#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The VT-d unit's state is saved and restored while the devices behind it are
# busy: snapshots, and migration between this QEMU and another version of it
# in both directions.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel and
# the other QEMU.

import subprocess
import time

from qemu_test.cmd import get_qemu_img

from vtd_guest import nic_pair
from vtd_guest.testcase import GSTS, VTDGuestTest

# NVMe cannot be migrated
KINDS = ['virtio', 'ahci']
DISKS = ['vda', 'sda']
LOOPS = DISKS + ['net']

# Registers that hold what the guest has set, and nothing that moves by
# itself (VT-d specification, 11.4): VER, CAP, ECAP, GSTS, RTADDR, FECTL,
# FEDATA, FEADDR, IQA, IECTL, IRTA
REGISTERS = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c, 0x20, 0x24, 0x38, 0x3c, 0x40,
             0x90, 0x94, 0xa0, 0xb8, 0xbc]


class VTDMigration(VTDGuestTest):

    def start_busy(self, guest, loops=LOOPS):
        delay = '' if 'net' in loops else 'DELAY=100 '
        guest.run(f'{delay}start_loops vda')
        guest.run('start_loops sda')
        if 'net' in loops:
            guest.run('start_net_loop e1000e virtio_net')
        self.wait_loops(loops, guest=guest)

    def unit_registers(self, vm):
        return {f'{offset:#x}': self.register(GSTS - 0x1c + offset, vm)
                for offset in REGISTERS}

    def assert_goes_on(self, guest, vm, before):
        """The loops go on from where they were, and nothing is lost."""
        loops = list(before)
        now = self.wait_loops(loops, 5, guest)
        for name in loops:
            self.assertGreater(now[name], before[name])
        self.assert_unit_on(vm=vm)
        self.assert_domains('DMA-FQ', guest)
        delivered = self.remapped_irqs(guest)
        guest.run('move_irqs 2')
        self.wait_loops(loops, 3, guest)
        guest.run('stop_loops')
        self.assertGreater(self.remapped_irqs(guest), delivered)
        self.assert_quiet(guest)

    def remapped_irqs(self, guest):
        return sum(n for chip, n in self.irq_counts(guest).items()
                   if chip.startswith('IR-PCI'))

    def to_qcow2(self, disk):
        target = disk.path.with_suffix('.qcow2')
        subprocess.run([get_qemu_img(self), 'convert', '-O', 'qcow2',
                        str(disk.path), str(target)], check=True)
        disk.path, disk.format = target, 'qcow2'

    def test_snapshot(self):
        disks = self.new_disks(*KINDS)
        for disk in disks:
            self.to_qcow2(disk)
        guest = self.boot(disks=disks, devices=nic_pair())
        self.start_busy(guest)
        before = self.loop_rounds(LOOPS)
        self.assertEqual(self.hmp('savevm busy'), '')
        # A file in the guest's memory: none of it was there when it was saved
        guest.run('touch /later')
        self.wait_loops(LOOPS, 10)
        self.assert_quiet()
        # Twice: what a first restore may leave behind meets the second one
        for _ in range(2):
            self.assertEqual(self.hmp('loadvm busy'), '')
            guest.run('test ! -e /later && touch /later')
            self.wait_loops(LOOPS, 10)
        # Into a unit that has been reset in between
        self.vm.cmd('stop')
        self.vm.cmd('system_reset')
        self.assertEqual(self.register(GSTS), 0)
        self.assertEqual(self.hmp('loadvm busy'), '')
        self.assert_unit_on()
        self.vm.cmd('cont')
        self.assert_goes_on(guest, self.vm, before)
        for disk in disks:
            self.assert_disk_works(disk)

    def new_machine(self, name, binary, disks):
        own, self.qemu_bin = self.qemu_bin, binary
        vm = self.get_vm(name=name)
        self.qemu_bin = own
        vm.add_args(*self.common_args('intremap=on', disks, ''), *nic_pair())
        return vm

    def wait_migrated(self, source, target):
        deadline = time.monotonic() + 120
        while True:
            status = source.cmd('query-migrate').get('status')
            if status == 'completed':
                break
            self.assertNotEqual(status, 'failed', source.cmd('query-migrate'))
            self.assertLess(time.monotonic(), deadline, status)
            time.sleep(0.2)
        while target.cmd('query-status')['status'] != 'running':
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)

    def migrate(self, first, second, loops):
        """From one binary to the other while these loops are busy"""
        disks = self.new_disks(*KINDS)
        source = self.new_machine('source', first, disks)
        target = self.new_machine('target', second, disks)
        target.add_args('-incoming', 'defer')
        guest = self.launch(source, 'source')
        guest.wait_ready()
        self.start_busy(guest, loops)
        arrived = self.launch(target, 'target')

        uri = 'unix:' + self.socket_dir().name + '/migrate'
        target.cmd('migrate-incoming', uri=uri)
        source.cmd('migrate-set-parameters',
                   {'max-bandwidth': 1 << 30, 'downtime-limit': 2000})
        before = self.loop_rounds(loops, guest)
        source.cmd('migrate', uri=uri)
        self.wait_migrated(source, target)

        self.assert_quiet(guest)
        self.assertEqual(self.unit_registers(source),
                         self.unit_registers(target))
        source.shutdown()
        self.assert_goes_on(arrived, target, before)
        for disk in disks:
            self.assert_disk_works(disk, arrived)
        self.assert_network_works(arrived, rounds=10)

    # QEMU 10.0.13 writes used element 759 of a virtio ring to two pages as if
    # they were adjacent (address_space_write_cached_slow), and the guest dies
    # of that, if they are not.  Where it takes part, virtio has little to do;
    # AHCI is as busy as it can be.

    def test_from_stock(self):
        self.migrate(self.need_stock(), self.qemu_bin, DISKS)

    def test_to_stock(self):
        self.migrate(self.qemu_bin, self.need_stock(), DISKS)

    def test_to_itself(self):
        self.migrate(self.qemu_bin, self.qemu_bin, LOOPS)


if __name__ == '__main__':
    VTDGuestTest.main()
