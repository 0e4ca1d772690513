/* The table of this instruction set: one kernel per op. The small runtime of a model's file (infer/) is compiled with
 * CPU_FORWARD_ONLY: its table has the ops of CPU_FORWARD alone, so the linker leaves out all other kernels. Planning
 * refuses a recording that has an op without a kernel. */
#include "cpu/kernels.h"

extern const struct kernel CPU(table)[OP_COUNT];

#define CPU_BLOCKS(name, inputs) [OP_##name].block_inputs = inputs,
#ifdef CPU_FORWARD_ONLY
#define CPU_RUN(name, ...)  [OP_##name] = {.run = CPU(name), ##__VA_ARGS__},
#define CPU_WORKSPACE(what) .workspace = CPU(what##_workspace)
const struct kernel CPU(table)[OP_COUNT] = {CPU_FORWARD(CPU_RUN, CPU_WORKSPACE) CPU_BLOCK_INPUTS(CPU_BLOCKS)};
#else
#define CPU_RUN(name)             [OP_##name].run = CPU(name),
#define CPU_WORKSPACE(name, what) [OP_##name].workspace = CPU(what##_workspace),
#define CPU_BF16(name, outputs)   [OP_##name].bf16_outputs = outputs,
const struct kernel CPU(table)[OP_COUNT] = {ELBO_OPS(CPU_RUN) CPU_WORKSPACES(CPU_WORKSPACE) CPU_BF16_OUTPUTS(CPU_BF16)
                                                CPU_BLOCK_INPUTS(CPU_BLOCKS)};
#endif
