# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio-blk device that is given many small segments at once.

One kick submits REQUESTS writes to the disk; each is an indirect table of
SEGMENTS descriptors (header, data, status), and each data descriptor is 512
bytes in a random page of the working set.  The backend drops the data.

How many translations that makes can be told from the device's code.  QEMU
reads each descriptor of an indirect table through the IOMMU, and then maps
what it points to: two for each descriptor.  The ring itself adds about five
for each request.
"""

import random
from array import array

from qtest import BenchError, DATA, PAGE

REQUESTS = 128
SEGMENTS = 256                  # an indirect table is one page
TRANSLATIONS = REQUESTS * SEGMENTS * 2
SECTOR = 512

# PCI: command register, capabilities; virtio 1.2, section 4.1.4
PCI_COMMAND, PCI_BAR, PCI_CAPABILITIES = 0x04, 0x10, 0x34
MEMORY_AND_MASTER = 0x6
VENDOR_CAPABILITY = 0x09
COMMON, NOTIFY = 1, 2
BAR_BASE, BAR_SIZE = 0xe0000000, 1 << 20

# Section 4.1.4.3: offsets in the common configuration
FEATURE_SELECT, FEATURE = 0x08, 0x0c
STATUS, QUEUE_SELECT, QUEUE_SIZE = 0x14, 0x16, 0x18
QUEUE_ENABLE, QUEUE_NOTIFY_OFF = 0x1c, 0x1e
QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE = 0x20, 0x28, 0x30

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64
INDIRECT, VERSION_1, ACCESS_PLATFORM = 1 << 28, 1 << 0, 1 << 1

NEXT, WRITE, IS_INDIRECT = 1, 2, 4
NO_INTERRUPT = 1
BLK_T_OUT = 1
UNANSWERED = 0xff


class VirtioBlk:
    """One device, its ring and its requests"""

    def __init__(self, machine, index, devfn, pages, shift):
        self.machine = machine
        self.index = index
        self.devfn = devfn
        self.pages = pages
        self.shift = shift      # from guest-physical to what the device uses
        self.data = DATA + index * pages * PAGE
        # Ring: descriptors, available, used (section 2.7)
        self.ring = machine.allocate(4 * PAGE)
        self.available = self.ring + PAGE
        self.used = self.ring + 2 * PAGE
        # A header of 16 bytes and a status byte for each request
        self.headers = self.ring + 3 * PAGE
        self.status = self.headers + 16 * REQUESTS
        self.tables = machine.allocate(REQUESTS * PAGE)
        self.count = 0

    @staticmethod
    def args(index, devfn, iothread):
        return ['-blockdev', f'null-co,node-name=null{index},size={1 << 30},'
                'read-zeroes=off', '-device',
                f'virtio-blk-pci,drive=null{index},iothread={iothread},'
                f'addr={devfn >> 3:#x}.{devfn & 7},disable-legacy=on,'
                'iommu_platform=on,num-queues=1,queue-size=256,'
                'request-merging=off,rombar=0']

    def map(self, domain):
        """What the device may reach: ring, tables, data"""
        end = self.tables + REQUESTS * PAGE
        domain.map(self.ring, (end - self.ring) // PAGE)
        domain.map(self.data, self.pages)

    def prepare(self, walk=False):
        """The requests: over random pages, or over each page in turn"""
        choose = random.Random(self.index)
        count = REQUESTS * (SEGMENTS - 2)
        if walk:
            order = choose.sample(range(self.pages), count)
        else:
            order = choose.choices(range(self.pages), k=count)
        for i in range(REQUESTS):
            self._request(i, order[i * (SEGMENTS - 2):])
        self.machine.put(self.available, 'HH', NO_INTERRUPT, 0)
        self.machine.put(self.available + 4, f'{REQUESTS}H', *range(REQUESTS))

    def _request(self, i, order):
        header = self.headers + 16 * i
        table = self.tables + PAGE * i
        words = array('Q')

        def segment(address, length, flags):
            following = len(words) // 2 + 1
            words.extend((address + self.shift,
                          length | flags << 32 | following << 48))

        self.machine.put(header, 'IIQ', BLK_T_OUT, 0, i * SEGMENTS)
        segment(header, 16, NEXT)
        for page in order[:SEGMENTS - 2]:
            segment(self.data + page * PAGE, SECTOR, NEXT)
        segment(self.status + i, 1, WRITE)
        self.machine.ram[table:table + PAGE] = words.tobytes()
        self.machine.put(self.ring + 16 * i, 'QIHH', table + self.shift,
                         PAGE, IS_INDIRECT, 0)

    def _find(self, kind):
        """Guest-physical address of a structure in a BAR, its capability"""
        machine, devfn = self.machine, self.devfn
        place = machine.config(devfn, PCI_CAPABILITIES, size=1)
        while place:
            if machine.config(devfn, place, size=1) == VENDOR_CAPABILITY and \
                    machine.config(devfn, place + 3, size=1) == kind:
                bar = machine.config(devfn, place + 4, size=1)
                base = BAR_BASE + self.index * BAR_SIZE
                machine.config(devfn, PCI_BAR + 4 * bar, base)
                machine.config(devfn, PCI_BAR + 4 * bar + 4, 0)
                return base + machine.config(devfn, place + 8), place
            place = machine.config(devfn, place + 1, size=1)
        raise BenchError(f'no virtio device at {devfn:#x}')

    def start(self):
        """Section 3.1.1: reset, features, queue, go"""
        machine = self.machine
        common, _ = self._find(COMMON)
        notify, capability = self._find(NOTIFY)
        machine.config(self.devfn, PCI_COMMAND, MEMORY_AND_MASTER, size=2)
        for value in (0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER):
            machine.write(1, common + STATUS, value)
        for half, bits in ((0, INDIRECT), (1, VERSION_1 | ACCESS_PLATFORM)):
            machine.write(4, common + FEATURE_SELECT, half)
            machine.write(4, common + FEATURE, bits)
        state = ACKNOWLEDGE | DRIVER | FEATURES_OK
        machine.write(1, common + STATUS, state)
        machine.write(2, common + QUEUE_SELECT, 0)
        machine.write(2, common + QUEUE_SIZE, REQUESTS)
        for register, address in ((QUEUE_DESC, self.ring),
                                  (QUEUE_DRIVER, self.available),
                                  (QUEUE_DEVICE, self.used)):
            machine.write(4, common + register,
                          (address + self.shift) & 0xffffffff)
            machine.write(4, common + register + 4,
                          (address + self.shift) >> 32)
        machine.write(2, common + QUEUE_ENABLE, 1)
        machine.write(1, common + STATUS, state | DRIVER_OK)
        multiplier = machine.config(self.devfn, capability + 16)
        self.doorbell = notify + multiplier * \
            machine.read(2, common + QUEUE_NOTIFY_OFF)
        self.common = common

    def submit(self):
        """All requests, once more"""
        self.machine.ram[self.status:self.status + REQUESTS] = \
            bytes([UNANSWERED]) * REQUESTS
        self.count = (self.count + REQUESTS) & 0xffff
        self.machine.put(self.available + 2, 'H', self.count)
        self.machine.write(2, self.doorbell, 0)

    def done(self):
        return self.machine.get(self.used + 2, 'H') == self.count

    def broken(self):
        """A device that could not reach its ring or buffers gives up"""
        return self.machine.read(1, self.common + STATUS) & NEEDS_RESET

    def check(self):
        answers = self.machine.ram[self.status:self.status + REQUESTS]
        if any(answers):
            raise BenchError(f'virtio-blk: {REQUESTS - answers.count(0)} of '
                             f'{REQUESTS} requests failed')
