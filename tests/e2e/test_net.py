# SPDX-License-Identifier: LGPL-2.1-or-later
"""TCP both ways through user networking and through a tap interface; vsock."""
import contextlib
import ctypes
import hashlib
import os
import socket
import subprocess
import threading
import time

import pytest

import artefacts
import vmtest

pytestmark = pytest.mark.kvm

NEED = 'need virtio_pci virtio_net'
POWEROFF = 'poweroff -f; sleep 30'
DATA = bytes(range(256)) * 4096          # 1 MiB
DIGEST = hashlib.sha256(DATA).hexdigest()
CLONE_NEWNET = 0x40000000                # sched.h; os.unshare() is not in Python 3.11


def ip(*words):
    subprocess.run(['ip', *words], check=True)


def system_call(name, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), f'{name}: {os.strerror(ctypes.get_errno())}')


@pytest.fixture(autouse=True)
def network():
    """A network of the test's own: a run that was killed cannot leave an interface or a port in use.

    It goes with the last process in it. Threads and processes that the test starts are in it, too.
    What a guest is made of comes over the machine's network, so it is fetched before.
    """
    artefacts.vmlinuz('cloud')
    artefacts.test_initrd()
    with open('/proc/thread-self/ns/net', 'rb') as before:
        system_call('unshare', CLONE_NEWNET)
        try:
            ip('link', 'set', 'lo', 'up')
            yield
        finally:
            system_call('setns', before.fileno(), CLONE_NEWNET)


def receive_all(s):
    data = bytearray()
    while more := s.recv(65536):
        data += more
    return bytes(data)


@contextlib.contextmanager
def server(family=socket.AF_INET, address=('127.0.0.1', 0)):
    """Serves one connection: sends DATA, collects what comes. Yields (port, results list)."""
    got = []
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(1)
        listener.settimeout(90)

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(60)
                    connection.sendall(DATA)
                    connection.shutdown(socket.SHUT_WR)
                    got.append(receive_all(connection))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield (listener.getsockname()[1] if family == socket.AF_INET else None), got
        thread.join(30)


def talk(address, seconds=60):
    """Connects to a guest's nc that is coming up, sends DATA, returns the answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(address, timeout=20) as s:
                s.settimeout(40)
                s.sendall(DATA)
                s.shutdown(socket.SHUT_WR)
                answer = receive_all(s)
                if answer:
                    return answer
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f'no answer from {address} within {seconds} s')
        time.sleep(0.5)


# Outwards: fetch from a server, send the digest back. Inwards: nc answers with the digest.
CLIENT = 'nc {host} {port} </dev/null >/got; echo "OUT $(sha256sum </got)"'
LISTENER = ('(nc -l -p 5000 -e sh -c "head -c {size} >/in; sha256sum </in"); '
            'echo "IN $(sha256sum </in)"')


def test_user_network(posada):
    with server() as (port, _):
        vm = posada.boot(f'{NEED}; ip link set eth0 up; udhcpc -q -i eth0 -s /etc/udhcpc.sh; '
                         f'ip -4 -o addr show eth0; {CLIENT.format(host="10.0.2.2", port=port)}; '
                         f'echo LISTEN; {LISTENER.format(size=len(DATA))}; {POWEROFF}',
                         '--net', 'user,hostfwd=tcp:127.0.0.1:5555-:5000')
        vm.expect(r'10\.0\.2\.15')
        vm.expect(f'OUT {DIGEST}')
        vm.expect('LISTEN')
        assert DIGEST in talk(('127.0.0.1', 5555)).decode()
        vm.expect(f'IN {DIGEST}', 30)
        assert vm.wait(20) == 0


def add_tap(name, address, queues):
    ip('tuntap', 'add', name, 'mode', 'tap', *(['multi_queue'] if queues > 1 else []))
    ip('addr', 'add', address, 'dev', name)
    ip('link', 'set', name, 'up')


@pytest.mark.parametrize('cpus,queues', [pytest.param(1, 1, marks=pytest.mark.above_engine), (2, 2)])
def test_tap(posada, cpus, queues):
    add_tap('tap-e2e', '10.9.0.1/24', queues)
    with server(address=('10.9.0.1', 0)) as (port, _):
        vm = posada.boot(f'{NEED}; ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; '
                         f'echo QUEUES $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l); '
                         f'{CLIENT.format(host="10.9.0.1", port=port)}; '
                         f'echo LISTEN; {LISTENER.format(size=len(DATA))}; {POWEROFF}',
                         '--net', f'tap=tap-e2e,queues={queues}', '--cpus', cpus)
        assert int(vm.expect(r'QUEUES (\d+)').group(1)) == queues
        vm.expect(f'OUT {DIGEST}')
        vm.expect('LISTEN')
        assert DIGEST in talk(('10.9.0.2', 5000)).decode()
        vm.expect(f'IN {DIGEST}', 30)
        assert vm.wait(20) == 0


@pytest.mark.above_engine
def test_vsock_from_the_guest(posada):
    """A guest connection to port N of the host arrives at the unix socket PATH_N."""
    path = posada.dir / 'v.sock'
    with server(socket.AF_UNIX, f'{path}_1234') as (_, got):
        vm = posada.boot('need virtio_pci vmw_vsock_virtio_transport; '
                         f'echo hello from the guest | guesttool vsock-send 2 1234 >/got; '
                         f'echo "OUT $(sha256sum </got)"; {POWEROFF}',
                         '--vsock', '7', '--vsock-path', path)
        vm.expect(f'OUT {DIGEST}')
        assert vm.wait(20) == 0
    assert got == [b'hello from the guest\n']


def test_vsock_from_the_host(posada):
    """'CONNECT N' on the unix socket reaches the guest's port N."""
    path = posada.dir / 'v.sock'
    vm = posada.boot('need virtio_pci vmw_vsock_virtio_transport; guesttool vsock-echo 4321; '
                     f'{POWEROFF}', '--vsock', '7', '--vsock-path', path)
    vm.expect('LISTENING')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(60)
        s.connect(os.fspath(path))
        s.sendall(b'CONNECT 4321\n')
        line = b''
        while not line.endswith(b'\n'):
            line += s.recv(1)
        assert line.startswith(b'OK ')
        sender = threading.Thread(target=lambda: (s.sendall(DATA), s.shutdown(socket.SHUT_WR)))
        sender.start()
        assert hashlib.sha256(receive_all(s)).hexdigest() == DIGEST
        sender.join()
    assert vm.wait(20) == 0
