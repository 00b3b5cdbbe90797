# SPDX-License-Identifier: GPL-2.0-or-later
"""The remapping unit of q35, as a driver sees it: tables, queue, on and off.

Written from the VT-d specification, revision 4.1; sections are of that one.
Every domain maps the IOVA of a guest-physical address to that address:
IOVA = address + SHIFT.  SHIFT is not 0, so that a request which is not
translated cannot succeed.
"""

from array import array

from qtest import BenchError, PAGE

BASE = 0xfed90000
SHIFT = 4 << 30

# Registers, section 11.4
CAP, ECAP, GCMD, GSTS, RTADDR, FSTS = 0x08, 0x10, 0x18, 0x1c, 0x20, 0x34
IQH, IQT, IQA = 0x80, 0x88, 0x90

# Sections 11.4.2, 11.4.3, 11.4.4.1, 11.4.5, 11.4.7.1
CAP_SAGAW_48 = 1 << 10
ECAP_PT, ECAP_SMTS, ECAP_SSTS, ECAP_FSTS = (1 << n for n in (6, 43, 46, 47))
GCMD_TE, GCMD_SRTP, GCMD_QIE = 1 << 31, 1 << 30, 1 << 26
RTADDR_SCALABLE = 1 << 10
FSTS_PPF = 1 << 1
FSTS_IQE = 1 << 4

LEVELS = 4                      # 48 bits
PRESENT = 1
ROOT_ENTRY = 16

# Second-stage entry: R, W (section 9.8); first-stage: P, R/W, U/S, A, D (9.7)
SECOND_RW = 0b11
FIRST_RW = 0b1100111

# Context entry, section 9.3; PASID table entry, section 9.6
CONTEXT_ALL, CONTEXT_PASS_THROUGH = 0 << 2, 2 << 2
AW_48 = 2
PGTT_FIRST, PGTT_SECOND = 1 << 6, 2 << 6

# Descriptors, section 6.5.2: type, and granularity in bits 5:4
CONTEXT_GLOBAL = 0x1 | 1 << 4
IOTLB_GLOBAL, IOTLB_DOMAIN, IOTLB_PAGE = (0x2 | g << 4 for g in (1, 2, 3))
WAIT = 0x5 | 1 << 5          # with a status write

# What the properties of the unit must be for a mode, and which bits of ECAP
# say that it is there
MODES = {
    'off': ('', 0),
    'pass-through': ('', ECAP_PT),
    'legacy': ('', 0),
    'second': (',x-scalable-mode=on', ECAP_SMTS | ECAP_SSTS),
    'first': (',x-scalable-mode=on,x-flts=on', ECAP_SMTS | ECAP_FSTS),
}

QUEUE_ORDER = 7                 # 2^(7 + 8) descriptors, the most there can be
QUEUE_SLOTS = 256 << QUEUE_ORDER


