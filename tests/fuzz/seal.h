/* Seals a sealed object (base/sealed.h) that a fuzzer changed, so that its checksum is right. */
#ifndef TESTS_FUZZ_SEAL_H
#define TESTS_FUZZ_SEAL_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { SEAL_ROOM = 64 };

/* `body` is the object without its last "\n}"; `out` has room for size + SEAL_ROOM. Returns the sealed size. */
static inline size_t seal(char *out, const void *body, size_t size)
{
    if (size) memcpy(out, body, size);
    return size +
           (size_t)sprintf(out + size, ",\n \"checksum\": \"%016" PRIx64 "\"\n}\n", (uint64_t)XXH3_64bits(out, size));
}

#endif
