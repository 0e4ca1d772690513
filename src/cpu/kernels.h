/* Declarations of all kernels, from the list of ops, and of the functions that size their scratch. */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include "cpu/cpu.h"
#include "ops/list.h"

#define CPU_DECLARE(name) void CPU(name)(const struct call *c);
ELBO_OPS(CPU_DECLARE)
#undef CPU_DECLARE

#define CPU_WORKSPACES(X)                                                                                              \
    X(linear, linear)                                                                                                  \
    X(linear_backward_input, linear)                                                                                   \
    X(linear_backward_weight, linear)                                                                                  \
    X(norm_backward, norm_backward)                                                                                    \
    X(attention, attention)                                                                                            \
    X(attention_backward, attention_backward)                                                                          \
    X(attention_cached, attention_cached)                                                                              \
    X(rotary, rotary)                                                                                                  \
    X(recurrent, recurrent)                                                                                            \
    X(recurrent_backward, recurrent_backward)                                                                          \
    X(recurrent_step, recurrent_step)                                                                                  \
    X(mixture_log_density, mixture_log_density)                                                                        \
    X(pool_backward, pool_backward)                                                                                    \
    X(linear_cross_entropy, linear_cross_entropy)                                                                      \
    X(linear_cross_entropy_train, linear_cross_entropy)                                                                \
    X(squared_norm, squared_norm)

/* Ops that inference uses: X(name), or X(name, W(scratch)). */
#define CPU_FORWARD(X, W)                                                                                              \
    X(embedding)                                                                                                       \
    X(linear, W(linear))                                                                                               \
    X(norm)                                                                                                            \
    X(attention, W(attention))                                                                                         \
    X(attention_cached, W(attention_cached))                                                                           \
    X(rotary, W(rotary))                                                                                               \
    X(recurrent, W(recurrent))                                                                                         \
    X(recurrent_step, W(recurrent_step))                                                                               \
    X(pool)                                                                                                            \
    X(broadcast_add)                                                                                                   \
    X(segment_sum)                                                                                                     \
    X(prefix)                                                                                                          \
    X(posterior)                                                                                                       \
    X(normalize)                                                                                                       \
    X(linear_cross_entropy, W(linear_cross_entropy))                                                                   \
    X(add)                                                                                                             \
    X(gelu)                                                                                                            \
    X(activation_tanh)                                                                                                 \
    X(swiglu)

/* Inputs that may be quantized weights: bit k stands for input k. */
#define CPU_BLOCK_INPUTS(X)                                                                                            \
    X(embedding, SLOT(IN_EMBEDDING_TABLE))                                                                             \
    X(linear, SLOT(IN_LINEAR_W))                                                                                       \
    X(linear_cross_entropy, SLOT(IN_LINEAR_CROSS_ENTROPY_W))                                                           \
    X(recurrent, SLOT(IN_RECURRENT_W))                                                                                 \
    X(recurrent_step, SLOT(IN_RECURRENT_STEP_W))

/* Outputs that may be bf16: the optimizer's moments, bit k for output k. All other outputs here are f32. */
#define CPU_BF16_OUTPUTS(X)                                                                                            \
    X(adamw, SLOT(OUT_ADAMW_MOMENT1) | SLOT(OUT_ADAMW_MOMENT2))                                                        \
    X(sgd, SLOT(OUT_SGD_MOMENT))

void CPU(linear_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(norm_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(attention_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(attention_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(attention_cached_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(rotary_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(recurrent_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(recurrent_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(recurrent_step_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(mixture_log_density_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(pool_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(linear_cross_entropy_workspace)(const struct call *c, size_t *shared, size_t *per_worker);
void CPU(squared_norm_workspace)(const struct call *c, size_t *shared, size_t *per_worker);

#endif
