# SPDX-License-Identifier: GPL-2.0-or-later
#
# A QEMU inside the guest, so that what it does with its VT-d unit meets a real
# kernel's VFIO.  No processor runs in it ("-accel qtest"): the test is its
# guest's driver, over qtest, whose stream goes through a virtio serial port.

import os
from pathlib import Path
import re
import shutil
import socket
import subprocess
import tempfile

from .control import GuestFailure
from .image import Cpio, GuestError

PAGE = 4096
# Where "-bios" finds something; no processor will ever look at it
BIOS_SIZE = 65536
PORT = '/dev/vport0p1'
SECONDS = 60
# What QEMU says of devices without a reset, as "edu", and when it is ended
EXPECTED = re.compile(r'^.*(?:no available reset mechanism|'
                      r'terminating on signal 15).*$', re.M)

# What is where in the physical address space of the QEMU inside
MEMORY = 64 << 20
HEAP = 1 << 20
BARS = 0xe0000000


def _libraries(binary):
    """The loader and the shared libraries of a program, as ldd finds them"""
    try:
        text = subprocess.run(['ldd', binary], check=True, text=True,
                              stdout=subprocess.PIPE).stdout
    except (OSError, subprocess.CalledProcessError) as err:
        raise GuestError(f'ldd {binary}: {err}') from err
    missing = re.findall(r'(\S+) => not found', text)
    if missing:
        raise GuestError(f'{binary} needs {", ".join(missing)}')
    return {Path(path).name: Path(path)
            for path in re.findall(r'(?:=> |^\t)(/\S+) \(', text, re.M)}


def _stripped(binary, directory):
    output = Path(directory, 'stripped')
    if shutil.which('strip') is None:
        raise GuestError('strip not found: install binutils')
    subprocess.run(['strip', '-o', str(output), binary], check=True)
    return output.read_bytes()


def add_binaries(initramfs, binaries, path):
    """
    Write the initramfs with a second archive behind it, which Linux unpacks
    as well.

    :param binaries: {name in /opt of the guest: path of a QEMU binary}
    """
    libraries = {}
    for binary in binaries.values():
        libraries.update(_libraries(binary))
    with open(path, 'wb') as output, \
            tempfile.TemporaryDirectory(dir=Path(path).parent) as scratch:
        output.write(Path(initramfs).read_bytes())
        archive = Cpio(output)
        for name in ('opt', 'opt/lib'):
            archive.directory(name)
        archive.file('opt/bios', bytes(BIOS_SIZE))
        for name, library in libraries.items():
            archive.file(f'opt/lib/{name}', library.read_bytes(),
                         executable=True)
        for name, binary in binaries.items():
            archive.file(f'opt/{name}', _stripped(binary, scratch),
                         executable=True)
        archive.end()


class Inner:
    """
    The QEMU inside, one process at a time.

    :param guest: the Control of the guest that it runs in
    :param path: unix socket of the virtio serial port
    """

    def __init__(self, guest, path):
        self.guest = guest
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.settimeout(SECONDS)
        self.stream = self.socket.makefile('r')

    @staticmethod
    def outer_args(path):
        """QEMU's arguments for the serial port"""
        return ['-chardev', f'socket,id=inner,path={path},server=on,wait=off',
                '-device', 'virtio-serial-pci,iommu_platform=on,'
                'disable-legacy=on,romfile=',
                '-device', 'virtserialport,chardev=inner']

    def close(self):
        self.stream.close()
        self.socket.close()

    @staticmethod
    def command(binary, *args):
        loader = '/opt/lib/ld-linux-x86-64.so.2 --library-path /opt/lib'
        return ' '.join([loader, f'/opt/{binary}', '-accel qtest -M q35',
                         f'-m {MEMORY >> 20} -nodefaults -display none',
                         '-bios /opt/bios -global apic-common.vapic=off',
                         *args])

    def start(self, binary, *args):
        self.free = HEAP
        self.free_bar = BARS
        self.guest.run(f'{self.command(binary, *args)} -qtest stdio '
                       f'-qtest-log none <> {PORT} >&0 2> /tmp/inner.err & '
                       'echo $! > /tmp/inner.pid')
        try:
            self.ask('endianness')
        except GuestFailure as err:
            raise GuestFailure(f'{err}: {self.said()}') from err

    def said(self):
        return self.guest.run('head -c 9999 /tmp/inner.err').strip()

    def stop(self):
        """End it; returns what it has complained of."""
        self.guest.run('kill $(cat /tmp/inner.pid)')
        self.guest.run('wait_for 100 [ ! -e /proc/$(cat /tmp/inner.pid) ]')
        return EXPECTED.sub('', self.said()).strip()

    def refusal(self, binary, *args):
        """What it says when it ends at once by itself"""
        return self.guest.run(f'! timeout 60 {self.command(binary, *args)} '
                              '2>&1', 90).strip()

    # The qtest protocol: system/qtest.c

    def ask(self, text):
        self.socket.sendall(f'{text}\n'.encode())
        try:
            answer = self.stream.readline().split()
        except TimeoutError:
            answer = []
        if answer[:1] != ['OK']:
            raise GuestFailure(f'the QEMU inside does not answer: {text}')
        return answer[1] if len(answer) > 1 else ''

    def write(self, size, address, value):
        letter = {1: 'b', 2: 'w', 4: 'l', 8: 'q'}[size]
        self.ask(f'write{letter} {address:#x} {value:#x}')

    def read(self, size, address):
        letter = {1: 'b', 2: 'w', 4: 'l', 8: 'q'}[size]
        return int(self.ask(f'read{letter} {address:#x}'), 16)

    def put(self, address, data):
        self.ask(f'write {address:#x} {len(data):#x} 0x{data.hex()}')

    def get(self, address, size):
        return bytes.fromhex(self.ask(f'read {address:#x} {size:#x}')[2:])

    def config(self, devfn, offset, value=None):
        """A word of 4 bytes in the configuration space of a function"""
        self.ask(f'outl 0xcf8 {1 << 31 | devfn << 8 | offset:#x}')
        if value is None:
            return int(self.ask('inl 0xcfc'), 16)
        self.ask(f'outl 0xcfc {value:#x}')
        return None

    def allocate(self, pages=1, align=PAGE):
        """Zeroed memory"""
        address = (self.free + align - 1) & -align
        self.free = address + pages * PAGE
        assert self.free <= MEMORY
        self.ask(f'memset {address:#x} {pages * PAGE:#x} 0')
        return address

    def random_pages(self, pages=1, align=PAGE):
        """Memory with random data: (address, data)"""
        address, data = self.allocate(pages, align), os.urandom(pages * PAGE)
        self.put(address, data)
        return address, data
