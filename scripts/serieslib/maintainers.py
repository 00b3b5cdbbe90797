# SPDX-License-Identifier: GPL-2.0-or-later
"""Our sections of MAINTAINERS, laid into QEMU's by section title.

Our file has QEMU's syntax.  A section whose title QEMU has lends its F:
lines to that section; a new one is inserted behind the section that stands
before it in our file, or else at the end of its group (the underlined
heading above it).  A commit gets the F: lines that match what it adds, and
loses those that name exactly what it removes.
"""

import collections
import os
import re

from . import work
from .say import Fail

Section = collections.namedtuple('Section', 'title group before lines')

TAG = re.compile(r'[A-Z]:\s')


def _is_underline(line):
    return len(line) > 3 and set(line) <= {'-', '='}


def _sections(text):
    """Yield (title, group, line numbers of its tagged lines)."""
    lines = text.split('\n')
    group = title = None
    tagged = []
    for number, line in enumerate(lines + ['']):
        following = lines[number + 1] if number + 1 < len(lines) else ''
        if TAG.match(line):
            tagged.append(number)
            continue
        if tagged and not line.startswith((' ', '\t')):
            yield title, group, tagged
            title, tagged = None, []
        if _is_underline(following) and line.strip():
            group, title = line, None
        elif line.strip() and not _is_underline(line):
            title = line
    if tagged:
        yield title, group, tagged


def load(path=None):
    """Our sections."""
    path = path or os.path.join(work.ROOT, 'MAINTAINERS')
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except FileNotFoundError:
        return []
    lines, found, before = text.split('\n'), [], None
    for title, group, numbers in _sections(text):
        if title is None:
            raise Fail(f'MAINTAINERS:{numbers[0] + 1}: a section without a '
                       'title')
        found.append(Section(title, group, before,
                             [lines[number] for number in numbers]))
        before = title
    return found


def pattern(line):
    """The path pattern of an F: line, or None."""
    match = re.match(r'F:\s+(\S+)\s*$', line)
    return match.group(1) if match else None


def matches(glob, path):
    """As get_maintainer.pl: "dir/" is all below, * and ? stay in a part."""
    if glob.endswith('/'):
        return path.startswith(glob)
    expression = re.escape(glob).replace(r'\*', '[^/]*').replace(r'\?', '[^/]')
    return re.fullmatch(expression, path) is not None


def _insert_line(lines, numbers, new):
    """Where in a section's tagged lines an F: line goes: in order."""
    files = [number for number in numbers if lines[number].startswith('F:')]
    for number in files:
        if lines[number] > new:
            return number
    return (files or numbers)[-1] + 1


def _place(text, section):
    """Line number at which a new section begins."""
    numbers = {}
    last_of_group = {}
    for title, group, tagged in _sections(text):
        numbers[title] = tagged[-1] + 1
        last_of_group[group] = tagged[-1] + 1
    if section.before in numbers:
        return numbers[section.before]
    if section.group in last_of_group:
        return last_of_group[section.group]
    raise Fail(f'MAINTAINERS: no place for the section "{section.title}": '
               f'QEMU has neither a section "{section.before}" nor a group '
               f'"{section.group}"; put a heading of QEMU\'s above it')


def _add(text, section, new):
    """Add F: lines to a section of QEMU's text, or the section itself."""
    for title, _, numbers in _sections(text):
        if title == section.title:
            lines = text.split('\n')
            for line in new:
                at = _insert_line(lines, numbers, line)
                lines.insert(at, line)
                numbers = list(range(numbers[0], numbers[-1] + 2))
            return '\n'.join(lines)
    at = _place(text, section)
    lines = text.split('\n')
    head = [line for line in section.lines if pattern(line) is None]
    lines[at:at] = ['', section.title, *head, *new]
    return '\n'.join(lines)


def merge(text, sections, added, removed):
    """QEMU's text after a commit; returns (text, lines that it changed)."""
    changed = []
    have = set(text.split('\n'))
    for section in sections:
        new = [line for line in section.lines
               if pattern(line) and line not in have
               and any(matches(pattern(line), path) for path in added)]
        if new:
            text = _add(text, section, new)
            changed += new
    for path in removed:
        line = f'F: {path}'
        if line in have:
            text = text.replace(line + '\n', '', 1)
            changed.append('-' + line)
    return text, changed


def check(sections, steps):
    """Problems: files without a line, lines without a file."""
    problems = []
    patterns = {line: pattern(line) for section in sections
                for line in section.lines if pattern(line)}
    for step in steps:
        commit = step.commit
        missing = [path for path in commit.adds
                   if not any(matches(glob, path)
                              for glob in patterns.values())]
        problems += [f'{path} has no F: line in MAINTAINERS'
                     for path in missing]
        if commit.adds and not missing and not step.lines:
            problems.append(
                f'series/{commit.file} adds files and gets no F: line of its '
                'own, because an earlier commit took the line that matches '
                'them: split that line of MAINTAINERS')
    everything = [path for step in steps
                  for path in [*step.commit.adds, *step.commit.replaces]]
    for line, glob in patterns.items():
        if not any(matches(glob, path) for path in everything):
            problems.append(f'MAINTAINERS: "{line}" matches no file of ours')
    return problems
