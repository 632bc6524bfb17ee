/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A YAML file as a source of options: keys are the names of an option table, a repeatable option
 * is a list, a group is a mapping or the text of the command line.
 *
 *     kernel: /boot/vmlinuz
 *     memory: 2G
 *     disk:
 *       - file: root.qcow2
 *         cache: none
 *       - data.raw,readonly
 */
#ifndef CLI_YAML_FILE_H
#define CLI_YAML_FILE_H

#include "base/schema.h"

#define YAML_FILE_MAX_BYTES (1 * MIB)
#define YAML_FILE_MAX_NODES 10000

/* Sets the fields of `obj` from the file. Anchors and aliases are refused. Errors name the file
 * and the line. */
MUST_USE int yaml_file_load(const char *path, const struct schema *schema, void *obj,
                            struct err *err);
/* The same from memory; `path` is for messages. */
MUST_USE int yaml_file_parse(const char *path, const char *text, size_t len,
                             const struct schema *schema, void *obj, struct err *err);

#endif
