/* The reports of a training: lines and rows of metrics.jsonl agree; the best checkpoint is the best by each of the
 * figures; and a training that ends leaves no file, no thread and no memory behind, however many rows it wrote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "trainer_job.h"

#include "base/clock.h"
#include "base/json.h"
#include "train/report.h"
#include "train/step_options.h"

#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static struct temporary folder;

/* Trains to the end in folder/<run> and returns the printed text, which the caller frees. */
static char *train(const char *run, const char *const *arguments, uint64_t *best)
{
    struct job *job = calloc(1, sizeof *job);
    job_open(job, &folder, run, arguments);
    if (trainer_run(job->trainer, &job->error)) fail_msg("%s", job->error.message);
    if (best) *best = job->trainer->state.best.step;
    char *said = strdup(job->said);
    job_close(job);
    free(job);
    return said;
}

static json_t *rows(const char *run)
{
    char path[512], name[64];
    size_t size;
    snprintf(name, sizeof name, "%s/metrics.jsonl", run);
    char *text = temporary_read(temporary_path(path, &folder, name), &size);
    json_t *all = json_array();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        json_array_append_new(all, row);
    }
    free(text);
    return all;
}

static double figure(const json_t *row, const char *name)
{
    const json_t *found = json_object_get(row, name);
    assert_true(json_is_number(found));
    return json_number_value(found);
}

static void lines_and_rows_agree(void **state)
{
    (void)state;
    char *said = train("told", (const char *const[]){"--log.every=2", "--train.steps=7", NULL}, NULL);
    json_t *all = rows("told"), *row;
    size_t i, told = 0;
    const char *at = said;
    static const unsigned steps[] = {2, 4, 6, 7};
    json_array_foreach(all, i, row)
    {
        unsigned step, of, active, width, minutes, seconds;
        double loss, reconstruction, kl, beta, norm, rate;
        int memory;
        at = strstr(at, "step ");
        assert_non_null(at);
        int found = sscanf(
            at,
            "step %u/%u loss %lf reconstruction %lf kl %lf beta %lf active %u/%u |g| %lf %lfk tok/s %d MiB %um%us left",
            &step, &of, &loss, &reconstruction, &kl, &beta, &active, &width, &norm, &rate, &memory, &minutes, &seconds);
        assert_int_equal(found, 13);
        assert_int_equal(step, steps[told++]);
        assert_true(of == 7 && width == 3 && memory > 0);
        assert_int_equal((unsigned)figure(row, "step"), step);
        assert_int_equal((unsigned)figure(row, "active_units"), active);
        const struct {
            const char *name;
            double said;
        } wanted[] = {
            {"loss", loss}, {"reconstruction", reconstruction}, {"kl", kl}, {"beta", beta}, {"gradient_norm", norm}};
        for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++)
            assert_float_equal(figure(row, wanted[k].name), wanted[k].said, 0.00051);
        const json_t *wall = json_object_get(row, "wall"), *dims = json_object_get(row, "kl_per_dim");
        assert_float_equal(figure(wall, "tokens_per_second") / 1e3, rate, 0.051);
        assert_float_equal(figure(wall, "memory_mib"), memory, 0.51);
        assert_true(figure(wall, "seconds") > 0);
        assert_null(json_object_get(wall, "slowest_rank"));
        double sum = 0;
        for (size_t z = 0; z < 3; z++) sum += json_number_value(json_array_get(dims, z));
        assert_float_equal(sum, figure(row, "kl"), 1e-3);
        assert_true(figure(row, "tokens") > 0 && figure(row, "sentences") > 0 &&
                    json_is_false(json_object_get(row, "skipped")));
        at++;
    }
    assert_int_equal(told, 4);
    assert_null(strstr(said, "sums over"));
    json_decref(all);
    free(said);
}

