# SPDX-License-Identifier: LGPL-2.1-or-later
"""The jail of the VM process (docs/sandbox.md), seen from outside while a guest runs."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

import artefacts
import syscalltrace
import vmtest

pytestmark = [pytest.mark.kvm, pytest.mark.above_engine]

ROOT = os.geteuid() == 0
WALLS = ROOT and subprocess.run(['unshare', '-m', '-n', '-i', '-u', 'true'], check=False,
                                stderr=subprocess.DEVNULL).returncode == 0
# What a VM process may have open: kinds of descriptors, and the files that its options name.
ANONYMOUS = re.compile(r'(pipe|socket|anon_inode):|/memfd:|/dev/(null|kvm|pts/|ptmx|net/tun)')
DRIVERS = 'need virtio_pci virtio_blk virtio_net vmw_vsock_virtio_transport'


def text(pid, name):
    return pathlib.Path(f'/proc/{pid}/{name}').read_text(errors='replace')


def fields(pid):
    return dict(line.split(':\t', 1) for line in text(pid, 'status').splitlines())


def code_maps(pid):
    """The mappings that are executable, as (permissions, what)."""
    return [(f[1], f[5] if len(f) > 5 else '') for f in
            (line.split(None, 5) for line in text(pid, 'maps').splitlines()) if 'x' in f[1]]


def walk_through_the_walls(pid, files):
    for task in os.listdir(f'/proc/{pid}/task'):
        status = fields(f'{pid}/task/{task}')
        caps = [status[c] for c in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')]
        if ROOT:
            assert [int(c, 16) for c in caps] == [0] * 5, (status['Name'], caps)
        assert status['NoNewPrivs'] == '1' and status['Seccomp'] == '2', status['Name']
    for fd in os.listdir(f'/proc/{pid}/fd'):
        where = os.readlink(f'/proc/{pid}/fd/{fd}')
        assert ANONYMOUS.match(where) or where in files, f'descriptor {fd} is {where}'
    assert text(pid, 'environ').strip('\0') == ''
    assert re.search(r'^Max core file size +0 +0 ', text(pid, 'limits'), re.M)


def test_walls(posada, monkeypatch):
    """Everything open that a VM can have, under the JIT; the parent leaves a descriptor behind."""
    monkeypatch.setenv('SOFTKVM_JIT', 't1')
    monkeypatch.setenv('POSADA_SECRET', 'in the environment')
    raw, qcow2 = posada.dir / 'raw.img', posada.dir / 'q.qcow2'
    raw.write_bytes(bytes(1 << 20))
    subprocess.run([vmtest.PROGRAM, 'image', 'create', qcow2, '16M'], check=True,
                   stdout=subprocess.DEVNULL)
    stray = os.open('/etc/passwd', os.O_RDONLY)
    os.set_inheritable(stray, True)
    kernel, initrd = artefacts.vmlinuz('cloud'), artefacts.test_initrd()
    vm = vmtest.Process(['sh', '-c', 'exec 9</etc/passwd; exec "$@"', 'sh', vmtest.PROGRAM, 'run',
                         '--kernel', kernel, '--initrd', initrd, '--memory', '256M', '--engine',
                         'soft', '--cpus', '2', '--disk', raw, '--disk', qcow2, '--net', 'user',
                         '--append', f'{vmtest.APPEND} ' + vmtest.main_argument(
                             f'{DRIVERS}; dd if=/dev/zero of=/dev/vdb bs=64k count=4 conv=fsync; '
                             'echo READY; read x; poweroff -f; sleep 30')])
    os.close(stray)
    posada.processes.append(vm)
    seen, ready = set(), False
    while not ready:  # all through the boot: no page that is code and writable
        assert vm.child.poll() is None, vm.output
        for mode, what in code_maps(vm.pid):
            assert 'w' not in mode, (mode, what)
            seen.add(what)
        ready = 'READY' in vm.output
        time.sleep(0.05)
    assert any('softkvm-jit' in what for what in seen)
    walk_through_the_walls(vm.pid, [str(f) for f in (kernel, initrd, raw, qcow2)])
    if WALLS:
        assert fields(vm.pid)['Uid'].split() == [str(0x70000000 + vm.pid)] * 4
        assert fields(vm.pid)['Groups'].strip() == ''
        assert os.listdir(f'/proc/{vm.pid}/root') == []
        assert len(text(vm.pid, 'mountinfo').splitlines()) == 1
        for space in ('mnt', 'net', 'ipc', 'uts'):
            assert os.readlink(f'/proc/{vm.pid}/ns/{space}') != os.readlink(f'/proc/self/ns/{space}')
    vm.send('\n')
    assert vm.wait() == 0


def act(posada, *options):
    return posada.run('--kernel', artefacts.act_guest('pvh'), '--append', 'hello h', '--memory',
                      '128M', *options)


def test_vsock_keeps_one_folder(posada):
    folder = posada.dir / 'sockets'
    folder.mkdir()
    vm = act(posada, '--vsock', '7', '--vsock-path', folder / 'v')
    vm.expect('hello h', 20)
    if WALLS:
        assert os.listdir(f'/proc/{vm.pid}/root') == ['v']
        assert 'ro,' in text(vm.pid, 'mountinfo').split()[5]
    walk_through_the_walls(vm.pid, [str(artefacts.act_guest('pvh'))])


def test_stop_and_continue(posada):
    """A shell's Ctrl-Z and fg: the kernel then makes calls that nobody wrote."""
    vm = act(posada)
    vm.expect('hello h', 20)
    for _ in range(3):
        os.kill(vm.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(vm.pid, signal.SIGCONT)
        time.sleep(0.1)
    assert vm.ctl_json('status')['state'] == 'running'


@pytest.mark.skipif(not ROOT, reason='takes rights of root away')
def test_a_host_that_refuses(posada):
    """A container without the rights: the VM runs, and says what is missing."""
    vm = posada.start('setpriv', '--bounding-set', '-sys_admin,-setuid,-setgid', '--inh-caps', '-all',
                      vmtest.PROGRAM, 'run', '--kernel', artefacts.act_guest('pvh'), '--append',
                      'hello h', '--memory', '128M')
    vm.expect('missing=.*network namespace.*empty root.*user of its own', 20)
    vm.expect('hello h', 20)
    walk_through_the_walls(vm.pid, [str(artefacts.act_guest('pvh'))])


def test_no_jail_warns(posada):
    vm = act(posada, '--no-jail')
    vm.expect('warn jail: off', 20)
    vm.expect('hello h', 20)
    assert fields(vm.pid)['Seccomp'] == '0'


def can_trace():
    return shutil.which('strace') is not None and \
        subprocess.run(['strace', '-qq', '-o', '/dev/null', 'true'], check=False,
                       stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(not can_trace(), reason='needs strace, and the right to trace')
def test_calls_are_within_the_filters(posada, monkeypatch):
    """A short life of a VM under strace. The whole suite this way: see tests/e2e/traced."""
    traces = posada.dir / 'traces'
    traces.mkdir()
    monkeypatch.setenv('POSADA_TRACE', str(traces))
    monkeypatch.setattr(vmtest, 'PROGRAM', str(pathlib.Path(__file__).with_name('traced')))
    raw = posada.dir / 'raw.img'
    raw.write_bytes(bytes(1 << 20))
    vm = act(posada, '--disk', raw, '--net', 'user', '--vsock', '7', '--vsock-path',
             posada.dir / 'v', '--balloon')
    vm.expect('hello h', 60)
    for word in ('pause', 'resume', 'reset', 'quit'):
        vm.ctl(word)
    vm.wait()
    _, bad, vms = syscalltrace.judge(traces)
    assert vms == 1
    assert bad == []
