# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU set up for one case, which gives one sample after the other."""

import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import Optional

from clocks import Thread
from qtest import BenchError, Machine
from unit import (IOTLB_DOMAIN, IOTLB_GLOBAL, IOTLB_PAGE, MODES, QUEUE_SLOTS,
                  SHIFT, Unit, WAIT)
from virtio import DATA, PAGE, TRANSLATIONS, VirtioBlk

FIRST_SLOT = 2
# Work in one sample: about 30 ms, so that a slow moment hits few of them
BATCHES = 4
FLUSHES = 8


@dataclass(frozen=True)
class Case:
    """
    name: for the command line; title: for the table
    what: 'dma', 'miss', 'page', 'domain' or 'global', see Rig.sample()
    mode: of unit.MODES
    devices, pages: how many, and the working set of each
    shared: all devices are in one domain
    ideal: by how much an ideal cache beat QEMU's model when the goals were
           set, in whole cost (design, "Targets against stock in one run")
    """
    name: str
    title: str
    what: str = 'dma'
    mode: str = 'legacy'
    devices: int = 1
    pages: int = 512
    shared: bool = False
    ideal: Optional[float] = None


@dataclass
class Sample:
    """For one unit of work: a translation or a descriptor"""
    cpu: float
    wall: float
    instructions: Optional[float]


