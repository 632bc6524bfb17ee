# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures and rules of the end-to-end tests.

A test marked `kvm` runs a guest. On a host without hardware KVM it runs on the software engine, and
again in the lab, on the kernel's KVM: the results must agree. One marked `hardware` as well has no
meaning without the kernel's KVM (a peer that needs it, a speed) and is left to the lab. One marked
`above_engine` is left out of the lab: see docs/lab.md for what that is. Each test has a time limit
(marker `seconds`, default 120, times vmtest.PATIENCE): a hang is a failure, not the end of the run.
"""
import json
import os
import pathlib
import signal

import pytest

import vmtest

DEFAULT_SECONDS = 120

# The tests look for English texts, whoever runs them.
os.environ['LC_ALL'] = 'C.UTF-8'
os.environ.pop('LANGUAGE', None)


def pytest_addoption(parser):
    parser.addoption('--results', help='file that gets one JSON line per ended test')
    parser.addoption('--leave-out', help='file with names of tests not to run')


def pytest_configure(config):
    config.addinivalue_line('markers', 'kvm: runs a guest; the lab runs these tests only')
    config.addinivalue_line('markers', 'above_engine: not in the lab: another engine cannot change it')
    config.addinivalue_line('markers', 'hardware: only on hardware KVM (else left to the lab)')
    config.addinivalue_line('markers', 'seconds(n): time limit of the test')
    config._results = None
    if config.getoption('--results'):
        config._results = open(config.getoption('--results'), 'a', encoding='utf-8', buffering=1)


def _record(config, **row):
    if config._results:
        config._results.write(json.dumps(row) + '\n')


def pytest_collection_modifyitems(config, items):
    leave_out = set()
    if config.getoption('--leave-out'):
        leave_out = set(pathlib.Path(config.getoption('--leave-out')).read_text().splitlines())

    def here(item):
        if item.nodeid in leave_out:
            return False
        if vmtest.IN_LAB:
            return item.get_closest_marker('kvm') is not None and \
                item.get_closest_marker('above_engine') is None
        return item.get_closest_marker('hardware') is None or vmtest.hardware_kvm()

    gone = [i for i in items if not here(i)]
    items[:] = [i for i in items if here(i)]
    config.hook.pytest_deselected(items=gone)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    limit = item.get_closest_marker('seconds')
    seconds = vmtest.PATIENCE * (limit.args[0] if limit else DEFAULT_SECONDS)

    def on_alarm(_signo, _frame):
        raise TimeoutError(f'the test passed its limit of {seconds} s')

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _ends(lines):
    """The first line and the last ones: where only the tally is kept, they must tell the cause."""
    kept = lines if len(lines) <= 4 else lines[:1] + lines[-3:]
    return [kept[0][:300], *(line[-300:] for line in kept[1:])]


def pytest_runtest_logreport(report):
    config = pytest_runtest_logreport.config
    outcome, reason = None, ''
    if report.failed:
        outcome = 'failed'
        reason = str(getattr(report.longrepr, 'reprcrash', None) or report.longrepr)
        reason = ' | '.join(_ends(reason.splitlines())) if reason else report.when
    elif report.skipped:
        outcome = 'skipped'
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    elif report.when == 'call':
        outcome = 'passed'
    if outcome:
        _record(config, name=report.nodeid, outcome=outcome, reason=reason,
                seconds=round(report.duration, 3))


def pytest_collection_finish(session):
    _record(session.config, planned=[i.nodeid for i in session.items])


def pytest_sessionstart(session):
    pytest_runtest_logreport.config = session.config


@pytest.fixture
def posada():
    """Starts `posada run` guests; all are ended when the test ends. See vmtest.Posada."""
    with vmtest.Starter() as starter:
        yield starter


@pytest.fixture(scope='session')
def report():
    """report(name, **numbers): keeps a measurement for docs and `make bench`."""
    where = os.environ.get('LAB_OUT') or str(vmtest.BUILD / 'test-results')
    pathlib.Path(where).mkdir(parents=True, exist_ok=True)

    def add(name, **numbers):
        with open(f'{where}/measured.jsonl', 'a', encoding='utf-8') as f:
            f.write(json.dumps({'what': name, **numbers}) + '\n')
        print('measured', name, numbers)

    return add
