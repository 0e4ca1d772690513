/* The instructions that this processor has, and this system lets a program use. */
#ifndef CPU_INSTRUCTIONS_H
#define CPU_INSTRUCTIONS_H

#include <stdbool.h>

/* Each is a level of x86-64 as the compiler's flags name it: v3 (avx2), v4 (avx512); with more on top of v4. */
bool cpu_has_always(void);
bool cpu_has_avx2(void);
bool cpu_has_avx512(void);
bool cpu_has_vnni(void);
bool cpu_has_amx_bf16(void);
bool cpu_has_amx_int8(void);
bool cpu_has_neon_dot(void); /* 64-bit Arm */

#endif
