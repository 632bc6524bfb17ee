# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running guest steered by its control socket, through posada ctl."""
import re
import time

import pytest

import vmtest

pytestmark = pytest.mark.kvm

EXIT_QUIT = 108
COUNT = 'i=0; while :; do i=$((i+1)); echo "TICK $i"; usleep 200000; done'
MIB = 1 << 20


@pytest.mark.above_engine
def test_status(posada):
    vm = posada.boot('echo READY; sleep 300', '--name', 'blue', '--cpus', '2')
    vm.expect('READY')
    status = vm.ctl_json('status')
    assert status['name'] == 'blue'
    assert status['state'] == 'running'
    assert 'running' in vm.ctl('status')[1]


def test_pause_and_resume(posada):
    vm = posada.boot(COUNT, '--cpus', '2')
    vm.expect('TICK 3')
    vm.ctl('pause')
    assert vm.ctl_json('status')['state'] == 'paused'
    time.sleep(1)
    before = vm.output.count('TICK')
    time.sleep(3)
    assert vm.output.count('TICK') == before
    vm.ctl('resume')
    vm.expect(f'TICK {before + 3}\\b', 20)
    assert vm.ctl_json('status')['state'] == 'running'
    numbers = [int(n) for n in re.findall(r'TICK (\d+)\s', vm.output)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.above_engine
def test_quit(posada):
    vm = posada.boot('echo READY; sleep 300')
    vm.expect('READY')
    vm.ctl('quit')
    assert vm.wait(10) == EXIT_QUIT


@pytest.mark.above_engine
def test_reset(posada):
    vm = posada.boot('echo READY $(cat /proc/uptime); sleep 300')
    vm.expect('READY')
    vm.ctl('reset')
    vm.expect('READY')


def test_powerdown_is_the_power_button(posada):
    # Keyboard and mouse have event devices, too: wait on all of them. They are open before READY is
    # said, since an event counts only for who has the device open.
    vm = posada.boot('need button evdev; sleep 1; n=3; for e in /dev/input/event*; do '
                     'eval "exec $n<$e"; '
                     '(eval "head -c 24 <&$n" >/dev/null; echo PRESSED; poweroff -f) & '
                     'n=$((n + 1)); done; echo READY; sleep 60')
    vm.expect('READY')
    vm.ctl('powerdown')
    vm.expect('PRESSED', 20)
    assert vm.wait(20) == 0


def free_mib(vm):
    return int(vm.expect(r'FREE (\d+) kB', 30).group(1)) // 1024


def test_balloon(posada):
    """Inflated, the guest has less memory; deflated, it has it back."""
    vm = posada.boot('need virtio_pci virtio_balloon; while :; do sleep 1; '
                     'echo "FREE $(sed -n "s/MemFree: *//p" /proc/meminfo)"; done', '--balloon')
    before = free_mib(vm)
    vm.ctl('balloon', '192M')
    deadline = time.monotonic() + 60
    while (now := free_mib(vm)) > before - 56 and time.monotonic() < deadline:
        pass
    assert before - 72 < now <= before - 56
    vm.ctl('balloon', '256M')
    deadline = time.monotonic() + 60
    while (now := free_mib(vm)) < before - 8 and time.monotonic() < deadline:
        pass
    assert now >= before - 8


def test_statistics_and_registers(posada):
    disk = posada.dir / 'disk.raw'
    disk.write_bytes(bytes(MIB))
    vm = posada.boot('need virtio_pci virtio_blk; cat /dev/vda >/dev/null; echo READY; sleep 300',
                     '--disk', disk)
    vm.expect('READY')
    assert isinstance(vm.ctl_json('stats'), dict)
    assert re.search(r'rip', vm.ctl('registers')[1], re.I)


@pytest.mark.above_engine
def test_ctl_names_what_is_wrong(posada):
    vm = posada.boot('echo READY; sleep 300')
    vm.expect('READY')
    code, _ = vm.ctl('no-such-command', check=False)
    assert code == 2
    vm.ctl('quit')
    assert vm.wait(10) == EXIT_QUIT
    code, _ = vm.ctl('status', check=False)
    assert code in (3, 7)
