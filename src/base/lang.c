/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/lang.h"

#include <libintl.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The folder "po" beside the program, or "" where there is none. */
static void lang_build_tree(char path[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - sizeof("po"));
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash == NULL) {
        path[0] = '\0';
        return;
    }
    (void)strcpy(slash + 1, "po");
    if (access(path, X_OK) < 0) {
        path[0] = '\0';
    }
}

void lang_init(void)
{
    char path[PATH_MAX];
    /* Not LC_ALL: numbers and dates are printed for programs, and each category costs page faults.
     */
    (void)setlocale(LC_CTYPE, "");
    (void)setlocale(LC_MESSAGES, "");
    lang_build_tree(path);
    (void)bindtextdomain("posada", path[0] != '\0' ? path : POSADA_LOCALEDIR);
    (void)textdomain("posada");
    /* Any message loads its catalogue; the C library's has the texts of errno (err_set_errno). */
    (void)gettext("out of memory");
    (void)dgettext("libc", "Permission denied");
}
