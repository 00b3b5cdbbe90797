#
# A storage daemon whose disk has the dirty-bitmap filter, and that may be
# killed at any time
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import socket
import struct
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

import iotests

NBD_REQUEST = 0x25609513
NBD_REPLY = 0x67446698
NBD_CMD_WRITE = 1
NBD_CMD_FLUSH = 3
NBD_CMD_TRIM = 4
NBD_CMD_WRITE_ZEROES = 6

qmp_path = os.path.join(iotests.sock_dir, 'qmp.sock')
nbd_path = os.path.join(iotests.sock_dir, 'disk.sock')


class Dead(Exception):
    """The daemon, while something was asked of it"""


def connect(path: str, process: Optional['subprocess.Popen[bytes]'] = None) \
        -> socket.socket:
    """To a server that `process` is going to be, if it is known"""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return sock
        except OSError as e:
            sock.close()
            if process is None or process.poll() is not None:
                raise Dead from e
            time.sleep(0.001)
    raise TimeoutError(path)


def receive(sock: socket.socket, length: int) -> bytes:
    data = b''
    while len(data) < length:
        try:
            more = sock.recv(length - len(data))
        except OSError as e:
            raise Dead from e
        if not more:
            raise Dead
        data += more
    return data


class Monitor:
    """A QMP client that takes the end of the server as it comes"""

    def __init__(self, path: str,
                 process: Optional['subprocess.Popen[bytes]'] = None):
        self.sock = connect(path, process)
        self.buffer = b''
        self.events: List[Any] = []
        self.line()
        self.qmp('qmp_capabilities')

    def line(self) -> Any:
        while b'\n' not in self.buffer:
            try:
                more = self.sock.recv(65536)
            except OSError as e:
                raise Dead from e
            if not more:
                raise Dead
            self.buffer += more
        line, self.buffer = self.buffer.split(b'\n', 1)
        return json.loads(line)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """The answer, with 'return' or 'error'"""
        message = {'execute': command, 'arguments': arguments}
        try:
            self.sock.sendall(json.dumps(message).encode() + b'\n')
        except OSError as e:
            raise Dead from e
        answer = self.line()
        while 'event' in answer:
            self.events.append(answer)
            answer = self.line()
        return answer

    def event(self) -> Any:
        """The next one, which is waited for"""
        return self.events.pop(0) if self.events else self.line()

    def close(self) -> None:
        self.sock.close()


class Writer:
    """An NBD client that has many writes on their way"""

    def __init__(self, process: 'subprocess.Popen[bytes]', export: str):
        self.sock = connect(nbd_path, process)
        self.next = 0
        self.pending: Dict[int, Any] = {}
        try:
            self.shake_hands(export.encode())
        except Dead:
            self.close()
            raise

    def shake_hands(self, name: bytes) -> None:
        receive(self.sock, 18)
        self.transmit(struct.pack('>I', 3) + b'IHAVEOPT' +
                      struct.pack('>II', 1, len(name)) + name)
        receive(self.sock, 10)

    def transmit(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as e:
            raise Dead from e

    def send(self, kind: int, offset: int, length: int, data: bytes = b'',
             tag: Any = None) -> None:
        self.pending[self.next] = tag
        header = struct.pack('>IHHQQI', NBD_REQUEST, 0, kind, self.next,
                             offset, length)
        self.next += 1
        self.transmit(header + data)

    def reply(self) -> Tuple[Any, int]:
        """The tag of a request that is done, and its error"""
        magic, error, handle = struct.unpack('>IIQ', receive(self.sock, 16))
        assert magic == NBD_REPLY
        return self.pending.pop(handle), error

    def close(self) -> None:
        self.sock.close()


class Daemon:
    """Node 'd' is the filter, and exported as 'd' for writing."""

    def __init__(self, *blockdevs: str, export: str = 'd', iothreads: int = 0,
                 options: Optional[List[str]] = None) -> None:
        for path in (qmp_path, nbd_path):
            if os.path.exists(path):
                os.remove(path)
        args = [os.environ['QSD_PROG']]
        threads = ''
        for i in range(iothreads):
            args += ['--object', f'iothread,id=io{i}']
            threads = f',iothread=io{i}'
        for blockdev in blockdevs:
            args += ['--blockdev', blockdev]
        args += ['--nbd-server', f'addr.type=unix,addr.path={nbd_path}',
                 '--export', f'nbd,id=e,node-name={export},name=d,'
                 f'writable=on{threads}',
                 '--chardev', f'socket,id=m,path={qmp_path},server=on,wait=off',
                 '--monitor', 'chardev=m', *(options or [])]
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(args, stderr=subprocess.PIPE)
        self.monitor: Optional[Monitor] = None

    def writer(self) -> Writer:
        return Writer(self.process, 'd')

    @property
    def events(self) -> List[Any]:
        return self.monitor.events if self.monitor else []

    def qmp(self, command: str, **arguments: Any) -> Any:
        """The answer, with 'return' or 'error'"""
        if self.monitor is None:
            self.monitor = Monitor(qmp_path, self.process)
        return self.monitor.qmp(command, **arguments)

    def cmd(self, command: str, **arguments: Any) -> Any:
        answer = self.qmp(command, **arguments)
        assert 'return' in answer, answer
        return answer['return']

    def end(self, how: int) -> str:
        """Send a signal, wait for it, and return the log"""
        if self.monitor:
            self.monitor.close()
        self.process.send_signal(how)
        _, log = self.process.communicate()
        return log.decode()
