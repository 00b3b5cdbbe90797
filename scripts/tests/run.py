#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of scripts/series on a base of a few files, with TAP output."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'scripts'))
sys.dont_write_bytecode = True

import tap                                                  # noqa: E402
from serieslib import aptget, base, export, maintainers, say, suites, work  # noqa: E402,E501

GIT = ['git', '-c', 'user.name=t', '-c', 'user.email=t@localhost',
       '-c', 'init.defaultBranch=main']

BASE_FILES = {
    'VERSION': '10.0.13\n',
    'configure': '#!/bin/sh\n',
    'hw/i386/meson.build': "first = 1\nadd('old.c')\nlast = 1\n",
    'hw/i386/old.c': 'int old;\n',
    'subprojects/README': 'none\n',
    'MAINTAINERS': 'Head\n----\nOld device\nM: A <a@localhost>\n'
                   'F: hw/i386/old.c\n\nOther\nM: B <b@localhost>\nF: x/\n',
}

EDIT = '''diff --git a/hw/i386/meson.build b/hw/i386/meson.build
--- a/hw/i386/meson.build
+++ b/hw/i386/meson.build
@@ -2,2 +2,3 @@
 add('old.c')
+add('new.c')
 last = 1
'''

COMMIT = f'''hw/i386: add a file

So that there is one.

Adds: hw/i386/new.c
---
{EDIT}'''


def write(top, files):
    for name, text in files.items():
        path = os.path.join(top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)


