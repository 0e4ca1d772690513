/* Fuzzes the manifest of a checkpoint, as it is and sealed anew. An accepted manifest must be the same after composing
 * and parsing it. */
#include "fuzz/harness.h"
#include "fuzz/seal.h"
#include "checkpoint/manifest.h"

#include <stdlib.h>

static int parse(const char *text, size_t size)
{
    struct manifest manifest, again;
    elbo_error error;
    elbo_status status = manifest_parse(&manifest, text, size, &error);
    if (status) return (int)status;
    for (size_t i = 0; i < manifest.count; i++) {
        FUZZ_CHECK(manifest_name_is_good(manifest.files[i].name));
        FUZZ_CHECK(manifest.files[i].chunk_count == (manifest.files[i].bytes + MANIFEST_CHUNK - 1) / MANIFEST_CHUNK);
    }
    FUZZ_PLANTED(manifest.step > 1 && manifest.step < 1000);
    fuzz_own_begin(); /* composing does not count as reading */
    char *copy;
    size_t length;
    FUZZ_CHECK(manifest_compose(&copy, &length, &manifest, &error) == ELBO_OK);
    FUZZ_CHECK(manifest_parse(&again, copy, length, &error) == ELBO_OK);
    FUZZ_CHECK(again.step == manifest.step && again.count == manifest.count && again.ranks == manifest.ranks);
    FUZZ_CHECK(json_equal(again.counters, manifest.counters));
    manifest_free(&again);
    free(copy);
    fuzz_own_end();
    manifest_free(&manifest);
    return 0;
}

int fuzz_one(const unsigned char *data, size_t size)
{
    char *exact = malloc(size + 1), *sealed = malloc(size + SEAL_ROOM);
    FUZZ_CHECK(exact && sealed);
    memcpy(exact, data, size);
    int as_it_is = parse(exact, size), anew = parse(sealed, seal(sealed, data, size));
    free(exact);
    free(sealed);
    return as_it_is ? anew : 0;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        ("{\n \"elbo\": \"checkpoint\", \"version\": 1, \"program\": \"0.1.0\", \"step\": 1000, \"ranks\": 1, "
         "\"config_hash\": "
         "\"0123456789abcdef\", \"counters\": {\"tokens\": 5, \"best\": 1.25, \"list\": [1, null, true]}, "
         "\"chunk_bytes\": 16777216, "
         "\"files\": [{\"name\": \"model.safetensors\", \"bytes\": 123, \"xxh3\": \"0123456789abcdef\", \"chunks\": "
         "[\"0123456789abcdef\"]}, {\"name\": \"state/optimizer.safetensors\", \"bytes\": 16777217, \"xxh3\": "
         "\"0123456789abcdef\", "
         "\"chunks\": [\"0123456789abcdef\", \"fedcba9876543210\"]}]"),
        ("{\"elbo\":\"checkpoint\",\"version\":1,\"program\":\"\",\"step\":0,\"ranks\":9223372036854775807,\"config_"
         "hash\":\"\","
         "\"counters\":{},\"chunk_bytes\":16777216,\"files\":[]"),
        "{\"elbo\":\"checkpoint\",\"version\":2,\"program\":\"9.9\"",
        "{\"a\":1",
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index], out, room) : 0;
}
