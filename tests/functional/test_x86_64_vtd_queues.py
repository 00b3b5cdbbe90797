#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Devices with several queues and interrupts behind the VT-d unit: traffic in
# all of them from two processors at a time, every byte of it compared.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

from vtd_guest.hardware import VIRTIO
from vtd_guest.testcase import VTDGuestTest

DISKS = ('vda', 'nvme0n1', 'sda')

# Two pairs of network devices, each joined by a hub.  Two igb cannot be on one
# bus: their virtual functions would be in the same slots.
NICS = [
    '-netdev', 'hubport,id=port0,hubid=0',
    '-netdev', 'hubport,id=port1,hubid=0',
    '-device', 'e1000e,netdev=port0,mac=52:54:00:00:00:01,rombar=0',
    '-device', f'virtio-net-pci,{VIRTIO},netdev=port1,'
    'mac=52:54:00:00:00:02,rombar=0',
    '-netdev', 'hubport,id=port2,hubid=1',
    '-netdev', 'hubport,id=port3,hubid=1',
    '-device', 'pcie-root-port,id=rp0,chassis=1',
    '-device', 'igb,bus=rp0,netdev=port2,mac=52:54:00:00:00:03,'
    'rombar=0',
    '-device', 'pcie-root-port,id=rp1,chassis=2',
    '-device', 'igb,bus=rp1,netdev=port3,mac=52:54:00:00:00:04,'
    'rombar=0',
]

# Each of these has an interrupt of its own, which must have come.  (So has
# each queue of an igb; its second ones see little but the driver's own
# watchdog, since a hash of these frames chooses the first.)
QUEUES = ('virtio0-req.0', 'virtio0-req.1', 'nvme0q1', 'nvme0q2',
          'virtio1-input.0', 'virtio1-output.0')


class VTDQueues(VTDGuestTest):

    def counts(self):
        """{name: interrupts so far} of interrupts that are remapped"""
        found = {}
        for key, value in self.guest.facts('irq_facts'):
            _, chip, count, name = value.split()
            if key == 'irq' and chip.startswith('IR-PCI-MSI'):
                found[name] = int(count)
        return found

    def igb_interfaces(self):
        text = self.guest.run(
            'for n in /sys/class/net/eth*; do d=$(readlink -f $n/device/'
            'driver); [ ${d##*/} = igb ] && basename $n; done; true')
        return text.split()

    def start_disks(self):
        """Each disk from both processors: one queue each, two loops"""
        for disk in DISKS:
            for cpu in (0, 1):
                self.guest.run(
                    f'taskset {1 << cpu} io-loop /dev/{disk} '
                    f'/tmp/loop.{disk}.{cpu} 0 {cpu} > /tmp/out.{disk}.{cpu} '
                    '2>&1 &')

    def start_nets(self, igb):
        pairs = {'e1000e': '$(interface_of e1000e) $(interface_of virtio_net)',
                 'igb': ' '.join(igb)}
        for name, pair in pairs.items():
            self.guest.run(f'for n in {pair}; do ip link set $n up; done; '
                           f'net-loop {pair} 0 /tmp/loop.{name} > '
                           f'/tmp/out.{name} 2>&1 &')
        return list(pairs)

    def test_all_queues(self):
        disks = self.new_disks('virtio', 'nvme', 'ahci')
        self.boot('intremap=on', disks, 'iommu.strict=1', NICS)
        self.assert_unit_on()
        self.assert_domains('DMA')
        igb = self.igb_interfaces()
        self.assertEqual(len(igb), 2)
        before = self.counts()
        self.start_disks()
        loops = self.start_nets(igb)
        loops += [f'{disk}.{cpu}' for disk in DISKS for cpu in (0, 1)]
        self.wait_loops(loops, more=5, timeout=240)
        for mask in (2, 1, 3):
            self.guest.run(f'move_irqs {mask}')
            self.wait_loops(loops, more=2, timeout=240)
        after = self.counts()
        queues = QUEUES + tuple(f'{name}-{way}-{n}' for name in igb
                                for way in ('rx', 'tx') for n in (0, 1))
        for queue in queues:
            self.assertGreater(after.get(queue, 0), before.get(queue, 0),
                               f'{queue}: {after}')
        self.guest.run('stop_loops')
        self.assert_quiet()


if __name__ == '__main__':
    VTDGuestTest.main()
