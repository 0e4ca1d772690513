/* Rows of numbers in few bits. The block layouts are GGUF's, so that files and measurements are comparable. A block
 * holds a fixed count of values; a row is a whole number of blocks.
 *
 * | type | values | bytes | bits a value | x                                                     |
 * | ---- | -----: | ----: | -----------: | ----------------------------------------------------- |
 * | Q8_0 |     32 |    34 |          8.5 | d q, q int8                                           |
 * | Q4_0 |     32 |    18 |          4.5 | d (q - 8), q 4 bits                                   |
 * | Q4_K |    256 |   144 |          4.5 | d s q - e m, s and m 6 bits of each 32 values, q 4    |
 * | Q6_K |    256 |   210 |       6.5625 | d s q, s int8 of each 16 values, q - 32 in 6 bits     |
 *
 * d and e are f16. Q8_0 takes d from the largest magnitude. The other types try several roundings and keep the one
 * whose least-squares scale leaves the smallest error, weighted towards large values. */
#ifndef BASE_BLOCKS_H
#define BASE_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum block_type { BLOCK_F32, BLOCK_Q8_0, BLOCK_Q4_0, BLOCK_Q4_K, BLOCK_Q6_K, BLOCK_TYPES };

struct block_info {
    const char *name;
    size_t values, bytes;
    uint32_t ggml; /* the type's number in GGUF */
};
extern const struct block_info block_infos[BLOCK_TYPES];

/* Returns the bytes of `count` values, a multiple of the block's values. */
size_t block_bytes(enum block_type type, size_t count);

/* Quantizes `count` values. Values that are not finite become 0, except in BLOCK_F32, which copies. */
void block_quantize(enum block_type type, void *to, const float *from, size_t count);
void block_dequantize(enum block_type type, float *to, const void *from, size_t count);

/* Converts to IEEE 754 binary16, rounded to nearest even. */
uint16_t half_of(float x);
float half_to_float(uint16_t h);

#endif
