# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMDK, VDI, VHD, VHDX: random contents by us and by qemu-img, each read by the other."""
import json
import os
import random
import resource
import shutil
import subprocess

import pytest

import qcow2test
import vmtest

MIB = 1 << 20
SEED = int(os.environ.get('FORMATS_SEED', '1'))
ROUNDS = int(os.environ.get('FORMATS_ROUNDS', '2'))

pytestmark = pytest.mark.skipif(shutil.which('qemu-img') is None, reason='needs qemu-img')

# Our format and options; QEMU's name and options, the size kept exactly.
BOTH = [
    ('vdi', {}, 'vdi', {}),
    ('vhd', {}, 'vpc', {'force_size': 'on'}),
    ('vhd', {'subformat': 'fixed'}, 'vpc', {'force_size': 'on', 'subformat': 'fixed'}),
    ('vmdk', {}, 'vmdk', {}),
    ('vmdk', {'subformat': 'streamOptimized'}, 'vmdk', {'subformat': 'streamOptimized'}),
]
# Read only.
THEIRS = [
    ('vdi', 'vdi', {'static': 'on'}),
    ('vmdk', 'vmdk', {'subformat': 'monolithicFlat'}),
    ('vmdk', 'vmdk', {'subformat': 'twoGbMaxExtentSparse'}),
    ('vmdk', 'vmdk', {'subformat': 'twoGbMaxExtentFlat'}),
    ('vhdx', 'vhdx', {}),
    ('vhdx', 'vhdx', {'subformat': 'fixed', 'block_size': '1M'}),
]


def image(*args, code=0):
    p = subprocess.run([vmtest.PROGRAM, 'image', *map(str, args)], capture_output=True, text=True,
                       timeout=60, check=False)
    assert p.returncode == code, (args, p.returncode, p.stdout, p.stderr)
    return p.stdout, p.stderr


def ids(row):
    return '-'.join([row[0], *row[-1].values()])


def pairs(options):
    return [word for k, v in options.items() for word in ('-o', f'{k}={v}')]


