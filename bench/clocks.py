# SPDX-License-Identifier: GPL-2.0-or-later
"""What a thread of another process has used: CPU time, instructions.

CPU time, not wall time: what else runs on the machine, and what it costs to
ask QEMU for the work, are not in it.
"""

import contextlib
import ctypes
import os
import struct
import time

SYS_PERF_EVENT_OPEN = 298       # x86_64
PERF_TYPE_HARDWARE = 0
PERF_COUNT_HW_INSTRUCTIONS = 1
# struct perf_event_attr, first version: its size, and bits of its flags
ATTR_SIZE = 64
EXCLUDE_KERNEL, EXCLUDE_HV = 1 << 5, 1 << 6


class Thread:
    """Clocks of one thread, which sleeps between two pieces of work"""

    def __init__(self, pid, tid):
        self.directory = f'/proc/{pid}/task/{tid}'
        self.counter = open_counter(tid)

    def close(self):
        if self.counter is not None:
            os.close(self.counter)
            self.counter = None

    def _sleeps(self):
        with open(self.directory + '/stat', encoding='ascii') as file:
            return file.read().rpartition(')')[2].split()[0] == 'S'

    def cpu(self):
        """CPU time so far in ns; up to date only once the thread sleeps"""
        deadline = time.monotonic() + 1
        while not self._sleeps() and time.monotonic() < deadline:
            time.sleep(0.00005)
        with open(self.directory + '/schedstat', encoding='ascii') as file:
            return int(file.read().split()[0])

    def instructions(self):
        """Instructions so far in user mode, or None if nothing counts them"""
        if self.counter is None:
            return None
        return struct.unpack('Q', os.read(self.counter, 8))[0]


def open_counter(tid):
    """A hardware counter on a thread, or None where there is none"""
    attr = struct.pack('IIQQQQQ', PERF_TYPE_HARDWARE, ATTR_SIZE,
                       PERF_COUNT_HW_INSTRUCTIONS, 0, 0, 0,
                       EXCLUDE_KERNEL | EXCLUDE_HV).ljust(ATTR_SIZE, b'\0')
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_PERF_EVENT_OPEN, attr, tid, -1, -1, 0)
    return fd if fd >= 0 else None


def counters_work():
    fd = open_counter(0)
    with contextlib.suppress(OSError, TypeError):
        os.close(fd)
    return fd is not None
