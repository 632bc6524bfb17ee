/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The descriptor, XML by expat. Document type declarations are refused, so there are no entities
 * but the five of XML itself; depth, length and numbers of things are limited (ova_int.h).
 * Namespaces are not looked at: OVF 1 and 2 have the same local names.
 *
 * Taken from it: References/File, DiskSection/Disk, VirtualSystem/Name and, of the hardware items,
 * processors (ResourceType 3) and memory (4).
 */
#include <errno.h>
#include <expat.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/cleanup.h"
#include "block/ova/ova_int.h"

#define TEXT_MAX 256 /* of the elements that matter */

struct file {
    char *id, *href;
};

struct parser {
    XML_Parser xml;
    struct ova_info *info;
    struct err *err;
    int rc;
    unsigned depth;
    unsigned systems;    /* VirtualSystem elements */
    unsigned item_depth; /* of the open hardware item, else 0 */
    unsigned system_depth;
    char text[TEXT_MAX]; /* of the innermost element */
    size_t text_len;
    /* of the item */
    uint64_t type, quantity;
    char units[TEXT_MAX];
    struct file files[OVA_MAX_FILES];
    unsigned nfiles;
    char *refs[OVA_MAX_DISKS]; /* fileRef of each disk */
};

static void stop(struct parser *p, int rc)
{
    p->rc = rc;
    (void)XML_StopParser(p->xml, XML_FALSE);
}

/* Both for elements and attributes: what is behind the namespace. */
static const char *local(const char *name)
{
    const char *bar = strrchr(name, '|');
    return bar == NULL ? name : bar + 1;
}

static const char *attribute(const char **atts, const char *name)
{
    for (; atts[0] != NULL; atts += 2) {
        if (strcmp(local(atts[0]), name) == 0) {
            return atts[1];
        }
    }
    return NULL;
}

static char *copy_text(struct parser *p, const char *text)
{
    char *copy = strdup(text == NULL ? "" : text);
    if (copy == NULL) {
        stop(p, err_set(p->err, -ENOMEM, "out of memory"));
    }
    return copy;
}

/* Numbers and units. */

/* "byte * 2^20" (DSP0004 "programmatic units") and the names of older versions. */
static bool parse_units(const char *text, uint64_t *ret)
{
    static const struct {
        const char *name;
        uint64_t value;
    } names[] = {
        {"",           1  },
        { "byte",      1  },
        { "KB",        KIB},
        { "KiloBytes", KIB},
        { "MB",        MIB},
        { "MegaBytes", MIB},
        { "GB",        GIB},
        { "GigaBytes", GIB},
    };
    unsigned power = 0;
    char end;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcasecmp(text, names[i].name) == 0) {
            *ret = names[i].value;
            return true;
        }
    }
    if (sscanf(text, " byte * 2^%2u %c", &power, &end) != 1 || power > 50) {
        return false;
    }
    *ret = UINT64_C(1) << power;
    return true;
}

/* `text` times its units; `field` is for the message. */
static int parse_amount(struct parser *p, const char *field, const char *text, const char *units,
                        uint64_t *ret)
{
    char printable[64];
    char *end;
    uint64_t unit;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0') {
        return err_set(p->err, -EINVAL, "descriptor: %s '%s' is no number", field,
                       blk_printable(text, printable, sizeof(printable)));
    }
    if (!parse_units(units, &unit)) {
        return err_set(p->err, -EINVAL, "descriptor: units '%s' of %s are not known",
                       blk_printable(units, printable, sizeof(printable)), field);
    }
    if (ckd_mul(ret, value, unit) || *ret > BLK_MAX_SIZE) {
        return err_set(p->err, -EINVAL, "descriptor: %s '%s' is above the limit of 2^62 bytes",
                       field, blk_printable(text, printable, sizeof(printable)));
    }
    return 0;
}

/* Elements. */

