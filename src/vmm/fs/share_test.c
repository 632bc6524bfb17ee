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

#include <linux/fuse.h>

#include "vmm/fs/share.h"

/* top/in is shared; top/secret and top/dir are not. */
struct fx {
    char top[64];
    int top_fd, dir_fd;
    struct share *s;
    uint8_t reply[SHARE_MAX_MESSAGE];
    size_t len; /* of the answer behind its header */
};

#define ANSWER(fx, type, i) ((const struct type *)(const void *)((fx)->reply + 16 + (i)))

static void put_file(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static bool file_is(int dir, const char *name, const char *text)
{
    char buf[64] = "";
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    bool same = fd >= 0 && read(fd, buf, sizeof(buf) - 1) >= 0 && strcmp(buf, text) == 0;
    close(fd);
    return same;
}

/* One request: the arguments are `arg`, then up to two texts. Returns the answer's error. */
static int ask(struct fx *f, uint32_t opcode, uint64_t node, const void *arg, size_t arg_len,
               const char *text, const char *text2)
{
    static uint8_t request[SHARE_MAX_MESSAGE];
    struct fuse_in_header in = { .opcode = opcode, .nodeid = node, .unique = 77 };
    struct fuse_out_header out;
    size_t n = sizeof(in);
    memcpy(request + n, arg, arg_len);
    n += arg_len;
    const char *const texts[] = { text, text2 };
    for (unsigned i = 0; i < 2 && texts[i] != NULL; i++) {
        memcpy(request + n, texts[i], strlen(texts[i]) + 1);
        n += strlen(texts[i]) + 1;
    }
    in.len = (uint32_t)n;
    memcpy(request, &in, sizeof(in));
    size_t got = share_handle(f->s, request, n, f->reply, sizeof(f->reply));
    if (got == 0) {
        return 1;
    }
    memcpy(&out, f->reply, sizeof(out));
    assert_int_equal(out.len, got);
    assert_int_equal(out.unique, 77);
    f->len = got - sizeof(out);
    return out.error;
}

static int init(struct fx *f)
{
    const struct fuse_init_in in = { .major = 7, .minor = 38, .flags = ~0U };
    return ask(f, FUSE_INIT, 0, &in, sizeof(in), NULL, NULL);
}

static void begin(struct fx *f, bool writable)
{
    struct err err = ERR_INIT;
    memset(f, 0, sizeof(*f));
    (void)umask(022);
    (void)snprintf(f->top, sizeof(f->top), "/tmp/share_test.XXXXXX");
    assert_non_null(mkdtemp(f->top));
    f->top_fd = open(f->top, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(f->top_fd, "in", 0755), 0);
    assert_int_equal(mkdirat(f->top_fd, "dir", 0755), 0);
    put_file(f->top_fd, "secret", "secret");
    f->dir_fd = openat(f->top_fd, "in", O_PATH | O_DIRECTORY | O_CLOEXEC);
    put_file(f->dir_fd, "file", "hello");
    assert_int_equal(share_new(f->dir_fd, writable, &f->s, &err), 0);
    assert_int_equal(init(f), 0);
}

static void end(struct fx *f)
{
    char command[128];
    share_free(f->s);
    assert_true(file_is(f->top_fd, "secret", "secret"));
    close(f->dir_fd);
    close(f->top_fd);
    (void)snprintf(command, sizeof(command), "rm -rf %s", f->top);
    assert_int_equal(system(command), 0);
}

/* The node number, or the error. */
static int64_t lookup(struct fx *f, uint64_t parent, const char *name)
{
    int rc = ask(f, FUSE_LOOKUP, parent, "", 0, name, NULL);
    return rc < 0 ? rc : (int64_t)ANSWER(f, fuse_entry_out, 0)->nodeid;
}

static int64_t open_node(struct fx *f, uint64_t node, uint32_t opcode, uint32_t flags)
{
    const struct fuse_open_in in = { .flags = flags };
    int rc = ask(f, opcode, node, &in, sizeof(in), NULL, NULL);
    return rc < 0 ? rc : (int64_t)ANSWER(f, fuse_open_out, 0)->fh;
}

static int read_at(struct fx *f, uint64_t node, uint64_t fh, uint64_t offset, uint32_t size)
{
    const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };
    return ask(f, FUSE_READ, node, &in, sizeof(in), NULL, NULL);
}

