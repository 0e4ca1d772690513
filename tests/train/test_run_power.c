/* Power failures of a whole run. A run is begun, stopped, resumed and ended, and its recorded system calls are replayed
 * as in test_checkpoint_power.c. In each state the run can go on: its newest committed checkpoint opens, its
 * configuration and tokenizer are present and whole, and metrics.jsonl has every row up to the checkpoint's step. A
 * corpus that is prepared, and prepared again in its place, is whole or refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash_proof.h"
#include "elbo/corpus.h"
#include "base/files.h"
#include "checkpoint/checkpoint_contents.h"
#include "train/trainer_job.h"

enum { STEPS = 8, EVERY = 2 };

struct whole {                   /* files as the run leaves them */
    char *config[2], *tokenizer; /* config: as each part of the run uses it */
    size_t config_size[2], tokenizer_size;
};

static char *slurp(const char *folder, const char *name, size_t *size)
{
    char path[512];
    snprintf(path, sizeof path, "%.300s/%.100s", folder, name);
    return file_is_regular(path) ? temporary_read(path, size) : NULL;
}

static bool same(const char *folder, const char *name, const char *wanted, size_t size)
{
    size_t found = 0;
    char *bytes = slurp(folder, name, &found);
    bool good = bytes && found == size && !memcmp(bytes, wanted, size);
    free(bytes);
    return good;
}

/* Returns whether every row up to `step` is present, in order, one for each step. */
static bool rows_up_to(const char *run, uint64_t step)
{
    size_t size;
    char *text = slurp(run, "metrics.jsonl", &size), *at = text;
    uint64_t next = 1;
    while (at && next <= step) {
        char *end = strchr(at, '\n');
        json_t *row = end ? json_loadb(at, (size_t)(end - at), 0, NULL) : NULL;
        bool good = row && (uint64_t)json_integer_value(json_object_get(row, "step")) == next;
        json_decref(row);
        if (!good) break;
        next++;
        at = end + 1;
    }
    free(text);
    return next > step;
}

static const char *run_fault(void *context, const char *scratch, size_t marks)
{
    const struct whole *whole = context;
    static char text[1200];
    char run[320], folder[400];
    uint64_t *steps;
    size_t count;
    elbo_error error = {0};
    snprintf(run, sizeof run, "%s/run", scratch);
    snprintf(folder, sizeof folder, "%s/checkpoints", run);
    if (checkpoint_list(&steps, &count, folder, &error)) return "the checkpoints cannot be listed";
    free(steps);
    uint64_t promised = marks * STEPS / 2; /* each part of the run ends with a save */
    if (!count) return promised ? "no checkpoint is left" : NULL;
    struct checkpoint *checkpoint = NULL;
    struct warned warned = {0};
    if (checkpoint_open(&checkpoint, run, count_warning, &warned, &error) || warned.count) {
        snprintf(text, sizeof text, "%.1000s", warned.count ? warned.first : error.message);
        checkpoint_close(checkpoint);
        return text;
    }
    uint64_t step = checkpoint_step(checkpoint);
    checkpoint_close(checkpoint);
    if (step < promised) return "an old checkpoint opens";
    if (!same(run, "config.yaml", whole->config[0], whole->config_size[0]) &&
        !same(run, "config.yaml", whole->config[1], whole->config_size[1]))
        return "config.yaml is that of neither part of the run";
    if (!same(run, "tokenizer.json", whole->tokenizer, whole->tokenizer_size)) return "tokenizer.json is not whole";
    if (rows_up_to(run, step)) return NULL;
    snprintf(text, sizeof text, "metrics.jsonl lacks rows up to step %d", (int)step);
    return text;
}

static void record_run(struct crash_fixture *f, struct whole *whole)
{
    job_corpus(&f->folder, 60, 6);
    assert_int_equal(mkdir(f->live, 0700), 0);
    crash_begin(&f->log, f->live);
    for (size_t stop = STEPS / 2, part = 0; stop <= STEPS; stop += STEPS / 2, part++) {
        char after[64];
        snprintf(after, sizeof after, "--train.stop_after=%zu", stop);
        const char *const arguments[] = {
            "--train.steps=8", "--checkpoint.every=2", "--checkpoint.keep=2", "--threads=1", after, NULL};
        struct job job;
        job_open(&job, &f->folder, "live/run", arguments);
        if (trainer_run(job.trainer, &job.error)) fail_msg("%s", job.error.message);
        job_close(&job);
        crash_mark(&f->log);
        whole->config[part] = slurp(f->run, "config.yaml", &whole->config_size[part]);
        assert_non_null(whole->config[part]);
    }
    crash_end(&f->log);
    whole->tokenizer = slurp(f->run, "tokenizer.json", &whole->tokenizer_size);
    assert_non_null(whole->tokenizer);
}

