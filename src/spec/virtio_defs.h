/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Constants and layouts of virtio 1.2 that the core and more than one device need: status, ring
 * features, descriptor layouts, PCI transport. A device type's own numbers follow further down.
 * All fields are little-endian.
 */
#ifndef SPEC_VIRTIO_DEFS_H
#define SPEC_VIRTIO_DEFS_H

#include <stddef.h>
#include <stdint.h>

/* Device status (virtio 1.2 §2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01
#define VIRTIO_STATUS_DRIVER      0x02
#define VIRTIO_STATUS_DRIVER_OK   0x04
#define VIRTIO_STATUS_FEATURES_OK 0x08
#define VIRTIO_STATUS_NEEDS_RESET 0x40
#define VIRTIO_STATUS_FAILED      0x80

/* Feature bits of the ring and the transport (virtio 1.2 §6). */
#define VIRTIO_F_INDIRECT_DESC     28
#define VIRTIO_F_EVENT_IDX         29
#define VIRTIO_F_VERSION_1         32
#define VIRTIO_F_ACCESS_PLATFORM   33
#define VIRTIO_F_RING_PACKED       34
#define VIRTIO_F_IN_ORDER          35
#define VIRTIO_F_ORDER_PLATFORM    36
#define VIRTIO_F_SR_IOV            37
#define VIRTIO_F_NOTIFICATION_DATA 38
#define VIRTIO_F_RING_RESET        40

/* Split ring (virtio 1.2 §2.7). */
struct virtio_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};
_Static_assert(sizeof(struct virtio_desc) == 16, "virtio 1.2 §2.7.5");

#define VIRTIO_DESC_F_NEXT     0x1
#define VIRTIO_DESC_F_WRITE    0x2
#define VIRTIO_DESC_F_INDIRECT 0x4

struct virtio_avail {
    uint16_t flags;
    uint16_t idx;
    uint16_t ring[]; /* size entries, then uint16_t used_event */
};
#define VIRTIO_AVAIL_F_NO_INTERRUPT 1

struct virtio_used_elem {
    uint32_t id;
    uint32_t len;
};
struct virtio_used {
    uint16_t flags;
    uint16_t idx;
    struct virtio_used_elem ring[]; /* size entries, then uint16_t avail_event */
};
_Static_assert(sizeof(struct virtio_used_elem) == 8, "virtio 1.2 §2.7.8");
#define VIRTIO_USED_F_NO_NOTIFY 1

/* Alignment of the three areas (§2.7: split; §2.8: packed). */
#define VIRTIO_ALIGN_DESC         16
#define VIRTIO_ALIGN_AVAIL        2
#define VIRTIO_ALIGN_USED         4
#define VIRTIO_ALIGN_PACKED_EVENT 4

/* Packed ring (virtio 1.2 §2.8). */
struct virtio_packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};
_Static_assert(sizeof(struct virtio_packed_desc) == 16, "virtio 1.2 §2.8.13");

#define VIRTIO_PACKED_F_AVAIL 0x0080
#define VIRTIO_PACKED_F_USED  0x8000

struct virtio_packed_event {
    uint16_t off_wrap; /* bits 0-14 offset, bit 15 wrap counter */
    uint16_t flags;
};
_Static_assert(sizeof(struct virtio_packed_event) == 4, "virtio 1.2 §2.8.14");

#define VIRTIO_PACKED_EVENT_ENABLE  0
#define VIRTIO_PACKED_EVENT_DISABLE 1
#define VIRTIO_PACKED_EVENT_DESC    2

/* PCI transport (virtio 1.2 §4.1). */
#define VIRTIO_PCI_VENDOR      0x1af4
#define VIRTIO_PCI_DEVICE_BASE 0x1040

#define VIRTIO_PCI_CAP_COMMON 1
#define VIRTIO_PCI_CAP_NOTIFY 2
#define VIRTIO_PCI_CAP_ISR    3
#define VIRTIO_PCI_CAP_DEVICE 4
#define VIRTIO_PCI_CAP_PCI    5

/* struct virtio_pci_cap as offsets from the capability's start (§4.1.4). */
#define VIRTIO_PCI_CAP_OFF_LEN    2
#define VIRTIO_PCI_CAP_OFF_TYPE   3
#define VIRTIO_PCI_CAP_OFF_BAR    4
#define VIRTIO_PCI_CAP_OFF_OFFSET 8
#define VIRTIO_PCI_CAP_OFF_LENGTH 12
#define VIRTIO_PCI_CAP_OFF_EXTRA  16 /* notify_off_multiplier, or pci_cfg_data */
#define VIRTIO_PCI_CAP_SIZE       16

