# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's cloud kernel under posada: to init and out again, each way a guest can end."""
import json
import os
import re

import pytest

import artefacts
import vmtest

pytestmark = pytest.mark.kvm

POWEROFF = 'poweroff -f; sleep 30'
ALL_MODULES = ('need virtio_pci virtio_blk virtio_net virtio_console virtio_balloon virtio_rng '
               'vmw_vsock_virtio_transport button evdev pvpanic_mmio pvpanic_pci qemu_fw_cfg')

QUIT_ROUNDS = 2 if vmtest.IN_LAB else 10
EXIT_TRIPLE_FAULT, EXIT_PANIC, EXIT_TIMEOUT, EXIT_QUIT, EXIT_RESET = 100, 102, 104, 108, 110


@pytest.mark.parametrize('cpus', [1, 2, 4])
def test_init(posada, cpus):
    vm = posada.boot(f'echo READY $(nproc); {POWEROFF}', '--cpus', cpus)
    assert int(vm.expect(r'READY (\d+)').group(1)) == cpus
    assert vm.wait(20) == 0


@pytest.mark.seconds(240)
@pytest.mark.parametrize('cpus', [1, 2])
def test_i386(posada, cpus):
    """Debian's i386 kernel (32-bit entry, no PAE) with 32-bit programs, to init and power-off."""
    vm = posada.run('--kernel', artefacts.vmlinuz('i386'), '--initrd', artefacts.i386_initrd(),
                    '--append', f'{vmtest.APPEND} ' + vmtest.main_argument(
                        f'echo READY $(nproc) $(uname -m); {POWEROFF}'),
                    '--memory', '256M', '--cpus', cpus)
    found = vm.expect(r'READY (\d+) (\w+)\s', 180)
    assert (int(found.group(1)), found.group(2)) == (cpus, b'i686')
    assert vm.wait(60) == 0


def test_no_reboot_ends_with_its_code(posada):
    vm = posada.boot('echo READY; reboot -f; sleep 30', '--no-reboot')
    vm.expect('READY')
    assert vm.wait(20) == EXIT_RESET


@pytest.mark.above_engine
def test_reboot_boots_again(posada):
    vm = posada.boot('echo READY; reboot -f; sleep 30')
    vm.expect('READY')
    vm.expect('READY')
    vm.ctl('quit')
    assert vm.wait(20) == EXIT_QUIT


def test_reboot_with_two_cpus(posada):
    vm = posada.boot('echo READY $(nproc); reboot -f; sleep 30', '--cpus', '2')
    assert vm.expect(r'READY (\d)').group(1) == b'2'
    assert vm.expect(r'READY (\d)').group(1) == b'2'
    vm.ctl('quit')
    assert vm.wait(20) == EXIT_QUIT


def test_panic(posada):
    vm = posada.boot('need pvpanic_mmio pvpanic_pci; echo READY; echo c >/proc/sysrq-trigger')
    vm.expect('READY')
    assert vm.wait(30) == EXIT_PANIC


@pytest.mark.above_engine
def test_triple_fault(posada):
    vm = posada.boot('echo READY; reboot -f; sleep 30', '--no-reboot', append='reboot=triple')
    vm.expect('READY')
    assert vm.wait(20) == EXIT_TRIPLE_FAULT


@pytest.mark.above_engine
def test_timeout(posada):
    vm = posada.boot('echo READY; sleep 300', '--timeout', '15')
    vm.expect('READY')
    assert vm.wait(40) == EXIT_TIMEOUT


def act(posada, protocol, action, *options):
    """Starts a guest of tests/guest/act.asm, which has printed its command line on return."""
    vm = posada.run('--kernel', artefacts.act_guest(protocol), '--append', f'hello {action}',
                    '--memory', '64M', *options)
    vm.expect(f'hello {action}', 20)
    return vm


PROTOCOLS = pytest.mark.parametrize('protocol', ['multiboot', 'pvh'])


@PROTOCOLS
def test_isa_debug_exit(posada, protocol):
    assert act(posada, protocol, 'e').wait(20) == (0x21 << 1 | 1) & 255


@PROTOCOLS
def test_triple_fault_without_a_kernel(posada, protocol):
    assert act(posada, protocol, 't', '--no-reboot').wait(20) == EXIT_TRIPLE_FAULT


@pytest.mark.parametrize('action', ['r', 'k'])
def test_reset_ports(posada, action):
    assert act(posada, 'multiboot', action, '--no-reboot').wait(20) == EXIT_RESET


def test_soft_off(posada):
    assert act(posada, 'multiboot', 'p').wait(20) == 0


@pytest.mark.parametrize('action', ['h', 'l'])
def test_timeout_of_a_dead_guest(posada, action):
    assert act(posada, 'multiboot', action, '--timeout', '2').wait(20) == EXIT_TIMEOUT


