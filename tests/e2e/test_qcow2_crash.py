# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 and power losses: what any of them leaves must be whole.

Each run records its writes; then CRASH_POINTS moments are replayed, in all modes of the replayer.
Of what is left, our check and qemu-img's may find leaks and nothing else, what the guest had
flushed must be there, and each other sector be old or new (tests/block/crash.c). CRASH_RUNS and
CRASH_SEED as for test_qcow2_diff.py.
"""
import os
import shutil

import pytest

import qcow2test

RUNS = int(os.environ.get('CRASH_RUNS', '20'))
POINTS = int(os.environ.get('CRASH_POINTS', '100'))
SEED = int(os.environ.get('CRASH_SEED', '1'))
ONLY_LEAKS = (0, 3)  # exit codes of qemu-img check


def lose_power(folder, seed):
    disk = qcow2test.Disk(folder, seed, max_sectors=3000, one_file=True)  # one log of writes
    disk.make()
    disk.ours(60)
    if disk.rng.random() < 0.4:
        disk.snapshot()
    before, model = folder / 'before.qcow2', folder / 'before.raw'
    shutil.copy(disk.image, before)
    shutil.copy(disk.model, model)
    log, trace = folder / 'log', folder / 'trace'
    try:
        qcow2test.run(qcow2test.BLKOPS, 'run', disk.image, disk.model, f'seed={seed}', 'ops=150',
                      'flush=10', f'writelog={log}', f'trace={trace}')
        qcow2test.run(qcow2test.BLKOPS, 'crash', before, log, trace, model, f'points={POINTS}',
                      f'seed={seed}', f'scratch={folder / "scratch"}', f'keep={folder / "left"}')
        for left in folder.glob('left.*'):
            if disk.lazy:
                # The dirty bit says that the refcounts are not to be believed; both mend them.
                qcow2test.run(qcow2test.BLKOPS, 'check', left, 'fix=all')
            qcow2test.run('qemu-img', 'check', '-q', '-f', 'qcow2', left, ok=ONLY_LEAKS)
    except qcow2test.Failed as why:
        steps = '\n'.join(disk.log)
        raise AssertionError(f'seed {seed}, in {folder}:\n{steps}\n{why}') from None


@pytest.mark.seconds(300)
@pytest.mark.parametrize('seed', range(SEED, SEED + RUNS))
def test_power_loss(seed):
    with qcow2test.folder() as folder:
        lose_power(folder, seed)
