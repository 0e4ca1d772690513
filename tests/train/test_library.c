/* The public interface as a program uses it: prepare, train, open, encode, decode. */
#include "elbo/corpus.h"
#include "elbo/run.h"

#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void count_lines(void *context, const char *text)
{
    (void)text;
    ++*(size_t *)context;
}

static size_t entries(const char *folder)
{
    DIR *list = opendir(folder);
    size_t count = 0;
    while (readdir(list)) count++;
    closedir(list);
    return count;
}

/* A run that is opened while descriptor 0 is free works the same, and leaves no file open and no thread. */
static void test_without_standard_input(const char *path, const float *mu, const char *sentence)
{
    elbo_error error = {0};
    elbo_run *run;
    int input = dup(STDIN_FILENO);
    float here[8], logvar[8];
    close(STDIN_FILENO);
    size_t files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    for (int again = 0; again < 3; again++) {
        assert_int_equal(elbo_run_open(&run, path, 3, &error), ELBO_OK);
        assert_int_equal(entries("/proc/self/task"),
                         threads + 2); /* as many threads as requested, one of which is the caller's */
        assert_int_equal(elbo_run_encode(run, here, logvar, &sentence, NULL, 1, &error), ELBO_OK);
        assert_memory_equal(here, mu, sizeof here);
        elbo_run_close(run);
        assert_int_equal(entries("/proc/self/fd"), files);
        assert_int_equal(elbo_run_open(&run, "/tmp", 1, &error), ELBO_INPUT);
        assert_non_null(strstr(error.message, "neither a run directory"));
        assert_int_equal(elbo_run_open(&run, "/dev/null", 1, &error), ELBO_IO);
        assert_int_equal(entries("/proc/self/fd"), files);
    }
    dup2(input, STDIN_FILENO);
    close(input);
}

/* A closed run leaves no memory allocated; the C library's own caches are smaller than one tokenizer per run. */
static void test_memory(const char *path)
{
    enum { TIMES = 40, FEW = 8 };
    size_t before = 0, now = 0;
    for (size_t i = 0; i < FEW + TIMES; i++) {
        elbo_error error = {0};
        elbo_run *run;
        assert_int_equal(elbo_run_open(&run, path, 1, &error), ELBO_OK);
        elbo_run_close(run);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        now = mallinfo2().uordblks;
#endif
        if (i + 1 == FEW) before = now;
    }
    assert_true(now <= before + (size_t)TIMES * 200);
}

static void test_prepare_train_use(void **state)
{
    (void)state;
    char folder[] = "/tmp/elbo-library-XXXXXX", text[64], corpus[64], train[96], run_dir[96];
    assert_non_null(mkdtemp(folder));
    snprintf(text, sizeof text, "%s/text.txt", folder);
    snprintf(corpus, sizeof corpus, "%s/corpus", folder);
    FILE *f = fopen(text, "w");
    for (int i = 0; i < 200; i++)
        fprintf(f, "the %s bird sees %s trees\n", i % 2 ? "small" : "large", i % 3 ? "two" : "three");
    fclose(f);

    elbo_error error = {0};
    const char *inputs[] = {text};
    struct elbo_prepare_options prepare = {
        .inputs = inputs, .input_count = 1, .out = corpus, .tokenizer_kind = ELBO_TOKENIZER_WORD, .tokenizer_size = 50};
    struct elbo_prepare_report report;
    assert_int_equal(elbo_prepare(&prepare, &report, NULL, NULL, &error), ELBO_OK);

    snprintf(train, sizeof train, "--data.train=%s", corpus);
    snprintf(run_dir, sizeof run_dir, "--run.dir=%s/run", folder);
    const char *overrides[] = {train,
                               run_dir,
                               "--train.steps=30",
                               "--train.slots=1",
                               "--train.slot_tokens=128",
                               "--encoder.width=32",
                               "--decoder.width=32",
                               "--latent.width=8",
                               "--log.every=10",
                               "--data.max_length=20"};
    size_t lines = 0;
    assert_int_equal(elbo_train(NULL, overrides, sizeof overrides / sizeof *overrides, count_lines, &lines, &error),
                     ELBO_OK);
    assert_true(lines >= 3);

    elbo_run *run;
    assert_int_equal(elbo_run_open(&run, run_dir + strlen("--run.dir="), 2, &error), ELBO_OK);
    assert_int_equal(elbo_run_latent_width(run), 8);
    assert_int_equal(elbo_run_step(run), 30);
    float mu[16], logvar[16], alone[8], unused[8];
    for (int i = 0; i < 16; i++) mu[i] = logvar[i] = NAN;
    const char *sentences[] = {"the small bird sees two trees", "the large bird"};
    assert_int_equal(elbo_run_encode(run, mu, logvar, sentences, NULL, 2, &error), ELBO_OK);
    assert_int_equal(elbo_run_encode(run, alone, unused, sentences + 1, NULL, 1, &error), ELBO_OK);
    assert_memory_equal(alone, mu + 8, sizeof alone); /* a sentence's posterior does not depend on its neighbors */
    const char *beginning[] = {"the large bird\0 with a tail"}, *marked[] = {"\xef\xbb\xbfthe large bird"};
    assert_int_equal(elbo_run_encode(run, alone, unused, beginning, (size_t[]){14}, 1, &error),
                     ELBO_OK); /* exactly as many bytes as given */
    assert_memory_equal(alone, mu + 8, sizeof alone);
    assert_int_equal(elbo_run_encode(run, alone, unused, beginning, (size_t[]){27}, 1, &error),
                     ELBO_OK); /* a NUL does not end a sentence */
    assert_memory_not_equal(alone, mu + 8, sizeof alone);
    assert_int_equal(elbo_run_encode(run, alone, unused, marked, NULL, 1, &error),
                     ELBO_OK); /* a byte order mark is not a letter */
    assert_memory_equal(alone, mu + 8, sizeof alone);
    for (int i = 0; i < 16; i++) assert_true(isfinite(mu[i]) && isfinite(logvar[i]));
    assert_memory_not_equal(mu, logvar, sizeof mu);
    assert_memory_equal(unused, logvar + 8, sizeof unused);
    struct elbo_text first[2] = {{0}}, again[2] = {{0}};
    struct elbo_decode_options options = {.temperature = 1, .seed = 3};
    assert_int_equal(elbo_run_decode(run, first, mu, 2, &options, &error), ELBO_OK);
    assert_int_equal(elbo_run_decode(run, again, mu, 2, &options, &error), ELBO_OK);
    for (int i = 0; i < 2; i++) {
        assert_non_null(first[i].text);
        assert_string_equal(first[i].text, again[i].text);
        elbo_text_free(&first[i]);
        elbo_text_free(&again[i]);
    }
    elbo_run_close(run);
    test_without_standard_input(run_dir + strlen("--run.dir="), mu, sentences[0]);
    test_memory(run_dir + strlen("--run.dir="));

    assert_int_equal(elbo_run_open(&run, "/nowhere/at/all", 1, &error), ELBO_IO);
    assert_non_null(strstr(error.message, "/nowhere/at/all"));
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prepare_train_use)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
