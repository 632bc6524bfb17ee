/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/ctl/prompt.h"

#include <errno.h>
#include <libintl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/ctl_verb.h"

#define PROMPT_TEXT     "(posada) "
#define PROMPT_LINE_MAX 128

/* Keys of terminals that send more than one byte: ESC [ numbers letter, ESC O letter, ESC letter.
 * They are passed over. */
enum prompt_esc { PROMPT_ESC_NONE, PROMPT_ESC_FIRST, PROMPT_ESC_CSI };

struct prompt {
    struct chr *chr;
    struct loop *chr_loop, *ctl_loop;
    ctl_handler *handler;
    void *opaque;

    /* Loop thread of the chr only. */
    bool open;
    bool busy; /* `msg` is the other thread's until prompt_on_reply() */
    bool was_cr;
    enum prompt_esc esc;
    size_t len;
    char line[PROMPT_LINE_MAX];

    struct wire_msg msg; /* the last member: prompt_new() */
};

static void prompt_show(struct prompt *p)
{
    p->len = 0;
    chr_print(p->chr, PROMPT_TEXT);
}

static void prompt_leave(struct prompt *p)
{
    p->open = false;
    chr_mute(p->chr, NULL, NULL);
}

/* ---- Requests ---- */

static void prompt_print_reply(struct prompt *p)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        chr_print(p->chr, gettext("out of memory\n"));
        return;
    }
    ctl_verb_print(&p->msg, out);
    if (fclose(out) == 0) {
        chr_print(p->chr, text);
    }
    free(text);
}

static void prompt_on_reply(void *opaque)
{
    struct prompt *p = opaque;
    prompt_print_reply(p);
    p->busy = false;
    if (p->open) {
        prompt_show(p);
        chr_mute_ready(p->chr, true);
    }
}

/* On the thread of the handler. */
static void prompt_on_request(void *opaque)
{
    struct prompt *p = opaque;
    p->handler(p->opaque, &p->msg);
    loop_post(p->chr_loop, prompt_on_reply, p);
}

static void prompt_help(struct prompt *p)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        chr_print(p->chr, gettext("out of memory\n"));
        return;
    }
    ctl_verb_help(out);
    fprintf(out, "  %-10s %-7s %s\n", "help", "", gettext("this list"));
    fprintf(out, "  %-10s %-7s %s\n", "c", "",
            gettext("back to the guest's console; so do an empty line and Ctrl-A c"));
    if (fclose(out) == 0) {
        chr_print(p->chr, text);
    }
    free(text);
}

/* False: nothing is under way, the prompt may be shown again. */
static bool prompt_request(struct prompt *p, const char *name, const char *arg, const char *more)
{
    struct err err = ERR_INIT;
    const struct ctl_verb *verb = ctl_verb_find(name);
    int rc;
    if (verb == NULL) {
        rc = err_set(&err, -EINVAL, "unknown verb '%s': 'help' lists them", name);
    } else if (more != NULL) {
        rc = err_set(&err, -EINVAL, "'%s' is one argument too many", more);
    } else {
        rc = ctl_verb_request(verb, arg, &p->msg, &err);
    }
    if (rc < 0) {
        chr_print(p->chr, err.msg);
        chr_print(p->chr, "\n");
        return false;
    }
    p->busy = true;
    chr_mute_ready(p->chr, false);
    loop_post(p->ctl_loop, prompt_on_request, p);
    return true;
}

static void prompt_run_line(struct prompt *p)
{
    char *save = NULL;
    p->line[p->len] = '\0';
    const char *name = strtok_r(p->line, " \t", &save);
    const char *arg = name != NULL ? strtok_r(NULL, " \t", &save) : NULL;
    const char *more = arg != NULL ? strtok_r(NULL, " \t", &save) : NULL;
    if (name == NULL || (strcmp(name, "c") == 0 && arg == NULL)) {
        prompt_leave(p);
        return;
    }
    if (strcmp(name, "help") == 0 && arg == NULL) {
        prompt_help(p);
    } else if (prompt_request(p, name, arg, more)) {
        return;
    }
    prompt_show(p);
}

/* ---- Keys ---- */

/* True when the byte belongs to a key of several bytes. */
static bool prompt_skip(struct prompt *p, uint8_t c)
{
    switch (p->esc) {
    case PROMPT_ESC_FIRST:
        p->esc = c == '[' || c == 'O' ? PROMPT_ESC_CSI : PROMPT_ESC_NONE;
        return true;
    case PROMPT_ESC_CSI:
        p->esc = c >= 0x40 && c <= 0x7e ? PROMPT_ESC_NONE : PROMPT_ESC_CSI;
        return true;
    case PROMPT_ESC_NONE:
        break;
    }
    p->esc = c == 0x1b ? PROMPT_ESC_FIRST : PROMPT_ESC_NONE;
    return c == 0x1b;
}

static void prompt_rub_out(struct prompt *p, size_t n)
{
    for (; n > 0 && p->len > 0; n--) {
        p->len--;
        chr_print(p->chr, "\b \b");
    }
}

static void prompt_key(struct prompt *p, uint8_t c)
{
    bool after_cr = p->was_cr;
    p->was_cr = c == '\r';
    if (prompt_skip(p, c) || (c == '\n' && after_cr)) {
        return;
    }
    switch (c) {
    case '\r':
    case '\n':
        chr_print(p->chr, "\n");
        prompt_run_line(p);
        break;
    case 0x7f:
    case '\b':
        prompt_rub_out(p, 1);
        break;
    case 0x03: /* Ctrl-C */
    case 0x15: /* Ctrl-U */
        prompt_rub_out(p, p->len);
        break;
    default:
        if (c >= 0x20 && c <= 0x7e && p->len < PROMPT_LINE_MAX - 1) {
            p->line[p->len++] = (char)c;
            chr_print(p->chr, (const char[]){ (char)c, '\0' });
        }
        break;
    }
}

static size_t prompt_input(void *opaque, const uint8_t *buf, size_t len)
{
    struct prompt *p = opaque;
    size_t n = 0;
    while (n < len && p->open && !p->busy) {
        prompt_key(p, buf[n++]);
    }
    return n;
}

void prompt_toggle(struct prompt *p)
{
    if (p->open) {
        chr_print(p->chr, "\n");
        prompt_leave(p);
        return;
    }
    p->open = true;
    p->was_cr = false;
    p->esc = PROMPT_ESC_NONE;
    chr_mute(p->chr, prompt_input, p);
    chr_print(p->chr, "\n");
    if (p->busy) {
        chr_mute_ready(p->chr, false); /* of a visit before; its reply shows the prompt */
    } else {
        prompt_show(p);
    }
}

int prompt_new(struct chr *chr, struct loop *chr_loop, struct loop *ctl_loop, ctl_handler *handler,
               void *opaque, struct prompt **ret_prompt, struct err *err)
{
    struct prompt *p = malloc(sizeof(*p));
    if (p == NULL) {
        return err_set(err, -ENOMEM, "control prompt: out of memory");
    }
    memset(p, 0, offsetof(struct prompt, msg)); /* a request writes all that is read of msg */
    p->chr = chr;
    p->chr_loop = chr_loop;
    p->ctl_loop = ctl_loop;
    p->handler = handler;
    p->opaque = opaque;
    *ret_prompt = p;
    return 0;
}

void prompt_free(struct prompt *p)
{
    if (p != NULL && p->open) {
        chr_print(p->chr, "\n"); /* the guest's last words and the report begin a line */
        chr_mute(p->chr, NULL, NULL);
    }
    free(p);
}
