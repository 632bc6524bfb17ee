/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attacks by what is in the rings; see virtio_attacks.def. */
#include "spec/virtio_defs.h"
#include "vmm/virtio/virtio_attack.h"

#define N VIRTIO_DESC_F_NEXT
#define W VIRTIO_DESC_F_WRITE
#define I VIRTIO_DESC_F_INDIRECT

/* ---- Chains ---- */

void virtio_attack_loop_self(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 16, N, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_loop_pair(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 16, N, 1);
    virtio_attack_desc(c, 1, c->buf, 16, N, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_loop_whole_ring(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < c->q->size; i++) {
        virtio_attack_desc(c, i, c->buf, 16, N, (uint16_t)((i + 1) % c->q->size));
    }
    virtio_attack_go(c, 3);
}

void virtio_attack_chain_longer_than_ring(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < c->q->size; i++) {
        virtio_attack_desc(c, i, c->buf, 16, N, 0);
    }
    virtio_attack_go(c, 0);
}

void virtio_attack_chain_into_old_slots(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 16, N, 0); /* slot 1 was never made available */
    virtio_attack_go(c, 0);
}

void virtio_attack_next_is_size(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 16, N, c->q->size);
    virtio_attack_go(c, 0);
}

void virtio_attack_next_is_65535(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 16, N, UINT16_MAX);
    virtio_attack_go(c, 0);
}

void virtio_attack_head_is_size(struct virtio_attack_ctx *c)
{
    virtio_attack_go(c, c->q->size);
}

void virtio_attack_head_is_65535(struct virtio_attack_ctx *c)
{
    virtio_attack_go(c, UINT16_MAX);
}

void virtio_attack_chain_of_whole_ring(struct virtio_attack_ctx *c)
{
    for (unsigned i = 0; i < c->q->size; i++) {
        bool last = i + 1 == c->q->size;
        virtio_attack_desc(c, i, c->buf + i, 1, last ? W : N, (uint16_t)(i + 1));
    }
    virtio_attack_go(c, 0);
}

static void set_avail(struct virtio_attack_ctx *c, unsigned idx)
{
    le16_put(virtio_harness_ptr(c->vh, c->q->driver + 2), (uint16_t)idx);
    virtio_attack_kick(c);
}

void virtio_attack_one_head_many_times(struct virtio_attack_ctx *c)
{
    /* The ring's entries are all 0: the same chain `size` times. */
    virtio_attack_desc(c, 0, c->buf, 64, W, 0);
    set_avail(c, c->q->size);
}

void virtio_attack_avail_jumps_past_size(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 64, W, 0);
    set_avail(c, c->q->size + 1);
}

void virtio_attack_avail_jumps_half_way(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 64, W, 0);
    set_avail(c, 32768);
}

void virtio_attack_avail_goes_back(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 64, W, 0);
    set_avail(c, UINT16_MAX);
}

void virtio_attack_avail_floods(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 64, W, 0);
    for (unsigned i = 1; i < 200; i++) {
        set_avail(c, i * c->q->size);
    }
}

void virtio_attack_slots_remarked(struct virtio_attack_ctx *c)
{
    /* Every slot available again at once, with no regard to what the device still has. */
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < c->q->size; i++) {
            virtio_attack_desc(c, i, c->buf, 64, W, (uint16_t)i);
        }
        c->q->avail_wrap = !c->q->avail_wrap;
        virtio_attack_kick(c);
    }
}

void virtio_attack_flags_all_ones(struct virtio_attack_ctx *c)
{
    /* AVAIL and USED equal: not available, whatever else is set. */
    for (unsigned i = 0; i < c->q->size; i++) {
        virtio_attack_entry(c, c->q->desc, i, UINT64_MAX, UINT32_MAX, UINT16_MAX, UINT16_MAX);
    }
    virtio_attack_kick(c);
}

void virtio_attack_id_is_65535(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 64, W, UINT16_MAX);
    virtio_attack_go(c, 0);
}

/* ---- Buffers ---- */

