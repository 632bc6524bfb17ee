# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other people's KVM programs under the `softkvm` launcher, on this host: stock QEMU, unmodified,
boots Debian's cloud kernel to init and powers off, with each firmware, machine and irqchip.

What takes longer or is not packaged (kvmtool, the kernel's KVM selftests) is run by hand: see
docs/softkvm.md and docs/kvm-selftests.md.
"""
import pathlib
import shutil
import subprocess

import pytest

import artefacts
import vmtest

QEMU = 'qemu-system-x86_64'
OVMF = pathlib.Path('/usr/share/OVMF')
SECONDS = 200

pytestmark = pytest.mark.seconds(SECONDS + 40)


def softkvm(*argv):
    """Runs a program under softkvm to its end; (exit code, what it said)."""
    launcher = pathlib.Path(vmtest.BUILD) / 'softkvm'
    done = subprocess.run([str(a) for a in (launcher, *argv)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS,
                          check=False)
    return done.returncode, done.stdout.decode('utf-8', 'replace')


def qemu(machine, irqchip, *more):
    cpu = 'host,host-phys-bits-limit=40'  # OVMF makes page tables for the whole physical width
    return softkvm(
        QEMU, '-accel', f'kvm,kernel-irqchip={irqchip}', '-machine', machine, '-cpu', cpu,
        '-m', '256', '-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio',
        '-no-reboot', '-net', 'none', '-kernel', artefacts.vmlinuz('cloud'),
        '-initrd', artefacts.ready_initrd(), '-append', 'console=ttyS0 quiet panic=-1', *more)


@pytest.mark.parametrize('irqchip', ['on', 'split'])
@pytest.mark.parametrize('machine', ['q35', 'microvm'])
def test_qemu_with_seabios(machine, irqchip):
    code, text = qemu(machine, irqchip)
    assert 'READY' in text, text[-2000:]
    assert code == 0, text[-2000:]


@pytest.mark.parametrize('irqchip', ['on', 'split'])
def test_qemu_with_ovmf(tmp_path, irqchip):
    variables = tmp_path / 'vars.fd'
    shutil.copy(OVMF / 'OVMF_VARS_4M.fd', variables)
    code, text = qemu('q35,smm=off', irqchip,
                      '-drive', f'if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd',
                      '-drive', f'if=pflash,format=raw,file={variables}')
    assert 'READY' in text, text[-2000:]
    assert code == 0, text[-2000:]


def test_static_programs_are_refused():
    code, text = softkvm(shutil.which('busybox'), 'true')
    assert code == 126
    assert 'statically linked' in text
