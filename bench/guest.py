# SPDX-License-Identifier: GPL-2.0-or-later
"""Random reads in Linux guests: QEMU's model and ours beside each other.

The demo's guest, with a virtio and an NVMe disk whose data nobody keeps, and
one program more.  Linux maps and unmaps a buffer for each read: in strict
mode each read also costs an invalidation.

How fast a guest is differs much from one boot to the next, with either model:
both are booted anew for each pair of figures, in turns first, and the ratio is
given with its range.

The disks have no iothread: with one, guests on QEMU's own model die often, of
translations that were stale or of a fault outside the big lock.  Even so one
stalls now and then: after a fault its disk answers no more.  That is tried
again, and told if it happens each time; of ours it ends the run.
"""

import contextlib
import os
from pathlib import Path
import re
import statistics
import subprocess
import tempfile

import assets
from machine import Machine
from report import Table
from vtd_guest import COMMAND_LINE, GuestFailure, unit_args
from vtd_guest.image import Cpio

SOURCE = Path(__file__).parent / 'guest/random-read.c'
MODES = {'lazy': '', 'strict': ' iommu.strict=1'}
DISKS = {'virtio-blk': 'vda', 'nvme': 'nvme0n1'}
BOOTS, ROUNDS, SECONDS, DEPTH, ATTEMPTS = 5, 3, 1, 32, 3


class Stalled(Exception):
    """A guest on QEMU's own model does not answer any more"""


def _program(directory):
    output = Path(directory, 'random-read')
    subprocess.run(['gcc', '-static', '-O2', '-Wall', '-o', str(output),
                    str(SOURCE)], check=True)
    return output.read_bytes()


def _initramfs(kernel, directory):
    """The demo's, and behind it a second archive with our program"""
    image, initramfs = assets.boot_files(kernel)
    path = Path(directory, 'initramfs')
    with open(path, 'wb') as output:
        output.write(Path(initramfs).read_bytes())
        archive = Cpio(output)
        archive.file('bin/random-read', _program(directory), executable=True)
        archive.end()
    return image, path


def _args(image, initramfs, mode):
    null = f'null-co,size={1 << 30},read-zeroes=off'
    args = ['-machine', 'q35,kernel-irqchip=split', '-accel', 'tcg', '-smp',
            '1', '-m', '512', '-nodefaults', '-display', 'none', '-no-reboot',
            *unit_args(), '-blockdev', f'{null},node-name=virtio', '-device',
            'virtio-blk-pci,drive=virtio,iommu_platform=on,disable-legacy=on,'
            'rombar=0',
            '-blockdev', f'{null},node-name=nvme', '-device',
            'nvme,drive=nvme,serial=bench,rombar=0']
    if assets.bios():
        args += ['-bios', str(assets.bios())]
    return args + ['-kernel', str(image), '-initrd', str(initramfs),
                   '-append', f'{COMMAND_LINE} quiet vtd.disks='
                   + ','.join(DISKS.values()) + MODES[mode]]


def _reads_per_second(machine, disk):
    text = machine.control.run(f'random-read /dev/{disk} {SECONDS} {DEPTH}')
    reads, ns = map(int, re.search(r'reads=(\d+) ns=(\d+)', text).groups())
    return reads * 1e9 / ns


def _guests(binaries, boot, mode, logs, stack):
    guests = {}
    for name, binary in binaries.items():
        log = logs / f'bench-{name}-{mode}.log'
        log.unlink(missing_ok=True)
        machine = Machine(_args(*boot, mode), log)
        machine.args[0] = binary
        guests[name] = stack.enter_context(machine)
    for machine in guests.values():
        machine.control.wait_ready()
    return guests


def _measure_disk(guests, disk):
    """{binary: median of reads per second}"""
    reads = {name: [] for name in guests}
    for _ in range(ROUNDS):
        for name, machine in guests.items():
            try:
                reads[name].append(_reads_per_second(machine, disk))
            except GuestFailure as failure:
                if name == 'stock':
                    raise Stalled(str(failure)) from failure
                raise GuestFailure(f'{name}: {failure}') from failure
    return {name: statistics.median(values) for name, values in reads.items()}


def _measure_boot(binaries, boot, mode, logs):
    """{(disk, binary): reads per second}"""
    with contextlib.ExitStack() as stack:
        guests = _guests(binaries, boot, mode, logs, stack)
        return {(disk, name): reads for disk in DISKS.values()
                for name, reads in _measure_disk(guests, disk).items()}


def _measure_patiently(binaries, boot, mode, logs, say):
    for _ in range(ATTEMPTS):
        try:
            return _measure_boot(binaries, boot, mode, logs)
        except Stalled as stalled:
            say(f'stock, {mode}: stalled, {stalled}')
    ours = {'ours': binaries['ours']}
    return _measure_boot(ours, boot, mode, logs)


def _measure_mode(binaries, boot, mode, logs, say):
    """A dictionary as _measure_boot() returns it for each boot"""
    orders = [binaries, dict(reversed(binaries.items()))]
    return [_measure_patiently(orders[i % 2], boot, mode, logs, say)
            for i in range(BOOTS)]


def _median(boots, key):
    figures = [reads[key] for reads in boots if key in reads]
    return f'{statistics.median(figures):.0f}' if figures else 'stalls'


def _rows(mode, boots):
    """Mode and disk, reads per second of each binary, and their ratio"""
    for title, disk in DISKS.items():
        ratios = [reads[disk, 'ours'] / reads[disk, 'stock']
                  for reads in boots if (disk, 'stock') in reads]
        yield [f'{title}, {mode}', _median(boots, (disk, 'stock')),
               _median(boots, (disk, 'ours')),
               f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to '
               f'{max(ratios):.2f})' if ratios else '-']


def table(binaries, logs, say):
    """@binaries: {'stock': path, 'ours': path}"""
    os.makedirs(logs, exist_ok=True)
    kernel = assets.kernel('6.12', say)
    assets.fetch([], say)
    rows = []
    with tempfile.TemporaryDirectory(prefix='vtd-bench-') as directory:
        boot = _initramfs(kernel, directory)
        for mode in MODES:
            say(f'Linux {kernel}, {mode}')
            rows += _rows(mode, _measure_mode(binaries, boot, mode,
                                              Path(logs), say))
    return Table('Linux guest', 'Random reads of 4 KiB per second, '
                 f'{DEPTH} in flight, Linux {kernel} under TCG; medians of '
                 f'{BOOTS} boots, and the ratio\'s range.',
                 ['disk, mode', 'stock', 'ours', 'ours / stock'], rows)
