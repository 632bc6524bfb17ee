/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The language of messages (docs/translation.md).
 */
#ifndef BASE_LANG_H
#define BASE_LANG_H

/*
 * Takes the user's language from the environment and loads its catalogue now, because a process
 * that is about to shut itself into a sandbox cannot open it later. Numbers stay as in the C
 * locale: programs read them. The first thing in main(), before any thread.
 *
 * The catalogues are those in the folder "po" beside the program (a build tree), else the
 * installed ones. Without one for the language, messages are English.
 */
void lang_init(void);

#endif
