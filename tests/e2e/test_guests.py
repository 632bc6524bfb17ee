# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small guests that exercise the CPU itself: the same results on every engine.

Each prints lines of numbers: results, flags, the faults it provoked with their error codes. What
must come is in tests/guest/NAME.expected, which the software engine (here) and the kernel's KVM (in
the lab) are both held to. Lines from 80: on are about checks that the emulated processor of the lab
leaves out: they are not asked there.
"""
import re

import pytest

import artefacts
import vmtest

pytestmark = pytest.mark.kvm

EXIT_GUEST = 1      # 0 to isa-debug-exit


def results(text):
    lines = [line for line in text.replace('\r', '').splitlines() if re.match('[0-9a-f]{2}:', line)]
    return [line for line in lines if not (vmtest.IN_LAB and line >= '80')]


@pytest.mark.seconds(240)
def test_cpu_guests(posada):
    wrong = []
    for name, cpus in artefacts.CPU_GUESTS.items():
        expected = (vmtest.TOP / 'tests' / 'guest' / f'{name}.expected').read_text()
        vm = posada.run('--kernel', artefacts.cpu_guest(name), '--memory', '64M', '--cpus', cpus,
                        '--timeout', '60')
        code = vm.wait(80)
        if code != EXIT_GUEST or results(vm.output) != results(expected):
            wrong.append(f'{name}: exit code {code}\n{vm.output}\n--- expected:\n{expected}')
    assert not wrong, '\n'.join(wrong)