static int on_file(struct parser *p, const char **atts)
{
    const char *compression = attribute(atts, "compression");
    const char *href = attribute(atts, "href");
    char printable[OVA_NAME_MAX];
    blk_printable(href == NULL ? "" : href, printable, sizeof(printable));
    if (p->nfiles == OVA_MAX_FILES) {
        return err_set(p->err, -EFBIG, "descriptor: there are more than %d files", OVA_MAX_FILES);
    }
    if ((compression != NULL && compression[0] != '\0' && strcmp(compression, "identity") != 0) ||
        attribute(atts, "chunkSize") != NULL) {
        return err_set(p->err, -ENOTSUP,
                       "descriptor: file '%s' is compressed or cut into pieces; that is not "
                       "supported",
                       printable);
    }
    struct file *f = &p->files[p->nfiles++];
    f->id = copy_text(p, attribute(atts, "id"));
    f->href = copy_text(p, href);
    return 0;
}

static int on_disk(struct parser *p, const char **atts)
{
    const char *capacity = attribute(atts, "capacity");
    const char *units = attribute(atts, "capacityAllocationUnits");
    struct ova_info *info = p->info;
    if (info->ndisks == OVA_MAX_DISKS) {
        return err_set(p->err, -EFBIG, "descriptor: there are more than %d disks", OVA_MAX_DISKS);
    }
    if (attribute(atts, "parentRef") != NULL) {
        return err_set(p->err, -ENOTSUP,
                       "descriptor: disk %u is a difference to another one; that is not supported",
                       info->ndisks + 1);
    }
    p->refs[info->ndisks] = copy_text(p, attribute(atts, "fileRef"));
    struct ova_disk *disk = &info->disks[info->ndisks++];
    return capacity == NULL
               ? 0
               : parse_amount(p, "capacity", capacity, units == NULL ? "" : units, &disk->capacity);
}

static int on_system(struct parser *p)
{
    if (++p->systems > 1) {
        return err_set(p->err, -ENOTSUP,
                       "descriptor: there is more than one machine; that is not supported");
    }
    p->system_depth = p->depth;
    return 0;
}

static void XMLCALL on_start(void *opaque, const char *name, const char **atts)
{
    struct parser *p = opaque;
    int rc = 0;
    name = local(name);
    p->text_len = 0;
    if (++p->depth > OVA_XML_DEPTH) {
        rc = err_set(p->err, -EFBIG, "descriptor: elements are nested deeper than %d",
                     OVA_XML_DEPTH);
    } else if (strcmp(name, "File") == 0) {
        rc = on_file(p, atts);
    } else if (strcmp(name, "Disk") == 0) {
        rc = on_disk(p, atts);
    } else if (strcmp(name, "VirtualSystem") == 0) {
        rc = on_system(p);
    } else if (strcmp(name, "Item") == 0 && p->item_depth == 0) {
        p->item_depth = p->depth;
        p->type = 0;
        p->quantity = 0;
        p->units[0] = '\0';
    }
    if (rc < 0) {
        stop(p, rc);
    }
}

static int end_item(struct parser *p)
{
    struct ova_info *info = p->info;
    char number[24];
    if (p->type == 3) {
        info->cpus += p->quantity;
    } else if (p->type == 4) {
        (void)snprintf(number, sizeof(number), "%" PRIu64, p->quantity);
        return parse_amount(p, "VirtualQuantity", number, p->units, &info->memory);
    }
    return 0;
}

/* An element inside of an item. What is no number is 0, which nothing here uses. */
static void end_property(struct parser *p, const char *name)
{
    if (strcmp(name, "ResourceType") == 0) {
        p->type = strtoull(p->text, NULL, 10);
    } else if (strcmp(name, "VirtualQuantity") == 0) {
        p->quantity = MIN(strtoull(p->text, NULL, 10), 1ULL << 40);
    } else if (strcmp(name, "AllocationUnits") == 0) {
        (void)snprintf(p->units, sizeof(p->units), "%s", p->text);
    }
}

static void XMLCALL on_end(void *opaque, const char *name)
{
    struct parser *p = opaque;
    int rc = 0;
    name = local(name);
    p->text[p->text_len] = '\0';
    if (p->item_depth != 0 && p->depth == p->item_depth) {
        p->item_depth = 0;
        rc = end_item(p);
    } else if (p->item_depth != 0 && p->depth == p->item_depth + 1) {
        end_property(p, name);
    } else if (p->system_depth != 0 && p->depth == p->system_depth + 1 &&
               strcmp(name, "Name") == 0 && p->info->name == NULL) {
        p->info->name = copy_text(p, p->text);
    }
    p->text_len = 0;
    p->depth--;
    if (rc < 0) {
        stop(p, rc);
    }
}

