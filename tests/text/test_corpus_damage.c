/* Damage to a corpus: every single bit of its manifest, of corpus.bin's header and of the tokenizer; and random flips,
 * truncations, swaps and duplications of all three. Each is refused as bad input, with the file's name and, if the size
 * is right, the range of bytes. No byte is insignificant. As a control, the undamaged corpus opens. ELBO_TEST_FULL=1
 * takes 100,000 damages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "damage.h"
#include "elbo/corpus.h"
#include "temporary.h"
#include "text/corpus_format.h"

#include <fcntl.h>

static const char *const files[] = {CORPUS_MANIFEST, CORPUS_FILE, CORPUS_TOKENIZER};
enum { FILES = sizeof files / sizeof *files };

struct fixture {
    struct temporary folder;
    char out[128];
    struct {
        char path[300];
        unsigned char *bytes, *damaged;
        size_t size;
    } file[FILES];
    size_t looked, missed;
    char first[1300];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    snprintf(f->folder.path, sizeof f->folder.path, "%s/elbo-damage-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(f->folder.path)) return -1;
    static const char text[] = "the cat sat on the mat\nthe dog did not\na bird and a cat\n";
    char path[512];
    temporary_write(temporary_path(path, &f->folder, "text"), text, sizeof text - 1);
    snprintf(f->out, sizeof f->out, "%s/corpus", f->folder.path);
    const char *input = path;
    struct elbo_prepare_options options = {.inputs = &input,
                                           .input_count = 1,
                                           .out = f->out,
                                           .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                           .tokenizer_size = 100};
    struct elbo_prepare_report report;
    elbo_error error;
    if (elbo_prepare(&options, &report, NULL, NULL, &error)) return -1;
    for (size_t i = 0; i < FILES; i++) {
        snprintf(f->file[i].path, sizeof f->file[i].path, "%s/%s", f->out, files[i]);
        f->file[i].bytes = (unsigned char *)temporary_read(f->file[i].path, &f->file[i].size);
        f->file[i].damaged = malloc(2 * f->file[i].size + 64);
    }
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < FILES; i++) free(f->file[i].bytes), free(f->file[i].damaged);
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

static void look(struct fixture *f, size_t i, bool payload, const char *what)
{
    struct elbo_corpus *corpus = NULL;
    elbo_error error = {0};
    elbo_status status = elbo_corpus_open(&corpus, f->out, &error);
    f->looked++;
    if (status == ELBO_OK) elbo_corpus_close(corpus);
    if (status == ELBO_INPUT && strstr(error.message, files[i]) && (!payload || strstr(error.message, "between byte")))
        return;
    if (!f->missed++)
        snprintf(f->first, sizeof f->first, "%s in %s: status %d, %.1000s", what, files[i], (int)status, error.message);
}

static void put(const struct fixture *f, size_t i, const unsigned char *bytes, size_t size)
{
    int fd = open(f->file[i].path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static void nothing_missed(const struct fixture *f, const char *figure)
{
    print_message("figure damage.%s %zu\nfigure damage.%s_missed %zu\n", figure, f->looked, figure, f->missed);
    if (f->missed) fail_msg("%zu of %zu: %s", f->missed, f->looked, f->first);
}

static void every_bit_of_manifest_header_and_tokenizer(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < FILES; i++) {
        size_t size = i == 1 ? sizeof(struct corpus_header) : f->file[i].size;
        for (size_t bit = 0; bit < 8 * size; bit++) {
            memcpy(f->file[i].damaged, f->file[i].bytes, f->file[i].size);
            f->file[i].damaged[bit / 8] ^= (unsigned char)(1u << bit % 8);
            put(f, i, f->file[i].damaged, f->file[i].size);
            look(f, i, false, "a flipped bit");
        }
        put(f, i, f->file[i].bytes, f->file[i].size);
    }
    nothing_missed(f, "corpus_bits");
}

static void random_damage(void **state)
{
    struct fixture *f = *state;
    uint64_t random = 5;
    size_t wanted = getenv("ELBO_TEST_FULL") ? 100000 : 4000;
    while (f->looked < wanted) {
        size_t i = damage_draw(&random, FILES), size;
        enum damage kind = (enum damage)damage_draw(&random, DAMAGES);
        if (!damage(f->file[i].damaged, &size, f->file[i].bytes, f->file[i].size, kind, &random)) continue;
        bool header = memcmp(f->file[i].damaged, f->file[i].bytes, size < 192 ? size : 192) != 0;
        put(f, i, f->file[i].damaged, size);
        look(f, i, size == f->file[i].size && i > 0 && !(i == 1 && header), damage_names[kind]);
        put(f, i, f->file[i].bytes, f->file[i].size);
    }
    nothing_missed(f, "corpus_random");
}

static void what_is_whole_is_not_refused(void **state)
{
    struct fixture *f = *state;
    look(f, 1, false, "nothing");
    assert_int_equal(f->missed, 1);
}

int main(void)
{
#define WITH_CORPUS(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {WITH_CORPUS(what_is_whole_is_not_refused),
                                       WITH_CORPUS(every_bit_of_manifest_header_and_tokenizer),
                                       WITH_CORPUS(random_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