def source(path, rng, size):
    """A raw file of `size` bytes: runs of noise, of one byte and of zeroes, and holes."""
    with open(path, 'wb') as f:
        f.truncate(size)
        for _ in range(rng.randint(1, 25)):
            f.seek(rng.randrange(size // 512) * 512)
            data = qcow2test.noise(rng, rng.choice((512, 5120, 70144, 1 << 20)))
            f.write(data[:size - f.tell()])
    return path


@pytest.fixture
def folder():
    with qcow2test.folder() as path:
        yield path


def sizes(rng):
    return rng.choice((1, rng.randint(2, 5000), rng.randint(5000, 180000))) * 512


@pytest.mark.parametrize('row', BOTH, ids=ids)
def test_both_ways(folder, row):
    fmt, ours, qfmt, theirs = row
    for n in range(ROUNDS):
        rng = random.Random(f'{SEED}.{n}.{row}')
        raw = source(folder / 'a.raw', rng, sizes(rng))
        name = folder / f'a.{fmt}'
        image('convert', '-q', '--force', raw, name, *pairs(ours))
        qcow2test.run('qemu-img', 'compare', '-f', 'raw', '-F', qfmt, raw, name)
        if qfmt != 'vpc':
            qcow2test.run('qemu-img', 'check', '-f', qfmt, name)
        assert json.loads(image('info', '--json', name)[0])['virtual_size'] == raw.stat().st_size
        qcow2test.run('qemu-img', 'convert', '-f', 'raw', '-O', qfmt, *pairs(theirs), raw, name)
        image('convert', '-q', '--force', name, folder / 'b.raw')
        assert (folder / 'b.raw').read_bytes() == raw.read_bytes(), (row, n)


@pytest.mark.parametrize('row', THEIRS, ids=ids)
def test_read(folder, row):
    fmt, qfmt, options = row
    rng = random.Random(f'{SEED}.{row}')
    raw = source(folder / 'a.raw', rng, sizes(rng))
    name = folder / f'a.{fmt}'
    qcow2test.run('qemu-img', 'convert', '-f', 'raw', '-O', qfmt, *pairs(options), raw, name)
    image('convert', '-q', name, folder / 'b.raw')
    assert (folder / 'b.raw').read_bytes() == raw.read_bytes()


@pytest.mark.parametrize('fmt,qfmt', [('vdi', 'vdi'), ('vhd', 'vpc')])
@pytest.mark.parametrize('engine', ['uring', 'threads'])
def test_random_writes(folder, fmt, qfmt, engine):
    """Random operations on an image that QEMU made, with a model beside it."""
    rng = random.Random(f'{SEED}.{fmt}.{engine}')
    raw = source(folder / 'a.raw', rng, 30 * MIB)
    name = folder / f'a.{fmt}'
    qcow2test.run('qemu-img', 'convert', '-f', 'raw', '-O', qfmt,
                  *pairs({'force_size': 'on'} if qfmt == 'vpc' else {}), raw, name)
    qcow2test.run(qcow2test.BLKOPS, 'run', name, raw, f'seed={rng.randrange(1 << 30)}', 'ops=150',
                  'reopen=30', f'format={fmt}', f'queue={engine}')
    qcow2test.run('qemu-img', 'compare', '-f', 'raw', '-F', qfmt, raw, name)
    if qfmt == 'vdi':
        qcow2test.run('qemu-img', 'check', '-f', qfmt, name)


def test_large_disks(folder):
    """Far offsets, several extents of 2 GiB; all files are sparse."""
    raw = folder / 'a.raw'
    with open(raw, 'wb') as f:
        f.truncate(5 << 30)
        for at in (0, (2 << 30) - 4096, (4 << 30) + 512, (5 << 30) - 512):
            f.seek(at)
            f.write(b'x' * 512)
    for fmt, qfmt, options in [('vmdk', 'vmdk', {'subformat': 'twoGbMaxExtentSparse'}),
                               ('vhdx', 'vhdx', {'block_size': '1M'}), ('vhd', 'vpc', {}),
                               ('vdi', 'vdi', {}), ('vmdk', 'vmdk', {})]:
        name = folder / f'a.{fmt}'
        if options:
            qcow2test.run('qemu-img', 'convert', '-f', 'raw', '-O', qfmt, *pairs(options), raw,
                          name)
        else:
            image('convert', '-q', '--force', raw, name)
        image('convert', '-q', '--force', name, folder / 'b.qcow2')
        qcow2test.run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, folder / 'b.qcow2')


def test_rights(folder):
    """Formats that are only read say so; nothing is written by trying."""
    raw = source(folder / 'a.raw', random.Random(1), MIB)
    image('convert', '-q', raw, folder / 'a.vmdk')
    before = (folder / 'a.vmdk').read_bytes()
    _, err = image('resize', folder / 'a.vmdk', '2M', code=1)
    assert 'read-only' in err
    assert (folder / 'a.vmdk').read_bytes() == before
    _, err = image('convert', '-q', raw, folder / 'a.vhdx', code=1)
    assert 'can only be read' in err
    _, err = image('convert', '-q', '-o', 'subformat=round', raw, folder / 'b.vmdk', code=1)
    assert 'monolithicSparse, streamOptimized' in err
    assert sorted(os.listdir(folder)) == ['a.raw', 'a.vmdk']


def evil_vmdk(path, capacity):
    """A directory whose entries all lead to one table: a bomb if it were followed."""
    image('create', '-f', 'vmdk', path, '64M')
    with open(path, 'r+b') as f:
        f.truncate(8 * MIB)
        f.seek(12)
        f.write((capacity // 512).to_bytes(8, 'little'))
        f.seek(56)
        f.write((2048).to_bytes(8, 'little'))
        f.seek(MIB)
        f.write((40).to_bytes(4, 'little') * (capacity // (32 * MIB)))


def evil_vdi(path, _):
    """A map of zeroes, a terabyte of blocks in one place."""
    image('create', '-f', 'vdi', path, '1T')
    with open(path, 'r+b') as f:
        f.seek(512)
        f.write(bytes(4 << 20))
        f.truncate(64 * MIB)


@pytest.mark.parametrize('evil,capacity', [(evil_vmdk, 1 << 40), (evil_vmdk, 2 << 40),
                                           (evil_vdi, 0)])
def test_bombs(folder, evil, capacity):
    """Refused at once, in little memory and time."""
    path = folder / 'evil'
    fmt = evil.__name__[5:]
    evil(path, capacity)

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (512 * MIB, 512 * MIB))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

    p = subprocess.run([vmtest.PROGRAM, 'image', 'convert', '-q', '-f', fmt, path, folder / 'x'],
                       capture_output=True, text=True, timeout=60, check=False, preexec_fn=limits)
    assert p.returncode == 1 and 'overlap' in p.stderr, p.stderr
    assert sorted(os.listdir(folder)) == ['evil']
