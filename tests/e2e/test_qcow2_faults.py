# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 on a failing disk: writes torn, refused or out of space, reads and flushes that fail.

What a failed operation covered is old or new, sector by sector; everything else is untouched; and the
image that is left has leaks at worst.
"""
import pytest

import qcow2test

RULES_FROM, RULES_TO = 12, 400   # the first operations of a kind are those of opening


def rules(rng):
    out = []
    for _ in range(rng.randint(1, 20)):
        op = rng.choice(('write', 'write', 'read', 'flush', 'discard', 'zero', 'any'))
        effect = rng.choice(('EIO', 'ENOSPC', 'torn:512', 'torn:2048')) if op == 'write' else 'EIO'
        out.append(f'{op}.{rng.randint(RULES_FROM, RULES_TO)}={effect}')
    return ','.join(out)


@pytest.mark.seconds(300)
@pytest.mark.parametrize('first', range(0, 60, 20))
def test_faults(first):
    with qcow2test.folder() as folder:
        for seed in range(first, first + 20):
            disk = qcow2test.Disk(folder, seed)
            disk.make()
            argv = ['run', disk.image, disk.model, f'seed={seed}', 'ops=300',
                    f'fault={rules(disk.rng)}', *disk.data()]
            disk.note(*argv)
            try:
                qcow2test.run(qcow2test.BLKOPS, *argv)
                qcow2test.run('qemu-img', 'check', '-q', disk.image, ok=(0, 3))
                qcow2test.run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', disk.model,
                              disk.image)
            except qcow2test.Failed as why:
                steps = '\n'.join(disk.log)
                raise AssertionError(f'seed {seed}, in {folder}:\n{steps}\n{why}') from None
            disk.remove()