static void a_run_goes_on(void **state)
{
    struct crash_fixture *f = *state;
    static struct crash_total total;
    struct whole whole = {0};
    record_run(f, &whole);
    crash_prove(f, "a run", run_fault, &whole, &total);
    /* One function writes every file, and test_checkpoint_power.c proves that function. Here the question is which
     * files the run syncs, and when. */
    crash_report(&total, "run", "a later sync of the folder makes it good, or test_checkpoint_power misses it");
    assert_int_equal(total.bad, 0);
    bool metrics = false;
    for (size_t i = 0; i < total.sites; i++)
        metrics |= strstr(total.site[i].text, "fsync /run/metrics.jsonl ") && total.site[i].noticed;
    assert_true(metrics);
    free(whole.config[0]);
    free(whole.config[1]);
    free(whole.tokenizer);
}

/* ---- corpora ---- */

struct corpora {
    char hash[2][17]; /* hashes of the first text and of the second */
};

static void prepare(const struct crash_fixture *f, const char *text)
{
    char input[512], out[512];
    elbo_error error = {0};
    temporary_write(temporary_path(input, &f->folder, "text"), text, strlen(text));
    snprintf(out, sizeof out, "%s/corpus", f->live);
    const char *inputs = input;
    struct elbo_prepare_options options = {
        .inputs = &inputs, .input_count = 1, .out = out, .tokenizer_kind = ELBO_TOKENIZER_WORD, .tokenizer_size = 100};
    struct elbo_prepare_report report;
    if (elbo_prepare(&options, &report, NULL, NULL, &error)) fail_msg("%s", error.message);
}

static const char *corpus_fault(void *context, const char *scratch, size_t marks)
{
    const struct corpora *corpora = context;
    char folder[320];
    struct elbo_corpus *corpus;
    elbo_error error;
    snprintf(folder, sizeof folder, "%s/corpus", scratch);
    if (elbo_corpus_open(&corpus, folder, &error)) return marks == 1 ? "the corpus is not there" : NULL;
    bool first = !strcmp(elbo_corpus_hash(corpus), corpora->hash[0]);
    bool second = !strcmp(elbo_corpus_hash(corpus), corpora->hash[1]);
    elbo_corpus_close(corpus);
    if (!first && !second) return "a torn corpus opens";
    return marks == 1 && !second ? "the old corpus opens" : NULL;
}

static void hash_of(char out[17], const struct crash_fixture *f)
{
    char folder[320];
    struct elbo_corpus *corpus;
    elbo_error error;
    snprintf(folder, sizeof folder, "%s/corpus", f->live);
    assert_int_equal(elbo_corpus_open(&corpus, folder, &error), ELBO_OK);
    strcpy(out, elbo_corpus_hash(corpus));
    elbo_corpus_close(corpus);
}

static void a_corpus_is_whole_or_refused(void **state)
{
    struct crash_fixture *f = *state;
    static struct crash_total total;
    struct corpora corpora;
    for (int again = 0; again < 2; again++) {
        temporary_remove(f->live);
        assert_int_equal(mkdir(f->live, 0700), 0);
        prepare(f, "a b c\nd e f\n");
        hash_of(corpora.hash[0], f);
        if (!again) temporary_remove(f->live), mkdir(f->live, 0700);
        crash_begin(&f->log, f->live);
        prepare(f, "g h i\nk l\nm\n");
        crash_mark(&f->log);
        crash_end(&f->log);
        hash_of(corpora.hash[1], f);
        crash_prove(f, again ? "a corpus in the place of another" : "a corpus", corpus_fault, &corpora, &total);
    }
    crash_report(&total, "corpus", "the sync after the manifest makes it good");
    assert_int_equal(total.bad, 0);
    size_t noticed = 0;
    for (size_t i = 0; i < total.sites; i++) noticed += total.site[i].noticed;
    assert_true(noticed > 0); /* the test notices failures */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_run_goes_on, crash_setup, crash_teardown),
        cmocka_unit_test_setup_teardown(a_corpus_is_whole_or_refused, crash_setup, crash_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
