# SPDX-License-Identifier: GPL-2.0-or-later
#
# A disk image with a FAT16 file system, which UEFI firmware reads; see
# "Microsoft Extensible Firmware Initiative FAT32 File System Specification",
# 1.03: "FAT" below.

import struct

SECTOR = 512
CLUSTER = 8 * SECTOR
RESERVED, ROOT_ENTRIES = 1, 512
# FAT, "FAT Type Determination": what makes it FAT16
CLUSTERS_MIN, CLUSTERS_MAX = 4085, 65524
END = 0xffff


def _boot_sector(sectors, fat_sectors):
    """FAT, "Boot Sector and BPB": without partitions, without code"""
    few = sectors if sectors < 65536 else 0
    return struct.pack(
        '<3s8sHBHBHHBHHHII', b'\xeb\x3c\x90', b'vtdguest', SECTOR,
        CLUSTER // SECTOR, RESERVED, 1, ROOT_ENTRIES, few, 0xf8, fat_sectors,
        63, 255, 0, 0 if few else sectors) + struct.pack(
        '<BBBI11s8s', 0x80, 0, 0x29, 1, b'VTDGUEST   ', b'FAT16   '
        ).ljust(SECTOR - 36 - 2, b'\0') + b'\x55\xaa'


def _directory_entry(name, cluster, size):
    """FAT, "FAT Directory Structure": a short name"""
    stem, _, suffix = name.upper().partition('.')
    assert len(stem) <= 8 and len(suffix) <= 3, name
    short = f'{stem:8}{suffix:3}'.encode('ascii')
    return struct.pack('<11sB14xHI', short, 0x20, cluster, size)


def write_fat(path, files):
    """
    Write an image with these files in its root directory.

    :param files: {name, as in MS-DOS: content}
    """
    table, entries, data = [0xfff8, END], b'', []
    for name, content in files.items():
        clusters = -(-len(content) // CLUSTER)
        first = len(table)
        table += [*range(first + 1, first + clusters), END][:clusters]
        entries += _directory_entry(name, first if clusters else 0,
                                    len(content))
        data.append(content.ljust(clusters * CLUSTER, b'\0'))
    clusters = max(len(table) - 2, CLUSTERS_MIN) + 1
    assert clusters <= CLUSTERS_MAX
    fat_sectors = -(-(clusters + 2) * 2 // SECTOR)
    root_sectors = ROOT_ENTRIES * 32 // SECTOR
    sectors = (RESERVED + fat_sectors + root_sectors
               + clusters * (CLUSTER // SECTOR))
    fat = struct.pack(f'<{len(table)}H', *table)
    with open(path, 'wb') as disk:
        disk.write(_boot_sector(sectors, fat_sectors))
        disk.write(fat.ljust(fat_sectors * SECTOR, b'\0'))
        disk.write(entries.ljust(root_sectors * SECTOR, b'\0'))
        for content in data:
            disk.write(content)
        disk.truncate(max(sectors * SECTOR, (disk.tell() | 0xfffff) + 1))