static void one_buffer(struct virtio_attack_ctx *c, uint64_t addr, uint32_t len)
{
    /* Readable first, so that a device which needs a header gets so far as to map the next. */
    virtio_attack_desc(c, 0, c->buf, 64, N, 1);
    virtio_attack_desc(c, 1, addr, len, W, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_length_zero(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 0, 0, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_length_4g(struct virtio_attack_ctx *c)
{
    one_buffer(c, 0, UINT32_MAX);
}

void virtio_attack_address_wraps(struct virtio_attack_ctx *c)
{
    one_buffer(c, UINT64_MAX - 15, 32);
}

void virtio_attack_address_past_ram(struct virtio_attack_ctx *c)
{
    one_buffer(c, c->vh->h.ram_size - 8, 16);
}

void virtio_attack_address_in_hole(struct virtio_attack_ctx *c)
{
    one_buffer(c, BIT64(40), 1);
}

void virtio_attack_address_top(struct virtio_attack_ctx *c)
{
    one_buffer(c, UINT64_MAX, 1);
}

void virtio_attack_dma_to_own_registers(struct virtio_attack_ctx *c)
{
    one_buffer(c, c->vh->common, 64);
}

void virtio_attack_dma_to_own_msix_table(struct virtio_attack_ctx *c)
{
    one_buffer(c, c->vh->msix, 16);
}

void virtio_attack_dma_to_ecam(struct virtio_attack_ctx *c)
{
    one_buffer(c, VIRTIO_HARNESS_ECAM, 4096);
}

void virtio_attack_dma_to_msi_window(struct virtio_attack_ctx *c)
{
    one_buffer(c, UINT64_C(0xfee00000), 4);
}

void virtio_attack_readable_behind_writable(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, 64, N, 1);
    virtio_attack_desc(c, 1, c->buf + 64, 64, W | N, 2);
    virtio_attack_desc(c, 2, c->buf + 128, 64, 0, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_only_readable(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, (uint32_t)VIRTIO_ATTACK_BUF, 0, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_only_writable(struct virtio_attack_ctx *c)
{
    virtio_attack_desc(c, 0, c->buf, (uint32_t)VIRTIO_ATTACK_BUF, W, 0);
    virtio_attack_go(c, 0);
}

void virtio_attack_more_than_4g_in_sum(struct virtio_attack_ctx *c)
{
    uint64_t ram = c->vh->h.ram_size;
    uint64_t table = virtio_harness_alloc(c->vh, 16 * 1024, 16);
    for (unsigned i = 0; i < 1024; i++) {
        virtio_attack_entry(c, table, i, 0, (uint32_t)ram, i < 1023 ? N : 0, (uint16_t)(i + 1));
    }
    virtio_attack_desc(c, 0, table, 16 * 1024, I, 0);
    virtio_attack_go(c, 0);
}

/* ---- Indirect tables ---- */

static void indirect(struct virtio_attack_ctx *c, uint64_t table, uint32_t len, uint16_t flags)
{
    virtio_attack_desc(c, 0, table, len, I | flags, 1);
    virtio_attack_desc(c, 1, c->buf, 16, 0, 0);
    virtio_attack_go(c, 0);
}

static uint64_t table_of(struct virtio_attack_ctx *c, unsigned entries)
{
    uint64_t table = virtio_harness_alloc(c->vh, 16 * (uint64_t)entries, 16);
    for (unsigned i = 0; i < entries; i++) {
        bool last = i + 1 == entries;
        virtio_attack_entry(c, table, i, c->buf + 16 * i, 16, last ? 0 : N, (uint16_t)(i + 1));
    }
    return table;
}

void virtio_attack_indirect_odd_length(struct virtio_attack_ctx *c)
{
    indirect(c, table_of(c, 2), 31, 0);
}

void virtio_attack_indirect_length_zero(struct virtio_attack_ctx *c)
{
    indirect(c, table_of(c, 2), 0, 0);
}

void virtio_attack_indirect_too_long(struct virtio_attack_ctx *c)
{
    indirect(c, table_of(c, 1025), 16 * 1025, 0);
}

void virtio_attack_indirect_length_4g(struct virtio_attack_ctx *c)
{
    indirect(c, table_of(c, 2), UINT32_MAX & ~15u, 0);
}

void virtio_attack_indirect_in_indirect(struct virtio_attack_ctx *c)
{
    uint64_t table = table_of(c, 2);
    virtio_attack_entry(c, table, 0, table, 32, I, 0);
    indirect(c, table, 32, 0);
}

void virtio_attack_indirect_with_next(struct virtio_attack_ctx *c)
{
    indirect(c, table_of(c, 2), 32, N);
}

void virtio_attack_indirect_outside_ram(struct virtio_attack_ctx *c)
{
    indirect(c, BIT64(40), 32, 0);
}

void virtio_attack_indirect_wraps(struct virtio_attack_ctx *c)
{
    indirect(c, UINT64_MAX - 15, 32, 0);
}

void virtio_attack_indirect_across_end_of_ram(struct virtio_attack_ctx *c)
{
    uint64_t table = c->vh->h.ram_size - 16;
    uint8_t *at = virtio_harness_ptr(c->vh, table);
    uint8_t keep[16];
    memcpy(keep, at, sizeof(keep)); /* part of the canary */
    virtio_attack_entry(c, table, 0, c->buf, 16, N, 1);
    indirect(c, table, 32, 0);
    memcpy(at, keep, sizeof(keep));
}

void virtio_attack_indirect_loop(struct virtio_attack_ctx *c)
{
    uint64_t table = table_of(c, 3);
    virtio_attack_entry(c, table, 2, c->buf, 16, N, 0);
    indirect(c, table, 48, 0);
}

void virtio_attack_indirect_next_is_count(struct virtio_attack_ctx *c)
{
    uint64_t table = table_of(c, 3);
    virtio_attack_entry(c, table, 1, c->buf, 16, N, 3);
    indirect(c, table, 48, 0);
}

void virtio_attack_indirect_not_negotiated(struct virtio_attack_ctx *c)
{
    unsigned index = c->q->index;
    virtio_harness_start(c->vh, c->vh->features & ~BIT64(VIRTIO_F_INDIRECT_DESC), c->q->size);
    c->q = c->vh->queue[index];
    c->buf = virtio_harness_alloc(c->vh, VIRTIO_ATTACK_BUF, 4096);
    indirect(c, table_of(c, 2), 32, 0);
}

void virtio_attack_indirect_over_its_own_buffer(struct virtio_attack_ctx *c)
{
    uint64_t table = table_of(c, 4);
    virtio_attack_entry(c, table, 1, table, 64, W | N, 2); /* the device writes its own table */
    virtio_attack_entry(c, table, 2, table, 64, W | N, 3);
    virtio_attack_entry(c, table, 3, table, 64, W, 0);
    indirect(c, table, 64, 0);
}

/* ---- The ring as a buffer, and changes behind the device's back ---- */

static void buffer_is(struct virtio_attack_ctx *c, uint64_t area, uint32_t len)
{
    for (unsigned round = 0; round < 20; round++) {
        virtio_attack_desc(c, 0, c->buf, 16, N, 1);
        virtio_attack_desc(c, 1, area, len, W, 0);
        virtio_attack_go(c, 0);
    }
}

void virtio_attack_buffer_is_desc_area(struct virtio_attack_ctx *c)
{
    buffer_is(c, c->q->desc, 16u * c->q->size);
}

void virtio_attack_buffer_is_driver_area(struct virtio_attack_ctx *c)
{
    buffer_is(c, c->q->driver, c->q->packed ? 4 : 6 + 2u * c->q->size);
}

void virtio_attack_buffer_is_device_area(struct virtio_attack_ctx *c)
{
    buffer_is(c, c->q->device, c->q->packed ? 4 : 6 + 8u * c->q->size);
}

void virtio_attack_changed_after_kick(struct virtio_attack_ctx *c)
{
    /* What a second vCPU would do: other contents between the kick and each look. */
    for (unsigned i = 0; i < 200; i++) {
        virtio_attack_desc(c, 0, c->buf, 64, N, 1);
        virtio_attack_desc(c, 1, c->buf + 64, 64, W, 0);
        virtio_hq_ring(c->q);
        virtio_attack_desc(c, 1, i % 3 == 0 ? c->buf : BIT64(i % 64), 64 << (i % 16), W | N,
                           (uint16_t)(i % 20));
        virtio_attack_go(c, i % 18);
    }
}

void virtio_attack_event_words_random(struct virtio_attack_ctx *c)
{
    uint64_t x = 88172645463325252u;
    for (unsigned i = 0; i < 300; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint64_t event = c->q->packed ? c->q->driver : c->q->driver + 4 + 2u * c->q->size;
        le16_put(virtio_harness_ptr(c->vh, event), (uint16_t)x);
        le16_put(virtio_harness_ptr(c->vh, c->q->packed ? event + 2 : c->q->driver),
                 (uint16_t)(x >> 16));
        virtio_attack_desc(c, i % c->q->size, c->buf, 64, W, 0);
        virtio_attack_go(c, i % c->q->size);
    }
}
