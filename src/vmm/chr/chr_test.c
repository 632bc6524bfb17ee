/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/chr/chr.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include <cmocka.h>

#include "base/log.h"

struct rig {
    struct loop *loop;
    struct chr *chr;
    char dir[64];
    char in[8192];
    size_t in_len;
    unsigned writable, opened, closed, quits, monitors, breaks;
    uint16_t cols, rows;
};

static void on_input(void *opaque, const uint8_t *buf, size_t len)
{
    struct rig *r = opaque;
    assert_true(r->in_len + len <= sizeof(r->in));
    memcpy(r->in + r->in_len, buf, len);
    r->in_len += len;
}

static void on_writable(void *opaque)
{
    ((struct rig *)opaque)->writable++;
}

static void on_opened(void *opaque, bool open)
{
    struct rig *r = opaque;
    r->opened += open;
    r->closed += !open;
}

static void on_break(void *opaque)
{
    ((struct rig *)opaque)->breaks++;
}

static void on_resized(void *opaque, uint16_t cols, uint16_t rows)
{
    struct rig *r = opaque;
    r->cols = cols;
    r->rows = rows;
}

static void on_escape(void *opaque, enum chr_escape what)
{
    struct rig *r = opaque;
    r->quits += what == CHR_ESCAPE_QUIT;
    r->monitors += what == CHR_ESCAPE_MONITOR;
}

static void rig_init(struct rig *r)
{
    struct err err = ERR_INIT;
    memset(r, 0, sizeof(*r));
    assert_int_equal(loop_new(&r->loop, &err), 0);
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/chr_test.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
}

