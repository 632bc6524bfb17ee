/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/gpt.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#include <zlib.h>

#define GPT_ENTRIES     128
#define GPT_ENTRY_SIZE  128
#define GPT_ARRAY_SIZE  (GPT_ENTRIES * GPT_ENTRY_SIZE)
#define GPT_HEADER_SIZE 92
#define GPT_FIRST_LBA   34
#define GPT_LAST_SPARE  2048 /* sectors kept free at the end: the second table, rounded to 1 MiB */

/* UEFI 2.10 table 5.7, and the Discoverable Partitions Specification for the root (amd64). */
#define GPT_TYPE_BIOS "21686148-6449-6e6f-744e-656564454649"
#define GPT_TYPE_ESP  "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
#define GPT_TYPE_ROOT "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
#define GPT_TYPE_DATA "0fc63daf-8483-4772-8e79-3d69d8477de4"

uint64_t gpt_root_size(uint64_t size)
{
    return bits_align_down(size - GPT_ROOT_START - GPT_LAST_SPARE * GPT_SECTOR, MIB);
}

/* The first three fields of a UUID are little-endian in a GPT (UEFI 2.10 appendix A). */
static void gpt_uuid(const char *text, uint8_t out[16])
{
    static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    unsigned n = 0;
    for (const char *p = text; *p != '\0' && n < 16;) {
        unsigned byte = 0;
        if (*p == '-') {
            p++;
            continue;
        }
        (void)sscanf(p, "%2x", &byte); /* our own texts: always hex */
        out[order[n++]] = (uint8_t)byte;
        p += 2;
    }
}

static void gpt_entry(uint8_t *e, const char *type, const char *uuid, uint64_t start, uint64_t size,
                      uint64_t flags, const char *name)
{
    gpt_uuid(type, e);
    gpt_uuid(uuid, e + 16);
    le64_put(e + 32, start / GPT_SECTOR);
    le64_put(e + 40, (start + size) / GPT_SECTOR - 1);
    le64_put(e + 48, flags);
    for (unsigned i = 0; name[i] != '\0'; i++) {
        le16_put(e + 56 + (size_t)2 * i, (uint16_t)name[i]);
    }
}

/* UEFI 2.10 table 5.5. */
static void gpt_header(uint8_t *h, uint64_t sectors, bool second, const char *disk,
                       uint32_t entries_crc)
{
    memset(h, 0, GPT_SECTOR);
    memcpy(h, "EFI PART", 8);
    le32_put(h + 8, 0x00010000);
    le32_put(h + 12, GPT_HEADER_SIZE);
    le64_put(h + 24, second ? sectors - 1 : 1);
    le64_put(h + 32, second ? 1 : sectors - 1);
    le64_put(h + 40, GPT_FIRST_LBA);
    le64_put(h + 48, sectors - GPT_FIRST_LBA);
    gpt_uuid(disk, h + 56);
    le64_put(h + 72, second ? sectors - 33 : 2);
    le32_put(h + 80, GPT_ENTRIES);
    le32_put(h + 84, GPT_ENTRY_SIZE);
    le32_put(h + 88, entries_crc);
    le32_put(h + 16, (uint32_t)crc32(0, h, GPT_HEADER_SIZE));
}

/* UEFI 2.10 table 5.4, and the signature. */
static void gpt_mbr(uint8_t *m, uint64_t sectors)
{
    memset(m, 0, GPT_SECTOR - 440);
    uint8_t *e = m + 6;
    e[2] = 0x02;
    e[4] = 0xee;
    memset(e + 5, 0xff, 3);
    le32_put(e + 8, 1);
    le32_put(e + 12, (uint32_t)MIN(sectors - 1, UINT64_C(0xffffffff)));
    m[70] = 0x55;
    m[71] = 0xaa;
}

static int gpt_put(int fd, uint64_t offset, const void *data, size_t len)
{
    return pwrite(fd, data, len, (off_t)offset) == (ssize_t)len ? 0 : errno != 0 ? -errno : -EIO;
}

int gpt_write(int fd, uint64_t size, const struct gpt_uuids *uuids, struct err *err)
{
    uint8_t entries[GPT_ARRAY_SIZE] = { 0 };
    uint8_t sector[GPT_SECTOR];
    uint64_t sectors = size / GPT_SECTOR;
    gpt_entry(entries, GPT_TYPE_BIOS, uuids->part[0], GPT_BIOS_START, GPT_BIOS_SIZE, 0, "bios");
    gpt_entry(entries + GPT_ENTRY_SIZE, GPT_TYPE_ESP, uuids->part[1], GPT_ESP_START, GPT_ESP_SIZE,
              0, "esp");
    gpt_entry(entries + (size_t)2 * GPT_ENTRY_SIZE, GPT_TYPE_ROOT, uuids->part[2], GPT_ROOT_START,
              gpt_root_size(size), 0, "root");
    uint32_t crc = (uint32_t)crc32(0, entries, sizeof(entries));
    gpt_mbr(sector, sectors);
    int rc = gpt_put(fd, 440, sector, GPT_SECTOR - 440);
    gpt_header(sector, sectors, false, uuids->disk, crc);
    rc = rc < 0 ? rc : gpt_put(fd, GPT_SECTOR, sector, sizeof(sector));
    rc = rc < 0 ? rc : gpt_put(fd, UINT64_C(2) * GPT_SECTOR, entries, sizeof(entries));
    gpt_header(sector, sectors, true, uuids->disk, crc);
    rc = rc < 0 ? rc : gpt_put(fd, size - GPT_SECTOR, sector, sizeof(sector));
    rc = rc < 0 ? rc : gpt_put(fd, size - UINT64_C(33) * GPT_SECTOR, entries, sizeof(entries));
    return rc < 0 ? err_set_errno(err, rc, "writing the partition table") : 0;
}

int gpt_find_linux(int fd, uint64_t *ret_offset, struct err *err)
{
    uint8_t entries[GPT_ARRAY_SIZE];
    uint8_t header[GPT_SECTOR];
    uint8_t root[16];
    uint8_t data[16];
    gpt_uuid(GPT_TYPE_ROOT, root);
    gpt_uuid(GPT_TYPE_DATA, data);
    if (pread(fd, header, sizeof(header), GPT_SECTOR) == sizeof(header) &&
        memcmp(header, "EFI PART", 8) == 0 &&
        pread(fd, entries, sizeof(entries), 2 * GPT_SECTOR) == sizeof(entries)) {
        for (unsigned i = 0; i < GPT_ENTRIES; i++) {
            const uint8_t *e = entries + (size_t)i * GPT_ENTRY_SIZE;
            uint64_t start = le64_get(e + 32);
            if ((memcmp(e, root, 16) == 0 || memcmp(e, data, 16) == 0) &&
                start < UINT64_MAX / GPT_SECTOR / 2) {
                *ret_offset = start * GPT_SECTOR;
                return 0;
            }
        }
    }
    return err_set(err, -ENOENT, "the disk has no GPT with a Linux partition");
}
