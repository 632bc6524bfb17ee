/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posada image build RECIPE */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/appliance.h"
#include "cli/image.h"
#include "cli/image_export.h"

#define MAX_KEY_FILE 65536

struct build_cmd {
    char *name;
    uint64_t size;
    char *packages;
    char *hostname;
    char *user;
    char *ssh_key;
    char *password_file;
    char *cloud_init;
    char *format;
    char *output;
    char *arch;
    char *from_dir;
    char *from_tar;
    char *mirror;
    char *store;
    bool quiet;
};

#define FIELD(member) .offset = offsetof(struct build_cmd, member)

static const struct schema_field fields[] = {
    {.name = "name",
     .arg = "NAME[:TAG]",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(name),
     .help = "name of the image; without it the recipe's, such as debian:12" },
    { .name = "size",
     .arg = "SIZE",
     .type = SCHEMA_SIZE,
     .min = 256 * MIB,
     .max = 2048 * GIB,
     FIELD(size),
     .help = "size of the disk; without it the recipe's, usually 4G" },
    { .name = "packages",
     .arg = "A,B",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(packages),
     .help = "more Debian packages" },
    { .name = "hostname",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(hostname),
     .help = "the machine's name; without it that of the image" },
    { .name = "user",
     .arg = "NAME",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(user),
     .help = "a user who may use sudo; root cannot log in then" },
    { .name = "ssh-key",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "file",
     FIELD(ssh_key),
     .help = "public keys that let the user in" },
    { .name = "password-file",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "file",
     FIELD(password_file),
     .help = "the user's password in encrypted form (openssl passwd -6 >FILE)" },
    { .name = "cloud-init",
     .arg = "DIR",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "dir",
     FIELD(cloud_init),
     .help = "install cloud-init, with user-data and meta-data from there" },
    { .name = "format",
     .arg = "raw|qcow2|vmdk|vdi|vhd|ova",
     .type = SCHEMA_STR,
     .choices = image_export_formats,
     FIELD(format),
     .help = "also write the disk to a file of this format" },
    { .name = "output",
     .letter = 'o',
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "file",
     FIELD(output),
     .help = "that file; without it NAME-TAG.FORMAT in the current folder" },
    { .name = "arch",
     .arg = "amd64|i386",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(arch),
     .help = "architecture of the programs (the kernel is a 64-bit one)" },
    { .name = "from-dir",
     .arg = "DIR",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "dir",
     FIELD(from_dir),
     .help = "take the root file system from this folder in place of packages" },
    { .name = "from-tar",
     .arg = "FILE",
     .type = SCHEMA_STR,
     .min = 1,
     .complete = "file",
     FIELD(from_tar),
     .help = "take the root file system from this tar archive in place of packages" },
    { .name = "mirror",
     .arg = "URL",
     .type = SCHEMA_STR,
     .min = 1,
     FIELD(mirror),
     .help = "where packages come from; without it what apt on this machine uses" },
    CLI_FIELD_STORE(struct build_cmd, store),
    { .name = "quiet",
     .letter = 'q',
     .type = SCHEMA_FLAG,
     FIELD(quiet),
     .help = "show no progress" },
    { 0                 },
};

static int check(const void *obj, struct err *err)
{
    const struct build_cmd *c = obj;
    if ((c->ssh_key != NULL || c->password_file != NULL) && c->user == NULL) {
        return err_set(err, -EINVAL, "--ssh-key and --password-file go with --user NAME");
    }
    if (c->user != NULL && c->ssh_key == NULL && c->password_file == NULL) {
        return err_set(err, -EINVAL,
                       "--user '%s' could not log in: give --ssh-key or --password-file", c->user);
    }
    bool ready = c->from_dir != NULL || c->from_tar != NULL;
    if (ready && (c->packages != NULL || c->user != NULL || c->cloud_init != NULL)) {
        return err_set(err, -EINVAL,
                       "--from-dir and --from-tar take a finished system: no --packages, --user or "
                       "--cloud-init");
    }
    if (c->from_dir != NULL && c->from_tar != NULL) {
        return err_set(err, -EINVAL, "--from-dir and --from-tar exclude each other");
    }
    if (c->output != NULL && c->format == NULL) {
        return err_set(err, -EINVAL, "--output needs --format");
    }
    return c->format != NULL ? image_export_format(c->format, err) : 0;
}

const struct schema image_build_schema = {
    .name = "image build",
    .size = sizeof(struct build_cmd),
    .fields = fields,
    .check = check,
};

/* The lines of a small text file, each as option `name` of `obj`; empty ones and comments not. */
static int set_lines(const char *path, const struct schema *schema, void *obj, const char *name,
                     struct err *err)
{
    char line[8192];
    FILE *f = fopen(path, "re");
    int found = 0;
    int rc = f == NULL ? err_set_errno(err, -errno, "cannot open '%s'", path) : 0;
    while (rc == 0 && fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#') {
            rc = schema_set(schema, obj, name, line, err);
            found++;
        }
    }
    if (f != NULL) {
        (void)fclose(f); /* read only */
    }
    return rc == 0 && found == 0 ? err_set(err, -EINVAL, "'%s' is empty", path) : rc;
}