class Domain:
    """Paging tables under one domain-id"""

    def __init__(self, machine, number, first_stage=False):
        self.machine = machine
        self.number = number
        self.entry = FIRST_RW if first_stage else SECOND_RW
        self.top = machine.allocate(PAGE)

    def _table(self, iova):
        """The last-level table for an address; made with what leads to it"""
        table = self.top
        for level in range(LEVELS, 1, -1):
            slot = table + (iova >> (3 + 9 * level) & 511) * 8
            entry = self.machine.get(slot, 'Q')
            if not entry:
                entry = self.machine.allocate(PAGE) | self.entry
                self.machine.put(slot, 'Q', entry)
            table = entry & -PAGE
        return table

    def map(self, address, pages):
        """Map SHIFT + address to address"""
        end = address + pages * PAGE
        while address < end:
            iova = address + SHIFT
            first = iova // PAGE & 511
            count = min(512 - first, (end - address) // PAGE)
            entries = array('Q', range(address | self.entry,
                                       address + count * PAGE, PAGE))
            slot = self._table(iova) + first * 8
            self.machine.ram[slot:slot + count * 8] = entries.tobytes()
            address += count * PAGE


class Unit:
    """The unit of a machine, and the tables for one mode"""

    def __init__(self, machine, mode):
        self.machine = machine
        self.mode = mode
        self.scalable = mode in ('second', 'first')
        self.root = machine.allocate(PAGE)
        self.queue = machine.allocate(QUEUE_SLOTS * 16)
        self.status = machine.allocate(PAGE)
        self.tail = 0
        self.gcmd = 0
        self.context = 0

    def supported(self):
        """Does the unit say that it has the mode?"""
        needed = MODES[self.mode][1]
        ecap = self.machine.read(8, BASE + ECAP)
        sagaw = self.machine.read(8, BASE + CAP) & CAP_SAGAW_48
        return bool(sagaw) and ecap & needed == needed

    def domain(self, number):
        return Domain(self.machine, number, self.mode == 'first')

    def attach(self, devfn, domain):
        """Put a device of bus 0 into a domain"""
        if self.scalable:
            self._attach_scalable(devfn, domain)
            return
        if not self.context:
            self.context = self.machine.allocate(PAGE)
            self.machine.put(self.root, 'Q', self.context | PRESENT)
        kind = CONTEXT_PASS_THROUGH if self.mode == 'pass-through' \
            else CONTEXT_ALL
        self.machine.put(self.context + devfn * 16, 'QQ',
                         domain.top | kind | PRESENT,
                         domain.number << 8 | AW_48)

    def _attach_scalable(self, devfn, domain):
        """Root, context, PASID directory and table (sections 9.2 to 9.6)"""
        machine = self.machine
        if not self.context:
            self.context = machine.allocate(2 * PAGE)
            machine.put(self.root, 'QQ', self.context | PRESENT,
                        self.context + PAGE | PRESENT)
        directory = machine.allocate(PAGE)
        table = machine.allocate(PAGE)
        machine.put(self.context + devfn * 32, 'Q', directory | PRESENT)
        machine.put(directory, 'Q', table | PRESENT)
        if self.mode == 'first':
            entry = (PGTT_FIRST | AW_48 << 2 | PRESENT, domain.number,
                     domain.top)
        else:
            entry = (domain.top | PGTT_SECOND | AW_48 << 2 | PRESENT,
                     domain.number, 0)
        machine.put(table, 'QQQ', *entry)

    def _command(self, bit, lasting=True):
        self.machine.write(4, BASE + GCMD, self.gcmd | bit)
        if not self.machine.wait_for(
                lambda: self.machine.read(4, BASE + GSTS) & bit, 2):
            raise BenchError(f'the unit does not answer command {bit:#x}')
        if lasting:
            self.gcmd |= bit

    def enable(self):
        """Queue on, tables in place, nothing cached, translation on"""
        write = self.machine.write
        write(8, BASE + IQA, self.queue | QUEUE_ORDER)
        self._command(GCMD_QIE)
        write(8, BASE + RTADDR,
              self.root | (RTADDR_SCALABLE if self.scalable else 0))
        self._command(GCMD_SRTP, lasting=False)
        self.flush(CONTEXT_GLOBAL)
        self.flush(IOTLB_GLOBAL)
        self._command(GCMD_TE)

    def put(self, low, high=0):
        """Write one descriptor without telling the unit"""
        self.machine.put(self.queue + self.tail * 16, 'QQ', low, high)
        self.tail = (self.tail + 1) % QUEUE_SLOTS

    def fill(self, descriptors):
        """Write all slots, so that turn() can submit them again and again"""
        words = array('Q', [word for pair in descriptors for word in pair])
        self.machine.ram[self.queue:self.queue + len(words) * 8] = \
            words.tobytes()

    def turn(self):
        """Tell the unit of all slots but one, which is as many as it takes"""
        self.tail = (self.tail - 1) % QUEUE_SLOTS
        self.kick()
        return QUEUE_SLOTS - 1

    def kick(self):
        """Tell the unit, which is done (or stopped) when this returns"""
        self.machine.write(8, BASE + IQT, self.tail << 4)

    def idle(self):
        """See that it was done"""
        if self.machine.read(8, BASE + IQH) != self.tail << 4:
            raise BenchError('the invalidation queue stands still: FSTS '
                             f'{self.machine.read(4, BASE + FSTS):#x}')

    def flush(self, low, high=0):
        self.put(low, high)
        self.kick()
        self.idle()

    def fault(self):
        """Was there a fault, of a request or of the queue?"""
        return self.machine.read(4, BASE + FSTS) & (FSTS_PPF | FSTS_IQE)
