#!/usr/bin/env python3
#
# A reader of dirty bitmap files, from docs/interop/dirty-bitmap-file.rst alone
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import struct
import sys
import uuid
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

BLOCK = 4096
PAYLOAD = 4072
PAGE_BITS = 8 * PAYLOAD
TABLE_REFS = 254
SECTOR_BITS = 3904
SLOT_BITS = 8 * SECTOR_BITS
MODES = ('off', 'process', 'power')

CRC_TABLE = []
for i in range(256):
    crc = i
    for _ in range(8):
        crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    CRC_TABLE.append(crc)


def crc32c(data: bytes) -> int:
    crc = 0xffffffff
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc ^ 0xffffffff


class Damaged(Exception):
    """What is there cannot be used."""


@dataclass
class Header:
    generation: int
    disk_size: int
    uuid: uuid.UUID
    clean: bool
    untrusted: bool
    mode: str
    boot_id: uuid.UUID
    directory: int
    directory_length: int
    directory_crc: int
    intent: int
    pairs: int
    extent: int
    disk_time: int


@dataclass
class Bitmap:
    """`dirty` has the numbers of bits that are set; None if inconsistent."""
    name: str
    granularity: int
    enabled: bool
    inconsistent: bool
    bits: int
    tables: List[Tuple[int, int]]
    dirty: Optional[Set[int]] = field(default=None)

    def ranges(self, size: int) -> List[Tuple[int, int]]:
        """Offset and length of what is dirty, neighbours joined."""
        result: List[Tuple[int, int]] = []
        for bit in sorted(self.dirty or ()):
            start = bit * self.granularity
            end = min(start + self.granularity, size)
            if result and sum(result[-1]) == start:
                result[-1] = (result[-1][0], end - result[-1][0])
            else:
                result.append((start, end - start))
        return result


def need(condition: bool, what: str) -> None:
    if not condition:
        raise Damaged(what)


def decode_header(block: bytes, offset: int) -> Header:
    need(block[:8] == bytes.fromhex('5144424d0d0a1a0a'), 'header magic')
    sealed(block, offset, 'header')
    version, length = struct.unpack_from('<II', block, 8)
    need(version == 1, 'version')
    need(136 <= length <= 4092, 'length of the header')
    incompatible, _, _, generation, disk_size = \
        struct.unpack_from('<QQQQQ', block, 16)
    need(incompatible == 0, 'features')
    need(1 <= generation < 1 << 63, 'generation')
    need(disk_size % 512 == 0, 'size of the disk')
    flags, mode = struct.unpack_from('<II', block, 72)
    need(flags < 4, 'flags')
    need(mode < len(MODES), 'mode')
    directory, directory_length, directory_crc, intent, pairs, extent_bits, \
        disk_time = struct.unpack_from('<QIIQIIq', block, 96)
    need(20 <= extent_bits <= 40, 'extents')
    need(disk_size <= 1 << 24 + extent_bits, 'number of extents')
    need(directory == 0 or 8 <= directory_length <= 1 << 20, 'directory')
    return Header(generation, disk_size, uuid.UUID(bytes=block[56:72]),
                  bool(flags & 1), bool(flags & 2), MODES[mode],
                  uuid.UUID(bytes=block[80:96]), directory, directory_length,
                  directory_crc, intent, pairs, 1 << extent_bits, disk_time)


def sealed(block: bytes, offset: int, what: str) -> None:
    need(len(block) == BLOCK, f'{what} beyond the end')
    crc = crc32c(struct.pack('<Q', offset) + block[:4092])
    need(struct.unpack_from('<I', block, 4092)[0] == crc, f'{what} checksum')