static int write_text(struct fx *f, uint64_t node, uint64_t fh, const char *text)
{
    /* The text's 0 goes along and is not counted. */
    const struct fuse_write_in in = { .fh = fh, .size = (uint32_t)strlen(text) };
    return ask(f, FUSE_WRITE, node, &in, sizeof(in), text, NULL);
}

static int64_t create(struct fx *f, const char *name, uint32_t mode)
{
    const struct fuse_create_in in = { .flags = O_RDWR, .mode = S_IFREG | mode };
    int rc = ask(f, FUSE_CREATE, FUSE_ROOT_ID, &in, sizeof(in), name, NULL);
    return rc < 0 ? rc : (int64_t)ANSWER(f, fuse_open_out, sizeof(struct fuse_entry_out))->fh;
}

static int make_dir(struct fx *f, uint64_t parent, const char *name, uint32_t mode)
{
    const struct fuse_mkdir_in in = { .mode = mode };
    return ask(f, FUSE_MKDIR, parent, &in, sizeof(in), name, NULL);
}

static int move(struct fx *f, uint64_t from, const char *name, uint64_t to, const char *new_name)
{
    const struct fuse_rename_in in = { .newdir = to };
    return ask(f, FUSE_RENAME, from, &in, sizeof(in), name, new_name);
}

static int set_attr(struct fx *f, uint64_t node, struct fuse_setattr_in in)
{
    return ask(f, FUSE_SETATTR, node, &in, sizeof(in), NULL, NULL);
}

static void test_read(void **state)
{
    (void)state;
    struct fx f;
    begin(&f, false);
    int64_t file = lookup(&f, FUSE_ROOT_ID, "file");
    assert_true(file > FUSE_ROOT_ID);
    const struct fuse_attr *attr = &ANSWER(&f, fuse_entry_out, 0)->attr;
    assert_int_equal(attr->size, 5);
    assert_int_equal(attr->mode, S_IFREG | 0644);
    assert_int_equal(attr->uid, 0); /* we are the guest's root */
    assert_int_equal(lookup(&f, FUSE_ROOT_ID, "file"), file);
    assert_int_equal(lookup(&f, FUSE_ROOT_ID, "none"), -ENOENT);
    int64_t fh = open_node(&f, (uint64_t)file, FUSE_OPEN, O_RDONLY);
    assert_true(fh >= 0);
    assert_int_equal(read_at(&f, (uint64_t)file, (uint64_t)fh, 1, 100), 0);
    assert_int_equal(f.len, 4);
    assert_memory_equal(f.reply + 16, "ello", 4);
    assert_int_equal(read_at(&f, (uint64_t)file, (uint64_t)fh + 1, 0, 100), -EBADF);
    const struct fuse_release_in release = { .fh = (uint64_t)fh };
    assert_int_equal(ask(&f, FUSE_RELEASE, (uint64_t)file, &release, sizeof(release), NULL, NULL),
                     0);
    assert_int_equal(read_at(&f, (uint64_t)file, (uint64_t)fh, 0, 100), -EBADF);
    /* Forgotten, the number means nothing, even when its slot is used again. */
    const struct fuse_forget_in forget = { .nlookup = 2 };
    assert_int_equal(ask(&f, FUSE_FORGET, (uint64_t)file, &forget, sizeof(forget), NULL, NULL), 1);
    assert_int_equal(share_nodes(f.s), 0);
    assert_true(lookup(&f, FUSE_ROOT_ID, "file") != file);
    assert_int_equal(open_node(&f, (uint64_t)file, FUSE_OPEN, O_RDONLY), -ESTALE);
    end(&f);
}

