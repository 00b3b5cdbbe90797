# SPDX-License-Identifier: GPL-2.0-or-later
"""Results as tables, on the terminal and in Markdown, and as one plot."""

import html

from cases import BINARIES, translates

GOAL = 0.85                     # of the ideal's ratio
PAGE_GOAL = 10                  # times faster than QEMU's model
NOISE = 2000                    # ns: a single command is not known better
COLOURS = {'stock': '#c44e52', 'ours': '#4c72b0', 'ideal': '#8c8c8c'}


def _number(value):
    if value is None:
        return ''
    return f'{value:.0f}' if abs(value) >= 10 else f'{value:.1f}'


def _cell(result, name, value):
    """A figure of one binary, or why there is none"""
    if name not in result.figures:
        return '-'
    figures = result.figures[name]
    return 'not supported' if figures is None else _number(value(figures))


def _ratio(result, slow, fast):
    """How many times cheaper @fast is, in whole cost; None if unknown"""
    a, b = result.figures.get(slow), result.figures.get(fast)
    if not a or not b or b.whole <= 0:
        return None
    return a.whole / b.whole


def _times(ratio):
    return '-' if ratio is None else f'{ratio:.2f}'


def translation_row(result):
    ours = _ratio(result, 'stock', 'ours')
    ideal = _ratio(result, 'stock', 'ideal')
    origin = ''
    if ideal is None and result.case.ideal:
        ideal, origin = result.case.ideal, ' (design)'
    verdict = '-'
    if ours and ideal and result.case.what == 'dma':
        share = ours / ideal
        verdict = f'{share:.2f} ' + ('met' if share >= GOAL else 'missed')
    return [result.case.title, _number(result.floor),
            *(_cell(result, name, lambda f: f.net) for name in BINARIES),
            _times(ours), _times(ideal) + origin, verdict]


def _descriptor_cell(result, name):
    def show(figures):
        return figures.whole
    if result.case.what != 'page' and result.figures[name].whole < NOISE:
        return f'< {NOISE}'
    return _cell(result, name, show)


def descriptor_row(result):
    ratio, verdict = None, '-'
    if result.case.what == 'page':
        ratio = _ratio(result, 'stock', 'ours')
    if ratio and not result.case.shared:
        verdict = f'{PAGE_GOAL} ' + ('met' if ratio >= PAGE_GOAL else 'missed')
    return [result.case.title, _descriptor_cell(result, 'stock'),
            _descriptor_cell(result, 'ours'), _times(ratio), verdict]


def together_row(result):
    """Millions of translations per second of all devices together"""
    return [result.case.title,
            *(_cell(result, name, lambda f: 1000 / f.wall)
              for name in BINARIES)]


def instruction_row(result):
    return [result.case.title,
            *(_cell(result, name, lambda f: f.instructions)
              for name in BINARIES)]


class Table:
    """A heading, a line on how to read it, columns and rows"""

    def __init__(self, heading, note, columns, rows):
        self.heading = heading
        self.note = note
        self.lines = [columns, *rows]

    def text(self):
        """Markdown that is a table on a terminal as well"""
        widths = [max(len(line[i]) for line in self.lines)
                  for i in range(len(self.lines[0]))]
        rule = ['-' * widths[0]] + ['-' * (w - 1) + ':' for w in widths[1:]]
        body = [self.lines[0], rule, *self.lines[1:]]
        rows = ['| ' + ' | '.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))) + ' |'
                for line in body]
        return '\n'.join([f'## {self.heading}', '', self.note, '', *rows, ''])


