# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as mails for "git am", and as patches for quilt.

Real commits are made in build/git, and git writes the mails.  Nothing is
sent, and nobody's name is put under anything unless it was given.
"""

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


def prepare_out(out):
    """An empty directory; what an earlier export left is removed."""
    if os.path.isdir(out) and os.listdir(out):
        if not os.path.exists(os.path.join(out, STAMP)):
            raise Fail(f'OUT={out} is not empty and holds no earlier export: '
                       'name another directory')
        shutil.rmtree(out)
    try:
        os.makedirs(out, exist_ok=True)
        work.write_file(os.path.join(out, STAMP), '')
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
    """git format-patch, the same whatever git is installed."""
    work.store('format-patch', '-q', '--zero-commit', '--no-signature',
               '--no-renames', '--full-index', '--cover-letter',
               '--cover-from-description=none', '--no-base', '--no-thread',
               '--stat=72', '-o', os.path.abspath(out),
               f'{record["commit"]}..{tip}')
    _fill_cover(out)
    return sorted(os.path.join(out, name) for name in os.listdir(out)
                  if name.endswith('.patch'))


def mails(out, signoff=''):
    """Write the mails; returns (record, steps, tip, paths)."""
    with work.locked():
        record, steps, warnings = lay.current()
        for text in warnings:
            say.warn(text)
        if not steps:
            raise Fail('series/ has no commits')
        tip = make_commits(record, steps, signoff)
        prepare_out(out)
        return record, steps, tip, format_mails(record, tip, out)


def quilt(out):
    """Write a quilt series: patches that DEP-3 tools read."""
    with work.locked():
        record, steps, _ = lay.current()
        prepare_out(out)
        names, before = [], record['tree']
        for step in steps:
            name = step.commit.file
            diff = work.store('diff-tree', '-p', '--no-renames',
                              '--full-index', before, step.tree)
            head = (f'From: {NOBODY[0]}\nSubject: {step.commit.subject}\n'
                    f'Forwarded: no\n\n{step.commit.body}\n\n---\n')
            work.write_file(os.path.join(out, name), head.encode() + diff)
            names.append(name)
            before = step.tree
        work.write_file(os.path.join(out, 'series'), '\n'.join(names) + '\n')
        return names
