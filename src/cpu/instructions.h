/* Whether the processor has an instruction set and the system lets a program use it. */
#ifndef CPU_INSTRUCTIONS_H
#define CPU_INSTRUCTIONS_H

#include <stdbool.h>

/* avx2 is the compiler's x86-64-v3, avx512 is x86-64-v4; the others add to avx512. */
bool cpu_has_always(void);
bool cpu_has_avx2(void);
bool cpu_has_avx512(void);
bool cpu_has_vnni(void);
bool cpu_has_amx_bf16(void);
bool cpu_has_amx_int8(void);
bool cpu_has_neon_dot(void); /* 64-bit Arm */

#endif
