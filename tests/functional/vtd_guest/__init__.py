# SPDX-License-Identifier: GPL-2.0-or-later
#
# A small Linux guest for tests of the VT-d unit; see image.py for what it is
# made of and control.py for how a test talks to it.

from .control import Control, GuestFailure
from .hardware import COMMAND_LINE, Disk, nic_pair, unit_args
from .image import GuestError, Kernel, build_initramfs
