# SPDX-License-Identifier: GPL-2.0-or-later
#
# The guest of the VT-d tests: a distribution's kernel package and an
# initramfs made at run time from a static busybox, the kernel modules that
# the tests need and a few small programs (guest/*.c).

import gzip
import hashlib
import lzma
import os
from pathlib import Path
import re
import shutil
import struct
import subprocess
import tempfile

GUEST_DIR = Path(__file__).parent / 'guest'

# In the order in which /init loads them; what they depend on is found in the
# modules themselves.
MODULES = (
    'crct10dif_generic', 'crc32c_generic',
    'virtio_pci', 'virtio_console', 'virtio_blk', 'nvme', 'ahci', 'sd_mod',
    'virtio_net', 'e1000e', 'igb',
    'vfio_iommu_type1', 'vfio_pci',
    'ext4',
)

PROGRAMS = ('io-loop', 'net-loop', 'vfio-edu', 'kexec-load')
SCRIPTS = ('init', 'checks.sh', 'control.sh')


class GuestError(Exception):
    """Something that the user can put right; the text says what and how."""


class Kernel:
    """A kernel image vmlinuz-VERSION and the directory of its modules."""

    def __init__(self, path):
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise GuestError(f'{path}: no such kernel image')
        match = re.fullmatch(r'vmlinuz-(.+)', self.path.name)
        if not match:
            raise GuestError(f'{path}: the name of a kernel image must be '
                             'vmlinuz-VERSION, so that its modules are found')
        self.version = match.group(1)
        root = self.path.parent.parent
        places = [root / 'lib/modules' / self.version,
                  root / 'usr/lib/modules' / self.version]
        self.modules = next((p for p in places if p.is_dir()), None)
        if self.modules is None:
            raise GuestError(f'{path}: no modules for it in {places[0]}')

    def __str__(self):
        return self.version


def _read_module(path):
    opener = {'.xz': lzma.open, '.gz': gzip.open}.get(path.suffix)
    if path.suffix == '.zst':
        return subprocess.run(['zstd', '-dc', str(path)], check=True,
                              stdout=subprocess.PIPE).stdout
    with (opener or open)(path, 'rb') as module:
        return module.read()


def _module_index(directory):
    index = {}
    for path in directory.rglob('*.ko*'):
        name = path.name.split('.ko')[0].replace('-', '_')
        index[name] = path
    return index


def _depends(module):
    """The names in the 'depends=' string of a module's .modinfo section."""
    match = re.search(rb'\0depends=([^\0]*)\0', module)
    names = match.group(1).decode() if match else ''
    return [name.replace('-', '_') for name in names.split(',') if name]


def collect_modules(kernel, wanted=MODULES):
    """
    The wanted modules and what they depend on, as {name: content} in load
    order.  A name that the kernel has no module for is built in, or was
    merged into another module in that version.
    """
    index = _module_index(kernel.modules)
    loaded = {}

    def add(name):
        if name in loaded or name not in index:
            return
        content = _read_module(index[name])
        for needed in _depends(content):
            add(needed)
        loaded[name] = content

    for name in wanted:
        add(name)
    return loaded


def _payload(image):
    """The compressed vmlinux inside a bzImage (Documentation/arch/x86/boot)"""
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from('<II', image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start:start + length]


def _decompress(data):
    try:
        if data.startswith(b'\xfd7zXZ'):
            return lzma.LZMADecompressor().decompress(data)
        if data.startswith(b'\x1f\x8b'):
            return gzip.decompress(data[:-4])
        if data.startswith(b'\x28\xb5\x2f\xfd') and shutil.which('zstd'):
            return subprocess.run(['zstd', '-dcq'], input=data[:-4],
                                  stdout=subprocess.PIPE).stdout
    except (lzma.LZMAError, OSError, EOFError):
        pass
    return b''


def extract_vmlinux(kernel, directory):
    """
    The path of the kernel's ELF image in @directory.  QEMU starts that by the
    PVH protocol, which spares the guest the decompression: some 10 seconds
    under TCG.  If it cannot be had, the image itself.
    """
    stat = kernel.path.stat()
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / (f'vmlinux-{kernel.version}-{stat.st_size}-'
                          f'{stat.st_mtime_ns}')
    if target.exists():
        return target
    elf = _decompress(_payload(kernel.path.read_bytes()))
    # The ELF note that holds the PVH entry point: XEN_ELFNOTE_PHYS32_ENTRY
    if not elf.startswith(b'\x7fELF') or \
            not re.search(rb'\x12\0\0\0Xen\0', elf):
        return kernel.path
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        temporary = Path(scratch, target.name)
        temporary.write_bytes(elf)
        os.replace(temporary, target)
    return target


def find_busybox():
    path = os.environ.get('QEMU_TEST_VTD_BUSYBOX') or shutil.which('busybox')
    if path is None:
        raise GuestError('busybox not found: install busybox-static or set '
                         'QEMU_TEST_VTD_BUSYBOX')
    content = Path(path).read_bytes()
    # A dynamically linked program names its loader in an INTERP segment
    if b'/ld-linux-x86-64.so.2\0' in content[:0x1000]:
        raise GuestError(f'{path} is not statically linked: install '
                         'busybox-static or set QEMU_TEST_VTD_BUSYBOX')
    return content


