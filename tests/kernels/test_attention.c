/* attention.cu: attention within ragged sentences with latent keys in front, forward and backward, for every shape and
 * type, against double. */
#include "kernels/attention.h"

static void packed(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sweep_count(&shapes); i++)
            for (unsigned causal = 0; causal < 2; causal++) {
                struct context c = {0};
                struct shape shape = shape_of(i);
                trial_sentences(&c.s, shape.sentences, shape.longest, shape.longest * 7 + shape.width);
                try_sentences(&c, (enum kernel_type)type, &shape, c.s.longest, causal, (i + causal) % 2,
                              shape.memory ? 1 + ((unsigned)i + causal) % 3 : 3, 0);
            }
}

/* Widths below the pitch of shared memory; the widest for tensor cores, the next one, the widest of all, and one too
 * wide. */
static void widths_at_the_edge(void **state)
{
    static const size_t widths[] = {1, 2, 112, 128, 144, 256};
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            struct context c = {0};
            struct shape shape = {
                .sentences = 2, .longest = 5, .heads = 2, .kv_heads = 1, .width = widths[i], .memory = 1};
            trial_sentences(&c.s, shape.sentences, shape.longest, widths[i]);
            try_sentences(&c, (enum kernel_type)type, &shape, c.s.longest, true, i % 2, 3, 0);
        }
    const struct kernel_attention wide = {
        .sentences = 1, .tokens = 1, .longest = 1, .heads = 1, .kv_heads = 1, .head_width = 257};
    const bool add[2] = {false, false};
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++) {
        assert_int_not_equal(attention_forward_cuda(&(struct attention_forward_args){.out = NULL,
                                                                                     .lse = NULL,
                                                                                     .qkv = NULL,
                                                                                     .offsets = NULL,
                                                                                     .memory = NULL,
                                                                                     .shape = &wide,
                                                                                     .type = (enum kernel_type)type},
                                                    NULL),
                             0);
        assert_int_not_equal(attention_backward_cuda(&(struct attention_backward_args){.dqkv = NULL,
                                                                                       .dmemory = NULL,
                                                                                       .scratch = NULL,
                                                                                       .dout = NULL,
                                                                                       .qkv = NULL,
                                                                                       .offsets = NULL,
                                                                                       .memory = NULL,
                                                                                       .out = NULL,
                                                                                       .lse = NULL,
                                                                                       .shape = &wide,
                                                                                       .add_dqkv = add[0],
                                                                                       .add_dmemory = add[1],
                                                                                       .type = (enum kernel_type)type},
                                                     NULL),
                             0);
    }
}

/* Lengths and latent keys around the edges of octets, tiles, chunks and blocks; widths around those for which kernels
 * are compiled. */
static const struct {
    size_t heads, kv_heads, width, memory, lengths[8];
} tiled[] = {
    {1, 1, 31, 0, {31, 32, 33, 15, 0, 16, 17, 1}},
    {2, 1, 33, 1, {7, 8, 9, 30, 31, 0, 32}},
    {4, 2, 36, 31, {1, 2, 33}},
    {1, 1, 64, 33, {31, 30, 63}},
    {1, 1, 64, 0, {63, 64, 65}},
    {2, 1, 64, 1, {62, 63, 64, 127, 129}},
    {3, 1, 52, 2, {200, 3}},
    {1, 1, 65, 0, {47, 48, 49, 33}},
    {2, 2, 100, 5, {27, 28, 100}},
    {1, 1, 128, 1, {31, 32, 95, 96, 97}},
    {2, 1, 130, 0, {7, 8, 9, 15, 16, 17, 24, 25}},
    {1, 1, 256, 3, {13, 14, 22, 23, 49}},
    {1, 1, 7, 70, {3, 0, 65}},
    {6, 2, 20, 2, {40, 0, 5}},
};

static struct shape tiled_of(struct sentences *s, size_t i)
{
    sentences_of(s, tiled[i].lengths, sizeof tiled->lengths / sizeof *tiled->lengths);
    return (struct shape){
        .heads = tiled[i].heads, .kv_heads = tiled[i].kv_heads, .width = tiled[i].width, .memory = tiled[i].memory};
}

static void tile_edges(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (size_t i = 0; i < sizeof tiled / sizeof *tiled; i++)
            for (int causal = 0; causal < 2; causal++) {
                struct context c = {0};
                struct shape shape = tiled_of(&c.s, i);
                try_sentences(&c, (enum kernel_type)type, &shape, c.s.longest, causal, (i + (size_t)causal) % 2,
                              i % 4 == 1 ? 2u : 3u, i % 3 == 2 ? 5 : 0);
            }
}

/* A sentence's bits depend neither on the other sentences of a batch nor on the size of the launch. */
static void alone_or_in_a_batch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tiled / sizeof *tiled; i++)
        for (int causal = 0; causal < 2; causal++) {
            struct context c = {.alone = true};
            struct shape shape = tiled_of(&c.s, i);
            try_sentences(&c, KERNEL_F32, &shape, i % 2 ? 300 : c.s.longest, causal, false, 3, 0);
        }
}

/* One unaligned array is enough to select the general kernels. */
static void shifted(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 6; bit++)
        for (int type = KERNEL_F32; type <= KERNEL_BF16; type++) {
            struct context c = {.shifted = 1u << bit};
            struct shape shape = {.sentences = 3, .longest = 19, .heads = 2, .kv_heads = 2, .width = 16, .memory = 2};
            trial_sentences(&c.s, shape.sentences, shape.longest, bit);
            try_sentences(&c, (enum kernel_type)type, &shape, c.s.longest, bit % 2, false, 3, 0);
        }
}

/* Sentences without tokens; their latent keys get no gradient. */
static void nothing_to_attend(void **state)
{
    (void)state;
    for (int type = KERNEL_F32; type <= KERNEL_BF16; type++)
        for (unsigned option = 0; option < 8; option++) {
            struct context c = {.s.sentences = 3};
            struct shape shape = {
                .sentences = 3, .heads = 2, .kv_heads = 1, .width = option & 2 ? 16 : 12, .memory = option & 4 ? 2 : 0};
            try_sentences(&c, (enum kernel_type)type, &shape, 0, option & 1, false, 3, 0);
        }
}

TRIAL_MAIN(cmocka_unit_test(packed), cmocka_unit_test(widths_at_the_edge), cmocka_unit_test(tile_edges),
           cmocka_unit_test(alone_or_in_a_batch), cmocka_unit_test(shifted), cmocka_unit_test(nothing_to_attend))
