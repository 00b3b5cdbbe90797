# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are, the lock, and git used as a private store.

    ROOT/                 the repository
    ROOT/build/git        a bare git repository: base tree and laid trees
    ROOT/build/stock/qemu the base, unmodified       (build/base points to it)
    ROOT/build/stock/obj  its build                  (build/obj/stock)
    ROOT/build/ours/qemu  base + series              (build/tree)
    ROOT/build/ours/obj   its build                  (build/obj/default)
    ROOT/build/asan/obj   its build with sanitizers  (build/obj/asan)
    ROOT/build/half/      what is being made; emptied by the next run

Stock and ours lie in directories of the same shape, so that a source is
"../qemu/..." to both compilers and ccache shares what both compile.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile

from . import say
from .say import Fail

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, 'build')
LOGS = os.path.join(BUILD, 'log')
HALF = os.path.join(BUILD, 'half')
GIT_DIR = os.path.join(BUILD, 'git')
BASE = os.path.join(BUILD, 'stock', 'qemu')
TREE = os.path.join(BUILD, 'ours', 'qemu')
TOOLS = os.path.join(BUILD, 'tools')
BASE_STAMP = os.path.join(BUILD, 'base.json')

# Names that the other parts of the repository use.
LINKS = {
    'base': 'stock/qemu',
    'tree': 'ours/qemu',
    'obj/default': '../ours/obj',
    'obj/asan': '../asan/obj',
    'obj/stock': '../stock/obj',
}

_lock_depth = 0
_lock_file = None


def log(name):
    return os.path.join(LOGS, name + '.log')


def relative(path):
    """A path as the user would write it from the repository's root."""
    return os.path.relpath(path, ROOT) if path.startswith(ROOT) else path


def prepare():
    """Create build/ and the names in it."""
    for directory in (BUILD, LOGS, os.path.join(BUILD, 'obj')):
        os.makedirs(directory, exist_ok=True)
    for name, target in LINKS.items():
        path = os.path.join(BUILD, name)
        if os.path.islink(path) and os.readlink(path) == target:
            continue
        if os.path.islink(path):
            os.unlink(path)
        elif os.path.exists(path):
            raise Fail(f'{relative(path)} is in the way (it should be a link '
                       f'to {target}): move it away or run "make distclean"')
        with contextlib.suppress(FileExistsError):
            os.symlink(target, path)


