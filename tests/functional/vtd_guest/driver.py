# SPDX-License-Identifier: GPL-2.0-or-later
#
# A driver of the VT-d unit and of "edu" devices behind it, for a machine that
# is driven over qtest (nested.py).  Written from the VT-d specification,
# revision 4.1, and docs/specs/edu.rst; sections are of the former.

import struct
import time

from .control import GuestFailure
from .nested import PAGE

BASE = 0xfed90000
# Registers, section 11.4
GCMD, GSTS, RTADDR, FSTS = 0x18, 0x1c, 0x20, 0x34
IQT, IQA = 0x88, 0x90
# Sections 11.4.4.1, 11.4.5, 11.4.9.3, 11.4.7.1
TE, SRTP, QIE = 1 << 31, 1 << 30, 1 << 26
RTADDR_SCALABLE = 1 << 10
IQA_WIDE = 1 << 11
FSTS_ERRORS = 0x73

# Second-stage entries, section 9.8
READ, WRITE, LARGE = 1, 2, 1 << 7
PRESENT = 1
# Context entry, section 9.3, and PASID table entry, section 9.6
TRANSLATE, PASS_THROUGH = 0 << 2, 2 << 2
SECOND_STAGE, SCALABLE_PASS_THROUGH = 2 << 6, 4 << 6

# Descriptors, section 6.5.2, and their granularity in bits 5:4
CONTEXT, IOTLB, WAIT, PASID_CACHE = 1, 2, 5, 7
GLOBAL, DOMAIN, PAGES = 1 << 4, 2 << 4, 3 << 4
CONTEXT_DEVICE = 3 << 4
PASID_CACHE_DOMAIN, PASID_CACHE_GLOBAL = 0 << 4, 3 << 4
STATUS_WRITE = 1 << 5
QUEUE_SLOTS = 256


