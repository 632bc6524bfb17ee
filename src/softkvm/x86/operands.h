/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Vocabulary of insns.def: operands in the letters of SDM 2 appendix A.2.1, and the other columns.
 *
 * Deviations from the manual: y = 4 or 8 bytes by operand size without 16 (as in BMI); Ibs, Ivs =
 * an immediate sign-extended to the operand size; Zb, Zv = register in the opcode's low three bits;
 * register names (AL, rAX, CL, DX, ...) are implied operands; B = general register in VEX.vvvv; R =
 * ModRM.rm that must be a register; M = ModRM.rm that must be memory.
 */
#ifndef SOFTKVM_X86_OPERANDS_H
#define SOFTKVM_X86_OPERANDS_H

/* Kind in bits 8 to 15, size letter in bits 0 to 7. */
enum sk_opkind {
    K_NONE,
    K_E = 0x100,
    K_G = 0x200,
    K_M = 0x300,
    K_R = 0x400,
    K_I = 0x500,
    K_IS = 0x600, /* sign-extended immediate */
    K_J = 0x700,
    K_A = 0x800,
    K_O = 0x900,
    K_S = 0xa00,
    K_C = 0xb00,
    K_D = 0xc00,
    K_X = 0xd00, /* DS:rSI */
    K_Y = 0xe00, /* ES:rDI */
    K_Z = 0xf00,
    K_B = 0x1000,
    K_V = 0x1100,
    K_W = 0x1200,
    K_U = 0x1300,
    K_H = 0x1400,
    K_L = 0x1500,
    K_P = 0x1600,
    K_Q = 0x1700,
    K_N = 0x1800,
    K_FIX = 0x1900, /* implied register or constant */
    K_ST = 0x1a00,  /* x87 stack: size letter n: ST(0), i: ST(rm) */
    K_VSIB = 0x1b00 /* memory with a vector index */
};

/* clang-format off */
#define SK_OPERANDS(O)                                                                             \
    O(Eb, K_E, 'b') O(Ew, K_E, 'w') O(Ed, K_E, 'd') O(Eq, K_E, 'q') O(Ev, K_E, 'v') O(Ey, K_E, 'y') \
    O(Ez, K_E, 'z')                                                                                \
    O(Gb, K_G, 'b') O(Gw, K_G, 'w') O(Gd, K_G, 'd') O(Gv, K_G, 'v') O(Gy, K_G, 'y') O(Gz, K_G, 'z') \
    O(Gq, K_G, 'q') O(Gr, K_G, 'r')                                                                \
    O(M, K_M, 0) O(Mb, K_M, 'b') O(Mw, K_M, 'w') O(Md, K_M, 'd') O(Mq, K_M, 'q') O(Mv, K_M, 'v')   \
    O(My, K_M, 'y') O(Mx, K_M, 'x') O(Mo, K_M, 'o') O(Mdq, K_M, 'o') O(Mqq, K_M, 'Q')              \
    O(Mp, K_M, 'p') O(Ma, K_M, 'a') O(Ms, K_M, 's') O(Mt, K_M, 't') O(Mff, K_M, 'f')               \
    O(Mpd, K_M, 'x') O(Mps, K_M, 'x')                                                              \
    O(Rd, K_R, 'd') O(Rq, K_R, 'q') O(Rv, K_R, 'v') O(Ry, K_R, 'y') O(Rw, K_R, 'w')                \
    O(Rr, K_R, 'r') /* 4 bytes, 8 in 64-bit mode, whatever the prefixes */                         \
    O(Ib, K_I, 'b') O(Iw, K_I, 'w') O(Iz, K_IS, 'z') O(Iv, K_I, 'v') O(Ibs, K_IS, 'b')             \
    O(Jb, K_J, 'b') O(Jz, K_J, 'z') O(Ap, K_A, 'p') O(Ob, K_O, 'b') O(Ov, K_O, 'v')                \
    O(Sw, K_S, 'w') O(Cr, K_C, 'r') O(Dr, K_D, 'r')                                                \
    O(Xb, K_X, 'b') O(Xv, K_X, 'v') O(Xz, K_X, 'z') O(Yb, K_Y, 'b') O(Yv, K_Y, 'v') O(Yz, K_Y, 'z') \
    O(Zb, K_Z, 'b') O(Zv, K_Z, 'v') O(Zy, K_Z, 'y')                                                \
    O(By, K_B, 'y') O(Bv, K_B, 'v')                                                                \
    O(Vx, K_V, 'x') O(Vo, K_V, 'o') O(Vdq, K_V, 'o') O(Vqq, K_V, 'Q') O(Vq, K_V, 'q') O(Vd, K_V, 'd')   \
    O(Vss, K_V, 'd') O(Vsd, K_V, 'q') O(Vps, K_V, 'x') O(Vpd, K_V, 'x')                            \
    O(Wx, K_W, 'x') O(Wo, K_W, 'o') O(Wdq, K_W, 'o') O(Wqq, K_W, 'Q') O(Wq, K_W, 'q') O(Wd, K_W, 'd')   \
    O(Ww, K_W, 'w') O(Wb, K_W, 'b') O(Wss, K_W, 'd') O(Wsd, K_W, 'q') O(Wps, K_W, 'x')             \
    O(Wpd, K_W, 'x') O(Wh, K_W, 'h') /* half of x */ O(Wf, K_W, 'F') /* a quarter */               \
    O(We, K_W, 'e') /* an eighth */                                                                \
    O(Ux, K_U, 'x') O(Uo, K_U, 'o') O(Udq, K_U, 'o') O(Uq, K_U, 'q') O(Ups, K_U, 'x')              \
    O(Upd, K_U, 'x')                                                                               \
    O(Hx, K_H, 'x') O(Ho, K_H, 'o') O(Hdq, K_H, 'o') O(Hqq, K_H, 'Q') O(Hq, K_H, 'q')              \
    O(Hss, K_H, 'd') O(Hsd, K_H, 'q') O(Hps, K_H, 'x') O(Hpd, K_H, 'x')                            \
    O(Lx, K_L, 'x')                                                                                \
    O(Pq, K_P, 'q') O(Pd, K_P, 'd') O(Qq, K_Q, 'q') O(Qd, K_Q, 'd') O(Nq, K_N, 'q')                \
    O(VSd, K_VSIB, 'd') O(VSq, K_VSIB, 'q')                                                        \
    O(ST0, K_ST, 'n') O(STi, K_ST, 'i')                                                            \
    O(AL, K_FIX, 0) O(AH, K_FIX, 1) O(AX, K_FIX, 2) O(EAX, K_FIX, 3) O(rAX, K_FIX, 4) O(CL, K_FIX, 5)    \
    O(DX, K_FIX, 6) O(rDX, K_FIX, 7) O(ONE, K_FIX, 8) O(THREE, K_FIX, 9) O(FES, K_FIX, 10)         \
    O(FCS, K_FIX, 11) O(FSS, K_FIX, 12) O(FDS, K_FIX, 13) O(FFS, K_FIX, 14) O(FGS, K_FIX, 15)      \
    O(RCX, K_FIX, 16) O(XMM0, K_FIX, 17)