@contextlib.contextmanager
def locked():
    """One run at a time changes build/; a second one waits and says so."""
    global _lock_depth, _lock_file
    if _lock_depth == 0:
        os.makedirs(BUILD, exist_ok=True)
        _lock_file = open(os.path.join(BUILD, 'lock'), 'a+')
        try:
            fcntl.flock(_lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say.info('another run is working in build/: waiting for it')
            fcntl.flock(_lock_file, fcntl.LOCK_EX)
        prepare()
        shutil.rmtree(HALF, ignore_errors=True)
    _lock_depth += 1
    try:
        yield
    finally:
        _lock_depth -= 1
        if _lock_depth == 0:
            shutil.rmtree(HALF, ignore_errors=True)
            _lock_file.close()
            _lock_file = None


def lock_fds():
    """For children that must hold the lock should this process be killed."""
    return (_lock_file.fileno(),) if _lock_file else ()


def half(name):
    """An empty directory for something that is renamed when complete."""
    path = os.path.join(HALF, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


@contextlib.contextmanager
def scratch(name):
    """A directory of one check; those of dead runs are removed."""
    top = os.path.join(BUILD, 'scratch')
    os.makedirs(top, exist_ok=True)
    for old in os.listdir(top):
        pid = old.rpartition('.')[2]
        if not os.path.exists(f'/proc/{pid}'):
            shutil.rmtree(os.path.join(top, old), ignore_errors=True)
    path = os.path.join(top, f'{name}.{os.getpid()}')
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_file(path, text):
    """Replace a file as a whole or not at all."""
    data = text if isinstance(text, bytes) else text.encode()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd, temp = tempfile.mkstemp(dir=os.path.dirname(path), prefix='.new.')
    try:
        with os.fdopen(fd, 'wb') as out:
            out.write(data)
        os.chmod(temp, 0o644)
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
        raise


def replace_dir(new, final):
    """Put a complete directory where an old one may be."""
    os.makedirs(os.path.dirname(final), exist_ok=True)
    if os.path.lexists(final):
        old = os.path.join(HALF, 'old.' + os.path.basename(final))
        shutil.rmtree(old, ignore_errors=True)
        os.rename(final, old)
    os.rename(new, final)


def read_json(path):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def write_json(path, value):
    write_file(path, json.dumps(value, indent=1, sort_keys=True) + '\n')


def need_space(gigabytes, what):
    """Fail before a long step rather than in its middle."""
    free = shutil.disk_usage(BUILD).free
    if free < gigabytes * 1e9:
        raise Fail(f'{what} needs about {gigabytes} GB of disk and '
                   f'{free / 1e9:.1f} GB are free where build/ lies: free '
                   'some and run the same command again')


# git ----------------------------------------------------------------------

def git_env(**more):
    """An environment in which git sees no configuration but ours."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith('GIT_')}
    env.update(GIT_CONFIG_NOSYSTEM='1', GIT_CONFIG_GLOBAL='/dev/null',
               GIT_ATTR_NOSYSTEM='1', GIT_TERMINAL_PROMPT='0',
               LC_ALL='C.UTF-8', TZ='UTC')
    env.update(more)
    return env


def run_git(args, *, data=None, env=None, cwd=None, check=True):
    """Run git and return its output as bytes."""
    say.need_program('git', 'git')
    done = subprocess.run(['git', *args], input=data, cwd=cwd,
                          env=env or git_env(), capture_output=True,
                          stdin=subprocess.DEVNULL if data is None else None)
    if check and done.returncode:
        text = done.stderr.decode(errors='replace').strip()
        if say.NO_SPACE.search(text):
            raise say.no_space(relative(BUILD))
        raise Fail(f'git {args[0]} failed: {text or done.returncode}')
    return done.stdout if check else done


class Index:
    """A private git index on build/git, optionally with a work tree."""

    def __init__(self, path, worktree=None):
        self.path = path
        self.env = git_env(GIT_DIR=GIT_DIR, GIT_INDEX_FILE=path)
        self.cwd = worktree
        if worktree:
            self.env['GIT_WORK_TREE'] = worktree
        # A lock file here is left over from a killed run: callers hold ours.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + '.lock')

    def git(self, *args, data=None, check=True):
        return run_git(args, data=data, env=self.env, cwd=self.cwd,
                       check=check)

    def tree(self):
        return self.git('write-tree').decode().strip()


def store(*args, data=None, env=None):
    """A git command on build/git that needs no index."""
    return run_git(args, data=data, env=git_env(GIT_DIR=GIT_DIR, **(env or {})))


def init_store():
    if not os.path.exists(os.path.join(GIT_DIR, 'HEAD')):
        new = half('git')
        run_git(['init', '-q', '--bare', '--template=', new])
        for key, value in (('core.looseCompression', '1'), ('gc.auto', '0'),
                           ('core.autocrlf', 'false')):
            run_git(['config', '-f', os.path.join(new, 'config'), key, value])
        replace_dir(new, GIT_DIR)


def our_git(*args, check=True):
    """git on the repository itself, whoever owns the checkout."""
    env = {key: value for key, value in os.environ.items()
           if key not in ('GIT_DIR', 'GIT_INDEX_FILE', 'GIT_WORK_TREE',
                          'GIT_PREFIX')}
    return run_git(['-c', 'safe.directory=*', '-c', 'core.quotePath=false',
                    '-C', ROOT, *args], env=env, check=check)
