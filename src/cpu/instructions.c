/* Tests for the instruction sets that the CPU kernels are compiled for, with cpuid, auxv and Linux's permission for
 * tiles. */
#include "cpu/instructions.h"

#ifdef CPU_HAS_X86_VARIANTS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef CPU_HAS_NEON_DOT
#include <sys/auxv.h>
#endif

bool cpu_has_always(void)
{
    return true;
}

#ifdef CPU_HAS_X86_VARIANTS
bool cpu_has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

bool cpu_has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma");
}

bool cpu_has_vnni(void)
{
    return cpu_has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#endif

#ifdef CPU_HAS_AMX
/* A process must ask Linux once for the tiles' state. Older versions of Linux, and some virtual machines, refuse. */
static bool has_tiles(unsigned also)
{
    enum { REQUEST_STATE = 0x1023, TILE_DATA = 18, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;
    if (!cpu_has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & also)) return false;
    return syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
}

bool cpu_has_amx_bf16(void)
{
    return has_tiles(1u << 22);
}

bool cpu_has_amx_int8(void)
{
    return cpu_has_vnni() && has_tiles(1u << 25);
}
#endif

#ifdef CPU_HAS_NEON_DOT
bool cpu_has_neon_dot(void)
{
    enum { DOT_PRODUCTS = 1 << 20 }; /* bit of AT_HWCAP */
    return getauxval(AT_HWCAP) & DOT_PRODUCTS;
}
#endif
