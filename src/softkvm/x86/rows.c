/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rows of insns.def as data.
 */
#include "softkvm/x86/cpuid.h"
#include "softkvm/x86/decode.h"

#define FL_C      0x0001u
#define FL_P      0x0004u
#define FL_A      0x0010u
#define FL_Z      0x0040u
#define FL_S      0x0080u
#define FL_O      0x0800u
#define FL_OSZAPC 0x08d5u
#define FL_OSZAP  0x08d4u
#define FL_SZAPC  0x00d5u
#define FL_SZAP   0x00d4u
#define FL_OSAP   0x0894u
#define FL_COND   FL_OSZAPC /* those the condition names */
#define FL_SHD    0x08d5u   /* everything, for counts above the operand size */

#define SK_I(map, opcode, n, pfx, ext, vex, attr, name, o1, o2, o3, o4, feat, fr, fw, fu, h)       \
    extern const struct sk_handler sk_h_##h;
#include "softkvm/x86/insns.def"
#undef SK_I

const struct sk_row sk_rows[] = {
#define SK_I(map_, opc_, n_, pfx_, ext_, vex_, attr_, name_, o1, o2, o3, o4, feat, fr, fw, fu, h_) \
    {                                                                                              \
        .map = map_,                                                                               \
        .opcode = opc_,                                                                            \
        .nops = n_,                                                                                \
        .pfx = pfx_,                                                                               \
        .ext = ext_,                                                                               \
        .vex = vex_,                                                                               \
        .attr = attr_,                                                                             \
        .op = {O_##o1, O_##o2, O_##o3, O_##o4},                                                  \
        .feature = SK_F_##feat,                                                                    \
        .fl_read = fr,                                                                             \
        .fl_written = fw,                                                                          \
        .fl_undef = fu,                                                                            \
        .name = #name_,                                                                            \
},
#include "softkvm/x86/insns.def"
#undef SK_I
};

const struct sk_handler *const sk_row_handlers[] = {
#define SK_I(map, opcode, n, pfx, ext, vex, attr, name, o1, o2, o3, o4, feat, fr, fw, fu, h)       \
    &sk_h_##h,
#include "softkvm/x86/insns.def"
#undef SK_I
};

const unsigned sk_rows_n = ARRAY_LEN(sk_rows);
