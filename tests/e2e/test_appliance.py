# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image store and `posada run IMAGE`, with one image of a kernel and busybox, built once a run.

Building from packages takes minutes and a network; by hand: posada image build debian.
"""
import json
import os
import shutil
import subprocess

import pytest

import artefacts
import initrd
import vmtest

SECONDS = 150            # a boot on a busy machine, software engine

pytestmark = [pytest.mark.seconds(400), pytest.mark.skipif(
    not all(shutil.which(p, path=os.environ['PATH'] + ':/usr/sbin:/sbin')
            for p in ('mke2fs', 'grub-mkimage', 'mkfs.fat', 'mcopy', 'depmod')),
    reason='needs mke2fs, grub-mkimage, mkfs.fat, mcopy, depmod')]


def posada(*args, code=0, **kwargs):
    done = subprocess.run([vmtest.PROGRAM, *map(str, args)], check=False, timeout=SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode(), done.stderr.decode()


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    """A store with the image busybox:1."""
    top = tmp_path_factory.mktemp('st')
    tree = top / 'tree'
    shutil.copytree(artefacts.kernel('cloud'), tree, symlinks=True)
    version, = os.listdir(tree / 'lib' / 'modules')
    subprocess.run(['depmod', '-b', tree, version], check=True,
                   env={**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'})
    for name in ('bin', 'root', 'proc', 'sys', 'dev', 'run', 'tmp', 'mnt'):
        (tree / name).mkdir(exist_ok=True)
    shutil.copy(initrd.busybox_path(), tree / 'bin' / 'busybox')
    for applet in ('sh', 'cat', 'echo', 'sleep', 'tr', 'ls', 'mkdir', 'head', 'id', 'mount', 'sync'):
        (tree / 'bin' / applet).symlink_to('busybox')
    os.environ['POSADA_STORE'] = str(top / 'store')
    posada('image', 'build', 'debian', '--name', 'busybox:1', '--from-dir', tree, '--size', '512M')
    shutil.rmtree(tree)
    yield top / 'store'
    del os.environ['POSADA_STORE']


def left_over(store):
    return os.listdir(store / 'tmp')


def test_store(store, tmp_path):
    image = json.loads(posada('image', 'ls', '--json')[0])[0]
    assert image['names'] == ['busybox:1'] and image['size'] == 512 << 20
    disk = store / 'images' / image['id'] / 'disk.raw'
    root = tmp_path / 'root'
    with open(disk, 'rb') as f, open(root, 'wb') as out:
        f.seek(32 << 20)
        shutil.copyfileobj(f, out, 1 << 20)
    subprocess.run(['/sbin/e2fsck', '-fn', root], check=True, stdout=subprocess.DEVNULL)
    # Out and in again, by another format: the same content has the same ID.
    posada('image', 'export', 'busybox', tmp_path / 'a.qcow2')
    assert posada('image', 'import', tmp_path / 'a.qcow2', 'again:1')[0].strip() == image['id']
    wrong = posada('image', 'import', tmp_path / 'a.qcow2', 'x:1', '--sha256', '0' * 64, code=1)[1]
    assert 'wrong hash' in wrong
    (tmp_path / 'junk').write_bytes(b'junk' * 1000)
    assert '--format raw' in posada('image', 'import', tmp_path / 'junk', 'x:1', code=1)[1]
    posada('image', 'rm', 'again:1')
    assert left_over(store) == []


def test_command(store):
    """Exit codes, streams apart, words untouched, input; nothing stays behind."""
    script = 'cat; echo "$1"; echo wrong >&2; exit 7'
    out, err = posada('run', '--rm', 'busybox', '--', 'sh', '-c', script, 'sh', "a 'b\" $c \\",
                      input=b'in\n', code=7)
    assert out == "in\na 'b\" $c \\\n"
    assert err == 'wrong\n'
    assert left_over(store) == []


def test_mount(store, tmp_path):
    """Files in and out; read-only without :rw; a link leads the guest nowhere outside."""
    ro, rw = tmp_path / 'ro', tmp_path / 'rw'
    ro.mkdir()
    rw.mkdir()
    (ro / 'in').write_text('from the host')
    (tmp_path / 'secret').write_text('secret')
    (rw / 'link').symlink_to(tmp_path / 'secret')
    (rw / 'up').symlink_to('..')
    script = """
        cat /a/in
        echo x >/a/new && echo wrong
        echo x >/a/in && echo wrong
        cat /b/link && echo wrong
        cat /b/up/secret /b/../secret && echo wrong
        echo x >/b/link && echo wrong
        mkdir /b/d && cat /a/in /a/in >/b/d/out && ls /b
        cat /dev/zero | head -c 300000 >/b/zeroes
        exit 0"""
    out, err = posada('run', '--rm', '--mount', f'{ro}:/a', '--mount', f'{rw}:/b:rw', 'busybox', '--',
                      'sh', '-c', script)
    assert out == 'from the hostd\nlink\nup\n', (out, err)
    assert err.count('Read-only file system') == 2
    assert (rw / 'd' / 'out').read_text() == 'from the host' * 2
    assert (rw / 'zeroes').read_bytes() == bytes(300000)
    assert (tmp_path / 'secret').read_text() == 'secret' and os.listdir(ro) == ['in']
    assert 'no/such' in posada('run', '--mount', '/no/such:/a', 'busybox', '--', 'ls', code=2)[1]
    assert left_over(store) == []


def test_no_such_command(store):
    _, err = posada('run', 'busybox', '--', '/no/such', code=127)
    assert '/no/such' in err
    assert left_over(store) == []


def test_kept(store):
    posada('run', '--name', 'web', 'busybox', '--', 'sh', '-c', 'echo kept >file')
    assert posada('run', '--name', 'web', 'busybox', '--', 'cat', 'file')[0] == 'kept\n'
    assert "VM 'web'" in posada('image', 'rm', 'busybox:1', code=4)[1]
    vm, = json.loads(posada('image', 'vms', '--json')[0])
    assert vm['name'] == 'web' and not vm['running'] and vm['used'] > 0
    posada('image', 'vmrm', 'web')
    assert posada('image', 'vms', '--json')[0] == '[]\n'
    assert "'web'" in posada('image', 'vmrm', 'web', code=3)[1]
    assert left_over(store) == []


def test_bad_input(store):
    assert 'no recipe' in posada('run', 'nosuch', code=1)[1]
    assert '/proc/nothing' in posada('image', 'ls', '--store', '/proc/nothing', code=3)[1]
    small = posada('image', 'build', 'debian', '--from-dir', '/usr/lib', '--size', '256M', code=1)[1]
    assert 'too small' in small
    assert left_over(store) == []
