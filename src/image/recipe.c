/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/recipe.h"

#include <errno.h>
#include <stdlib.h>

#include "image/gpt.h"

static const char *const arches[] = { "amd64", "i386", NULL };

/* Debian's releases: number and code name. */
static const struct {
    const char *number;
    const char *suite;
} recipe_suites[] = {
    {"11",  "bullseye"},
    { "12", "bookworm"},
    { "13", "trixie"  }
};

const char *recipe_tag_of_suite(const char *suite)
{
    for (size_t i = 0; i < ARRAY_LEN(recipe_suites); i++) {
        if (strcmp(suite, recipe_suites[i].suite) == 0) {
            return recipe_suites[i].number;
        }
    }
    return suite;
}

const char *recipe_suite_of(const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(recipe_suites); i++) {
        if (strcmp(text, recipe_suites[i].number) == 0) {
            return recipe_suites[i].suite;
        }
    }
    return text;
}

/* Letters, digits and those of `more`, the first a letter or digit. */
static bool recipe_plain(const char *text, const char *more, size_t max)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    if (text[0] == '\0' || strchr(word, text[0]) == NULL || strlen(text) > max) {
        return false;
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr(word, *p) == NULL && strchr(more, *p) == NULL) {
            return false;
        }
    }
    return true;
}

#define FILE_FIELD(member) .offset = offsetof(struct recipe_file, member)

static const struct schema_field file_fields[] = {
    {.name = "path",
     .arg = "PATH",
     .type = SCHEMA_STR,
     .required = true,
     FILE_FIELD(path),
     .help = "where it goes in the image" },
    { .name = "content",
     .arg = "TEXT",
     .type = SCHEMA_STR,
     .required = true,
     FILE_FIELD(content),
     .help = "what is in it" },
    { .name = "mode",
     .arg = "OCTAL",
     .type = SCHEMA_STR,
     .deflt = "0644",
     FILE_FIELD(mode),
     .help = "its permissions" },
    { 0                },
};

static int file_check(const void *obj, struct err *err)
{
    const struct recipe_file *f = obj;
    char *end;
    unsigned long mode = strtoul(f->mode, &end, 8);
    if (f->path[0] != '/' || f->path[1] == '\0' || strstr(f->path, "/../") != NULL) {
        return err_set(err, -EINVAL, "path: '%s' is not an absolute path of a file", f->path);
    }
    if (*end != '\0' || end == f->mode || mode > 07777) {
        return err_set(err, -EINVAL, "mode: '%s' is not an octal number up to 7777", f->mode);
    }
    return 0;
}

static const struct schema file_schema = {
    .name = "files",
    .size = sizeof(struct recipe_file),
    .fields = file_fields,
    .check = file_check,
};

#define USER_FIELD(member) .offset = offsetof(struct recipe_user, member)

static const struct schema_field user_fields[] = {
    {.name = "name",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .positional = true,
     .required = true,
     USER_FIELD(name),
     .help = "the login name" },
    { .name = "groups",
     .arg = "A,B",
     .type = SCHEMA_STR,
     USER_FIELD(groups),
     .help = "more groups of the user; without it: sudo" },
    { .name = "password",
     .arg = "HASH",
     .type = SCHEMA_STR,
     USER_FIELD(password),
     .help = "the password as in /etc/shadow (openssl passwd -6); without it no password works" },
    { .name = "ssh-keys",
     .arg = "KEY",
     .type = SCHEMA_STR,
     .list = true,
     USER_FIELD(ssh_keys),
     .help = "a public key that may log in" },
    { 0       },
};

