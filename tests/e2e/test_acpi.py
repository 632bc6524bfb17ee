# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ACPI tables a guest sees, read out of the guest, through Intel's compiler and back."""
import io
import re
import subprocess
import tarfile

import pytest

pytestmark = [pytest.mark.kvm, pytest.mark.above_engine]

EXPECTED = {'FACP', 'DSDT', 'APIC', 'MCFG'}


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    """{name: bytes} of /sys/firmware/acpi/tables in a guest with two CPUs and all devices."""
    import vmtest
    with vmtest.Starter() as starter:
        disk, spare = starter.dir / 'tables', starter.dir / 'spare'
        disk.write_bytes(bytes(4 << 20))
        spare.write_bytes(bytes(1 << 20))
        vm = starter.boot('need virtio_pci virtio_blk; mkdir /t; cd /sys/firmware/acpi/tables; '
                          'for f in $(find . -type f); do cat $f >/t/$(basename $f); done; '
                          'tar c -C /t . >/dev/vda && sync && echo SAVED; poweroff -f; sleep 9',
                          '--cpus', '2', '--disk', disk, '--disk', spare, '--net', 'none')
        vm.expect('SAVED')
        assert vm.wait(20) == 0
        with tarfile.open(fileobj=io.BytesIO(disk.read_bytes())) as tar:
            return {m.name.lstrip('./'): tar.extractfile(m).read() for m in tar if m.isfile()}


def test_the_tables_are_there(tables):
    assert EXPECTED <= set(tables)
    for name, data in tables.items():
        if name != 'FACS':
            assert sum(data) & 255 == 0, f'{name}: checksum'


@pytest.mark.seconds(240)
def test_iasl_finds_nothing(tables, tmp_path):
    """Each table disassembles, and recompiles without an error, warning or remark."""
    for name, data in tables.items():
        (tmp_path / f'{name}.dat').write_bytes(data)
        for argv in (['iasl', '-d', f'{name}.dat'], ['iasl', '-we', '-p', f'{name}-2',
                                                     f'{name}.dsl']):
            done = subprocess.run(argv, cwd=tmp_path, check=False, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, done.stdout
            counts = re.search(r'(\d+) Errors?, (\d+) Warnings?, (\d+) Remarks?', done.stdout)
            if counts:
                assert counts.group(1) == counts.group(2) == '0', done.stdout
            assert not re.search(r'^(ACPI )?(Error|Warning)', done.stdout, re.M), done.stdout
