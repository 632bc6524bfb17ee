/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/blk_param.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int blk_param_parse(const struct blk_create_opts *opts, struct blk_param *table, size_t n,
                    struct err *err)
{
    for (size_t i = 0; opts->params != NULL && opts->params[i] != NULL; i++) {
        const char *text = opts->params[i];
        const char *equals = strchr(text, '=');
        size_t len = equals == NULL ? 0 : (size_t)(equals - text);
        size_t row = 0;
        while (row < n && (strlen(table[row].key) != len || strncmp(table[row].key, text, len))) {
            row++;
        }
        if (equals == NULL || row == n) {
            return err_set(err, -EINVAL, "unknown option '%s' of the format %s", text,
                           opts->format);
        }
        if (table[row].value != NULL) {
            return err_set(err, -EINVAL, "option '%s' is given twice", table[row].key);
        }
        table[row].value = equals + 1;
    }
    return 0;
}

int blk_param_choice(const char *key, const char *text, const char *const *choices, struct err *err)
{
    char list[128] = "";
    size_t used = 0;
    for (int i = 0; choices[i] != NULL; i++) {
        if (text == NULL || strcmp(text, choices[i]) == 0) {
            return i;
        }
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                                 choices[i]);
        used = MIN(used, sizeof(list) - 1);
    }
    return err_set(err, -EINVAL, "option '%s': '%s' is none of: %s", key, text, list);
}

int blk_param_uuid(const char *text, uint8_t uuid[static BLK_PARAM_UUID_LEN], struct err *err)
{
    if (text == NULL) {
        if (getrandom(uuid, BLK_PARAM_UUID_LEN, 0) != BLK_PARAM_UUID_LEN) {
            return err_set_errno(err, -EIO, "cannot get random bytes");
        }
        uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
        uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
        return 0;
    }
    static const char digits_of[] = "0123456789abcdef";
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    unsigned digits = 0;
    uint8_t out[BLK_PARAM_UUID_LEN] = { 0 };
    for (size_t i = 0; i < sizeof(shape); i++) {
        const char *hex = text[i] == 0 ? NULL : strchr(digits_of, text[i]);
        if (shape[i] == 'x' ? hex == NULL : text[i] != shape[i]) {
            return err_set(err, -EINVAL, "'%s' is no UUID of the form %s in small letters", text,
                           shape);
        }
        if (shape[i] == 'x') {
            unsigned value = (unsigned)(hex - digits_of);
            out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | value);
            digits++;
        }
    }
    memcpy(uuid, out, sizeof(out));
    return 0;
}

void blk_param_uuid_swap(uint8_t uuid[static BLK_PARAM_UUID_LEN])
{
    be32_put(uuid, le32_get(uuid));
    be16_put(uuid + 4, le16_get(uuid + 4));
    be16_put(uuid + 6, le16_get(uuid + 6));
}

void blk_param_uuid_text(const uint8_t uuid[static BLK_PARAM_UUID_LEN], char text[static 37])
{
    for (unsigned i = 0; i < BLK_PARAM_UUID_LEN; i++) {
        text += sprintf(text, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    }
}