def tables(results, counters):
    dma = [r for r in results if translates(r.case)]
    queue = [r for r in results if not translates(r.case)]
    several = [r for r in dma if r.case.devices > 1]
    names = list(BINARIES)
    if dma:
        yield Table(
            'Translations',
            'CPU time in ns of the device\'s thread for one translation.\n'
            'floor: translation off, all of what a descriptor costs; stock,\n'
            'ours, ideal: what is added.  faster: whole cost of stock / ours;\n'
            f'could be: stock / ideal; share: of that, the goal is {GOAL}.',
            ['case', 'floor', *names, 'faster', 'could be', 'share'],
            [translation_row(r) for r in dma])
    if queue:
        yield Table(
            'Invalidation',
            'CPU time in ns of the vCPU\'s thread for one descriptor in the\n'
            'queue.  Of domain and global ones: more than a wait descriptor.',
            ['case', 'stock', 'ours', 'faster', 'goal'],
            [descriptor_row(r) for r in queue])
    if several:
        yield Table(
            'Devices together',
            'Millions of translations per second of wall time, of all\n'
            'devices; what else runs on this machine is in these figures.',
            ['case', *names], [together_row(r) for r in several])
    if counters and dma:
        yield Table(
            'Instructions', 'User-mode instructions that one translation '
            'adds.', ['case', *names], [instruction_row(r) for r in dma])


def counted(counts, chosen):
    """Table of what instructions.count_all() has found"""
    rows = [[case.title, *(_number(counts.get((case.name, name))) or '-'
                           for name in BINARIES)]
            for case in chosen if (case.name, 'ours') in counts]
    return Table(
        'Instructions, counted by valgrind',
        'For one translation: the memory API\'s own and the unit\'s.',
        ['case', *BINARIES], rows)


# The plot --------------------------------------------------------------------

LEFT, RIGHT, BAR, GAP, WIDTH = 200, 60, 11, 12, 760


class Plot:
    """Horizontal bars, a group for each case; y grows downwards"""

    def __init__(self):
        self.parts = []
        self.y = 0

    def text(self, x, text, size=12, anchor='start', weight='normal'):
        self.parts.append(
            f'<text x="{x:.1f}" y="{self.y:.1f}" font-size="{size}" '
            f'text-anchor="{anchor}" font-weight="{weight}">'
            f'{html.escape(text)}</text>')

    def rect(self, x, width, colour):
        self.parts.append(
            f'<rect x="{x:.1f}" y="{self.y:.1f}" width="{width:.1f}" '
            f'height="{BAR - 2}" fill="{colour}"/>')

    def heading(self, text):
        self.y += 28
        self.text(10, text, 14, weight='bold')
        self.y += 12

    def group(self, title, floor, bars, scale):
        """@bars: [(colour, whole cost)]"""
        self.y += BAR
        self.text(LEFT - 8, title, anchor='end')
        self.y -= BAR - 1
        for colour, whole in bars:
            self.rect(LEFT, whole * scale, colour)
            if floor:
                self.rect(LEFT, min(floor, whole) * scale, '#d9d9d9')
            self.y += BAR - 3
            self.text(LEFT + whole * scale + 4, _number(whole), 9)
            self.y -= BAR - 3
            self.y += BAR
        self.y += GAP

    def panel(self, heading, results):
        bars = [(r, [(COLOURS[name], figures.whole)
                     for name, figures in r.figures.items() if figures])
                for r in results]
        longest = max((whole for _, group in bars for _, whole in group),
                      default=0)
        if longest <= 0:
            return
        self.heading(heading)
        scale = (WIDTH - LEFT - RIGHT) / longest
        for result, group in bars:
            if group:
                self.group(result.case.title, result.floor, group, scale)

    def legend(self):
        self.y += 18
        x = LEFT
        for name, colour in [('floor', '#d9d9d9'), *COLOURS.items()]:
            self.y -= BAR - 2
            self.rect(x, 14, colour)
            self.y += BAR - 2
            self.text(x + 20, name)
            x += 90

    def svg(self):
        height = self.y + 20
        return '\n'.join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
            f'height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
            'font-family="sans-serif">',
            '<rect width="100%" height="100%" fill="white"/>',
            *self.parts, '</svg>', ''])


def plot(results):
    plot = Plot()
    plot.legend()
    plot.panel('Translation, ns of CPU time (whole cost)',
               [r for r in results if translates(r.case)])
    plot.panel('Page-selective invalidation, ns for one descriptor',
               [r for r in results if r.case.what == 'page'])
    return plot.svg()
