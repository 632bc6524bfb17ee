/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The prompt on a stdio console whose ends are pipes; both loops are run here, in turn. */
#include "vmm/ctl/prompt.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    struct loop *io, *ctl;
    struct chr *chr;
    struct prompt *prompt;
    int in, out; /* our ends */
    int saved[2];
    char guest[8192];
    size_t guest_len;
    unsigned handled;
    uint64_t balloon;
    char seen[65536];
    size_t seen_len;
};

static void on_input(void *opaque, const uint8_t *buf, size_t len)
{
    struct rig *r = opaque;
    assert_true(r->guest_len + len < sizeof(r->guest));
    memcpy(r->guest + r->guest_len, buf, len);
    r->guest_len += len;
}

static void on_writable(void *opaque)
{
    (void)opaque;
}

static void on_escape(void *opaque, enum chr_escape what)
{
    struct rig *r = opaque;
    if (what == CHR_ESCAPE_MONITOR) {
        prompt_toggle(r->prompt);
    }
}

static void handler(void *opaque, struct wire_msg *msg)
{
    struct rig *r = opaque;
    r->handled++;
    switch (msg->type) {
    case WIRE_STATUS:
        msg->type = WIRE_STATUS_REPLY;
        msg->status_reply = (struct wire_status_reply){ .vcpus = 2, .memory_bytes = 1 << 28 };
        (void)snprintf(msg->status_reply.name, sizeof(msg->status_reply.name), "blue");
        break;
    case WIRE_BALLOON:
        r->balloon = msg->balloon.memory_bytes;
        msg->type = WIRE_OK;
        break;
    case WIRE_STATS: /* the longest there is */
        msg->type = WIRE_STATS_REPLY;
        msg->stats_reply.value_count = ARRAY_LEN(msg->stats_reply.value);
        for (unsigned i = 0; i < ARRAY_LEN(msg->stats_reply.value); i++) {
            struct wire_pair *v = &msg->stats_reply.value[i];
            (void)snprintf(v->name, sizeof(v->name), "%063u", i);
            v->value = UINT64_MAX;
        }
        break;
    case WIRE_REGISTERS:
        (void)snprintf(msg->text_reply.text, sizeof(msg->text_reply.text), "rip of %u\n",
                       msg->registers.vcpu);
        msg->type = WIRE_TEXT_REPLY;
        break;
    case WIRE_PAUSE:
        ctl_error(msg, -EALREADY, "the VM is not running");
        break;
    default:
        msg->type = WIRE_OK;
        break;
    }
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct err err = ERR_INIT;
    int in[2];
    int out[2];
    assert_non_null(r);
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    (void)fflush(stdout);
    r->saved[0] = dup(0);
    r->saved[1] = dup(1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[0]);
    close(out[1]);
    r->in = in[1];
    r->out = out[0];
    assert_int_equal(fcntl(r->out, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(loop_new(&r->io, &err), 0);
    assert_int_equal(loop_new(&r->ctl, &err), 0);
    assert_int_equal(chr_open("stdio", r->io, on_escape, r, &r->chr, &err), 0);
    chr_attach(r->chr,
               &(struct chr_front){ .input = on_input, .writable = on_writable, .opaque = r });
    chr_set_ready(r->chr, sizeof(r->guest) - 1);
    assert_int_equal(prompt_new(r->chr, r->io, r->ctl, handler, r, &r->prompt, &err), 0);
    /* cmocka prints on the real standard output from here on; the chr has its own descriptors. */
    dup2(r->saved[0], 0);
    dup2(r->saved[1], 1);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    prompt_free(r->prompt);
    chr_close(r->chr);
    loop_free(r->io);
    loop_free(r->ctl);
    close(r->in);
    close(r->out);
    close(r->saved[0]);
    close(r->saved[1]);
    free(r);
    return 0;
}

static void run_io(struct rig *r)
{
    for (int i = 0; i < 10; i++) {
        assert_int_equal(loop_run_once(r->io, 1), 0);
        ssize_t n;
        while ((n = read(r->out, r->seen + r->seen_len, sizeof(r->seen) - 1 - r->seen_len)) > 0) {
            r->seen_len += (size_t)n;
        }
        r->seen[r->seen_len] = '\0';
    }
}

static void run(struct rig *r)
{
    for (int i = 0; i < 5; i++) {
        run_io(r);
        assert_int_equal(loop_run_once(r->ctl, 0), 0);
    }
    run_io(r);
}

static void type(struct rig *r, const char *text)
{
    assert_int_equal(write(r->in, text, strlen(text)), strlen(text));
}

static void want_seen(struct rig *r, const char *text)
{
    if (strcmp(r->seen, text) != 0) {
        fail_msg("shown: <%s>, wanted: <%s>", r->seen, text);
    }
    r->seen_len = 0;
}

static void want_guest(struct rig *r, const char *text)
{
    r->guest[r->guest_len] = '\0';
    assert_string_equal(r->guest, text);
    r->guest_len = 0;
}

/* Each byte reaches the one it was meant for, also when typed in one go. */
static void the_prompt_and_back(void **state)
{
    struct rig *r = *state;
    type(r, "ab\001cstatus\nc\ncd");
    run(r);
    type(r, "\001cpause\r\n\ref");
    run(r);
    type(r, "\001cpau\001cgh");
    run(r);
    assert_int_equal(r->handled, 2);
    want_guest(r, "abcdefgh");
    want_seen(r,
              "\n(posada) status\n"
              "name:    blue\nstate:   \nengine:  \nconsole: \npid:     0\nvcpus:   2\n"
              "memory:  256M\nuptime:  0.000 s\nresets:  0\n"
              "(posada) c\n\n(posada) pause\nthe VM is not running\n(posada) \n\n(posada) pau\n");
}

static void arguments_are_read(void **state)
{
    struct rig *r = *state;
    type(r, "\001cballoon 192M\nregisters 3\nregisters\n");
    run(r);
    assert_int_equal(r->balloon, 192 << 20);
    assert_int_equal(r->handled, 3);
    want_seen(r, "\n(posada) balloon 192M\n(posada) registers 3\nrip of 3\n"
                 "(posada) registers\nrip of 0\n(posada) ");
}

static void mistakes_are_told(void **state)
{
    struct rig *r = *state;
    type(r, "\001cnonsense\nballoon x\nquit now\nballoon 1M 2M\n");
    run(r);
    assert_int_equal(r->handled, 0);
    want_seen(r, "\n(posada) nonsense\nunknown verb 'nonsense': 'help' lists them\n"
                 "(posada) balloon x\nballoon: 'x' is not a size: give one such as 256M\n"
                 "(posada) quit now\n'now' is one argument too many\n"
                 "(posada) balloon 1M 2M\n'2M' is one argument too many\n(posada) ");
}

static void lines_can_be_edited(void **state)
{
    struct rig *r = *state;
    type(r, "\001cpausx\177e\033[A\033[1;5C\033OB\n");
    run(r);
    want_seen(r, "\n(posada) pausx\b \be\nthe VM is not running\n(posada) ");
    type(r, "ab\025\003reset\b\b\b\b\b\b\bpause\n");
    run(r);
    assert_int_equal(r->handled, 2);
    char big[400];
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\0';
    r->seen_len = 0;
    type(r, big);
    type(r, "\nhelp\n");
    run(r);
    assert_int_equal(r->handled, 2);
    assert_non_null(strstr(r->seen, "unknown verb 'xxx"));
    assert_non_null(strstr(r->seen, "press the power button"));
    assert_non_null(strstr(r->seen, "Ctrl-A c"));
}

/* The guest's output waits while the prompt is there and comes whole afterwards. */
static void the_guest_is_muted(void **state)
{
    struct rig *r = *state;
    assert_int_equal(chr_write(r->chr, (const uint8_t *)"one ", 4), 4);
    type(r, "\001c");
    run(r);
    assert_int_equal(chr_write(r->chr, (const uint8_t *)"two ", 4), 4);
    run(r);
    want_seen(r, "one \n(posada) ");
    type(r, "\n");
    run(r);
    want_seen(r, "\ntwo ");
}

/* What is typed while a request is under way runs after it, in order. */
static void typing_ahead_waits(void **state)
{
    struct rig *r = *state;
    type(r, "\001cpause\nregisters 1\n");
    run_io(r);
    assert_int_equal(r->handled, 0);
    want_seen(r, "\n(posada) pause\n");
    run(r);
    want_seen(r, "the VM is not running\n(posada) registers 1\nrip of 1\n(posada) ");
}

/* Leaving and coming back before the reply is there. */
static void leaving_does_not_disturb_a_request(void **state)
{
    struct rig *r = *state;
    type(r, "\001cpause\nreset\n\001cx\001c"); /* the reset was not begun: dropped */
    run_io(r);
    want_guest(r, "x");
    want_seen(r, "\n(posada) pause\n\n\n");
    run(r);
    want_seen(r, "the VM is not running\n(posada) ");
    assert_int_equal(r->handled, 1);
}

static void the_longest_reply_fits(void **state)
{
    struct rig *r = *state;
    type(r, "\001cstats\n");
    run(r);
    size_t lines = 0;
    for (const char *p = r->seen; (p = strchr(p, '\n')) != NULL; p++) {
        lines++;
    }
    assert_int_equal(lines, 2 + 512);
    assert_string_equal(r->seen + r->seen_len - 9, "(posada) ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_prompt_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(arguments_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_can_be_edited, setup, teardown),
        cmocka_unit_test_setup_teardown(the_guest_is_muted, setup, teardown),
        cmocka_unit_test_setup_teardown(typing_ahead_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(leaving_does_not_disturb_a_request, setup, teardown),
        cmocka_unit_test_setup_teardown(the_longest_reply_fits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
