# SPDX-License-Identifier: GPL-2.0-or-later
"""apt with a private configuration below build/apt.

The mirror, its keyring and the proxy are taken from the machine's own
configuration; nothing of the machine's is written.  apt verifies what it
gets: the archive's signature, the index that it covers, the file's hash.
"""

import collections
import glob
import os
import re
import subprocess

from . import say, work
from .say import Fail

APT = os.path.join(work.BUILD, 'apt')
ETC = '/etc/apt'

# Debian's own keys on either release, for sources that name no keyring.
KEYRINGS = ('/usr/share/keyrings/debian-archive-keyring.gpg',
            '/usr/share/keyrings/debian-archive-keyring.pgp')

CODENAMES = ('bookworm', 'trixie', 'stable', 'oldstable', 'forky', 'sid',
             'testing', 'unstable')

Source = collections.namedtuple('Source', 'uri suite components signed_by')

# What a line of apt's output means, and what to do about it.
TROUBLE = (
    (say.NO_SPACE, None),
    (re.compile(r'NO_PUBKEY|Missing key|no acceptable self-signature|'
                r'public key is not available', re.I),
     'the keyring {keyring} does not hold the keys of "{suites}": upgrade '
     'the package debian-archive-keyring and run the same command again'),
    (re.compile(r'Could not resolve|Temporary failure resolving|'
                r'Could not connect|Unable to connect|Connection (failed|'
                r'refused|timed out|reset)|Network is unreachable|'
                r'No route to host|Could not handshake|connection timed out',
                re.I),
     'no connection to the Debian mirror {uris}: check the network (or the '
     'proxy in /etc/apt/apt.conf.d) and run the same command again'),
    (re.compile(r'not valid yet|is expired|Release file .*expired', re.I),
     'the Debian mirror {uris} has an expired index, or the clock of this '
     'machine is wrong ("date" shows it)'),
    (re.compile(r'does not have a Release file|404 +Not Found|'
                r'is not signed|File not found', re.I),
     'the Debian mirror {uris} does not carry "{suites}": name a full mirror '
     'in /etc/apt, or set QEMU_SRC=DIR to a QEMU 10.0.x tree'),
    (re.compile(r'Hash Sum mismatch|File has unexpected size|BADSIG|'
                r'Clearsigned file isn|invalid signature', re.I),
     'a file from the Debian mirror {uris} is not what the archive has '
     'signed: the mirror is being updated or something on the way changes '
     'files; try again later'),
)


def _one_line(path):
    """Entries of a sources.list: type [options] uri suite components."""
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            match = re.match(r'\s*deb(?:-src)?\s+(?:\[([^]]*)\]\s+)?'
                             r'(\S+)\s+(\S+)([^#]*)', line)
            if not match:
                continue
            options, uri, suite, components = match.groups()
            signed = re.search(r'signed-by=(\S+)', options or '', re.I)
            yield Source(uri, suite, components.split(),
                         signed.group(1) if signed else '')


def _stanzas(path):
    """The paragraphs of a deb822 file, as dictionaries of lower-case keys."""
    stanza, key = {}, None
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in [*file, '\n']:
            line = line.rstrip('\n')
            if line.startswith('#'):
                continue
            if not line.strip():
                if stanza:
                    yield stanza
                stanza, key = {}, None
            elif line[0] in ' \t' and key:
                stanza[key] += '\n' + line
            elif ':' in line:
                key, _, value = line.partition(':')
                key = key.strip().lower()
                stanza[key] = value.strip()


def _deb822(path):
    for stanza in _stanzas(path):
        if stanza.get('enabled', 'yes').lower() in ('no', 'false', '0'):
            continue
        for uri in stanza.get('uris', '').split():
            for suite in stanza.get('suites', '').split():
                yield Source(uri, suite, stanza.get('components', '').split(),
                             stanza.get('signed-by', ''))


def machine_sources(etc=ETC):
    """All sources that the machine's apt has, both formats."""
    found = []
    files = [os.path.join(etc, 'sources.list')]
    for path in files + sorted(glob.glob(f'{etc}/sources.list.d/*.list')):
        if os.path.exists(path):
            found += _one_line(path)
    for path in sorted(glob.glob(f'{etc}/sources.list.d/*.sources')):
        found += _deb822(path)
    return [source for source in found if not source.uri.startswith('cdrom:')]


def pick_mirrors(sources):
    """(main, security) as Source or None.

    Other archives use Debian's suite names too.  The Debian archive is the
    one that has a component main, best with -updates beside it, and whose
    path is called debian.
    """
    updates = {source.uri for source in sources
               if source.suite.endswith('-updates')}
    main = [source for source in sources if 'main' in source.components
            and source.suite in CODENAMES]
    main.sort(key=lambda source: (
        source.uri not in updates,
        source.uri.rstrip('/').rpartition('/')[2] != 'debian'))
    security = [source for source in sources if 'main' in source.components
                and re.search(r'-security$|/updates$', source.suite)]
    return (main[0] if main else None, security[0] if security else None)