class Rig:
    """To be used in a "with" statement, like the machine in it"""

    def __init__(self, binary, case, mode=None, ideal=False, wrapper=()):
        self.case = case
        self.mode = mode or case.mode
        self.ideal = ideal
        self.batches = 0
        # One iothread each; what only fills the cache can share one
        threads = case.devices if case.what == 'dma' else 1
        args = []
        if ideal:
            args += ['-device', f'ideal-iommu,shift={SHIFT}'] \
                if self.mode != 'off' else []
        else:
            args += ['-device', 'intel-iommu' + MODES[self.mode][0]]
        for i in range(threads):
            args += ['-object', f'iothread,id=io{i},poll-max-ns=0']
        for i in range(case.devices):
            args += VirtioBlk.args(i, (FIRST_SLOT + i) << 3,
                                   f'io{i % threads}')
        self.machine = Machine(binary, args, wrapper)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.machine)
            self._threads(stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self.stack.close()

    def _threads(self, stack):
        pid = self.machine.process.pid
        self.main = Thread(pid, pid)
        found = self.machine.threads('IO io')
        self.iothreads = [Thread(pid, tid) for tid in found.values()]
        for thread in (self.main, *self.iothreads):
            stack.callback(thread.close)

    def start(self):
        """Tables, devices, caches warm; False if the mode is not there"""
        self.unit = None
        shift = 0 if self.mode in ('off', 'pass-through') else SHIFT
        self.disks = [VirtioBlk(self.machine, i, (FIRST_SLOT + i) << 3,
                                self.case.pages, shift)
                      for i in range(self.case.devices)]
        if not self.ideal:
            self.unit = Unit(self.machine, self.mode)
            if not self.unit.supported():
                return False
            self._tables()
        for disk in self.disks:
            disk.prepare(walk=self.case.what == 'miss')
            disk.start()
        if not self._first_batch():
            return False
        if self.case.what == 'page':
            self.unit.fill(self._page_flushes())
        return True

    def _tables(self):
        if self.mode == 'off':
            return
        domains = [self.unit.domain(1 + i) for i in
                   range(1 if self.case.shared else len(self.disks))]
        for i, disk in enumerate(self.disks):
            domain = domains[i % len(domains)]
            disk.map(domain)
            self.unit.attach(disk.devfn, domain)
        self.unit.enable()

    def _first_batch(self):
        """
        A unit may offer a mode that it does not have: then the first request
        faults, and the device gives up.
        """
        self.batches += 1
        for disk in self.disks:
            disk.submit()
            self.machine.wait_for(
                lambda: disk.done() or disk.broken() or self.fault(), 5)
            if disk.done():
                disk.check()
            elif self.mode in ('second', 'first'):
                return False
            else:
                raise BenchError(f'{self.machine.binary}: {self.case.name}: '
                                 'the first requests were not carried out')
        self.batch()
        return True

    def _page_flushes(self):
        """Pages of the same domain that nobody has cached"""
        first = DATA + self.case.devices * self.case.pages * PAGE + SHIFT
        return [(IOTLB_PAGE | 1 << 16, first + (i % 4096) * PAGE)
                for i in range(QUEUE_SLOTS)]

    def batch(self):
        """All requests of all devices, once"""
        self.batches += 1
        for disk in self.disks:
            disk.submit()
        for disk in self.disks:
            if not self.machine.wait_for(disk.done):
                raise BenchError(f'{self.machine.binary}: {self.case.name}: '
                                 'a request was lost')

    def fault(self):
        return self.unit and self.unit.fault()

    def check(self):
        """Whatever was measured was really done"""
        for disk in self.disks:
            disk.check()
        if self.fault():
            raise BenchError(f'{self.machine.binary}: {self.case.name}: the '
                             'unit has recorded a fault')

    def _measure(self, threads, count, work):
        """@work, which is @count units of work, on the clocks of @threads"""
        cpu = sum(thread.cpu() for thread in threads)
        before = [thread.instructions() for thread in threads]
        wall = time.monotonic_ns()
        work()
        wall = time.monotonic_ns() - wall
        cpu = sum(thread.cpu() for thread in threads) - cpu
        after = [thread.instructions() for thread in threads]
        instructions = None
        if None not in before + after:
            instructions = (sum(after) - sum(before)) / count
        return Sample(cpu / count, wall / count, instructions)

    def sample(self):
        """
        dma     what a translation costs in the devices' threads
        miss    the same with the caches flushed before each batch, which
                then comes to each page once
        page    what a page-selective descriptor costs in the vCPU's thread,
                with everything but that page cached
        domain, global    what one such descriptor costs, with the caches full
        """
        what = self.case.what
        if what == 'page':
            return self._measure([self.main], QUEUE_SLOTS - 1,
                                 self.unit.turn)
        if what in ('domain', 'global'):
            return self._sample_flush()
        if what == 'miss':
            return mean([self._sample_miss() for _ in range(BATCHES)])
        return self._measure(
            self.iothreads, BATCHES * TRANSLATIONS * len(self.disks),
            lambda: [self.batch() for _ in range(BATCHES)])

    def _sample_miss(self):
        if self.mode != 'off' and self.unit:
            self.unit.flush(IOTLB_GLOBAL)
        return self._measure(self.iothreads, TRANSLATIONS, self.batch)

    def _sample_flush(self):
        """The difference to a wait descriptor, which writes one word"""
        flush = (IOTLB_DOMAIN | 1 << 16 if self.case.what == 'domain'
                 else IOTLB_GLOBAL, 0)
        wait = WAIT, self.unit.status
        cold, empty, full = [], [], []
        for _ in range(FLUSHES):
            self.batch()
            # The first command finds QEMU's code out of the caches
            for descriptor, samples in ((wait, cold), (wait, empty),
                                        (flush, full)):
                self.unit.put(*descriptor)
                samples.append(self._measure([self.main], 1, self.unit.kick))
                self.unit.idle()
        low, high = median(empty), median(full)
        return Sample(high.cpu - low.cpu, high.wall - low.wall,
                      None if high.instructions is None
                      else high.instructions - low.instructions)


def _over(samples, function):
    def one(values):
        return None if None in values else function(values)

    return Sample(one([s.cpu for s in samples]),
                  one([s.wall for s in samples]),
                  one([s.instructions for s in samples]))


def mean(samples):
    return _over(samples, statistics.fmean)


def median(samples):
    return _over(samples, statistics.median)