class Fixture(unittest.TestCase):
    """A repository like ours in small, and a tree for QEMU_SRC."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='series-test-')
        self.addCleanup(shutil.rmtree, self.dir)
        self.repo = os.path.join(self.dir, 'repo')
        self.source = os.path.join(self.dir, 'qemu')
        write(self.source, BASE_FILES)
        shutil.copytree(os.path.join(TOP, 'scripts'),
                        os.path.join(self.repo, 'scripts'),
                        ignore=shutil.ignore_patterns('__pycache__'))
        write(self.repo, {
            'base.lock': 'version: 10.0.13\ndebian: 1:10.0.13\ntree: 0\n',
            'MAINTAINERS': 'Old device\nF: hw/i386/new.c\n',
            '.gitignore': '/build/\n__pycache__/\n',
            'series/cover.txt': 'A title\n\nA letter.\n',
            'series/0001-new.patch': COMMIT,
            'hw/i386/new.c': 'int new;\n',
        })
        subprocess.run([*GIT, 'init', '-q', self.repo], check=True)
        subprocess.run([*GIT, '-C', self.repo, 'add', '-A'], check=True)
        subprocess.run([*GIT, '-C', self.repo, 'commit', '-qm', 'x'],
                       check=True)

    def command(self, *args, **env):
        return ['/usr/bin/python3', os.path.join(self.repo, 'scripts/series'),
                *args], dict(os.environ, QEMU_SRC=env.pop('source',
                                                          self.source), **env)

    def run_series(self, *args, **env):
        command, environment = self.command(*args, **env)
        return subprocess.run(command, env=environment, cwd=self.repo,
                              capture_output=True, text=True)

    def good(self, *args, **env):
        done = self.run_series(*args, **env)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def bad(self, expected, *args, **env):
        """Fails with one plain message that matches."""
        done = self.run_series(*args, **env)
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, text)
        self.assertNotIn('Traceback', text)
        self.assertRegex(text, expected)

    def laid(self, path):
        with open(os.path.join(self.repo, 'build/tree', path),
                  encoding='utf-8') as file:
            return file.read()

    def change(self, path, text):
        write(self.repo, {path: text})


class Lay(Fixture):

    def test_adds_edits_and_maintainers(self):
        self.good('lay')
        self.assertEqual(self.laid('hw/i386/new.c'), 'int new;\n')
        self.assertIn("add('new.c')", self.laid('hw/i386/meson.build'))
        self.assertIn('F: hw/i386/new.c\nF: hw/i386/old.c\n',
                      self.laid('MAINTAINERS'))

    def test_commit_with_edits_alone(self):
        self.change('series/0000-edit.patch', 'a: b\n\ntext\n---\n'
                    + EDIT.replace('new.c', 'gen.c'))
        self.change('series/0001-new.patch',
                    COMMIT.replace(" add('old.c')\n+", " add('gen.c')\n+"))
        self.good('lay')
        self.assertIn("add('gen.c')\nadd('new.c')",
                      self.laid('hw/i386/meson.build'))

    def test_only_what_changed_is_written(self):
        self.good('lay')
        tree = os.path.join(self.repo, 'build/tree')
        before = {name: os.stat(os.path.join(tree, name)).st_mtime_ns
                  for name in ('hw/i386/old.c', 'hw/i386/meson.build',
                               'hw/i386/new.c')}
        time.sleep(0.02)
        self.change('hw/i386/new.c', 'int newer;\n')
        self.good('lay')
        after = {name: os.stat(os.path.join(tree, name)).st_mtime_ns
                 for name in before}
        self.assertEqual([n for n in before if before[n] != after[n]],
                         ['hw/i386/new.c'])

    def test_what_is_no_longer_ours_goes(self):
        self.good('lay')
        os.unlink(os.path.join(self.repo, 'hw/i386/new.c'))
        os.unlink(os.path.join(self.repo, 'series/0001-new.patch'))
        self.good('lay')
        self.assertFalse(os.path.exists(
            os.path.join(self.repo, 'build/tree/hw/i386/new.c')))
        self.assertNotIn('new.c', self.laid('hw/i386/meson.build'))

    def test_edit_that_does_not_apply(self):
        self.change('series/0001-new.patch',
                    COMMIT.replace("add('old.c')", "add('other.c')"))
        self.bad(r'series/0001-new.patch does not apply to QEMU 10.0.13',
                 'lay')

    def test_missing_file_of_ours(self):
        os.unlink(os.path.join(self.repo, 'hw/i386/new.c'))
        self.bad(r'hw/i386/new.c is named in series/ and is not there', 'lay')

    def test_adds_what_qemu_has(self):
        self.change('series/0001-new.patch', COMMIT.replace('new.c', 'old.c'))
        self.change('hw/i386/old.c', 'int ours;\n')
        self.bad('which QEMU has: use "Replaces:"', 'lay')

    def test_replaced_file_not_reviewed(self):
        self.change('series/0001-new.patch',
                    'a: b\n\ntext\n\nReplaces: hw/i386/old.c '
                    + '1' * 40 + ':3\n')
        self.change('hw/i386/old.c', 'int ours;\n')
        self.assertRegex(self.good('lay'), r'was not reviewed \(blob [0-9a-f]'
                         r'{40}:9, \+6 bytes')
        self.assertEqual(self.laid('hw/i386/old.c'), 'int ours;\n')
        self.assertIn('ok 1', self.good('check', '--only', 'apply'))
        self.bad('not ok 1', 'check', '--strict', '--only', 'apply')

    def test_form_of_a_commit(self):
        for text, message in (
                ('subject\n', 'begin with a subject'),
                ('a: b\n\ntext\n', 'the commit changes nothing'),
                ('a: b\n\ntext\n\nReplaces: x zz\n', 'is no blob hash'),
                (COMMIT.replace('b/hw/i386/meson.build', 'b/hw/x', 1),
                 'the diff renames')):
            self.change('series/0001-new.patch', text)
            self.bad(message, 'lay')

    def test_numbers_are_unique(self):
        self.change('series/0001-other.patch', COMMIT)
        self.bad('have the same number', 'lay')


class Base(Fixture):

    def test_wrong_version(self):
        write(self.source, {'VERSION': '9.2.0\n'})
        self.bad(r'is QEMU 9.2.0; this series is for 10.0.x', 'base')

    def test_no_tree(self):
        self.bad('no such directory', 'base', source='/nonexistent')
        self.bad('is not a QEMU source tree', 'base', source=self.repo)

    def test_another_point_release(self):
        write(self.source, {'VERSION': '10.0.99\n'})
        self.assertIn('every edit of the series applies', self.good('lay'))

    def test_checkout_gives_its_commit(self):
        subprocess.run([*GIT, 'init', '-q', self.source], check=True)
        subprocess.run([*GIT, '-C', self.source, 'add', '-A'], check=True)
        subprocess.run([*GIT, '-C', self.source, 'commit', '-qm', 'x'],
                       check=True)
        write(self.source, {'hw/i386/old.c': 'int dirty;\n'})
        self.assertIn('uncommitted changes (1 files)', self.good('lay'))
        self.assertEqual(self.laid('hw/i386/old.c'), 'int old;\n')

    def test_users_tree_is_not_written(self):
        self.good('lay')
        for name, text in BASE_FILES.items():
            with open(os.path.join(self.source, name),
                      encoding='utf-8') as file:
                self.assertEqual(file.read(), text)

    def test_leftovers_of_a_killed_run(self):
        self.good('base')
        write(self.repo, {'build/half/qemu/x': 'half',
                          'build/ours/index.lock': '',
                          'build/scratch/old.999999999/x': ''})
        self.good('lay')
        self.assertFalse(os.path.exists(self.repo + '/build/half'))

    def test_killed_while_it_works(self):
        for delay in (0.05, 0.15, 0.3, 0.5):
            command, environment = self.command('lay')
            proc = subprocess.Popen(command, env=environment,
                                    stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
            time.sleep(delay)
            proc.send_signal(signal.SIGKILL)
            proc.wait()
        self.good('lay')
        self.assertEqual(self.laid('hw/i386/new.c'), 'int new;\n')

    def test_interrupt_is_one_line(self):
        command, environment = self.command('lay')
        lock = os.path.join(self.repo, 'build/lock')
        os.makedirs(os.path.dirname(lock))
        with open(lock, 'w', encoding='utf-8') as file:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
            proc = subprocess.Popen(command, env=environment, text=True,
                                    stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT)
            self.assertIn('another run', proc.stdout.readline())
            proc.send_signal(signal.SIGINT)
            text = proc.communicate()[0]
        self.assertEqual(proc.returncode, 130)
        self.assertIn('interrupted', text)
        self.assertNotIn('Traceback', text)

    def test_two_at_once(self):
        both = [subprocess.Popen(command, env=environment,
                                 stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
                for command, environment in [self.command('lay')] * 2]
        for proc in both:
            text = proc.communicate()[0].decode()
            self.assertEqual(proc.returncode, 0, text)
        self.assertEqual(self.laid('hw/i386/new.c'), 'int new;\n')

    def test_damaged_source_package(self):
        record = {'tree': 'a', 'debian': '1:10.0.13', 'version': '10.0.13',
                  'origin': 'o'}
        with self.assertRaisesRegex(say.Fail, 'is damaged'):
            base._accept(record, {'tree': 'b', 'debian': '1:10.0.13'})

    def test_disk_full(self):
        usage = shutil.disk_usage('/')._replace(free=1000)
        with mock.patch.object(shutil, 'disk_usage', return_value=usage), \
                mock.patch.object(work, 'BUILD', self.dir), \
                self.assertRaisesRegex(say.Fail, 'needs about 2 GB'):
            work.need_space(2, 'x')
        self.assertIn('no space left', str(say.from_os_error(
            OSError(28, 'x'), 'here')))


class Files(Fixture):

    def test_each_file_in_one_commit(self):
        self.assertIn('ok 1 files', self.good('check', '--only', 'files'))
        self.change('hw/i386/stray.c', '')
        self.bad('hw/i386/stray.c is in no commit', 'check', '--only',
                 'files')

    def test_file_in_two_commits(self):
        self.change('series/0002-again.patch',
                    'a: b\n\ntext\n\nAdds: hw/i386/new.c\n')
        self.bad('is in two commits', 'check', '--only', 'files')

    def test_file_without_maintainer(self):
        self.change('MAINTAINERS', 'Old device\nF: hw/i386/old.c\n')
        self.bad('hw/i386/new.c has no F: line', 'check', '--only', 'files')

    def test_patterns_match_as_in_get_maintainer(self):
        for pattern, path, result in (
                ('a/*.c', 'a/b.c', True), ('a/*.c', 'a/b/c.c', False),
                ('a/', 'a/b/c.c', True), ('a/b.?', 'a/b.h', True)):
            self.assertEqual(maintainers.matches(pattern, path), result)


class Export(Fixture):

    def mails(self, *args):
        out = os.path.join(self.dir, 'out')
        self.good('export', *args, out)
        texts = {}
        for name in sorted(os.listdir(out)):
            with open(os.path.join(out, name), encoding='utf-8') as file:
                texts[name] = file.read()
        return texts

    def test_without_signoff_there_is_none(self):
        texts = ''.join(self.mails().values())
        self.assertNotIn('Signed-off-by', texts)
        self.assertIn('Subject: [PATCH 1/1] hw/i386: add a file', texts)
        self.assertIn('Subject: [PATCH 0/1] A title', texts)
        self.assertIn('A letter.', texts)
        self.assertNotIn('***', texts)

    def test_signoff_is_the_one_given(self):
        texts = ''.join(self.mails('--signoff', 'N <n@localhost>').values())
        self.assertEqual(re.findall(r'^[\w-]+-by: .*', texts, re.M),
                         ['Signed-off-by: N <n@localhost>'])

    def test_bad_signoff(self):
        self.bad('is not "Name <mail@host>"', 'export', '--signoff', 'me',
                 os.path.join(self.dir, 'out'))

    def test_twice_gives_the_same(self):
        self.assertEqual(self.mails(), self.mails())

    def test_foreign_directory_is_refused(self):
        out = os.path.join(self.dir, 'mine')
        write(out, {'file': 'mine'})
        self.bad('is not empty', 'export', out)
        self.assertEqual(os.listdir(out), ['file'])

    def test_own_files_beside_an_export_stay(self):
        self.mails()
        write(os.path.join(self.dir, 'out'),
              {'mine': 'x', '0002-gone.patch': 'x'})
        self.assertEqual(sorted(self.mails()),
                         ['.exported-series', '0000-cover-letter.patch',
                          '0001-hw-i386-add-a-file.patch', '0002-gone.patch',
                          'mine'])

    def test_round_trip(self):
        self.good('lay')
        self.assertIn('ok 1', self.good('check', '--only', 'roundtrip'))

    def test_quilt(self):
        out = os.path.join(self.dir, 'quilt')
        self.good('export', '--quilt', out)
        with open(os.path.join(out, 'series'), encoding='utf-8') as file:
            names = file.read().split()
        tree = os.path.join(self.dir, 'patched')
        shutil.copytree(self.source, tree)
        for name in names:
            subprocess.run(['patch', '-s', '-p1', '-i',
                            os.path.join(out, name)], cwd=tree, check=True)
        with open(os.path.join(tree, 'hw/i386/new.c'),
                  encoding='utf-8') as file:
            self.assertEqual(file.read(), 'int new;\n')


class Apt(unittest.TestCase):

    def sources(self, files):
        with tempfile.TemporaryDirectory() as etc:
            write(etc, files)
            return aptget.pick_mirrors(aptget.machine_sources(etc))

    def test_both_formats(self):
        for files in (
                {'sources.list': 'deb [signed-by=/k] http://m/debian bookworm '
                                 'main\ndeb http://s/x bookworm-security main'
                                 '\n'},
                {'sources.list.d/debian.sources':
                 'Types: deb\nURIs: http://m/debian\nSuites: bookworm\n'
                 'Components: main\nSigned-By: /k\n\nTypes: deb\n'
                 'URIs: http://s/x\nSuites: bookworm-security\n'
                 'Components: main\n'}):
            main, security = self.sources(files)
            self.assertEqual((main.uri, main.signed_by, security.uri),
                             ('http://m/debian', '/k', 'http://s/x'))

    def test_disabled_and_foreign_sources(self):
        main, security = self.sources({
            'sources.list': '# deb http://no/debian trixie main\n'
                            'deb http://other/repo stable main\n'
                            'deb http://m/debian trixie main\n',
            'sources.list.d/off.sources':
                'Enabled: no\nTypes: deb\nURIs: http://off/debian\n'
                'Suites: trixie\nComponents: main\n'})
        self.assertEqual(main.uri, 'http://m/debian')
        self.assertIsNone(security)

    def fail(self, uri):
        source = aptget.Source(uri, 'trixie', ['main'], '')
        with tempfile.TemporaryDirectory() as build, \
                mock.patch.object(aptget, 'APT', build), \
                mock.patch.object(work, 'LOGS', build), \
                mock.patch.object(aptget, 'machine_sources',
                                  return_value=[source]), \
                mock.patch.object(say, 'info'), \
                self.assertRaises(say.Fail) as caught:
            apt = aptget.Apt('test', 'deb-src', [('trixie', 'main')])
            apt.update()
        return str(caught.exception)

    def test_no_network(self):
        self.assertRegex(self.fail('http://127.0.0.1:9/debian'),
                         'no connection to the Debian mirror')

    def test_mirror_without_the_suite(self):
        with tempfile.TemporaryDirectory() as mirror:
            self.assertRegex(self.fail(f'file:{mirror}'),
                             'does not carry "trixie"')


class Count(unittest.TestCase):
    """The closing line counts what ran, and nothing else as passed."""

    def count(self, programs, subtests, chosen=('a',)):
        cases = ''.join(
            f'<testcase name="{name}">{outcome}</testcase>'
            for name, outcome in subtests)
        log = ''.join(f'{{"name": "p:s / {name}", "result": "{result}"}}\n'
                      for name, result in programs.items())
        with tempfile.TemporaryDirectory() as logs:
            write(logs, {'testlog.json': log, 'testlog.junit.xml':
                         '<testsuites><testsuite name="p.p:s / a">' + cases
                         + '</testsuite></testsuites>'})
            counts, bad = suites.count(logs, chosen)
        self.assertEqual(len(bad), counts['failed'])
        return tuple(counts.values())

    def test_subtests(self):
        self.assertEqual(self.count({'a': 'FAIL'}, [
            ('1', ''), ('2', '<failure/>'), ('3', '<skipped/>')]), (1, 1, 1))

    def test_program_without_subtests(self):
        self.assertEqual(self.count({'a': 'OK'}, []), (1, 0, 0))
        self.assertEqual(self.count({'a': 'FAIL'}, []), (0, 1, 0))

    def test_program_that_died_or_hung_after_a_good_subtest(self):
        for result in ('ERROR', 'TIMEOUT', 'INTERRUPT'):
            self.assertEqual(self.count({'a': result}, [('1', '')]),
                             (1, 1, 0))

    def test_program_that_tested_nothing(self):
        self.assertEqual(self.count({'a': 'SKIP'}, []), (0, 1, 0))
        self.assertEqual(self.count({'a': 'SKIP'}, [('1', '<skipped/>')]),
                         (0, 0, 1))

    def test_program_that_did_not_run(self):
        self.assertEqual(self.count({'a': 'OK'}, [], ('a', 'b')), (1, 1, 0))

    def test_no_log(self):
        with mock.patch.object(say, 'warn'):
            counts, bad = suites.count('/nonexistent', ['a'])
        self.assertEqual((counts['failed'], bad),
                         (1, [('a: did not run', [])]))

    def test_reasons(self):
        for output, reasons in (
                ('Traceback:\nx.y.GuestFailure: panic\nmore\n',
                 ['x.y.GuestFailure: panic']),
                ('not ok /a - ERROR:../a.c:1: failed\nBail out!',
                 ['ERROR:../a.c:1: failed']),
                ('# AssertionError: 1 != 2\n' * 2, ['AssertionError: 1 != 2']),
                ('a.c:1:2: runtime error: shift\n==7==ERROR: AddressSanitizer',
                 ['a.c:1:2: runtime error: shift',
                  '==7==ERROR: AddressSanitizer']),
                ('E: no\nok 1 - an Error: in a name\n', []),
                ('ERROR:' + 'x' * 999, ['ERROR:' + 'x' * 194]),
                ('\n'.join(f'ERROR:{n}' for n in range(9)),
                 ['ERROR:0', 'ERROR:1', 'ERROR:2'])):
            with self.subTest(output), tempfile.TemporaryDirectory() as logs:
                write(logs, {'testlog.json': json.dumps(
                    {'name': 'p:s / a', 'result': 'FAIL', 'stderr': output})})
                self.assertEqual(suites.count(logs, ['a'])[1],
                                 [('a: FAIL', reasons)])

    def test_wrong_words(self):
        tests = {'a': {'s'}, 'b': {'s', 'long'}, 'c': {'t'}}
        self.assertEqual(suites.select(tests, 's', [], False), ['a'])
        self.assertEqual(suites.select(tests, 's', [], True), ['a', 'b'])
        self.assertEqual(suites.select(tests, 's-long', [], False), ['b'])
        self.assertEqual(suites.select(tests, '', ['b'], False), ['b'])
        with self.assertRaisesRegex(say.Fail, 'there are: s, s-long, t'):
            suites.select(tests, 'x', [], False)
        with self.assertRaisesRegex(say.Fail, 'no test "x"'):
            suites.select(tests, '', ['x'], False)


class Identity(unittest.TestCase):

    def test_nobody_is_invented(self):
        self.assertEqual(export.identity(''), export.NOBODY)
        self.assertEqual(export.identity(' A B <a@b> '), ('A B', 'a@b'))


if __name__ == '__main__':
    sys.exit(tap.main())
