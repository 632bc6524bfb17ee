# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2: what QEMU can put into an image, one thing at a time: read, kept, mended or refused."""
import json
import struct
import subprocess
import time

import pytest

import qcow2test
import vmtest
from qcow2test import BLKOPS, Failed, run

MIB = 1 << 20
SIZE = 4 * MIB


@pytest.fixture
def image(tmp_path):
    """Makes an image by qemu-img with these options; noise in its first MiB unless told."""
    def make(options='', name='a.qcow2', fill=True, size=SIZE, more=()):
        path = tmp_path / name
        argv = ['qemu-img', 'create', '-q', '-f', 'qcow2', *more]
        run(*argv, *(['-o', options] if options else []), path, size)
        if fill:
            run('qemu-io', '-f', 'qcow2', path, '-c', 'write -P 7 0 1M')
        return path
    return make


def refused(path, *texts, command=('dump',)):
    with pytest.raises(Failed) as why:
        run(BLKOPS, command[0], path, *(command[1:] or [path.with_suffix('.out')]))
    for text in texts:
        assert text in str(why.value)


def contents(path, *args):
    out = path.with_suffix('.out')
    run(BLKOPS, 'dump', path, out, *args)
    return out.read_bytes()


def write_some(path):
    """Lets us write: 20 random operations on what is there."""
    model = path.with_suffix('.model')
    model.write_bytes(contents(path))
    run(BLKOPS, 'run', path, model, 'seed=5', 'ops=20')
    return model.read_bytes()


def header(path, offset, fmt, value=None):
    with open(path, 'r+b') as f:
        f.seek(offset)
        if value is None:
            return struct.unpack(fmt, f.read(struct.calcsize(fmt)))[0]
        f.write(struct.pack(fmt, value))
    return value


def test_bitmaps_end_with_our_first_write(image):
    path = image()
    run('qemu-img', 'bitmap', '--add', path, 'b0')
    run(BLKOPS, 'check', path)           # their clusters are counted
    assert header(path, 88, '>Q') == 1   # reading does not touch the bit
    write_some(path)
    assert header(path, 88, '>Q') == 0
    # QEMU takes the bitmaps for inconsistent now, and the image for good but for their clusters.
    run('qemu-img', 'check', '-q', path, ok=(0, 3))
    run(BLKOPS, 'check', path, 'fix=leaks')
    run('qemu-img', 'check', '-q', path)


def test_refused_features(image):
    path = image()
    header(path, 32, '>I', 2)  # LUKS. (qemu-img can fail to make one: it measures the CPU for it.)
    refused(path, 'encrypted (method 2)')


def test_extended_l2(image, tmp_path):
    """Made by QEMU, then by us; packed too. A part written is a part allocated, for both."""
    path = image('extended_l2=on,cluster_size=128k')
    assert contents(path) == bytes([7]) * MIB + bytes(3 * MIB)
    info = run(vmtest.PROGRAM, 'image', 'info', '--json', path)
    assert json.loads(info)['extended_l2'] is True
    packed, ours = tmp_path / 'packed.qcow2', tmp_path / 'ours.qcow2'
    run('qemu-img', 'convert', '-c', '-O', 'qcow2', '-o', 'extended_l2=on', path, packed)
    write_some(packed)
    run('qemu-img', 'check', '-q', packed)
    run(vmtest.PROGRAM, 'image', 'convert', '-q', '-o', 'extended_l2=on', packed, ours)
    run('qemu-img', 'compare', '-q', packed, ours)
    top = tmp_path / 'top.qcow2'
    run(vmtest.PROGRAM, 'image', 'create', '-o', 'extended_l2=on', '-o', 'cluster_size=64K', '-b',
        ours, '-F', 'qcow2', top)
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 1k 1k', top)
    said = json.loads(run('qemu-img', 'map', '--output=json', top))
    assert [m['length'] for m in said if m['depth'] == 0] == [2048]
    run(vmtest.PROGRAM, 'image', 'check', top)


def test_external_data_file(image, tmp_path):
    """The file that the image names is not opened for that; where the user names it, it is."""
    data = tmp_path / 'data.raw'
    path = image(f'data_file={data},data_file_raw=on')
    refused(path, 'not followed')
    assert contents(path, f'data={data}') == bytes([7]) * MIB + bytes(3 * MIB)
    refused(image(name='plain.qcow2'), 'keeps its data itself',
            command=('dump', tmp_path / 'out', f'data={data}'))
    flat = tmp_path / 'flat.raw'
    run(vmtest.PROGRAM, 'image', 'convert', '-q', '--data-file', data, path, flat)
    assert flat.read_bytes() == bytes([7]) * MIB + bytes(3 * MIB)
    # A mapping that leads elsewhere in the data file is corrupt: clusters lie at their own offset.
    l2 = header(path, header(path, 40, '>Q'), '>Q') & ((1 << 56) - 512)
    assert header(path, l2 + 8, '>Q') == 1 << 63 | 65536
    header(path, l2 + 8, '>Q', 1 << 63 | 131072)
    refused(path, 'Input/output error', command=('dump', tmp_path / 'out', f'data={data}'))


def test_unknown_feature_is_named_from_the_table(image):
    path = image()
    head = path.read_bytes()[:4096]
    row = head.index(b'dirty bit') - 2
    with open(path, 'r+b') as f:
        f.seek(row)
        f.write(bytes([0, 33]) + b'time travel'.ljust(46, b'\0'))
    header(path, 72, '>Q', 1 << 33)
    refused(path, 'bit 33 (time travel)')


