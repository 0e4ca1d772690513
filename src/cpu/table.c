/* The table of this instruction set: one kernel per op. */
#include "cpu/kernels.h"

extern const struct kernel CPU(table)[OP_COUNT];

#define CPU_RUN(name)             [OP_##name].run = CPU(name),
#define CPU_WORKSPACE(name, what) [OP_##name].workspace = CPU(what##_workspace),
#define CPU_BF16(name, outputs)   [OP_##name].bf16_outputs = outputs,
const struct kernel CPU(table)[OP_COUNT] = {ELBO_OPS(CPU_RUN) CPU_WORKSPACES(CPU_WORKSPACE) CPU_BF16_OUTPUTS(CPU_BF16)};
