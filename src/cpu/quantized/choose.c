/* Which path of the product with few bits a processor can take. */
#include "cpu/quantized/product.h"

#include <string.h>

#ifdef CPU_HAS_X86_VARIANTS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef CPU_HAS_NEON_DOT
#include <sys/auxv.h>
#endif

#define DECLARE(name) void quantized_product_##name(const struct quantized_product *p, void *scratch)
DECLARE(generic);

static bool always(void)
{
    return true;
}

#ifdef CPU_HAS_X86_VARIANTS
DECLARE(avx2);
DECLARE(vnni);

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

static bool has_vnni(void)
{
    __builtin_cpu_init();
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni");
}
#endif

#ifdef CPU_HAS_AMX
DECLARE(amx);

/* As cpu/backend.c: tiles are state that a process must ask Linux for. */
static bool has_amx(void)
{
    enum { REQUEST_STATE = 0x1023, TILE_DATA = 18, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    unsigned a, b, c, d;
    if (!has_vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_INT8)) return false;
    return syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
}
#endif

#ifdef CPU_HAS_NEON_DOT
DECLARE(neon);

static bool has_neon_dot(void)
{
    enum { DOT_PRODUCTS = 1 << 20 }; /* of AT_HWCAP */
    return getauxval(AT_HWCAP) & DOT_PRODUCTS;
}
#endif

#ifdef CPU_HAS_WASM
DECLARE(wasm);
#endif

const struct quantized_path quantized_paths[] = {
#ifdef CPU_HAS_AMX
    {"amx", has_amx, quantized_product_amx},
#endif
#ifdef CPU_HAS_X86_VARIANTS
    {"vnni", has_vnni, quantized_product_vnni},     {"avx2", has_avx2, quantized_product_avx2},
#endif
#ifdef CPU_HAS_NEON_DOT
    {"neon", has_neon_dot, quantized_product_neon},
#endif
#ifdef CPU_HAS_WASM
    {"wasm", always, quantized_product_wasm},
#endif
    {"generic", always, quantized_product_generic}, {NULL, NULL, NULL}};

/* Whether a path's instructions are among those of a variant. */
static bool within(const char *path, const char *variant)
{
    static const struct {
        const char *variant, *without;
    } rules[] = {{"generic", "amx vnni avx2"}, {"avx2", "amx vnni"}, {"avx512", "amx"}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(variant, rules[i].variant) && strstr(rules[i].without, path)) return false;
    return true;
}

const struct quantized_path *quantized_choose(const char *variant)
{
    const struct quantized_path *p = quantized_paths;
    while (!within(p->name, variant) || !p->supported()) p++;
    return p;
}
