/* Transposes a VL x VL block of floats in registers. */
#ifndef CPU_TRANSPOSE_H
#define CPU_TRANSPOSE_H

#include "cpu/cpu.h"

#if VL == 16
#define CPU_LOW(a, b)  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define CPU_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif VL == 8
#define CPU_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define CPU_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define CPU_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define CPU_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* log2(VL) rounds of perfect interleaving. */
static inline void transpose(vec r[VL])
{
    vec t[VL];
    for (int round = VL; round > 1; round /= 2) {
        for (int i = 0; i < VL / 2; i++) {
            t[2 * i] = CPU_LOW(r[i], r[i + VL / 2]);
            t[2 * i + 1] = CPU_HIGH(r[i], r[i + VL / 2]);
        }
        for (int i = 0; i < VL; i++) r[i] = t[i];
    }
}

#endif
