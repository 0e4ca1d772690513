/* The op table of the CUDA backend. The files beside it, one per family of ops, turn an op's call into launches of
 * kernels/ and into products. */
#include "cuda/call.h"

_Static_assert(sizeof(struct kernel_header) == sizeof(struct call_header) &&
                   (int)HEADER_SENTENCES == (int)DIM_SENTENCES && (int)HEADER_COUNTS == (int)DIM_KINDS,
               "kernels read the header that executions write");

#define CUDA_RUN(name)             [OP_##name].run = cuda_op_##name,
#define CUDA_WORKSPACE(name, what) [OP_##name].workspace = cuda_op_##what##_workspace,
const struct kernel cuda_table[OP_COUNT] = {
    ELBO_OPS(CUDA_RUN) CUDA_WORKSPACES(CUDA_WORKSPACE)[OP_norm].refuse = cuda_op_norm_refuse,
    [OP_norm_backward].refuse = cuda_op_norm_refuse,
    [OP_attention].refuse = cuda_op_attention_refuse,
    [OP_attention_backward].refuse = cuda_op_attention_refuse,
};
