/* attention_mma.cu: attention on tensor cores, forward and backward, against double. */
#include "kernels/attention.h"

/* Checks whether one block computed all gradients of a sentence: otherwise another kernel ran last. */
static void check_fused(bool fused)
{
    const char *kernel = device_kernel();
    if (kernel) assert_string_equal(kernel, fused ? "attention_backward_mma_kernel" : "attention_dq_mma_kernel");
}

/* Lengths around the edges of the steps, with the launch for short sentences and the launch for long ones. */
static void tensor_cores(void **state)
{
    static const struct {
        size_t heads, kv_heads, width, memory, lengths[8];
    } cases[] = {
        {2, 2, 16, 0, {1, 15, 16, 17, 0, 31, 33}},
        {4, 2, 16, 17, {3, 0, 47, 48, 49, 16}},
        {1, 1, 32, 1, {15, 16, 17, 63, 64, 65}},
        {6, 1, 32, 2, {7, 32, 0, 33}},
        {1, 1, 32, 0, {255, 1, 256, 2}},
        {2, 1, 48, 1, {14, 15, 16, 46, 47, 48}},
        {1, 1, 48, 17, {127, 0, 129}},
        {1, 1, 64, 1, {127, 128, 129}},
        {4, 2, 64, 2, {30, 31, 62, 1, 63}},
        {1, 1, 64, 1, {254, 255}},
        {1, 1, 64, 0, {255, 256, 257}},
        {1, 1, 64, 17, {300, 5}},
        {6, 1, 64, 0, {17, 2, 0, 20}},
        {1, 1, 128, 1, {111, 112, 113}},
        {1, 1, 128, 0, {127, 128, 129}},
        {4, 2, 128, 17, {1, 15, 0, 16}},
        {2, 1, 80, 1, {33, 64, 65}},
        {1, 1, 16, 300, {0}},
        {1, 1, 16, 17, {32}}, /* an empty slot needs another tile or another block */
        {2, 1, 16, 2, {0}},
        {1, 1, 32, 0, {0}},
        {1, 1, 64, 1, {256}},
        {1, 1, 16, 300, {0}}, /* too many keys for one block, and no queries for the second kernel */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int causal = 0; causal < 2; causal++)
            for (int many = 0; many < 2; many++) {
                struct shape shape = {.heads = cases[i].heads,
                                      .kv_heads = cases[i].kv_heads,
                                      .width = cases[i].width,
                                      .memory = cases[i].memory};
                struct context c = {0};
                sentences_of(&c.s, cases[i].lengths, sizeof cases->lengths / sizeof *cases->lengths);
                size_t longest = many ? 600 : c.s.longest ? c.s.longest + i % 3 * 20 : 0;
                unsigned wanted = i % 4 == 1 ? 2u - (unsigned)causal : 3u;
                try_sentences(&c, KERNEL_BF16, &shape, longest, causal, (i + (size_t)causal) % 2, wanted,
                              many == causal ? 5 : 0);
                if (c.s.tokens && wanted & 1) check_fused(longest + shape.memory <= (shape.width > 64 ? 128 : 256));
            }
    assert_int_equal(device_bank_conflicts(), 0);
}

/* A block limited to 99 KiB has no room for 256 keys; with exactly the bytes that they need it has. */
static void little_shared_memory(void **state)
{
    static const struct {
        size_t bytes, length;
        bool fused;
    } cases[] = {{99 << 10, 160, true}, {99 << 10, 256, false}, {122368, 256, true}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct shape shape = {.heads = 1, .kv_heads = 1, .width = 64};
        struct context c = {0};
        trial_sentences(&c.s, 1, cases[i].length, 1);
        device_limit_shared(cases[i].bytes);
        try_sentences(&c, KERNEL_BF16, &shape, cases[i].length, i % 2, i % 2, 3, 0);
        check_fused(cases[i].fused);
    }
    device_limit_shared(0);
}

/* More parts of keys than a grid has rows: the launch is refused, and nothing else is launched. */
static void too_many_keys(void **state)
{
    const struct kernel_attention shape = {.sentences = 1,
                                           .tokens = 1,
                                           .longest = 1,
                                           .heads = 1,
                                           .kv_heads = 1,
                                           .head_width = 16,
                                           .memory = (size_t)1 << 25};
    const bool add[2] = {false, false};
    void *const some = (void *)4096; /* never read */
    (void)state;
    assert_int_not_equal(attention_backward_cuda(&(struct attention_backward_args){.dqkv = some,
                                                                                   .dmemory = some,
                                                                                   .scratch = some,
                                                                                   .dout = some,
                                                                                   .qkv = some,
                                                                                   .offsets = some,
                                                                                   .memory = some,
                                                                                   .out = some,
                                                                                   .lse = some,
                                                                                   .shape = &shape,
                                                                                   .add_dqkv = add[0],
                                                                                   .add_dmemory = add[1],
                                                                                   .type = KERNEL_BF16},
                                                 NULL),
                         0);
}

TRIAL_MAIN(cmocka_unit_test(tensor_cores), cmocka_unit_test(little_shared_memory), cmocka_unit_test(too_many_keys))
