# SPDX-License-Identifier: GPL-2.0-or-later
"""The files series/NNNN-name.patch, and the git trees that they make.

FORMAT, printed by "scripts/series --help format", is the specification.
"""

import collections
import os
import re

from . import maintainers, work
from .say import Fail

FORMAT = '''\
One commit of the series is one file, series/NNNN-name.patch:

    hw/i386/intel_iommu: Add the IOTLB            <- subject of the commit

    Why the change is made, as for git commit.    <- its message

    Adds: hw/i386/intel_iommu_iotlb.c             <- ours, taken whole from
    Adds: hw/i386/intel_iommu_iotlb.h                this repository
    Replaces: hw/i386/intel_iommu.c 1f0c...:1234  <- ours instead of QEMU's
    Removes: include/hw/old.h 77ab...:567         <- QEMU's, gone
    ---
    diff --git a/hw/i386/meson.build b/hw/i386/meson.build
    --- a/hw/i386/meson.build                     <- edits to QEMU's files
    +++ b/hw/i386/meson.build
    @@ -13,3 +13,4 @@
     ...

Number NNNN gives the order.  Lines that begin with # before the subject are
comments.  The edits may be left out together with "---".

A path is added, replaced or removed by one commit only.  Several commits may
edit one of QEMU's files, none may edit a file of ours.  Edits apply exactly
(git apply: the place may move, the context may not differ).

Replaces: and Removes: name the blobs (git hash, size in bytes) of QEMU's
file that were reviewed, several where releases differ.  "scripts/series blob
PATH" prints the line for the base at hand.

No commit mentions MAINTAINERS: each gets the F: lines of our MAINTAINERS
that match what it adds.'''

# What in the repository is not part of QEMU's tree.
REPO_ONLY = re.compile(
    r'(README\.md|Makefile|meson\.build|MAINTAINERS|base\.lock|\.gitignore|'
    r'\.gitattributes|\.ci/.*|series/.*|scripts/series|scripts/serieslib/.*|'
    r'scripts/tests/.*|scripts/deps|scripts/packages(-\w+)?|demo/.*|'
    r'bench/.*)')

TRAILER = re.compile(r'(Adds|Replaces|Removes):\s+(\S+)\s*(.*)')
BLOB = re.compile(r'([0-9a-f]{40})(?::(\d+))?')

Commit = collections.namedtuple(
    'Commit', 'file subject body adds replaces removes edits edited')
# One step of the series: the commit, git's tree after it, F: lines it added.
Step = collections.namedtuple('Step', 'commit tree lines')


def _parse_blobs(where, text):
    """{hash: size or None} from the blobs behind a path."""
    blobs = {}
    for word in text.split():
        match = BLOB.fullmatch(word)
        if not match:
            raise Fail(f'{where}: "{word}" is no blob hash; "scripts/series '
                       'blob PATH" prints the right line')
        blobs[match.group(1)] = int(match.group(2)) if match.group(2) else None
    if not blobs:
        raise Fail(f'{where}: no blob hash; "scripts/series blob PATH" prints '
                   'the right line')
    return blobs


def _parse_edits(where, edits):
    """Check the diff's form; return the paths that it edits."""
    paths = []
    for line in edits.decode(errors='replace').split('\n'):
        match = re.match(r'diff --git a/(\S+) b/(\S+)$', line)
        if match:
            if match.group(1) != match.group(2):
                raise Fail(f'{where}: the diff renames {match.group(1)}; use '
                           'Adds: and Removes:')
            paths.append(match.group(1))
        elif re.match(r'(new|deleted) file mode|rename (from|to)|copy from',
                      line):
            raise Fail(f'{where}: the diff has "{line}"; use Adds: and '
                       'Removes: for whole files')
    if edits.strip() and not paths:
        raise Fail(f'{where}: what follows "---" is no git diff')
    if 'MAINTAINERS' in paths:
        raise Fail(f'{where}: the diff edits MAINTAINERS; write the F: line '
                   'into our MAINTAINERS instead')
    return paths


