/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Evil OVA archives: a row is the archive's members. */
#include "evil.h"

#include "base/cleanup.h"
#include "block/ova/ova_int.h"

struct member {
    const char *name; /* NULL: no more */
    char type;
    const char *data;
    uint64_t claims; /* the size in the header, where it is not that of the data */
};

/* clang-format off */
static const struct ova_row {
    const char *what;
    const char *refusal;
    struct member members[4];
    const char *repeat; /* behind the last member's data, 100,000 times */
} rows[] = {
#define OVF(what, refusal, xml) { "OVA: " what, refusal, { { "a.ovf", '0', xml, 0 } }, NULL }
#define SYSTEM "<VirtualSystem/></a>"
    {"OVA: no descriptor", "no descriptor", { { "a.vmdk", '0', "x", 0 } }, NULL},
    {"OVA: a link to the password file", "no plain file (type '2')",
     { { "a.ovf", '2', "", 0 } }, NULL},
    {"OVA: a hard link", "no plain file (type '1')", { { "a.ovf", '1', "", 0 } }, NULL},
    {"OVA: a device", "no plain file (type '4')", { { "a.ovf", '4', "", 0 } }, NULL},
    {"OVA: a folder", "no plain file (type '5')", { { "../../etc", '5', "", 0 } }, NULL},
    {"OVA: a kind that is not", "no plain file (type '?')", { { "a.ovf", '\x1b', "", 0 } }, NULL},
    {"OVA: a name twice", "twice",
     { { "a.ovf", '0', "<a/>", 0 }, { "a.ovf", '0', "<a/>", 0 } }, NULL},
    {"OVA: two descriptors", "more than one '*.ovf'",
     { { "a.ovf", '0', "<a/>", 0 }, { "b.ovf", '0', "<a/>", 0 } }, NULL},
    {"OVA: two manifests", "more than one '*.mf'",
     { { "a.ovf", '0', "<a>" SYSTEM, 0 }, { "a.mf", '0', "", 0 }, { "b.mf", '0', "", 0 } }, NULL},
    {"OVA: a member longer than the archive", "cut short",
     { { "a.ovf", '0', "<a/>", UINT64_C(1) << 33 } }, NULL},
    {"OVA: a member of 2^62 bytes", "is damaged",
     { { "a.ovf", '0', "<a/>", UINT64_C(1) << 62 } }, NULL},
    {"OVA: a descriptor of 1.2 MiB", "the limit is 1048576",
     { { "a.ovf", '0', "<a>", 0 } }, "<!-- bomb -->"},
    {"OVA: a pax header with a wrong length", "is damaged",
     { { "p", 'x', "99 path=a\n", 0 }, { "a.ovf", '0', "", 0 } }, NULL},
    {"OVA: a pax header with the length 0", "is damaged",
     { { "p", 'x', "0 path=a\n", 0 }, { "a.ovf", '0', "", 0 } }, NULL},
    {"OVA: a pax size past the end", "cut short",
     { { "p", 'x', "16 size=9999999\n", 0 }, { "a.ovf", '0', "", 0 } }, NULL},
    {"OVA: a pax size of 2^65", "is damaged",
     { { "p", 'x', "30 size=36893488147419103232\n", 0 }, { "a.ovf", '0', "", 0 } }, NULL},
    {"OVA: a long name of GNU that is too long", "the limit is 65536",
     { { "p", 'L', "x", 0 }, }, "yyyyyyyyyyyyyy"},
    OVF("an empty descriptor", "no element found", ""),
    OVF("not XML", "line 1", "hello"),
    OVF("an element without an end", "line 1", "<a>"),
    OVF("no machine", "no machine", "<a/>"),
    OVF("two machines", "more than one machine", "<a><VirtualSystem/>" SYSTEM),
    OVF("an entity bomb", "document type", "<!DOCTYPE a [<!ENTITY x \"yyyyyyyyyy\"><!ENTITY z \"&x;&x;&x;&x;&x;&x;&x;&x;\">]><a>&z;&z;&z;&z;</a>"),
    OVF("an entity that is the password file", "document type", "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>"),
    OVF("a document type on a server", "document type", "<!DOCTYPE a SYSTEM \"http://10.0.0.1/a.dtd\"><a/>"),
    OVF("UTF-16 that is none", "line 1", "\xff\xfe<\0a"),
    OVF("a file in another folder", "is not in the archive", "<a><File id='1' href='../other/secret.raw'/><Disk fileRef='1'/>" SYSTEM),
    OVF("the password file", "'/etc/passwd' is not in the archive", "<a><File id='1' href='/etc/passwd'/><Disk fileRef='1'/>" SYSTEM),
    OVF("a server", "is not in the archive", "<a><File id='1' href='http://10.0.0.1/x'/><Disk fileRef='1'/>" SYSTEM),
    OVF("a file beside the archive", "'good.raw' is not in the archive", "<a><File id='1' href='good.raw'/><Disk fileRef='1'/>" SYSTEM),
    OVF("a disk of no file", "names no file", "<a><Disk fileRef='2'/>" SYSTEM),
    OVF("a compressed disk", "compressed", "<a><File id='1' href='x' compression='gzip'/></a>"),
    OVF("a disk in pieces", "cut into pieces", "<a><File id='1' href='x' chunkSize='99'/></a>"),
    OVF("a parent", "difference", "<a><Disk parentRef='x'/></a>"),
    OVF("a disk of 2^99 bytes", "units", "<a><Disk capacity='1' capacityAllocationUnits='byte * 2^99'/></a>"),
    OVF("a disk of more than there is", "limit", "<a><Disk capacity='99999999999' capacityAllocationUnits='GB'/></a>"),
    OVF("a disk of -1 bytes", "is no number", "<a><Disk capacity='-1'/></a>"),
    OVF("a disk of \x1b[2J bytes", "line 1", "<a><Disk capacity='\x1b[2J'/></a>"),
    OVF("memory of 2^40 GB", "limit", "<a><VirtualSystem><Item><AllocationUnits>GB</AllocationUnits><ResourceType>4</ResourceType><VirtualQuantity>1099511627776</VirtualQuantity></Item>" SYSTEM),
    {"OVA: elements 300,000 deep", "nested deeper than 64", { { "a.ovf", '0', "<a>", 0 } }, "<a>"},
    {"OVA: 25,000 files", "more than 64 files", { { "a.ovf", '0', "<a>", 0 } }, "<File/>"},
    {"OVA: 25,000 disks", "more than 16 disks", { { "a.ovf", '0', "<a>", 0 } }, "<Disk/>"},
    {"OVA: a manifest of another file", "is not in the archive",
     { { "a.ovf", '0', "<a>" SYSTEM, 0 }, { "a.mf", '0', "SHA256(/etc/passwd)= 00\n", 0 } }, NULL},
    {"OVA: a manifest that is wrong", "is damaged: its SHA256",
     { { "a.ovf", '0', "<a>" SYSTEM, 0 }, { "a.mf", '0', "SHA256(a.ovf)= 00\n", 0 } }, NULL},
    {"OVA: a manifest that counts a file twice", "a.ovf' is",
     { { "a.ovf", '0', "<a>" SYSTEM, 0 },
       { "a.mf", '0', "SHA1(a.ovf)= 00\nSHA1(a.ovf)= 00\n", 0 } }, NULL},
    {"OVA: a manifest of a hash that is not", "MD4",
     { { "a.ovf", '0', "<a>" SYSTEM, 0 }, { "a.mf", '0', "MD4(a.ovf)= 00\n", 0 } }, NULL},
    {"OVA: a manifest of letters", "is not understood",
     { { "a.ovf", '0', "<a>" SYSTEM, 0 }, { "a.mf", '0', "hello\x1b[2J\n", 0 } }, NULL},
    {"OVA: a disk that is a descriptor naming a file", "no VMDK image",
     { { "a.ovf", '0', "<a><File id='1' href='d'/><Disk fileRef='1'/>" SYSTEM, 0 },
       { "d", '0', "# Disk DescriptorFile\nRW 8 FLAT \"good.raw\" 0\n", 0 } }, NULL},
    {"OVA: an empty disk file", "the file is empty",
     { { "a.ovf", '0', "<a><File id='1' href='d'/><Disk fileRef='1'/>" SYSTEM, 0 },
       { "d", '0', "", 0 } }, NULL},
};
/* clang-format on */

