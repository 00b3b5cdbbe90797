#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# VFIO one level down: in a Linux guest behind the VT-d unit runs this QEMU,
# with a unit of its own and two devices that it was given by VFIO.  What its
# unit's tables say reaches the kernel by hw/vfio, and the devices' DMA shows
# what has come of it.  Faults are those of the unit outside.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

import os
import random
import re
import time

from vtd_guest.control import fault_lines
from vtd_guest.driver import Domain, Edu, READ, Unit
from vtd_guest.nested import Inner, PAGE, add_binaries
from vtd_guest.testcase import VTDGuestTest

SCALABLE = 'x-scalable-mode=on'
EDU = 'edu,dma_mask=0xffffffffffffffff'
# Their addresses outside and inside
OUTER = ('0000:00:10.0', '0000:00:11.0')
DEVFN = (5 << 3, 6 << 3)

IOVA = 0x40000000
BOUNCE = 0x60000000             # leads to a page that is always writable
LARGE_IOVA, LARGE = 0x80000000, 2 << 20
MANY_IOVA, MANY = 0xa0000000, 500

# Units that cannot be in front of a VFIO device, and why
REFUSED = {
    'caching-mode=off': 'set caching-mode=on',
    f'{SCALABLE},x-flts=on,caching-mode=on': 'stage-1 translation',
}


def reads(iova):
    """A fault of the unit outside (VT-d specification, 7.1.3, reason 6)"""
    return rf'DMA Read.* fault addr {iova:#x} .*reason 0x0?6\]'


def writes(iova):
    return rf'DMA Write.* fault addr {iova:#x} .*reason 0x0?5\]'