static void test_write(void **state)
{
    (void)state;
    struct fx f;
    struct stat st;
    begin(&f, true);
    int64_t fh = create(&f, "new", 06755);
    assert_true(fh >= 0);
    uint64_t node = ANSWER(&f, fuse_entry_out, 0)->nodeid;
    assert_int_equal(write_text(&f, node, (uint64_t)fh, "text"), 0);
    assert_true(file_is(f.dir_fd, "new", "text"));
    assert_int_equal(fstatat(f.dir_fd, "new", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0755); /* not set-user-ID */
    assert_int_equal(set_attr(&f, node, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 2 }),
                     0);
    assert_true(file_is(f.dir_fd, "new", "te"));
    assert_int_equal(
        set_attr(&f, node, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 06700 }), 0);
    assert_int_equal(fstatat(f.dir_fd, "new", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(set_attr(&f, node, (struct fuse_setattr_in){ .valid = FATTR_UID, .uid = 1 }),
                     -EPERM);
    assert_int_equal(
        set_attr(&f, node, (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 1000 }), 0);
    assert_int_equal(fstatat(f.dir_fd, "new", &st, 0), 0);
    assert_int_equal(st.st_mtime, 1000);
    /* Removed and open: attributes come through the handle. */
    const struct fuse_getattr_in get = { 0 };
    assert_int_equal(ask(&f, FUSE_UNLINK, FUSE_ROOT_ID, "", 0, "new", NULL), 0);
    assert_int_equal(ask(&f, FUSE_GETATTR, node, &get, sizeof(get), NULL, NULL), 0);
    assert_int_equal(write_text(&f, node, (uint64_t)fh, "more"), 0);
    assert_int_equal(init(&f), 0); /* a new guest finds nothing open */
    assert_int_equal(share_handles(f.s) + share_nodes(f.s), 0);
    end(&f);
}

static void test_tree(void **state)
{
    (void)state;
    struct fx f;
    begin(&f, true);
    assert_int_equal(make_dir(&f, FUSE_ROOT_ID, "a", 0755), 0);
    uint64_t a = ANSWER(&f, fuse_entry_out, 0)->nodeid;
    assert_int_equal(make_dir(&f, a, "b", 0755), 0);
    uint64_t b = ANSWER(&f, fuse_entry_out, 0)->nodeid;
    assert_int_equal(move(&f, FUSE_ROOT_ID, "file", b, "moved"), 0);
    assert_true(file_is(f.dir_fd, "a/b/moved", "hello"));
    assert_int_equal(move(&f, FUSE_ROOT_ID, "a", b, "loop"), -EINVAL);
    /* A folder that is renamed takes what is known below it along. */
    assert_int_equal(move(&f, FUSE_ROOT_ID, "a", FUSE_ROOT_ID, "c"), 0);
    int64_t moved = lookup(&f, b, "moved");
    assert_true(moved > 0);
    const struct fuse_link_in link = { .oldnodeid = (uint64_t)moved };
    assert_int_equal(ask(&f, FUSE_LINK, FUSE_ROOT_ID, &link, sizeof(link), "hard", NULL), 0);
    assert_true(file_is(f.dir_fd, "hard", "hello"));
    assert_int_equal(ask(&f, FUSE_RMDIR, a, "", 0, "b", NULL), -ENOTEMPTY);
    assert_int_equal(ask(&f, FUSE_UNLINK, b, "", 0, "moved", NULL), 0);
    assert_int_equal(ask(&f, FUSE_RMDIR, a, "", 0, "b", NULL), 0);
    assert_int_equal(lookup(&f, b, "moved"), -ESTALE);
    const struct fuse_mknod_in fifo = { .mode = S_IFIFO | 0644 };
    assert_int_equal(ask(&f, FUSE_MKNOD, FUSE_ROOT_ID, &fifo, sizeof(fifo), "p", NULL), -EPERM);
    const struct fuse_mknod_in reg = { .mode = S_IFREG | 0644 };
    assert_int_equal(ask(&f, FUSE_MKNOD, FUSE_ROOT_ID, &reg, sizeof(reg), "r", NULL), 0);
    assert_int_equal(ask(&f, FUSE_STATFS, FUSE_ROOT_ID, "", 0, NULL, NULL), 0);
    end(&f);
}

/* Every name once, in pieces; numbers of nodes come with READDIRPLUS. */
static void test_readdir(void **state)
{
    (void)state;
    struct fx f;
    char name[16];
    begin(&f, false);
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof(name), "n%u", i);
        put_file(f.dir_fd, name, "");
    }
    for (unsigned plus = 0; plus < 2; plus++) {
        struct fuse_read_in in = { .size = 1000 };
        unsigned seen = 0;
        in.fh = (uint64_t)open_node(&f, FUSE_ROOT_ID, FUSE_OPENDIR, O_RDONLY);
        do {
            assert_int_equal(ask(&f, plus ? FUSE_READDIRPLUS : FUSE_READDIR, FUSE_ROOT_ID, &in,
                                 sizeof(in), NULL, NULL),
                             0);
            assert_true(f.len <= in.size);
            size_t head = plus ? sizeof(struct fuse_entry_out) : 0;
            for (size_t at = 0; at < f.len;) {
                const struct fuse_dirent *d = ANSWER(&f, fuse_dirent, at + head);
                seen++;
                assert_true(plus == 0 || d->name[0] == '.' ||
                            ANSWER(&f, fuse_entry_out, at)->nodeid > FUSE_ROOT_ID);
                in.offset = d->off;
                at += head + FUSE_DIRENT_SIZE(d);
            }
        } while (f.len > 0);
        assert_int_equal(seen, 303); /* ".", "..", file */
        assert_int_equal(share_nodes(f.s), plus ? 301 : 0);
    }
    end(&f);
}

