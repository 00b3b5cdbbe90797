#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# SeaBIOS and OVMF drive disks behind the VT-d unit by themselves, before
# anybody has heard of it, to load Linux; Linux takes over, with translation.
#
# See vtd_guest/testcase.py for the variables that name firmware and kernel.

import hashlib
from pathlib import Path
import shutil

from vtd_guest import COMMAND_LINE
from vtd_guest.fat import write_fat
from vtd_guest.hardware import MIB, VIRTIO
from vtd_guest.image import boot_disk
from vtd_guest.testcase import VTDGuestTest

# The device that the firmware boots from, and its name in Linux beside a
# first disk of the same kind
BOOT = {
    'virtio': ('virtio-blk-pci,' + VIRTIO, 'vdb'),
    'nvme': ('nvme,serial=boot', 'nvme1n1'),
    'ahci': ('ide-hd,bus=ide.1', 'sdb'),
}
# Where Linux probes devices in no certain order: which is the first disk, and
# which the one that the firmware boots from
PROBED = {
    'nvme': ('nvme*n1', [f'grep -q "^{serial} *$" $b/device/serial'
                         for serial in ('vtd', 'boot')]),
    'ahci': ('sd*', [f'readlink -f $b | grep -q /ata{port}/'
                     for port in (1, 2)]),
}
READ_BACK = 24 * MIB


class VTDFirmware(VTDGuestTest):

    plain_boot = True

    def command_line(self, kind, disk):
        return f'{COMMAND_LINE} vtd.disks={disk.name},{BOOT[kind][1]}'

    def boot_from(self, kind, disk, image, *firmware):
        device, _ = BOOT[kind]
        self.vm.add_args('-machine', 'kernel-irqchip=split', '-accel', 'tcg',
                         '-smp', '2', '-m', '512', '-nodefaults',
                         '-device', 'intel-iommu,intremap=on', *firmware,
                         *disk.args(), '-blockdev',
                         'driver=raw,node-name=boot,file.driver=file,'
                         f'file.filename={image}',
                         '-device', f'{device},drive=boot,bootindex=0')
        self.guest = self.launch(self.vm)
        self.guest.wait_ready(400)

    def check(self, kind, disk, image):
        """Linux has the unit translate, and reads what the firmware read."""
        self.assert_unit_on()
        groups = [value for key, value in self.guest.facts('iommu_facts')
                  if key == 'group']
        self.assertTrue(groups)
        for group in groups:
            self.assertEqual(group.split()[0], 'DMA-FQ', group)
        name = BOOT[kind][1]
        if kind in PROBED:
            pattern, wanted = PROBED[kind]
            disk.name, name = [self.guest.run(
                f'for b in /sys/block/{pattern}; do if {test}; then '
                'basename $b; fi; done').strip() for test in wanted]
        text = self.guest.run(f'hash_of {name} 0 {READ_BACK // 65536}', 120)
        with open(image, 'rb') as file:
            digest = hashlib.sha256(file.read(READ_BACK)).hexdigest()
        self.assertEqual(text.strip(), digest)
        self.assert_disk_works(disk)
        self.assert_quiet()

    def seabios(self, kind):
        bios = self.need_file('QEMU_TEST_VTD_BIOS')
        disk, = self.new_disks(kind)
        image = self.scratch_file('boot.img')
        _, initramfs = self.boot_files(self.kernel)
        boot_disk(self.kernel, initramfs, self.command_line(kind, disk),
                  image)
        self.boot_from(kind, disk, image, '-bios', bios)
        self.check(kind, disk, image)

    def test_seabios_virtio(self):
        self.seabios('virtio')

    def test_seabios_nvme(self):
        self.seabios('nvme')

    def test_seabios_ahci(self):
        self.seabios('ahci')

    def ovmf(self, kind):
        """The shell in it finds a script on the disk, which starts Linux."""
        code = self.need_file('QEMU_TEST_VTD_OVMF')
        variables = self.scratch_file('variables.fd')
        shutil.copyfile(code.replace('CODE', 'VARS'), variables)
        disk, = self.new_disks(kind)
        image = self.scratch_file('boot.img')
        _, initramfs = self.boot_files(self.kernel)
        script = ('fs0:\r\n' 'linux.efi initrd=\\initrd.img '
                  f'{self.command_line(kind, disk)}\r\n')
        write_fat(image, {'startup.nsh': script.encode('ascii'),
                          'linux.efi': self.kernel.path.read_bytes(),
                          'initrd.img': Path(initramfs).read_bytes()})
        flash = 'if=pflash,format=raw'
        self.boot_from(kind, disk, image,
                       '-drive', f'{flash},readonly=on,file={code}',
                       '-drive', f'{flash},file={variables}')
        self.assertTrue('efi: EFI v2' in self.guest.log_text())
        self.check(kind, disk, image)

    def test_ovmf_virtio(self):
        self.ovmf('virtio')

    def test_ovmf_nvme(self):
        self.ovmf('nvme')

    def test_ovmf_ahci(self):
        self.ovmf('ahci')


if __name__ == '__main__':
    VTDGuestTest.main()
