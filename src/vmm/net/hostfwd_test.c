/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/net/hostfwd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void valid_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool udp;
        const char *host;
        uint16_t host_port;
        const char *guest;
        uint16_t guest_port;
    } rows[] = {
        {"tcp:127.0.0.1:2222-:22",                           false, "127.0.0.1",       2222,  "0.0.0.0",   22   },
        { "tcp::2222-:22",                                   false, "127.0.0.1",       2222,  "0.0.0.0",   22   },
        { "udp:0.0.0.0:53-10.0.2.15:5353",                   true,  "0.0.0.0",         53,    "10.0.2.15", 5353 },
        { "tcp:255.255.255.255:65535-255.255.255.255:65535", false, "255.255.255.255", 65535,
         "255.255.255.255",                                                                                65535},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct hostfwd fwd;
        struct err err = ERR_INIT;
        assert_int_equal(hostfwd_parse(rows[i].text, &fwd, &err), 0);
        assert_int_equal(fwd.udp, rows[i].udp);
        assert_int_equal(fwd.host.s_addr, inet_addr(rows[i].host));
        assert_int_equal(fwd.host_port, rows[i].host_port);
        assert_int_equal(fwd.guest.s_addr, inet_addr(rows[i].guest));
        assert_int_equal(fwd.guest_port, rows[i].guest_port);
    }
}

static void bad_forms_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *why;
    } rows[] = {
        {"",                                                                    "tcp: or udp:"},
        { "sctp::1-:2",                                                         "tcp: or udp:"},
        { "tcp:127.0.0.1:2222",                                                 "dash"        },
        { "tcp:2222-:22",                                                       "colon"       },
        { "tcp::2222-22",                                                       "colon"       },
        { "tcp::0-:22",                                                         "1 to 65535"  },
        { "tcp::65536-:22",                                                     "1 to 65535"  },
        { "tcp::99999999999999999999-:22",                                      "1 to 65535"  },
        { "tcp::+22-:22",                                                       "1 to 65535"  },
        { "tcp::22-:",                                                          "1 to 65535"  },
        { "tcp::22-:22x",                                                       "1 to 65535"  },
        { "tcp::22--:22",                                                       "1.2.3.4"     },
        { "tcp:localhost:22-:22",                                               "1.2.3.4"     },
        { "tcp:1.2.3:22-:22",                                                   "1.2.3.4"     },
        { "tcp:::1:22-:22",                                                     "1.2.3.4"     },
        { "tcp:255.255.255.255:65535-255.255.255.255:655350000000000000000000", "long"        },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct hostfwd fwd;
        struct err err = ERR_INIT;
        assert_int_equal(hostfwd_parse(rows[i].text, &fwd, &err), -EINVAL);
        assert_non_null(strstr(err.msg, rows[i].why));
        assert_non_null(strstr(err.msg, rows[i].text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_forms),
        cmocka_unit_test(bad_forms_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