static void seal(uint8_t *h, char type)
{
    unsigned sum = 0;
    h[156] = (uint8_t)type;
    memset(h + 148, ' ', 8);
    for (size_t i = 0; i < OVA_BLOCK; i++) {
        sum += h[i];
    }
    (void)snprintf((char *)h + 148, 8, "%06o", sum);
}

static void write_archive(const struct ova_row *row, const char *path)
{
    static const char zeroes[1024];
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    for (const struct member *m = row->members; m->name != NULL; m++) {
        uint8_t h[OVA_BLOCK];
        bool last = m[1].name == NULL;
        size_t len = strlen(m->data);
        unsigned times = last && row->repeat != NULL ? 100000 : 0;
        size_t all = len + (times > 0 ? times * strlen(row->repeat) : 0);
        ova_tar_header(h, m->name, m->claims != 0 ? m->claims : all);
        seal(h, m->type);
        (void)fwrite(h, 1, sizeof(h), f);
        (void)fwrite(m->data, 1, len, f);
        for (unsigned i = 0; i < times; i++) {
            (void)fputs(row->repeat, f);
        }
        (void)fwrite(zeroes, 1, (OVA_BLOCK - all % OVA_BLOCK) % OVA_BLOCK, f);
    }
    (void)fwrite(zeroes, 1, sizeof(zeroes), f);
    assert_int_equal(fclose(f), 0);
}

static void use(const char *path)
{
    struct err err = ERR_INIT;
    struct ova *ova = NULL;
    struct blk *blk = NULL;
    unsigned checked;
    if (ova_open(path, &ova, &err) < 0) {
        evil_say("%s\n", err.msg);
        return;
    }
    if (ova_verify(ova, &(struct blk_convert_opts){ 0 }, &checked, &err) < 0) {
        evil_say("%s\n", err.msg);
    }
    for (unsigned i = 0; i < ova_info(ova)->ndisks; i++) {
        if (ova_disk_open(ova, i, &blk, &err) < 0) {
            evil_say("%s\n", err.msg);
            continue;
        }
        evil_read(blk);
        blk_close(blk);
    }
    ova_close(ova);
}

void evil_ova(void **state)
{
    const char *path = scratch_path(state, "vm/evil.ova");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        write_archive(&rows[i], path);
        evil_begin(state);
        use(path);
        evil_end(rows[i].what, rows[i].refusal, NULL);
    }
}
