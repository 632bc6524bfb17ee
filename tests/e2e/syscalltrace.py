#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What VM processes asked of the kernel, compared with src/vmm/sandbox/syscalls.def.

    tests/e2e/syscalltrace.py FOLDER      judges the traces that tests/e2e/traced left there

A call counts from the moment its thread is under the filter of all threads. The kernel kills what
is not allowed, so that a run that ends well is inside of the filters by itself; what this adds is
which thread made the call, and which rows no run needed.
"""
import collections
import pathlib
import re
import sys

TABLE = pathlib.Path(__file__).resolve().parents[2] / 'src/vmm/sandbox/syscalls.def'
KINDS = {'M': 'main', 'I': 'io', 'V': 'vCPU', 'W': 'worker', 'P': 'common'}


def table():
    """{kind letter: names allowed}; SANDBOX_SOFT counts as allowed: it kills nobody."""
    allowed = {kind: {'ioctl'} for kind in KINDS}
    for name, kinds in re.findall(r'^SYSCALL\((\w+), ([MIVWP |]+), \w+\)', TABLE.read_text(), re.M):
        for kind in kinds.split(' | '):
            allowed[kind].add(name)
    allowed['P'] = set.union(*allowed.values())
    return allowed


def kind_of(name):
    return 'I' if name == 'io' else 'V' if name.startswith('vcpu') else \
        'W' if name == 'posada-block' else 'P'


def calls(path):
    """(kind, call) of each call of a posada-vmm after its filter; None for another program."""
    kinds, own, sealed = {}, set(), False
    found = collections.Counter()
    for line in path.read_text(errors='replace').splitlines():
        match = re.match(r'(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)', line)
        if match is None:
            continue
        tid, call, rest = match.groups()
        if call == 'prctl' and (name := re.match(r'PR_SET_NAME, "([^"]*)"', rest)):
            kinds[tid] = kind_of(name.group(1))
        if call == 'seccomp' and 'resumed' not in line:
            if 'TSYNC' in rest and tid == path.name: # not a helper process's
                sealed = True
                kinds[tid] = 'M'
                found.clear()
                continue
            own.add(tid)
            continue
        # What was under way when the filter fell is not its concern.
        if sealed and 'resumed' not in line and tid in kinds:
            # Before its own filter a thread is under the common one.
            found[(kinds[tid] if tid in own else 'P', call)] += 1
    return found if sealed else None


def judge(folder):
    """(Counter of (kind, call), offending ones, number of VMs)."""
    allowed, total, vms = table(), collections.Counter(), 0
    for path in sorted(pathlib.Path(folder).iterdir()):
        found = calls(path)
        if found is not None:
            vms += 1
            total += found
    bad = sorted((KINDS[k], c) for k, c in total if c not in allowed[k])
    return total, bad, vms


def main():
    total, bad, vms = judge(sys.argv[1])
    allowed = table()
    print(f'{vms} VMs, {sum(total.values())} calls')
    for kind, name in KINDS.items():
        seen = {c for k, c in total if k == kind}
        print(f'{name}: {len(seen)} kinds of calls: {" ".join(sorted(seen))}')
        if kind != 'P':
            print(f'    not needed: {" ".join(sorted(allowed[kind] - seen))}')
    for kind, call in bad:
        print(f'NOT ALLOWED: {call} on a {kind} thread')
    return 1 if bad or not vms else 0


if __name__ == '__main__':
    sys.exit(main())
