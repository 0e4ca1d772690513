/* Ranks check each other, through collectives whose other rank answers as the test wants: a rank with other weights is
 * named with the steps in between, another device is refused without asking it, and ranks of one host share its
 * processors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "device/backends.h"
#include "trainer_job.h"

#include <sched.h>

/* Two ranks; the second repeats the first one's bytes, but for one byte. */
struct echo {
    struct collectives table;
    char posted[1 << 12];
    size_t bytes;
    size_t other; /* index of the byte that differs, from 1; 0: none */
};

static elbo_status post(struct collectives *c, unsigned which, const void *mine, size_t bytes, elbo_error *error)
{
    struct echo *e = (struct echo *)c;
    (void)which;
    (void)error;
    assert_true(bytes <= sizeof e->posted);
    memcpy(e->posted, mine, bytes);
    e->bytes = bytes;
    return ELBO_OK;
}

static elbo_status collect(struct collectives *c, unsigned which, void *all, elbo_error *error)
{
    struct echo *e = (struct echo *)c;
    (void)which;
    (void)error;
    for (size_t r = 0; r < c->ranks; r++) memcpy((char *)all + r * e->bytes, e->posted, e->bytes);
    if (e->other && e->bytes != sizeof(elbo_error)) ((char *)all)[e->bytes + e->other - 1] ^= 1;
    return ELBO_OK;
}

static struct echo echo_of(size_t ranks)
{
    return (struct echo){.table = {.name = "echo", .ranks = ranks, .post = post, .collect = collect}};
}

static void weights_that_differ_are_named_with_their_steps(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    struct job *job = calloc(1, sizeof *job);
    job_corpus(&folder, 60, 9);
    job_open(job, &folder, "run", NULL);
    const struct model *m = &job->trainer->step.model;
    static struct echo echo;
    echo = echo_of(2);
    struct team team = {.collectives = &echo.table, .ranks = 2};
    if (team_check_weights(&team, m, 5, &job->error)) fail_msg("%s", job->error.message);
    assert_int_equal(team.checked, 5);
    echo.other = 1;
    assert_int_equal(team_check_weights(&team, m, 9, &job->error), ELBO_PEER);
    assert_non_null(strstr(job->error.message, "rank 1 no longer has rank 0's weights"));
    assert_non_null(strstr(job->error.message, "differs at step 9, and did not at step 5"));
    assert_int_equal(team.checked, 5);
    job_close(job);
    free(job);
    temporary_remove(folder.path);
}

static size_t no_choices(struct backend *b, void *to)
{
    (void)b;
    (void)to;
    fail_msg("a device has no instructions to compare");
    return 0;
}

static void likeness(void **state)
{
    (void)state;
    struct elbo_config config = {.seed = 0};
    struct options *options;
    elbo_error error = {0};
    if (options_open(&options, elbo_config_table(), &config, &error)) fail_msg("%s", error.message);
    static struct backend device;
    device.name = "a device";
    device.memory.separate = true;
    device.device.save_choices = no_choices;
    static struct echo echo;
    static const char *const words[] = {"other options", "another corpus", "another kind of device",
                                        "other instructions"};
    const struct team_likeness of = {options, "0123", "data", &device};
    for (size_t i = 0; i <= 4; i++) {
        echo = echo_of(2);
        echo.other = i ? (i - 1) * 8 + 1 : 0;
        struct team team = {.collectives = &echo.table, .ranks = 2};
        elbo_status status = team_compare(&team, &of, &error);
        assert_int_equal(status, !i ? ELBO_OK : i == 2 ? ELBO_INPUT : ELBO_USAGE);
        if (i && !strstr(error.message, words[i - 1])) fail_msg("%s", error.message);
    }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    echo = echo_of((size_t)1 << 58); /* more bytes than there is memory */
    struct team team = {.collectives = &echo.table, .ranks = echo.table.ranks};
    assert_int_equal(team_compare(&team, &of, &error), ELBO_MEMORY);
    assert_non_null(strstr(error.message, "no memory to compare"));
#endif
    options_free(options);
}

/* Ranks on GPUs that were not started by MPI meet over TCP, or stop. */
static void ranks_on_gpus_meet_first(void **state)
{
    (void)state;
    struct elbo_config config = {.parallel = {.timeout = 1}};
    static struct backend device = {.name = "cuda"};
    elbo_error error = {0};
    if (!device_of(&device) || !device_of(&device)->join) skip();
    struct team team = {.ranks = 2, .rank = 1, .who = {.world = 2, .rank = 1, .source = RANKS_ELBO}};
    assert_int_equal(team_join(&team, &config, &device, &error), ELBO_USAGE);
    assert_non_null(strstr(error.message, "does not say where rank 0 runs"));
    assert_null(team.collectives);
}

static size_t threads(void)
{
    DIR *list = opendir("/proc/self/task");
    size_t count = 0;
    while (readdir(list)) count++;
    closedir(list);
    return count - 2;
}

static void ranks_of_a_host_share_its_processors(void **state)
{
    (void)state;
    struct elbo_config config = {.seed = 0};
    struct options *options;
    elbo_error error = {0};
    cpu_set_t mine;
    long all = sysconf(_SC_NPROCESSORS_ONLN);
    if (all < 2 || sched_getaffinity(0, sizeof mine, &mine) || CPU_COUNT(&mine) < all) skip();
    if (options_open(&options, elbo_config_table(), &config, &error)) fail_msg("%s", error.message);
    const char *const given[] = {"--parallel.ranks=2", "--parallel.rank=0", "--device=cpu"};
    for (size_t i = 0; i < 3; i++)
        if (options_read_argument(options, given[i], COMMAND_TRAIN, &error)) fail_msg("%s", error.message);
    size_t before = threads();
    struct team team = {.ranks = 0};
    struct backend *backend;
    if (team_detect(&team, &config, &backend, &error)) fail_msg("%s", error.message);
    assert_int_equal(team.ranks, 2);
    assert_int_equal(threads() - before + 1, all / 2); /* the calling thread computes too */
    backend->destroy(backend);
    options_free(options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_that_differ_are_named_with_their_steps),
                                       cmocka_unit_test(likeness), cmocka_unit_test(ranks_on_gpus_meet_first),
                                       cmocka_unit_test(ranks_of_a_host_share_its_processors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
