/* Fuzzes the labels of a corpus. The first byte selects the rest: labels.bin; or the manifest's description of it, a
 * JSON value. Accepted labels must give a class for each sentence, with distinct names. */
#include "elbo/corpus.h"
#include "fuzz/harness.h"
#include "fuzz/small_corpus.h"

#include <stdlib.h>

enum { COLUMN, DESCRIPTION, KINDS };

static const uint32_t column[SMALL_SENTENCES] = {0, 1, 1};
static const char description[] = "{\"file\": \"labels.bin\", \"classes\": [\"no\", \"yes\"]}";

static void check(const struct elbo_corpus *opened)
{
    size_t classes = elbo_corpus_classes(opened);
    FUZZ_CHECK(classes && strlen(elbo_corpus_labels_hash(opened)) == 16);
    for (size_t i = 0; i < SMALL_SENTENCES; i++) FUZZ_CHECK(elbo_corpus_label(opened, i) < classes);
    for (size_t k = 0; k < classes; k++) {
        FUZZ_CHECK(*elbo_corpus_class(opened, k));
        for (size_t j = 0; j < k; j++)
            FUZZ_CHECK(strcmp(elbo_corpus_class(opened, j), elbo_corpus_class(opened, k)) != 0);
    }
    FUZZ_PLANTED(classes == 2 && elbo_corpus_label(opened, 0) == 1);
}

int fuzz_one(const unsigned char *data, size_t size)
{
    static unsigned char binary[1024];
    static char manifest[FUZZ_LARGEST + 1024], body[FUZZ_LARGEST + 1024];
    int kind = size ? data[0] % KINDS : 0;
    size_t length = size ? size - 1 : 0, labels_size = kind == COLUMN ? length : sizeof column,
           described = kind == DESCRIPTION ? length : sizeof description - 1, at;
    const void *labels = kind == COLUMN && size ? data + 1 : (const void *)column;
    if (length > FUZZ_LARGEST) return 1;
    at = small_manifest(body, binary, small_corpus(binary));
    at += (size_t)sprintf(body + at, ", ");
    at += small_entry(body + at, CORPUS_LABELS, labels, labels_size);
    at += (size_t)sprintf(body + at, "},\n \"labels\": ");
    if (described) memcpy(body + at, kind == DESCRIPTION ? (const char *)data + 1 : description, described);
    small_put_tokenizer();
    fuzz_put(CORPUS_FILE, binary, small_corpus(binary));
    fuzz_put(CORPUS_LABELS, labels, labels_size);
    fuzz_put(CORPUS_MANIFEST, manifest, seal(manifest, body, at + described));
    struct elbo_corpus *opened;
    elbo_error error;
    elbo_status status = elbo_corpus_open(&opened, fuzz_folder(), &error);
    if (status) return (int)status;
    if (elbo_corpus_classes(opened)) check(opened); /* "labels": null means no labels */
    elbo_corpus_close(opened);
    return 0;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        description,
        "{\"file\": \"corpus.bin\", \"classes\": [\"no\", \"yes\", \"perhaps\"]}",
        "{\"file\": \"labels.bin\", \"classes\": [\"yes\", \"yes\", \"\", 1, null]}",
        "{\"file\": \"../labels.bin\", \"classes\": {\"yes\": 1}}",
        "[[]]",
    };
    out[0] = index ? DESCRIPTION : COLUMN;
    if (!index) memcpy(out + 1, column, sizeof column);
    if (!index) return 1 + sizeof column;
    return index <= sizeof seeds / sizeof *seeds ? 1 + fuzz_text(seeds[index - 1], out + 1, room - 1) : 0;
}
