# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases, and how one is run: all binaries in turns, several rounds.

The binaries wait beside each other, each for its turn of a few milliseconds:
a change in the machine's speed meets all of them.  What a translation costs
above the floor is taken round by round, before the median.
"""

import contextlib
import statistics
from dataclasses import dataclass
from typing import Optional

from rig import Case, Rig, median

CASES = (
    Case('pass-through', 'pass-through', mode='pass-through'),
    Case('512', '512 pages', ideal=1.6),
    Case('4096', '4096 pages', pages=4096, ideal=3.8),
    Case('65536', '65536 pages', pages=65536, ideal=3.4),
    Case('miss', 'each data page a miss', 'miss', pages=32768),
    Case('second', 'scalable, second stage', mode='second', ideal=3.1),
    Case('first', 'scalable, first stage', mode='first', ideal=3.1),
    Case('2x512', '2 devices, 512 pages', devices=2, ideal=2.1),
    Case('3x512', '3 devices, 512 pages', devices=3, ideal=2.1),
    Case('4x512', '4 devices, 512 pages', devices=4, ideal=2.1),
    Case('2x4096', '2 devices, 4096 pages', devices=2, pages=4096, ideal=4.2),
    Case('page', 'page, cache full', 'page', pages=768),
    Case('page-16', 'page, 16 devices in its domain', 'page', devices=16,
         pages=32, shared=True),
    Case('domain', 'domain, cache full', 'domain', pages=768),
    Case('global', 'global, cache full', 'global', pages=768),
    Case('global-65536', 'global, 65536 pages used', 'global', pages=65536),
)

BINARIES = ('stock', 'ours', 'ideal')


@dataclass
class Figures:
    """
    Of one binary, per unit of work: whole cost in ns, what is left of it
    without the floor (where there is a floor), wall time in ns, and
    instructions without the floor's (where they can be counted)
    """
    whole: float
    net: float
    wall: float
    instructions: Optional[float]


@dataclass
class Result:
    case: Case
    floor: Optional[float]
    figures: dict               # by binary; None: mode not supported


def translates(case):
    """Is the unit of work a translation, or a descriptor?"""
    return case.what in ('dma', 'miss')


def _rigs(case, binaries, stack):
    """{(binary, with translation): rig}; None for what is not supported"""
    rigs = {}
    for name, path in binaries.items():
        is_ideal = name == 'ideal'
        if is_ideal and not (translates(case) and case.mode != 'pass-through'):
            continue
        rig = stack.enter_context(Rig(path, case, ideal=is_ideal))
        if not rig.start():
            rigs[name, True] = None
            continue
        rigs[name, True] = rig
        if translates(case):
            floor = stack.enter_context(Rig(path, case, 'off', is_ideal))
            floor.start()
            rigs[name, False] = floor
    return rigs


def _take_turns(rigs, rounds):
    """{key: samples}; each round begins with another rig"""
    live = [key for key, rig in rigs.items() if rig]
    samples = {key: [] for key in live}
    for i in range(rounds if live else 0):
        first = i % len(live)
        for key in live[first:] + live[:first]:
            samples[key].append(rigs[key].sample())
    for key in live:
        rigs[key].check()
    return samples


def _figures(on, off):
    """Figures from the samples of a rig and of its floor, if it has one"""
    middle = median(on)
    if not off:
        return Figures(middle.cpu, middle.cpu, middle.wall,
                       middle.instructions)
    net = statistics.median(a.cpu - b.cpu for a, b in zip(on, off))
    instructions = None
    if middle.instructions is not None:
        instructions = middle.instructions - median(off).instructions
    return Figures(middle.cpu, net, middle.wall, instructions)


def run_case(case, binaries, rounds):
    """@binaries: {name: path}"""
    with contextlib.ExitStack() as stack:
        rigs = _rigs(case, binaries, stack)
        samples = _take_turns(rigs, rounds)
    figures = {}
    for name, translated in rigs:
        if translated:
            on = samples.get((name, True))
            figures[name] = on and _figures(on, samples.get((name, False)))
    floors = [median(s).cpu for key, s in samples.items() if not key[1]]
    return Result(case, statistics.median(floors) if floors else None,
                  figures)
