# SPDX-License-Identifier: GPL-2.0-or-later
"""
Base class of the VT-d tests with a Linux guest.

The guest is a distribution's kernel and an initramfs made when the test runs.
These environment variables say of what:

  QEMU_TEST_VTD_KERNEL   a kernel image, named vmlinuz-VERSION, with its
                         modules in ../lib/modules/VERSION beside it, as a
                         distribution installs it: on Debian and its kin
                         QEMU_TEST_VTD_KERNEL=/boot/vmlinuz-$(uname -r)
  QEMU_TEST_VTD_KERNEL2  a second one, of another version (some tests)
  QEMU_TEST_VTD_BUSYBOX  a static busybox (default: the one in $PATH)
  QEMU_TEST_VTD_BIOS     a SeaBIOS image (default: QEMU's own)
  QEMU_TEST_VTD_OVMF     UEFI firmware, OVMF_CODE*.fd, with the OVMF_VARS*.fd
                         that belongs to it beside it (firmware tests)
  QEMU_TEST_VTD_XEN      the Xen hypervisor as an ELF file, that is unpacked
                         with gunzip (Xen tests)
  QEMU_TEST_VTD_CACHE    where initramfs and unpacked kernel are kept (default:
                         the build directory)
  QEMU_TEST_STOCK_BINARY another QEMU binary, of a version that the one under
                         test is to be migrated from and to (migration tests)
  QEMU_TEST_VTD_REQUIRED 1: what is missing fails a test; else it is skipped
"""

import contextlib
import os
from pathlib import Path
import sys
import time
from unittest import SkipTest

from qemu_test import QemuSystemTest

from .control import Control, GuestFailure, fault_lines
from .hardware import COMMAND_LINE, Disk, unit_args
from .image import GuestError, Kernel, build_initramfs, extract_vmlinux

# VT-d specification, 11.4.4.2, global status register: translation enabled,
# interrupt remapping enabled, root table pointer set, queue enabled
UNIT_BASE = 0xfed90000
GSTS = UNIT_BASE + 0x1c
GSTS_TES, GSTS_RTPS, GSTS_QIES, GSTS_IRES = 1 << 31, 1 << 30, 1 << 26, 1 << 25


# TCG of any QEMU 10.0 looks up what a vCPU's TLB entry stands for in the memory
# map of now, not in that of the entry.  Rarely a guest dies of that while one
# vCPU sizes BARs and another one accesses a device.
TCG_RACE = 'iotlb_to_section: Assertion `section_index <'