static int add_packages(const struct build_cmd *c, struct recipe *r, struct err *err)
{
    char *save = NULL;
    int rc = 0;
    for (char *p = c->packages != NULL ? strtok_r(c->packages, ",", &save) : NULL;
         p != NULL && rc == 0; p = strtok_r(NULL, ",", &save)) {
        rc = schema_set(&recipe_schema, r, "packages", p, err);
    }
    return rc;
}

static int add_user(const struct build_cmd *c, struct recipe *r, struct err *err)
{
    if (c->user == NULL) {
        return 0;
    }
    int rc = schema_set(&recipe_schema, r, "users", c->user, err);
    if (rc < 0) {
        return rc;
    }
    struct recipe_user *u = (struct recipe_user *)r->users.items + r->users.count - 1;
    const struct schema *user = schema_find(&recipe_schema, "users")->sub;
    if (c->ssh_key != NULL) {
        rc = set_lines(c->ssh_key, user, u, "ssh-keys", err);
    }
    if (rc == 0 && c->password_file != NULL) {
        rc = set_lines(c->password_file, user, u, "password", err);
    }
    return rc < 0 ? rc : schema_check(user, u, err);
}

/* The command line's wishes on top of the recipe's. */
static int adjust(const struct build_cmd *c, struct recipe *r, struct err *err)
{
    int rc = add_packages(c, r, err);
    rc = rc < 0 ? rc : add_user(c, r, err);
    if (rc == 0 && c->hostname != NULL) {
        rc = schema_set(&recipe_schema, r, "hostname", c->hostname, err);
    }
    if (rc == 0 && c->arch != NULL) {
        rc = schema_set(&recipe_schema, r, "arch", c->arch, err);
    }
    if (rc == 0 && c->size != 0) {
        r->size = c->size;
    }
    return rc < 0 ? rc : schema_check(&recipe_schema, r, err);
}

/* The file of --format: tried before minutes of work. */
static int output_path(const struct build_cmd *c, const char *ref, char *file, size_t len,
                       struct err *err)
{
    (void)snprintf(file, len, "%s.%s", ref, c->format);
    for (char *p = file; *p != '\0'; p++) {
        *p = *p == ':' ? '-' : *p;
    }
    if (c->output != NULL && (size_t)snprintf(file, len, "%s", c->output) >= len) {
        return err_set(err, -ENAMETOOLONG, "--output: the path is too long");
    }
    CLEANUP_FD int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot make '%s'", file);
    }
    (void)unlink(file);
    return 0;
}

static int build(void *obj, char **operands, struct err *err)
{
    const struct build_cmd *c = obj;
    const char *operand = operands[0];
    struct recipe recipe;
    struct store *s = NULL;
    struct store_image image = { 0 };
    char ref[2 * STORE_NAME_MAX + 2];
    char name[STORE_NAME_MAX + 1];
    char file[PATH_MAX];
    struct appliance_opts o = { .from_dir = c->from_dir,
                                .from_tar = c->from_tar,
                                .cloud_init = c->cloud_init,
                                .mirror = c->mirror,
                                .quiet = c->quiet };
    schema_init(&recipe_schema, &recipe);
    int rc = appliance_recipe(operand, &recipe, ref, sizeof(ref), err);
    rc = rc < 0 ? rc : adjust(c, &recipe, err);
    if (rc == 0 && c->name != NULL) {
        (void)snprintf(
            ref, sizeof(ref), "%s%s%s", c->name, strchr(c->name, ':') != NULL ? "" : ":",
            strchr(c->name, ':') != NULL ? "" : recipe_tag_of_suite(recipe_suite_of(recipe.suite)));
    }
    if (rc == 0 && c->format != NULL) {
        rc = output_path(c, ref, file, sizeof(file), err);
    }
    rc = rc < 0 ? rc : store_open(c->store, &s, err);
    rc = rc < 0 ? rc : appliance_build(s, &recipe, operand, ref, &o, &image, err);
    if (rc == 0 && c->format != NULL) {
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(ref, ":"), ref);
        rc = image_export_write(s, &image, name, file, c->format, false, err);
    }
    if (rc == 0) {
        printf("%s\n", image.id);
    }
    store_image_done(&image);
    store_close(s);
    schema_done(&recipe_schema, &recipe);
    return rc;
}

int image_build_main(int argc, char **argv)
{
    static const struct image_verb verb = {
        .name = "build", .schema = &image_build_schema, .min = 1, .max = 1, .work = build
    };
    struct build_cmd c;
    return image_run(&verb, &c, argc, argv);
}