static void test_read_only(void **state)
{
    (void)state;
    struct fx f;
    begin(&f, false);
    uint64_t file = (uint64_t)lookup(&f, FUSE_ROOT_ID, "file");
    assert_int_equal(create(&f, "new", 0644), -EROFS);
    assert_int_equal(open_node(&f, file, FUSE_OPEN, O_WRONLY), -EROFS);
    assert_int_equal(open_node(&f, file, FUSE_OPEN, O_RDONLY | O_TRUNC), -EROFS);
    assert_int_equal(make_dir(&f, FUSE_ROOT_ID, "d", 0755), -EROFS);
    assert_int_equal(move(&f, FUSE_ROOT_ID, "file", FUSE_ROOT_ID, "x"), -EROFS);
    assert_int_equal(ask(&f, FUSE_UNLINK, FUSE_ROOT_ID, "", 0, "file", NULL), -EROFS);
    assert_int_equal(ask(&f, FUSE_SYMLINK, FUSE_ROOT_ID, "", 0, "l", "file"), -EROFS);
    assert_int_equal(set_attr(&f, file, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 0 }),
                     -EROFS);
    uint64_t fh = (uint64_t)open_node(&f, file, FUSE_OPEN, O_RDONLY);
    assert_int_equal(write_text(&f, file, fh, "x"), -EROFS);
    assert_true(file_is(f.dir_fd, "file", "hello"));
    end(&f);
}

/* No name, link or trick of timing leads out of the folder. */
static void test_escape(void **state)
{
    (void)state;
    static const char *const names[] = { "..", ".", "", "../secret", "a/b", "/etc/passwd" };
    struct fx f;
    struct stat st;
    char target[128];
    begin(&f, true);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(lookup(&f, FUSE_ROOT_ID, names[i]), -EINVAL);
        assert_int_equal(create(&f, names[i], 0644), -EINVAL);
        assert_int_equal(make_dir(&f, FUSE_ROOT_ID, names[i], 0755), -EINVAL);
        assert_int_equal(ask(&f, FUSE_UNLINK, FUSE_ROOT_ID, "", 0, names[i], NULL), -EINVAL);
        assert_int_equal(move(&f, FUSE_ROOT_ID, "file", FUSE_ROOT_ID, names[i]), -EINVAL);
    }
    /* Links are text: the guest may make and read any, nothing here follows one. */
    (void)snprintf(target, sizeof(target), "%s/secret", f.top);
    assert_int_equal(ask(&f, FUSE_SYMLINK, FUSE_ROOT_ID, "", 0, "l", target), 0);
    uint64_t l = ANSWER(&f, fuse_entry_out, 0)->nodeid;
    assert_int_equal(ANSWER(&f, fuse_entry_out, 0)->attr.mode & S_IFMT, S_IFLNK);
    assert_int_equal(ask(&f, FUSE_READLINK, l, "", 0, NULL, NULL), 0);
    assert_memory_equal(f.reply + 16, target, f.len);
    assert_int_equal(open_node(&f, l, FUSE_OPEN, O_RDONLY), -EPERM);
    assert_int_equal(create(&f, "l", 0644), -EPERM);
    assert_int_equal(set_attr(&f, l, (struct fuse_setattr_in){ .valid = FATTR_SIZE }), -EPERM);
    assert_int_equal(set_attr(&f, l, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0777 }),
                     -EPERM);
    assert_int_equal(set_attr(&f, l, (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 1 }),
                     0);
    assert_int_equal(fstatat(f.top_fd, "secret", &st, 0), 0);
    assert_true(st.st_mtime > 1);
    assert_int_equal(ask(&f, FUSE_SYMLINK, FUSE_ROOT_ID, "", 0, "ld", "../dir"), 0);
    uint64_t ld = ANSWER(&f, fuse_entry_out, 0)->nodeid;
    assert_true(lookup(&f, ld, "x") < 0);
    assert_true(make_dir(&f, ld, "x", 0755) < 0);
    assert_true(open_node(&f, ld, FUSE_OPENDIR, O_RDONLY) < 0);
    /* A folder that was looked up becomes a link behind our back. */
    assert_int_equal(make_dir(&f, FUSE_ROOT_ID, "d", 0755), 0);
    uint64_t d = ANSWER(&f, fuse_entry_out, 0)->nodeid;
    assert_int_equal(unlinkat(f.dir_fd, "d", AT_REMOVEDIR), 0);
    assert_int_equal(symlinkat("../dir", f.dir_fd, "d"), 0);
    assert_true(make_dir(&f, d, "x", 0755) < 0);
    assert_true(create(&f, "d", 0644) < 0);
    assert_int_equal(faccessat(f.top_fd, "dir/x", F_OK, 0), -1);
    /* What is no file is not opened: this one would block. */
    assert_int_equal(mkfifoat(f.dir_fd, "fifo", 0600), 0);
    int64_t fifo = lookup(&f, FUSE_ROOT_ID, "fifo");
    assert_int_equal(open_node(&f, (uint64_t)fifo, FUSE_OPEN, O_RDONLY), -EPERM);
    assert_int_equal(create(&f, "fifo", 0644), -EPERM);
    end(&f);
}

