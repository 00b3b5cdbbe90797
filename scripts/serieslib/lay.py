# SPDX-License-Identifier: GPL-2.0-or-later
"""build/tree: the base with the series laid on."""

import os

from . import base, commits, maintainers, say, work


def lay_tree(tree, directory, index_path):
    """Make a directory equal to a git tree, touching only what differs."""
    os.makedirs(directory, exist_ok=True)
    index = work.Index(index_path, directory)
    if os.path.exists(index_path):
        index.git('update-index', '-q', '--refresh', check=False)
    index.git('read-tree', '--reset', '-u', tree)


def current():
    """(base record, steps, warnings) of the series as it stands."""
    record = base.load()
    steps, warnings = commits.build_trees(record, commits.load())
    return record, steps, warnings


def lay():
    """Lay the tree; returns (record, final tree)."""
    with work.locked():
        record, steps, warnings = current()
        series = [step.commit for step in steps]
        for text in (warnings + commits.check_paths(series)
                     + maintainers.check(maintainers.load(), steps)):
            say.warn(text)
        tree = steps[-1].tree if steps else record['tree']
        stamp = os.path.join(work.BUILD, 'tree.json')
        if not os.path.exists(work.TREE):
            work.need_space(1, 'laying the tree')
        # The index lies beside the tree that it describes, so that the two
        # go together.
        lay_tree(tree, work.TREE, os.path.join(work.BUILD, 'ours', 'index'))
        if (work.read_json(stamp) or {}).get('tree') != tree:
            work.write_json(stamp, {'tree': tree, 'commits': len(steps)})
            say.info(f'tree: QEMU {record["version"]} + {len(steps)} commits '
                     'in build/tree')
        return record, tree