static void rig_open(struct rig *r, const char *spec)
{
    struct err err = ERR_INIT;
    if (chr_open(spec, r->loop, on_escape, r, &r->chr, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    chr_attach(r->chr,
               &(struct chr_front){ on_input, on_writable, on_opened, on_break, on_resized, r });
}

static void rig_done(struct rig *r)
{
    chr_close(r->chr);
    loop_free(r->loop);
    assert_int_equal(rmdir(r->dir), 0); /* also: every file that we made is gone */
}

static void rig_poll(struct rig *r)
{
    for (int i = 0; i < 20; i++) {
        assert_int_equal(loop_run_once(r->loop, 2), 0);
    }
}

static const char *rig_path(struct rig *r, const char *prefix)
{
    static char path[100]; /* of this test program, one use at a time */
    (void)snprintf(path, sizeof(path), "%s%s/s", prefix, r->dir);
    return path;
}

static void unix_addr(struct sockaddr_un *sa, const char *path)
{
    *sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
    assert_true(strlen(path) < sizeof(sa->sun_path));
    memcpy(sa->sun_path, path, strlen(path));
}

static int try_connect(const char *path)
{
    struct sockaddr_un sa;
    unix_addr(&sa, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static size_t put(struct rig *r, const char *text)
{
    return chr_write(r->chr, (const uint8_t *)text, strlen(text));
}

static void bad_specs_name_the_kinds(void **state)
{
    (void)state;
    static const char *const bad[] = { "",      "stdi",      "unix",   "unix:", "file:",
                                       "pty:x", "stdio:tty", "null:1", "tcp:1" };
    struct rig r;
    rig_init(&r);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        assert_int_equal(chr_open(bad[i], r.loop, NULL, NULL, &r.chr, &err), -EINVAL);
        assert_non_null(strstr(err.msg, bad[i]));
    }
    rig_done(&r);
}

static void null_takes_everything(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    rig_open(&r, "null");
    assert_int_equal(put(&r, "hello"), 5);
    assert_false(chr_is_open(r.chr));
    rig_done(&r);
}

static void file_records_output(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    rig_open(&r, rig_path(&r, "file:"));
    assert_int_equal(put(&r, "one "), 4);
    assert_int_equal(put(&r, "two"), 3);
    char buf[16] = "";
    int fd = open(rig_path(&r, ""), O_RDONLY);
    assert_int_equal(read(fd, buf, sizeof(buf)), 7);
    assert_string_equal(buf, "one two");
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    close(fd);
    unlink(rig_path(&r, ""));
    rig_done(&r);
}

static void file_refuses_a_directory(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct err err = ERR_INIT;
    assert_int_equal(chr_open("file:/tmp", r.loop, NULL, NULL, &r.chr, &err), -EISDIR);
    assert_non_null(strstr(err.msg, "/tmp"));
    rig_done(&r);
}

static void full_disk_does_not_stop_the_guest(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    log_set_level(LOG_ERROR);
    rig_open(&r, "file:/dev/full");
    assert_int_equal(put(&r, "hello"), 5);
    rig_poll(&r);
    assert_false(chr_is_open(r.chr));
    assert_int_equal(put(&r, "hello"), 5);
    rig_done(&r);
}

static void unix_serves_one_peer_both_ways(void **state)
{
    (void)state;
    struct rig r;
    struct stat st;
    rig_init(&r);
    rig_open(&r, rig_path(&r, "unix:"));
    assert_int_equal(stat(rig_path(&r, ""), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(put(&r, "nobody hears"), 12);
    int a = try_connect(rig_path(&r, ""));
    rig_poll(&r);
    assert_int_equal(r.opened, 1);
    int b = try_connect(rig_path(&r, ""));
    rig_poll(&r);
    char buf[16];
    assert_int_equal(read(b, buf, sizeof(buf)), 0); /* turned away */
    close(b);

    assert_int_equal(put(&r, "hi"), 2);
    assert_int_equal(read(a, buf, sizeof(buf)), 2);
    assert_int_equal(write(a, "abcdef", 6), 6);
    rig_poll(&r);
    assert_int_equal(r.in_len, 0); /* no room yet */
    chr_set_ready(r.chr, 4);
    rig_poll(&r);
    assert_int_equal(r.in_len, 4);
    close(a); /* with two bytes unread: they still come */
    rig_poll(&r);
    assert_int_equal(r.closed, 0);
    chr_set_ready(r.chr, 4);
    rig_poll(&r);
    assert_memory_equal(r.in, "abcdef", 6);
    assert_int_equal(r.closed, 1);

    a = try_connect(rig_path(&r, ""));
    rig_poll(&r);
    assert_int_equal(r.opened, 2);
    close(a);
    rig_done(&r);
}

static void unix_takes_a_new_peer_while_the_guest_reads_nothing(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    rig_open(&r, rig_path(&r, "unix:"));
    int a = try_connect(rig_path(&r, ""));
    rig_poll(&r);
    assert_int_equal(write(a, "x", 1), 1);
    close(a);
    rig_poll(&r);
    a = try_connect(rig_path(&r, ""));
    rig_poll(&r);
    assert_int_equal(put(&r, "again"), 5);
    char buf[16];
    assert_int_equal(read(a, buf, sizeof(buf)), 5);
    close(a);
    rig_done(&r);
}

/* The reader takes nothing: output stops at a bound, without blocking, and goes on in order. */
static void slow_reader_is_bounded(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    rig_open(&r, rig_path(&r, "unix:"));
    int a = try_connect(rig_path(&r, ""));
    rig_poll(&r);
    size_t sent = 0;
    uint8_t chunk[1000];
    for (;;) {
        for (size_t i = 0; i < sizeof(chunk); i++) {
            chunk[i] = (uint8_t)((sent + i) % 251);
        }
        size_t n = chr_write(r.chr, chunk, sizeof(chunk));
        sent += n;
        if (n < sizeof(chunk)) {
            break;
        }
        assert_true(sent < 16 * MIB);
    }
    assert_int_equal(chr_write(r.chr, chunk, 1), 0);
    assert_int_equal(r.writable, 0);
    size_t got = 0;
    for (int idle = 0; got < sent && idle < 100;) {
        uint8_t buf[4096];
        ssize_t n = read(a, buf, sizeof(buf));
        idle = n > 0 ? 0 : idle + 1;
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(buf[i], (got + (size_t)i) % 251);
        }
        got += n > 0 ? (size_t)n : 0;
        assert_int_equal(loop_run_once(r.loop, 0), 0);
    }
    assert_int_equal(got, sent);
    assert_int_equal(r.writable, 1);
    close(a);
    rig_done(&r);
}

static void unix_removes_only_its_own_stale_socket(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct err err = ERR_INIT;
    struct sockaddr_un sa;
    unix_addr(&sa, rig_path(&r, ""));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    const char *spec = rig_path(&r, "unix:");
    assert_int_equal(chr_open(spec, r.loop, NULL, NULL, &r.chr, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "running process"));
    close(fd); /* now nobody listens: stale */
    rig_open(&r, rig_path(&r, "unix:"));
    chr_close(r.chr);
    r.chr = NULL;
    assert_int_equal(access(rig_path(&r, ""), F_OK), -1);

    fd = open(rig_path(&r, ""), O_CREAT | O_WRONLY, 0600);
    close(fd);
    spec = rig_path(&r, "unix:");
    assert_int_equal(chr_open(spec, r.loop, NULL, NULL, &r.chr, &err), -EEXIST);
    unlink(rig_path(&r, ""));
    rig_done(&r);
}

static void unix_path_too_long(void **state)
{
    (void)state;
    struct rig r;
    char spec[160] = "unix:/tmp/";
    rig_init(&r);
    memset(spec + 10, 'a', 120);
    struct err err = ERR_INIT;
    assert_int_equal(chr_open(spec, r.loop, NULL, NULL, &r.chr, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.msg, "107"));
    rig_done(&r);
}

static void pty_is_raw_and_may_be_reopened(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    rig_open(&r, "pty");
    assert_memory_equal(chr_name(r.chr), "/dev/pts/", 9);
    for (int turn = 1; turn <= 2; turn++) {
        int fd = open(chr_name(r.chr), O_RDWR | O_NOCTTY | O_NONBLOCK);
        assert_true(fd >= 0);
        for (int i = 0; i < 500 && !chr_is_open(r.chr); i++) {
            assert_int_equal(loop_run_once(r.loop, 10), 0);
        }
        assert_int_equal(r.opened, turn);
        chr_set_ready(r.chr, 100);
        assert_int_equal(put(&r, "a\r\n\001"), 4);
        char buf[16];
        assert_int_equal(read(fd, buf, sizeof(buf)), 4);
        assert_memory_equal(buf, "a\r\n\001", 4);
        assert_int_equal(write(fd, "\003x\r", 3), 3);
        rig_poll(&r);
        assert_int_equal(r.in_len, 3 * turn);
        close(fd);
        rig_poll(&r);
        assert_int_equal(r.closed, turn);
    }
    rig_done(&r);
}

/* What the child of a stdio test does on its terminal. */
enum stdio_end { END_CLOSE, END_EXIT, END_SIGTERM, END_ABORT };

/* Runs stdio on a fresh terminal until Ctrl-A x, then ends as asked. Exit code: what it saw. */
static int stdio_child(enum stdio_end end)
{
    struct rig r;
    struct err err = ERR_INIT;
    memset(&r, 0, sizeof(r));
    if (loop_new(&r.loop, &err) < 0 || chr_open("stdio", r.loop, on_escape, &r, &r.chr, &err) < 0) {
        return 10;
    }
    struct chr *second = NULL;
    if (chr_open("stdio", r.loop, NULL, NULL, &second, &err) != -EBUSY) {
        return 11;
    }
    chr_attach(r.chr,
               &(struct chr_front){ on_input, on_writable, on_opened, on_break, on_resized, &r });
    (void)put(&r, "ready\n");
    while (r.quits == 0) {
        if (loop_run_once(r.loop, 5000) < 0) {
            return 12;
        }
        if (r.breaks > 0) { /* the guest wakes up only now */
            chr_set_ready(r.chr, sizeof(r.in) - r.in_len);
        }
    }
    bool ok = r.in_len == 4 && memcmp(r.in, "ab\001c", 4) == 0 && r.monitors == 1 && r.breaks == 1;
    ok = ok && r.cols == 99 && r.rows == 33;
    if (end == END_SIGTERM) {
        raise(SIGTERM);
    } else if (end == END_ABORT) {
        abort();
    } else if (end == END_EXIT) {
        exit(ok ? 0 : 13);
    }
    chr_close(r.chr);
    loop_free(r.loop);
    return ok ? 0 : 13;
}

static void read_until(int fd, const char *what)
{
    char buf[4096] = "";
    size_t len = 0;
    while (strstr(buf, what) == NULL && len < sizeof(buf) - 1) {
        ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
        buf[len] = '\0';
    }
}

static void stdio_case(enum stdio_end end, int want_signal)
{
    int master;
    int slave;
    struct winsize ws = { .ws_col = 80, .ws_row = 24 };
    assert_int_equal(openpty(&master, &slave, NULL, NULL, &ws), 0);
    struct termios before;
    struct termios now;
    assert_int_equal(tcgetattr(slave, &before), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(master);
        if (login_tty(slave) < 0) {
            _exit(14);
        }
        alarm(30);
        _exit(stdio_child(end));
    }
    read_until(master, "ready");
    assert_int_equal(tcgetattr(slave, &now), 0);
    assert_int_equal(now.c_lflag & (ICANON | ECHO | ISIG), 0);
    ws = (struct winsize){ .ws_col = 99, .ws_row = 33 };
    assert_int_equal(ioctl(master, TIOCSWINSZ, &ws), 0);
    assert_int_equal(write(master, "ab\001\001\001h\001cc\001z", 11), 11);
    read_until(master, "end the virtual machine");
    assert_int_equal(write(master, "\001b", 2), 2);
    usleep(100000); /* lets the child deliver what it kept before it is told to end */
    assert_int_equal(write(master, "\001x", 2), 2);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (want_signal != 0) {
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), want_signal);
    } else {
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(tcgetattr(slave, &now), 0);
    assert_int_equal(now.c_lflag, before.c_lflag);
    assert_int_equal(now.c_iflag, before.c_iflag);
    assert_int_equal(now.c_oflag, before.c_oflag);
    close(master);
    close(slave);
}

static void stdio_restores_the_terminal_on_close(void **state)
{
    (void)state;
    stdio_case(END_CLOSE, 0);
}

static void stdio_restores_the_terminal_on_exit(void **state)
{
    (void)state;
    stdio_case(END_EXIT, 0);
}

static void stdio_restores_the_terminal_on_sigterm(void **state)
{
    (void)state;
    stdio_case(END_SIGTERM, SIGTERM);
}

static void stdio_restores_the_terminal_on_abort(void **state)
{
    (void)state;
    stdio_case(END_ABORT, SIGABRT);
}

/* Input from a pipe is not lost however late the guest reads, and a closed output is survived. */
static void stdio_on_pipes(void **state)
{
    (void)state;
    int in[2];
    int out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    int saved[2] = { dup(0), dup(1) };
    (void)fflush(stdout);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(out[1]);
    struct rig r;
    rig_init(&r);
    rig_open(&r, "stdio");
    char big[6000];
    memset(big, 'y', sizeof(big));
    ssize_t wrote = write(in[1], big, sizeof(big));
    rig_poll(&r);
    chr_set_ready(r.chr, sizeof(r.in));
    rig_poll(&r);
    size_t got = r.in_len;
    size_t taken = put(&r, "out");
    char buf[8];
    ssize_t seen = read(out[0], buf, sizeof(buf));
    dup2(saved[1], 1); /* now only the chr holds the pipe */
    close(out[0]);
    (void)put(&r, "lost");
    rig_poll(&r);
    size_t still = put(&r, "lost");
    ssize_t more = write(in[1], "\001x", 2);
    rig_poll(&r);
    unsigned quits = r.quits;
    rig_done(&r);
    dup2(saved[0], 0);
    for (int i = 0; i < 2; i++) {
        close(saved[i]);
        close(in[i]);
    }
    assert_int_equal(wrote, sizeof(big));
    assert_int_equal(got, sizeof(big));
    assert_int_equal(taken, 3);
    assert_int_equal(seen, 3);
    assert_int_equal(still, 4);
    assert_int_equal(more, 2);
    assert_int_equal(quits, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_specs_name_the_kinds),
        cmocka_unit_test(null_takes_everything),
        cmocka_unit_test(file_records_output),
        cmocka_unit_test(file_refuses_a_directory),
        cmocka_unit_test(full_disk_does_not_stop_the_guest),
        cmocka_unit_test(unix_serves_one_peer_both_ways),
        cmocka_unit_test(unix_takes_a_new_peer_while_the_guest_reads_nothing),
        cmocka_unit_test(slow_reader_is_bounded),
        cmocka_unit_test(unix_removes_only_its_own_stale_socket),
        cmocka_unit_test(unix_path_too_long),
        cmocka_unit_test(pty_is_raw_and_may_be_reopened),
        cmocka_unit_test(stdio_restores_the_terminal_on_close),
        cmocka_unit_test(stdio_restores_the_terminal_on_exit),
        cmocka_unit_test(stdio_restores_the_terminal_on_sigterm),
        cmocka_unit_test(stdio_restores_the_terminal_on_abort),
        cmocka_unit_test(stdio_on_pipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
