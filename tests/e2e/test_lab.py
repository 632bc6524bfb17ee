# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab itself: its KVM boots Debian's kernel under a program that is not ours."""
import fcntl
import os

import pytest

import vmtest

pytestmark = [pytest.mark.kvm, pytest.mark.hardware]

KVM_GET_API_VERSION = 0xae00


def test_kvm_is_the_real_one():
    fd = os.open('/dev/kvm', os.O_RDWR)
    try:
        assert fcntl.ioctl(fd, KVM_GET_API_VERSION) == 12
    finally:
        os.close(fd)
    assert os.path.isdir('/sys/module/kvm_amd') or os.path.isdir('/sys/module/kvm_intel')


@pytest.mark.seconds(90)
def test_qemu_boots_a_guest(posada):
    peer = posada.qemu_boot('need virtio_pci; echo READY $(nproc); poweroff -f; sleep 9', cpus=2)
    assert peer.expect(r'READY (\d)', vmtest.BOOT_SECONDS).group(1) == b'2'
    assert peer.wait(20) == 0
