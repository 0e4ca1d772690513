/* Chooses the path of products with quantized weights that the processor can take. */
#include "cpu/quantized/product.h"

#include "cpu/instructions.h"

#include <string.h>

#define DECLARE(name) extern const struct quantized_kernel quantized_kernel_##name
DECLARE(generic);
DECLARE(avx2);
DECLARE(vnni);
DECLARE(amx);
DECLARE(neon);
DECLARE(wasm);

const struct quantized_path quantized_paths[] = {
#ifdef CPU_HAS_AMX
    {"amx", cpu_has_amx_int8, &quantized_kernel_amx},
#endif
#ifdef CPU_HAS_X86_VARIANTS
    {"vnni", cpu_has_vnni, &quantized_kernel_vnni},         {"avx2", cpu_has_avx2, &quantized_kernel_avx2},
#endif
#ifdef CPU_HAS_NEON_DOT
    {"neon", cpu_has_neon_dot, &quantized_kernel_neon},
#endif
#ifdef CPU_HAS_WASM
    {"wasm", cpu_has_always, &quantized_kernel_wasm},
#endif
    {"generic", cpu_has_always, &quantized_kernel_generic}, {NULL, NULL, NULL}};

/* Returns whether a path uses only instructions of a variant. */
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