class DirtyBitmapFile:
    """What is in the file of that name, which nobody writes to."""

    def __init__(self, filename: str, boot_id: Optional[str] = None):
        with open(filename, 'rb') as file:
            self.data = file.read()
        self.seen: Set[int] = set()
        self.boot_id = uuid.UUID(boot_id or this_boot())
        self.whole = True
        self.header = self.read_header()
        self.trust = self.read_trust()
        self.bitmaps: Dict[str, Bitmap] = {}
        for bitmap in self.read_directory():
            need(bitmap.name not in self.bitmaps, 'two of the same name')
            self.bitmaps[bitmap.name] = bitmap
        extents = self.intents() if self.trust == 'intents' else set()
        for bitmap in self.bitmaps.values():
            self.read_bits(bitmap, extents)

    def at(self, offset: int, length: int = BLOCK) -> bytes:
        need(offset % BLOCK == 0 and 8192 <= offset < 1 << 32, 'offset')
        return self.data[offset:offset + length]

    def read_header(self) -> Header:
        """The one that counts; self.whole: and both copies are valid"""
        headers, why = [], None
        for offset in (0, BLOCK):
            try:
                headers.append(decode_header(self.data[offset:offset + BLOCK],
                                             offset))
            except Damaged as e:
                why = e
        if not headers:
            raise why or Damaged('header')
        self.whole = len(headers) == 2
        return max(headers, key=lambda h: h.generation)

    def read_trust(self) -> str:
        """'clean', 'intents', or why no bitmap can be used"""
        header = self.header
        if header.untrusted:
            return 'untrusted'
        if header.clean:
            return 'clean'
        if header.mode == 'off':
            return 'not closed'
        if header.mode == 'process' and (header.boot_id != self.boot_id or
                                         header.boot_id.int == 0):
            return 'another boot'
        return 'intents'

    def read_directory(self) -> List[Bitmap]:
        header = self.header
        if header.directory == 0:
            return []
        data = self.at(header.directory, header.directory_length)
        need(len(data) == header.directory_length, 'directory beyond the end')
        need(crc32c(data) == header.directory_crc, 'directory checksum')
        need(data[:4] == b'QDBD', 'directory magic')
        entries = struct.unpack_from('<I', data, 4)[0]
        need(entries <= 64, 'number of bitmaps')
        result, offset = [], 8
        for _ in range(entries):
            length = struct.unpack_from('<I', data, offset)[0]
            result.append(self.read_entry(data[offset:offset + length]))
            offset += length
        need(offset == len(data), 'length of the directory')
        need(sum(b.bits for b in result) <= 1 << 33, 'bits of all bitmaps')
        return result

    def read_entry(self, data: bytes) -> Bitmap:
        _, name_length, granularity_bits, flags, tables = \
            struct.unpack_from('<IHBBI', data)
        need(9 <= granularity_bits <= 31, 'granularity')
        need(flags < 4, 'flags of a bitmap')
        need(1 <= name_length <= 1023, 'name')
        end = 16 + 16 * tables
        refs = list(struct.iter_unpack('<QQ', data[16:end]))
        name = data[end:end + name_length].decode()
        granularity = 1 << granularity_bits
        bits = -(-self.header.disk_size // granularity)
        pages = -(-bits // PAGE_BITS)
        need(tables == -(-pages // TABLE_REFS), 'number of tables')
        usable = self.trust in ('clean', 'intents')
        return Bitmap(name, granularity, bool(flags & 1),
                      bool(flags & 2) or not usable, bits, refs)

    def block(self, magic: bytes, index: int, ref: Tuple[int, int]) -> bytes:
        offset, generation = ref
        need(offset not in self.seen, 'two references to a block')
        self.seen.add(offset)
        block = self.at(offset)
        what = magic.decode()
        sealed(block, offset, what)
        need(block[:4] == magic, f'{what} magic')
        need(struct.unpack_from('<IQ', block, 4) == (index, generation),
             f'{what} index or generation')
        return block[16:16 + PAYLOAD]

    def read_bits(self, bitmap: Bitmap, extents: Set[int]) -> None:
        if bitmap.inconsistent:
            return
        dirty: Set[int] = set()
        pages = -(-bitmap.bits // PAGE_BITS)
        for t, table in enumerate(bitmap.tables):
            n = min(TABLE_REFS, pages - t * TABLE_REFS)
            if table[0] in (0, 1):
                refs = [table] * n
            else:
                payload = self.block(b'QDBT', t, table)
                refs = list(struct.iter_unpack('<QQ', payload[:16 * n]))
            for p, ref in enumerate(refs, t * TABLE_REFS):
                dirty |= self.page_bits(p, ref, bitmap.bits)
        if bitmap.enabled:
            for extent in extents:
                first = extent * self.header.extent // bitmap.granularity
                end = (extent + 1) * self.header.extent
                last = min(-(-end // bitmap.granularity), bitmap.bits)
                dirty.update(range(first, last))
        bitmap.dirty = dirty

    def page_bits(self, page: int, ref: Tuple[int, int],
                  bits: int) -> Set[int]:
        first = page * PAGE_BITS
        last = min(first + PAGE_BITS, bits)
        if ref[0] == 0:
            return set()
        if ref[0] == 1:
            return set(range(first, last))
        payload = self.block(b'QDBP', page, ref)
        return {bit for bit in range(first, last)
                if payload[(bit - first) // 8] >> (bit - first) % 8 & 1}

    def sector(self, pair: int, slot: int, n: int) -> Optional[Tuple[int, int]]:
        """Sequence and payload of a sector of a slot; None: damaged"""
        offset = self.header.intent + 8192 * pair + 4096 * slot + 512 * n
        data = self.data[offset:offset + 512]
        if len(data) < 512 or data[:4] != b'QDBI':
            return None
        number, sequence = struct.unpack_from('<IQ', data, 4)
        crc = crc32c(struct.pack('<Q', offset) + data[:508])
        if number != 8 * pair + n or \
           crc != struct.unpack_from('<I', data, 508)[0]:
            return None
        return sequence, int.from_bytes(data[16:504], 'little')

    def slots(self, pair: int) -> Optional[int]:
        """The bits that count of a pair; None: all of them"""
        whole = []
        for slot in range(2):
            sectors = [self.sector(pair, slot, n) for n in range(8)]
            if None in sectors:
                return None
            if len({sequence for sequence, _ in sectors}) == 1:
                bits = sum(payload << SECTOR_BITS * n
                           for n, (_, payload) in enumerate(sectors))
                whole.append((sectors[0][0], bits))
        if not whole or (len(whole) == 2 and whole[0][0] == whole[1][0]):
            return None
        return max(whole)[1]

    def intents(self) -> Set[int]:
        header = self.header
        extents = -(-header.disk_size // header.extent)
        result: Set[int] = set()
        for pair in range(header.pairs):
            first = pair * SLOT_BITS
            n = max(min(SLOT_BITS, extents - first), 0)
            bits = self.slots(pair)
            if bits is None:
                result.update(range(first, first + n))
            else:
                result.update(first + i for i in range(n) if bits >> i & 1)
        return result


def this_boot() -> str:
    with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
        return file.read().strip()


def main() -> None:
    file = DirtyBitmapFile(sys.argv[1])
    size = file.header.disk_size
    print(json.dumps({
        'disk-size': size, 'trust': file.trust, 'mode': file.header.mode,
        'bitmaps': {b.name: {'granularity': b.granularity,
                             'enabled': b.enabled,
                             'inconsistent': b.inconsistent,
                             'dirty': b.ranges(size)}
                    for b in file.bitmaps.values()}}, indent=2))


if __name__ == '__main__':
    main()
