# SPDX-License-Identifier: GPL-2.0-or-later
"""The third binary: QEMU's base with bench/ideal/ideal-iommu.c added.

Its source tree is made of hard links to the base's files, so it takes no
space; the build takes as long as stock's did (ccache shares most of it).
"""

import os
import shutil

from serieslib import base, build, work
from serieslib.say import Fail

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                      'ideal/ideal-iommu.c')
PLACE = 'hw/i386/ideal-iommu.c'
MESON = 'hw/i386/meson.build'
AFTER = "i386_ss.add(when: 'CONFIG_PC', if_true: files("


def _tree(top):
    """The base's files, as links, and ours in them"""
    tree = os.path.join(top, 'qemu')
    stamp = os.path.join(top, 'base.json')
    record = work.read_json(work.BASE_STAMP)
    if work.read_json(stamp) != record:
        shutil.rmtree(top, ignore_errors=True)
        shutil.copytree(work.BASE, tree, symlinks=True,
                        copy_function=os.link)
        _add_to_meson(os.path.join(tree, MESON))
        work.write_json(stamp, record)
    target = os.path.join(tree, PLACE)
    if not os.path.exists(target) or not _same(SOURCE, target):
        shutil.copyfile(SOURCE, target)


def _same(one, other):
    with open(one, 'rb') as a, open(other, 'rb') as b:
        return a.read() == b.read()


def _add_to_meson(path):
    """Writes a new file: the one that is linked is the base's"""
    with open(path, encoding='utf-8') as file:
        text = file.read()
    if AFTER not in text:
        raise Fail(f'{MESON} of this QEMU has no line "{AFTER}": '
                   'leave the ideal cache out (IDEAL=off)')
    work.write_file(path, text.replace(
        AFTER, AFTER + "\n  'ideal-iommu.c',", 1))


def binary():
    """Build it, and return the path of the emulator"""
    with work.locked():
        base.load()
        build.ensure_tools()
        top = os.path.join(work.BUILD, 'ideal')
        _tree(top)
        obj = os.path.join(top, 'obj')
        # The build directory is configured anew if the options have changed
        build._configure('ideal', obj)
        build.compile_in('ideal', obj, build.EMULATOR)
        build.link_firmware(obj)
    return os.path.join(obj, build.EMULATOR[0])
