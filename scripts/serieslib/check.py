# SPDX-License-Identifier: GPL-2.0-or-later
"""Proofs that the series is what a maintainer can take.

Each check yields (name, problems); no problems is a pass.
"""

import os
import re
import subprocess

from . import build, commits, export, lay, maintainers, say, work


def check_apply(strict):
    """Edits apply exactly; with strict, replaced files were reviewed."""
    _, _, warnings = lay.current()
    if not strict:
        for text in warnings:
            say.warn(text)
    return warnings if strict else []


def check_files():
    """Each of our files is in one commit, and has its MAINTAINERS line."""
    _, steps, _ = lay.current()
    return (commits.check_paths([step.commit for step in steps])
            + maintainers.check(maintainers.load(), steps))


def check_patch():
    """checkpatch.pl of the base has neither errors nor warnings."""
    problems = []
    with work.scratch('mails') as directory:
        _, _, _, paths = export.mails(os.path.join(directory, 'out'))
        for path in paths[1:]:
            done = subprocess.run(
                ['perl', os.path.join(work.BASE, 'scripts/checkpatch.pl'),
                 '--no-signoff', '--terse', path], cwd=work.BASE,
                capture_output=True, text=True)
            lines = done.stdout.splitlines()
            problems += [f'{os.path.basename(path)}: {line.partition(": ")[2]}'
                         for line in lines if ': ERROR:' in line
                         or ': WARNING:' in line]
            if done.returncode and not lines:
                problems.append(f'checkpatch.pl failed: {done.stderr.strip()}')
    return problems


def check_roundtrip():
    """git am of the mails on the base gives the laid tree, bit for bit."""
    with work.scratch('am') as directory:
        record, steps, _, paths = export.mails(os.path.join(directory, 'out'),
                                               'A Tester <test@localhost>')
        repo = os.path.join(directory, 'repo')
        env = work.git_env(GIT_COMMITTER_NAME='test',
                           GIT_COMMITTER_EMAIL='test@localhost')
        work.run_git(['init', '-q', repo])
        work.write_file(os.path.join(repo, '.git/objects/info/alternates'),
                        os.path.join(work.GIT_DIR, 'objects') + '\n')
        work.run_git(['-C', repo, 'reset', '-q', '--hard', record['commit']])
        work.run_git(['-C', repo, 'am', '-q', *paths[1:]], env=env)
        tree = work.run_git(['-C', repo, 'rev-parse', 'HEAD^{tree}'])
        if tree.decode().strip() != steps[-1].tree:
            return [f'git am gives tree {tree.decode().strip()}, laid is '
                    f'{steps[-1].tree}']
    return []


def _run_test(obj, name, command, cwd):
    env = build.environment()
    emulator = os.path.join(obj, 'qemu-system-x86_64')
    env.update(QTEST_QEMU_BINARY=emulator,
               QTEST_QEMU_IMG=os.path.join(obj, 'qemu-img'))
    path = work.log('each-' + os.path.basename(name))
    with open(path, 'wb') as log:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=log,
                              stderr=subprocess.STDOUT)
    return done.returncode, path


def _tests_of(obj, commit):
    """Name, command and folder of each test that a commit brings."""
    for program in build.test_programs([commit]):
        yield program, [os.path.join(obj, program), '--tap', '-k'], obj
    folder = os.path.join(obj, 'tests/qemu-iotests')
    for name in build.iotests([commit]):
        yield name, ['/usr/bin/python3', 'check', '-raw', name], folder


def check_each():
    """Every commit builds, and passes the tests that it brings."""
    with work.locked():
        return _check_each()


def _check_each():
    problems = []
    _, steps, _ = lay.current()
    top = os.path.join(work.BUILD, 'each')
    obj = os.path.join(top, 'obj')
    for number, step in enumerate(steps, 1):
        name = f'{number}/{len(steps)} {step.commit.file}'
        lay.lay_tree(step.tree, os.path.join(top, 'qemu'),
                     os.path.join(top, 'index'))
        build.configure_each(obj)
        programs = build.test_programs([step.commit])
        servers = build.SERVERS if build.iotests([step.commit]) else []
        build.compile_in(name.replace('/', '-'), obj, build.EMULATOR +
                         build.TOOLS + servers + programs)
        build.link_firmware(obj)
        for test, command, cwd in _tests_of(obj, step.commit):
            status, path = _run_test(obj, test, command, cwd)
            say.info(f'{name}: {test}: {"failed" if status else "passed"}')
            if status:
                problems.append(f'{name}: {test} failed: {path}')
    return problems


def check_docs():
    """The documentation builds; Sphinx warnings about our pages are errors.

    Pages of QEMU's that we do not touch may have warnings of their own with
    a Sphinx that is older or newer than they were written for.
    """
    say.need_program('sphinx-build', 'python3-sphinx')
    with work.locked():
        _, steps, _ = lay.current()
        lay.lay()
        lines = build.documentation()
    ours = {path for step in steps for path in
            [*step.commit.adds, *step.commit.replaces, *step.commit.edited]}
    problems, others = [], 0
    for line in lines:
        match = re.match(r'(?:.*?/ours/qemu/)?(\S+?):(?:.*: )? ?'
                         r'(WARNING|ERROR|SEVERE|CRITICAL)\b', line)
        if match and match.group(1) in ours:
            problems.append(line[line.index(match.group(1)):])
        else:
            others += bool(match)
    if others:
        say.info(f'docs: {others} warnings about pages of QEMU\'s own')
    return problems


QUICK = {'files': check_files, 'checkpatch': check_patch,
         'roundtrip': check_roundtrip}


def names():
    return ['apply', *QUICK]


def run(only, strict, each, docs):
    """Run the checks; returns whether all passed."""
    todo = {'apply': lambda: check_apply(strict), **QUICK}
    if only:
        todo = {name: todo[name] for name in only}
    if each:
        todo['each'] = check_each
    if docs:
        todo['docs'] = check_docs
    failed = 0
    say.MARK = '# '
    print(f'1..{len(todo)}')
    for number, (name, check) in enumerate(todo.items(), 1):
        try:
            problems = check()
        except say.Fail as fail:
            problems = [str(fail)]
        failed += bool(problems)
        print(f'{"not ok" if problems else "ok"} {number} {name} - '
              f'{(check.__doc__ or "edits apply").splitlines()[0]}')
        for problem in problems:
            print('\n'.join('# ' + line for line in problem.splitlines()),
                  flush=True)
    return failed == 0
