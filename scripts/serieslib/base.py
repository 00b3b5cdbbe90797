# SPDX-License-Identifier: GPL-2.0-or-later
"""The base: QEMU's source as Debian 13 ships it, or the user's QEMU_SRC.

What is made: build/base (the files), a commit of them in build/git, and
build/base.json, written last, which says that both are complete.
"""

import os
import re
import shutil
import subprocess
import tarfile

from . import aptget, commits, say, work
from .say import Fail

SUITES = [('trixie', 'main'), ('trixie-updates', 'main'),
          ('trixie-security', 'security')]

# Parts of Debian's packaging that are no part of QEMU.
PACKAGING = ('debian', '.pc')

# Nothing about a base's commit may vary from run to run.
IDENT = {'GIT_AUTHOR_NAME': 'base', 'GIT_AUTHOR_EMAIL': 'base@localhost',
         'GIT_AUTHOR_DATE': '1000000000 +0000',
         'GIT_COMMITTER_NAME': 'base', 'GIT_COMMITTER_EMAIL': 'base@localhost',
         'GIT_COMMITTER_DATE': '1000000000 +0000'}


def read_lock():
    """base.lock as a dictionary: lines "name: value", # for comments."""
    path = os.path.join(work.ROOT, 'base.lock')
    lock = {}
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            line = line.partition('#')[0].strip()
            if not line:
                continue
            name, colon, value = line.partition(':')
            if not colon:
                raise Fail(f'base.lock:{number}: not "name: value"')
            lock[name.strip()] = value.strip()
    for name in ('version', 'debian', 'tree'):
        if name not in lock:
            raise Fail(f'base.lock has no line "{name}:"; '
                       '"git checkout base.lock" restores it')
    return lock


def check_version(directory, origin):
    """The QEMU version of a tree, which must be 10.0.x."""
    path = os.path.join(directory, 'VERSION')
    if not (os.path.isfile(path)
            and os.path.isfile(os.path.join(directory, 'configure'))
            and os.path.isdir(os.path.join(directory, 'hw/i386'))):
        raise Fail(f'{origin} is not a QEMU source tree (no VERSION, '
                   'configure and hw/i386 in it)')
    with open(path, encoding='utf-8') as file:
        version = file.read().strip()
    if not re.fullmatch(r'10\.0\.\d+', version):
        raise Fail(f'{origin} is QEMU {version}; this series is for 10.0.x: '
                   'give a tree of that branch, or none to get the right one')
    return version


# From Debian's archive ------------------------------------------------------

def _choose(versions, wanted):
    """The version in base.lock if the archive has it, else its newest 10.0."""
    if wanted in versions:
        return wanted
    best = None
    for version in versions:
        if re.match(r'1:10\.0\.\d+\b', version) and \
                (best is None or aptget.version_less(best, version)):
            best = version
    if best is None:
        raise Fail('the Debian mirror has no qemu 10.0.x source (it has: '
                   f'{" ".join(sorted(versions)) or "none"}): set '
                   'QEMU_SRC=DIR to a QEMU 10.0.x tree')
    return best


def _download(lock):
    """Get the source package; returns (directory, version)."""
    apt = aptget.Apt('source', 'deb-src', SUITES)
    apt.update()
    records = apt.output('apt-cache', 'showsrc', '--only-source', 'qemu')
    version = _choose(set(re.findall(r'^Version: (\S+)', records, re.M)),
                      lock['debian'])
    directory = work.half('download')
    apt.run('qemu source', ['source', '--download-only', '--only-source',
                            f'qemu={version}'], cwd=directory,
            done=f'got {version}, verified by apt')
    return directory, version


def _unpack(directory):
    """dpkg-source -x with Debian's patches; returns the tree."""
    say.need_program('dpkg-source', 'dpkg-dev')
    dsc = [name for name in os.listdir(directory) if name.endswith('.dsc')]
    tree = os.path.join(work.half('unpacked'), 'qemu')
    # apt has verified the hashes from the archive's signature down.
    say.run_logged('unpack', ['dpkg-source', '--no-check', '-x',
                              os.path.join(directory, dsc[0]), tree],
                   work.log('unpack'), env=dict(os.environ, LC_ALL='C.UTF-8'),
                   keep_fds=work.lock_fds(),
                   watch=lambda line: line[:80])
    for name in PACKAGING:
        shutil.rmtree(os.path.join(tree, name), ignore_errors=True)
    shutil.rmtree(directory)
    return tree


# From the user --------------------------------------------------------------

