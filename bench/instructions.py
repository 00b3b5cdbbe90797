# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions per translation, counted by valgrind where no hardware does.

Callgrind runs a whole QEMU, slowly, and counts what is executed from
address_space_translate_iommu() down: the memory API's own part, and the
unit's hook.  Unlike time, the result does not depend on what else runs.
"""

from pathlib import Path
import re
import shutil
import tempfile

from qtest import BenchError
from rig import Rig
from virtio import TRANSLATIONS

FUNCTION = 'address_space_translate_iommu'


def countable(case):
    return case.what == 'dma' and case.devices == 1 and \
        case.mode != 'pass-through'


def count(binary, case, ideal):
    """Instructions for one translation; None if the mode is not there"""
    if not shutil.which('valgrind'):
        raise BenchError('valgrind is not there: install the package of that '
                         'name, or leave --valgrind out')
    with tempfile.TemporaryDirectory(prefix='vtd-bench-') as directory:
        out = Path(directory, 'callgrind')
        wrapper = ['valgrind', '-q', '--tool=callgrind',
                   f'--callgrind-out-file={out}',
                   f'--toggle-collect={FUNCTION}*']
        with Rig(binary, case, ideal=ideal, wrapper=wrapper) as rig:
            if not rig.start():
                return None
            batches = rig.batches
            rig.machine.end()
        match = re.search(r'^totals: (\d+)', out.read_text(), re.M)
    if not match or not int(match.group(1)):
        raise BenchError(f'callgrind has seen no {FUNCTION}() in {binary}')
    return int(match.group(1)) / (batches * TRANSLATIONS)


def count_all(chosen, binaries, say):
    """{(case's name, binary's name): instructions}"""
    counts = {}
    for case in filter(countable, chosen):
        for name, binary in binaries.items():
            counts[case.name, name] = count(binary, case, name == 'ideal')
        say(f'{case.name}: instructions counted')
    return counts
