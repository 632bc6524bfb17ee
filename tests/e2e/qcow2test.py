# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images for the qcow2 tests: random options, made by us or by qemu-img, with a model beside.

A Disk is an image file and a raw file, the model, that holds what the disk must read as.
"""
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import vmtest

BLKOPS = vmtest.BUILD / 'tests' / 'block' / 'blkops'
SECTOR = 512


class Failed(AssertionError):
    pass


@contextlib.contextmanager
def folder():
    """A folder in memory where there is one: these tests flush all the time, and a real disk's
    durability is not what they test. It stays when the test fails."""
    path = tempfile.mkdtemp(prefix='posada-qcow2-',
                            dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
    yield pathlib.Path(path)
    shutil.rmtree(path)


def run(*argv, ok=(0,)):
    """Runs a program to its end; its output, or Failed with all that it said."""
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in ok:
        raise Failed(f'exit code {done.returncode}: {" ".join(argv)}\n'
                     f'{done.stdout[-2000:]}{done.stderr[-2000:]}')
    return done.stdout


def noise(rng, size):
    """Random runs of noise, of one byte and of zeroes: some of it compresses."""
    out = bytearray()
    while len(out) < size:
        length = rng.choice((512, 4096, 20000, 70000, 200000))
        kind = rng.randrange(3)
        out += (bytes(length) if kind == 0 else bytes([rng.randrange(1, 256)]) * length
                if kind == 1 else rng.randbytes(length))
    return bytes(out[:size])


class Disk:
    def __init__(self, folder, seed, max_sectors=8000, one_file=False):
        """one_file: never with the data in a file of its own."""
        self.folder = pathlib.Path(folder)
        self.rng = random.Random(seed)
        self.seed = seed
        self.image = self.folder / f'{seed}.qcow2'
        self.model = self.folder / f'{seed}.raw'
        self.size = self.rng.randint(1, max_sectors) * SECTOR
        self.one_file = one_file
        self.snapshots = {}
        self.packed = False
        self.external = None     # the file that holds the data of an image made so
        self.external_raw = False
        self.log = []
        rng = self.rng
        self.v2 = rng.random() < 0.25
        self.refcount_bits = 16 if self.v2 else 1 << rng.randrange(7)
        self.lazy = not self.v2 and rng.random() < 0.25
        self.zstd = not self.v2 and rng.random() < 0.3
        self.cluster = 1 << rng.choice((9, 10, 12, 12, 14, 16, 16, 16, 17, 21))
        # Extended L2 entries; chosen apart from the rest, which a seed means since before them.
        apart = random.Random(f'extended {seed}')
        self.extended = apart.random() < 0.2 and not self.v2
        if self.extended:
            self.cluster = max(self.cluster, 1 << apart.choice((14, 15, 16)))

    def note(self, *what):
        self.log.append(' '.join(str(w) for w in what))

    def options(self):
        return {
            'cluster_size': self.cluster, 'refcount_bits': self.refcount_bits,
            'compat': '0.10' if self.v2 else '1.1', 'lazy_refcounts': 'on' if self.lazy else 'off',
            **({'compression_type': 'zstd'} if self.zstd else {}),
            **({'extended_l2': 'on'} if self.extended else {}),
        }

    def make(self):
        """Creates the image one way or another."""
        kind = self.rng.choice(('ours', 'ours', 'qemu', 'qemu', 'prealloc', 'backing', 'backing',
                                'compressed', 'external', 'external raw'))
        if (kind == 'backing' and self.cluster == 512 or
                kind.startswith('external') and (self.v2 or self.one_file)):
            kind = 'ours'
        options = self.options()
        self.note('make', kind, options, 'size', self.size)
        self.model.write_bytes(bytes(self.size))
        self.packed = kind == 'compressed'
        if self.packed:
            self.model.write_bytes(noise(self.rng, self.size))
            run('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', self._join(options),
                self.model, self.image)
        elif kind.startswith('external'):
            self.external = self.folder / f'{self.seed}.data'
            self.external_raw = kind == 'external raw'
            options.update(data_file=self.external,
                           data_file_raw='on' if self.external_raw else 'off')
            run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', self._join(options), self.image,
                self.size)
        elif kind == 'qemu':
            run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', self._join(options), self.image,
                self.size)
        elif kind == 'backing':
            self._make_backed(options)
        else:
            if kind == 'prealloc':
                options['preallocation'] = 'metadata'
            run(BLKOPS, 'create', self.image, f'size={self.size}',
                *(f'param={k}={v}' for k, v in options.items()))

    @staticmethod
    def _join(options):
        return ','.join(f'{k}={v}' for k, v in options.items())

    def _make_backed(self, options):
        """The backing file may be shorter or longer, raw or qcow2, plain or compressed."""
        rng = self.rng
        size = max(1, int(self.size / SECTOR * rng.choice((0.3, 1, 1, 1.4)))) * SECTOR
        data = noise(rng, size)
        below = self.folder / f'{self.seed}.base'
        fmt = rng.choice(('raw', 'qcow2', 'compressed'))
        self.note('backing', fmt, size)
        raw = self.folder / f'{self.seed}.base.raw'
        raw.write_bytes(data)
        if fmt == 'raw':
            raw.rename(below)
        else:
            run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2',
                *(['-c'] if fmt == 'compressed' else []), '-o', f'cluster_size={self.cluster}',
                raw, below)
        fmt = 'raw' if fmt == 'raw' else 'qcow2'
        if rng.random() < 0.5:
            run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', below.name, '-F', fmt, '-o',
                self._join(options), self.image, self.size)
        else:
            run(BLKOPS, 'create', self.image, f'size={self.size}', f'backing={below.name}',
                f'backing_format={fmt}', *(f'param={k}={v}' for k, v in options.items()))
        self.model.write_bytes(data[:self.size].ljust(self.size, b'\0'))

    def ours(self, ops=120):
        """Our program applies random operations."""
        rng = self.rng
        argv = ['run', self.image, self.model, f'seed={rng.randrange(1 << 30)}', f'ops={ops}',
                f'reopen={rng.choice((0, 20, 60))}', *self.data()]
        engine = rng.choice((None, None, 'threads', 'uring'))
        if engine:
            argv.append(f'queue={engine}')
        if rng.random() < 0.25:
            argv.append('threads=3')
        elif rng.random() < 0.3 and not self.snapshots:
            argv.append('resize')
        self.note(*argv)
        run(BLKOPS, *argv)
        self.size = self.model.stat().st_size

    def qemu(self, ops=12):
        """QEMU's block layer does, by qemu-io."""
        rng = self.rng
        data = bytearray(self.model.read_bytes())
        argv = ['qemu-io', '-f', 'qcow2', '-d', 'unmap', self.image]
        loose = set()
        for _ in range(ops):
            at = rng.randrange(self.size // SECTOR)
            n = min(rng.choice((1, 9, 128, 700)), self.size // SECTOR - at)
            kind = rng.randrange(4)
            off, length = at * SECTOR, n * SECTOR
            if kind == 0:
                argv += ['-c', f'discard {off} {length}']
                loose.update(range(at, at + n))
                continue
            loose.difference_update(range(at, at + n))
            if kind == 1:
                argv += ['-c', f'write -z {"-u " if rng.random() < 0.5 else ""}{off} {length}']
                data[off:off + length] = bytes(length)
            else:
                byte = rng.randrange(256)
                argv += ['-c', f'write -P {byte} {off} {length}']
                data[off:off + length] = bytes([byte]) * length
        self.note('qemu-io', *argv[5:])
        run(*argv)
        if loose:
            # What a discard left is old or zero; which it is, qemu-img says.
            got_file = self.folder / f'{self.seed}.got'
            run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', self.image, got_file)
            got = got_file.read_bytes()
            got_file.unlink()
            for s in loose:
                sector = got[s * SECTOR:(s + 1) * SECTOR]
                if sector in (bytes(SECTOR), bytes(data[s * SECTOR:(s + 1) * SECTOR])):
                    data[s * SECTOR:(s + 1) * SECTOR] = sector
        self.model.write_bytes(data)

    def data(self):
        """The arguments that name the data file to our program."""
        return [f'data={self.external}'] if self.external else []

    def snapshot(self):
        # A host cluster that holds many compressed ones has a refcount to match, and QEMU refuses
        # to multiply it past the width.
        if (self.refcount_bits < (16 if self.packed else 4) or len(self.snapshots) >= 3 or
                self.external):
            return
        name = f's{len(self.snapshots)}'
        self.note('snapshot', name)
        run('qemu-img', 'snapshot', '-c', name, self.image)
        self.snapshots[name] = self.model.read_bytes()

    def verify(self):
        """Clean for both checks, and the same contents for both readers."""
        run('qemu-img', 'check', '-q', '-f', 'qcow2', self.image)
        run(BLKOPS, 'check', self.image)
        run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', self.model, self.image)
        dump = self.folder / f'{self.seed}.dump'
        run(BLKOPS, 'dump', self.image, dump, *self.data())
        # QEMU rounds such a file up to whole clusters.
        if self.external_raw and (self.external.read_bytes()[:self.size] !=
                                  self.model.read_bytes()):
            raise Failed('the raw data file does not show the disk')
        if dump.read_bytes() != self.model.read_bytes():
            raise Failed('our reading differs from the model')
        for name, data in self.snapshots.items():
            run(BLKOPS, 'dump', self.image, dump, f'snapshot={name}')
            if dump.read_bytes() != data:
                raise Failed(f'our reading of snapshot {name} differs from the model')
            run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', '-l', f'snapshot.name={name}',
                self.image, dump)
            if dump.read_bytes() != data:
                raise Failed(f'QEMU reads snapshot {name} differently after our writes')
        dump.unlink()

    def remove(self):
        for path in self.folder.glob(f'{self.seed}.*'):
            path.unlink()
