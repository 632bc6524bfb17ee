/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/store_int.h"

#define STORE_TEXT_MAX 65536

char *store_path(const struct store *s, char *buf, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(buf, STORE_PATH_MAX, "%s/", s->dir);
    va_start(ap, fmt);
    (void)vsnprintf(buf + n, (size_t)(STORE_PATH_MAX - n), fmt, ap);
    va_end(ap);
    return buf;
}

const char *store_dir(const struct store *s)
{
    return s->dir;
}

/* ---- Small things around files ---- */

static int store_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **store_names(const char *path)
{
    size_t n = 0;
    char **names = calloc(1, sizeof(*names));
    DIR *dir = opendir(path);
    struct dirent *e;
    while (names != NULL && dir != NULL && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        names = realloc(names, (n + 2) * sizeof(*names));
        if (names == NULL || (names[n] = strdup(e->d_name)) == NULL) {
            abort();
        }
        names[++n] = NULL;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    if (names == NULL) {
        abort();
    }
    qsort(names, n, sizeof(*names), store_compare);
    return names;
}

void store_names_free(char **names)
{
    for (char **p = names; p != NULL && *p != NULL; p++) {
        free(*p);
    }
    free(names);
}

int store_read_text(const char *path, char **ret_text, struct err *err)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    CLEANUP_FREE char *text = calloc(1, STORE_TEXT_MAX + 1);
    if (fd < 0) {
        return err_set_errno(err, -errno, "cannot open '%s'", path);
    }
    ssize_t n = text != NULL ? read(fd, text, STORE_TEXT_MAX) : -1;
    if (n < 0) {
        return err_set_errno(err, text != NULL ? -errno : -ENOMEM, "cannot read '%s'", path);
    }
    text[strcspn(text, "\n")] = '\0';
    *ret_text = take_ptr(&text);
    return 0;
}

int store_write_text(const char *path, const char *text, struct err *err)
{
    char tmp[STORE_PATH_MAX + 8];
    (void)snprintf(tmp, sizeof(tmp), "%s~", path);
    FILE *f = fopen(tmp, "we");
    bool ok = f != NULL && fprintf(f, "%s\n", text) > 0 && fflush(f) == 0;
    if (f != NULL && fclose(f) != 0) {
        ok = false;
    }
    if (!ok || rename(tmp, path) < 0) {
        int code = errno;
        (void)unlink(tmp);
        return err_set_errno(err, -code, "cannot write '%s'", path);
    }
    return 0;
}

static int store_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    (void)remove(path); /* what cannot be removed stays: the header says so */
    return 0;
}

/* A folder without the write bit keeps its files: images are such folders. */
static int store_unprotect(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)ftw;
    if (kind == FTW_D && (st->st_mode & S_IWUSR) == 0) {
        (void)chmod(path, 0700);
    }
    return 0;
}

void store_remove_tree(const char *path)
{
    (void)nftw(path, store_unprotect, 16, FTW_PHYS | FTW_MOUNT);
    (void)nftw(path, store_remove_one, 16, FTW_PHYS | FTW_MOUNT | FTW_DEPTH);
}

/* ---- Locks and temporary folders ---- */