/* clang-format on */

enum sk_operand {
    O_ = 0,
#define O(n, k, s) O_##n = (k) | (s),
    SK_OPERANDS(O)
#undef O
};

/* Opcode maps. */
enum sk_map { M_1, M_0F, M_0F38, M_0F3A, M_V1, M_V2, M_V3, SK_MAPS };

/* Prefix class of a row. */
enum sk_pfx {
    P_ANY, /* 66 is operand size, F2 and F3 ignored or REP */
    P_NO,  /* none of 66 F2 F3 (VEX: pp = 0) */
    P_66,  /* 66, neither F2 nor F3 */
    P_F3,
    P_F2,
    P_NF,  /* neither F2 nor F3; 66 is operand size */
    P_F3S, /* F3; 66 is operand size beside it */
    P_F2S
};

/* ModRM condition. X_ none present; X_R any; X_M memory only; X_RR register only; X_Dn /n (with _M,
 * _R); X_EX(b) this very byte. */
enum {
    X_ = 0,
    X_R = 0x100,
    X_MEMONLY = 0x200,
    X_REGONLY = 0x400,
    X_DIGIT = 0x800,
    X_EXACT = 0x1000,
    X_M = X_R | X_MEMONLY,
    X_RR = X_R | X_REGONLY
};
#define X_D(n)  (X_R | X_DIGIT | (n))
#define X_DM(n) (X_D(n) | X_MEMONLY)
#define X_DR(n) (X_D(n) | X_REGONLY)
#define X_EX(b) (X_R | X_EXACT | (b))

/* VEX conditions; 0 for rows outside VEX maps, where V_W0/V_W1 test REX.W. */
enum {
    V_ = 0,
    V_W0 = 1,
    V_W1 = 2,
    V_L0 = 4,
    V_L1 = 8,
    V_NOV = 16 /* vvvv must be 1111 */
};

/* Attributes. */
enum {
    A_ = 0,
    A_B = 0x0001,        /* byte operand size */
    A_I64 = 0x0002,      /* #UD in 64-bit mode */
    A_O64 = 0x0004,      /* only in 64-bit mode */
    A_D64 = 0x0008,      /* operand size 64 by default in 64-bit mode, 32 impossible */
    A_F64 = 0x0010,      /* operand size always 64 in 64-bit mode */
    A_LOCK = 0x0020,     /* LOCK allowed with a memory operand */
    A_END = 0x0040,      /* the block ends here */
    A_PROT = 0x0080,     /* #UD in real and virtual-8086 mode */
    A_VEC = 0x0100,      /* size index is 2 * W + L; osize says nothing */
    A_W = 0x0200,        /* operand size 2 whatever the prefixes */
    A_NOMEMSEG = 0x0400, /* the memory operand is not accessed (LEA, hint NOPs) */
    A_STR = 0x0800,      /* string instruction: F2, F3 are REP */
    A_LEG = 0x1000,      /* 32-bit operand size in legacy modes, 64 in 64-bit mode (MOV CR, DR) */
    A_PRIV = 0x2000,     /* documentation: CPL 0 */
    A_NOORACLE = 0x4000, /* cannot run in a user-mode sandbox: left to other tests */
    A_MODREG = 0x8000,   /* ModRM.mod is ignored: always a register (MOV CR, DR) */
    A_DATA = 0x40000,    /* an implied memory operand that is not the stack */
    A_KEEPRF = 0x20000,  /* sets RF itself: IRET */
    A_UNAL = 0x80000,    /* legacy SSE form whose memory operand need not be aligned */
    A_ALIGN = 0x100000,  /* VEX form whose memory operand must be */
    A_FP = 0x200000,     /* looks at and sets MXCSR */
    A_CMP = 0x400000,    /* result in flags or an implied register */
    A_ENV = 0x800000,    /* x87 environment or state: size by operand size */
    A_NO16 = 0x10000     /* 66 is no operand size: 4, or 8 with W */
};

#endif
