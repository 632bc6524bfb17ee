# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sizes and places of a machine as its guest and its host see them: memory, CPUs, CPU model."""
import pathlib
import re

import pytest

import vmtest

pytestmark = [pytest.mark.kvm, pytest.mark.seconds(300)]
SECONDS = 240           # a guest of 4 GiB sets up 64 MiB of its own before it starts

POWEROFF = 'poweroff -f; sleep 30'
LOOK = ('grep MemTotal /proc/meminfo; grep "System RAM" /proc/iomem; '
        'grep -m1 ^flags /proc/cpuinfo; echo READY $(nproc)')
HUGE = pathlib.Path('/proc/sys/vm/nr_hugepages')
HUGE_PAGE_MIB = 2
SOFT_OVERHEAD_MIB = 64


def vcpu_affinity(pid):
    """Host CPUs of each vCPU thread of a VM."""
    found = {}
    for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
        name = (task / 'comm').read_text().strip()
        if re.fullmatch(r'vcpu.?\d+', name):
            status = (task / 'status').read_text()
            found[name] = re.search(r'Cpus_allowed_list:\s*(\S+)', status).group(1)
    return found


def test_large_memory_pinned(posada):
    """4 GiB: 2 below the PCI hole, the rest from 4 GiB on; vCPUs pinned, RAM bound to a node."""
    vm = posada.boot(f'{LOOK}; read l; {POWEROFF}', '--cpus', '2', '--pin', '0,0', '--numa', '0',
                     '--cpu', 'x86-64-v1', memory='4G')
    assert vm.expect(r'READY (\d)', SECONDS).group(1) == b'2'
    assert int(re.search(r'MemTotal: +(\d+) kB', vm.output).group(1)) > 3800 << 10
    ranges = re.findall(r'^([0-9a-f]+)-([0-9a-f]+) : System RAM', vm.output.replace('\r', ''), re.M)
    assert ('100000000', '17fffffff') in ranges and max(
        int(end, 16) for start, end in ranges if len(start) <= 8) == 0x7fffffff
    flags = set(re.search(r'flags\s*:(.*)', vm.output).group(1).split())
    assert {'lm', 'sse2'} <= flags and not flags & {'sse4_2', 'popcnt', 'cx16', 'avx'}
    affinity = vcpu_affinity(vm.pid)
    assert len(affinity) == 2 and set(affinity.values()) == {'0'}
    vm.send('\n')
    assert vm.wait(60) == 0


def test_huge_pages(posada):
    """RAM from the host's huge pages, and a CPU of level 2."""
    before = HUGE.read_text()
    try:
        try:
            HUGE.write_text('70')
        except OSError as e:
            pytest.skip(f'{HUGE}: {e}')
        if int(HUGE.read_text()) < 64:
            pytest.skip('the host has no 64 huge pages of 2 MiB to give')
        vm = posada.boot(f'{LOOK}; read l; {POWEROFF}', '--hugepages', '--cpu', 'x86-64-v2',
                         memory='128M')
        vm.expect('READY 1', SECONDS)
        flags = set(re.search(r'flags\s*:(.*)', vm.output).group(1).split())
        assert {'sse4_2', 'popcnt', 'cx16'} <= flags and not flags & {'avx', 'bmi1', 'movbe'}
        smaps = pathlib.Path(f'/proc/{vm.pid}/smaps').read_text()
        sizes = re.findall(r'^Size: +(\d+) kB\nKernelPageSize: +2048 kB', smaps, re.M)
        assert sum(map(int, sizes)) == 128 << 10
        vm.send('\n')
        assert vm.wait(60) == 0
    finally:
        HUGE.write_text(before)


def private_kib(pid, ram_kib):
    """Resident memory of a process without its mapping of the guest's RAM. The engine's code is mapped
    twice, to write and to execute: of that the proportional size."""
    total, size, kind = 0, 0, 'Rss'
    for line in pathlib.Path(f'/proc/{pid}/smaps').read_text().splitlines():
        if re.match(r'[0-9a-f]+-[0-9a-f]+ ', line):
            kind = 'Pss' if 'memfd:softkvm-' in line else 'Rss'
        elif found := re.match(r'(Size|Rss|Pss): +(\d+) kB', line):
            if found.group(1) == 'Size':
                size = int(found.group(2))
            elif size < ram_kib and found.group(1) == kind:
                total += int(found.group(2))
    return total


@pytest.mark.skipif(vmtest.IN_LAB, reason='about the software engine')
def test_soft_footprint(posada, report):
    """Beside the guest's RAM, 4 vCPUs that have run a kernel and some programs: at most 64 MiB."""
    cpus = 4
    vm = posada.boot('n=0; while [ $n -lt $(nproc) ]; do (dmesg | sha256sum; ls -lR /sys | sort '
                     '| md5sum) >/dev/null 2>&1 & n=$((n + 1)); done; wait; echo READY $n; sleep 99',
                     '--engine', 'soft', '--cpus', cpus, memory='512M')
    assert int(vm.expect(r'READY (\d)', SECONDS).group(1)) == cpus
    mib = private_kib(vm.pid, 512 * 1024) / 1024
    report(f'memory beside guest RAM, softkvm, {cpus} vCPU', unit='MiB', ours=round(mib, 1),
           limit=SOFT_OVERHEAD_MIB)
    assert mib <= SOFT_OVERHEAD_MIB
