# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small initial RAM disks: a cpio writer, module selection, and a busybox guest.

The archive is written directly (newc format, kernel Documentation/driver-api/early-userspace/
buffer-format.rst), so device nodes need no privilege and the result depends only on the input.

    data = busybox_initrd('echo READY; poweroff -f', modules=Modules(tree), load=['virtio_blk'])
"""
import os
import pathlib
import re
import shutil
import stat


class Cpio:
    """Collects entries; bytes() gives the newc archive."""

    def __init__(self):
        self._out = bytearray()
        self._ino = 1
        self._dirs = set()

    def _entry(self, name, mode, data=b'', rdev=(0, 0)):
        raw = name.encode() + b'\0'
        fields = (self._ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0)
        self._ino += 1
        self._out += b'070701' + b''.join(b'%08X' % f for f in fields) + raw
        self._out += b'\0' * (-len(self._out) % 4)
        self._out += data
        self._out += b'\0' * (-len(self._out) % 4)

    def mkdir(self, name):
        name = name.strip('/')
        if not name or name in self._dirs:
            return
        self.mkdir(os.path.dirname(name))
        self._dirs.add(name)
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o644):
        name = name.strip('/')
        self.mkdir(os.path.dirname(name))
        self._entry(name, stat.S_IFREG | mode, data)

    def copy(self, name, path):
        path = pathlib.Path(path)
        self.file(name, path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)

    def symlink(self, name, target):
        name = name.strip('/')
        self.mkdir(os.path.dirname(name))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def node(self, name, kind, major, minor):
        name = name.strip('/')
        self.mkdir(os.path.dirname(name))
        mode = stat.S_IFCHR if kind == 'c' else stat.S_IFBLK
        self._entry(name, mode | 0o600, rdev=(major, minor))

    def bytes(self):
        out = bytearray(self._out)
        self._entry('TRAILER!!!', 0)
        done = bytes(self._out)
        self._out = out
        return done


def _module_key(name):
    return name.replace('-', '_')


class Modules:
    """The modules of one unpacked kernel package, found by name."""

    def __init__(self, tree):
        self.paths = {_module_key(p.stem): p for p in pathlib.Path(tree).rglob('*.ko')}

    def closure(self, names):
        """Paths of the named modules and all they depend on, in an order fit for insmod.

        A name the package lacks is taken for built in: the boot shows if that was wrong.
        """
        order, seen = [], set()

        def visit(name):
            key = _module_key(name)
            if key in seen or key not in self.paths:
                return
            seen.add(key)
            path = self.paths[key]
            depends = re.search(rb'\0depends=([^\0]*)\0', b'\0' + path.read_bytes())
            for dep in (depends.group(1).decode() if depends else '').split(','):
                if dep:
                    visit(dep)
            order.append(path)

        for name in names:
            visit(name)
        return order


def busybox_path():
    """The static busybox of package busybox-static, or busybox on PATH."""
    for path in ('/bin/busybox', '/usr/bin/busybox', shutil.which('busybox')):
        if path and os.path.exists(path):
            return path
    raise FileNotFoundError('busybox: install the package busybox-static')


APPLETS = '''sh mount umount insmod mkdir cat echo ls grep dmesg poweroff reboot halt switch_root sleep
ip ifconfig route udhcpc ping nc wget dd sync cp mv rm ln chmod head tail od hexdump sha256sum md5sum
sed awk tr cut base64 wc sort uniq test true false ps kill killall free df date uname hostname stty setsid
cttyhack nproc seq printf env tee cmp find stat mknod mktemp touch usleep time timeout nslookup
devmem chroot pidof top vi less id arping expr basename dirname readlink blockdev httpd telnet'''.split()

_BUSYBOX_INIT = '''#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /tmp
mount -t devpts pts /dev/pts
for m in $(cat /modules/order); do insmod /modules/$m || echo "insmod $m failed"; done
need() { for n; do for m in $(cat /modules/order.$n); do insmod /modules/$m 2>/dev/null; done; done; }
exec 0</dev/console 1>/dev/console 2>&1
. /main
'''

UDHCPC_SCRIPT = '''#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/${mask:-24} dev $interface
[ -n "$router" ] && ip route add default via ${router%% *} dev $interface
: >/etc/resolv.conf
for d in $dns; do echo "nameserver $d" >>/etc/resolv.conf; done
'''


def add_modules(cpio, modules, load, carry):
    """Put modules into /modules: load is in the list of PID 1, carry waits for `need NAME`."""
    load = set(load)
    every = modules.closure(sorted(load | set(carry))) if modules else []
    cpio.mkdir('modules')
    for path in every:
        cpio.copy(f'modules/{path.name}', path)
    for name, names in [('order', sorted(load))] + [(f'order.{n}', [n]) for n in sorted(carry)]:
        paths = modules.closure(names) if modules else []
        cpio.file(f'modules/{name}', ''.join(f'{p.name}\n' for p in paths).encode())


def busybox_initrd(main, modules=None, load=(), carry=(), files=None, busybox=None):
    """An initrd whose PID 1 mounts the usual, loads modules, and sources the script main.

    load: names of modules loaded at once; carry: those the script loads by `need NAME...`.
    files: {path in the guest: bytes or host path}; busybox: another than this machine's. When main returns, PID 1 ends, which panics the
    kernel: scripts end with poweroff -f, reboot -f or a shell.
    """
    cpio = Cpio()
    for name in ('proc', 'sys', 'dev', 'tmp', 'etc', 'root', 'mnt', 'bin', 'sbin', 'newroot'):
        cpio.mkdir(name)
    cpio.node('dev/console', 'c', 5, 1)
    cpio.node('dev/null', 'c', 1, 3)
    cpio.copy('bin/busybox', busybox or busybox_path())
    for applet in APPLETS:
        cpio.symlink(f'bin/{applet}', 'busybox')
    add_modules(cpio, modules, load, carry)
    cpio.file('etc/udhcpc.sh', UDHCPC_SCRIPT.encode(), 0o755)
    cpio.file('init', _BUSYBOX_INIT.encode(), 0o755)
    cpio.file('main', main.encode() + b'\n')
    for name, what in (files or {}).items():
        if isinstance(what, bytes):
            cpio.file(name, what, 0o755)
        else:
            cpio.copy(name, what)
    return cpio.bytes()
