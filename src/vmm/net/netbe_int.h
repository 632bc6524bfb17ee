/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The classes of network back ends. */
#ifndef NET_NETBE_INT_H
#define NET_NETBE_INT_H

#include "vmm/net/netbe.h"

#define NETBE(n) extern const struct netbe_class netbe_##n##_class;
#include "vmm/net/netbes.def"
#undef NETBE

#endif
