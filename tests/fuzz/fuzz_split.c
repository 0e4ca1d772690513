/* Fuzzes the manifest of a split, as it is and sealed anew. An accepted manifest must name known parts, each once, and
 * fit its set. */
#include "fuzz/harness.h"
#include "fuzz/seal.h"
#include "text/corpus_manifest.h"

#include <stdlib.h>

static int parse(const char *text, size_t size)
{
    struct corpus_split split;
    elbo_error error;
    bool there;
    fuzz_put("manifest.json", text, size);
    elbo_status status = corpus_split_read(&split, &there, fuzz_folder(), &error);
    if (status || !there) return 1;
    FUZZ_CHECK(split.count >= 1 && split.count <= ELBO_PREPARE_PARTS);
    for (size_t i = 0, known = 0; i < split.count; i++, known++) {
        while (known < ELBO_PREPARE_PARTS && strcmp(split.parts[i].name, corpus_part_names[known])) known++;
        FUZZ_CHECK(known < ELBO_PREPARE_PARTS && strlen(split.parts[i].corpus) == 16);
    }
    char set[CORPUS_HEX];
    strcpy(set, split.set);
    corpus_split_name(&split);
    FUZZ_CHECK(!strcmp(set, split.set));
    return 0;
}

int fuzz_one(const unsigned char *data, size_t size)
{
    char *sealed = malloc(size + SEAL_ROOM);
    FUZZ_CHECK(sealed);
    int as_it_is = parse((const char *)data, size), anew = parse(sealed, seal(sealed, data, size));
    FUZZ_PLANTED(anew && size > 300 && memmem(data, size, "\"name\"", 6));
    free(sealed);
    return as_it_is ? anew : 0;
}

/* Writes the members of a whole split, with the set that fits them. */
static size_t whole(unsigned char *out, size_t room)
{
    struct corpus_split split = {.tokenizer = "0123456789abcdef", .count = 3};
    for (size_t i = 0; i < split.count; i++) {
        strcpy(split.parts[i].name, corpus_part_names[i]);
        strcpy(split.parts[i].corpus, "fedcba9876543210");
    }
    corpus_split_name(&split);
    int size = snprintf(
        (char *)out, room,
        "{\n \"format\": \"elbo-split\",\n \"version\": 1,\n \"set\": \"%s\",\n \"tokenizer\": \"%s\",\n \"parts\": "
        "[{\"name\": \"train\", \"corpus\": \"%s\"}, {\"name\": \"valid\", \"corpus\": \"%s\"}, "
        "{\"name\": \"test\", \"corpus\": \"%s\"}]",
        split.set, split.tokenizer, split.parts[0].corpus, split.parts[1].corpus, split.parts[2].corpus);
    return (size_t)size;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        "{\n \"format\": \"elbo-split\",\n \"version\": 2",
        ("{\n \"format\": \"elbo-split\",\n \"version\": 1,\n \"set\": \"0123456789abcdef\",\n \"parts\": [[], {}, "
         "null, 1, \"train\"]"),
        "{\n \"format\": \"elbo-corpus\",\n \"version\": 1",
        "[1",
    };
    if (!index) return whole(out, room);
    return index <= sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index - 1], out, room) : 0;
}