def parse(name, data):
    """One series file."""
    where = f'series/{name}'
    head, _, edits = data.partition(b'\n---\n')
    try:
        lines = head.decode('utf-8').split('\n')
    except UnicodeDecodeError:
        raise Fail(f'{where}: the message is not UTF-8')
    while lines and (lines[0].startswith('#') or not lines[0].strip()):
        lines.pop(0)
    adds, replaces, removes, text = [], {}, {}, []
    for line in lines:
        match = TRAILER.fullmatch(line.strip())
        if not match:
            if re.match(r'(Adds|Replaces|Removes)\s*:', line):
                raise Fail(f'{where}: "{line}" names no path')
            text.append(line.rstrip())
        elif match.group(1) == 'Adds':
            if match.group(3):
                raise Fail(f'{where}: "{line}" names more than one path')
            adds.append(match.group(2))
        else:
            kind = replaces if match.group(1) == 'Replaces' else removes
            kind[match.group(2)] = _parse_blobs(where, match.group(3))
    subject, body = text[0] if text else '', '\n'.join(text[1:]).strip()
    if not subject or not body or text[1]:
        raise Fail(f'{where}: begin with a subject, an empty line and a '
                   'message ("scripts/series --help format")')
    if not (adds or replaces or removes or edits.strip()):
        raise Fail(f'{where}: the commit changes nothing')
    return Commit(name, subject, body, adds, replaces, removes, edits,
                  _parse_edits(where, edits))


def load(directory=None):
    """All commits in order."""
    directory = directory or os.path.join(work.ROOT, 'series')
    commits, numbers = [], {}
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    for name in names:
        if not name.endswith('.patch'):
            continue
        match = re.fullmatch(r'(\d{4})-[\w.-]+\.patch', name)
        if not match:
            raise Fail(f'series/{name}: name it NNNN-name.patch')
        if match.group(1) in numbers:
            raise Fail(f'series/{name} and {numbers[match.group(1)]} have the '
                       'same number: renumber one')
        numbers[match.group(1)] = name
        with open(os.path.join(directory, name), 'rb') as file:
            commits.append(parse(name, file.read()))
    return commits


def our_files():
    """Paths of the repository that belong to QEMU's tree."""
    listing = work.our_git('ls-files', '-z', '--cached', '--others',
                           '--exclude-standard').decode()
    return sorted(path for path in set(listing.split('\0'))
                  if path and not REPO_ONLY.fullmatch(path)
                  and os.path.exists(os.path.join(work.ROOT, path)))


def check_paths(commits):
    """Problems of paths: each of our files in exactly one commit."""
    problems, owner = [], {}
    for commit in commits:
        for path in [*commit.adds, *commit.replaces, *commit.removes]:
            if path in owner:
                problems.append(f'{path} is in two commits: {owner[path]} '
                                f'and {commit.file}')
            owner[path] = commit.file
            if REPO_ONLY.fullmatch(path):
                problems.append(f'series/{commit.file}: {path} is a file of '
                                'this repository, not of QEMU')
    removed = {path for commit in commits for path in commit.removes}
    for path in our_files():
        if path not in owner:
            problems.append(f'{path} is in no commit: add "Adds: {path}" to '
                            'one in series/')
        elif path in removed:
            problems.append(f'{path} is here, but {owner[path]} removes it')
    ours = {path for commit in commits
            for path in [*commit.adds, *commit.replaces]}
    for commit in commits:
        for path in commit.edited:
            if path in ours:
                problems.append(f'series/{commit.file} edits {path}, which is '
                                'ours: change the file itself')
    return problems


