/* What a training tells: lines and rows of metrics.jsonl say the same; the best checkpoint is the best by each of the
 * figures; and a training that ends leaves no file, no thread and no memory behind, however many rows it wrote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "trainer_job.h"

#include "base/json.h"

#include <malloc.h>
#include <math.h>

static struct temporary folder;

/* Trains to the end in folder/<run>; what was said is the caller's to free. */
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

/* A checkpoint holds these files and no other; the run's tokenizer is written once. */
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
        if (i % 2 && i > 2) assert_int_equal(now, before); /* the first ones leave what the C library keeps */
        if (i % 2) before = now;
#endif
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
    if (!getenv("GLIBC_TUNABLES")) { /* without the caches that count freed blocks as in use */
        setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
        execv("/proc/self/exe", argv);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines_and_rows_agree),
                                       cmocka_unit_test(the_best_by_each_figure),
                                       cmocka_unit_test(nothing_is_left_behind)};
    return cmocka_run_group_tests(tests, begin, end);
}