class VTDGuestTest(QemuSystemTest):

    # Start the kernel as a PC's boot loader does, not by the quicker PVH
    # protocol: Linux does not wake from S3 after that one.
    plain_boot = False

    def setUp(self):
        super().setUp()
        self.guests = []
        self.guest = None
        self.started = time.monotonic()
        self.require_accelerator('tcg')
        for device in ('intel-iommu', 'virtio-blk-pci', 'nvme', 'e1000e',
                       'virtio-net-pci', 'edu'):
            self.require_device(device)
        self.set_machine('q35')
        self.kernel = self.need_kernel('QEMU_TEST_VTD_KERNEL')

    def tearDown(self):
        self.log.info('took %.1f s', time.monotonic() - self.started)
        for guest in self.guests:
            guest.close()
        super().tearDown()

    def run(self, result=None):
        """A test that fails shows the end of its guests' consoles."""
        bad = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > bad:
            for guest in getattr(self, 'guests', []):
                print(f'---- {self.id()}: the last lines of {guest.log}:',
                      guest.tail(40), '----', sep='\n', file=sys.stderr)
        return result

    def died_of_tcg(self):
        return any(TCG_RACE in path.read_text(errors='replace')
                   for path in Path(self.outputdir).glob('*.log'))

    def _callTestMethod(self, method):
        """Once more, if it failed of what has nothing to do with the unit"""
        try:
            return super()._callTestMethod(method)
        except SkipTest:
            raise
        except Exception:
            if not self.died_of_tcg():
                raise
        print(f'# {self.id()}: {TCG_RACE}... by TCG: once more', flush=True)
        for vm in self._vms.values():
            with contextlib.suppress(Exception):
                vm.shutdown(hard=True)
        self.tearDown()
        self.setUp()
        return super()._callTestMethod(method)

    def missing(self, what):
        if os.environ.get('QEMU_TEST_VTD_REQUIRED') == '1':
            self.fail(what)
        self.skipTest(what)

    def need_kernel(self, variable):
        path = os.environ.get(variable)
        if not path:
            self.missing(f'{variable} is not set: see vtd_guest/testcase.py')
        try:
            return Kernel(path)
        except GuestError as err:
            self.missing(f'{variable}: {err}')

    def need_file(self, variable):
        path = os.environ.get(variable)
        if not path or not os.path.isfile(path):
            self.missing(f'{variable} does not name a file: see '
                         'vtd_guest/testcase.py')
        return path

    def need_stock(self):
        path = os.environ.get('QEMU_TEST_STOCK_BINARY')
        if not path or not os.access(path, os.X_OK):
            self.missing('QEMU_TEST_STOCK_BINARY does not name a QEMU binary')
        return path

    def boot_files(self, kernel):
        cache = os.environ.get('QEMU_TEST_VTD_CACHE') or \
            self.build_file('tests', 'functional', 'vtd-guest')
        try:
            image = kernel.path if self.plain_boot \
                else extract_vmlinux(kernel, cache)
            return image, build_initramfs(kernel, cache)
        except GuestError as err:
            self.missing(str(err))

    def assert_levels(self, levels):
        """All that is translated is translated by so many levels."""
        info, = self.vm.cmd('x-query-vtd')
        found = {requester['levels'] for requester in info['requesters']
                 if 'levels' in requester}
        self.assertEqual(found, {levels}, info)

    def new_disks(self, *kinds):
        return [Disk(kind, self.scratch_file()) for kind in kinds]

    def common_args(self, unit, disks, append, kernel=None):
        """Of every machine of this test, also the target of a migration"""
        image, initramfs = self.boot_files(kernel or self.kernel)
        args = ['-machine', 'kernel-irqchip=split', '-accel', 'tcg',
                '-smp', '2', '-m', '512', '-nodefaults', *unit_args(unit)]
        if os.environ.get('QEMU_TEST_VTD_BIOS'):
            args += ['-bios', os.environ['QEMU_TEST_VTD_BIOS']]
        for disk in disks:
            args += disk.args()
        names = ','.join(disk.name for disk in disks)
        return args + ['-kernel', str(image), '-initrd', str(initramfs),
                       '-append', f'{COMMAND_LINE} no_console_suspend '
                       f'vtd.disks={names} {append}']

    def launch(self, vm, name='guest'):
        """Start the process; returns the channel to the guest in it"""
        path = os.path.join(self.socket_dir().name, f'{name}.sock')
        log = self.log_file(f'{name}-console.log')
        if os.path.exists(log):
            os.unlink(log)
        vm.add_args(*Control.args(path, log))
        vm.launch()
        guest = Control(path, log, vm.is_running)
        self.guests.append(guest)
        return guest.connect()

    def boot(self, unit='intremap=on', disks=(), append='', devices=(),
             kernel=None):
        """Boot the guest on the default machine and wait until it is up."""
        kernel = kernel or self.kernel
        self.vm.add_args(*self.common_args(unit, disks, append, kernel),
                         *devices)
        start = time.monotonic()
        self.guest = self.launch(self.vm)
        version = self.guest.wait_ready()
        self.assertEqual(version, kernel.version)
        self.log.info('booted in %.1f s', time.monotonic() - start)
        return self.guest

    # What is asked of QEMU

    def hmp(self, command, vm=None):
        return (vm or self.vm).cmd('human-monitor-command',
                                   command_line=command)

    def register(self, address, vm=None):
        text = self.hmp(f'xp /1wx {address:#x}', vm)
        return int(text.split()[-1], 16)

    def assert_unit_on(self, interrupts=True, vm=None):
        """The unit itself says that it translates (and remaps)."""
        gsts = self.register(GSTS, vm)
        want = GSTS_TES | GSTS_RTPS | (GSTS_IRES if interrupts else 0)
        self.assertEqual(gsts & (GSTS_TES | GSTS_RTPS | GSTS_IRES), want,
                         f'GSTS is {gsts:#x}')

    # What is asked of the guest

    def assert_domains(self, wanted, guest=None):
        """Each IOMMU group has this type, and there are groups."""
        guest = guest or self.guest
        facts = guest.facts('iommu_facts')
        groups = [value for key, value in facts if key == 'group']
        self.assertGreater(len(groups), 3)
        for group in groups:
            self.assertEqual(group.split()[0], wanted, group)
        return dict(facts)

    def irq_counts(self, guest=None):
        """{chip: interrupts so far}"""
        counts = {}
        for key, value in (guest or self.guest).facts('irq_facts'):
            if key == 'irq':
                _, chip, count, _ = value.split()
                counts[chip] = counts.get(chip, 0) + int(count)
        return counts

    def assert_disk_works(self, disk, guest=None):
        facts = dict((guest or self.guest).facts(f'disk_check {disk.name}',
                                                 120))
        self.assertNotIn('write_error', facts)
        self.assertEqual(facts['host_data'], disk.hash_of_data(),
                         f'{disk.name}: the guest reads other data')
        self.assertEqual(facts['written'], facts['read_back'],
                         f'{disk.name}: the guest reads back other data')
        if disk.format == 'raw':
            self.assertEqual(facts['written'], disk.hash_of_written(),
                             f'{disk.name}: the image holds other data')

    def assert_network_works(self, guest=None, rounds=20):
        facts = dict((guest or self.guest).facts(
            f'net_check e1000e virtio_net {rounds}', 120))
        self.assertGreater(int(facts.get('frames', 0)), 0)

    def wait_loops(self, names, more=3, guest=None, timeout=90):
        """Wait until each background loop has done some more rounds."""
        guest = guest or self.guest
        first = self.loop_rounds(names, guest)
        deadline = time.monotonic() + timeout
        while True:
            now = self.loop_rounds(names, guest)
            if all(now[n] >= first[n] + more for n in names):
                return now
            if time.monotonic() > deadline:
                raise GuestFailure(f'loops stand still: {first} {now}')
            time.sleep(0.3)

    def loop_rounds(self, names, guest=None):
        facts = dict((guest or self.guest).facts('loop_status'))
        rounds = {}
        for name in names:
            words = facts.get(name, '').split() or ['0']
            if len(words) > 1 and words[1] != 'ok':
                raise GuestFailure(f'{name}: {facts[name]}')
            rounds[name] = int(words[0])
        return rounds

    def assert_vfio_works(self, faults):
        """
        A device in user space, in bounds and out of bounds (guest/vfio-edu.c);
        its accesses out of bounds are reported with these faults.
        """
        facts = self.guest.facts('vfio_check', 180)
        steps = [value for key, value in facts if key == 'step']
        for step in steps:
            self.assertTrue(step.endswith(' ok'), step)
        self.assertEqual(steps[-1], 'copy-again ok')
        self.guest.run('sleep 1')
        self.assert_quiet(faults=faults)
        self.guest.forgive()

    @staticmethod
    def _faults_reported(guest, expected, timeout=30):
        """
        The faults in the guest's log, when it has so many: the serial port
        is slower than the kernel.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = [line for line in fault_lines(guest.new_log_text())
                    if 'handling fault status' not in line]
            if len(seen) >= expected or time.monotonic() > deadline:
                return seen
            time.sleep(0.1)

    def assert_quiet(self, guest=None, faults=()):
        """
        The guest's log has no complaint, and these faults: one pattern for
        each, in order.
        """
        guest = guest or self.guest
        guest.check_log()
        seen = self._faults_reported(guest, len(faults))
        self.assertEqual(len(seen), len(faults), '\n'.join(
            ['faults in the guest\'s log:', *seen]))
        for line, pattern in zip(seen, faults):
            self.assertRegex(line, pattern)
