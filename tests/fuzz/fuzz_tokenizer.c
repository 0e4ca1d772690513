/* Fuzzes tokenizer.json of every kind. With an accepted tokenizer, text must become ids of its vocabulary and decode
 * again. */
#include "elbo/tokenizer.h"
#include "fuzz/harness.h"

#include <stdio.h>
#include <string.h>

static void use(struct elbo_tokenizer *tokenizer)
{
    static const char text[] = "the aaaaab cat's 12\t\xe6\x97\xa5\xe6\x9c\xac e\xcc\x81 \xe2\x80\x83 x";
    struct elbo_ids ids = {0};
    struct elbo_text back = {0};
    elbo_error error;
    FUZZ_CHECK(elbo_tokenizer_encode(tokenizer, &ids, text, sizeof text - 1, &error) == ELBO_OK);
    for (size_t i = 0; i < ids.count; i++) FUZZ_CHECK(ids.ids[i] < elbo_tokenizer_vocabulary(tokenizer));
    FUZZ_CHECK(elbo_tokenizer_decode(tokenizer, &back, ids.ids, ids.count, &error) == ELBO_OK);
    if (elbo_tokenizer_kind(tokenizer) != ELBO_TOKENIZER_WORD)
        FUZZ_CHECK(back.size == sizeof text - 1 && !memcmp(back.text, text, back.size));
    for (uint32_t id = 0; id < elbo_tokenizer_vocabulary(tokenizer) && id < 600; id++)
        FUZZ_CHECK(elbo_tokenizer_decode(tokenizer, &back, &id, 1, &error) == ELBO_OK);
    FUZZ_CHECK(elbo_tokenizer_decode(tokenizer, &back, (uint32_t[]){3, 2},
                                     elbo_tokenizer_vocabulary(tokenizer) > 3 ? 2 : 0, &error) == ELBO_OK);
    FUZZ_PLANTED(elbo_tokenizer_kind(tokenizer) == ELBO_TOKENIZER_WORD && elbo_tokenizer_vocabulary(tokenizer) == 6 &&
                 strncmp(back.text, "the ", 4));
    elbo_text_free(&back);
    elbo_ids_free(&ids);
}

int fuzz_one(const unsigned char *data, size_t size)
{
    fuzz_put("tokenizer.json", data, size);
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizer.json", fuzz_folder());
    struct elbo_tokenizer *tokenizer;
    elbo_error error;
    elbo_status status = elbo_tokenizer_load(&tokenizer, path, &error);
    if (status) return (int)status;
    use(tokenizer);
    elbo_tokenizer_close(tokenizer);
    return 0;
}

#define FRAME(kind, vocabulary)                                                                                        \
    "{\"format\":\"elbo-tokenizer\",\"version\":1,\"kind\":\"" kind "\",\"vocabulary\":" vocabulary                    \
    ",\"marks\":{\"start\":0,\"end\":1,\"unknown\":2}"

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        FRAME("byte", "259") "}",
        FRAME("word", "6") ",\"words\":[\"the\",\"cat\",\"\xe6\x97\xa5\xe6\x9c\xac\"]}",
        FRAME("word", "3") ",\"words\":[]}",
        FRAME("word", "5") ",\"words\":[\"a\\u0000b\",\"\\ud83d\\ude00\"]}",
        FRAME("bpe", "263") ",\"merges\":[[\"t\",\"h\"],[\"th\",\"e\"],[\"\xc4\xa0\",\"x\"],[\"a\",\"a\"]]}",
        FRAME("bpe", "259") ",\"merges\":[]}",
        FRAME("bpe", "262") ",\"merges\":[[\"a\",\"a\"],[\"aa\",\"a\"],[\"a\",\"aa\"],[\"aa\",\"aa\"]]}",
        FRAME("bpe", "260") ",\"merges\":[[\"\xc4\x80\",\"\xc5\x83\"],[\"x\",[]]]}",
        "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index], out, room) : 0;
}
