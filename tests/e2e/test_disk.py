# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks: virtio-blk on raw and qcow2 files, and a whole Debian on one."""
import hashlib
import re
import shutil
import socket
import subprocess
import time

import pytest

import artefacts

pytestmark = pytest.mark.kvm

MIB = 1 << 20
NEED = 'need virtio_pci virtio_blk'
POWEROFF = 'sync; echo SYNCED; poweroff -f; sleep 30'
LOGIN_SECONDS = 200      # measured in an idle lab: 40 s
# Without its terminal's device within 90 s systemd offers no login there, and says so only once.
SLOW_DEVICES = 'systemd.default_device_timeout_sec=900'


def tool(*argv):
    done = subprocess.run([str(a) for a in argv], check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f'{argv}: {done.stdout}'
    return done.stdout


def pattern(size, seed=b'posada'):
    """size reproducible bytes that do not compress."""
    out = bytearray()
    while len(out) < size:
        seed = hashlib.sha512(seed).digest()
        out += seed * 64
    return bytes(out[:size])


def read_all(image, fmt):
    """The content of an image as qemu-img reads it."""
    raw = f'{image}.content'
    tool('qemu-img', 'convert', '-f', fmt, '-O', 'raw', image, raw)
    with open(raw, 'rb') as f:
        return f.read()


@pytest.fixture
def run_on(posada):
    """run_on(script, image options): runs script in a guest with that disk, expects exit code 0."""
    def run(script, *disks, expect='SYNCED'):
        options = [o for d in disks for o in ('--disk', d)]
        vm = posada.boot(f'{NEED}; {script}; {POWEROFF}', *options)
        vm.expect(expect)
        assert vm.wait(30) == 0
        return vm.output
    return run


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_guest_writes_are_in_the_image(posada, run_on, fmt):
    image = posada.dir / f'disk.{fmt}'
    tool('qemu-img', 'create', '-q', '-f', fmt, image, '64M')
    data = posada.dir / 'data.raw'
    content = pattern(4 * MIB)
    data.write_bytes(content)
    run_on('dd if=/dev/vdb of=/dev/vda bs=1M seek=17 conv=fsync; '
           'dd if=/dev/vdb of=/dev/vda bs=4k seek=3 count=1 conv=fsync', f'{image},format={fmt}',
           f'{data},format=raw,readonly')
    got = read_all(image, fmt)
    assert got[17 * MIB:21 * MIB] == content
    assert got[3 * 4096:4 * 4096] == content[:4096]
    assert not any(got[4 * 4096:17 * MIB])
    if fmt == 'qcow2':
        tool('qemu-img', 'check', '-q', image)


@pytest.mark.above_engine
@pytest.mark.parametrize('made_by', ['plain', 'zlib', 'zstd'])
def test_guest_reads_qcow2(posada, run_on, made_by):
    raw, image = posada.dir / 'in.raw', posada.dir / 'disk.qcow2'
    content = pattern(3 * MIB) + bytes(5 * MIB)
    raw.write_bytes(content)
    how = {'plain': [], 'zlib': ['-c'], 'zstd': ['-c', '-o', 'compression_type=zstd']}[made_by]
    tool('qemu-img', 'convert', '-O', 'qcow2', *how, raw, image)
    out = run_on('sha256sum /dev/vda', f'{image},readonly')
    assert hashlib.sha256(content).hexdigest() in out


@pytest.mark.above_engine
def test_backing_chain(posada, run_on):
    base, top = posada.dir / 'base.qcow2', posada.dir / 'top.qcow2'
    raw = posada.dir / 'in.raw'
    content = bytearray(pattern(8 * MIB))
    raw.write_bytes(content)
    tool('qemu-img', 'convert', '-O', 'qcow2', raw, base)
    before = base.read_bytes()
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base.qcow2', top)
    run_on('dd if=/dev/zero of=/dev/vda bs=4k seek=100 count=10 conv=fsync', top)
    content[100 * 4096:110 * 4096] = bytes(10 * 4096)
    assert read_all(top, 'qcow2') == bytes(content)
    assert base.read_bytes() == before
    tool('qemu-img', 'check', '-q', top)


@pytest.mark.above_engine
def test_readonly_and_serial(posada, run_on):
    image = posada.dir / 'disk.raw'
    image.write_bytes(pattern(MIB))
    before = image.read_bytes()
    out = run_on('echo "SERIAL=$(cat /sys/block/vda/serial) RO=$(cat /sys/block/vda/ro)"; '
                 'dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync && echo WRITTEN',
                 f'{image},readonly,serial=disk-42')
    assert 'SERIAL=disk-42 RO=1' in out
    assert 'WRITTEN' not in out
    assert image.read_bytes() == before


@pytest.mark.above_engine
def test_discard_frees_space(posada, run_on):
    image = posada.dir / 'disk.raw'
    image.write_bytes(pattern(16 * MIB))
    full = image.stat().st_blocks
    run_on('blkdiscard -o 4194304 -l 8388608 /dev/vda || echo FAILED', image)
    assert image.stat().st_blocks <= full - 8 * MIB // 512
    got = image.read_bytes()
    assert not any(got[4 * MIB:12 * MIB])
    assert got[12 * MIB:] == pattern(16 * MIB)[12 * MIB:]


@pytest.mark.above_engine
def test_an_image_is_opened_once(posada):
    image = posada.dir / 'disk.raw'
    image.write_bytes(bytes(MIB))
    first = posada.boot('echo READY; sleep 300', '--disk', image)
    first.expect('READY')
    second = posada.boot('echo READY; sleep 300', '--disk', image)
    assert second.wait(30) == 1
    assert str(image) in second.output


@pytest.mark.seconds(150)
def test_full_host_disk_pauses_the_guest(posada):
    """A write that the host has no room for stops the VM; with room again nothing is lost."""
    small = posada.dir / 'small'
    small.mkdir()
    tool('mount', '-t', 'tmpfs', '-o', 'size=8m', 'small', small)
    try:
        image = small / 'disk.raw'
        with open(image, 'wb') as f:
            f.truncate(32 * MIB)
        data = posada.dir / 'data.raw'
        content = pattern(24 * MIB)
        data.write_bytes(content)
        vm = posada.boot(f'{NEED}; echo WRITING; dd if=/dev/vdb of=/dev/vda bs=1M conv=fsync '
                         f'&& echo WRITTEN; {POWEROFF}', '--disk', image, '--disk',
                         f'{data},readonly')
        vm.expect('WRITING')
        for _ in range(60):
            status = vm.ctl('status')[1]
            if 'paused' in status:
                break
            time.sleep(1)
        assert 'paused' in status and re.search('space|ENOSPC|full', status), status
        tool('mount', '-o', 'remount,size=64m', small)
        vm.ctl('resume')
        vm.expect('WRITTEN')
        assert vm.wait(40) == 0
        assert image.read_bytes()[:len(content)] == content
    finally:
        for process in posada.processes:
            process.stop()
        tool('umount', small)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def greet(port):
    """Sends a line to a host port forwarded into the guest; its answer."""
    with socket.create_connection(('127.0.0.1', port), timeout=20) as s:
        s.sendall(b'are you there\n')
        s.shutdown(socket.SHUT_WR)
        s.settimeout(20)
        data = b''
        while more := s.recv(4096):
            data += more
        return data


@pytest.mark.seconds(420)
@pytest.mark.parametrize('cpus', [1])
def test_debian(posada, report, cpus):
    """A Debian root disk: systemd to a login prompt, network both ways, the power button, fsck."""
    disk, port = posada.dir / 'debian.raw', free_port()
    tool('cp', '--sparse=always', artefacts.debian_disk(), disk)
    vm = posada.run('--kernel', artefacts.vmlinuz('cloud'), '--initrd', artefacts.disk_initrd(),
                    '--append', f'console=ttyS0 root=/dev/vda {SLOW_DEVICES}', '--memory', '512M',
                    '--cpus', cpus, '--disk', disk, '--net', f'user,hostfwd=tcp:127.0.0.1:{port}-:7777')
    vm.expect('guest login:', LOGIN_SECONDS)
    report('debian login prompt', seconds=round(time.monotonic() - vm.began, 1))
    vm.send('root\n')
    vm.expect('root@guest', 60)
    vm.send('echo S""TATE=$(systemctl is-system-running --wait); systemctl --failed\n')
    vm.expect('STATE=running', 120)
    vm.send('echo A""DDR=$(ip -4 -o addr show scope global)\n')
    vm.expect(r'ADDR=.*10\.0\.2\.15', 30)
    vm.send('echo here is debian | nc -N -l -p 7777; echo N""C=$?\n')
    deadline = time.monotonic() + 60
    answer = b''
    while b'here is debian' not in answer and time.monotonic() < deadline:
        try:
            answer = greet(port)
        except OSError:
            time.sleep(1)
    assert b'here is debian' in answer
    vm.expect('are you there', 20)
    vm.ctl('powerdown')
    assert vm.wait(90) == 0
    tool('e2fsck', '-f', '-n', disk)
