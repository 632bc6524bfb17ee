/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada ctl SOCKET VERB [ARG]: talks to the control socket of a VM (`posada run --control`).
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "proto/ctl_client.h"
#include "proto/ctl_verb.h"

#define CTL_TIMEOUT_MS 10000

static void print_help(FILE *out)
{
    fputs(_("Usage: posada ctl [--json] SOCKET VERB [ARGUMENT]\n\n"
            "Steers a running VM through its control socket.\n\nVerbs:\n"),
          out);
    ctl_verb_help(out);
}

static json_t *status_json(const struct wire_status_reply *s)
{
    return json_pack("{ss ss ss ss ss si si sI sI sI}", "name", s->name, "state", s->state,
                     "reason", s->reason, "engine", s->engine, "console", s->console, "pid",
                     (int)s->pid, "vcpus", (int)s->vcpus, "memory_bytes",
                     (json_int_t)s->memory_bytes, "uptime_ms", (json_int_t)s->uptime_ms, "resets",
                     (json_int_t)s->resets);
}

static json_t *reply_json(const struct wire_msg *m)
{
    json_t *o;
    switch (m->type) {
    case WIRE_STATUS_REPLY:
        return status_json(&m->status_reply);
    case WIRE_STATS_REPLY:
        o = json_object();
        for (uint32_t i = 0; i < m->stats_reply.value_count; i++) {
            json_object_set_new(o, m->stats_reply.value[i].name,
                                json_integer((json_int_t)m->stats_reply.value[i].value));
        }
        return o;
    case WIRE_TEXT_REPLY:
        return json_pack("{ss}", "text", m->text_reply.text);
    default:
        return json_pack("{sb}", "ok", 1);
    }
}

static int print_reply(const struct wire_msg *m, bool as_json)
{
    if (as_json) {
        json_t *o = reply_json(m);
        int rc = o == NULL ? -1 : json_dumpf(o, stdout, JSON_INDENT(2));
        json_decref(o);
        puts("");
        return rc < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
    }
    ctl_verb_print(m, stdout);
    return CLI_EXIT_OK;
}

static int call(const char *path, const struct ctl_verb *verb, const char *arg, bool as_json)
{
    struct err err = ERR_INIT;
    struct ctl_client *c = NULL;
    /* "unix:PATH" as it was given to --control, or the path alone. */
    int rc = ctl_client_open(strncmp(path, "unix:", 5) == 0 ? path + 5 : path, &c, &err);
    if (rc < 0) {
        return cli_fail("ctl", &err);
    }
    struct wire_msg *m = ctl_client_msg(c);
    rc = ctl_verb_request(verb, arg, m, &err);
    if (rc < 0) {
        ctl_client_close(c);
        return cli_usage("ctl", &err);
    }
    rc = ctl_client_call(c, verb->reply, CTL_TIMEOUT_MS, &err);
    int code = rc < 0 ? cli_fail("ctl", &err) : print_reply(m, as_json);
    ctl_client_close(c);
    return code;
}

int ctl_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    bool as_json = argc > 1 && strcmp(argv[1], "--json") == 0;
    int at = as_json ? 2 : 1;
    if (cli_wants_help(argc, argv)) {
        print_help(stdout);
        return CLI_EXIT_OK;
    }
    if (argc - at < 2 || argc - at > 3 || argv[at][0] == '-') {
        print_help(stderr);
        return CLI_EXIT_USAGE;
    }
    const struct ctl_verb *verb = ctl_verb_find(argv[at + 1]);
    if (verb == NULL) {
        (void)err_set(&err, -EINVAL, "unknown verb '%s'", argv[at + 1]);
        return cli_usage("ctl", &err);
    }
    return call(argv[at], verb, argc - at == 3 ? argv[at + 2] : NULL, as_json);
}