class VTDNested(VTDGuestTest):

    def boot_files(self, kernel):
        image, initramfs = super().boot_files(kernel)
        path = self.scratch_file('initramfs')
        if not os.path.exists(path):
            add_binaries(initramfs, self.binaries, path)
        return image, path

    def boot_outer(self, unit='intremap=on', kernel=None, **binaries):
        self.binaries = {'ours': self.qemu_bin, **binaries}
        path = os.path.join(self.socket_dir().name, 'inner.sock')
        devices = [x for address in OUTER for x in
                   ('-device', f'{EDU},addr={address[-4:]}')]
        self.boot(unit, kernel=kernel, devices=[
            '-m', '1024', *Inner.outer_args(path), *devices])
        self.assert_unit_on()
        for address in OUTER:
            self.guest.run(f'bind_vfio {address}')
        self.inner = Inner(self.guest, path)
        self.addCleanup(self.inner.close)

    @staticmethod
    def inner_args(unit, backend=''):
        return [f'-device intel-iommu,{unit}'] + [
            f'-device vfio-pci,host={host},addr={devfn >> 3}{backend}'
            for host, devfn in zip(OUTER, DEVFN)]

    def start(self, unit, levels, scalable=False):
        """The QEMU inside, with its unit on and its devices in one domain"""
        self.inner.start('ours', *self.inner_args(unit))
        self.levels = levels
        self.faults = set()
        self.unit = Unit(self.inner, scalable)
        self.first = self.new_domain(1)
        self.edus = [Edu(self.inner, devfn) for devfn in DEVFN]
        self.unit.enable()
        for edu in self.edus:
            self.unit.attach(edu.devfn, self.first)
            self.unit.flush_device(edu.devfn, 0)

    def new_domain(self, number):
        domain = Domain(self.inner, number, self.levels)
        domain.bounce = self.inner.allocate()
        domain.map(BOUNCE, domain.bounce)
        return domain

    def assert_reads(self, edu, domain, iova, data):
        """The device reads this page, and its bounce page shows it."""
        edu.load(iova)
        self.inner.put(domain.bounce, bytes(PAGE))
        edu.store(BOUNCE)
        self.assertEqual(self.inner.get(domain.bounce, PAGE), data)

    def fault_count(self, edu):
        """Of the unit outside; Linux does not log each of them."""
        info, = self.vm.cmd('x-query-vtd')
        address = OUTER[DEVFN.index(edu.devfn)]
        count, = [requester['faults'] for requester in info['requesters']
                  if address.endswith(requester['requester'])]
        return count

    def assert_no_access(self, edu, access, pattern, iova, page):
        """One access of 4 bytes, one fault"""
        kept, other = self.inner.get(page, PAGE), os.urandom(PAGE)
        self.inner.put(page, other)
        count = self.fault_count(edu)
        access(iova, 4)
        self.assertEqual(self.fault_count(edu), count + 1)
        self.assertEqual(self.inner.get(page, PAGE), other)
        self.inner.put(page, kept)
        self.faults.add(pattern(iova))

    def assert_read_only(self, edu, iova, page):
        self.assert_no_access(edu, edu.store, writes, iova, page)

    def assert_stopped(self, edu, iova, page):
        """Neither reads nor writes reach the page that was there."""
        self.assert_no_access(edu, edu.load, reads, iova, page)
        self.assert_no_access(edu, edu.store, writes, iova, page)

    def assert_logged(self):
        """Linux has logged faults that were provoked, and no others."""
        self.guest.check_log()
        seen = [line for line in fault_lines(self.guest.new_log_text())
                if 'handling fault status' not in line]
        self.assertGreater(len(seen), 2)
        for line in seen:
            self.assertTrue(any(re.search(p, line) for p in self.faults), line)
        self.guest.forgive()

    def map_and_flush(self, iova, page, *more):
        self.first.map(iova, page, *more)
        self.unit.flush_pages(self.first, iova)

    def check_map(self, edu):
        """A page comes, another one takes its place, it goes."""
        first, data = self.inner.random_pages()
        second, other = self.inner.random_pages()
        self.map_and_flush(IOVA, first)
        self.assert_reads(edu, self.first, IOVA, data)
        self.map_and_flush(IOVA, second)
        self.assert_reads(edu, self.first, IOVA, other)
        # The rest of the page, and the one that was there, keep what they had
        new = self.fill_buffer(edu)
        edu.store(IOVA + 0x100, 0x200)
        self.assertEqual(self.inner.get(first, PAGE), data)
        self.assertEqual(self.inner.get(second, PAGE),
                         other[:0x100] + new[:0x200] + other[0x300:])
        self.first.unmap(IOVA)
        self.unit.flush_pages(self.first, IOVA)
        self.assert_stopped(edu, IOVA, second)
        self.map_and_flush(IOVA, first)
        self.assert_reads(edu, self.first, IOVA, data)

    def fill_buffer(self, edu):
        """New data, by way of the bounce page"""
        data = os.urandom(PAGE)
        self.inner.put(self.first.bounce, data)
        edu.load(BOUNCE)
        return data

    def check_read_only(self, edu):
        """The right to write is given, and taken."""
        page, data = self.inner.random_pages()
        self.map_and_flush(IOVA, page, READ)
        self.assert_reads(edu, self.first, IOVA, data)
        self.assert_read_only(edu, IOVA, page)
        self.map_and_flush(IOVA, page)
        data = self.fill_buffer(edu)
        edu.store(IOVA)
        self.assertEqual(self.inner.get(page, PAGE), data)
        self.map_and_flush(IOVA, page, READ)
        self.assert_read_only(edu, IOVA, page)

    def check_domains(self):
        """One address, two domains: a device goes over, and comes back."""
        mover, stayer = self.edus
        first, data = self.inner.random_pages()
        second, other = self.inner.random_pages()
        domain = self.new_domain(2)
        self.map_and_flush(IOVA, first)
        domain.map(IOVA, second)
        self.unit.attach(mover.devfn, domain)
        self.unit.flush_device(mover.devfn, self.first.number)
        self.assert_reads(mover, domain, IOVA, other)
        self.assert_reads(stayer, self.first, IOVA, data)
        # What is said of one domain changes nothing for the other one
        self.first.unmap(IOVA)
        self.unit.flush_domain(self.first)
        self.assert_reads(mover, domain, IOVA, other)
        self.assert_stopped(stayer, IOVA, first)
        self.unit.attach(mover.devfn, self.first)
        self.unit.flush_device(mover.devfn, domain.number)
        self.assert_stopped(mover, IOVA, second)
        self.map_and_flush(IOVA, first)
        self.assert_reads(mover, self.first, IOVA, data)

    def check_absent(self, edu):
        """In no domain at all"""
        page, data = self.inner.random_pages()
        self.map_and_flush(IOVA, page)
        self.assert_reads(edu, self.first, IOVA, data)
        self.unit.detach(edu.devfn)
        self.unit.flush_device(edu.devfn, self.first.number)
        self.assert_stopped(edu, IOVA, page)
        self.unit.attach(edu.devfn, self.first)
        self.unit.flush_device(edu.devfn, 0)
        self.assert_reads(edu, self.first, IOVA, data)

    def assert_identity(self, edu, identity):
        """Is the address that of the memory?"""
        page, data = self.inner.random_pages()
        if identity:
            target = self.inner.allocate()
            edu.load(page)
            edu.store(target)
            self.assertEqual(self.inner.get(target, PAGE), data)
        else:
            self.assert_stopped(edu, page, page)

    def check_pass_through(self):
        edu, other = self.edus
        page, data = self.inner.random_pages()
        self.map_and_flush(IOVA, page)
        self.assert_identity(edu, False)
        self.unit.pass_through(edu.devfn, 3, self.levels)
        self.unit.flush_device(edu.devfn, self.first.number)
        self.assert_identity(edu, True)
        self.assert_identity(other, False)
        self.unit.attach(edu.devfn, self.first)
        self.unit.flush_device(edu.devfn, 3)
        self.assert_identity(edu, False)
        self.assert_reads(edu, self.first, IOVA, data)
        self.unit.translation(False)
        for each in self.edus:
            self.assert_identity(each, True)
        self.unit.translation(True)
        for each in self.edus:
            self.assert_identity(each, False)
            self.assert_reads(each, self.first, IOVA, data)

    def assert_reads_new(self, edu, iova, page):
        data = os.urandom(PAGE)
        self.inner.put(page, data)
        self.assert_reads(edu, self.first, iova, data)

    def check_large(self, edu):
        """A page of 2 MiB, and then one of 4 KiB in its place"""
        pages = LARGE // PAGE
        large = self.inner.allocate(pages, LARGE)
        self.first.map(LARGE_IOVA, large, level=2)
        self.unit.flush_pages(self.first, LARGE_IOVA, 9)
        for n in (0, 1, pages // 2 + 1, pages - 1):
            self.assert_reads_new(edu, LARGE_IOVA + n * PAGE, large + n * PAGE)
        self.first.unmap(LARGE_IOVA, level=2)
        small = self.inner.allocate()
        self.first.map(LARGE_IOVA + PAGE, small)
        self.unit.flush_pages(self.first, LARGE_IOVA, 9)
        self.assert_reads_new(edu, LARGE_IOVA + PAGE, small)
        self.assert_stopped(edu, LARGE_IOVA, large)
        self.assert_stopped(edu, LARGE_IOVA + LARGE - PAGE,
                            large + LARGE - PAGE)

    def check_many(self, edu):
        """Pages in disorder; then half of them, in order"""
        base = self.inner.allocate(MANY)
        order = random.sample(range(MANY), MANY)
        self.first.map_list(MANY_IOVA, [base + n * PAGE for n in order])
        self.unit.flush_domain(self.first)
        for n in (0, MANY - 1, *random.sample(range(1, MANY - 1), 10)):
            self.assert_reads_new(edu, MANY_IOVA + n * PAGE,
                                  base + order[n] * PAGE)
        half = MANY // 2
        self.first.map_list(MANY_IOVA, [base + n * PAGE for n in range(half)])
        self.first.unmap_list(MANY_IOVA + half * PAGE, MANY - half)
        self.unit.flush_domain(self.first)
        for n in (0, half - 1, *random.sample(range(1, half - 1), 10)):
            self.assert_reads_new(edu, MANY_IOVA + n * PAGE, base + n * PAGE)
        for n in (half, MANY - 1):
            self.assert_stopped(edu, MANY_IOVA + n * PAGE,
                                base + order[n] * PAGE)

    def check_all(self, unit, levels, scalable=False):
        start = time.monotonic()
        self.start(unit, levels, scalable)
        first, second = self.edus
        self.check_map(first)
        self.check_map(second)
        self.check_read_only(first)
        self.check_domains()
        self.check_absent(second)
        self.check_pass_through()
        self.check_large(first)
        self.check_many(second)
        self.assertEqual(self.inner.stop(), '')
        self.assert_logged()
        self.log.info('%s: %.1f s', unit, time.monotonic() - start)

    def test_legacy(self):
        self.boot_outer()
        self.check_all('caching-mode=on,aw-bits=48', 4)
        self.check_all('caching-mode=on,aw-bits=39', 3)

    def test_scalable(self):
        self.boot_outer()
        self.check_all(f'{SCALABLE},caching-mode=on', 4, True)
        self.check_all(f'{SCALABLE},caching-mode=on,aw-bits=39', 3, True)

    def test_second_kernel(self):
        self.boot_outer(kernel=self.need_kernel('QEMU_TEST_VTD_KERNEL2'))
        self.check_all('caching-mode=on', 4)
        self.check_all(f'{SCALABLE},caching-mode=on', 4, True)

    def refusals(self, *arguments):
        """What this QEMU, and the one before the series, say to that"""
        said = [self.inner.refusal(name, *arguments)
                for name in ('ours', 'stock')]
        return [re.sub(r'(?m)^(?:ours|stock): ', '', text) for text in said]

    def test_refused(self):
        """What VFIO cannot do is refused when the machine starts."""
        self.boot_outer(stock=self.need_stock())
        for unit, why in REFUSED.items():
            ours, stock = self.refusals(*self.inner_args(unit))
            self.log.info('%s: %s, stock: %s', unit, ours, stock)
            self.assertRegex(ours, why)
            self.assertEqual(ours, stock)
        wide = self.inner_args('caching-mode=on,aw-bits=57')
        self.assertRegex(self.inner.refusal('ours', *wide),
                         'aw-bits 57 > host aw-bits 48')


if __name__ == '__main__':
    VTDGuestTest.main()
