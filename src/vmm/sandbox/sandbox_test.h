/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of the jail share. After cmocka.h. */
#ifndef VMM_SANDBOX_TEST_H
#define VMM_SANDBOX_TEST_H

#include <sys/wait.h>

/* The child process `pid` ends by itself, with exit code 0. */
static inline void sandbox_assert_succeeds(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#endif