static void the_best_by_each_figure(void **state)
{
    (void)state;
    static const struct {
        const char *name, *figure;
        bool more;
    } kinds[] = {{"neg_elbo", "neg_elbo", false},
                 {"reconstruction", "reconstruction", false},
                 {"own_z_gain", "own_z_gain", true},
                 {"active_units", "active_units", true}};
    char valid[600];
    snprintf(valid, sizeof valid, "--data.valid=%s/corpus", folder.path);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        char best[64], run[32];
        uint64_t step = 0, wanted = 0;
        double reached = 0;
        snprintf(best, sizeof best, "--checkpoint.best=%s", kinds[k].name);
        snprintf(run, sizeof run, "best-%zu", k);
        char *said = train(run,
                           (const char *const[]){valid, best, "--train.eval_every=1", "--train.steps=12",
                                                 "--optimizer.learning_rate=0.3", "--objective.beta=0.01", NULL},
                           &step);
        json_t *all = rows(run), *row;
        size_t i, validations = 0, bettered = 0;
        json_array_foreach(all, i, row)
        {
            const json_t *figures = json_object_get(row, "valid");
            if (!figures) continue;
            double reached_now = figure(figures, kinds[k].figure);
            bool better = !wanted || (kinds[k].more ? reached_now > reached : reached_now < reached);
            if (better) wanted = (uint64_t)figure(row, "step"), reached = reached_now;
            assert_int_equal(json_is_true(json_object_get(figures, "best")), better);
            validations++;
            bettered += better;
        }
        assert_int_equal(validations, 12);
        assert_true(bettered < validations);
        assert_int_equal(step, wanted);
        json_decref(all);
        free(said);
    }
}

static size_t entries(const char *path)
{
    DIR *list = opendir(path);
    size_t count = 0;
    while (readdir(list)) count++;
    closedir(list);
    return count;
}

/* A checkpoint holds exactly these files; the run's tokenizer is written once. */
static void check_files(const char *run, int step, ino_t *tokenizer)
{
    static const char *const names[] = {
        "config.yaml",         "manifest.json", "model.safetensors", "tokenizer.json", "state/optimizer.safetensors",
        "state/algorithms.bin"};
    char path[512], name[128];
    struct stat about;
    snprintf(name, sizeof name, "%s/checkpoints/step-%08d", run, step);
    assert_int_equal(entries(temporary_path(path, &folder, name)), 2 + 5);
    strcat(name, "/state");
    assert_int_equal(entries(temporary_path(path, &folder, name)), 2 + 2);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(name, sizeof name, "%s/checkpoints/step-%08d/%s", run, step, names[i]);
        assert_int_equal(stat(temporary_path(path, &folder, name), &about), 0);
        assert_true(about.st_size > 0);
    }
    snprintf(name, sizeof name, "%s/tokenizer.json", run);
    assert_int_equal(stat(temporary_path(path, &folder, name), &about), 0);
    assert_true(!*tokenizer || *tokenizer == about.st_ino);
    *tokenizer = about.st_ino;
}

static void nothing_is_left_behind(void **state)
{
    (void)state;
    size_t files = entries("/proc/self/fd"), threads = entries("/proc/self/task"), before = 0;
    ino_t tokenizer = 0;
    (void)before;
    for (size_t i = 0; i < 8; i++) {
        char steps[32], run[32];
        if (!(i % 2)) tokenizer = 0;
        snprintf(steps, sizeof steps, "--train.steps=%d", i % 2 ? 12 : 8);
        snprintf(run, sizeof run, "left-%zu", i / 2);
        char *said = train(run, (const char *const[]){steps, "--checkpoint.every=3", NULL}, NULL);
        assert_int_equal(i % 2, !!strstr(said, "resuming from"));
        check_files(run, i % 2 ? 12 : 8, &tokenizer);
        free(said);
        assert_int_equal(entries("/proc/self/fd"), files);
        assert_int_equal(entries("/proc/self/task"), threads);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        size_t now = mallinfo2().uordblks;
        if (i % 2 && i > 2) assert_int_equal(now, before); /* the first runs fill the C library's caches */
        if (i % 2) before = now;
#endif
    }
}

