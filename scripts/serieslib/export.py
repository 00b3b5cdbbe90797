# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as mails for "git am", and as patches for quilt.

Real commits are made in build/git, and git writes the mails.  Nothing is
sent, and nobody's name is put under anything unless it was given.
"""

import contextlib
import email.utils
import os
import re
import shutil

from . import lay, say, work
from .say import Fail

# Used where no SIGNOFF is given: no real person's.
NOBODY = ('unsigned', 'unsigned@localhost')
STAMP = '.exported-series'


def identity(signoff):
    """("Name", "mail") of a sign-off."""
    if not signoff:
        return NOBODY
    match = re.fullmatch(r'\s*([^<>\n]+?)\s*<([^<>\s@]+@[^<>\s]+)>\s*',
                         signoff)
    if not match:
        raise Fail(f'SIGNOFF="{signoff}" is not "Name <mail@host>"')
    return match.groups()


def _date():
    """The series' own last change, so that exports are reproducible."""
    done = work.our_git('log', '-1', '--format=%ad', '--date=raw',
                        check=False)
    return done.stdout.decode().strip() or '1000000000 +0000'


def make_commits(record, steps, signoff):
    """A commit for each step on top of the base's; returns the last."""
    name, mail = identity(signoff)
    env = {f'GIT_{who}_{what}': value for who in ('AUTHOR', 'COMMITTER')
           for what, value in (('NAME', name), ('EMAIL', mail),
                               ('DATE', _date()))}
    parent = record['commit']
    for step in steps:
        text = f'{step.commit.subject}\n\n{step.commit.body}\n'
        if signoff:
            text += f'\nSigned-off-by: {name} <{mail}>\n'
        parent = work.store('commit-tree', step.tree, '-p', parent,
                            data=text.encode(), env=env).decode().strip()
    return parent


def prepare_out(out, names):
    """A directory for the named files; those of an earlier export go."""
    stamp = os.path.join(out, STAMP)
    try:
        if os.path.isdir(out) and os.listdir(out):
            if not os.path.exists(stamp):
                raise Fail(f'OUT={out} is not empty and holds no earlier '
                           'export: name another directory')
            with open(stamp, encoding='utf-8') as file:
                for name in file.read().split():
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(out, os.path.basename(name)))
        os.makedirs(out, exist_ok=True)
        work.write_file(stamp, '\n'.join(names) + '\n')
    except OSError as err:
        raise Fail(f'OUT={out}: {err.strerror}')


def _cover():
    path = os.path.join(work.ROOT, 'series/cover.txt')
    with open(path, encoding='utf-8') as file:
        subject, _, body = file.read().partition('\n')
    return subject.strip(), body.strip()


def _fill_cover(out):
    path = os.path.join(out, '0000-cover-letter.patch')
    with open(path, encoding='utf-8') as file:
        text = file.read()
    subject, body = _cover()
    text = text.replace('*** SUBJECT HERE ***', subject, 1)
    text = text.replace('*** BLURB HERE ***', body, 1)
    # git dates the letter by the clock, and the mails by their commits
    when = email.utils.formatdate(int(_date().split()[0]))
    text = re.sub(r'^Date: .*$', f'Date: {when}', text, count=1, flags=re.M)
    work.write_file(path, text)


def format_mails(record, tip, out):
    """git format-patch, the same whatever git is installed.

    Written aside and then moved, so that OUT holds what an export wrote or
    what was there before.
    """
    half = work.half('mails')
    work.store('format-patch', '-q', '--zero-commit', '--no-signature',
               '--no-renames', '--full-index', '--cover-letter',
               '--cover-from-description=none', '--no-base', '--no-thread',
               '--stat=72', '-o', half,
               f'{record["commit"]}..{tip}')
    _fill_cover(half)
    names = sorted(os.listdir(half))
    prepare_out(out, names)
    for name in names:
        shutil.move(os.path.join(half, name), os.path.join(out, name))
    return [os.path.join(out, name) for name in names]


def mails(out, signoff=''):
    """Write the mails; returns (record, steps, tip, paths)."""
    with work.locked():
        record, steps, warnings = lay.current()
        for text in warnings:
            say.warn(text)
        if not steps:
            raise Fail('series/ has no commits')
        tip = make_commits(record, steps, signoff)
        return record, steps, tip, format_mails(record, tip, out)


def quilt(out):
    """Write a quilt series: patches that DEP-3 tools read."""
    with work.locked():
        record, steps, _ = lay.current()
        names = [step.commit.file for step in steps]
        prepare_out(out, [*names, 'series'])
        before = record['tree']
        for step in steps:
            diff = work.store('diff-tree', '-p', '--no-renames',
                              '--full-index', before, step.tree)
            head = (f'From: {NOBODY[0]}\nSubject: {step.commit.subject}\n'
                    f'Forwarded: no\n\n{step.commit.body}\n\n---\n')
            work.write_file(os.path.join(out, step.commit.file),
                            head.encode() + diff)
            before = step.tree
        work.write_file(os.path.join(out, 'series'), '\n'.join(names) + '\n')
        return names
