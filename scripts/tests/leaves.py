#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The unit tests of VT-d's leaves on other hosts, and under ThreadSanitizer.

The leaves know little of QEMU, so they and their tests compile with the few
files of util/ that they use, without a build of QEMU for the host.

    tsan        this host, ThreadSanitizer
    i686        32 bits; with the compiler's 64-bit atomic accesses
    i686-lock   32 bits; with QEMU's locks in their place, as on other hosts
    s390x       big-endian

The compilers are Debian's; glib for a foreign host is unpacked below build/.
Programs for a foreign host run under qemu-user.

usage: leaves.py KIND [TEST...]         (TEST: iotlb, tables, walk)
"""

import collections
import contextlib
import glob
import os
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'scripts'))

from serieslib import aptget, lay, say, work              # noqa: E402
from serieslib.say import Fail                             # noqa: E402

Kind = collections.namedtuple('Kind', 'arch triplet bits flags config')

KINDS = {
    'tsan': Kind(None, '', 64, ['-fsanitize=thread', '-Wno-tsan'],
                 ['CONFIG_TSAN', 'CONFIG_ATOMIC64', 'CONFIG_INT128']),
    'i686': Kind('i386', 'i686-linux-gnu', 32, [], ['CONFIG_ATOMIC64']),
    'i686-lock': Kind('i386', 'i686-linux-gnu', 32, [], []),
    's390x': Kind('s390x', 's390x-linux-gnu', 64, ['-march=z13'],
                  ['CONFIG_ATOMIC64', 'CONFIG_INT128']),
}
TESTS = ['walk', 'tables', 'iotlb']

# What osdep.h and the files below ask of configure, the same for all
CONFIG = ['CONFIG_POSIX', 'CONFIG_LINUX', 'CONFIG_IOVEC',
          'CONFIG_POSIX_MEMALIGN', 'CONFIG_PTHREAD_SETNAME_NP_W_TID',
          'CONFIG_SEM_TIMEDWAIT']
UTIL = ['util/rcu.c', 'util/qemu-thread-posix.c', 'util/memalign.c',
        'util/cutils.c', 'util/notify.c', 'util/qsp.c', 'util/host-utils.c',
        'stubs/iothread-lock.c']
# Without CONFIG_ATOMIC64
LOCKS = ['util/atomic64.c', 'util/cacheflush.c']
# glib to link with, statically: nothing has to be found at run time
GLIB = {'libglib2.0-dev': 'glib', 'libpcre2-dev': 'pcre2'}

OUT = os.path.join(work.BUILD, 'leaves')


class ForeignApt(aptget.Apt):
    """apt as if this machine were of another architecture."""

    def __init__(self, arch, suite):
        super().__init__('leaves-' + arch, 'deb', [(suite, 'main')])
        self.arch = arch

    def _write(self, keyring):
        super()._write(keyring)
        with open(self.conf, 'a', encoding='utf-8') as file:
            file.write(f'APT::Architecture "{self.arch}";\n'
                       f'APT::Architectures {{ "{self.arch}"; }};\n'
                       'Dir::State::Status "/dev/null";\n')


def sysroot(arch):
    """glib and its headers for a foreign architecture."""
    final = os.path.join(OUT, 'sysroot-' + arch)
    if os.path.exists(final):
        return final
    main = aptget.pick_mirrors(aptget.machine_sources())[0]
    if not main:
        raise Fail('/etc/apt names no Debian mirror: the libraries for '
                   f'{arch} come from there')
    apt = ForeignApt(arch, main.suite)
    apt.update()
    half, root = work.half('leaves'), work.half('leaves-root')
    apt.run('glib', ['download', *GLIB], cwd=half, done=f'glib for {arch}')
    for package in glob.glob(os.path.join(half, '*.deb')):
        subprocess.run(['dpkg-deb', '-x', package, root], check=True)
    work.replace_dir(root, final)
    return final


def glib_flags(kind):
    """(compiler flags, linker flags) for glib."""
    if not kind.arch:
        return tuple(subprocess.run(
            ['pkg-config', what, 'glib-2.0'], check=True, text=True,
            capture_output=True).stdout.split()
            for what in ('--cflags', '--libs'))
    usr = os.path.join(sysroot(kind.arch), 'usr')
    lib = glob.glob(usr + '/lib/*-linux-gnu')[0]
    return ([f'-I{usr}/include/glib-2.0', f'-I{lib}/glib-2.0/include'],
            ['-static', f'-L{lib}', '-lglib-2.0', '-lpcre2-8', '-lm',
             '-lpthread'])


def compiler(kind):
    name = (kind.triplet + '-' if kind.triplet else '') + 'gcc'
    package = 'gcc' if not kind.triplet else f'gcc-{kind.triplet}'
    return say.need_program(name, package)


def write_headers(out, kind):
    """What configure and the generators would have made."""
    os.makedirs(os.path.join(out, 'trace'), exist_ok=True)
    work.write_file(os.path.join(out, 'config-host.h'), ''.join(
        f'#define {name} 1\n' for name in CONFIG + kind.config) +
        '#define CONFIG_PREFIX "/usr"\n#define CONFIG_BINDIR "/usr/bin"\n')
    work.write_file(os.path.join(out, 'config-poison.h'), '')
    subprocess.run(
        ['/usr/bin/python3', 'scripts/tracetool.py', '--backends=nop',
         '--format=h', '--group=util', 'util/trace-events',
         os.path.join(out, 'trace/trace-util.h')], check=True, cwd=work.TREE)
    subprocess.run(
        ['/usr/bin/python3', 'scripts/qapi-gen.py', '-b', '-o',
         os.path.join(out, 'qapi'), 'qapi/qapi-schema.json'], check=True,
        cwd=work.TREE)


def flags(out, kind, glib):
    return ['-std=gnu11', '-O2', '-g', '-Wall', '-Werror', '-D_GNU_SOURCE',
            '-D_FILE_OFFSET_BITS=64', '-D_TIME_BITS=64', '-fwrapv',
            '-fno-strict-aliasing', '-ffunction-sections', '-fdata-sections',
            *kind.flags, *glib, '-iquote', out, '-iquote', '.', '-iquote',
            'include', '-iquote', 'host/include/generic', '-isystem',
            'linux-headers']


def compile_tests(name, tests):
    """The test programs of one kind, always anew: it is a matter of seconds"""
    kind = KINDS[name]
    cc = compiler(kind)
    with work.locked():
        lay.lay()
        cflags, libs = glib_flags(kind)
    out = os.path.join(OUT, name)
    shutil.rmtree(out, ignore_errors=True)
    write_headers(out, kind)
    command = [cc, *flags(out, kind, cflags)]
    objects = []
    for source in UTIL + ([] if 'CONFIG_ATOMIC64' in kind.config else LOCKS):
        objects.append(os.path.join(out, os.path.basename(source) + '.o'))
        subprocess.run([*command, '-c', source, '-o', objects[-1]],
                       check=True, cwd=work.TREE)
    programs = []
    for test in tests:
        programs.append(os.path.join(out, 'test-vtd-' + test))
        subprocess.run([*command, f'tests/unit/test-vtd-{test}.c',
                        f'hw/i386/intel_iommu_{test}.c', *objects, '-o',
                        programs[-1], '-Wl,--gc-sections', *libs],
                       check=True, cwd=work.TREE)
    return programs


def runner(kind):
    """What runs a program for a foreign host."""
    if not kind.arch:
        return []
    return [say.need_program('qemu-' + kind.arch, 'qemu-user')]


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        sys.exit(__doc__.strip().rpartition('\n\n')[2])
    name, tests = sys.argv[1], sys.argv[2:] or TESTS
    try:
        # The output is TAP: what goes on before it is for the reader
        with contextlib.redirect_stdout(sys.stderr):
            programs = compile_tests(name, tests)
    except (Fail, subprocess.CalledProcessError) as err:
        sys.exit(f'leaves: {err}')
    # One plan and one count for all: the programs have their own
    failed = 0
    print(f'1..{len(programs)}', flush=True)
    for number, program in enumerate(programs, 1):
        done = subprocess.run([*runner(KINDS[name]), program],
                              stdin=subprocess.DEVNULL,
                              stdout=sys.stderr.fileno())
        failed += done.returncode != 0
        print('ok' if done.returncode == 0 else 'not ok', number,
              os.path.basename(program), flush=True)
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