def test_triple_fault_boots_again(posada):
    """However fast the resets come, quit ends the VM: it lost to a reset that was waiting."""
    for _ in range(QUIT_ROUNDS):
        vm = act(posada, 'multiboot', 't')
        vm.expect('hello t', 20)
        vm.ctl('quit')
        assert vm.wait(20) == EXIT_QUIT


def test_json_report(posada):
    console = posada.dir / 'console'
    vm = posada.run('--kernel', artefacts.act_guest('pvh'), '--append', 'hello e', '--memory', '64M',
                    '--console', f'file:{console}', '--json', '--name', 'blue')
    assert vm.wait(20) == 67
    told = json.loads(vm.output)
    assert told['name'] == 'blue' and told['exit_code'] == 67 and told['engine'] == vmtest.ENGINE
    assert 'hello e' in console.read_text()


@pytest.mark.above_engine
def test_console_keys(posada):
    """Ctrl-A h lists the keys, Ctrl-A x ends the VM; on a terminal, as a person would."""
    vm = posada.boot('echo READY; while read l; do echo "got <$l>"; done')
    vm.expect('READY')
    vm.send('hello\n')
    vm.expect('got <hello>', 20)
    vm.send('\x01h')
    vm.expect('Ctrl-A x', 20)
    vm.send('\x01x')
    assert vm.wait(20) == EXIT_QUIT


@pytest.mark.above_engine
def test_control_prompt(posada):
    """Ctrl-A c: verbs of posada ctl on the console, which goes on afterwards."""
    vm = posada.boot('echo READY; while read l; do echo "got <$l>"; done', '--name', 'blue')
    vm.expect('READY')
    vm.send('\x01c')
    vm.expect(r'\(posada\) ', 20)
    vm.send('status\r')
    vm.expect(r'name: +blue', 20)
    vm.expect(r'\(posada\) ', 20)
    vm.send('pause\rstatus\r')
    vm.expect(r'state: +paused', 20)
    vm.send('resume\r\r')
    vm.send('hello\n')
    vm.expect('got <hello>', 20)
    vm.send('\x01cquit\r')
    assert vm.wait(20) == EXIT_QUIT


@pytest.mark.above_engine
def test_pty_console(posada):
    # It goes on when we have read: what waits in a terminal is lost with the program behind it.
    vm = posada.boot(f'echo READY; read l; echo "got <$l>"; read l; {POWEROFF}', '--console', 'pty')
    path = vm.console_path()
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        data = b''
        while b'READY' not in data:
            data += os.read(fd, 4096)
        os.write(fd, b'over pty\n')
        while b'got <over pty>' not in data:
            data += os.read(fd, 4096)
        os.write(fd, b'read\n')
    finally:
        os.close(fd)
    assert vm.wait(20) == 0


def test_no_warnings_in_the_kernel_log(posada):
    """All devices, all drivers, two CPUs: no ACPI, PCI or virtio line of level warning or worse."""
    disk = posada.dir / 'disk.raw'
    disk.write_bytes(bytes(1 << 20))
    vm = posada.boot(f'{ALL_MODULES}; sleep 1; echo LOG; dmesg -r; echo END; {POWEROFF}',
                     '--cpus', '2', '--disk', disk, '--net', 'none', '--balloon', '--hvc', 'null',
                     '--vsock', '7', '--vsock-path', posada.dir / 'vsock')
    vm.expect('LOG')
    vm.expect(r'\nEND')
    assert vm.wait(20) == 0
    log = vm.output[vm.output.index('LOG'):]
    lines = re.findall(r'^<(\d+)>(.*)$', log, re.M)
    assert len(lines) > 100
    about = re.compile(r'acpi|pci|virtio|e820|mp-?bios|apic|hpet|fw_cfg|i8042|rtc|serial', re.I)
    bad = [text for level, text in lines if int(level) & 7 <= 4 and about.search(text)]
    # QEMU's own emulation of XSAVE in the lab makes every guest kernel warn in fpu/xstate.c.
    bad += [text for _, text in lines if 'WARNING: CPU' in text and 'fpu/xstate.c' not in text]
    assert not bad


@pytest.mark.above_engine
def test_devices_are_seen(posada):
    """Each virtio device is bound to its driver."""
    disk = posada.dir / 'disk.raw'
    disk.write_bytes(bytes(1 << 20))
    vm = posada.boot(f'{ALL_MODULES}; sleep 1; for d in /sys/bus/virtio/devices/*; do '
                     f'echo "DEV $(basename $(readlink $d/driver))"; done; '
                     f'cat /sys/class/misc/hw_random/rng_current; '
                     f'head -c 16 /dev/hwrng | wc -c; echo END; {POWEROFF}',
                     '--disk', f'{disk},serial=abc123', '--net', 'none', '--balloon', '--hvc',
                     'null', '--vsock', '7', '--vsock-path', posada.dir / 'vsock')
    vm.expect(r'\nEND')
    assert vm.wait(20) == 0
    drivers = set(re.findall(r'DEV (\w+)', vm.output))
    assert drivers >= {'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_balloon', 'virtio_rng',
                       'vmw_vsock_virtio_transport'}
