/* Files that are not text are refused by name, with a command that reads them; text is accepted, however dirty. */
#include "text/recognize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    char *data;
    size_t size, room;
};

static void add(struct bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->room) {
        b->room = 2 * (b->size + size);
        b->data = realloc(b->data, b->room);
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void expect(const char *name, const struct bytes *b, const char *part)
{
    elbo_error error = {0};
    elbo_status status = text_recognize(name, b->data, b->size, b->size < TEXT_HEAD, false, &error);
    if (!part && status) fail_msg("%s: refused: %s", name ? name : "standard input", error.message);
    if (!part) return;
    assert_int_equal(status, ELBO_INPUT);
    if (!strstr(error.message, part)) fail_msg("'%s' is not in: %s", part, error.message);
    assert_null(strchr(error.message, '\n'));
    assert_non_null(strstr(error.message, name ? name : "standard input"));
}

static void refused(const char *name, const void *data, size_t size, const char *part)
{
    struct bytes b = {0};
    add(&b, data, size);
    expect(name, &b, part);
    free(b.data);
}

#define REFUSED(name, data, part) refused(name, data, sizeof data - 1, part)
#define ACCEPTED(name, data)      refused(name, data, sizeof data - 1, NULL)

static void files_with_a_mark(void **state)
{
    (void)state;
    REFUSED("a.gz", "\x1f\x8b\x08\0\0\0\0\0\0\3", "`zcat a.gz | elbo prepare - ...`");
    REFUSED("a.zst", "\x28\xb5\x2f\xfd\4\0", "`zstdcat a.zst |");
    REFUSED("a.xz",
            "\xfd"
            "7zXZ\0\0\4",
            "`xzcat a.xz |");
    REFUSED("a.bz2", "BZh91AY&SY\1\2", "`bzcat a.bz2 |");
    REFUSED("a.zip", "PK\3\4\24\0", "`unzip -p a.zip |");
    REFUSED("a.pdf", "%PDF-1.7\n", "`pdftotext a.pdf - |");
    REFUSED(NULL, "\x1f\x8b\x08\0\0", "`zcat FILE |");
    REFUSED("a", "\xff\xfe\x61\0", "`iconv -f UTF-16LE -t UTF-8 a |");
    REFUSED("a", "\xfe\xff\0\x61", "`iconv -f UTF-16BE -t UTF-8 a |");
    REFUSED("a", "\xff\xfe\0\0\x61\0\0\0", "`iconv -f UTF-32LE -t UTF-8 a |");
    REFUSED("a", "\0\0\xfe\xff\0\0\0\x61", "`iconv -f UTF-32BE -t UTF-8 a |");
    ACCEPTED("a", "BZh is a word\nPK too\n]\n");
}

/* Sentences in some scripts, as code points. */
static const uint16_t *const scripts[] = {
    u"The cat sat on the mat, and the dog did not.\nA bird was near.\n",
    u"\u041a\u043e\u0448\u043a\u0430 \u0441\u0438\u0434\u0435\u043b\u0430 \u0443 "
    u"\u043e\u043a\u043d\u0430.\n\u0421\u043e\u0431\u0430\u043a\u0430 \u043d\u0435\u0442.\n",
    u"\u5410\u8f29\u306f\u732b\u3067\u3042\u308b\u3002\u540d\u524d\u306f\u307e\u3060\u7121\u3044\u3002\n\u3069\u3053"
    u"\u3067\u751f\u308c\u305f\u304b\u4e0a\u3002\n",
    u"\u0394\u03b5\u03bd \u03ad\u03c7\u03b5\u03b9 \u03cc\u03bd\u03bf\u03bc\u03b1.\n\u039f\u03cd\u03c4\u03b5 "
    u"\u03b3\u03ac\u03c4\u03b1.\n",
    u"Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u \u1edf tr\u00ean.\nM\u1ed9t con m\u00e8o.\n",
};

static void encodings_without_a_mark(void **state)
{
    (void)state;
    static const char *const names[] = {"UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"};
    for (size_t s = 0; s < sizeof scripts / sizeof *scripts; s++)
        for (int encoding = 0; encoding < 4; encoding++) {
            struct bytes b = {0};
            for (int again = 0; again < 5; again++)
                for (const uint16_t *c = scripts[s]; *c; c++) {
                    unsigned char low = (unsigned char)*c, high = (unsigned char)(*c >> 8);
                    const unsigned char forms[4][4] = {{low, high}, {high, low}, {low, high, 0, 0}, {0, 0, high, low}};
                    add(&b, forms[encoding], encoding < 2 ? 2 : 4);
                }
            expect("wide.txt", &b, names[encoding]);
            free(b.data);
        }
}

static void binary_files(void **state)
{
    (void)state;
    struct bytes noise = {0}, floats = {0}, elf = {0};
    uint64_t random = 1;
    for (int i = 0; i < 4000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned char byte = (unsigned char)(random >> 40);
        float f = (float)((double)(random >> 11) * 0x1p-53 - 0.5);
        add(&noise, &byte, 1);
        add(&floats, &f, sizeof f);
        add(&elf, i % 5 ? "\0" : (char *)&byte, 1);
    }
    expect("noise", &noise, "binary");
    expect("floats", &floats, "binary");
    expect("elf", &elf, "binary");
    free(noise.data), free(floats.data), free(elf.data);
    struct bytes koi8 = {0}; /* Russian in several encodings */
    for (int i = 0; i < 60; i++) add(&koi8, "\xeb\xcf\xdb\xcb\xc1 \xd3\xc9\xc4\xc5\xcc\xc1\n", 13);
    expect("koi8.txt", &koi8, "iconv -f ENCODING");
    free(koi8.data);
}

static void old_line_ends(void **state)
{
    (void)state;
    REFUSED("mac.txt", "one line\ranother\ra third\r", "`tr '\\r' '\\n' < mac.txt |");
    ACCEPTED("dos.txt", "one line\r\nanother\r\n");
    ACCEPTED("dos.txt", "one line\r\r\nanother\r\r\n");
    ACCEPTED("some.txt", "50 %\r100 %\nother\nlines\n");
}

static void text_that_is_not_a_sentence_a_line(void **state)
{
    (void)state;
    REFUSED("a.jsonl", "{\"id\": 1, \"text\": \"a cat\"}\n\n{\"id\": 2, \"text\": \"b\"}\n", "`jq -r .text a.jsonl |");
    REFUSED("a", "{\"id\": \"x\", \"sentence\": \"a cat\"}\n", "`jq -r .sentence a |");
    REFUSED(NULL, "{\"id\": 7, \"line\": \"a cat\"}\r\n{\"id\": 7, \"line\": \"a cat\"}\r\n", "`jq -r .line FILE |");
    REFUSED("a", "\xef\xbb\xbf{\"t\": \"a\"}\n{\"t\": \"b\"}", "JSON lines");
    REFUSED("a", "[\"one\", \"two\"]\n[\"three\", \"four\"]\n", "`jq -r .[0] a |");
    REFUSED("a.json", "[\n \"one\",\n \"two\"\n]\n", "JSON, not");
    REFUSED("a", "{}\n{}\n", "JSON");
    ACCEPTED("a", "{\"a\": \"b\"}\n{\"a\": \"c\"}\nand a last line of text, without an end");
    REFUSED("a.csv", "\"a,b,c\",d\n\"x\",y\n", "a table of 2 columns");
    ACCEPTED("a", "{ a brace at the beginning\nand text\n");
    ACCEPTED("a", "[laughs]\n[applause]\n");
    ACCEPTED("a", "{smiles}\n");
    REFUSED("a.csv", "id,text\n1,\"a, b\"\n2,c\n", "a table of 2 columns");
    REFUSED("a.TSV", "1\ta cat\n2\ta dog\n", "`cut -f1 a.TSV |");
    ACCEPTED("a.csv", "one sentence, and\nanother\n");
    ACCEPTED(NULL, "1,a\n2,b\n");
}

static void dirty_text_is_text(void **state)
{
    (void)state;
    ACCEPTED("a", "the cat\n");
    ACCEPTED("a", "bad \xff byte\n");
    ACCEPTED("a", "a\n");
    ACCEPTED("a", "\n \n");
    ACCEPTED("a", "{\"a\": \"b\"}\0\n{\"a\": \"c\"}\0\n"); /* a zero byte is not a blank */
    ACCEPTED("a", "\033[1mbold\033[0m words\fnew page\n");
    struct bytes nul = {0}, latin = {0}, web = {0}, cut = {0};
    for (int i = 0; i < 300; i++) {
        add(&nul, "ab\0cd\n", 6);
        add(&latin, "Le caf\xe9 \xe9tait ferm\xe9 ce matin-l\xe0, d\xe9j\xe0.\n", 39);
        add(&web, i % 7 ? "good text here\n" : "bad \xc3( \x80\x01\x02 \xf0\x28 text\n", i % 7 ? 15 : 20);
    }
    expect("nul", &nul, NULL);
    expect("latin", &latin, NULL);
    expect("web", &web, NULL);
    for (int i = 0; cut.size < TEXT_HEAD + 10; i++) add(&cut, "\xe6\x97\xa5\xe6\x9c\xac ", 7);
    cut.size = TEXT_HEAD; /* cut in the middle of a character */
    expect("cut", &cut, NULL);
    free(nul.data), free(latin.data), free(web.data), free(cut.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_with_a_mark),
        cmocka_unit_test(encodings_without_a_mark),
        cmocka_unit_test(binary_files),
        cmocka_unit_test(old_line_ends),
        cmocka_unit_test(text_that_is_not_a_sentence_a_line),
        cmocka_unit_test(dirty_text_is_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