static void test_limits(void **state)
{
    (void)state;
    struct fx f;
    begin(&f, false);
    uint64_t file = (uint64_t)lookup(&f, FUSE_ROOT_ID, "file");
    int64_t fh = 0;
    unsigned n = 0;
    while (n <= SHARE_MAX_HANDLES && (fh = open_node(&f, file, FUSE_OPEN, O_RDONLY)) >= 0) {
        n++;
    }
    assert_true(fh == -ENFILE || fh == -EMFILE); /* ours, or the host's */
    assert_true(n > 100 && share_handles(f.s) == n);
    end(&f);
}

/* Requests that end early, with any number in them, and answers without room. */
static void test_malformed(void **state)
{
    (void)state;
    struct fx f;
    uint8_t bytes[200];
    begin(&f, true);
    for (uint32_t op = 0; op < 64; op++) {
        for (unsigned fill = 0; fill < 3; fill++) {
            memset(bytes, fill == 0 ? 0 : fill == 1 ? 0xff : 'a', sizeof(bytes));
            for (size_t len = 0; len < sizeof(bytes); len += 4) {
                (void)ask(&f, op, FUSE_ROOT_ID, bytes, len, NULL, NULL);
            }
        }
    }
    assert_int_equal(init(&f), 0);
    struct fuse_in_header in = { .opcode = FUSE_LOOKUP, .nodeid = FUSE_ROOT_ID };
    uint8_t request[sizeof(in) + 5];
    memcpy(request, &in, sizeof(in));
    memcpy(request + sizeof(in), "file", 5);
    assert_int_equal(share_handle(f.s, request, sizeof(request), f.reply, 15), 0);
    assert_int_equal(share_handle(f.s, request, sizeof(request), f.reply, 20), 16);
    assert_int_equal(share_nodes(f.s), 0); /* the guest did not learn of any */
    assert_int_equal(share_handle(f.s, request, 39, f.reply, 100), 0);
    const struct fuse_init_in old = { .major = 7, .minor = 30 };
    assert_int_equal(ask(&f, FUSE_INIT, 0, &old, sizeof(old), NULL, NULL), -EPROTO);
    assert_int_equal(ask(&f, FUSE_GETXATTR, FUSE_ROOT_ID, bytes, 8, NULL, NULL), -ENOSYS);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),      cmocka_unit_test(test_write),
        cmocka_unit_test(test_tree),      cmocka_unit_test(test_readdir),
        cmocka_unit_test(test_read_only), cmocka_unit_test(test_escape),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
