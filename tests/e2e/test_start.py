# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPU time from exec of the program until the control socket answers, the guest halted.

What is counted is this project's code and the kernel's work for it: all threads but the vCPU, whose
time belongs to the engine, and but the software engine's own timer thread. So the figure can be had
on a machine without hardware KVM.

Virtual machines differ by a factor of ten in what a page fault or a system call costs. Where the
start of /bin/true (fork, execve, dynamic linking, exit) takes more than TRUE_MS of CPU, the figure is
divided by how much more.
"""
import os
import pathlib
import statistics
import subprocess

import pytest

import artefacts

pytestmark = [pytest.mark.kvm, pytest.mark.above_engine]

LIMIT_MS = 8.0
TRUE_MS = 1.0            # /bin/true on a common server
ROUNDS = 5


def cpu_ms(pid):
    """CPU time so far of the threads that count."""
    total = 0
    for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
        name = (task / 'comm').read_text().strip()
        if not name.startswith(('vcpu', 'softkvm-')):
            total += int((task / 'schedstat').read_text().split()[0])
    return total / 1e6


def true_ms():
    """Mean CPU time of starting /bin/true."""
    began = os.times()
    for _ in range(20):
        subprocess.run(['/bin/true'], check=True, close_fds=False)
    ended = os.times()
    return (ended.children_user + ended.children_system - began.children_user -
            began.children_system) / 20 * 1e3


def test_cpu_to_control_socket(posada, report):
    used, scaled, slowness = [], [], []
    for _ in range(ROUNDS):
        slowness.append(max(1.0, true_ms() / TRUE_MS))
        vm = posada.run('--kernel', artefacts.act_guest('pvh'), '--append', 'hello h', '--memory',
                        '128M')
        vm.expect('hello h', 20)
        vm.ctl('status')
        used.append(cpu_ms(vm.pid))
        scaled.append(used[-1] / slowness[-1])
        vm.stop()
    median = statistics.median(scaled)
    report('CPU to control socket', unit='ms', ours=round(median, 2), limit=LIMIT_MS,
           measured=[round(ms, 1) for ms in used], slowness=[round(f, 1) for f in slowness])
    assert median <= LIMIT_MS, (used, slowness)
