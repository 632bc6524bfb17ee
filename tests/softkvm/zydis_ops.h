/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparison of one decoded instruction with Zydis' view of it beyond the length: name, operands,
 * widths and prefixes that count.
 */
#ifndef TESTS_SOFTKVM_ZYDIS_OPS_H
#define TESTS_SOFTKVM_ZYDIS_OPS_H

#include <Zydis/Zydis.h>

#include "softkvm/x86/decode.h"

/* NULL if both mean the same, else what differs. `code_size` is 2, 4 or 8. */
const char *zydis_ops_compare(const struct sk_insn *in, unsigned code_size,
                              const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);

#endif
