#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the lab and the end-to-end tests boot: kernels, initial RAM disks, a Debian disk.

Each artefact lies in the cache under a name that carries a hash of what it was made from, so a
changed recipe makes a new one and an unchanged recipe costs nothing. The cache is $POSADA_CACHE,
else build/lab-cache. Nothing is installed on the machine: packages are downloaded and unpacked.

    artefacts.py all         build everything, print the paths
    artefacts.py basic       all but the Debian disk, which takes minutes
    artefacts.py NAME...     only those named (the table ALL at the end)
"""
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path.insert(0, str(HERE))

import initrd  # noqa: E402  (found beside this file)

# The genuine KVM, what carries files into the lab (9p, overlay), networks and a scratch disk.
LAB_MODULES = ('virtio_pci', '9pnet_virtio', '9p', 'overlay', 'virtio_blk', 'virtio_console', 'ext4',
               'kvm_amd', 'tun', 'bridge', 'veth', 'vhost_net', 'loop')
GUEST_MODULES = ('virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_balloon',
                 'virtio_rng', 'vmw_vsock_virtio_transport', 'button', 'evdev', 'pvpanic_mmio', 'pvpanic_pci',
                 'qemu_fw_cfg', 'af_packet')
GUEST_DISK_MODULES = ('virtio_pci', 'virtio_blk', 'ext4')
DEBIAN_PACKAGES = ('linux-image-cloud-amd64,systemd-sysv,udev,kmod,login,passwd,iproute2,dbus,'
                   'e2fsprogs,python3-minimal,netcat-openbsd')
DEBIAN_MIB = 768


def cache_dir():
    path = pathlib.Path(os.environ.get('POSADA_CACHE') or TOP / 'build' / 'lab-cache')
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(text):
    print(f'artefacts: {text}', file=sys.stderr, flush=True)


def run(*argv, **kwargs):
    return subprocess.run(argv, check=True, **kwargs)


@contextlib.contextmanager
def _locked(name):
    with open(cache_dir() / f'.{name}.lock', 'w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _cached(name, inputs, make):
    """The artefact name-HASH in the cache, made by make(path) when it is not there yet."""
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]
    path = cache_dir() / f'{name}-{digest}'
    if path.exists():
        return path
    with _locked(name):
        if path.exists():
            return path
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=f'.{name}-') as tmp:
            made = pathlib.Path(tmp) / 'new'
            make(made)
            made.rename(path)
        say(f'{path.name} made in {time.monotonic() - started:.1f} s')
    return path


META_PACKAGES = {'kernel': 'linux-image-amd64', 'cloud': 'linux-image-cloud-amd64',
                 'i386': 'linux-image-686'}


def _apt_options(flavour):
    """Options of apt for the packages of a flavour.

    Those of i386 have lists of their own in the cache: the machine's dpkg and apt do not learn of
    a second architecture.
    """
    options = ['-qq', '-o', 'APT::Sandbox::User=root']
    if flavour != 'i386':
        return options
    state = cache_dir() / '.apt-i386'
    (state / 'lists' / 'partial').mkdir(parents=True, exist_ok=True)
    (state / 'archives' / 'partial').mkdir(parents=True, exist_ok=True)
    (state / 'status').touch()
    for name, value in (('APT::Architecture', 'i386'), ('APT::Architectures', 'i386'),
                        ('Dir::State', state), ('Dir::State::status', state / 'status'),
                        ('Dir::Cache', state), ('Acquire::Languages', 'none')):
        options += ['-o', f'{name}={value}']
    return options


def _apt_update(flavour):
    """A mirror in the middle of its own update gives some lists: enough, if what we need is there."""
    code = subprocess.run(['apt-get', *_apt_options(flavour), 'update'], check=False).returncode
    if code != 0:
        say(f'apt-get update: exit code {code}')


def _package_of(flavour):
    """linux-image-amd64 is empty and depends on the kernel of the day: that one's name."""
    meta = META_PACKAGES[flavour]
    for update in (False, True):
        if update:
            _apt_update(flavour)
        out = subprocess.run(['apt-cache', *_apt_options(flavour), 'show', '--no-all-versions', meta],
                             check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True)
        found = re.search(r'^Depends:.*?(linux-image-[0-9][^ ,]*)', out.stdout, re.M)
        if found:
            return found.group(1)
    raise RuntimeError(f'apt-cache show {meta}: names no kernel package')


def unpack(flavour, package, path):
    """Downloads a package and unpacks it into the directory path."""
    with tempfile.TemporaryDirectory() as tmp:
        download = ['apt-get', *_apt_options(flavour), 'download', package]
        if subprocess.run(download, cwd=tmp, check=False).returncode != 0:
            _apt_update(flavour)
            run(*download, cwd=tmp)
        deb, = pathlib.Path(tmp).glob('*.deb')
        run('dpkg-deb', '-x', str(deb), str(path))


