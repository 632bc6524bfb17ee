# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 against QEMU: random sequences of operations by both on one image.

QCOW2_SEQUENCES (default 500) says how many, QCOW2_SEED where the seeds begin. A failure names its
seed and the steps; `QCOW2_SEED=n QCOW2_SEQUENCES=1` repeats it.
"""
import os

import pytest

import qcow2test

SEQUENCES = int(os.environ.get('QCOW2_SEQUENCES', '500'))
SEED = int(os.environ.get('QCOW2_SEED', '1'))
BATCH = 50


def sequence(folder, seed):
    disk = qcow2test.Disk(folder, seed)
    try:
        disk.make()
        for _ in range(disk.rng.randint(1, 4)):
            step = disk.rng.choice((disk.ours, disk.ours, disk.qemu, disk.snapshot))
            step()
        disk.ours()
        disk.verify()
    except qcow2test.Failed as why:
        steps = '\n'.join(disk.log)
        raise AssertionError(f'seed {seed}, image {disk.image}:\n{steps}\n{why}') from None
    disk.remove()


@pytest.mark.seconds(900)
@pytest.mark.parametrize('first', range(SEED, SEED + SEQUENCES, BATCH))
def test_sequences(first):
    with qcow2test.folder() as folder:
        for seed in range(first, min(first + BATCH, SEED + SEQUENCES)):
            sequence(folder, seed)
