/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * posada ctl SOCKET VERB [ARG]: talks to the control socket of a VM (`posada run --control`).
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/schema.h"
#include "cli/cli.h"
#include "proto/ctl_client.h"

#define CTL_TIMEOUT_MS 10000

struct ctl_verb {
    const char *name;
    uint16_t request, reply;
    const char *arg;
    const char *summary;
};

static const struct ctl_verb verbs[] = {
#define CTL_VERB(name, request, reply, arg, summary)                                               \
    { #name, WIRE_##request, WIRE_##reply, arg, summary },
#include "cli/ctl_verbs.def"
#undef CTL_VERB
};

static void print_help(FILE *out)
{
    fputs(_("Usage: posada ctl [--json] SOCKET VERB [ARGUMENT]\n\n"
            "Steers a running VM through its control socket.\n\nVerbs:\n"),
          out);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        fprintf(out, "  %-10s %-7s %s\n", verbs[i].name, verbs[i].arg != NULL ? verbs[i].arg : "",
                _(verbs[i].summary));
    }
}

static const struct ctl_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}

/* Puts the argument, NULL if there is none, into the request. */
static int ctl_argument(struct wire_msg *m, const char *arg, struct err *err)
{
    if (m->type == WIRE_BALLOON) {
        uint64_t bytes = 0;
        if (arg == NULL || schema_parse_size(arg, &bytes) < 0) {
            return err_set(err, -EINVAL, "balloon: '%s' is not a size: give one such as 256M",
                           arg != NULL ? arg : "");
        }
        m->balloon.memory_bytes = bytes;
    } else if (m->type == WIRE_REGISTERS) {
        char *end = NULL;
        errno = 0;
        unsigned long n = arg != NULL ? strtoul(arg, &end, 10) : 0;
        if (arg != NULL && (*arg < '0' || *arg > '9' || *end != '\0' || errno != 0 || n > 65535)) {
            return err_set(err, -EINVAL, "registers: '%s' is not the number of a vCPU", arg);
        }
        m->registers.vcpu = (uint32_t)n;
    } else if (arg != NULL) {
        return err_set(err, -EINVAL, "'%s' is one argument too many", arg);
    }
    return 0;
}

static void print_status(const struct wire_status_reply *s)
{
    char size[32];
    schema_format_size(s->memory_bytes, size, sizeof(size));
    printf("name:    %s\nstate:   %s\n", s->name, s->state);
    if (s->reason[0] != '\0') {
        printf("reason:  %s\n", s->reason);
    }
    printf("engine:  %s\nconsole: %s\npid:     %" PRIu32 "\nvcpus:   %" PRIu32 "\nmemory:  %s\n"
           "uptime:  %" PRIu64 ".%03u s\nresets:  %" PRIu64 "\n",
           s->engine, s->console, s->pid, s->vcpus, size, s->uptime_ms / 1000,
           (unsigned)(s->uptime_ms % 1000), s->resets);
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
    if (m->type == WIRE_STATUS_REPLY) {
        print_status(&m->status_reply);
    } else if (m->type == WIRE_STATS_REPLY) {
        for (uint32_t i = 0; i < m->stats_reply.value_count; i++) {
            printf("%-32s %" PRIu64 "\n", m->stats_reply.value[i].name,
                   m->stats_reply.value[i].value);
        }
    } else if (m->type == WIRE_TEXT_REPLY) {
        fputs(m->text_reply.text, stdout);
    }
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
    m->type = verb->request;
    rc = ctl_argument(m, arg, &err);
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
    const struct ctl_verb *verb = find_verb(argv[at + 1]);
    if (verb == NULL) {
        (void)err_set(&err, -EINVAL, "unknown verb '%s'", argv[at + 1]);
        return cli_usage("ctl", &err);
    }
    return call(argv[at], verb, argc - at == 3 ? argv[at + 2] : NULL, as_json);
}
