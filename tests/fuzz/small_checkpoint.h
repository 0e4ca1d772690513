/* The manifest of a checkpoint with one file; fuzzers replace a part of it. */
#ifndef TESTS_FUZZ_SMALL_CHECKPOINT_H
#define TESTS_FUZZ_SMALL_CHECKPOINT_H

#include "fuzz/seal.h"

/* Writes the manifest without its seal and returns its size. */
static inline size_t small_checkpoint(char *out, const char *name, const void *bytes, size_t size)
{
    uint64_t sum = XXH3_64bits(bytes, size);
    char chunk[24] = "";
    if (size) sprintf(chunk, "\"%016" PRIx64 "\"", sum);
    return (size_t)sprintf(
        out,
        "{\n \"elbo\": \"checkpoint\", \"version\": 1, \"program\": \"0.1.0\", \"step\": 3, \"ranks\": 1, "
        "\"config_hash\": \"x\", \"counters\": {\"n\": 1}, \"chunk_bytes\": 16777216, \"files\": [{\"name\": "
        "\"%s\", \"bytes\": %zu, \"xxh3\": \"%016" PRIx64 "\", \"chunks\": [%s]}]",
        name, size, sum, chunk);
}

#endif