class Apt:
    """Private apt configuration for some suites of Debian.

    kind is "deb-src" or "deb"; suites is a list of (suite, which) with
    which "main" or "security".
    """

    def __init__(self, name, kind, suites):
        if not os.path.exists('/usr/bin/apt-get'):
            raise Fail('this machine has no apt: set QEMU_SRC=DIR to a '
                       'QEMU 10.0.x source tree or git checkout')
        self.dir = os.path.join(APT, name)
        self.kind = kind
        mirrors = dict(zip(('main', 'security'),
                           pick_mirrors(machine_sources())))
        if not mirrors['main']:
            raise Fail('/etc/apt names no Debian mirror: add one there '
                       '(man sources.list), or set QEMU_SRC=DIR to a QEMU '
                       '10.0.x source tree or git checkout')
        self.entries = [(mirrors[which], suite) for suite, which in suites
                        if mirrors[which]]
        self.keyring = ''
        self.conf = os.path.join(self.dir, 'apt.conf')

    def _describe(self):
        return {'keyring': self.keyring.partition('\n')[0] or '/etc/apt',
                'suites': ' '.join(suite for _, suite in self.entries),
                'uris': ' '.join(dict.fromkeys(
                    source.uri for source, _ in self.entries))}

    def _acquire_settings(self):
        """The machine's proxies and the like; no hooks, no other indexes."""
        done = subprocess.run(['apt-config', 'dump'], capture_output=True,
                              env=self._env(None), text=True)
        return [line for line in done.stdout.splitlines()
                if line.startswith('Acquire::')
                and not line.startswith('Acquire::IndexTargets')]

    @staticmethod
    def _env(conf):
        env = dict(os.environ, LC_ALL='C.UTF-8')
        env.pop('APT_CONFIG', None)
        if conf:
            env['APT_CONFIG'] = conf
        return env

    def _write(self, keyring):
        """keyring overrides what the machine's sources name."""
        for sub in ('etc', 'state/lists/partial', 'cache/archives/partial'):
            os.makedirs(os.path.join(self.dir, sub), exist_ok=True)
        stanzas = []
        self.keyring = keyring or self.entries[0][0].signed_by
        for source, suite in self.entries:
            signed = keyring or source.signed_by
            stanzas.append(f'Types: {self.kind}\nURIs: {source.uri}\n'
                           f'Suites: {suite}\nComponents: main\n'
                           + (f'Signed-By: {signed}\n' if signed else ''))
        work.write_file(os.path.join(self.dir, 'debian.sources'),
                        '\n'.join(stanzas))
        empty = os.path.join(self.dir, 'etc')
        lines = self._acquire_settings() + [
            f'Dir::Etc::SourceList "{self.dir}/debian.sources";',
            f'Dir::Etc::SourceParts "{empty}";',
            f'Dir::Etc::Parts "{empty}";',
            f'Dir::Etc::Main "{empty}/none";',
            f'Dir::Etc::Preferences "{empty}/none";',
            f'Dir::Etc::PreferencesParts "{empty}";',
            f'Dir::State "{self.dir}/state";',
            'Dir::State::Status "/var/lib/dpkg/status";',
            f'Dir::Cache "{self.dir}/cache";',
            f'Dir::Log "{self.dir}";',
            'Acquire::Languages "none";',
            'Acquire::Retries "2";',
            'APT::Update::Error-Mode "any";',
            'APT::Get::AllowUnauthenticated "false";',
            'Acquire::AllowInsecureRepositories "false";',
        ]
        if os.geteuid() == 0:
            # The download user may not be able to reach the checkout.
            lines.append('APT::Sandbox::User "root";')
        work.write_file(self.conf, '\n'.join(lines) + '\n')

    def explain(self, lines):
        """The Fail that says what apt's output means, or None."""
        for pattern, text in TROUBLE:
            if any(pattern.search(line) for line in lines):
                if text is None:
                    return say.no_space(work.relative(self.dir))
                return Fail(text.format(**self._describe()))
        return None

    def run(self, label, args, *, cwd=None, done='done'):
        return say.run_logged(
            label, ['apt-get', '-q', '-y', *args],
            work.log(label.replace(' ', '-')), cwd=cwd,
            env=self._env(self.conf), keep_fds=work.lock_fds(), done=done,
            watch=lambda line: line[:90], explain=self.explain)

    def output(self, program, *args):
        done = subprocess.run([program, *args], env=self._env(self.conf),
                              capture_output=True, text=True)
        return done.stdout

    def update(self):
        """Get the indexes, first with the keyring that the machine names."""
        keyrings = [key for key in KEYRINGS if os.path.exists(key)][:1]
        if self.entries[0][0].signed_by:
            tries = [''] + keyrings
        else:
            tries = keyrings + ['']
        for number, keyring in enumerate(tries):
            self._write(keyring)
            try:
                self.run('debian index', ['update'], done='up to date')
                return
            except Fail as fail:
                if 'does not hold the keys' not in str(fail) or \
                        number == len(tries) - 1:
                    raise


def version_less(one, two):
    """Debian's order of versions."""
    return subprocess.run(['dpkg', '--compare-versions', one, 'lt', two]
                          ).returncode == 0
