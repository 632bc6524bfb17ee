/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/ctl_verb.h"

#include <errno.h>
#include <inttypes.h>
#include <libintl.h>
#include <stdlib.h>
#include <string.h>

#include "base/schema.h"

static const struct ctl_verb ctl_verbs[] = {
#define CTL_VERB(name, request, reply, arg, summary)                                               \
    { #name, WIRE_##request, WIRE_##reply, arg, summary },
#include "proto/ctl_verbs.def"
#undef CTL_VERB
};

const struct ctl_verb *ctl_verb_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(ctl_verbs); i++) {
        if (strcmp(ctl_verbs[i].name, name) == 0) {
            return &ctl_verbs[i];
        }
    }
    return NULL;
}

void ctl_verb_help(FILE *out)
{
    for (size_t i = 0; i < ARRAY_LEN(ctl_verbs); i++) {
        const struct ctl_verb *v = &ctl_verbs[i];
        fprintf(out, "  %-10s %-7s %s\n", v->name, v->arg != NULL ? v->arg : "",
                gettext(v->summary));
    }
}

int ctl_verb_request(const struct ctl_verb *verb, const char *arg, struct wire_msg *ret_msg,
                     struct err *err)
{
    struct wire_msg *m = ret_msg;
    m->type = verb->request;
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

static void ctl_verb_print_status(const struct wire_status_reply *s, FILE *out)
{
    char size[32];
    schema_format_size(s->memory_bytes, size, sizeof(size));
    fprintf(out, "name:    %s\nstate:   %s\n", s->name, s->state);
    if (s->reason[0] != '\0') {
        fprintf(out, "reason:  %s\n", s->reason);
    }
    fprintf(out,
            "engine:  %s\nconsole: %s\npid:     %" PRIu32 "\nvcpus:   %" PRIu32 "\nmemory:  %s\n"
            "uptime:  %" PRIu64 ".%03u s\nresets:  %" PRIu64 "\n",
            s->engine, s->console, s->pid, s->vcpus, size, s->uptime_ms / 1000,
            (unsigned)(s->uptime_ms % 1000), s->resets);
}

void ctl_verb_print(const struct wire_msg *reply, FILE *out)
{
    switch (reply->type) {
    case WIRE_STATUS_REPLY:
        ctl_verb_print_status(&reply->status_reply, out);
        break;
    case WIRE_STATS_REPLY:
        for (uint32_t i = 0; i < reply->stats_reply.value_count; i++) {
            fprintf(out, "%-32s %" PRIu64 "\n", reply->stats_reply.value[i].name,
                    reply->stats_reply.value[i].value);
        }
        break;
    case WIRE_TEXT_REPLY:
        fputs(reply->text_reply.text, out);
        break;
    case WIRE_ERROR:
        fprintf(out, "%s\n", reply->error.text);
        break;
    default:
        break;
    }
}