static int user_check(const void *obj, struct err *err)
{
    const struct recipe_user *u = obj;
    if (!recipe_plain(u->name, "_-", 32) || strcmp(u->name, "root") == 0) {
        return err_set(err, -EINVAL, "name: '%s' is not the login name of an ordinary user",
                       u->name);
    }
    if (u->groups != NULL && !recipe_plain(u->groups, "_-,", 200)) {
        return err_set(err, -EINVAL, "groups: '%s' is not a list of group names", u->groups);
    }
    /* Not shown: it may be a password in clear, or a private key. */
    if (u->password != NULL && (u->password[0] != '$' || strpbrk(u->password, ":\n' ") != NULL)) {
        return err_set(err, -EINVAL,
                       "password: that is not an encrypted password (openssl passwd -6 makes one)");
    }
    char *const *keys = u->ssh_keys.items;
    for (size_t i = 0; i < u->ssh_keys.count; i++) {
        /* A type, then in base64 the length of its name, which is below 256. */
        if (strstr(keys[i], " AAAA") == NULL || strchr(keys[i], '\n') != NULL) {
            return err_set(err, -EINVAL,
                           "ssh-keys: that is not a public key (a line of a .pub file)");
        }
    }
    return 0;
}

static const struct schema user_schema = {
    .name = "users",
    .size = sizeof(struct recipe_user),
    .fields = user_fields,
    .check = user_check,
};

#define FIELD(member) .offset = offsetof(struct recipe, member)

static const struct schema_field fields[] = {
    {.name = "description",
     .arg = "TEXT",
     .type = SCHEMA_STR,
     FIELD(description),
     .help = "one sentence on what it is" },
    { .name = "name",
     .arg = "NAME[:TAG]",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(name),
     .help = "name of the image; without it that of the recipe" },
    { .name = "suite",
     .arg = "SUITE",
     .type = SCHEMA_STR,
     .min = 1,
     .deflt = "bookworm",
     FIELD(suite),
     .help = "Debian's release, by code name or number" },
    { .name = "arch",
     .arg = "amd64|i386",
     .type = SCHEMA_STR,
     .choices = arches,
     .deflt = "amd64",
     FIELD(arch),
     .help = "architecture of the programs; the kernel is a 64-bit one" },
    { .name = "hostname",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(hostname),
     .help = "the machine's name; without it that of the image" },
    { .name = "size",
     .arg = "SIZE",
     .type = SCHEMA_SIZE,
     .min = GPT_MIN_SIZE,
     .max = 2048 * GIB,
     .deflt = "4G",
     FIELD(size),
     .help = "size of the disk; only what is used takes space" },
    { .name = "memory",
     .arg = "SIZE",
     .type = SCHEMA_SIZE,
     .min = 64 * MIB,
     .max = 4096 * GIB,
     FIELD(memory),
     .help = "memory that a VM of it gets unless it says otherwise" },
    { .name = "packages",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     .list = true,
     FIELD(packages),
     .help = "a Debian package to install" },
    { .name = "files",
     .type = SCHEMA_GROUP,
     .list = true,
     .sub = &file_schema,
     FIELD(files),
     .help = "a file to put into the image, over the packages' own" },
    { .name = "commands",
     .arg = "COMMAND",
     .type = SCHEMA_STR,
     .min = 1,
     .list = true,
     FIELD(commands),
     .help = "a shell command to run as root in the new system, after the files are there" },
    { .name = "users",
     .type = SCHEMA_GROUP,
     .list = true,
     .sub = &user_schema,
     FIELD(users),
     .help = "a user to make" },
    { 0                 },
};

static int recipe_check(const void *obj, struct err *err)
{
    const struct recipe *r = obj;
    char *const *packages = r->packages.items;
    for (size_t i = 0; i < r->packages.count; i++) {
        if (!recipe_plain(packages[i], "+-.:_", 200)) {
            return err_set(err, -EINVAL, "packages: '%s' is not the name of a package",
                           packages[i]);
        }
    }
    if (!recipe_plain(r->suite, "-._", 64)) {
        return err_set(err, -EINVAL, "suite: '%s' is not a name such as bookworm", r->suite);
    }
    if (r->hostname != NULL && !recipe_plain(r->hostname, "-.", 64)) {
        return err_set(err, -EINVAL, "hostname: '%s' is not a host name", r->hostname);
    }
    if (strcmp(r->arch, "amd64") != 0 && strcmp(r->arch, "i386") != 0) {
        return err_set(err, -EINVAL, "arch: '%s' is unknown: give amd64 or i386", r->arch);
    }
    return 0;
}

const struct schema recipe_schema = {
    .name = "recipe",
    .size = sizeof(struct recipe),
    .fields = fields,
    .check = recipe_check,
};
