/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/appliance.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/yaml_file.h"
#include "image/child.h"

/* ---- Recipes ---- */

/* The folder "recipes" beside the program (a build tree), else the installed one. */
static void recipes_dir(char *buf, size_t len)
{
    char self[PATH_MAX - 16];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
        (void)snprintf(buf, len, "%s/recipes", self);
        if (access(buf, F_OK) == 0) {
            return;
        }
    }
    (void)snprintf(buf, len, "%s/recipes", POSADA_DATADIR);
}

static int no_recipe(const char *name, const char *dir, struct err *err)
{
    char names[512] = "";
    size_t used = 0;
    struct dirent **list = NULL;
    int n = scandir(dir, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(list[i]->d_name);
        if (len > 5 && strcmp(list[i]->d_name + len - 5, ".yaml") == 0 &&
            used + len + 2 < sizeof(names)) {
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%.*s",
                                     used > 0 ? ", " : "", (int)len - 5, list[i]->d_name);
        }
        free(list[i]);
    }
    free(list);
    return err_set(err, -ENOENT, "there is no recipe '%s': there are %s, or give a file's path",
                   name, names);
}

/* The name without folders and ".yaml". */
static void base_name(const char *path, char *buf, size_t len)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    size_t n = strlen(base);
    n -= n > 5 && strcmp(base + n - 5, ".yaml") == 0 ? 5 : 0;
    (void)snprintf(buf, len, "%.*s", (int)n, base);
}

int appliance_recipe(const char *name, struct recipe *recipe, char *ref, size_t ref_len,
                     struct err *err)
{
    char dir[PATH_MAX];
    char path[PATH_MAX + 80];
    char base[STORE_NAME_MAX + 1] = "";
    char suite[STORE_NAME_MAX + 1] = "";
    size_t len = strlen(name);
    int rc = 0;
    if (strchr(name, '/') != NULL || (len > 5 && strcmp(name + len - 5, ".yaml") == 0)) {
        (void)snprintf(path, sizeof(path), "%s", name);
        base_name(name, base, sizeof(base));
    } else {
        rc = store_parse_ref(name, base, suite, err);
        recipes_dir(dir, sizeof(dir));
        (void)snprintf(path, sizeof(path), "%s/%s.yaml", dir, base);
        if (rc == 0 && access(path, F_OK) < 0) {
            return no_recipe(base, dir, err);
        }
    }
    rc = rc < 0 ? rc : yaml_file_load(path, &recipe_schema, recipe, err);
    if (rc == 0 && suite[0] != '\0') {
        rc = schema_set(&recipe_schema, recipe, "suite", recipe_suite_of(suite), err);
    }
    rc = rc < 0 ? rc : schema_check(&recipe_schema, recipe, err);
    if (rc < 0) {
        return rc;
    }
    const char *image = recipe->name != NULL ? recipe->name : base;
    if (strchr(image, ':') != NULL) {
        (void)snprintf(ref, ref_len, "%s", image);
    } else {
        (void)snprintf(ref, ref_len, "%s:%s", image,
                       recipe_tag_of_suite(recipe_suite_of(recipe->suite)));
    }
    return 0;
}

/* ---- Building ---- */

/* How long the last build took: a line in the store. */
static double last_seconds(struct store *s)
{
    char path[STORE_PATH_MAX];
    double seconds = 0;
    FILE *f = fopen(store_path(s, path, "last-build"), "re");
    if (f != NULL) {
        if (fscanf(f, "%lf", &seconds) != 1) {
            seconds = 0;
        }
        (void)fclose(f); /* read only */
    }
    return seconds;
}

static void note_seconds(struct store *s, double seconds)
{
    char path[STORE_PATH_MAX];
    FILE *f = fopen(store_path(s, path, "last-build"), "we");
    if (f != NULL) {
        fprintf(f, "%.1f\n", seconds);
        (void)fclose(f); /* a guess for the next build, no more */
    }
}

static void on_phase(void *opaque, const char *name)
{
    progress_phase(opaque, name);
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    progress_bytes(opaque, done, total);
}

static void on_tick(void *opaque)
{
    progress_tick(opaque);
}

int appliance_build(struct store *s, const struct recipe *recipe, const char *recipe_name,
                    const char *ref, const struct appliance_opts *o, struct store_image *ret_image,
                    struct err *err)
{
    struct progress progress;
    struct child_stop stop;
    CLEANUP_FREE char *agent = cli_program_path("posada-agent");
    char base[STORE_NAME_MAX + 1];
    base_name(recipe_name, base, sizeof(base));
    struct build_opts opts = {
        .recipe = recipe,
        .ref = ref,
        .recipe_name = base,
        .from_dir = o->from_dir,
        .from_tar = o->from_tar,
        .cloud_init = o->cloud_init,
        .mirror = o->mirror,
        .agent = agent,
        .stop = &stop,
        .watch = {on_phase, on_progress, on_tick, &progress},
    };
    int rc = build_epoch(&opts.epoch, err);
    rc = rc < 0 ? rc : child_stop_init(&stop, err);
    if (rc < 0) {
        return rc;
    }
    progress_begin(&progress, o->quiet, last_seconds(s));
    rc = build_run(s, &opts, ret_image, err);
    double seconds = progress_end(&progress);
    child_stop_done(&stop);
    if (rc == 0) {
        note_seconds(s, seconds);
        if (!o->quiet) {
            fprintf(stderr, _("%s is built: %.1f s\n"), ref, seconds);
        }
    }
    return rc;
}

static void say_waiting(void *opaque)
{
    fprintf(stderr, _("somebody else is building '%s': waiting\n"), (const char *)opaque);
}

static int build_by_name(struct store *s, const char *name, struct store_image *ret_image,
                         struct err *err)
{
    struct recipe recipe;
    char ref[2 * STORE_NAME_MAX + 2];
    schema_init(&recipe_schema, &recipe);
    int rc = appliance_recipe(name, &recipe, ref, sizeof(ref), err);
    CLEANUP_FD int lock =
        rc < 0 ? -1 : store_lock_name(s, ref, say_waiting, (void *)(uintptr_t)name, err);
    rc = rc < 0 ? rc : lock < 0 ? lock : store_find(s, ref, ret_image, err);
    if (rc == -ENOENT && lock >= 0) {
        struct appliance_opts o = { 0 };
        err_clear(err);
        fprintf(stderr, _("building %s (once; 'posada image ls' shows what there is)\n"), ref);
        rc = appliance_build(s, &recipe, name, ref, &o, ret_image, err);
    }
    schema_done(&recipe_schema, &recipe);
    return rc;
}

int appliance_get(struct store *s, const char *name, struct store_image *ret_image, struct err *err)
{
    /* A path is a recipe's, and the image has the recipe's name. */
    int rc = strchr(name, '/') != NULL ? -ENOENT : store_find(s, name, ret_image, err);
    if (rc != -ENOENT) {
        return rc;
    }
    err_clear(err);
    return build_by_name(s, name, ret_image, err);
}
