# SPDX-License-Identifier: GPL-2.0-or-later
"""
Packages from Debian's archive, of this release or of another one, verified
and downloaded by apt itself.

apt gets a private list of sources, derived from the system's own (same mirror,
same keys), and a private state; the system's configuration is only read.
"""

import os
from pathlib import Path
import re
import shutil
import subprocess
import tempfile

KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
RELEASES = ('bullseye', 'bookworm', 'trixie', 'forky', 'sid',
            'oldoldstable', 'oldstable', 'stable', 'testing', 'unstable')


class DebianError(Exception):
    """One line for the user: what is wrong, and what to do."""


def _deb822_entries(text):
    for stanza in re.split(r'\n\s*\n', text):
        fields = {}
        for line in stanza.splitlines():
            match = re.match(r'([A-Za-z-]+):\s*(.*)', line)
            if match:
                fields[match.group(1).lower()] = match.group(2).strip()
        if fields.get('enabled', 'yes').lower() in ('no', 'false', '0'):
            continue
        if 'deb' in fields.get('types', '').split():
            yield (fields.get('uris', '').split(),
                   fields.get('suites', '').split(),
                   fields.get('signed-by', ''))


def _one_line_entries(text):
    for line in text.splitlines():
        match = re.match(r'deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)', line)
        if match:
            options = dict(o.split('=', 1) for o in (match.group(1) or '')
                           .split() if '=' in o)
            yield [match.group(2)], [match.group(3)], \
                options.get('signed-by', '')


def system_archive(etc='/etc/apt'):
    """The (URI, keyring) of the Debian archive that the system itself uses"""
    files = [Path(etc, 'sources.list')]
    files += sorted(Path(etc, 'sources.list.d').glob('*'))
    for path in files:
        parse = {'.sources': _deb822_entries,
                 '.list': _one_line_entries}.get(path.suffix)
        if parse is None or not path.is_file():
            continue
        for uris, suites, signed_by in parse(path.read_text()):
            if uris and set(suites) & set(RELEASES):
                return uris[0], signed_by
    raise DebianError(f'no Debian archive found in {etc}/sources.list*: '
                      'give a kernel of your own with KERNEL=/boot/vmlinuz-...')


class Apt:
    """apt with a private state; to be used in a "with" statement"""

    def __init__(self, suites, directory):
        self.uri, self.keyring = system_archive()
        if not self.keyring and os.path.exists(KEYRING):
            self.keyring = KEYRING
        self.suites = suites
        self.scratch = tempfile.TemporaryDirectory(
            prefix=f'.apt-{os.getpid()}-', dir=directory)
        self.root = Path(self.scratch.name)

    def __enter__(self):
        for name in ('lists/partial', 'cache/archives/partial', 'debs'):
            Path(self.root, name).mkdir(parents=True)
        option = f'[signed-by={self.keyring}] ' if self.keyring else ''
        Path(self.root, 'sources.list').write_text(''.join(
            f'deb {option}{self.uri} {suite} main\n' for suite in self.suites))
        self._run('apt-get', 'update',
                  failure='cannot read the package lists of '
                  + ' and '.join(self.suites))
        return self

    def __exit__(self, *exc):
        self.scratch.cleanup()

    def _run(self, tool, *args, failure):
        settings = {
            'Dir::Etc::SourceList': f'{self.root}/sources.list',
            'Dir::Etc::SourceParts': '-',
            'Dir::State::Lists': f'{self.root}/lists',
            'Dir::State::Status': '/dev/null',
            'Dir::Cache': f'{self.root}/cache',
            'Acquire::Languages': 'none',
            'Acquire::Retries': '2',
            'APT::Get::List-Cleanup': 'false',
            'APT::Update::Error-Mode': 'any',
        }
        if os.geteuid() == 0:
            settings['APT::Sandbox::User'] = 'root'
        options = [x for k, v in settings.items() for x in ('-o', f'{k}={v}')]
        try:
            done = subprocess.run([tool, '-qq', *options, *args],
                                  cwd=self.root / 'debs', text=True,
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        except OSError as err:
            raise DebianError(f'{tool}: {err.strerror}: this needs Debian; '
                              'give a kernel of your own with KERNEL=') from err
        if done.returncode:
            lines = [line for line in done.stderr.splitlines()
                     if line.startswith('E:')] or ['no reason given']
            raise DebianError(f'{failure} ({lines[0][2:].strip()}): check the '
                              'network and the space on the disk, try again')
        return done.stdout

    def dependency(self, name, suite, prefix):
        """The package with this prefix that package @name depends on"""
        text = self._run('apt-cache', 'show', name,
                         failure=f'package {name} not found')
        for stanza in text.split('\n\n'):
            match = re.search(rf'^Depends:.*?({prefix}[^\s,]*)', stanza, re.M)
            if match:
                return match.group(1)
        raise DebianError(f'{name} in {suite} names no {prefix}* package')

    def unpack(self, name, target, without=()):
        """
        Download a package and unpack it as @target, whole or not at all,
        but for the directories that match the patterns in @without.
        """
        self._run('apt-get', 'download', name,
                  failure=f'cannot download {name}')
        (deb,) = (self.root / 'debs').glob('*.deb')
        tree = self.root / 'tree'
        done = subprocess.run(['dpkg-deb', '-x', str(deb), str(tree)],
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise DebianError(f'cannot unpack {deb.name}: '
                              + done.stderr.strip().splitlines()[-1])
        deb.unlink()
        for pattern in without:
            for path in tree.glob(pattern):
                shutil.rmtree(path)
        try:
            tree.rename(target)
        except OSError:
            # Another run was faster
            if not Path(target).is_dir():
                raise
            shutil.rmtree(tree)
