/* elbo bench collectives: times the sum over ranks for buffers of 4 KiB to 64 MiB, once in the tree's order, as
 * training adds gradients, and once by the collectives' own sum. The smallest size gives the latency and the largest
 * size gives the bandwidth that `elbo plan` asks for. With parallel.always a single rank sends nothing and measures the
 * cost of the calls. */
#include "base/json.h"
#include "base/clock.h"
#include "cli/bench.h"
#include "graph/parameters.h"
#include "train/step_options.h"
#include "train/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 2, MOST_TURNS = 200, SMALLEST = 1 << 12, LARGEST = 1 << 26, SIZES = 8 };

struct measured {
    size_t bytes;
    double ordered, any; /* seconds: median over the turns of the slowest rank's time */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Starts all ranks together behind a barrier and returns the slowest rank's time. */
static elbo_status time_one(double *seconds, struct team *team, struct backend *backend, struct reduction *r,
                            elbo_error *error)
{
    struct collectives *c = team->collectives;
    double mine = 0, *all = malloc(c->ranks * sizeof *all);
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory for the times of %zu ranks", c->ranks);
    elbo_status status = collectives_gather(c, &mine, 0, all, error);
    double began = clock_seconds();
    reduction_lane(r, reduction_own(r).first);
    if (!status) status = reduction_finish(r, error);
    backend->stream.mark(backend, 0);
    if (!status) status = backend->stream.wait(backend, 0, error);
    mine = clock_seconds() - began;
    if (!status) status = collectives_gather(c, &mine, sizeof mine, all, error);
    *seconds = 0;
    for (size_t k = 0; k < c->ranks && !status; k++) *seconds = fmax(*seconds, all[k]);
    free(all);
    return status;
}

static elbo_status measure(double *median, struct team *team, struct backend *backend, float *arena, size_t bytes,
                           bool ordered, size_t bucket, elbo_error *error)
{
    struct buckets buckets;
    struct reduction *r = NULL;
    ELBO_TRY(buckets_create_plain(&buckets, bytes / sizeof(float), bucket, error));
    struct reduction_options o = {.backend = backend,
                                  .collectives = team->collectives,
                                  .arena = arena,
                                  .elements = bytes / sizeof(float),
                                  .lanes = team->ranks,
                                  .ordered = ordered,
                                  .buckets = &buckets};
    double times[MOST_TURNS], unused;
    int turns = bytes > LARGEST / 8 ? 10 : bytes > LARGEST / 256 ? 40 : MOST_TURNS;
    elbo_status status = reduction_create(&r, &o, error);
    for (int i = 0; i < WARM_UP && !status; i++) status = time_one(&unused, team, backend, r, error);
    for (int i = 0; i < turns && !status; i++) status = time_one(&times[i], team, backend, r, error);
    reduction_free(r);
    buckets_free(&buckets);
    if (status) return status;
    qsort(times, (size_t)turns, sizeof *times, by_value);
    *median = times[turns / 2];
    return ELBO_OK;
}

static elbo_status report(const struct bench *b, const struct team *team, const struct measured *m, elbo_error *error)
{
    bool alone = team->ranks < 2;
    double ranks = (double)team->ranks, wire = 2 * (ranks - 1) / ranks, messages = 2 * (ranks - 1);
    double latency = alone ? 0 : m[0].ordered / messages * 1e6,
           bandwidth = wire * (double)m[SIZES - 1].bytes / m[SIZES - 1].ordered / 1e9;
    if (b->cli->config.json) {
        json_t *rows = json_array();
        for (size_t i = 0; i < SIZES; i++)
            json_array_append_new(rows, json_pack("{s:I, s:f, s:f}", "bytes", (json_int_t)m[i].bytes, "ordered_seconds",
                                                  m[i].ordered, "any_order_seconds", m[i].any));
        json_t *all = json_pack("{s:s, s:s, s:I, s:o*, s:o*, s:o}", "through", team->collectives->name, "device",
                                b->backend->detail, "ranks", (json_int_t)team->ranks, "latency_us",
                                alone ? NULL : json_real(latency), "bandwidth_gbs", alone ? NULL : json_real(bandwidth),
                                "sizes", rows);
        return json_print(stdout, all, JSON_INDENT(2) | JSON_REAL_PRECISION(6), "the collectives' figures", error);
    }
    printf("%zu rank%s through %s (%s)\n%12s %14s %14s %12s\n", team->ranks, &"s"[alone], team -> collectives -> name,
           b -> backend -> detail, "bytes", "in order, ms", "any order, ms", "GB/s sent");
    for (size_t i = 0; i < SIZES; i++)
        printf("%12zu %14.3f %14.3f %12.3f\n", m[i].bytes, m[i].ordered * 1e3, m[i].any * 1e3,
               wire * (double)m[i].bytes / m[i].ordered / 1e9);
    if (!alone) printf("--parallel.bandwidth=%.3g --parallel.latency=%.3g\n", bandwidth, latency);
    return ELBO_OK;
}

static elbo_status run(struct bench *b, struct team *team, elbo_error *error)
{
    const struct elbo_config *c = &b->cli->config;
    struct measured m[SIZES] = {{0}};
    float *arena = NULL;
    ELBO_TRY(team_detect(team, c, &b->backend, error));
    ELBO_TRY(team_join(team, c, b->backend, error));
    if (!team->collectives)
        return elbo_fail(
            error, ELBO_USAGE,
            "collectives need several ranks: mpirun -n 4 elbo bench collectives, or elbo launch -n 4 -- bench "
            "collectives on GPUs; --parallel.always=1 measures what the calls of a single one cost");
    elbo_status status = b->backend->memory.allocate(b->backend, (void **)&arena, LARGEST, "what is exchanged", error);
    status = collectives_agree(team->collectives, status, error);
    for (size_t i = 0; i < SIZES && !status; i++) {
        m[i].bytes = (size_t)SMALLEST << (2 * i);
        if (m[i].bytes > LARGEST) m[i].bytes = LARGEST;
        status = measure(&m[i].ordered, team, b->backend, arena, m[i].bytes, true,
                         step_options_of(c, &c->model, 1, 0).sums.bucket, error);
        if (!status) status = measure(&m[i].any, team, b->backend, arena, m[i].bytes, false, 0, error);
    }
    if (arena && !status) b->backend->memory.release(b->backend, arena);
    if (status || team->rank) return status;
    return report(b, team, m, error);
}

elbo_status bench_collectives(struct cli *cli, elbo_error *error)
{
    struct bench b = {.cli = cli};
    struct team team = {0};
    elbo_status status = run(&b, &team, error);
    team_close(&team, status);
    if (b.backend && !(status && team.collectives)) b.backend->destroy(b.backend);
    return status;
}
