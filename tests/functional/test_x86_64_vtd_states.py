#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What test_x86_64_vtd_migration.py, _restart.py and _queues.py do in one mode
# of the VT-d unit, in the others: its state is saved, migrated, reset, left to
# another kernel and put to sleep, and all queues are used.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel and
# the other QEMU.

import test_x86_64_vtd_migration as migration
import test_x86_64_vtd_queues as queues
import test_x86_64_vtd_restart as restart
from vtd_guest.testcase import VTDGuestTest


class Mode:
    """
    For a test class to inherit from first: its guests have this unit,
    processor and kernel, this at the end of the kernel's command line, and
    groups of this type.
    """
    UNIT = 'intremap=on'
    APPEND = ''
    DOMAINS = 'DMA-FQ'
    CPU = 'qemu64'
    KERNEL = 'QEMU_TEST_VTD_KERNEL'

    def setUp(self):
        super().setUp()
        self.kernel = self.need_kernel(self.KERNEL)

    def common_args(self, unit, disks, append, kernel=None):
        return ['-cpu', self.CPU] + super().common_args(
            self.UNIT, disks, f'{append} {self.APPEND}', kernel)

    def assert_domains(self, wanted, guest=None):
        return super().assert_domains(self.DOMAINS, guest)


class Strict(Mode):
    APPEND = 'iommu.strict=1'
    DOMAINS = 'DMA'


class PassThrough(Mode):
    APPEND = 'iommu=pt'
    DOMAINS = 'identity'


class CachingMode(Mode):
    """Linux does not batch invalidations for a unit in this mode."""
    UNIT = 'intremap=on,caching-mode=on'
    DOMAINS = 'DMA'


class X2APIC(Mode):
    UNIT = 'intremap=on,eim=on'
    CPU = 'max,+x2apic'


class Lazy(Mode):
    APPEND = 'iommu.strict=0'


class SecondStage(Lazy):
    UNIT = 'intremap=on,x-scalable-mode=on'
    APPEND = 'intel_iommu=sm_on iommu.strict=0'


class FirstStage(SecondStage):
    UNIT = f'{SecondStage.UNIT},x-flts=on'


class FirstStageStrict(FirstStage):
    APPEND = 'intel_iommu=sm_on iommu.strict=1'
    DOMAINS = 'DMA'


class Wide(FirstStage):
    """57 bits, which QEMU's own model does not have"""
    UNIT = f'{FirstStage.UNIT},aw-bits=57'
    CPU = 'max,la57=on'
    test_from_stock = test_to_stock = None


class SecondKernel(Lazy):
    KERNEL = 'QEMU_TEST_VTD_KERNEL2'


class SecondKernelFirstStage(FirstStage):
    KERNEL = 'QEMU_TEST_VTD_KERNEL2'


class MigrationStrict(Strict, migration.VTDMigration):
    pass


class MigrationPassThrough(PassThrough, migration.VTDMigration):
    pass


class MigrationCachingMode(CachingMode, migration.VTDMigration):
    pass


class MigrationX2APIC(X2APIC, migration.VTDMigration):
    pass


class MigrationSecondStage(SecondStage, migration.VTDMigration):
    pass


class MigrationWide(Wide, migration.VTDMigration):
    pass


class MigrationSecondKernel(SecondKernel, migration.VTDMigration):
    pass


class RestartStrict(Strict, restart.VTDRestart):
    pass


class RestartPassThrough(PassThrough, restart.VTDRestart):
    pass


class RestartSecondStage(SecondStage, restart.VTDRestart):
    pass


class RestartFirstStage(FirstStage, restart.VTDRestart):
    pass


class RestartSecondKernel(SecondKernel, restart.VTDRestart):
    pass


class QueuesLazy(Lazy, queues.VTDQueues):
    pass


class QueuesSecondStage(SecondStage, queues.VTDQueues):
    pass


class QueuesFirstStageStrict(FirstStageStrict, queues.VTDQueues):
    pass


class QueuesSecondKernel(SecondKernelFirstStage, queues.VTDQueues):
    pass


if __name__ == '__main__':
    VTDGuestTest.main()
