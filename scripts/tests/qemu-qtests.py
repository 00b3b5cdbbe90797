#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""All of QEMU's qtests for x86_64, by QEMU's own "meson test"."""

import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'scripts'))

from serieslib import build                             # noqa: E402

OBJ = os.path.join(TOP, 'build/obj/default')

env = build.environment()
for command in (['ninja', 'all'],
                ['pyvenv/bin/meson', 'test', '--no-rebuild', '--setup',
                 'thorough', '--print-errorlogs', '--suite', 'qtest-x86_64']):
    done = subprocess.run(command, cwd=OBJ, env=env, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)
