/* Launches the attention kernels and rotary positions, and refuses heads that are too wide for them. */
#include "cuda/call.h"

static struct kernel_attention attention_of(const struct call *c, unsigned rows, unsigned offsets)
{
    const int64_t *i = c->attr->i;
    return (struct kernel_attention){.sentences = offsets == MAX_INPUTS ? 0 : c->size.in[offsets][0] - 1,
                                     .tokens = c->size.in[rows][0],
                                     .longest = c->longest,
                                     .heads = (size_t)i[ATTENTION_HEADS],
                                     .kv_heads = (size_t)i[ATTENTION_KV_HEADS],
                                     .head_width = (size_t)i[ATTENTION_HEAD_WIDTH],
                                     .memory = (size_t)i[ATTENTION_MEMORY],
                                     .causal = i[ATTENTION_CAUSAL]};
}

void cuda_op_attention(const struct call *c)
{
    struct kernel_attention a = attention_of(c, IN_ATTENTION_QKV, IN_ATTENTION_OFFSETS);
    clear(c, c->out[OUT_ATTENTION_Y], IN_ATTENTION_OFFSETS, a.tokens, a.heads * a.head_width,
          in_type(c, IN_ATTENTION_QKV));
    struct attention_forward_args args = {.out = c->out[OUT_ATTENTION_Y],
                                          .lse = c->out[OUT_ATTENTION_LSE],
                                          .qkv = c->in[IN_ATTENTION_QKV],
                                          .offsets = c->in[IN_ATTENTION_OFFSETS],
                                          .memory = c->in[IN_ATTENTION_MEMORY],
                                          .shape = &a,
                                          .type = in_type(c, IN_ATTENTION_QKV)};
    keep(c, attention_forward_cuda(&args, stream_of(c)));
}

void cuda_op_attention_backward(const struct call *c)
{
    struct kernel_attention a = attention_of(c, IN_ATTENTION_BACKWARD_QKV, IN_ATTENTION_BACKWARD_OFFSETS);
    if (!c->add[OUT_ATTENTION_BACKWARD_DQKV])
        clear(c, c->out[OUT_ATTENTION_BACKWARD_DQKV], IN_ATTENTION_BACKWARD_OFFSETS, a.tokens,
              (a.heads + 2 * a.kv_heads) * a.head_width, in_type(c, IN_ATTENTION_BACKWARD_QKV));
    struct attention_backward_args args = {.dqkv = c->out[OUT_ATTENTION_BACKWARD_DQKV],
                                           .dmemory = c->out[OUT_ATTENTION_BACKWARD_DMEMORY],
                                           .scratch = c->scratch,
                                           .dout = c->in[IN_ATTENTION_BACKWARD_DY],
                                           .qkv = c->in[IN_ATTENTION_BACKWARD_QKV],
                                           .offsets = c->in[IN_ATTENTION_BACKWARD_OFFSETS],
                                           .memory = c->in[IN_ATTENTION_BACKWARD_MEMORY],
                                           .out = c->in[IN_ATTENTION_BACKWARD_Y],
                                           .lse = c->in[IN_ATTENTION_BACKWARD_LSE],
                                           .shape = &a,
                                           .add_dqkv = c->add[OUT_ATTENTION_BACKWARD_DQKV],
                                           .add_dmemory = c->add[OUT_ATTENTION_BACKWARD_DMEMORY],
                                           .type = in_type(c, IN_ATTENTION_BACKWARD_QKV)};
    keep(c, attention_backward_cuda(&args, stream_of(c)));
}

void cuda_op_attention_backward_workspace(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    struct kernel_attention a = attention_of(c, IN_ATTENTION_BACKWARD_QKV, IN_ATTENTION_BACKWARD_OFFSETS);
    *shared = attention_scratch_floats(&a) * sizeof(float);
}

void cuda_op_attention_cached(const struct call *c)
{
    struct kernel_attention a = attention_of(c, IN_ATTENTION_CACHED_QKV, MAX_INPUTS);
    struct attention_cached_args args = {.out = c->out[OUT_ATTENTION_CACHED_Y],
                                         .cache = c->out[OUT_ATTENTION_CACHED_CACHE],
                                         .qkv = c->in[IN_ATTENTION_CACHED_QKV],
                                         .position = c->in[IN_ATTENTION_CACHED_POSITION],
                                         .memory = c->in[IN_ATTENTION_CACHED_MEMORY],
                                         .history = c->in[IN_ATTENTION_CACHED_HISTORY],
                                         .rows = c->size.in[IN_ATTENTION_CACHED_QKV][0],
                                         .room = c->size.out[OUT_ATTENTION_CACHED_CACHE][1],
                                         .shape = &a,
                                         .type = in_type(c, IN_ATTENTION_CACHED_QKV)};
    keep(c, attention_cached_cuda(&args, stream_of(c)));
}

void cuda_op_rotary(const struct call *c)
{
    struct rotary_args args = {.y = c->out[OUT_ROTARY_Y],
                               .x = c->in[IN_ROTARY_X],
                               .position = c->in[IN_ROTARY_POSITION],
                               .rows = c->size.in[IN_ROTARY_X][0],
                               .width = c->size.in[IN_ROTARY_X][1],
                               .heads = (size_t)c->attr->i[ROTARY_HEADS],
                               .head_width = (size_t)c->attr->i[ROTARY_HEAD_WIDTH],
                               .direction = (int)c->attr->i[ROTARY_DIRECTION],
                               .add = c->add[OUT_ROTARY_Y],
                               .type = in_type(c, IN_ROTARY_X)};
    keep(c, rotary_cuda(&args, stream_of(c)));
}

elbo_status cuda_op_attention_refuse(const struct call *c, elbo_error *error)
{
    size_t width = (size_t)c->attr->i[ATTENTION_HEAD_WIDTH];
    if (width <= ATTENTION_MOST_WIDTH) return ELBO_OK;
    return elbo_fail(error, ELBO_DEVICE,
                     "%s: heads of width %zu, at most %d on a GPU; take more heads, or use --device=cpu", c->node->name,
                     width, (int)ATTENTION_MOST_WIDTH);
}