def _from_checkout(source, tree):
    """The committed files of a git checkout, and its subprojects."""
    git = ['-c', 'safe.directory=*', '-C', source]
    head = work.run_git([*git, 'rev-parse', 'HEAD']).decode().strip()
    dirty = work.run_git([*git, 'status', '--porcelain',
                          '--untracked-files=no']).decode().splitlines()
    if dirty:
        say.warn(f'{source} has uncommitted changes ({len(dirty)} files): '
                 'the commit is used, without them')
    os.makedirs(tree)
    archive = subprocess.Popen(['git', *git, 'archive', '--format=tar', head],
                               stdout=subprocess.PIPE, env=work.git_env())
    with tarfile.open(fileobj=archive.stdout, mode='r|') as tar:
        tar.extractall(tree)
    if archive.wait():
        raise Fail(f'git archive of {source} failed')
    # git knows QEMU's subprojects by their .wrap files only.
    for name in os.listdir(os.path.join(source, 'subprojects')):
        inside = os.path.join('subprojects', name)
        new = os.path.join(tree, inside)
        if os.path.isdir(os.path.join(source, inside)) and \
                not os.path.exists(new) and \
                os.path.exists(os.path.join(tree, inside + '.wrap')):
            shutil.copytree(os.path.join(source, inside), new, symlinks=True,
                            ignore=shutil.ignore_patterns('.git'))
    return head[:12]


def _from_user(source):
    """A copy of the user's tree; theirs is never written."""
    if not os.path.isdir(source):
        raise Fail(f'QEMU_SRC={source}: no such directory')
    check_version(source, f'QEMU_SRC={source}')
    tree = os.path.join(work.half('copied'), 'qemu')
    if os.path.exists(os.path.join(source, '.git')):
        commit = _from_checkout(source, tree)
        say.info(f'base: the committed files of {source} at {commit}')
        return tree
    say.info(f'base: copying {source}')

    def ignore(directory, names):
        if directory == source:
            return [name for name in names
                    if name in PACKAGING or name in ('build', '.git')]
        return [name for name in names if name == '__pycache__']

    shutil.copytree(source, tree, symlinks=True, ignore=ignore)
    return tree


# Both -----------------------------------------------------------------------

def _index(tree):
    """Put a tree into build/git; returns (tree hash, commit)."""
    work.init_store()
    index = work.Index(os.path.join(work.HALF, 'base.index'), tree)
    line = say.Line('base')
    line.show('recording it in build/git')
    index.git('add', '-A', '-f', '.')
    tree_hash = index.tree()
    line.end(f'git tree {tree_hash}')
    commit = work.store('commit-tree', tree_hash, data=b'base\n', env=IDENT)
    return tree_hash, commit.decode().strip()


def _accept(record, lock):
    """Decide whether a tree that was obtained may be the base."""
    if record['tree'] == lock['tree']:
        return
    if record['debian'] == lock['debian']:
        raise Fail(f'the source of qemu {lock["debian"]} unpacks to git tree '
                   f'{record["tree"]}; base.lock says {lock["tree"]}: one of '
                   'the two is damaged.  "git checkout base.lock", then run '
                   'the same command again')
    what = record['debian'] or record['version']
    try:
        commits.build_trees(record, commits.load())
    except Fail as fail:
        raise Fail(f'{record["origin"]} is QEMU {what}, base.lock names '
                   f'{lock["debian"]}, and the series does not apply to it: '
                   f'{fail}')
    say.info(f'base: this is QEMU {what}, not {lock["debian"]} as in '
             'base.lock; every edit of the series applies to it')


def _wanted_source():
    source = os.environ.get('QEMU_SRC', '')
    return os.path.abspath(source) if source else ''


def load(again=False):
    """The base's record: version, tree, commit, ...; made when missing."""
    lock = read_lock()
    with work.locked():
        source = _wanted_source()
        record = work.read_json(work.BASE_STAMP)
        if record and not again and os.path.isdir(work.BASE) \
                and source in ('', record['source']):
            if record['source'] or record['tree'] == lock['tree'] \
                    or record['debian'] != lock['debian']:
                return record
        return _make(lock, source)


def _make(lock, source):
    work.need_space(2, 'unpacking the base')
    if source:
        tree, debian = _from_user(source), ''
    else:
        directory, debian = _download(lock)
        tree = _unpack(directory)
    version = check_version(tree, source or f'qemu {debian}')
    tree_hash, commit = _index(tree)
    record = {'version': version, 'debian': debian, 'source': source,
              'tree': tree_hash, 'commit': commit,
              'origin': source or 'the archive\'s source package'}
    _accept(record, lock)
    if os.path.exists(work.BASE_STAMP):
        os.unlink(work.BASE_STAMP)
    work.replace_dir(tree, work.BASE)
    # The new files may be older than the objects made from the old ones.
    shutil.rmtree(os.path.join(work.BUILD, 'stock', 'obj'), ignore_errors=True)
    work.write_json(work.BASE_STAMP, record)
    say.info(f'base: QEMU {version} in build/base')
    return record