/* A skipped update is reported at any step, a good update at its turn; a skipped update moves no running statistics. */
static void a_skipped_update_is_told(void **state)
{
    (void)state;
    struct job *job = calloc(1, sizeof *job);
    job_open(job, &folder, "skipped",
             (const char *const[]){"--train.skip=3", "--log.every=4", "--checkpoint.every=1", NULL});
    struct trainer *t = job->trainer;
    if (trainer_run(t, &job->error)) fail_msg("%s", job->error.message);
    const char *skipped = strstr(job->said, "step 3/8"), *words = strstr(job->said, "(update skipped)");
    assert_true(skipped && words > skipped && words < strchr(skipped, '\n'));
    assert_null(strstr(words + 1, "(update skipped)"));
    assert_float_equal(t->variance[t->model.latent.width], 1 - pow(0.98, 7), 1e-9);
    assert_int_equal(t->state.counters.bad, 0);
    assert_int_equal(t->saved_step, 8);
    assert_true(t->clock.step_began <= clock_seconds());
    json_t *all = rows("skipped"), *row;
    static const unsigned steps[] = {3, 4, 8};
    size_t i;
    assert_int_equal(json_array_size(all), 3);
    json_array_foreach(all, i, row)
    {
        assert_int_equal((unsigned)figure(row, "step"), steps[i]);
        assert_int_equal(json_is_true(json_object_get(row, "skipped")), !i);
        assert_true(figure(json_object_get(row, "wall"), "tokens_per_second") > 0);
    }
    json_decref(all);
    job_close(job);
    free(job);
}

/* A row counts the tokens and words of its step, as a loader counts them that begins where the trainer did. */
static void a_row_counts_its_step(void **state)
{
    (void)state;
    struct job *job = calloc(1, sizeof *job);
    job_open(job, &folder, "counted", NULL);
    if (trainer_run(job->trainer, &job->error)) fail_msg("%s", job->error.message);
    struct slot_options options = slot_options_of(&job->config);
    struct slot_loader *loader;
    const struct slot_batch *batch;
    if (slot_loader_open(&loader, job->trainer->train, &options, &job->error)) fail_msg("%s", job->error.message);
    json_t *all = rows("counted"), *row;
    size_t i;
    assert_int_equal(json_array_size(all), 8);
    json_array_foreach(all, i, row)
    {
        size_t tokens = 0, words = 0;
        if (slot_loader_next(loader, &batch, &job->error)) fail_msg("%s", job->error.message);
        for (size_t s = 0; s < batch->count; s++) {
            tokens += batch->slots[s].decoder.tokens;
            words += batch->slots[s].words;
        }
        assert_int_equal((size_t)figure(row, "tokens"), tokens);
        assert_int_equal((size_t)figure(row, "words"), words);
    }
    json_decref(all);
    slot_loader_close(loader);
    job_close(job);
    free(job);
}

/* A row names the slowest rank; the console names it if it took half as long again as the median rank. */
static void who_is_slow_is_told(void **state)
{
    (void)state;
    struct job *job = calloc(1, sizeof *job);
    job_open(job, &folder, "slow", (const char *const[]){"--log.every=100", NULL});
    struct trainer *t = job->trainer;
    if (trainer_run(t, &job->error)) fail_msg("%s", job->error.message);
    static const double over[] = {1, 1.4, 1.5, 2};
    static struct collectives ranks;
    for (size_t i = 0; i < 4; i++) {
        *job->said = 0;
        t->done.news = (struct team_news){.straggler = i + 1, .straggles = over[i]};
        t->team.collectives = &ranks;
        report_step(t);
        t->team.collectives = NULL;
        char wanted[96];
        snprintf(wanted, sizeof wanted, "rank %zu took %.1f times as long for its work as the rank in the middle",
                 i + 1, over[i]);
        assert_int_equal(!!strstr(job->said, "times as long"), i > 1);
        assert_int_equal(!!strstr(job->said, wanted), i > 1);
    }
    job_close(job);
    free(job);
    json_t *all = rows("slow");
    assert_int_equal(json_array_size(all), 1 + 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *wall = json_object_get(json_array_get(all, 1 + i), "wall");
        assert_true(figure(wall, "slowest_rank") == (double)i + 1 && figure(wall, "slowest_over_middle") == over[i]);
    }
    json_decref(all);
}

static size_t allocations, failing;

static void *starving_malloc(size_t size)
{
    return ++allocations == failing ? NULL : malloc(size);
}

