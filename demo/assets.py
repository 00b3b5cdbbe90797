# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the guest is made of: Debian's kernels, SeaBIOS, OVMF, Xen, the
initramfs.
"""

import gzip
import os
from pathlib import Path
import shutil
import sys

from debian import Apt, DebianError

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / 'tests/functional'))

from vtd_guest import Kernel, build_initramfs          # noqa: E402
from vtd_guest.image import extract_vmlinux, find_busybox   # noqa: E402

GUEST = Path(os.environ.get('GUEST_DIR', TOP / 'build/guest'))

# Which release of Debian has it.  SeaBIOS before 1.16.3 (Debian 12) waits 32
# seconds for an answer that QEMU's AHCI has not given since QEMU 8.1.
KERNELS = {'6.1': 'bookworm', '6.12': 'trixie'}
SEABIOS_SUITE = 'trixie'
# What the tests need and the demo does not
TEST_SUITES = {'xen': 'bookworm', 'ovmf': 'trixie'}
# Packages whose name holds a version: what depends on it, how it begins
VERSIONED = {'linux': ('linux-image-amd64', 'linux-image-[0-9]'),
             'xen': ('xen-system-amd64', 'xen-hypervisor-[0-9]')}

# Four fifths of the modules, which no test will ever load
UNNEEDED = tuple(f'**/modules/*/kernel/{name}' for name in (
    'sound', 'drivers/gpu', 'drivers/media', 'drivers/staging',
    'drivers/infiniband', 'drivers/net/wireless', 'drivers/iio',
    'drivers/hwmon', 'drivers/input', 'drivers/mtd', 'drivers/isdn'))


def _remove_leftovers():
    """Scratch directories of runs that were killed"""
    for path in GUEST.glob('.apt-*'):
        pid = path.name.split('-')[1]
        if not Path('/proc', pid).exists():
            shutil.rmtree(path, ignore_errors=True)


def fetch(versions, say=print, others=()):
    """Get what is missing of these kernels, of SeaBIOS, and of @others."""
    wanted = {('seabios', SEABIOS_SUITE): GUEST / 'seabios'}
    for version in versions:
        wanted['linux', KERNELS[version]] = GUEST / f'linux-{version}'
    for name in others:
        wanted[name, TEST_SUITES[name]] = GUEST / name
    missing = {k: v for k, v in wanted.items() if not v.is_dir()}
    if not missing:
        return
    GUEST.mkdir(parents=True, exist_ok=True)
    _remove_leftovers()
    # One release at a time, so that a name means one package
    for suite in sorted({suite for _, suite in missing}):
        say(f'guest: reading the package lists of Debian {suite}')
        with Apt([suite], GUEST) as apt:
            for (name, of_suite), target in missing.items():
                if of_suite == suite:
                    _fetch_one(apt, name, suite, target, say)


def _fetch_one(apt, name, suite, target, say):
    if name in VERSIONED:
        depends, prefix = VERSIONED[name]
        name = apt.dependency(depends, suite, prefix)
    say(f'guest: downloading {name} from Debian {suite}')
    apt.unpack(name, target, without=UNNEEDED)


def kernel(version='6.1', say=print):
    """A Kernel, from '6.1', '6.12' or the path of a vmlinuz-VERSION"""
    if '/' in version:
        return Kernel(version)
    if version not in KERNELS:
        raise DebianError(f'KERNEL={version}: give one of '
                          + ', '.join(KERNELS) + ', or the path of a '
                          'vmlinuz-VERSION that has its modules beside it')
    fetch([version], say)
    images = sorted((GUEST / f'linux-{version}/boot').glob('vmlinuz-*'))
    if not images:
        raise DebianError(f'{GUEST}/linux-{version} holds no kernel: remove '
                          'this directory and try again')
    return Kernel(images[-1])


def bios():
    """SeaBIOS as fetched, or None to let QEMU use its own"""
    path = GUEST / 'seabios/usr/share/seabios/bios-256k.bin'
    return path if path.is_file() else None


def xen():
    """Xen, unpacked: QEMU starts an ELF file by the multiboot protocol"""
    packed = sorted((GUEST / 'xen/boot').glob('xen-*.gz'))
    if not packed:
        raise DebianError(f'{GUEST}/xen holds no hypervisor: remove this '
                          'directory and try again')
    target = GUEST / packed[-1].stem
    if not target.exists():
        temporary = GUEST / f'{target.name}.{os.getpid()}'
        temporary.write_bytes(gzip.decompress(packed[-1].read_bytes()))
        temporary.replace(target)
    return target


def ovmf():
    """OVMF's code; its variables are beside it"""
    path = GUEST / 'ovmf/usr/share/OVMF/OVMF_CODE_4M.fd'
    if not path.is_file():
        raise DebianError(f'{GUEST}/ovmf holds no {path.name}: remove this '
                          'directory and try again')
    return path


def boot_files(kernel):
    """(kernel to boot, initramfs)"""
    return extract_vmlinux(kernel, GUEST), build_initramfs(kernel, GUEST)


def test_environment(say=print):
    """The variables that tests/functional/test_x86_64_vtd_*.py read"""
    fetch(KERNELS, say, TEST_SUITES)
    old, new = kernel('6.1'), kernel('6.12')
    find_busybox()
    for each in (old, new):
        boot_files(each)
    return {'QEMU_TEST_VTD_KERNEL': old.path,
            'QEMU_TEST_VTD_KERNEL2': new.path,
            'QEMU_TEST_VTD_BIOS': bios(),
            'QEMU_TEST_VTD_OVMF': ovmf(),
            'QEMU_TEST_VTD_XEN': xen(),
            'QEMU_TEST_VTD_CACHE': GUEST}
