/* Fuzzes text: lines, the repair of ill-formed UTF-8, words, and the tokenizers. Bytes and byte pairs must decode to
 * the same text. When the first byte is '0', the tokenizers learn from the first line. */
#include "base/utf8.h"
#include "elbo/tokenizer.h"
#include "fuzz/harness.h"
#include "text/lines.h"

#include <string.h>

static const char sample[] = "the cat's the cat's aaaaaaaaaaaaaaaa \xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac "
                             "e\xcc\x81 e\xcc\x81    \xef\xbf\xbd\xef\xbf\xbd 12 12";

static struct elbo_tokenizer *learn(enum elbo_tokenizer_kind kind, size_t size, const struct elbo_text *text)
{
    struct elbo_tokenizer_trainer *trainer;
    struct elbo_tokenizer *tokenizer;
    elbo_error error;
    FUZZ_CHECK(elbo_tokenizer_trainer_open(&trainer, kind, size, &error) == ELBO_OK);
    FUZZ_CHECK(elbo_tokenizer_trainer_add(trainer, text->text, text->size, &error) == ELBO_OK);
    FUZZ_CHECK(elbo_tokenizer_trainer_finish(trainer, &tokenizer, &error) == ELBO_OK);
    elbo_tokenizer_trainer_close(trainer);
    return tokenizer;
}

static void there_and_back(struct elbo_tokenizer *tokenizer, const struct elbo_text *text)
{
    struct elbo_ids ids = {0};
    struct elbo_text back = {0};
    elbo_error error;
    FUZZ_CHECK(elbo_tokenizer_encode(tokenizer, &ids, text->text, text->size, &error) == ELBO_OK);
    FUZZ_CHECK(elbo_tokenizer_decode(tokenizer, &back, ids.ids, ids.count, &error) == ELBO_OK);
    if (elbo_tokenizer_kind(tokenizer) == ELBO_TOKENIZER_WORD)
        FUZZ_CHECK(ids.count == elbo_text_words(text->text, text->size));
    else
        FUZZ_CHECK(back.size == text->size && !memcmp(back.text, text->text, back.size));
    FUZZ_PLANTED(ids.count == 1 && text->size == 3 && elbo_tokenizer_kind(tokenizer) == ELBO_TOKENIZER_BPE);
    elbo_ids_free(&ids);
    elbo_text_free(&back);
}

int fuzz_one(const unsigned char *data, size_t size)
{
    static const enum elbo_tokenizer_kind kinds[] = {ELBO_TOKENIZER_BYTE, ELBO_TOKENIZER_WORD, ELBO_TOKENIZER_BPE};
    struct line_source source;
    static struct elbo_tokenizer *ready[3]; /* learned once */
    struct elbo_tokenizer *learned[3] = {NULL};
    struct elbo_text text = {0};
    fuzz_own_begin();
    for (int i = 0; i < 3; i++)
        if (!ready[i])
            ready[i] = learn(kinds[i], 300, &(struct elbo_text){.text = (char *)sample, .size = sizeof sample - 1});
    fuzz_own_end();
    struct line line;
    elbo_error error;
    line_source_memory(&source, "text", (const char *)data, size);
    for (bool more;;) {
        size_t replaced, bad;
        FUZZ_CHECK(line_next(&more, &line, &source, &error) == ELBO_OK);
        if (!more) break;
        FUZZ_CHECK(elbo_text_repair(&text, &replaced, &bad, line.text, line.size, &error) == ELBO_OK);
        FUZZ_CHECK(utf8_valid(text.text, text.size) == text.size && (replaced > 0) == (bad < line.size));
        bool marked = memmem(line.text, line.size, "\xef\xbb\xbf", 3),
             left = memmem(text.text, text.size, "\xef\xbb\xbf", 3);
        if (!replaced && !marked) FUZZ_CHECK(text.size == line.size && !memcmp(text.text, line.text, line.size));
        FUZZ_CHECK(!left);
        for (int i = 0; i < 3; i++) {
            if (data[0] == '0' && !learned[i]) learned[i] = learn(kinds[i], 280, &text);
            there_and_back(learned[i] ? learned[i] : ready[i], &text);
        }
    }
    for (int i = 0; i < 3; i++) elbo_tokenizer_close(learned[i]);
    elbo_text_free(&text);
    return 0;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        "a\xef\xbb\xbf"
        "b \xef\xbb\xbf\xef\xbb\xbf"
        "c\n\xef\xbb\xbf\n",
        "the cat sat on the mat, it's the cat's mat\nthe dog\r\n\n  x\t1 22 \xc2\xbd\n",
        "\xef\xbb\xbf"
        "aaaaaaaaaaaaaaaaaaaaaaaa\naaaa\n",
        "\xff\xfe\xc0\x80\xe2\x82\n\xed\xa0\x80 \xf0\x9f\x98\n\xf4\x90\x80\x80\xf8",
        "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e e\xcc\x81\xcc\x81\xcc\x81 "
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\n\xe1\xa0\x8e\xe2\x80\x83 \xc2\xa0\xe2\x80\xa8x",
        "<unk> <unk>\na <unk>\n",
        "0 learn the cat the cat aaaa aaaa\nthe cat learn\n",
        "0\xe6\x97\xa5\xe6\x97\xa5\xe6\x97\xa5\n0\n",
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index], out, room) : 0;
}
