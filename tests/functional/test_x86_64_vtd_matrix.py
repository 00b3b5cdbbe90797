#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Further combinations of modes, options and kernels in scalable mode, beyond
# those that test_x86_64_vtd_scalable.py always looks at.
#
# See vtd_guest/testcase.py for the variables that name the guest's kernel.

import test_x86_64_vtd_scalable as scalable
from vtd_guest.testcase import VTDGuestTest


class VTDMatrix(scalable.VTDScalableGuest):

    def test_second_stage_39_bits_strict(self):
        self.work(f'{scalable.SECOND},aw-bits=39', 'iommu.strict=1',
                  domains='DMA')
        self.vfio(scalable.SECOND_FAULTS)

    def test_first_stage_strict_4k_2m(self):
        self.work(f'{scalable.FIRST},fs1gp=off', 'iommu.strict=1',
                  domains='DMA')
        self.vfio(scalable.FIRST_FAULTS)

    def test_first_stage_pass_through(self):
        self.work(scalable.FIRST, 'iommu=pt', domains='identity')
        self.vfio(scalable.FIRST_FAULTS)

    def test_pasid_mode(self):
        self.work(f'{scalable.SECOND},x-pasid-mode=on')
        self.vfio(scalable.SECOND_FAULTS)

    def test_second_stage_57_bits(self):
        self.wide(scalable.SECOND)

    def test_second_kernel_first_stage_57_bits(self):
        self.wide(scalable.FIRST, self.need_kernel('QEMU_TEST_VTD_KERNEL2'),
                  cpu='qemu64')

    def test_second_kernel_first_stage_strict(self):
        self.work(scalable.FIRST, 'iommu.strict=1', domains='DMA',
                  kernel=self.need_kernel('QEMU_TEST_VTD_KERNEL2'))
        self.vfio(scalable.FIRST_FAULTS)


if __name__ == '__main__':
    VTDGuestTest.main()
