# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest benchmark still runs: one short turn of one program, natively and in a guest."""
import json
import subprocess

import vmtest


def test_guestbench(tmp_path):
    out = tmp_path / 'out.json'
    done = subprocess.run([vmtest.TOP / 'bench/guestbench', '--only', 'recursion', '--turns', '1', '--ms', '20',
                           '--machines', 'native,ours', '--json', out], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    row, = json.loads(out.read_text())['rows']
    assert all(turns and turns[0] for turns in row['turns'].values()), done.stdout
    assert set(row['turns']) == {'native', 'ours'}
    assert len(row['sums']) == 1 and row['to_native'][1] > 0
