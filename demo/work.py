# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demo lets the guest do, one function per row or group of rows."""

import hashlib
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import tempfile

from assets import DebianError
from machine import find_qemu
from vtd_guest.control import fault_lines
from vtd_guest.hardware import VIRTIO

GSTS = 0xfed9001c           # VT-d specification 11.4.4.2, global status
GSTS_TES = 1 << 31
GSTS_IRES = 1 << 25
DOMAIN = {'lazy': 'DMA-FQ', 'strict': 'DMA', 'pt': 'identity'}
MIB = 1024 * 1024


def find_qemu_img():
    beside = Path(find_qemu()).with_name('qemu-img')
    path = beside if beside.exists() else shutil.which('qemu-img')
    if path is None:
        raise DebianError('qemu-img not found beside QEMU: build it ("make")')
    return str(path)


class UserImage:
    """An image of the user's, attached so that the guest cannot change it"""

    READ = 4 * MIB

    def __init__(self, path):
        self.path = Path(path).resolve()
        done = subprocess.run([find_qemu_img(), 'info', '--output=json',
                               str(self.path)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise DebianError(f'DISK={path}: ' + done.stderr.strip())
        info = json.loads(done.stdout)
        self.format = info['format']
        self.size = min(self.READ, info['virtual-size']) // 65536 * 65536
        if not self.size:
            raise DebianError(f'DISK={path}: smaller than 64 KiB')

    @staticmethod
    def guest_name(others):
        return 'vdb' if 'vda' in others else 'vda'

    def args(self):
        name = str(self.path).replace(',', ',,')
        return ['-drive', f'if=none,id=user,snapshot=on,format={self.format},'
                f'file={name}',
                '-device', f'virtio-blk-pci,{VIRTIO},drive=user']

    def hash_on_host(self):
        """Of its beginning, read by qemu-img"""
        if self.format == 'raw':
            with open(self.path, 'rb') as image:
                return hashlib.sha256(image.read(self.size)).hexdigest()
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, 'head')
            subprocess.run([find_qemu_img(), 'dd', '-U', '-f', self.format,
                            '-O', 'raw', 'bs=65536', f'if={self.path}',
                            f'count={self.size // 65536}', f'of={copy}'],
                           check=True, stdout=subprocess.DEVNULL)
            return hashlib.sha256(copy.read_bytes()[:self.size]).hexdigest()


def unit_is_on(machine, setup, table):
    guest = machine.control
    gsts = machine.register(GSTS)
    facts = guest.facts('iommu_facts')
    version = dict(facts).get('version', 'none')
    found = 'DMAR: IOMMU enabled' in guest.log_text()
    table.row('Linux finds and enables the unit',
              f'dmar0 version {version}, GSTS {gsts:#010x} '
              f'({"translation on" if gsts & GSTS_TES else "off"})',
              found and gsts & GSTS_TES and dict(facts).get('unit') == 'dmar0')
    groups = [value for key, value in facts if key == 'group']
    wanted = DOMAIN[setup.mode]
    if setup.mode == 'lazy' and 'caching-mode=on' in os.environ.get('UNIT',
                                                                    ''):
        wanted = 'DMA'
    right = [g for g in groups if g.split()[0] == wanted]
    table.row(f'each device has its domain ({setup.mode})',
              f'{len(right)} of {len(groups)} groups have type {wanted}',
              groups and len(right) == len(groups))


def interrupts_are_remapped(machine, setup, table):
    guest = machine.control
    mode = 'x2apic' if setup.eim == 'on' else 'xapic'
    line = f'Enabled IRQ remapping in {mode} mode'
    gsts = machine.register(GSTS)
    table.row('Linux turns interrupt remapping on',
              line if line in guest.log_text() else f'no "{line}" in the log',
              line in guest.log_text() and gsts & GSTS_IRES)


def interrupts_came_in(machine, table):
    """After the work: they were delivered through the remapping table"""
    irqs = [value.split() for key, value in
            machine.control.facts('irq_facts') if key == 'irq']
    counts = {}
    for _, chip, count, _ in irqs:
        counts[chip] = counts.get(chip, 0) + int(count)
    remapped = [c for chip, c in counts.items() if chip.startswith('IR-PCI')]
    table.row('interrupts arrive remapped',
              ', '.join(f'{chip}: {n}' for chip, n in sorted(counts.items())
                        if n),
              sum(remapped) > 0 and counts.get('IR-IO-APIC', 0) > 0
              and not any(chip.startswith('PCI-MSI') for chip in counts))


def disk_works(machine, disk, table):
    facts = dict(machine.control.facts(f'disk_check {disk.name}', 90))
    from_host = facts.get('host_data') == disk.hash_of_data()
    written = facts.get('written')
    good = from_host and written == facts.get('read_back') \
        and written == disk.hash_of_written()
    table.row(f'{disk.kind} disk: read, write, read back',
              f'{disk.name}: host\'s data {"same" if from_host else "DIFFER"} '
              f'in the guest; guest\'s {str(written)[:8]}, read back '
              f'{str(facts.get("read_back"))[:8]}, in the image '
              f'{disk.hash_of_written()[:8]}', good)


def user_image_reads(machine, setup, table):
    image = setup.user_image
    name = setup.names()[-1]
    guest = machine.control.run(f'hash_of {name} 0 {image.size // 65536}', 90)
    host = image.hash_on_host()
    table.row(f'{image.path.name}: read',
              f'{name}: first {image.size // 1024} KiB: guest '
              f'{guest.strip()[:8]}, host {host[:8]}', guest.strip() == host)


def network_works(machine, table):
    facts = dict(machine.control.facts('net_check e1000e virtio_net', 120))
    frames = int(facts.get('frames', 0))
    table.row('e1000e <-> virtio-net: both ways',
              f'{frames} frames compared byte by byte', frames > 0)


def _steps(facts):
    return {value.split()[0]: value for key, value in facts if key == 'step'}


def vfio_works(machine, table):
    guest = machine.control
    before = len(fault_lines(guest.log_text()))
    facts = guest.facts('vfio_check', 180)
    steps = _steps(facts)
    bad = [value for value in steps.values() if not value.endswith(' ok')]

    def passed(*names):
        return all(steps.get(name, '').endswith(' ok') for name in names)

    device = dict(facts).get('device', 'edu')
    table.row('VFIO: edu in user space: map, use',
              bad[0] if bad else f'{device}: DMA both ways across a page '
              'boundary, data equal, done by interrupt',
              passed('map', 'interrupt', 'copy', 'bounds'))
    new = fault_lines(guest.run('dmesg | tail -n 60'))
    faults = [re.sub(r'^\[[^]]*\] ', '', line) for line in new[before:]
              if 'DMAR: [' in line]
    _fault_row(table, 'VFIO: write to a read-only page',
               r'DMA Write.* 0x800000 .*reason 0x0?5', faults,
               passed('read-only-kept'))
    _fault_row(table, 'VFIO: write to an unmapped page',
               r'DMA Write.* 0x400000 .*reason 0x0?5', faults,
               passed('unmapped-kept'))
    _fault_row(table, 'VFIO: read from an unmapped page',
               r'DMA Read.* 0x400000 .*reason 0x0?6', faults,
               passed('unmapped-kept'))
    table.row('VFIO: map again, use', 'data equal after the faults',
              passed('map-again', 'copy-again') and not bad)


def _fault_row(table, tried, pattern, faults, kept):
    line = next((f for f in faults if re.search(pattern, f)), None)
    seen = line or 'Linux reports no such fault'
    if not kept:
        seen += '; the page was changed'
    table.row(tried, seen, line and kept)


def no_other_trouble(machine, table):
    log = machine.control.log_text()
    faults = [line for line in fault_lines(log) if 'DMAR: [' in line]
    machine.control.check_log()
    table.row('no other fault, no kernel complaint',
              f'{len(faults)} faults in the whole log, 3 of them provoked',
              len(faults) == 3)


def everything(machine, setup, table):
    for disk in setup.disks:
        table.expect(f'{disk.kind} disk: read, write, read back')
    for tried in ('e1000e <-> virtio-net: both ways',
                  'VFIO: map again, use', 'interrupts arrive remapped',
                  'no other fault, no kernel complaint'):
        table.expect(tried)
    machine.control.wait_ready()
    unit_is_on(machine, setup, table)
    interrupts_are_remapped(machine, setup, table)
    for disk in setup.disks:
        disk_works(machine, disk, table)
    if setup.user_image:
        user_image_reads(machine, setup, table)
    network_works(machine, table)
    vfio_works(machine, table)
    interrupts_came_in(machine, table)
    no_other_trouble(machine, table)
