/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/recipe.h"
#include "image/store.h"
#include "image/store_vm.h"

struct fixture {
    char dir[64];
    struct store *s;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = ERR_INIT;
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/posada-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(store_open(f->dir, &f->s, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_close(f->s);
    store_remove_tree(f->dir);
    assert_int_not_equal(access(f->dir, F_OK), 0);
    free(f);
    return 0;
}

/* Adds a disk of 1 MiB with one byte of content. */
static void add(struct fixture *f, char byte, const char *ref, char id[DIGEST_HEX + 1])
{
    struct err err = ERR_INIT;
    struct store_tmp tmp;
    struct store_image image = { 0 };
    char path[STORE_PATH_MAX + 32];
    assert_int_equal(store_tmp_new(f->s, &tmp, &err), 0);
    (void)snprintf(path, sizeof(path), "%s/image", tmp.path);
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(path, sizeof(path), "%s/image/disk.raw", tmp.path);
    CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT, 0644);
    assert_int_equal(ftruncate(fd, (off_t)MIB), 0);
    assert_int_equal(pwrite(fd, &byte, 1, 300000), 1);
    assert_int_equal(store_add(f->s, &tmp, &image, ref, NULL, NULL, &err), 0);
    store_tmp_free(&tmp);
    (void)snprintf(id, DIGEST_HEX + 1, "%s", image.id);
    store_image_done(&image);
}

static int find(struct fixture *f, const char *ref, char id[DIGEST_HEX + 1])
{
    struct err err = ERR_INIT;
    struct store_image image = { 0 };
    int rc = store_find(f->s, ref, &image, &err);
    if (rc == 0) {
        (void)snprintf(id, DIGEST_HEX + 1, "%s", image.id);
    }
    store_image_done(&image);
    return rc;
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    char a[DIGEST_HEX + 1];
    char b[DIGEST_HEX + 1];
    char got[DIGEST_HEX + 1];
    add(f, 1, "debian:12", a);
    add(f, 2, "debian:13", b);
    assert_string_not_equal(a, b);
    assert_int_equal(find(f, "debian:12", got), 0);
    assert_string_equal(got, a);
    assert_int_equal(find(f, "debian", got), 0); /* the newest */
    assert_string_equal(got, b);
    (void)snprintf(got, sizeof(got), "%.8s", a);
    assert_int_equal(find(f, got, got), 0);
    assert_string_equal(got, a);
    assert_int_equal(find(f, "nosuch", got), -ENOENT);
    assert_int_equal(find(f, "../x", got), -EINVAL);
    /* The same content is there once. */
    add(f, 1, "again:1", got);
    assert_string_equal(got, a);
}

static void test_rm(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct store_tmp tmp;
    struct store_vm vm;
    char id[DIGEST_HEX + 1];
    char got[DIGEST_HEX + 1];
    add(f, 1, "a:1", id);
    assert_int_equal(store_tag(f->s, "a:2", id, &err), 0);
    assert_int_equal(store_rm(f->s, "a", &err), -EINVAL); /* which one? */
    assert_int_equal(store_rm(f->s, "a:1", &err), 0);
    assert_int_equal(find(f, "a:2", got), 0);
    /* What somebody stands on stays. */
    assert_int_equal(store_tmp_new(f->s, &tmp, &err), 0);
    assert_int_equal(store_tmp_hold(f->s, &tmp, id, &err), 0);
    assert_int_equal(store_rm(f->s, "a:2", &err), -EBUSY);
    store_tmp_free(&tmp);
    assert_int_equal(store_vm_open(f->s, "web", id, &vm, &err), 0);
    assert_int_equal(store_vm_open(f->s, "web", id, &vm, &err), -EBUSY);
    assert_int_equal(store_vm_image(f->s, "web", got, &err), 0);
    assert_string_equal(got, id);
    assert_int_equal(store_rm(f->s, "a", &err), -EBUSY);
    assert_non_null(strstr(err.msg, "web"));
}

/* Invariant 3: what a dead process left is gone with the next opening, what lives stays. */
static void test_sweep(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct store_tmp tmp;
    struct store *other;
    char dead[128];
    char inside[160];
    (void)snprintf(dead, sizeof(dead), "%s/tmp/dead", f->dir);
    (void)snprintf(inside, sizeof(inside), "%s/file", dead);
    assert_int_equal(mkdir(dead, 0755), 0);
    close(open(inside, O_CREAT | O_WRONLY, 0644));
    assert_int_equal(store_tmp_new(f->s, &tmp, &err), 0);
    assert_int_equal(store_open(f->dir, &other, &err), 0);
    assert_int_not_equal(access(dead, F_OK), 0);
    assert_int_equal(access(tmp.path, F_OK), 0);
    store_close(other);
    store_tmp_free(&tmp);
    assert_int_not_equal(access(tmp.path, F_OK), 0);
}

static void test_prune(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    char id[DIGEST_HEX + 1];
    char path[STORE_PATH_MAX];
    uint64_t bytes;
    add(f, 1, NULL, id);
    assert_int_equal(access(store_path(f->s, path, "images/%s/disk.raw", id), F_OK), 0);
    assert_int_equal(store_prune(f->s, &bytes, &err), 0);
    assert_true(bytes > 0);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_unwritable(void **state)
{
    struct err err = ERR_INIT;
    struct store *s;
    (void)state;
    assert_true(store_open("/proc/nothing", &s, &err) < 0);
    assert_non_null(strstr(err.msg, "/proc/nothing"));
}

static void test_recipe(void **state)
{
    struct err err = ERR_INIT;
    struct recipe r;
    (void)state;
    schema_init(&recipe_schema, &r);
    assert_int_equal(schema_set(&recipe_schema, &r, "packages", "nginx-light", &err), 0);
    assert_int_equal(schema_check(&recipe_schema, &r, &err), 0);
    assert_int_equal(schema_set(&recipe_schema, &r, "packages", "a b; rm -rf /", &err), 0);
    assert_int_equal(schema_check(&recipe_schema, &r, &err), -EINVAL);
    assert_int_equal(schema_set(&recipe_schema, &r, "files", "path=etc/x,content=a", &err),
                     -EINVAL);
    assert_int_equal(schema_set(&recipe_schema, &r, "users", "name=a'b", &err), -EINVAL);
    assert_string_equal(recipe_tag_of_suite(recipe_suite_of("12")), "12");
    schema_done(&recipe_schema, &r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prune, setup, teardown),
        cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_recipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