/* If an allocation fails, a row is lost as a whole and reported; no row has a part of its figures. */
static void a_row_is_whole_or_lost(void **state)
{
    (void)state;
    struct job *job = calloc(1, sizeof *job);
    job_open(job, &folder, "starving", (const char *const[]){"--log.every=100", NULL});
    struct trainer *t = job->trainer;
    if (trainer_run(t, &job->error)) fail_msg("%s", job->error.message);
    json_malloc_t old_malloc;
    json_free_t old_free;
    json_get_alloc_funcs(&old_malloc, &old_free);
    size_t lost = 0;
    for (failing = 1;; failing++) {
        allocations = 0;
        t->row_lost = false;
        *job->said = 0;
        json_set_alloc_funcs(starving_malloc, free);
        report_step(t);
        json_set_alloc_funcs(old_malloc, old_free);
        assert_int_equal(!!strstr(job->said, "metrics of step 8 are lost"), t->row_lost);
        lost += t->row_lost;
        if (allocations < failing) break;
    }
    job_close(job);
    free(job);
    json_t *all = rows("starving");
    assert_true(lost > 20);
    assert_int_equal(json_array_size(all), 1 + failing - lost);
    for (size_t i = 1; i < json_array_size(all); i++) {
        const json_t *first = json_array_get(all, 0), *row = json_array_get(all, i);
        assert_int_equal(json_object_size(row), json_object_size(first));
        assert_int_equal(json_array_size(json_object_get(row, "kl_per_dim")), 3);
    }
    json_decref(all);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* An evaluation that finds no memory is reported, and ends nothing. */
static void an_evaluation_without_memory_is_told(void **state)
{
    (void)state;
    char valid[600];
    snprintf(valid, sizeof valid, "--data.valid=%s/corpus", folder.path);
    struct job *job = calloc(1, sizeof *job);
    job_open(job, &folder, "large", (const char *const[]){valid, NULL});
    struct trainer *t = job->trainer;
    if (trainer_run(t, &job->error)) fail_msg("%s", job->error.message);
    struct rlimit before, less;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    less = before;
    less.rlim_cur = (rlim_t)4 << 30;
    job->config.train.slot_tokens = 1 << 29;
    assert_int_equal(setrlimit(RLIMIT_AS, &less), 0);
    elbo_status status = report_validation(t, &job->error);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    if (status) fail_msg("%s", job->error.message);
    assert_non_null(strstr(job->said, "step 8 is not evaluated: "));
    job_close(job);
    free(job);
}
#endif

/* Rows go on where the last process ended; rows of steps that are not saved are removed. */
static void rows_go_on(void **state)
{
    (void)state;
    free(train("on", (const char *const[]){"--train.steps=5", NULL}, NULL));
    free(train("on", NULL, NULL));
    json_t *all = rows("on"), *row;
    size_t i;
    assert_int_equal(json_array_size(all), 8);
    json_array_foreach(all, i, row) assert_int_equal((size_t)figure(row, "step"), i + 1);
    json_decref(all);
}

/* A run that went back to an earlier step goes on, although that step's own checkpoint is gone. */
static void back_to_a_step_that_has_gone(void **state)
{
    (void)state;
    static const char *const back[] = {"--checkpoint.every=2", "--checkpoint.keep=9", "--rewind=2", NULL};
    char path[512];
    free(train("back", (const char *const[]){back[0], back[1], NULL}, NULL));
    char *said = train("back", back, NULL);
    assert_non_null(strstr(said, "back to step 2: 3 later checkpoints are put aside"));
    free(said);
    temporary_remove(temporary_path(path, &folder, "back/checkpoints/step-00000002"));
    said = train("back", back, NULL);
    assert_non_null(strstr(said, "went back to step 2 before"));
    assert_non_null(strstr(said, "nothing to do"));
    free(said);
}

/* The program's own pread records the largest number of bytes requested. */
static size_t asked;

ssize_t pread(int file, void *to, size_t size, off_t at)
{
    if (size > asked) asked = size;
    return syscall(SYS_pread64, file, to, size, at);
}

/* A lock file of any length names its owner, and is read into 128 bytes, the last of which ends the text. */
static void who_holds_a_run_is_told(void **state)
{
    (void)state;
    struct job *job = calloc(1, sizeof *job);
    char path[512], run[512], owner[400];
    job_open(job, &folder, "held", NULL);
    int size = snprintf(owner, sizeof owner, "123 host %0300d\n", 0);
    temporary_write(temporary_path(path, &folder, "held/lock"), owner, (size_t)size);
    struct run_lock lock;
    asked = 0;
    assert_int_equal(run_directory_lock(&lock, temporary_path(run, &folder, "held"), &job->error), ELBO_BUSY);
    assert_non_null(strstr(job->error.message, "in use by another process (process 123 on host)"));
    assert_true(asked > 0 && asked < 128);
    job_close(job);
    free(job);
}

static void raise_at_three(void *context, const char *text)
{
    if (!strncmp(text, "step 3/", 7)) kill(getpid(), SIGTERM);
    job_line(context, text);
}

/* A signal ends a run with no step under way, also on a backend that has launched steps ahead, at the first step and
 * later. */
static void a_signal_finishes_what_is_under_way(void **state)
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        struct job *job = calloc(1, sizeof *job);
        job_open(job, &folder, later ? "signal-later" : "signal", NULL);
        struct trainer *t = job->trainer;
        t->backend->stream.ahead = 1;
        if (t->backend->memory.allocate_host(t->backend, (void **)&t->launched[1].read,
                                             step_read_floats(&t->step) * sizeof(float), &job->error))
            fail_msg("%s", job->error.message);
        if (later)
            t->report.line = raise_at_three;
        else
            kill(getpid(), SIGTERM);
        assert_int_equal(trainer_run(t, &job->error), ELBO_INTERRUPTED);
        uint64_t draws = t->state.counters.draws;
        assert_true(later ? draws >= 4 && draws < 8 : draws == 1);
        assert_int_equal(t->done.step, draws);
        assert_int_equal(t->saved_step, draws);
        job_close(job);
        free(job);
    }
}

