# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU without a guest: its memory is ours, its devices obey qtest.

Guest memory is a memfd that both processes map: tables and rings are plain
stores here, and cost QEMU nothing.  Registers go through the qtest protocol,
one line of text and one answer each, so a measurement has few of them.
"""

import contextlib
import mmap
import os
import socket
import struct
import subprocess
import tempfile
import time

RAM_BYTES = 1 << 30
PAGE = 4096
HEAP = 16 << 20                 # what is below belongs to the firmware
DATA = 256 << 20                # buffers of the devices begin here
PATIENCE = 60                   # seconds after which nothing will come


class BenchError(Exception):
    """One line for the user"""


class Machine:
    """q35 with these devices; to be used in a "with" statement"""

    def __init__(self, binary, args, wrapper=()):
        self.binary = str(binary)
        self.args = list(args)
        self.wrapper = list(wrapper)
        self.process = None

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.stack.close()

    def _start(self):
        ram_fd = os.memfd_create('guest-memory')
        self.stack.callback(os.close, ram_fd)
        os.truncate(ram_fd, RAM_BYTES)
        self.ram = self.stack.enter_context(mmap.mmap(ram_fd, RAM_BYTES))
        self.heap = HEAP
        ours, theirs = socket.socketpair()
        self.stack.callback(ours.close)
        self.errors = self.stack.enter_context(tempfile.TemporaryFile('w+'))
        command = [
            *self.wrapper, self.binary, '-machine', 'q35,memory-backend=ram', '-nodefaults',
            '-display', 'none', '-accel', 'qtest', '-name',
            'bench,debug-threads=on', '-object',
            f'memory-backend-file,id=ram,share=on,size={RAM_BYTES},'
            f'mem-path=/dev/fd/{ram_fd}',
            '-chardev', f'socket,id=qtest,fd={theirs.fileno()}',
            '-qtest', 'chardev:qtest', '-qtest-log', 'none', *self.args]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=self.errors,
                pass_fds=[ram_fd, theirs.fileno()])
        self.stack.callback(self._stop)
        ours.settimeout(PATIENCE)
        self.lines = self.stack.enter_context(ours.makefile('rb'))
        self.socket = ours
        self.ask('clock_step 1')

    def _stop(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Let QEMU, and what it is wrapped in, end in good order"""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def _gone(self):
        """Why there is no answer"""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return BenchError(f'{self.binary}: no answer: '
                          + (said[-1] if said else 'it is silent'))

    def ask(self, command):
        """One line of the qtest protocol; the rest of the line after OK"""
        try:
            self.socket.sendall(command.encode() + b'\n')
            answer = self.lines.readline().decode().split()
        except OSError as err:
            raise self._gone() from err
        if not answer:
            raise self._gone()
        if answer[0] != 'OK':
            raise BenchError(f'qtest: {command}: {" ".join(answer)}')
        return answer[1:]

    def write(self, size, address, value):
        self.ask(f'write{"?bw?l???q"[size]} {address:#x} {value:#x}')

    def read(self, size, address):
        return int(self.ask(f'read{"?bw?l???q"[size]} {address:#x}')[0], 0)

    def config(self, devfn, offset, value=None, size=4):
        """A register in the configuration space of a device on bus 0"""
        self.ask(f'outl 0xcf8 {0x80000000 | devfn << 8 | offset & 0xfc:#x}')
        port = 0xcfc + (offset & 3)
        letter = '?bw?l'[size]
        if value is None:
            return int(self.ask(f'in{letter} {port:#x}')[0], 0)
        self.ask(f'out{letter} {port:#x} {value:#x}')
        return None

    def allocate(self, size, align=PAGE):
        """Guest memory, all zero; never given back"""
        address = -(-self.heap // align) * align
        self.heap = address + size
        if self.heap > DATA:
            raise BenchError('guest memory for tables and rings is used up')
        return address

    def put(self, address, layout, *values):
        struct.pack_into('<' + layout, self.ram, address, *values)

    def get(self, address, layout):
        return struct.unpack_from('<' + layout, self.ram, address)[0]

    def threads(self, prefix):
        """Thread ids by name: {name: tid} of those whose name begins so"""
        found = {}
        top = f'/proc/{self.process.pid}/task'
        for tid in os.listdir(top):
            with open(f'{top}/{tid}/comm', encoding='ascii') as file:
                name = file.read().strip()
            if name.startswith(prefix):
                found[name] = int(tid)
        return found

    def wait_for(self, condition, seconds=PATIENCE):
        """Sleeps until condition() is true; False if it never is"""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                if self.process.poll() is not None:
                    raise self._gone()
                return False
            time.sleep(0.0001)
        return True