/* struct virtio_pci_common_cfg (§4.1.4.3). */
#define VIRTIO_PCI_COMMON_DEVICE_FEATURE_SELECT 0x00
#define VIRTIO_PCI_COMMON_DEVICE_FEATURE        0x04
#define VIRTIO_PCI_COMMON_DRIVER_FEATURE_SELECT 0x08
#define VIRTIO_PCI_COMMON_DRIVER_FEATURE        0x0c
#define VIRTIO_PCI_COMMON_CONFIG_MSIX_VECTOR    0x10
#define VIRTIO_PCI_COMMON_NUM_QUEUES            0x12
#define VIRTIO_PCI_COMMON_DEVICE_STATUS         0x14
#define VIRTIO_PCI_COMMON_CONFIG_GENERATION     0x15
#define VIRTIO_PCI_COMMON_QUEUE_SELECT          0x16
#define VIRTIO_PCI_COMMON_QUEUE_SIZE            0x18
#define VIRTIO_PCI_COMMON_QUEUE_MSIX_VECTOR     0x1a
#define VIRTIO_PCI_COMMON_QUEUE_ENABLE          0x1c
#define VIRTIO_PCI_COMMON_QUEUE_NOTIFY_OFF      0x1e
#define VIRTIO_PCI_COMMON_QUEUE_DESC            0x20
#define VIRTIO_PCI_COMMON_QUEUE_DRIVER          0x28
#define VIRTIO_PCI_COMMON_QUEUE_DEVICE          0x30
#define VIRTIO_PCI_COMMON_QUEUE_NOTIFY_DATA     0x38
#define VIRTIO_PCI_COMMON_QUEUE_RESET           0x3a
#define VIRTIO_PCI_COMMON_SIZE                  0x3c

#define VIRTIO_MSI_NO_VECTOR 0xffff

#define VIRTIO_PCI_ISR_QUEUE  0x1
#define VIRTIO_PCI_ISR_CONFIG 0x2

/* Device ids (§5). */
#define VIRTIO_ID_NET     1
#define VIRTIO_ID_BLOCK   2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_RNG     4
#define VIRTIO_ID_BALLOON 5
#define VIRTIO_ID_VSOCK   19
#define VIRTIO_ID_FS      26

/* Block device (§5.2). */
#define VIRTIO_BLK_F_SIZE_MAX     1
#define VIRTIO_BLK_F_SEG_MAX      2
#define VIRTIO_BLK_F_GEOMETRY     4
#define VIRTIO_BLK_F_RO           5
#define VIRTIO_BLK_F_BLK_SIZE     6
#define VIRTIO_BLK_F_FLUSH        9
#define VIRTIO_BLK_F_TOPOLOGY     10
#define VIRTIO_BLK_F_CONFIG_WCE   11
#define VIRTIO_BLK_F_MQ           12
#define VIRTIO_BLK_F_DISCARD      13
#define VIRTIO_BLK_F_WRITE_ZEROES 14

#define VIRTIO_BLK_T_IN           0
#define VIRTIO_BLK_T_OUT          1
#define VIRTIO_BLK_T_FLUSH        4
#define VIRTIO_BLK_T_GET_ID       8
#define VIRTIO_BLK_T_DISCARD      11
#define VIRTIO_BLK_T_WRITE_ZEROES 13

#define VIRTIO_BLK_S_OK     0
#define VIRTIO_BLK_S_IOERR  1
#define VIRTIO_BLK_S_UNSUPP 2

#define VIRTIO_BLK_SECTOR_BITS 9
#define VIRTIO_BLK_ID_SIZE     20
#define VIRTIO_BLK_WZ_F_UNMAP  0x1u

struct virtio_blk_outhdr {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};
_Static_assert(sizeof(struct virtio_blk_outhdr) == 16, "virtio 1.2 §5.2.6");

struct virtio_blk_range {
    uint64_t sector;
    uint32_t num_sectors;
    uint32_t flags;
};
_Static_assert(sizeof(struct virtio_blk_range) == 16, "virtio 1.2 §5.2.6");

/* Offsets in the configuration (§5.2.4); the struct has unaligned tails, so no C struct. */
#define VIRTIO_BLK_CFG_CAPACITY               0
#define VIRTIO_BLK_CFG_SIZE_MAX               8
#define VIRTIO_BLK_CFG_SEG_MAX                12
#define VIRTIO_BLK_CFG_GEOMETRY               16
#define VIRTIO_BLK_CFG_BLK_SIZE               20
#define VIRTIO_BLK_CFG_PHYSICAL_EXP           24
#define VIRTIO_BLK_CFG_ALIGNMENT_OFFSET       25
#define VIRTIO_BLK_CFG_MIN_IO_SIZE            26
#define VIRTIO_BLK_CFG_OPT_IO_SIZE            28
#define VIRTIO_BLK_CFG_WRITEBACK              32
#define VIRTIO_BLK_CFG_NUM_QUEUES             34
#define VIRTIO_BLK_CFG_MAX_DISCARD_SECTORS    36
#define VIRTIO_BLK_CFG_MAX_DISCARD_SEG        40
#define VIRTIO_BLK_CFG_DISCARD_ALIGN          44
#define VIRTIO_BLK_CFG_MAX_WRITE_ZEROES       48
#define VIRTIO_BLK_CFG_MAX_WRITE_ZEROES_SEG   52
#define VIRTIO_BLK_CFG_WRITE_ZEROES_MAY_UNMAP 56
#define VIRTIO_BLK_CFG_SIZE                   60

#endif
