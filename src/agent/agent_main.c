/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "agent/agent.h"

void agent_say(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "posada-agent: %s\n", text);
}

bool agent_cmdline(const char *name, char *buf, size_t len)
{
    char text[4096] = "";
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0) {
        close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    bool found = false;
    char *save = NULL;
    size_t want = strlen(name);
    for (char *word = strtok_r(text, " \n", &save); word != NULL;
         word = strtok_r(NULL, " \n", &save)) {
        if (strncmp(word, name, want) == 0 && (word[want] == '=' || word[want] == '\0')) {
            (void)snprintf(buf, len, "%s", word[want] == '=' ? word + want + 1 : "");
            found = true; /* the last one counts, as for the kernel */
        }
    }
    return found;
}

int main(int argc, char **argv)
{
    if (getpid() == 1) {
        agent_init();
        agent_network();
        (void)agent_serve(true);
        sync();
        /* Refused while a left-over program writes: what is synced is safe all the same. */
        (void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
        (void)reboot(RB_POWER_OFF);
        return 1;
    }
    if (argc == 3 && strcmp(argv[1], "initrd") == 0) {
        return agent_initrd(argv[2]);
    }
    if (argc != 1) {
        fprintf(stderr, "usage: posada-agent [initrd KERNEL-VERSION]\n");
        return 2;
    }
    return agent_serve(false);
}