class Domain:
    """Second-stage tables under one domain-id, of 3 or 4 levels"""

    def __init__(self, machine, number, levels):
        self.machine = machine
        self.number = number
        self.levels = levels
        self.top = machine.allocate()

    def slot(self, iova, level=1):
        """Where the entry for an address is; made with what leads to it"""
        table = self.top
        for above in range(self.levels, level, -1):
            slot = table + (iova >> (3 + 9 * above) & 511) * 8
            entry = self.machine.read(8, slot)
            if not entry:
                entry = self.machine.allocate() | READ | WRITE
                self.machine.write(8, slot, entry)
            table = entry & -PAGE
        return table + (iova >> (3 + 9 * level) & 511) * 8

    def map(self, iova, address, allowed=READ | WRITE, level=1):
        """One page of 4 KiB, or of 2 MiB (level 2)"""
        large = LARGE if level > 1 else 0
        self.machine.write(8, self.slot(iova, level),
                           address | allowed | large)

    def map_list(self, iova, addresses):
        """Pages one behind the other, in one table, that lead to these"""
        self._entries(iova, [a | READ | WRITE for a in addresses])

    def unmap_list(self, iova, pages):
        self._entries(iova, [0] * pages)

    def unmap(self, iova, level=1):
        self.machine.write(8, self.slot(iova, level), 0)

    def _entries(self, iova, entries):
        assert (iova // PAGE & 511) + len(entries) <= 512
        self.machine.put(self.slot(iova),
                         struct.pack(f'<{len(entries)}Q', *entries))


class Unit:
    """
    The unit with its tables, in legacy mode or in scalable mode, where a
    requester has an entry for requests without PASID only.  After each change
    software has to say so, as in caching mode (section 6.1).
    """

    def __init__(self, machine, scalable=False):
        self.machine = machine
        self.scalable = scalable
        self.root = machine.allocate()
        self.context = machine.allocate(2)
        self.width = 32 if scalable else 16
        self.queue = machine.allocate(QUEUE_SLOTS * self.width // PAGE)
        self.status = machine.allocate()
        self.pasid_tables = {}
        self.tail = self.waits = self.gcmd = 0
        high = self.context + PAGE | PRESENT if scalable else 0
        machine.put(self.root, struct.pack('<QQ', self.context | PRESENT,
                                           high))

    def _command(self, bit, on=True, lasting=True):
        wanted = self.gcmd | bit if on else self.gcmd & ~bit
        self.machine.write(4, BASE + GCMD, wanted)
        if bool(self.machine.read(4, BASE + GSTS) & bit) != on:
            raise GuestFailure(f'GSTS does not follow command {wanted:#x}')
        if lasting:
            self.gcmd = wanted

    def enable(self):
        # Section 11.4.9.3: as many descriptors in twice the room
        size = IQA_WIDE | 1 if self.scalable else 0
        self.machine.write(8, BASE + IQA, self.queue | size)
        self._command(QIE)
        mode = RTADDR_SCALABLE if self.scalable else 0
        self.machine.write(8, BASE + RTADDR, self.root | mode)
        self._command(SRTP, lasting=False)
        self.flush_all()
        self._command(TE)

    def translation(self, on):
        self._command(TE, on)

    # Invalidation

    def _put(self, low, high=0):
        self.machine.put(self.queue + self.tail * self.width,
                         struct.pack('<QQ', low, high))
        self.tail = (self.tail + 1) % QUEUE_SLOTS

    def submit(self, low, high=0):
        """One descriptor, and wait until the unit says that it is done"""
        self.waits += 1
        self._put(low, high)
        self._put(WAIT | STATUS_WRITE | self.waits << 32, self.status)
        self.machine.write(8, BASE + IQT, self.tail * self.width)
        deadline = time.monotonic() + 60
        while self.machine.read(4, self.status) != self.waits:
            fsts = self.machine.read(4, BASE + FSTS)
            if fsts & FSTS_ERRORS or time.monotonic() > deadline:
                raise GuestFailure(f'the queue stands still: FSTS {fsts:#x}')

    def flush_all(self):
        self.submit(CONTEXT | GLOBAL)
        if self.scalable:
            self.submit(PASID_CACHE | PASID_CACHE_GLOBAL)
        self.submit(IOTLB | GLOBAL)

    def flush_domain(self, domain):
        self.submit(IOTLB | DOMAIN | domain.number << 16)

    def flush_pages(self, domain, iova, order=0):
        """2^order pages"""
        self.submit(IOTLB | PAGES | domain.number << 16, iova | order)

    def flush_device(self, devfn, number):
        """What is cached of the device, that was in domain @number"""
        self.submit(CONTEXT | CONTEXT_DEVICE | number << 16 | devfn << 32)
        if self.scalable:
            self.submit(PASID_CACHE | PASID_CACHE_DOMAIN | number << 16)
        self.submit(IOTLB | DOMAIN | number << 16)

    # Devices of bus 0

    def attach(self, devfn, domain):
        """Into a domain, out of none or of another one"""
        width = domain.levels - 2
        if self.scalable:
            self._set(devfn, domain.top | SECOND_STAGE | width << 2,
                      domain.number)
        else:
            self._set(devfn, domain.top | TRANSLATE,
                      domain.number << 8 | width)

    def pass_through(self, devfn, number, levels):
        width = levels - 2
        if self.scalable:
            self._set(devfn, SCALABLE_PASS_THROUGH | width << 2, number)
        else:
            self._set(devfn, PASS_THROUGH, number << 8 | width)

    def detach(self, devfn):
        self.machine.write(8, self._slot(devfn), 0)

    def _set(self, devfn, low, high):
        slot = self._slot(devfn)
        self.machine.put(slot, struct.pack('<QQ', low | PRESENT, high))

    def _slot(self, devfn):
        """Its context entry, or its PASID table entry (sections 9.3 to 9.6)"""
        if not self.scalable:
            return self.context + devfn * 16
        if devfn not in self.pasid_tables:
            directory, table = self.machine.allocate(), self.machine.allocate()
            self.machine.write(8, directory, table | PRESENT)
            self.machine.write(8, self.context + devfn * 32,
                               directory | PRESENT)
            self.pasid_tables[devfn] = table
        return self.pasid_tables[devfn]


class Edu:
    """An "edu" device: one buffer of a page, from and to which it copies"""

    SOURCE, TARGET, COUNT, COMMAND, BUFFER = 0x80, 0x88, 0x90, 0x98, 0x40000
    RUN, TO_MEMORY = 1, 2

    def __init__(self, machine, devfn):
        self.machine = machine
        self.devfn = devfn
        self.bar = machine.free_bar
        machine.free_bar += 1 << 20
        machine.config(devfn, 0x10, self.bar)
        machine.config(devfn, 0x04, 0x06)       # memory, bus master
        identity = machine.read(4, self.bar)
        if identity != 0x010000ed:
            raise GuestFailure(f'{devfn:#x} is no edu device: {identity:#x}')

    def _copy(self, source, target, size, command):
        write = self.machine.write
        write(8, self.bar + self.SOURCE, source)
        write(8, self.bar + self.TARGET, target)
        write(8, self.bar + self.COUNT, size)
        write(8, self.bar + self.COMMAND, command)
        deadline = time.monotonic() + 30
        while self.machine.read(8, self.bar + self.COMMAND) & self.RUN:
            if time.monotonic() > deadline:
                raise GuestFailure('the edu device does not end a transfer')
            time.sleep(0.02)

    def load(self, iova, size=PAGE):
        """Memory into its buffer"""
        self._copy(iova, self.BUFFER, size, self.RUN)

    def store(self, iova, size=PAGE):
        """Its buffer into memory"""
        self._copy(self.BUFFER, iova, size, self.RUN | self.TO_MEMORY)