def kernel(flavour):
    """Directory of an unpacked Debian kernel of a flavour: see META_PACKAGES.

    A kernel already in the cache is used as it is, so tests need no network once set up.
    """
    have = sorted(cache_dir().glob(f'{flavour}-linux-image-*'))
    if have:
        return have[-1]
    package = _package_of(flavour)

    def make(path):
        unpack(flavour, package, path)
        if flavour == 'i386':
            shutil.rmtree(path / 'lib')         # its guest needs no module
        # Sounds, graphics and the like would be a third of a gigabyte of cache.
        for part in ('sound', 'drivers/gpu', 'drivers/media', 'drivers/staging',
                     'drivers/infiniband', 'drivers/iio', 'drivers/scsi'):
            for tree in path.glob(f'lib/modules/*/kernel/{part}'):
                shutil.rmtree(tree)

    return _cached(f'{flavour}-{package}', package, make)


def vmlinuz(flavour):
    path, = kernel(flavour).glob('boot/vmlinuz-*')
    return path


def modules(flavour):
    return initrd.Modules(kernel(flavour) / 'lib' / 'modules')


def guest_initrd(name, main, load=(), carry=(), files=None):
    """Path of a busybox initrd for the cloud kernel; see initrd.busybox_initrd."""
    key = [main, sorted(load), sorted(carry), str(kernel('cloud')),
           (HERE / 'initrd.py').read_bytes()]
    for where, what in sorted((files or {}).items()):
        key.append((where, what if isinstance(what, bytes) else pathlib.Path(what).read_bytes()))

    def make(path):
        path.write_bytes(initrd.busybox_initrd(main, modules('cloud'), load, carry, files))

    return _cached(f'guest-{name}.cpio', key, make)


def guesttool():
    """Path of tests/e2e/guesttool.c, linked statically."""
    source = TOP / 'tests' / 'e2e' / 'guesttool.c'
    return _cached('guesttool', source.read_bytes(), lambda path: run(
        'cc', '-D_GNU_SOURCE', '-O2', '-Wall', '-static', '-s', '-o', str(path), str(source)))


def bench_guest():
    """Path of the programs of bench/guest, linked statically into one."""
    sources = sorted((TOP / 'bench' / 'guest').glob('*.[ch]'))
    flags = ['-std=gnu17', '-D_GNU_SOURCE', '-O2', '-fno-math-errno', '-ffp-contract=off', '-Wall',
             '-Wextra', '-static', '-pthread', '-s']
    return _cached('bench-guest', [flags, [p.read_bytes() for p in sources]], lambda path: run(
        'cc', *flags, '-o', str(path), *(str(p) for p in sources if p.suffix == '.c')))


def bench_initrd():
    """An initrd whose init is bench_guest() and nothing else."""
    def make(path):
        cpio = initrd.Cpio()
        cpio.node('dev/console', 'c', 5, 1)
        cpio.node('dev/null', 'c', 1, 3)
        cpio.copy('init', bench_guest())
        path.write_bytes(cpio.bytes())

    return _cached('guest-bench.cpio', [bench_guest().name, (HERE / 'initrd.py').read_bytes()], make)


def act_guest(protocol):
    """Path of tests/guest/act.asm as a kernel; protocol: 'multiboot' or 'pvh'."""
    source = TOP / 'tests' / 'guest' / 'act.asm'
    define = ['-DPVH'] if protocol == 'pvh' else []

    def make(path):
        run('nasm', '-f', 'elf32', *define, '-o', f'{path}.o', str(source))
        run('ld', '-n', '-m', 'elf_i386', '-e', 'start', '-Ttext-segment=0x100000',
            '--no-warn-rwx-segments', '--build-id=none', '-o', str(path),
            f'{path}.o')

    return _cached(f'act-{protocol}', [protocol, source.read_bytes()], make)


# Guests of tests/guest that test the CPU, with the number of vCPUs they want.
CPU_GUESTS = {'real': 1, 'prot': 1, 'long': 1, 'smp': 4}


def cpu_guest(name):
    """Path of tests/guest/NAME.asm as a multiboot kernel."""
    source = TOP / 'tests' / 'guest' / f'{name}.asm'
    key = [source.read_bytes(), (source.parent / 'guest.inc').read_bytes()]
    return _cached(f'guest-{name}.bin', key, lambda path: run(
        'nasm', '-Wall', '-Werror', '-f', 'bin', '-I', f'{source.parent}/', '-o', str(path),
        str(source)))


def test_initrd():
    """An initrd that runs the script given as posada.main=BASE64 on the kernel command line.

    Modules are aboard but not loaded; the script says `need virtio_net`.
    """
    return guest_initrd('test', _TEST_MAIN, carry=GUEST_MODULES,
                        files={'bin/guesttool': guesttool()})


def ready_initrd():
    """An initrd that says READY as its first act: for measuring the time to init."""
    return guest_initrd('ready', 'echo READY\npoweroff -f\nsleep 9')


