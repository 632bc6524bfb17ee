# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's cloud kernel under posada: to init and out again, each way a guest can end."""
import json
import os
import re

import pytest

import vmtest

pytestmark = pytest.mark.kvm

POWEROFF = 'poweroff -f; sleep 30'
ALL_MODULES = ('need virtio_pci virtio_blk virtio_net virtio_console virtio_balloon virtio_rng '
               'vmw_vsock_virtio_transport button evdev pvpanic_mmio pvpanic_pci qemu_fw_cfg')

EXIT_TRIPLE_FAULT, EXIT_PANIC, EXIT_TIMEOUT, EXIT_QUIT, EXIT_RESET = 100, 102, 104, 108, 110


@pytest.mark.parametrize('cpus', [1, 2])
def test_init(posada, cpus):
    vm = posada.boot(f'echo READY $(nproc); {POWEROFF}', '--cpus', cpus)
    assert int(vm.expect(r'READY (\d+)').group(1)) == cpus
    assert vm.wait(20) == 0


def test_no_reboot_ends_with_its_code(posada):
    vm = posada.boot('echo READY; reboot -f; sleep 30', '--no-reboot')
    vm.expect('READY')
    assert vm.wait(20) == EXIT_RESET


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


def test_triple_fault(posada):
    vm = posada.boot('echo READY; reboot -f; sleep 30', '--no-reboot', append='reboot=triple')
    vm.expect('READY')
    assert vm.wait(20) == EXIT_TRIPLE_FAULT


def test_timeout(posada):
    vm = posada.boot('echo READY; sleep 300', '--timeout', '15')
    vm.expect('READY')
    assert vm.wait(40) == EXIT_TIMEOUT


def test_isa_debug_exit(posada):
    vm = posada.boot('echo READY; guesttool outb 0xf4 0x21; sleep 30')
    vm.expect('READY')
    assert vm.wait(20) == (0x21 << 1 | 1) & 255


def test_json_report(posada):
    vm = posada.boot(f'echo READY; {POWEROFF}', '--json')
    vm.expect('READY')
    assert vm.wait(30) == 0
    assert isinstance(json.loads(vm.output.strip().splitlines()[-1]), dict)


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


def test_pty_console(posada):
    vm = posada.boot(f'echo READY; read l; echo "got <$l>"; {POWEROFF}', '--console', 'pty')
    path = vm.expect(r'(/dev/pts/\d+)', 20).group(1).decode()
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        data = b''
        while b'READY' not in data:
            data += os.read(fd, 4096)
        os.write(fd, b'over pty\n')
        while b'got <over pty>' not in data:
            data += os.read(fd, 4096)
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
    assert not bad


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
