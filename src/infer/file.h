/* A trained model in one file, for programs that need nothing else: weights in few bits, the tokenizer, the prior.
 * Reading needs only libc. The file is read in place (mapped), so opening looks only at its head.
 *
 *   head       "elbo-inf", version u32, sections u32, bytes of the file u64, bytes of the head u64 (sections included;
 *              a multiple of 64), checksum of the head u64 (computed with 0 in its own place), checksum of the rest u64
 *   sections   for each: kind u32, 0 u32, offset u64, bytes u64
 *   CONFIG     lines "section.key=value\n": the model's options (docs/reference.md), vocabulary, positions, labels
 *   TENSORS    for each: name (104 bytes, zeros behind it), type u32 (enum block_type), rank u32, shape 2 u64,
 *              offset u64
 *   TOKENIZER  kind u32 (enum infer_tokenizer), split u32 (enum infer_split), marks 3 u32 (start, end, unknown),
 *              count u32; of words: count + 1 u32 offsets, then their bytes; of bytes: count merges of 3 u32, the ids
 *              of the left, the right and the resulting piece. Ids 0 .. 2 are the marks; words, or the 256 bytes and
 *              then new pieces in the order of their merges, follow
 *   BANNED     u32 ids that are never generated, besides the marks
 *   LABELS     names with a 0 behind each
 *   PRIOR      Gaussians K u32, full u32, then f64: log weights (K), means (K, Z), factors (K, Z, Z) or (K, Z)
 *   tensors    each at a multiple of 64, in ggml's blocks (base/blocks.h)
 *
 * All numbers are little-endian. */
#ifndef INFER_FILE_H
#define INFER_FILE_H

#include "elbo/status.h"
#include "base/blocks.h"
#include "model/config.h"

enum { INFER_VERSION = 1, INFER_ALIGNMENT = 64, INFER_NAME = 104 };
enum infer_section { INFER_CONFIG = 1, INFER_TENSORS, INFER_TOKENIZER, INFER_BANNED, INFER_LABELS, INFER_PRIOR };
enum infer_tokenizer { INFER_IDS, INFER_WORDS, INFER_BYTES };
enum infer_split { INFER_NO_SPLIT, INFER_GPT2 };

struct infer_tensor {
    const char *name;
    enum block_type type;
    size_t rank, shape[2];
    const void *data;
};

struct infer_words {
    enum infer_tokenizer kind;
    enum infer_split split;
    uint32_t start, end, unknown, count;
    const unsigned char *table; /* offsets and bytes of words; or merges */
    size_t bytes;               /* bytes of `table` */
};

struct infer_file {
    const unsigned char *bytes;
    size_t size, head;
    bool mapped;
    struct model_config config;
    struct infer_tensor *tensors; /* in the order of the file */
    size_t count;
    struct infer_words words;
    const unsigned char *banned; /* u32 */
    size_t banned_count;
    const char *labels;         /* config.labels names, each with a 0 behind it */
    const unsigned char *prior; /* f64 behind the two numbers; null: N(0, 1) */
    uint32_t components, full;
};

/* Maps the file and checks its head. ELBO_INPUT: the message says what is wrong and where. */
elbo_status infer_open(struct infer_file **out, const char *path, elbo_error *error);
/* Gives all bytes of a file, at a multiple of INFER_ALIGNMENT, until infer_unmap. The file is mapped (infer/mapped.c),
 * or read where nothing can be mapped (infer/loaded.c). ELBO_IO; ELBO_MEMORY. */
elbo_status infer_map(void **bytes, size_t *size, const char *path, elbo_error *error);
void infer_unmap(void *bytes, size_t size);

/* Opens bytes that outlive the result and begin at a multiple of INFER_ALIGNMENT. */
elbo_status infer_parse(struct infer_file **out, const void *bytes, size_t size, elbo_error *error);
/* Verifies the checksum of the rest, which opening does not read: ELBO_INPUT. */
elbo_status infer_verify(const struct infer_file *f, elbo_error *error);
void infer_close(struct infer_file *f);

const struct infer_tensor *infer_find(const struct infer_file *f, const char *name); /* null: no such tensor */

/* Tells whether a tensor of this name may be in blocks of few bits: tables, and matrices that rows are multiplied with.
 * Weights that make or carry z are always f32, because they are a thousandth of the bytes and decide the KL. */
enum infer_use { INFER_EXACT, INFER_PRODUCT, INFER_TABLE };
enum infer_use infer_use_of(const char *name);

/* Returns a 64-bit sum of bytes, by words of 8. For pieces whose sizes are multiples of 8, chain infer_sum_more from
 * the whole size. */
uint64_t infer_sum(const void *bytes, size_t size);
uint64_t infer_sum_more(uint64_t sum, const void *bytes, size_t size);
/* Returns the checksum of a head (size), with its own place taken as 0. */
uint64_t infer_head_sum(const unsigned char *head, size_t size);
enum {
    INFER_SUM_AT = 32,
    INFER_REST_AT = 40,
    INFER_HEAD = 48,
    INFER_SECTION_BYTES = 24,
    INFER_TENSOR_BYTES = INFER_NAME + 32
};

/* Reads a number of the file at any alignment. */
static inline uint32_t infer_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* infer_config_text: writes CONFIG, as snprintf. infer_config_read: reads it; ELBO_INPUT. */
size_t infer_config_text(char *to, size_t size, const struct model_config *c);
elbo_status infer_config_read(struct model_config *c, const char *text, size_t size, elbo_error *error);

#endif
