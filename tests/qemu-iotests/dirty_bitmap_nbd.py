#
# An NBD server whose disks fail when they are told to, and that can tell what
# they might have on stable storage
#
# SPDX-License-Identifier: GPL-2.0-or-later

import errno
import os
import random
import socket
import struct
import threading
from typing import Callable, Dict, List, Optional, Tuple

SECTOR = 512
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1
NO_HOLE = 2

# Flags of an export: has flags, can flush, FUA, trim, write zeroes
EXPORT_FLAGS = 1 | 4 | 8 | 32 | 64

Fails = Callable[[int, int, int], int]


class Disk:
    """
    `data` is what is read; what was written since the last flush is in
    `pending`, and may be on stable storage, or not, or in part.
    """

    def __init__(self, size: int, data: bytes = b''):
        self.stable = bytearray(data.ljust(size, b'\0'))
        self.data = bytearray(self.stable)
        self.pending: List[Tuple[int, bytes]] = []
        # Called for each request with its kind, offset and length
        self.fails: Optional[Fails] = None
        self.requests = 0

    def write(self, offset: int, data: bytes, fua: bool) -> None:
        self.data[offset:offset + len(data)] = data
        self.pending.append((offset, data))
        if fua:
            self.settle(offset, len(data))

    def settle(self, offset: int, length: int) -> None:
        """What is there is stable"""
        self.stable[offset:offset + length] = self.data[offset:offset + length]
        self.pending = [(o, d) for o, d in self.pending
                        if o + len(d) <= offset or offset + length <= o]

    def flush(self) -> None:
        self.stable[:] = self.data
        self.pending = []

    def power_cut(self, rng: random.Random) -> bytes:
        """Writes that were not flushed may be kept, dropped or torn"""
        result = bytearray(self.stable)
        # A disk that keeps all, or nothing, is one as well
        keep = rng.choice([0, 0.5, 0.9, 1])
        pending = self.pending[:]
        if rng.randrange(2):
            rng.shuffle(pending)
        for offset, data in pending:
            torn = rng.randrange(4) == 0
            for at in range(0, len(data), SECTOR):
                if at == 0 or torn:
                    kept = rng.random() < keep
                if kept:
                    part = data[at:at + SECTOR]
                    result[offset + at:offset + at + len(part)] = part
        return bytes(result)


class Server:
    """Serves `disks` by their names on a UNIX socket, in threads"""

    def __init__(self, path: str, disks: Dict[str, Disk]):
        self.disks = disks
        # Guards all of the disks
        self.lock = threading.Lock()
        if os.path.exists(path):
            os.remove(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,),
                             daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                disk = self.negotiate(sock)
                while disk and self.request(sock, disk):
                    pass
            except OSError:
                pass

    @staticmethod
    def receive(sock: socket.socket, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = sock.recv(length - len(data))
            if not more:
                raise OSError('closed')
            data += more
        return bytes(data)

    def negotiate(self, sock: socket.socket) -> Optional[Disk]:
        sock.sendall(b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3))
        self.receive(sock, 4)
        while True:
            _, option, length = struct.unpack('>8sII', self.receive(sock, 16))
            data = self.receive(sock, length)
            if option == 7:
                size = struct.unpack_from('>I', data)[0]
                disk = self.disks[data[4:4 + size].decode()]
                info = struct.pack('>HQH', 0, len(disk.data), EXPORT_FLAGS)
                self.answer(sock, option, 3, info)
                # All requests are in blocks of 1 to 32 MiB
                self.answer(sock, option, 3,
                            struct.pack('>HIII', 3, 1, 4096, 1 << 25))
                self.answer(sock, option, 1)
                return disk
            if option == 2:
                self.answer(sock, option, 1)
                return None
            self.answer(sock, option, 0x80000001)

    @staticmethod
    def answer(sock: socket.socket, option: int, kind: int,
               data: bytes = b'') -> None:
        sock.sendall(struct.pack('>QIII', 0x3e889045565a9, option, kind,
                                 len(data)) + data)

    def request(self, sock: socket.socket, disk: Disk) -> bool:
        _, flags, kind, handle, offset, length = \
            struct.unpack('>IHHQQI', self.receive(sock, 28))
        if kind == DISCONNECT:
            return False
        data = self.receive(sock, length) if kind == WRITE else b''
        with self.lock:
            error = disk.fails(kind, offset, length) if disk.fails else 0
            disk.requests += 1
            result = b''
            if error == 0:
                result = self.do(disk, flags, kind, offset, length, data)
        sock.sendall(struct.pack('>IIQ', 0x67446698, error, handle) + result)
        return True

    @staticmethod
    def do(disk: Disk, flags: int, kind: int, offset: int, length: int,
           data: bytes) -> bytes:
        if kind == READ:
            return bytes(disk.data[offset:offset + length])
        if kind == FLUSH:
            disk.flush()
        elif kind in (TRIM, ZEROES):
            disk.write(offset, bytes(length), bool(flags & FUA))
        else:
            disk.write(offset, data, bool(flags & FUA))
        return b''


class FailNth:
    """Request n of some kinds fails, and those that follow it if `all`"""

    def __init__(self, n: int, kinds: Tuple[int, ...] = (WRITE,),
                 rest: bool = False, code: int = errno.EIO):
        self.left = n
        self.kinds = kinds
        self.rest = rest
        self.code = code
        self.failed = 0

    def __call__(self, kind: int, offset: int, length: int) -> int:
        if kind not in self.kinds:
            return 0
        self.left -= 1
        if self.left == -1 or (self.rest and self.left < 0):
            self.failed += 1
            return self.code
        return 0
