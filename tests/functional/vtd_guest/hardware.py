# SPDX-License-Identifier: GPL-2.0-or-later
#
# Command line arguments for a q35 machine whose devices are behind the unit.

import hashlib
import os
from pathlib import Path

MIB = 1024 * 1024
# Linux counts ticks in a busy loop early on, and panics where the host has been
# too busy to deliver them: no_timer_check
COMMAND_LINE = 'console=ttyS0 intel_iommu=on panic=1 no_timer_check'
VIRTIO = 'iommu_platform=on,disable-legacy=on'


class Disk:
    """A disk of 32 MiB whose first MiB the host has written."""

    SIZE = 32 * MIB
    WRITTEN_AT = 4 * MIB            # guest/checks.sh, disk_check
    WRITTEN_SIZE = 2 * MIB
    # The device's options and its name in the guest
    KINDS = {
        'virtio': ('virtio-blk-pci,' + VIRTIO, 'vda'),
        'nvme': ('nvme,serial=vtd', 'nvme0n1'),
        'ahci': ('ide-hd,bus=ide.0', 'sda'),
    }

    def __init__(self, kind, directory):
        self.kind = kind
        self.device, self.name = self.KINDS[kind]
        self.path = Path(directory, f'{kind}.img')
        self.format = 'raw'
        self.data = os.urandom(MIB)
        self.path.write_bytes(self.data)
        os.truncate(self.path, self.SIZE)

    def args(self):
        return ['-blockdev', f'driver={self.format},node-name={self.kind},'
                f'file.driver=file,file.filename={self.path}',
                '-device', f'{self.device},drive={self.kind},'
                f'id=disk-{self.kind}']

    def hash_of_data(self):
        return hashlib.sha256(self.data).hexdigest()

    def hash_of_written(self):
        """Of what the guest's disk_check has written, in the image file"""
        with open(self.path, 'rb') as image:
            image.seek(self.WRITTEN_AT)
            return hashlib.sha256(image.read(self.WRITTEN_SIZE)).hexdigest()


def nic_pair():
    """An e1000e and a virtio-net, joined by a hub: no host network needed"""
    return ['-netdev', 'hubport,id=port0,hubid=0',
            '-netdev', 'hubport,id=port1,hubid=0',
            '-device', 'e1000e,netdev=port0,mac=52:54:00:00:00:01,rombar=0',
            '-device', f'virtio-net-pci,{VIRTIO},netdev=port1,'
            'mac=52:54:00:00:00:02,rombar=0']


def unit_args(options=''):
    """The unit itself, before everything that is behind it"""
    device = 'intel-iommu'
    return ['-device', f'{device},{options}' if options else device]