/* Sentences that are too long for data.max_length are left out and reported. */
static void long_sentences_are_left_out(void **state)
{
    (void)state;
    char *said = train("short", (const char *const[]){"--data.too_long=skip", "--data.max_length=5", NULL}, NULL);
    assert_non_null(strstr(said, "are longer than data.max_length = 5 tokens and are left out"));
    free(said);
}

/* An error between two steps saves the state of the last update, unless it is saved already. */
static void an_error_takes_no_steps_along(void **state)
{
    (void)state;
    for (int saved = 0; saved < 2; saved++) {
        struct temporary own = temporary_open();
        struct job *job = calloc(1, sizeof *job);
        char path[512];
        job_corpus(&own, 60, 9);
        job_open(job, &own, "run",
                 (const char *const[]){saved ? "--checkpoint.every=1" : "--checkpoint.every=0", "--train.stop_after=4",
                                       NULL});
        struct trainer *t = job->trainer;
        if (trainer_run(t, &job->error)) fail_msg("%s", job->error.message);
        job->config.train.stop_after = 0;
        assert_int_equal(truncate(temporary_path(path, &own, "corpus/corpus.bin"), 100), 0);
        elbo_status status = trainer_run(t, &job->error);
        assert_true(status == ELBO_IO || status == ELBO_INPUT);
        uint64_t draws = t->state.counters.draws; /* the loader may be a step ahead */
        assert_true(draws > 4 && draws < 8);
        assert_int_equal(!strstr(job->error.message, " is saved in "), saved);
        job_close(job);
        free(job);
        temporary_remove(own.path);
    }
}

static int begin(void **state)
{
    (void)state;
    folder = temporary_open();
    job_corpus(&folder, 60, 9);
    return 0;
}

static int end(void **state)
{
    (void)state;
    temporary_remove(folder.path);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    if (!getenv("GLIBC_TUNABLES")) { /* runs without the caches that count freed blocks as in use */
        setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
        execv("/proc/self/exe", argv);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_rows_agree),
        cmocka_unit_test(the_best_by_each_figure),
        cmocka_unit_test(a_skipped_update_is_told),
        cmocka_unit_test(a_row_counts_its_step),
        cmocka_unit_test(who_is_slow_is_told),
        cmocka_unit_test(a_row_is_whole_or_lost),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(an_evaluation_without_memory_is_told),
#endif
        cmocka_unit_test(rows_go_on),
        cmocka_unit_test(back_to_a_step_that_has_gone),
        cmocka_unit_test(who_holds_a_run_is_told),
        cmocka_unit_test(a_signal_finishes_what_is_under_way),
        cmocka_unit_test(long_sentences_are_left_out),
        cmocka_unit_test(an_error_takes_no_steps_along),
        cmocka_unit_test(nothing_is_left_behind)
    };
    return cmocka_run_group_tests(tests, begin, end);
}