def _compile(source, output, *options):
    compiler = os.environ.get('QEMU_TEST_VTD_CC', 'gcc')
    command = [compiler, '-static', *options, '-o', str(output), str(source)]
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    except OSError as err:
        raise GuestError(f'{compiler}: {err.strerror}: install gcc and '
                         'libc6-dev, or set QEMU_TEST_VTD_CC') from err
    if result.returncode:
        raise GuestError(f'{source} does not compile: '
                         + (result.stdout.splitlines() or ['?'])[0])
    return output.read_bytes()


def compile_program(name, directory):
    return _compile(GUEST_DIR / f'{name}.c', Path(directory, name),
                    '-O2', '-Wall', '-Werror')


class Cpio:
    """Writes an archive in the 'newc' format, which Linux unpacks."""

    def __init__(self, output):
        self.output = output
        self.inode = 0

    def _entry(self, name, mode, content=b'', rdev=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b'\0'
        fields = (self.inode, mode, 0, 0, 1, 0, len(content), 0, 0,
                  *rdev, len(encoded), 0)
        header = b'070701' + b''.join(b'%08x' % f for f in fields)
        self._padded(header + encoded)
        self._padded(content)

    def _padded(self, data):
        self.output.write(data + b'\0' * (-len(data) % 4))

    def directory(self, name):
        self._entry(name, 0o040755)

    def file(self, name, content, executable=False):
        self._entry(name, 0o100755 if executable else 0o100644, content)

    def device(self, name, major, minor):
        self._entry(name, 0o020600, rdev=(major, minor))

    def end(self):
        self._entry('TRAILER!!!', 0)


def _write_archive(output, busybox, programs, modules):
    archive = Cpio(output)
    for name in ('bin', 'dev', 'lib', 'modules', 'proc', 'sys', 'tmp'):
        archive.directory(name)
    archive.device('dev/console', 5, 1)
    archive.file('bin/busybox', busybox, executable=True)
    for name, content in programs.items():
        archive.file(f'bin/{name}', content, executable=True)
    for name in SCRIPTS:
        target = 'init' if name == 'init' else f'lib/{name}'
        archive.file(target, (GUEST_DIR / name).read_bytes(), executable=True)
    for name, content in modules.items():
        archive.file(f'modules/{name}.ko', content)
    archive.file('modules/order', '\n'.join(modules).encode() + b'\n')
    archive.end()


def _input_hash(kernel, busybox):
    digest = hashlib.sha256(busybox)
    digest.update(f'{kernel.modules} {MODULES}'.encode())
    stat = kernel.path.stat()
    digest.update(struct.pack('qq', stat.st_size, stat.st_mtime_ns))
    for path in sorted([*GUEST_DIR.iterdir(), Path(__file__)]):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build_initramfs(kernel, directory):
    """
    The path of the initramfs for @kernel in @directory.  Its name holds a
    hash of all that went into it: an existing one is complete and current.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    busybox = find_busybox()
    name = f'initramfs-{kernel.version}-{_input_hash(kernel, busybox)}.cpio'
    target = directory / name
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        programs = {p: compile_program(p, scratch) for p in PROGRAMS}
        temporary = Path(scratch, name)
        with open(temporary, 'wb') as output:
            _write_archive(output, busybox, programs,
                           collect_modules(kernel))
        os.replace(temporary, target)
    return target


# What follows agrees with guest/boot.S
CHUNK = 32768
REAL_MODE, HEAP_END = 0x10000, 0xe000
INITRAMFS = 0x08000000


def _padded(data):
    return data + bytes(-len(data) % CHUNK)


def _real_mode_code(image, setup_sectors, initramfs_size, append):
    """Two chunks; offsets as in the kernel's Documentation/arch/x86/boot"""
    code = bytearray(2 * CHUNK)
    size = (setup_sectors + 1) * 512
    if size > HEAP_END - 0x2000:
        raise GuestError('the real mode code of this kernel is too long')
    code[:size] = image[:size]
    code[0x210] = 0xff                              # type_of_loader
    code[0x211] |= 0x80                             # CAN_USE_HEAP
    struct.pack_into('<II', code, 0x218, INITRAMFS, initramfs_size)
    struct.pack_into('<H', code, 0x224, HEAP_END - 0x200)
    struct.pack_into('<I', code, 0x228, REAL_MODE + HEAP_END)
    text = append.encode() + b'\0'
    code[HEAP_END:HEAP_END + len(text)] = text
    return code


def _boot_sector(scratch, kernel_size, initramfs_size):
    sector = bytearray(_compile(
        GUEST_DIR / 'boot.S', Path(scratch, 'boot'), '-m32', '-nostdlib',
        '-Wl,-Ttext=0x7c00,--oformat=binary,--build-id=none'))
    assert len(sector) == 512
    struct.pack_into('<HH', sector, 0x1f8, kernel_size // CHUNK,
                     initramfs_size // CHUNK)
    return sector


def boot_disk(kernel, initramfs, append, path):
    """Write a disk image that a PC's BIOS boots, with nothing but Linux."""
    image = kernel.path.read_bytes()
    setup_sectors = image[0x1f1] or 4
    files = Path(initramfs).read_bytes()
    protected = _padded(image[(setup_sectors + 1) * 512:])
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as scratch:
        sector = _boot_sector(scratch, len(protected), len(_padded(files)))
    with open(path, 'wb') as disk:
        disk.write(sector)
        disk.write(_real_mode_code(image, setup_sectors, len(files), append))
        disk.write(protected)
        disk.write(_padded(files))
        disk.truncate((disk.tell() | 0xfffff) + 1)
