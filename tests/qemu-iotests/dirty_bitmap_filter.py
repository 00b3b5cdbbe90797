#
# A disk behind the dirty-bitmap filter, for tests
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import random
import signal
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

import iotests
from dirty_bitmap_format import DirtyBitmapFile
from iotests import qemu_img

KIB = 1 << 10
MIB = 1 << 20

disk = os.path.join(iotests.test_dir, 'disk')
bitmaps = os.path.join(iotests.test_dir, 'bitmaps')
full = os.path.join(iotests.test_dir, 'full')
sock = os.path.join(iotests.sock_dir, 'nbd.sock')


def make(size: int, *options: str, fmt: str = 'raw') -> None:
    """A disk, and the file for its bitmaps"""
    qemu_img('create', '-q', '-f', fmt, disk, str(size))
    args = [arg for option in options for arg in ('-o', option)]
    qemu_img('create', '-q', '-f', 'dirty-bitmap-file', *args, bitmaps,
             str(size))


def clean_up(*names: str) -> None:
    for name in (disk, bitmaps, full) + names:
        if os.path.exists(name):
            os.chmod(name, 0o644)
            os.remove(name)


def image_opts(fmt: str = 'raw', **options: str) -> str:
    """The filter as an argument of --image-opts"""
    return ','.join([
        'driver=dirty-bitmap', f'file.driver={fmt}', 'file.file.driver=file',
        f'file.file.filename={disk}', 'bitmap.driver=file',
        f'bitmap.filename={bitmaps}',
        *(f'{k}={v}' for k, v in options.items())])


GUEST = '/machine/peripheral/dev/virtio-backend'


class FilterVM(iotests.VM):
    """
    Node 'd' is the filter, 'disk' what is below, and 'b' the file.  With
    `guest`, there is a guest that uses 'd', and writes go through its device.
    """

    def __init__(self, fmt: str = 'raw', start: bool = True,
                 guest: bool = False, **options: Any) -> None:
        super().__init__()
        self.add_blockdev(f'file,node-name=b,filename={bitmaps}')
        self.add_blockdev(f'file,node-name=proto,filename={disk},'
                          'discard=unmap')
        self.add_blockdev(f'{fmt},node-name=disk,file=proto,discard=unmap')
        self.options = options
        self.guest = guest
        if guest:
            self.add_args('-blockdev', json.dumps(self.node()))
            self.add_device('virtio-blk,id=dev,drive=d')
        if start:
            self.launch()
            if not guest:
                self.add_filter()

    def node(self, **options: Any) -> Dict[str, Any]:
        return {'driver': 'dirty-bitmap', 'node-name': 'd', 'file': 'disk',
                'bitmap': 'b', 'discard': 'unmap', **self.options, **options}

    def add_filter(self, **options: Any) -> None:
        self.cmd('blockdev-add', self.node(**options))

    def io(self, command: str, node: Optional[str] = None) -> str:
        if node is None and self.guest:
            return self.hmp_qemu_io(GUEST, command, qdev=True)['return']
        return self.hmp_qemu_io(node or 'd', command)['return']

    def write(self, *areas: Tuple[int, int],
              node: Optional[str] = None) -> None:
        for offset, length in areas:
            output = self.io(f'write -P {random.randrange(1, 255)} {offset} '
                             f'{length}', node)
            assert output == '', output

    def bitmap_cmd(self, what: str, name: str, **data: Any) -> None:
        if what == 'add':
            data = {'persistent': True, **data}
        self.cmd(f'block-dirty-bitmap-{what}', node='d', name=name, **data)

    def bitmap(self, name: str) -> Any:
        """As queried; None if there is none of that name"""
        found = self.query_bitmaps().get('d', [])
        return next((b for b in found if b['name'] == name), None)

    def info(self) -> Any:
        nodes = self.cmd('query-named-block-nodes')
        image = next(n['image'] for n in nodes if n['node-name'] == 'd')
        return image['format-specific']['data']

    def sha256(self, name: str) -> str:
        return self.cmd('x-debug-block-dirty-bitmap-sha256', node='d',
                        name=name)['sha256']

    def crash(self) -> None:
        """As by the OOM killer: nothing is written any more"""
        os.kill(self.get_pid(), signal.SIGKILL)
        self.shutdown(hard=True)


def action(what: str, name: str, **data: Any) -> Dict[str, Any]:
    if what == 'add':
        data = {'persistent': True, **data}
    return {'type': f'block-dirty-bitmap-{what}',
            'data': {'node': 'd', 'name': name, **data}}


def granules(granularity: int, *areas: Tuple[int, int]) -> Set[int]:
    return {bit for offset, length in areas
            for bit in range(offset // granularity,
                             -(-(offset + length) // granularity))}


def stored(name: str) -> Optional[Set[int]]:
    """Dirty bits of a bitmap as the file has it; None: inconsistent"""
    return DirtyBitmapFile(bitmaps).bitmaps[name].dirty


def names() -> List[str]:
    return sorted(DirtyBitmapFile(bitmaps).bitmaps)


def same_data(a: str, b: str) -> bool:
    res = qemu_img('compare', '-f', 'raw', '-F', 'raw', a, b, check=False)
    return res.returncode == 0


def extents(areas: Iterable[Tuple[int, int]]) -> List[Tuple[int, int]]:
    """Of 4 MiB, what a crash leaves dirty"""
    return [(e * 4 * MIB, 4 * MIB)
            for e in sorted(granules(4 * MIB, *areas))]
