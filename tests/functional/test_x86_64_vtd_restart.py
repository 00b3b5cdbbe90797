#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A Linux guest that starts anew, or sleeps and wakes, with the VT-d unit
# translating and its devices busy: reset, reboot, kexec, S3.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

import os
import tarfile
import time

from vtd_guest import nic_pair
from vtd_guest.hardware import VIRTIO
from vtd_guest.testcase import GSTS, VTDGuestTest

DISKS = ['vda', 'nvme0n1', 'sda']
LOOPS = DISKS + ['net']


class VTDRestart(VTDGuestTest):

    def boot_all(self, append='', devices=()):
        self.disks = self.new_disks('virtio', 'nvme', 'ahci')
        return self.boot('intremap=on', self.disks, append,
                         nic_pair() + list(devices))

    def start_busy(self):
        self.guest.run('start_loops ' + ' '.join(DISKS))
        self.guest.run('start_net_loop e1000e virtio_net')
        self.wait_loops(LOOPS)

    def assert_logged(self, text):
        self.assertTrue(text in self.guest.new_log_text(),
                        f'the kernel does not say: {text}')

    def assert_all_works(self):
        self.assert_unit_on()
        self.assert_domains('DMA-FQ')
        for disk in self.disks:
            self.assert_disk_works(disk)
        self.assert_network_works()
        self.assertIn('IR-IO-APIC', self.irq_counts())
        self.assert_quiet()

    def test_reset_and_reboot(self):
        guest = self.boot_all()
        self.start_busy()
        self.assert_quiet()
        # In the same stopped state: what the unit holds before and after
        self.vm.cmd('stop')
        self.assert_unit_on()
        self.vm.cmd('system_reset')
        self.assertEqual(self.register(GSTS), 0, 'GSTS after reset')
        self.vm.cmd('cont')
        guest.forgive()
        guest.wait_ready()
        self.assert_all_works()

        self.start_busy()
        guest.forgive()
        guest.send('reboot -f')
        guest.wait_ready()
        self.assert_all_works()

    def kexec_archive(self):
        """A disk image with the kernel and the initramfs for kexec-load"""
        _, initramfs = self.boot_files(self.kernel)
        path = self.scratch_file('kexec.tar')
        with tarfile.open(path, 'w') as archive:
            archive.add(self.kernel.path, 'kernel')
            archive.add(initramfs, 'initramfs')
        os.truncate(path, (os.path.getsize(path) | 0xffff) + 1)
        return ['-blockdev', 'driver=raw,node-name=files,read-only=on,'
                f'file.driver=file,file.filename={path}',
                '-device', f'virtio-blk-pci,{VIRTIO},drive=files',
                '-m', '1024']

    def test_kexec(self):
        """
        A kernel that finds the unit as another one has left it: remapping
        interrupts, by a table that is not its own.
        """
        guest = self.boot_all('', self.kexec_archive())
        self.start_busy()
        guest.run('cat /proc/cmdline > /tmp/cmdline; '
                  'tar xf /dev/vdb -C /tmp', 120)
        self.assert_quiet()
        guest.forgive()
        guest.send('kexec-load /tmp/kernel /tmp/initramfs '
                   '"$(cat /tmp/cmdline)"')
        guest.wait_ready(200)
        self.assert_logged('DMAR-IR: IRQ remapping was enabled on dmar0 '
                           'but we are not in kdump mode')
        self.assert_all_works()

    def wait_suspended(self):
        deadline = time.monotonic() + 60
        while self.vm.cmd('query-status')['status'] != 'suspended':
            self.assertLess(time.monotonic(), deadline, 'still awake')
            time.sleep(0.2)

    def test_sleep_and_wake(self):
        self.plain_boot = True
        guest = self.boot_all()
        guest.run('start_net_loop e1000e virtio_net')
        self.wait_loops(['net'])
        command = guest.send('echo mem > /sys/power/state')
        self.wait_suspended()
        self.vm.cmd('system_wakeup')
        guest.finish(command, 120, 'sleep and wake')
        self.assert_logged('Waking up from system sleep state S3')
        self.wait_loops(['net'])
        guest.run('stop_loops')
        self.assert_all_works()


if __name__ == '__main__':
    VTDGuestTest.main()
