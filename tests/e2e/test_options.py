# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad input: each refused with the right exit code and a text that names what is wrong.

The options are checked before an engine is opened, so most of these need no KVM.
"""
import os
import subprocess

import pytest

import artefacts
import vmtest

EXIT_FAILED, EXIT_USAGE = 1, 2


def run(*options, env=None, seconds=20):
    return subprocess.run([vmtest.PROGRAM, 'run', *map(str, options)], check=False, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=seconds,
                          stderr=subprocess.PIPE, env={**os.environ, **(env or {})})


def refused(done, code, *words):
    assert done.returncode == code, done.stderr
    assert done.stdout == ''
    for word in words:
        assert str(word) in done.stderr, done.stderr


@pytest.mark.parametrize('option,value,words', [
    ('--memory', '0', ['0', '1M']),
    ('--memory', 'lots', ['lots']),
    ('--memory', '9E', ['9E', '4T']),
    ('--memory', '-1', ['-1']),
    ('--cpus', '0', ['0', '1']),
    ('--cpus', '65', ['65', '64']),
    ('--cpus', 'two', ['two']),
    ('--engine', 'qemu', ['qemu', 'auto', 'kvm', 'soft']),
    ('--disk', '', ['--disk']),
    ('--disk', 'x.raw,format=vmdk2', ['vmdk2']),
    ('--disk', 'x.raw,cache=never', ['never', 'writeback', 'none', 'unsafe']),
    ('--disk', 'x.raw,color=red', ['color']),
    ('--net', 'bridge', ['bridge']),
    ('--net', 'user,mac=zz', ['zz']),
    ('--vsock', '1', ['1']),
    ('--control', 'tcp:1', ['tcp']),
    ('--timeout', '0', ['0']),
    ('--timeout', 'soon', ['soon']),
    ('--no-such-option', 'x', ['no-such-option']),
])
def test_bad_value(option, value, words, tmp_path):
    """Exit code 2; the text names the option, the value, and what is allowed."""
    kernel = tmp_path / 'kernel'
    kernel.write_bytes(bytes(4096))
    refused(run('--kernel', kernel, option, value), EXIT_USAGE, option.lstrip('-'), *words)


def test_no_kernel():
    refused(run('--memory', '64M'), EXIT_USAGE, 'kernel')


def test_a_word_that_is_no_option():
    refused(run('vmlinuz'), EXIT_FAILED, 'vmlinuz', 'not an image', '--kernel')


@pytest.mark.parametrize('text,word', [
    ('kernel: [a, b]\n', 'kernel'),
    ('kernel: x\nmemory: lots\n', 'lots'),
    ('kernel: x\ncolour: red\n', 'colour'),
    ('kernel: "x\n', 'yaml'),
    ('', 'kernel'),
])
def test_bad_yaml(text, word, tmp_path):
    path = tmp_path / 'vm.yaml'
    path.write_text(text)
    done = run('-f', path)
    assert done.returncode in (EXIT_FAILED, EXIT_USAGE)
    assert word in done.stderr


def test_missing_yaml(tmp_path):
    done = run('-f', tmp_path / 'none.yaml')
    assert done.returncode in (EXIT_FAILED, EXIT_USAGE)
    assert 'none.yaml' in done.stderr


def test_kvm_absent():
    """Without /dev/kvm, --engine kvm says so and what to do."""
    if os.path.exists('/dev/kvm'):
        pytest.skip('this machine has /dev/kvm')
    done = run('--kernel', artefacts.act_guest('multiboot'), '--engine', 'kvm')
    assert done.returncode != 0
    assert '/dev/kvm' in done.stderr


@pytest.mark.kvm
@pytest.mark.hardware
def test_kvm_forbidden():
    """Without the right to /dev/kvm: the error names the file and the group or the mode."""
    mode = os.stat('/dev/kvm').st_mode & 0o777
    os.chmod('/dev/kvm', 0o600)
    try:
        done = subprocess.run(['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups',
                               vmtest.PROGRAM, 'run', '--kernel',
                               str(artefacts.act_guest('multiboot')), '--engine', 'kvm'],
                              check=False, text=True, stdin=subprocess.DEVNULL, timeout=20,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        os.chmod('/dev/kvm', mode)
    assert done.returncode != 0
    assert '/dev/kvm' in done.stderr and 'may not be opened' in done.stderr


def bad_files(tmp):
    """(options, words of the error) of files that cannot do what they are given for."""
    real = artefacts.vmlinuz('cloud').read_bytes()
    good = artefacts.act_guest('multiboot')
    for name, data in (('empty', b''), ('cut', real[:100000]), ('header', real[:600]),
                       ('text', b'hello\n' * 1000), ('zero', bytes(1 << 20))):
        (tmp / name).write_bytes(data)
        yield ['--kernel', tmp / name], [name]
    yield ['--kernel', tmp / 'missing'], ['missing', 'o such file']
    yield ['--kernel', tmp], [tmp]
    with open(tmp / 'big', 'wb') as f:
        f.truncate(100 << 20)
    yield ['--kernel', artefacts.vmlinuz('cloud'), '--initrd', tmp / 'big', '--memory', '64M'], \
        ['big']
    yield ['--kernel', good, '--initrd', tmp / 'nothing'], ['nothing', 'o such file']
    yield ['--kernel', good, '--disk', tmp], [tmp]
    yield ['--kernel', good, '--disk', tmp / 'no.raw'], ['no.raw', 'o such file']
    (tmp / 'bad.qcow2').write_bytes(b'not a qcow2 image' * 100)
    yield ['--kernel', good, '--disk', tmp / 'bad.qcow2'], ['bad.qcow2']
    yield ['--kernel', good, '--net', 'user,hostfwd=tcp:nowhere'], ['nowhere']
    yield ['--kernel', good, '--console', 'telnet:1'], ['telnet']
    yield ['--kernel', good, '--cpu', '8086'], ['8086']
    yield ['--kernel', good, '--net', 'tap=no-such-tap0'], ['no-such-tap0']
    yield ['--kernel', good, '--control', f'unix:{tmp}/no/dir'], [f'{tmp}/no/dir']
    yield ['--kernel', good, '--console', f'file:{tmp}/no/dir'], [f'{tmp}/no/dir']


@pytest.mark.above_engine
@pytest.mark.kvm
def test_bad_files(tmp_path):
    """Kernels, initrds, disks and paths that cannot serve: exit code 1, the file named."""
    for options, words in bad_files(tmp_path):
        done = run(*options, '--timeout', '10')
        assert done.returncode in (EXIT_FAILED, EXIT_USAGE), (options, done.returncode, done.stderr)
        for word in words:
            assert str(word) in done.stderr, (options, done.stderr)
        assert len(done.stderr.splitlines()) <= 3, done.stderr