static int store_flock(const char *path, int how, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc;
    while ((rc = fd < 0 ? -1 : flock(fd, how)) < 0 && errno == EINTR) {
    }
    if (rc < 0) {
        rc = err_set_errno(err, -errno, "cannot lock '%s'", path);
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    return fd;
}

int store_lock(const struct store *s, struct err *err)
{
    char path[STORE_PATH_MAX];
    return store_flock(store_path(s, path, "lock"), LOCK_EX, err);
}

int store_lock_name(struct store *s, const char *ref, void (*waiting)(void *opaque), void *opaque,
                    struct err *err)
{
    char path[STORE_PATH_MAX];
    int fd = store_flock(store_path(s, path, "names/%s", ref), LOCK_EX | LOCK_NB, err);
    if (fd != -EWOULDBLOCK) {
        return fd;
    }
    err_clear(err);
    waiting(opaque);
    return store_flock(path, LOCK_EX, err);
}

/* Invariant 3. The store's lock is held, so that no folder is between its making and its flock. */
static void store_sweep(const struct store *s)
{
    char path[STORE_PATH_MAX];
    char **names = store_names(store_path(s, path, "tmp"));
    for (char **n = names; *n != NULL; n++) {
        CLEANUP_FD int fd =
            open(store_path(s, path, "tmp/%s", *n), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) {
            store_remove_tree(path);
        }
    }
    store_names_free(names);
}

int store_tmp_new(struct store *s, struct store_tmp *ret_tmp, struct err *err)
{
    CLEANUP_FD int lock = store_lock(s, err);
    if (lock < 0) {
        return lock;
    }
    (void)store_path(s, ret_tmp->path, "tmp/XXXXXX");
    ret_tmp->fd = -1;
    if (mkdtemp(ret_tmp->path) == NULL ||
        (ret_tmp->fd = open(ret_tmp->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        flock(ret_tmp->fd, LOCK_EX | LOCK_NB) < 0) {
        return err_set_errno(err, -errno, "cannot make a folder in '%s/tmp'", s->dir);
    }
    return 0;
}

void store_tmp_free(struct store_tmp *tmp)
{
    if (tmp->fd >= 0) {
        store_remove_tree(tmp->path);
        close(tmp->fd);
        tmp->fd = -1;
    }
}

int store_tmp_hold(struct store *s, struct store_tmp *tmp, const char *id, struct err *err)
{
    char path[STORE_PATH_MAX];
    char file[STORE_PATH_MAX + 8];
    CLEANUP_FD int lock = store_lock(s, err);
    if (lock < 0) {
        return lock;
    }
    if (access(store_path(s, path, "images/%s/image.json", id), F_OK) < 0) {
        return err_set_errno(err, -errno, "image %.12s", id);
    }
    (void)snprintf(file, sizeof(file), "%s/image", tmp->path);
    return store_write_text(file, id, err);
}

/* ---- Opening ---- */

static int store_default_dir(char *buf, size_t len, struct err *err)
{
    const char *set = getenv("POSADA_STORE");
    const char *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");
    int n;
    if (set != NULL && set[0] != '\0') {
        n = snprintf(buf, len, "%s", set);
    } else if (geteuid() == 0) {
        n = snprintf(buf, len, "/var/lib/posada");
    } else if (data != NULL && data[0] == '/') {
        n = snprintf(buf, len, "%s/posada", data);
    } else if (home != NULL && home[0] == '/') {
        n = snprintf(buf, len, "%s/.local/share/posada", home);
    } else {
        return err_set(err, -ENOENT,
                       "no place for the image store: HOME is not set; set POSADA_STORE");
    }
    return (size_t)n < len ? 0 : err_set(err, -ENAMETOOLONG, "the store's path is too long");
}

/* mkdir -p. */
static int store_make_dirs(char *path, struct err *err)
{
    for (char *p = path + 1;; p++) {
        if (*p == '/' || *p == '\0') {
            char was = *p;
            *p = '\0';
            int rc = mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
            if (rc < 0) {
                return err_set_errno(err, rc, "image store: cannot make the folder '%s'", path);
            }
            *p = was;
            if (was == '\0') {
                return 0;
            }
        }
    }
}

static int store_prepare(struct store *s, const char *dir, struct err *err)
{
    static const char *const subs[] = { "images", "tags", "vms", "tmp", "names", "debs", "bases" };
    char given[STORE_PATH_MAX - 512];
    int rc = 0;
    if (dir == NULL) {
        rc = store_default_dir(given, sizeof(given), err);
    } else if ((size_t)snprintf(given, sizeof(given), "%s", dir) >= sizeof(given)) {
        rc = err_set(err, -ENAMETOOLONG, "the store's path is too long");
    }
    rc = rc < 0 ? rc : store_make_dirs(given, err);
    if (rc < 0) {
        return rc;
    }
    CLEANUP_FREE char *real = realpath(given, NULL);
    if (real == NULL || strlen(real) >= sizeof(s->dir)) {
        return err_set_errno(err, real == NULL ? -errno : -ENAMETOOLONG, "image store '%s'", given);
    }
    (void)snprintf(s->dir, sizeof(s->dir), "%s", real);
    for (size_t i = 0; i < ARRAY_LEN(subs); i++) {
        char path[STORE_PATH_MAX];
        if (mkdir(store_path(s, path, "%s", subs[i]), 0755) < 0 && errno != EEXIST) {
            return err_set_errno(err, -errno, "image store: cannot make the folder '%s'", path);
        }
    }
    return 0;
}

int store_open(const char *dir, struct store **ret_store, struct err *err)
{
    struct store *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int rc = store_prepare(s, dir, err);
    CLEANUP_FD int lock = rc < 0 ? -1 : store_lock(s, err);
    if (rc < 0 || lock < 0) {
        free(s);
        return rc < 0 ? rc : err_prefix(err, "image store: ");
    }
    store_sweep(s);
    *ret_store = s;
    return 0;
}

void store_close(struct store *s)
{
    free(s);
}