def i386_initrd():
    """What test_initrd() is, of 32-bit programs and without modules, for the i386 kernel."""
    have = sorted(cache_dir().glob('i386-busybox-*'))
    tree = have[-1] if have else _cached(
        'i386-busybox', '', lambda path: unpack('i386', 'busybox-static', path))
    busybox = tree / 'bin' / 'busybox'
    key = [_TEST_MAIN, busybox.read_bytes(), (HERE / 'initrd.py').read_bytes()]
    return _cached('guest-i386.cpio', key, lambda path: path.write_bytes(
        initrd.busybox_initrd(_TEST_MAIN, busybox=busybox)))


def memtest():
    """Path of memtest86+ as a kernel of the Linux boot protocol."""
    have = sorted(cache_dir().glob('memtest-*'))
    tree = have[-1] if have else _cached('memtest', '',
                                         lambda path: unpack('cloud', 'memtest86+', path))
    return tree / 'boot' / 'memtest86+x64.bin'


def shell_initrd():
    """An initrd with all drivers loaded and a shell on the console."""
    return guest_initrd('shell', _SHELL_MAIN, load=GUEST_MODULES)


def lab_initrd():
    """The lab's first root: busybox, modules, tests/lab/init."""
    script = (HERE / 'init').read_text()

    def make(path):
        path.write_bytes(initrd.busybox_initrd(script, modules('kernel'), load=LAB_MODULES))

    return _cached('lab.cpio', [script, LAB_MODULES, str(kernel('kernel')),
                                (HERE / 'initrd.py').read_bytes()], make)


_TEST_MAIN = '''
sed -n 's/.*posada\\.main=\\([^ ]*\\).*/\\1/p' /proc/cmdline | base64 -d >/script
. /script
'''

_SHELL_MAIN = '''
dev=$(ls /sys/class/net | grep -v lo | head -1)
[ -n "$dev" ] && ip link set $dev up && udhcpc -q -i $dev -s /etc/udhcpc.sh >/dev/null 2>&1
echo; echo "This is a guest of posada. Leave it with: poweroff -f, or Ctrl-A x"
while :; do setsid cttyhack sh; done
'''

_DISK_MAIN = '''
mount -t ext4 -o ro /dev/vda /newroot || exec sh
umount /dev/pts
mount --move /dev /newroot/dev
mount --move /proc /newroot/proc
mount --move /sys /newroot/sys
exec switch_root /newroot /sbin/init
'''


def disk_initrd():
    """An initrd that mounts /dev/vda and hands over to its /sbin/init."""
    return guest_initrd('disk', _DISK_MAIN, GUEST_DISK_MODULES)


def debian_disk():
    """Path of a raw ext4 disk with Debian, systemd, a serial login (root, no password), networkd.

    Copy it before use: tests write to it.
    """
    custom = HERE / 'debian-customize'
    key = [DEBIAN_PACKAGES, DEBIAN_MIB, custom.read_bytes()]

    def make(path):
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix='.debian-') as tmp:
            tar = pathlib.Path(tmp) / 'root.tar'
            tree = pathlib.Path(tmp) / 'root'
            run('mmdebstrap', '--quiet', '--variant=minbase', f'--include={DEBIAN_PACKAGES}',
                '--dpkgopt=path-exclude=/usr/share/doc/*', '--dpkgopt=path-exclude=/usr/share/man/*',
                '--dpkgopt=path-exclude=/usr/share/locale/*', f'--customize-hook={custom} "$1"',
                'bookworm', str(tar))
            tree.mkdir()
            run('tar', '-xf', str(tar), '-C', str(tree), '--numeric-owner')
            run('mke2fs', '-q', '-t', 'ext4', '-L', 'debian', '-E', 'lazy_itable_init=0',
                '-d', str(tree), str(path), f'{DEBIAN_MIB}M')

    return _cached('debian.raw', key, make)


ALL = {
    'kernel': lambda: vmlinuz('kernel'),
    'cloud': lambda: vmlinuz('cloud'),
    'lab-initrd': lab_initrd,
    'disk-initrd': disk_initrd,
    'test-initrd': test_initrd,
    'ready-initrd': ready_initrd,
    'shell-initrd': shell_initrd,
    'bench-initrd': bench_initrd,
    'i386': lambda: vmlinuz('i386'),
    'i386-initrd': i386_initrd,
    'memtest': memtest,
    'multiboot-guest': lambda: act_guest('multiboot'),
    'pvh-guest': lambda: act_guest('pvh'),
    'debian': debian_disk,
}


def main(argv):
    wanted = argv[1:] or ['all']
    names = [n for n in ALL if wanted == ['all'] or n in wanted]
    if wanted == ['basic']:
        names, wanted = [n for n in ALL if n != 'debian'], []
    for name in wanted:
        if name not in ALL and name != 'all':
            print(f'artefacts: {name}: not one of all, basic, {", ".join(ALL)}', file=sys.stderr)
            return 2
    for name in names:
        print(f'{name} {ALL[name]()}', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv))
