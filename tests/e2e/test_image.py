# SPDX-License-Identifier: LGPL-2.1-or-later
"""posada image: the command line around the block layer, against qemu-img where it can judge."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

import vmtest

MIB = 1 << 20

pytestmark = pytest.mark.skipif(shutil.which('qemu-img') is None, reason='needs qemu-img')


def image(*args, code=0, cwd=None, env=None):
    """Runs `posada image ARGS`; the exit code must be `code`. Returns (stdout, stderr)."""
    p = subprocess.run([vmtest.PROGRAM, 'image', *map(str, args)], capture_output=True, text=True,
                       timeout=60, cwd=cwd, env=env)
    assert p.returncode == code, (args, p.returncode, p.stdout, p.stderr)
    return p.stdout, p.stderr


def qemu_img(*args):
    return subprocess.run(['qemu-img', *map(str, args)], capture_output=True, text=True,
                          timeout=60, check=True).stdout


def partials(path):
    return [n for n in os.listdir(path) if '.posada-partial-' in n]


@pytest.fixture
def sparse(tmp_path):
    """A 64 MiB raw image: data here and there, zeroes that are written, holes."""
    rng = random.Random(5)
    path = tmp_path / 'source.raw'
    with open(path, 'wb') as f:
        f.truncate(64 * MIB)
        for at in (0, 5 * MIB + 512, 17 * MIB, 64 * MIB - 4096):
            f.seek(at)
            f.write(rng.randbytes(4096 + (at % 7) * 512 if at < 60 * MIB else 4096))
        f.seek(30 * MIB)
        f.write(bytes(8 * MIB))
    return path


def test_create_raw(tmp_path):
    path = tmp_path / 'a.img'
    image('create', path, '100M')
    assert path.stat().st_size == 100 * MIB
    assert path.stat().st_blocks == 0
    _, err = image('create', path, '1G', code=4)
    assert str(path) in err and '--force' in err
    assert path.stat().st_size == 100 * MIB
    image('create', path, '1G', '--force')
    assert path.stat().st_size == 1024 * MIB
    assert partials(tmp_path) == []


def test_info(tmp_path):
    path = tmp_path / 'a.img'
    image('create', path, '3G')
    out, _ = image('info', path)
    assert 'virtual size: 3 GiB (3221225472 bytes)' in out
    out, _ = image('info', '--json', path)
    facts = json.loads(out)
    assert facts['format'] == 'raw'
    assert facts['virtual_size'] == 3 << 30
    assert facts['path'] == str(path)


@pytest.mark.parametrize('args,code,text', [
    ([], 2, 'Usage'),
    (['paint'], 2, "'paint'"),
    (['create'], 2, 'FILE [SIZE]'),
    (['create', 'x.img'], 2, 'SIZE is missing'),
    (['create', 'x.img', 'huge'], 2, "'huge'"),
    (['create', 'x.img', '0'], 2, "'0'"),
    (['create', 'x.img', '1G', '2G'], 2, "'2G'"),
    (['create', '--colour', 'red', 'x.img', '1G'], 2, 'colour'),
    (['create', '--format', 'qed', 'x.img', '1G'], 1, "'qed'"),
    (['create', 'x.img', '1000'], 1, '1000'),
    (['create', '-o', 'shape=round', 'x.img', '1G'], 1, 'shape=round'),
    (['create', 'no/such/dir/x.img', '1G'], 3, 'no/such/dir/x.img'),
    (['create', '.', '1G'], 1, 'directory'),
    (['info', 'missing.img'], 3, 'missing.img'),
    (['info', '.'], 1, 'is a directory'),
    (['info', '/dev/null'], 1, 'character device'),
    (['info', 'fifo'], 1, 'named pipe'),
    (['info', 'empty.img'], 1, 'empty'),
    (['info', ''], 1, 'empty'),
    (['check', 'disk.img'], 1, 'nothing to check'),
    (['check', '--repair', 'some', 'disk.img'], 2, 'some'),
    (['resize', 'disk.img'], 2, 'missing'),
    (['resize', 'disk.img', 'x'], 2, "'x'"),
    (['resize', 'disk.img', '1M'], 1, '--shrink'),
    (['resize', 'disk.img', '-4M'], 1, '4194304'),
    (['resize', 'disk.img', '+16E'], 2, "'+16E'"),
    (['convert', 'disk.img'], 2, 'missing'),
    (['convert', 'missing.img', 'x.img'], 3, 'missing.img'),
    (['convert', 'disk.img', 'disk.img'], 4, 'exists'),
    (['convert', '--force', 'disk.img', 'disk.img'], 4, 'in use'),
    (['convert', 'disk.img', 'no/x.img'], 3, 'no/x.img'),
    (['convert', '--snapshot', 's', 'disk.img', 'x.img'], 1, 'snapshot'),
])
def test_bad_input(tmp_path, args, code, text):
    os.mkfifo(tmp_path / 'fifo')
    (tmp_path / 'empty.img').touch()
    with open(tmp_path / 'disk.img', 'wb') as f:
        f.truncate(4 * MIB)
    before = sorted(os.listdir(tmp_path))
    out, err = image(*args, code=code, cwd=tmp_path)
    assert text in err, err
    assert out == ''
    assert sorted(os.listdir(tmp_path)) == before


def test_a_raw_file_with_a_header_is_not_followed(tmp_path):
    path = tmp_path / 'evil.img'
    qemu_img('create', '-q', '-f', 'qcow2', path, '10M')
    _, err = image('resize', path, '20M', code=1)
    assert 'looks like qcow2' in err
    assert json.loads(image('info', '--json', path)[0])['format'] == 'qcow2'   # which only looks
    out, _ = image('info', '--json', '--format', 'raw', path)
    assert json.loads(out)['file_size'] == path.stat().st_size


def test_resize(tmp_path):
    path = tmp_path / 'a.img'
    image('create', path, '4M')
    image('resize', path, '8M')
    assert path.stat().st_size == 8 * MIB
    image('resize', path, '+1M')
    assert path.stat().st_size == 9 * MIB
    image('resize', path, '--shrink', '-5M')
    assert path.stat().st_size == 4 * MIB


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_convert_there_and_back(tmp_path, sparse, fmt):
    there, back = tmp_path / f'there.{fmt}', tmp_path / 'back.raw'
    image('convert', sparse, there)
    if fmt == 'qcow2':
        qemu_img('check', there)
    image('convert', there, back)
    assert back.read_bytes() == sparse.read_bytes()
    qemu_img('compare', sparse, there)
    # The holes are kept and the written zeroes have become some.
    assert back.stat().st_blocks * 512 < MIB
    assert there.stat().st_blocks * 512 < 4 * MIB
    assert partials(tmp_path) == []


def test_convert_keeps_memory_bounded(tmp_path):
    path = tmp_path / 'big.raw'
    with open(path, 'wb') as f:
        f.truncate(1 << 40)
        f.seek(700 << 30)
        f.write(b'x' * 65536)
    p = subprocess.run(['/usr/bin/python3', '-c', '''
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
''', vmtest.PROGRAM, 'image', 'convert', path, tmp_path / 'out.raw'],
                       capture_output=True, text=True, check=True, timeout=60)
    assert int(p.stdout) < 32 * 1024  # KiB
    assert (tmp_path / 'out.raw').stat().st_size == 1 << 40


@pytest.fixture
def small_fs(tmp_path):
    mnt = tmp_path / 'small'
    mnt.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mnt],
                      capture_output=True).returncode != 0:
        pytest.skip('mounting a tmpfs is not permitted here')
    yield mnt
    subprocess.run(['umount', mnt], check=True)


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_convert_to_a_full_disk_leaves_nothing(tmp_path, small_fs, fmt):
    source = tmp_path / 'source.raw'
    source.write_bytes(random.Random(1).randbytes(8 * MIB))
    _, err = image('convert', source, small_fs / f'x.{fmt}', code=1)
    assert 'No space left' in err and 'x.' + fmt in err
    assert os.listdir(small_fs) == []


def big_copy(tmp_path):
    """A conversion that takes a while. Returns (process, target)."""
    source, target = tmp_path / 'source.raw', tmp_path / 'target.raw'
    if not source.exists():
        with open(source, 'wb') as f:
            for i in range(64):
                f.write(os.urandom(MIB) * 8)
    p = subprocess.Popen([vmtest.PROGRAM, 'image', 'convert', source, target],
                         stderr=subprocess.PIPE, text=True)
    for _ in range(2000):
        if partials(tmp_path):
            return p, target
        time.sleep(0.001)
    raise AssertionError('the temporary file did not appear')


def test_convert_interrupted_removes_its_file(tmp_path):
    p, target = big_copy(tmp_path)
    p.send_signal(signal.SIGTERM)
    _, err = p.communicate(timeout=30)
    assert p.returncode == 1 and 'interrupted' in err
    assert not target.exists()
    assert partials(tmp_path) == []


def test_convert_killed_leaves_only_the_temporary_file(tmp_path):
    p, target = big_copy(tmp_path)
    p.kill()
    p.communicate(timeout=30)
    assert not target.exists()
    left = partials(tmp_path)
    assert left == [f'target.raw.posada-partial-{p.pid}']
    # The next run is not disturbed.
    image('convert', '--quiet', tmp_path / 'source.raw', target)
    assert target.stat().st_size == (tmp_path / 'source.raw').stat().st_size


def test_in_use_by_qemu(tmp_path):
    """Locks work between us and QEMU's tools, both ways."""
    path = tmp_path / 'disk.img'
    image('create', path, '4M')
    p = subprocess.Popen(['qemu-io', '-f', 'raw', path], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    try:
        p.stdin.write('write 0 512\n')
        p.stdin.flush()
        assert 'wrote' in p.stdout.readline()
        _, err = image('resize', path, '8M', code=4)
        assert f'process {p.pid} (qemu-io)' in err
        image('info', path, code=4)
    finally:
        p.communicate('quit\n', timeout=30)
    image('resize', path, '8M')


def test_backing_rules(tmp_path):
    """A backing file outside of the image's folder is refused unless it is named (S13)."""
    vm, other = tmp_path / 'vm', tmp_path / 'other'
    vm.mkdir()
    other.mkdir()
    base, top = other / 'base.raw', vm / 'top.qcow2'
    base.write_bytes(random.Random(2).randbytes(MIB))
    image('create', '--backing', base, '--backing-format', 'raw', top)
    qemu_img('check', top)
    _, err = image('convert', top, tmp_path / 'out.raw', code=5)
    assert 'base.raw' in err and 'outside' in err
    image('convert', '--backing-allow', base, top, tmp_path / 'out.raw')
    assert (tmp_path / 'out.raw').read_bytes() == base.read_bytes()
    qemu_img('rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', 'nbd:localhost:1', top)
    _, err = image('convert', '--backing-allow', base, top, tmp_path / 'out2.raw', code=5)
    assert 'protocol' in err


def test_create_needs_a_sound_backing_file(tmp_path):
    base = tmp_path / 'base.raw'
    base.write_bytes(bytes(MIB))
    top = tmp_path / 'top.qcow2'
    image('create', '--backing', 'base.raw', top, code=1)
    image('create', '--backing', 'none.raw', '--backing-format', 'raw', top, code=3)
    assert not top.exists()
    image('create', '--backing', 'base.raw', '--backing-format', 'raw', top)
    out, _ = image('info', '--json', top)
    assert json.loads(out)['virtual_size'] == MIB


@pytest.mark.parametrize('words,expected', [
    (['posada', 'image', 'c'], {'create', 'check', 'convert'}),
    (['posada', 'image', 'resize', '--s'], {'--shrink'}),
    (['posada', 'image', 'info', 'dis'], {'disk.img'}),
])
def test_completion(tmp_path, words, expected):
    (tmp_path / 'disk.img').touch()
    script = (f'source <({vmtest.PROGRAM} completion bash); COMP_WORDS=({" ".join(words)}); '
              f'COMP_CWORD={len(words) - 1}; _posada; echo ${{COMPREPLY[@]}}')
    p = subprocess.run(['bash', '-c', script], capture_output=True, text=True, check=True,
                       cwd=tmp_path, timeout=30)
    assert set(p.stdout.split()) == expected, p
