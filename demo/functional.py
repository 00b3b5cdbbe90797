#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Run one of tests/functional/test_x86_64_vtd_*.py from the laid tree, with the
environment that QEMU's own meson files give it, and Debian's kernels as the
guests.  What is missing fails: nothing is skipped here.

  demo/functional.py modes [Class.test...]
"""

import os
from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import assets                                           # noqa: E402
from assets import DebianError, TOP                     # noqa: E402
from vtd_guest import GuestError                        # noqa: E402

TREE = TOP / 'build/tree'
OBJ = TOP / 'build/obj/default'
TOOLS = TOP / 'build/tools/usr/lib/python3/dist-packages'


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    test = TREE / f'tests/functional/test_x86_64_vtd_{sys.argv[1]}.py'
    if not test.exists():
        sys.exit(f'demo/functional.py: there is no {test}: run "make build"')
    env = dict(os.environ)
    env.setdefault('QEMU_TEST_QEMU_BINARY', str(OBJ / 'qemu-system-x86_64'))
    env.setdefault('QEMU_TEST_STOCK_BINARY',
                   str(TOP / 'build/obj/stock/qemu-system-x86_64'))
    env.update(
        PYTHONPATH=f'{TREE}/python:{TREE}/tests/functional:{TOOLS}',
        PYTHONDONTWRITEBYTECODE='1', QEMU_BUILD_ROOT=str(OBJ),
        QEMU_TEST_QEMU_IMG=str(OBJ / 'qemu-img'),
        QEMU_TEST_VTD_REQUIRED='1')
    try:
        more = assets.test_environment(lambda text: print('#', text))
    except (DebianError, GuestError) as err:
        sys.exit(f'demo/functional.py: {err}')
    env.update({name: str(value) for name, value in more.items()})
    os.chdir(OBJ)
    sys.stdout.flush()
    python, chosen = '/usr/bin/python3', sys.argv[2:]
    # QEMU's main() takes no arguments, and prints TAP; unittest's takes names
    command = [python, str(test)] if not chosen else \
        [python, '-W', 'ignore', '-m', 'unittest', '-v',
         *(f'{test.stem}.{name}' for name in chosen)]
    os.execve(python, command, env)


if __name__ == '__main__':
    main()
