# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds: configure once, then ninja.

    default   base + series: emulator, tools and the test programs
    asan      the same with AddressSanitizer and UBSan, emulator and tests
    stock     the base alone: the emulator to compare with
"""

import collections
import glob
import os
import re
import shutil
import subprocess

from . import aptget, base, commits, lay, say, work
from .say import Fail

Kind = collections.namedtuple('Kind', 'source options programs tests')

# Only what the five parts need: it halves the time of a build.
OPTIONS = '''
    --target-list=x86_64-softmmu --without-default-features
    --disable-install-blobs --disable-docs
    --enable-system --enable-tcg --enable-kvm --enable-tools
    --enable-slirp --enable-linux-aio --enable-linux-io-uring
    --enable-vhost-kernel --enable-vhost-net --enable-vhost-user
    --enable-vhost-vdpa --enable-attr --enable-virtfs --enable-cap-ng
    --enable-zstd --enable-tpm'''.split()

EMULATOR = ['qemu-system-x86_64']
TOOLS = ['qemu-img', 'qemu-io']
# iotests ask for them
SERVERS = ['qemu-nbd', 'storage-daemon/qemu-storage-daemon']
# QEMU's own test programs that "make check" runs on our unit.
STOCK_TESTS = ['tests/qtest/intel-iommu-test', 'tests/qtest/bios-tables-test',
               'tests/qtest/q35-test']

KINDS = {
    'default': Kind('ours', [], EMULATOR + TOOLS + SERVERS, True),
    # Little optimised and without line numbers: it compiles twice as fast.
    'asan': Kind('ours', ['--enable-asan', '--enable-ubsan', '-Doptimization=1',
                          '-Ddebug=false'], EMULATOR, True),
    'stock': Kind('stock', [], EMULATOR + TOOLS, False),
}

# Debian 12's meson is too old, and it has no pycotap: both are in its
# backports suite.
BACKPORTS = {'12': 'bookworm-backports'}
MESON_MINIMUM = (1, 5)


def program_of(path):
    """The test program made from a source file of the series, or None."""
    match = re.fullmatch(r'tests/(qtest/[\w-]+-test|unit/test-[\w-]+)\.c',
                         path)
    return f'tests/{match.group(1)}' if match else None


def iotests(series):
    """Names of the iotests that the commits add."""
    folder = 'tests/qemu-iotests/tests/'
    return [path[len(folder):] for commit in series for path in commit.adds
            if path.startswith(folder) and '.' not in path]


def test_programs(series):
    """Programs that the commits' test sources become."""
    paths = [path for commit in series for path in commit.adds]
    return [program for program in map(program_of, paths) if program]


# The environment ------------------------------------------------------------

def _python_path():
    return os.path.join(work.TOOLS, 'usr/lib/python3/dist-packages')


def environment():
    """For configure and for ninja, which runs meson again when it must."""
    # ccache then shares what is the same in stock and ours, and in other
    # checkouts.
    env = dict(os.environ, CCACHE_NOHASHDIR='1',
               CCACHE_BASEDIR=os.path.realpath(work.BUILD))
    # A caller's Python, and make's own variables, are not for QEMU's build.
    for name in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV', 'MAKEFLAGS',
                 'MFLAGS', 'MAKELEVEL'):
        env.pop(name, None)
    path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    if os.path.isdir(_python_path()):
        env['PYTHONPATH'] = _python_path()
        path = os.path.join(work.TOOLS, 'usr/bin') + ':' + path
    env['PATH'] = path
    return env