/* Longer texts are cut; control characters become spaces. */
static void XMLCALL on_text(void *opaque, const char *text, int len)
{
    struct parser *p = opaque;
    for (int i = 0; i < len && p->text_len < TEXT_MAX - 1; i++) {
        bool control = (unsigned char)text[i] < 0x20 || text[i] == 0x7f;
        if (p->text_len > 0 || !(control || text[i] == ' ')) {
            p->text[p->text_len++] = control ? ' ' : text[i];
        }
    }
}

static void XMLCALL on_doctype(void *opaque, const char *name, const char *sysid, const char *pubid,
                               int has_internal)
{
    struct parser *p = opaque;
    (void)name;
    (void)sysid;
    (void)pubid;
    (void)has_internal;
    stop(p, err_set(p->err, -EINVAL, "descriptor: document type declarations are not allowed"));
}

/* The files of the disks, once all is read. */
static int join_files(struct parser *p)
{
    char printable[OVA_NAME_MAX];
    for (unsigned i = 0; i < p->info->ndisks; i++) {
        unsigned k = 0;
        const char *ref = p->refs[i];
        if (ref[0] == '\0') { /* an empty disk */
            p->info->disks[i].file = strdup("");
        } else {
            while (k < p->nfiles && strcmp(p->files[k].id, ref) != 0) {
                k++;
            }
            if (k == p->nfiles) {
                return err_set(p->err, -EINVAL, "descriptor: fileRef '%s' names no file",
                               blk_printable(ref, printable, sizeof(printable)));
            }
            p->info->disks[i].file = strdup(p->files[k].href);
        }
        if (p->info->disks[i].file == NULL) {
            return err_set(p->err, -ENOMEM, "out of memory");
        }
    }
    return 0;
}

static int run(struct parser *p, const char *text, size_t len)
{
    XML_SetUserData(p->xml, p);
    XML_SetElementHandler(p->xml, on_start, on_end);
    XML_SetCharacterDataHandler(p->xml, on_text);
    XML_SetStartDoctypeDeclHandler(p->xml, on_doctype);
    enum XML_Status status = XML_Parse(p->xml, text, (int)len, 1);
    if (p->rc < 0) {
        return p->rc;
    }
    if (status != XML_STATUS_OK) {
        return err_set(p->err, -EINVAL, "descriptor: line %lu: %s",
                       (unsigned long)XML_GetCurrentLineNumber(p->xml),
                       XML_ErrorString(XML_GetErrorCode(p->xml)));
    }
    if (p->systems == 0) {
        return err_set(p->err, -EINVAL, "descriptor: there is no machine (VirtualSystem) in it");
    }
    return join_files(p);
}

int ova_ovf_parse(const char *text, size_t len, struct ova_info *info, struct err *err)
{
    struct parser *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    *info = (struct ova_info){ 0 };
    p->info = info;
    p->err = err;
    p->xml = XML_ParserCreateNS(NULL, '|');
    int rc = p->xml == NULL ? err_set(err, -ENOMEM, "out of memory") : run(p, text, len);
    if (rc == 0 && info->name == NULL) {
        info->name = strdup("");
        rc = info->name == NULL ? err_set(err, -ENOMEM, "out of memory") : 0;
    }
    for (unsigned i = 0; i < p->nfiles; i++) {
        free(p->files[i].id);
        free(p->files[i].href);
    }
    for (unsigned i = 0; i < OVA_MAX_DISKS; i++) {
        free(p->refs[i]);
    }
    if (p->xml != NULL) {
        XML_ParserFree(p->xml);
    }
    free(p);
    if (rc < 0) {
        ova_ovf_done(info);
    }
    return rc;
}

void ova_ovf_done(struct ova_info *info)
{
    free(info->name);
    for (unsigned i = 0; i < OVA_MAX_DISKS; i++) {
        free(info->disks[i].file);
    }
    *info = (struct ova_info){ 0 };
}