def test_dirty_image_is_mended_by_a_writer(image):
    path = image('lazy_refcounts=on')
    header(path, 72, '>Q', 1)
    table = header(path, 48, '>Q')
    block = header(path, table, '>Q')
    for cluster in range(4, 14):         # as after a crash: refcounts were never written
        header(path, block + 2 * cluster, '>H', 0)
    assert contents(path)[:MIB] == b'\7' * MIB
    assert header(path, 72, '>Q') == 1   # reading mends nothing
    write_some(path)
    assert header(path, 72, '>Q') == 0
    run('qemu-img', 'check', '-q', path)


@pytest.mark.parametrize('compat', ['0.10', '1.1'])
def test_snapshots_are_read_and_survive_our_writes(image, compat):
    path = image(f'compat={compat}')
    run('qemu-img', 'snapshot', '-c', 'one', path)
    first = contents(path)
    second = write_some(path)
    run('qemu-img', 'snapshot', '-c', 'two', path)
    write_some(path)
    assert contents(path, 'snapshot=one') == first
    assert contents(path, 'snapshot=two') == second
    assert contents(path, 'snapshot=1') == first     # by id
    run('qemu-img', 'check', '-q', path)
    run('qemu-img', 'snapshot', '-a', 'one', path)   # QEMU goes back to it
    assert contents(path) == first
    run('qemu-img', 'snapshot', '-d', 'two', path)
    run('qemu-img', 'check', '-q', path)
    with pytest.raises(Failed, match="no snapshot 'three'"):
        contents(path, 'snapshot=three')


@pytest.mark.parametrize('kind', ['zlib', 'zstd'])
@pytest.mark.parametrize('cluster', [512, 65536, 2 * MIB])
def test_compressed(tmp_path, kind, cluster):
    disk = qcow2test.Disk(tmp_path, f'{kind}{cluster}')
    data = qcow2test.noise(disk.rng, SIZE)
    disk.model.write_bytes(data)
    run('qemu-img', 'convert', '-c', '-O', 'qcow2', '-o',
        f'compression_type={kind},cluster_size={cluster}', disk.model, disk.image)
    assert contents(disk.image) == data
    # Damage inside the compressed data is an error of reading, not a wrong answer or worse.
    raw = bytearray(disk.image.read_bytes())
    raw[len(raw) // 2:] = bytes(b ^ 0x55 for b in raw[len(raw) // 2:])
    disk.image.write_bytes(raw)
    out = disk.image.with_suffix('.out')
    run(BLKOPS, 'dump', disk.image, out, ok=(0, 1))


def test_chain_of_three_with_lengths_that_differ(image):
    base = image(name='base.qcow2', size=3 * MIB)
    middle = image(f'backing_file={base.name},backing_fmt=qcow2', 'middle.qcow2', False, 2 * MIB)
    run('qemu-io', '-f', 'qcow2', middle, '-c', 'write -P 9 512k 256k')
    top = image(f'backing_file={middle.name},backing_fmt=qcow2', 'top.qcow2', False, 5 * MIB)
    data = contents(top)
    assert data[:512 * 1024] == b'\7' * 512 * 1024
    assert data[512 * 1024:768 * 1024] == b'\x09' * 256 * 1024
    assert data[MIB:] == bytes(4 * MIB)
    expected = write_some(top)
    raw = top.with_suffix('.raw')
    run('qemu-img', 'convert', '-O', 'raw', top, raw)
    assert raw.read_bytes() == expected


def test_leaks_and_errors_that_qemu_finds_too(image):
    path = image()
    table = header(path, 48, '>Q')
    block = header(path, table, '>Q')
    header(path, block + 2 * 30, '>H', 1)    # a leak past the data
    header(path, block + 2 * 6, '>H', 0)     # a data cluster that is not counted
    run(BLKOPS, 'check', path, ok=(2,))
    run('qemu-img', 'check', '-q', path, ok=(2,))
    run(BLKOPS, 'check', path, 'fix=all')
    run('qemu-img', 'check', '-q', path)
    assert contents(path)[:MIB] == b'\7' * MIB


def test_broken_refcount_table_is_built_anew(image):
    path = image()
    header(path, header(path, 48, '>Q'), '>Q', 0x7700)
    run('qemu-img', 'check', '-q', path, ok=(1, 2))
    run(BLKOPS, 'check', path, 'fix=all')
    run('qemu-img', 'check', '-q', path)
    assert contents(path)[:MIB] == b'\7' * MIB
    write_some(path)
    run('qemu-img', 'check', '-q', path)


def test_check_of_a_hostile_image_ends(image):
    """Snapshots whose tables refer to one L2 table a million times: refused, not counted for ever."""
    path = image('cluster_size=2M', fill=True, size=64 * MIB)
    run('qemu-img', 'snapshot', '-c', 's', path)
    l1 = header(path, 40, '>Q')
    entry = header(path, l1, '>Q')
    snap = header(path, 64, '>Q')
    end = (path.stat().st_size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)
    with open(path, 'r+b') as f:
        f.seek(end)
        f.write(struct.pack('>Q', entry & ~(1 << 63)) * (4 * MIB // 8))
        f.truncate(end + 4 * MIB)
    header(path, snap, '>Q', end)
    header(path, snap + 8, '>I', 4 * MIB // 8)
    began = time.monotonic()
    refused(path, 'tables to check are more than', command=('check',))
    assert time.monotonic() - began < 100


def test_double_opening_is_refused_both_ways(image):
    path = image()
    holder = subprocess.Popen(['qemu-io', '-f', 'qcow2', str(path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        holder.stdin.write(b'length\n')
        holder.stdin.flush()
        assert holder.stdout.readline()      # it has the image open now
        with pytest.raises(Failed, match='in use|lock'):
            run(BLKOPS, 'check', path, 'fix=all')
    finally:
        holder.communicate(b'quit\n', timeout=20)
