# SPDX-License-Identifier: GPL-2.0-or-later
#
# Commands to the guest over its second serial port (guest/control.sh is the
# other end).  The first serial port goes to a log file, which is watched for
# a dying kernel while a command runs.

import os
import re
import socket
import time

# A kernel that says one of these has not survived what it was asked to do.
# (Linux says "INFO: task ... blocked" for a lost interrupt or request.)
NAMED = (rb'Kernel panic - not syncing|Oops: |BUG: |'
         rb'INFO: task .* blocked for more than|'
         rb'rcu_\w+ detected stalls|soft lockup')
FATAL = re.compile(NAMED + rb'|Call Trace:')
# What the line with the reason contains, which may be above the call trace
REASON = re.compile(NAMED + rb'|WARNING: ')
# Warnings that are the kernel's own, and no sign of what is tested here
HARMLESS = [
    # Linux 6.1 flushes what VFIO has unmapped, first stage, in pieces that
    # are not aligned to their size, warns of that once, and aligns them.
    rb'WARNING: [^\n]* qi_flush_piotlb\+',
    # libata freezes its ports at a reboot before it masks their interrupts,
    # so a disk that is busy may complete a request in between.
    rb'WARNING: [^\n]* ata_qc_complete\+',
]
# One "cut here" block that begins with one of these, whole or as far as it is,
# and with nothing worse in it
INSIDE = rb'(?:(?!\[ cut here \]|\[ end trace|Kernel panic|Oops: |BUG: ).)'
WARNING = re.compile(rb'-+\[ cut here \]-+' + INSIDE + rb'{0,400}?'
                     rb'(?:' + rb'|'.join(HARMLESS) + rb')' + INSIDE + rb'*?'
                     rb'(?:\[ end trace|\Z)', re.DOTALL)
# What Linux says of a DMA or an interrupt that the unit has refused
FAULT = re.compile(r'DMAR: \[|handling fault|INTR-REMAP.*fault|'
                   r'DMAR:.*[Ii]nvalidation.*(?:[Ee]rror|time)|'
                   r'DMAR:.*not responding')


def find_fatal(text):
    """
    Where the bytes @text of a kernel's log tell of its end, with what is
    harmless left out: (the line that says why, those around it); None if
    nowhere.
    """
    text = WARNING.sub(b'', text.replace(b'\r', b''))
    match = FATAL.search(text)
    if not match:
        return None
    # The lines before say what it is, those after it who did it
    start = max(0, match.start() - 1500)
    line_end = (text + b'\n').index(b'\n', match.end())
    before = text[start:line_end].split(b'\n')
    reason = next(filter(REASON.search, reversed(before)), before[-1])
    around = text[start:match.end() + 2500]
    return tuple(part.decode('utf-8', 'replace') for part in (reason, around))


class GuestFailure(Exception):
    """The guest died, hung, or a command in it failed."""


def fault_lines(log):
    return [line for line in log.splitlines() if FAULT.search(line)]


class Control:
    """
    The control channel of one QEMU process.

    :param path: path of the unix socket that QEMU's second serial port
                 listens on
    :param log: path of the first serial port's log file
    :param alive: called without arguments, False if QEMU has ended
    """

    def __init__(self, path, log, alive):
        self.path = path
        self.log = log
        self.alive = alive
        self.socket = None
        self.pending = b''
        self.number = 0
        # What the log holds before this offset is accounted for
        self.checked = 0

    @staticmethod
    def args(path, log):
        """QEMU's arguments for both serial ports"""
        return ['-chardev', f'file,id=vtdlog,path={log},append=on',
                '-serial', 'chardev:vtdlog',
                '-chardev', f'socket,id=vtdctl,path={path},server=on,wait=off',
                '-serial', 'chardev:vtdctl']

    def connect(self):
        deadline = time.monotonic() + 30
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(str(self.path))
                return self
            except OSError:
                self.socket.close()
            if not self.alive():
                raise GuestFailure('QEMU ended before the guest could start')
            if time.monotonic() > deadline:
                raise GuestFailure(f'QEMU does not open {self.path}')
            time.sleep(0.05)

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def log_text(self):
        try:
            with open(self.log, 'rb') as log:
                return log.read().decode('utf-8', 'replace').replace('\r', '')
        except FileNotFoundError:
            return ''

    def tail(self, lines=40):
        return '\n'.join(self.log_text().splitlines()[-lines:])

    def forgive(self):
        """What the log holds up to now is accounted for."""
        self.checked = os.path.getsize(self.log)

    def new_log_text(self):
        """The log since forgive() was last called"""
        with open(self.log, 'rb') as log:
            log.seek(self.checked)
            return log.read().decode('utf-8', 'replace').replace('\r', '')

    def check_log(self):
        with open(self.log, 'rb') as log:
            log.seek(self.checked)
            fatal = find_fatal(log.read())
        if fatal:
            said, around = fatal
            raise GuestFailure(f'the guest kernel says: {said}\n{around}')

    def _receive_until(self, pattern, timeout, what):
        """The match of @pattern and what came before it"""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.pending)
            if match:
                before = self.pending[:match.start()]
                self.pending = self.pending[match.end():]
                return match, before
            self.check_log()
            if not self.alive():
                raise GuestFailure(f'QEMU ended during: {what}')
            if time.monotonic() > deadline:
                raise GuestFailure(f'no answer within {timeout} s: {what}')
            self.socket.settimeout(0.5)
            try:
                self.pending += self.socket.recv(65536)
            except socket.timeout:
                pass

    def wait_ready(self, timeout=120):
        """
        Wait for the guest to have booted; returns its kernel's version.
        Also after a reset, which leaves the answer of a command unsaid.
        """
        match, _ = self._receive_until(rb'@@READY (\S+)[^\n]*\n', timeout,
                                       'boot')
        return match.group(1).decode()

    def send(self, command):
        """Start a command without waiting for it."""
        self.number += 1
        self.socket.sendall(f'{self.number} {command}\n'.encode())
        return self.number

    def finish(self, number, timeout, what, check=True):
        """Wait for the end of a command that send() has started."""
        match, output = self._receive_until(
            rb'\n?@@END %d (\d+)\n' % number, timeout, what)
        text = output.decode('utf-8', 'replace').replace('\r', '')
        if check and match.group(1) != b'0':
            raise GuestFailure(f'{what}: status {match.group(1).decode()}: '
                               + text.strip()[-300:])
        return text

    def run(self, command, timeout=60, check=True):
        """Run a shell command in the guest and return what it prints."""
        return self.finish(self.send(command), timeout, command, check)

    def facts(self, command, timeout=60):
        """The 'key=value' lines that a command prints, as a list of pairs"""
        lines = self.run(command, timeout).splitlines()
        return [tuple(line.split('=', 1)) for line in lines if '=' in line]
