# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starting guests and talking to their consoles, for the end-to-end tests.

    vm = posada.boot('echo HELLO; poweroff -f', '--cpus', '2')
    vm.expect('HELLO', 60)
    assert vm.wait(20) == 0

A Process reads its output all the time, so a guest never blocks on a full pipe, and what it said
is in the failure message of whatever was expected in vain.
"""
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = TOP / 'build'
IN_LAB = os.environ.get('LAB') == '1'
PROGRAM = os.environ.get('POSADA_PROGRAM') or str(BUILD / 'posada')
QEMU = 'qemu-system-x86_64'
TAIL = 4000              # characters of output shown with a failure
BOOT_SECONDS = 60        # a busybox guest needs 5-10 s in an idle lab
# All limits are meant for an idle machine and only catch hangs: a busy one gets this many times more.
PATIENCE = 3
APPEND = 'console=ttyS0 quiet panic=-1'

sys.path.insert(0, str(TOP / 'tests' / 'lab'))

import artefacts  # noqa: E402  (tests/lab)


def hardware_kvm():
    """Whether this machine's CPUs run guests natively and /dev/kvm may be used."""
    flags = re.search(r'^flags\s*:(.*)$', pathlib.Path('/proc/cpuinfo').read_text(), re.M)
    natively = flags and {'vmx', 'svm'} & set(flags.group(1).split())
    return bool(natively) and os.access('/dev/kvm', os.R_OK | os.W_OK)


# What `--engine auto` takes here.
ENGINE = 'kvm' if hardware_kvm() else 'soft'


def refused_system_calls():
    """The kernel's lines on what sandboxes refused, if they can be had."""
    done = subprocess.run(['dmesg'], check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, errors='replace')
    return '\n'.join(re.findall(r'^.*type=1326.*$', done.stdout, re.M)[-5:])


class Expected(AssertionError):
    """What was expected did not come."""


class Process:
    """A child process whose standard output and error are collected as text."""

    def __init__(self, argv, env=None):
        self.argv = [str(a) for a in argv]
        self._changed = threading.Condition()
        self._data = bytearray()
        self._mark = 0
        self._ended = False
        self.began = time.monotonic()
        self.child = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, bufsize=0,
                                      env={**os.environ, **(env or {})})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self.child.pid

    @property
    def output(self):
        with self._changed:
            return self._data.decode(errors='replace')

    def _read(self):
        while True:
            data = os.read(self.child.stdout.fileno(), 65536)
            with self._changed:
                self._data += data
                self._ended = not data
                self._changed.notify_all()
            if not data:
                return

    def title(self):
        """The command line without the base64 that nobody can read."""
        return re.sub(r'posada\.main=\S+', 'posada.main=...', ' '.join(self.argv))

    def _fail(self, text):
        raise Expected(f'{text}\n--- {self.title()}\n{self.output[-TAIL:]}')

    def expect(self, pattern, seconds=BOOT_SECONDS):
        """The match of pattern in output not yet consumed; consumes up to its end."""
        regex = re.compile(pattern.encode())
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                found = regex.search(self._data, self._mark)
                if found:
                    self._mark = found.end()
                    return found
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    break
                self._changed.wait(left)
        why = 'the process ended' if self._ended else f'{seconds} s passed'
        return self._fail(f'{pattern!r} did not come: {why}')

    def send(self, text):
        self.child.stdin.write(text.encode())

    def wait(self, seconds=BOOT_SECONDS):
        """The exit code; output is complete then."""
        seconds *= PATIENCE
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._fail(f'still running after {seconds} s')
        self._reader.join(5)
        if code == -signal.SIGSYS:
            print(refused_system_calls())
        return code

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self._reader.join(5)
        self.child.stdin.close()
        self.child.stdout.close()


class Vm(Process):
    """A guest under posada, with its control socket."""

    def __init__(self, options, control):
        self.control = control
        argv = [PROGRAM, 'run', '--control', f'unix:{control}', *options]
        super().__init__(argv)

    def ctl(self, *words, seconds=30, check=True, flags=()):
        """posada ctl on this VM; returns (exit code, standard output)."""
        done = subprocess.run([PROGRAM, 'ctl', *flags, f'unix:{self.control}', *words], check=False,
                              timeout=seconds * PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
        if check and done.returncode != 0:
            self._fail(f'posada ctl {" ".join(words)}: exit code {done.returncode}: {done.stderr}')
        return done.returncode, done.stdout

    def console_path(self, seconds=20):
        """Where a pty console is, once the VM says so."""
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            if os.path.exists(self.control):
                return self.ctl_json('status')['console']
            time.sleep(0.1)
        return self._fail('no control socket')

    def ctl_json(self, *words):
        return json.loads(self.ctl(*words, flags=['--json'])[1])


def main_argument(script):
    """The kernel argument that gives script to tests/lab's test initrd."""
    return 'posada.main=' + base64.b64encode(script.encode()).decode()


class Starter:
    """Context in which guests and peers are started; it ends what still runs."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix='posada-e2e-'))
        self.processes = []
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.stop()
            if process.output:
                print(f'--- {process.title()}\n{process.output[-TAIL:]}')
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, *argv, **kwargs):
        process = Process(argv, **kwargs)
        self.processes.append(process)
        return process

    def run(self, *options):
        """posada run with exactly these options."""
        vm = Vm([str(o) for o in options], self.dir / f'control{len(self.processes)}')
        self.processes.append(vm)
        return vm

    def boot(self, script, *options, memory='256M', append=''):
        """A Debian cloud kernel that runs script (busybox sh, as PID 1, /dev mounted)."""
        return self.run('--kernel', artefacts.vmlinuz('cloud'), '--initrd', artefacts.test_initrd(),
                        '--append', f'{APPEND} {append} {main_argument(script)}',
                        '--memory', memory, *options)

    def qemu(self, *options, machine='q35', memory='256M', cpus=1):
        """The peer: QEMU under KVM, serial on its standard output."""
        return self.start(QEMU, '-accel', 'kvm', '-cpu', 'host', '-machine', machine, '-m', memory,
                          '-smp', cpus, '-nodefaults', '-no-user-config', '-display', 'none',
                          '-no-reboot', '-serial', 'stdio', *options)

    def qemu_boot(self, script, *options, append='', **kwargs):
        return self.qemu('-kernel', artefacts.vmlinuz('cloud'), '-initrd', artefacts.test_initrd(),
                         '-append', f'{APPEND} {append} {main_argument(script)}', *options, **kwargs)
