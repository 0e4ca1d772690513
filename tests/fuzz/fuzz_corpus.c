/* Fuzzes a corpus. The first byte selects the rest: corpus.bin as it is; corpus.bin with its offsets and size
 * corrected, so that the contents are reached; or the manifest without its seal. The other files fit, with the right
 * hashes. */
#include "elbo/corpus.h"
#include "fuzz/harness.h"
#include "fuzz/small_corpus.h"

#include <stdlib.h>

enum { AS_IT_IS, LAID_OUT, MANIFEST, KINDS };

static size_t compose(char *out, const void *binary, size_t size)
{
    size_t at = small_manifest(out, binary, size);
    out[at] = '}';
    return at + 1;
}

/* Sets offsets and size from the counts, when there are enough bytes. */
static size_t lay_out(unsigned char *bytes, size_t size)
{
    struct corpus_header header;
    if (size < sizeof header) return size;
    memcpy(&header, bytes, sizeof header);
    memcpy(header.magic, CORPUS_MAGIC, sizeof header.magic);
    header.version = CORPUS_VERSION;
    header.streams = 1;
    header.sentences %= 64;
    header.stream[0].tokens %= 512;
    header.stream[0].token_bytes = header.stream[0].vocabulary <= 65536 ? 2 : 4;
    header.stream[0].reserved = 0;
    memset(&header.stream[1], 0, sizeof header.stream[1]);
    if (!corpus_lay_out(&header) || header.file_bytes > size) return size;
    memcpy(bytes, &header, sizeof header);
    return header.file_bytes;
}

static void read_all(const struct elbo_corpus *opened)
{
    const enum elbo_stream stream = ELBO_STREAM_DECODER;
    size_t tokens = 0, words = 0;
    for (size_t i = 0; i < elbo_corpus_sentences(opened); i++) {
        uint32_t ids[16];
        elbo_error error;
        size_t length = elbo_corpus_length(opened, stream, i), got;
        FUZZ_CHECK(elbo_corpus_read(opened, stream, i, ids, 16, &got, &error) == ELBO_OK);
        FUZZ_CHECK(length <= elbo_corpus_longest(opened, stream) && got <= length && got <= 16);
        for (size_t t = 0; t < got; t++) FUZZ_CHECK(ids[t] < elbo_corpus_vocabulary(opened, stream));
        tokens += length;
        words += elbo_corpus_sentence_words(opened, i);
        FUZZ_PLANTED(i == 0 && got == 2 && (ids[0] != 3 || ids[1] != 4));
    }
    FUZZ_CHECK(tokens == elbo_corpus_tokens(opened, stream) && words == elbo_corpus_words(opened));
}

int fuzz_one(const unsigned char *data, size_t size)
{
    static unsigned char binary[FUZZ_LARGEST + 1024];
    static char manifest[FUZZ_LARGEST + 1024], body[1024];
    int kind = size ? data[0] % KINDS : 0;
    size_t length = size ? size - 1 : 0, manifest_size;
    if (length > FUZZ_LARGEST) return 1;
    if (kind == MANIFEST) {
        manifest_size = seal(manifest, data + 1, length);
        length = small_corpus(binary);
    } else {
        if (length) memcpy(binary, data + 1, length);
        if (kind == LAID_OUT) length = lay_out(binary, length);
        manifest_size = seal(manifest, body, compose(body, binary, length));
    }
    small_put_tokenizer();
    fuzz_put("corpus.bin", binary, length);
    fuzz_put("manifest.json", manifest, manifest_size);
    struct elbo_corpus *opened;
    elbo_error error;
    elbo_status status = elbo_corpus_open(&opened, fuzz_folder(), &error);
    if (status) return (int)status;
    read_all(opened);
    elbo_corpus_close(opened);
    return 0;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static char body[1024];
    size_t size = small_corpus(out + 1);
    (void)room;
    out[0] = (unsigned char)index;
    if (index < MANIFEST) return size + 1;
    if (index > MANIFEST) return 0;
    size_t length = compose(body, out + 1, size);
    memcpy(out + 1, body, length);
    return length + 1;
}