class Builder:
    """Makes git's tree after each commit, in a private index."""

    def __init__(self, record, index_path):
        self.record = record
        self.index = work.Index(index_path)
        self.index.git('read-tree', record['commit'])
        self.blobs = {}
        for entry in self.index.git('ls-files', '-s', '-z').split(b'\0'):
            if entry:
                meta, _, path = entry.decode().partition('\t')
                self.blobs[path] = meta.split()[1]
        self.ours = maintainers.load()
        self.text = self._show('MAINTAINERS')
        self.warnings = []

    def _show(self, path):
        if path not in self.blobs:
            return ''
        return work.store('cat-file', 'blob', self.blobs[path]).decode()

    def _hash(self, commits):
        """{path: (mode, blob)} of all our files, written to the store."""
        paths = [path for commit in commits
                 for path in [*commit.adds, *commit.replaces]]
        for path in paths:
            full = os.path.join(work.ROOT, path)
            if os.path.islink(full) or not os.path.isfile(full):
                raise Fail(f'{path} is named in series/ and is not there as a '
                           'plain file: restore it or drop its line')
        names = '\n'.join(os.path.join(work.ROOT, path) for path in paths)
        done = work.store('hash-object', '-w', '--no-filters',
                          '--stdin-paths', data=names.encode())
        found = {}
        for path, blob in zip(paths, done.decode().split()):
            execute = os.access(os.path.join(work.ROOT, path), os.X_OK)
            found[path] = ('100755' if execute else '100644', blob)
        return found

    def _check_known(self, commit, path, reviewed, verb):
        """Is QEMU's file the one that was reviewed?"""
        if path not in self.blobs:
            raise Fail(f'series/{commit.file} {verb} {path}, which QEMU '
                       f'{self.record["version"]} does not have')
        blob = self.blobs[path]
        if blob in reviewed:
            return
        size = int(work.store('cat-file', '-s', blob))
        known = [old for old in reviewed.values() if old is not None]
        differ = f', {size - known[-1]:+d} bytes against the one reviewed' \
            if known else ''
        self.warnings.append(
            f'series/{commit.file} {verb} {path}: QEMU {self.record["version"]}'
            f' has a version of it that was not reviewed (blob {blob}:{size}'
            f'{differ})')

    def _apply_edits(self, commit):
        if not commit.edits.strip():
            return
        done = self.index.git('apply', '--cached', '--whitespace=nowarn', '-',
                              data=commit.edits, check=False)
        if done.returncode:
            errors = done.stderr.decode(errors='replace').strip()
            first = errors.splitlines()[0].replace('error: ', '', 1)
            raise Fail(f'series/{commit.file} does not apply to QEMU '
                       f'{self.record["version"]}: {first}; adapt the edit '
                       'after "---" to this base')

    def step(self, commit, ours):
        """Apply one commit; returns its Step."""
        self._apply_edits(commit)
        update = []
        for path in commit.adds:
            if path in self.blobs:
                raise Fail(f'series/{commit.file} adds {path}, which QEMU '
                           'has: use "Replaces:" ("scripts/series blob '
                           f'{path}" prints the line)')
            update.append('%s %s\t%s' % (*ours[path], path))
        for path, reviewed in commit.replaces.items():
            self._check_known(commit, path, reviewed, 'replaces')
            update.append('%s %s\t%s' % (*ours[path], path))
        for path, reviewed in commit.removes.items():
            self._check_known(commit, path, reviewed, 'removes')
            update.append('0 %s\t%s' % ('0' * 40, path))
        self.text, lines = maintainers.merge(
            self.text, self.ours, commit.adds, list(commit.removes))
        if lines:
            blob = work.store('hash-object', '-w', '--stdin',
                              data=self.text.encode()).decode().strip()
            update.append(f'100644 {blob}\tMAINTAINERS')
        if update:
            self.index.git('update-index', '--index-info',
                           data=('\n'.join(update) + '\n').encode())
        return Step(commit, self.index.tree(), lines)


def build_trees(record, commits):
    """(steps, warnings): the tree after each commit, on a base's record."""
    with work.scratch('trees') as directory:
        builder = Builder(record, os.path.join(directory, 'index'))
        ours = builder._hash(commits) if commits else {}
        steps = [builder.step(commit, ours) for commit in commits]
        return steps, builder.warnings