def _probe(code, env):
    done = subprocess.run(['/usr/bin/python3', '-c', code], env=env,
                          capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _have_tools():
    env = environment()
    version = _probe('import mesonbuild.coredata as c; print(c.version)', env)
    recent = version and tuple(
        int(part) for part in re.findall(r'\d+', version)[:2]) >= MESON_MINIMUM
    return recent and _probe('import pycotap', env) is not None


def _release():
    try:
        with open('/etc/os-release', encoding='utf-8') as file:
            text = file.read()
    except FileNotFoundError:
        return ''
    match = re.search(r'^VERSION_ID="?(\d+)', text, re.M)
    debian = re.search(r'^ID="?debian"?$', text, re.M)
    return match.group(1) if match and debian else ''


def _fetch_backports(suite):
    apt = aptget.Apt('tools', 'deb', [(suite, 'main')])
    apt.update()
    half = work.half('tools')
    apt.run('build tools', ['download', 'meson', 'python3-pycotap'],
            cwd=half, done=f'meson and pycotap from {suite}')
    tools = work.half('unpacked-tools')
    for package in glob.glob(os.path.join(half, '*.deb')):
        say.run_logged('unpack', ['dpkg-deb', '-x', package, tools],
                       work.log('unpack-tools'),
                       done=os.path.basename(package))
    work.replace_dir(tools, work.TOOLS)


def ensure_tools():
    """A meson and a pycotap that QEMU accepts."""
    if _have_tools():
        return
    suite = BACKPORTS.get(_release())
    if suite:
        _fetch_backports(suite)
    if not _have_tools():
        raise Fail('meson 1.5 or newer and pycotap are needed: run "make '
                   'deps", or install the packages meson and python3-pycotap')


# Firmware -------------------------------------------------------------------

FIRMWARE = ('/usr/share/seabios', '/usr/lib/ipxe/qemu', '/usr/share/qemu')
# One file of each package that no guest starts without.
NEEDED_FIRMWARE = {'bios-256k.bin': 'seabios', 'efi-virtio.rom': 'ipxe-qemu',
                   'kvmvapic.bin': 'qemu-system-data'}


def link_firmware(obj):
    """An emulator that is not installed looks below its own directory."""
    for target in glob.glob(os.path.join(obj, 'qemu-bundle/*/**/share/qemu'),
                            recursive=True):
        for directory in FIRMWARE:
            for path in glob.glob(directory + '/*'):
                link = os.path.join(target, os.path.basename(path))
                if os.path.islink(link) and not os.path.exists(link):
                    os.unlink(link)     # of a package that is gone
                if os.path.isfile(path) and not os.path.lexists(link):
                    os.symlink(os.path.realpath(path), link)
        for name, package in NEEDED_FIRMWARE.items():
            if not os.path.exists(os.path.join(target, name)):
                raise Fail(f'the firmware {name} is missing: run "make deps", '
                           f'or install Debian\'s package {package}')


# Configure and ninja --------------------------------------------------------

def _compiler():
    ccache = shutil.which('ccache', path=environment()['PATH'])
    return ['--cc=ccache gcc', '--host-cc=ccache gcc'] if ccache else []


def _explain_configure(lines):
    for line in lines:
        match = re.search(r'(?:ERROR: )?(Dependency "[\w.+-]+" not found|'
                          r'Program [\'"][\w.-]+[\'"] not found)', line)
        if match:
            return Fail(f'configure: {match.group(1)}: run "make deps"')
    return None


def _configure(name, obj, more=()):
    options = ['--python=/usr/bin/python3', '--cxx=/bin/false', *_compiler(),
               *OPTIONS, *more]
    stamp = os.path.join(obj, 'series-options.json')
    if work.read_json(stamp) == options and \
            os.path.exists(os.path.join(obj, 'build.ninja')):
        return
    shutil.rmtree(obj, ignore_errors=True)
    os.makedirs(obj)
    work.need_space(2, f'the build "{name}"')
    say.run_logged(f'configure {name}', ['../qemu/configure', *options],
                   work.log(f'configure-{name}'), cwd=obj, env=environment(),
                   keep_fds=work.lock_fds(), watch=lambda line: line[:80],
                   explain=_explain_configure)
    work.write_json(stamp, options)


def _progress(line):
    match = re.match(r'\[(\d+)/(\d+)\]', line)
    return f'{match.group(1)} of {match.group(2)}' if match else None


def _errors(lines):
    """Compiler messages say more than the end of the log."""
    wrong = [line for line in lines if re.search(r'(error|undefined '
                                                 r'reference|FAILED):?', line)]
    if wrong:
        return Fail('the build failed:\n' + '\n'.join(
            '    ' + line for line in wrong[:15]))
    return None


def compile_in(name, obj, targets, jobs=None):
    """ninja, in a directory that is configured."""
    command = ['ninja', *(['-j', str(jobs)] if jobs else []), *targets]
    say.run_logged(f'build {name}', command, work.log(f'build-{name}'),
                   cwd=obj, env=environment(), keep_fds=work.lock_fds(),
                   watch=_progress, explain=_errors)


def build(name, targets=()):
    """Build one kind; returns its directory."""
    if name not in KINDS:
        raise Fail(f'there is no kind of build "{name}": '
                   f'{", ".join(KINDS)}')
    kind = KINDS[name]
    with work.locked():
        if kind.source == 'ours':
            lay.lay()
        else:
            base.load()
        ensure_tools()
        directory = os.path.join(work.BUILD, 'ours' if name == 'default'
                                 else name)
        os.makedirs(directory, exist_ok=True)
        link = os.path.join(directory, 'qemu')
        if not os.path.lexists(link):
            os.symlink(f'../{kind.source}/qemu', link)
        obj = os.path.join(directory, 'obj')
        _configure(name, obj, kind.options)
        if not targets:
            tests = STOCK_TESTS + test_programs(commits.load())
            targets = kind.programs + (tests if kind.tests else [])
        compile_in(name, obj, targets)
        link_firmware(obj)
    return obj


def configure_each(obj):
    """For the trees of single commits."""
    ensure_tools()
    _configure('each', obj)


def documentation():
    """QEMU's manuals; returns what Sphinx says."""
    top = os.path.join(work.BUILD, 'docs')
    obj = os.path.join(top, 'obj')
    os.makedirs(top, exist_ok=True)
    if not os.path.lexists(os.path.join(top, 'qemu')):
        os.symlink('../ours/qemu', os.path.join(top, 'qemu'))
    ensure_tools()
    _configure('docs', obj, ['--enable-docs', '--disable-werror'])
    compile_in('docs', obj, ['qemu-version.h'])
    # All pages anew, or those that have not changed keep their warnings to
    # themselves.
    version = work.read_json(work.BASE_STAMP)['version']
    source, out = os.path.join(top, 'qemu', 'docs'), os.path.join(top, 'html')
    return say.run_logged(
        'manual', ['pyvenv/bin/sphinx-build', '-q', '-E', '-a', '-j', 'auto',
                   f'-Dversion={version}', '-Drelease=', '-b', 'html', '-d',
                   os.path.join(top, 'doctrees'),
                   os.path.realpath(source), out],
        work.log('docs'), cwd=obj,
        env=dict(environment(), CONFDIR='etc/qemu'),
        keep_fds=work.lock_fds())
