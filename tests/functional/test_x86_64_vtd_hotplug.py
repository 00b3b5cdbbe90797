#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Devices that come and go behind the VT-d unit: each gets a domain, does
# checked I/O, and leaves no translation behind for the one that follows it
# in the same slot.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

from vtd_guest.hardware import VIRTIO
from vtd_guest.testcase import VTDGuestTest

PORTS = ['-device', 'pcie-root-port,id=port0,chassis=1,slot=1',
         '-device', 'pcie-root-port,id=port1,chassis=2,slot=2']


class VTDHotPlug(VTDGuestTest):

    def add_node(self, disk):
        self.vm.cmd('blockdev-add', {
            'driver': 'raw', 'node-name': disk.kind,
            'file': {'driver': 'file', 'filename': str(disk.path)}})

    def plug(self, device):
        self.assertEqual(self.hmp(f'device_add {device}'), '')

    def plug_disk(self, disk, bus):
        self.plug(f'{disk.device},id=hot-{disk.kind},bus={bus},'
                  f'drive={disk.kind}')
        self.guest.run(f'wait_for 150 has_media {disk.name}', 60)

    def unplug(self, name, gone=None):
        self.vm.cmd('device_del', id=name)
        self.vm.event_wait('DEVICE_DELETED', 30,
                           match={'data': {'device': name}})
        if gone:
            self.guest.run(f'wait_for 50 is_gone {gone}')

    def groups_of(self, bus):
        """IOMMU groups with a device behind the root port"""
        return [value for key, value in self.guest.facts('iommu_facts')
                if key == 'group' and f'0000:{bus:02x}:' in value]

    def disk_comes_and_goes(self, disk, bus):
        number = {'port0': 1, 'port1': 2}[bus]
        self.assertEqual(self.groups_of(number), [])
        self.plug_disk(disk, bus)
        group, = self.groups_of(number)
        self.assertTrue(group.startswith('DMA-FQ'), group)
        self.assert_disk_works(disk)
        self.unplug(f'hot-{disk.kind}', gone=disk.name)
        self.assertEqual(self.groups_of(number), [])

    def network_comes_and_goes(self):
        self.vm.cmd('netdev_add', type='hubport', id='hot0', hubid=0)
        self.plug(f'virtio-net-pci,{VIRTIO},id=hot-net,bus=port0,'
                  'netdev=hot0,romfile=')
        self.guest.run('wait_for 50 interface_of virtio_net')
        self.assert_network_works()
        self.unplug('hot-net')
        self.vm.cmd('netdev_del', id='hot0')

    def test_hotplug(self):
        virtio, nvme = self.new_disks('virtio', 'nvme')
        guest = self.boot(devices=PORTS + [
            '-netdev', 'hubport,id=fixed0,hubid=0',
            '-device', 'e1000e,netdev=fixed0,rombar=0'])
        self.assert_unit_on()
        for disk in (virtio, nvme):
            self.add_node(disk)
        # In each other's slots, so that the second one finds what the first
        # may have left in the unit's caches under the same requester
        for _ in range(2):
            self.disk_comes_and_goes(virtio, 'port0')
            self.disk_comes_and_goes(nvme, 'port0')
            self.network_comes_and_goes()
        # Both at once, and one of them goes while the other works
        self.plug_disk(virtio, 'port0')
        self.plug_disk(nvme, 'port1')
        guest.run('start_loops nvme0n1')
        self.wait_loops(['nvme0n1'])
        self.assert_disk_works(virtio)
        self.unplug('hot-virtio', gone='vda')
        self.wait_loops(['nvme0n1'])
        guest.run('stop_loops')
        self.unplug('hot-nvme', gone='nvme0n1')
        self.assert_unit_on()
        self.assert_quiet()


if __name__ == '__main__':
    VTDGuestTest.main()
