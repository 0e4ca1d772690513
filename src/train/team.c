#include "train/team.h"
#include "base/checked.h"
#include "base/log.h"
#include "device/backends.h"
#include "job/rendezvous.h"
#include "train/report.h"
#include "train/state.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* What a rank says of a step. */
struct note {
    int32_t signal; /* that came to it, or 0            */
    uint32_t unused;
    double seconds; /* of its own work: without waiting */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t team_lanes(const struct elbo_config *c, size_t ranks)
{
    if (c->determinism != DETERMINISM_WORLD_INVARIANT) return ranks;
    return c->parallel.lanes ? c->parallel.lanes : least(8, c->train.slots);
}

bool team_ordered(const struct elbo_config *c)
{
    return c->determinism != DETERMINISM_FAST || c->parallel.zero;
}

/* Threads of a rank that was not told: its share of the host, unless its launcher gave it processors of its own. */
static size_t threads_of(const struct ranks *who)
{
    cpu_set_t mine;
    long all = sysconf(_SC_NPROCESSORS_ONLN);
    if (who->local_world < 2 || sched_getaffinity(0, sizeof mine, &mine) || CPU_COUNT(&mine) < all) return 0;
    size_t share = (size_t)all / who->local_world;
    return share ? share : 1;
}

elbo_status team_detect(struct team *team, const struct elbo_config *c, struct backend **backend, elbo_error *error)
{
    struct ranks *who = &team->who;
    ELBO_TRY(ranks_detect(who, &c->parallel, ranks_environment, NULL, error));
    team->ranks = who->world;
    team->rank = who->rank;
    size_t threads = c->threads ? c->threads : threads_of(who), local = who->local_world > 1 ? who->local_rank : 0;
    return backend_open_local(backend, c->device, local, threads, error);
}

void team_own_slots(const struct team *team, const struct elbo_config *c, struct slot_options *slots)
{
    size_t lanes = team_lanes(c, team->ranks);
    struct lane_run own = lane_run_of(lanes, team->ranks, team->rank);
    struct lane_run last = lane_run_of(c->train.slots, lanes, own.first + own.count - 1);
    slots->own_first = lane_run_of(c->train.slots, lanes, own.first).first;
    slots->own_count = last.first + last.count - slots->own_first;
}

size_t team_bucket(const struct elbo_config *c)
{
    return align_up((size_t)(c->parallel.bucket * (1 << 18)), PARAMETER_ALIGNMENT);
}

elbo_status team_buckets(struct buckets *b, const struct elbo_config *c, const struct graph *g,
                         const struct parameters *p, size_t figures, elbo_error *error)
{
    size_t *ready = calloc(parameters_count(p) + 1, sizeof *ready);
    if (!ready) return elbo_fail(error, ELBO_MEMORY, "no memory for the buckets of gradients");
    graph_ready(g, ready);
    elbo_status status = buckets_create(b, p, ready, figures, team_bucket(c), error);
    free(ready);
    return status;
}

static bool brings_mpi(const struct ranks *who)
{
    return who->source == RANKS_OPENMPI || who->source == RANKS_HYDRA;
}

static elbo_status join_mpi(struct team *team, struct collectives **mpi, double timeout, elbo_error *error)
{
    const struct ranks *who = &team->who;
    if (who->source == RANKS_ELBO || who->source == RANKS_TORCHRUN || who->source == RANKS_GIVEN)
        return elbo_fail(
            error, ELBO_USAGE,
            "ranks on CPUs speak through MPI, and %s does not start it; use `mpirun -n %zu elbo train ...`, or "
            "--device=cuda",
            ranks_source_name(who->source), who->world);
    ELBO_TRY(mpi_collectives_open(mpi, timeout, error));
    size_t ranks = (*mpi)->ranks, rank = (*mpi)->rank;
    if (ranks == who->world && rank == who->rank) return ELBO_OK;
    return elbo_fail(
        error, ELBO_PEER,
        "MPI says rank %zu of %zu, and the environment of %s says rank %zu of %zu; start elbo with the launcher "
        "of the MPI that it was built with",
        rank, ranks, ranks_source_name(who->source), who->rank, who->world);
}

/* A signal ends the wait for the others at once: there is nothing to save yet. */
static elbo_status meet(struct team *team, const struct rendezvous_options *options, unsigned char id[DEVICE_ID],
                        elbo_error *error)
{
    sigset_t set = trainer_signals(), before;
    pthread_sigmask(SIG_UNBLOCK, &set, &before);
    elbo_status status = rendezvous_share(&team->who, options, id, DEVICE_ID, &team->bonds, error);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* NCCL's id reaches every rank through MPI where mpirun started them, else over TCP. */
static elbo_status join_devices(struct team *team, const struct parallel_config *c, struct backend *b,
                                elbo_error *error)
{
    struct rendezvous_options options = rendezvous_here(c);
    unsigned char id[DEVICE_ID] = {0};
    elbo_status status = brings_mpi(&team->who) ? join_mpi(team, &team->host, c->timeout, error) : ELBO_OK;
    ELBO_TRY(status);
    if (!team->rank) status = device_of(b)->make_id(b, id, error);
    if (team->host) {
        ELBO_TRY(collectives_agree(team->host, status, error));
        ELBO_TRY(collectives_share(team->host, id, sizeof id, error));
    } else {
        ELBO_TRY(status);
        ELBO_TRY(meet(team, &options, id, error));
    }
    return device_of(b)->join(b, id, team->ranks, team->rank, c->timeout, &team->bonds, &team->collectives, error);
}

elbo_status team_fits(const struct elbo_config *c, size_t ranks, elbo_error *error)
{
    size_t lanes = team_lanes(c, ranks);
    if (c->train.slots < ranks)
        return elbo_fail(
            error, ELBO_USAGE,
            "train.slots = %zu are fewer than the %zu ranks, and each needs one; raise train.slots, or start "
            "fewer ranks",
            c->train.slots, ranks);
    if (lanes < ranks)
        return elbo_fail(error, ELBO_USAGE,
                         "%zu lanes are fewer than the %zu ranks, and each needs one; raise parallel.lanes (and "
                         "train.slots), or start fewer ranks; more lanes are other sums, so other bits",
                         lanes, ranks);
    return ELBO_OK;
}

elbo_status team_join(struct team *team, const struct elbo_config *c, struct backend *backend, elbo_error *error)
{
    if (team->ranks > 1 || c->parallel.always) {
        signal(SIGPIPE, SIG_IGN); /* a connection that breaks is an error of the call that meets it */
        if (device_of(backend)->join)
            ELBO_TRY(join_devices(team, &c->parallel, backend, error));
        else
            ELBO_TRY(join_mpi(team, &team->collectives, c->parallel.timeout, error));
    }
    team->notes = calloc(team->ranks, sizeof(struct note));
    return team->notes ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the notes of %zu ranks", team->ranks);
}

void team_close(struct team *team, const struct backend *backend, elbo_status ended)
{
    struct collectives *all[] = {team->collectives, team->host};
    if (!ended || !backend || !backend->memory.separate) reduction_free(team->reduction);
    gathering_free(team->gathering);
    buckets_free(&team->buckets);
    free(team->notes);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i]) continue;
        if (ended) all[i]->broken = true;
        all[i]->destroy(all[i]);
    }
    bonds_close(&team->bonds, !ended || ended == ELBO_INTERRUPTED);
}

elbo_status team_agree(struct trainer *t, elbo_status status, elbo_error *error)
{
    return t->team.collectives ? collectives_agree(t->team.collectives, status, error) : status;
}

/* ---- the same run everywhere ---- */

struct likeness {
    uint64_t options, corpus, device, instructions; /* instructions: of a CPU */
};

elbo_status team_compare(struct trainer *t, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    if (!c) return ELBO_OK;
    char *yaml = options_shared_yaml(t->options, COMMAND_TRAIN);
    struct likeness mine = {0}, *all = calloc(c->ranks, sizeof *all);
    elbo_status status =
        yaml && all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to compare %zu ranks", c->ranks);
    if (!status) {
        const char *corpus = elbo_corpus_hash(t->train);
        char instructions[64];
        size_t bytes = t->backend->memory.separate ? 0 : t->backend->device.save_choices(t->backend, NULL);
        if (bytes && bytes <= sizeof instructions) t->backend->device.save_choices(t->backend, instructions);
        mine = (struct likeness){XXH3_64bits(yaml, strlen(yaml)), XXH3_64bits(corpus, strlen(corpus)),
                                 XXH3_64bits(t->backend->name, strlen(t->backend->name)),
                                 XXH3_64bits(instructions, bytes)};
    }
    status = collectives_agree(c, status, error);
    if (!status) status = collectives_gather(c, &mine, sizeof mine, all, error);
    for (size_t r = 1; r < c->ranks && !status; r++) {
        if (all[r].device != all[0].device)
            status = elbo_fail(
                error, ELBO_USAGE,
                "rank %zu computes on another kind of device than rank 0; give --device=cuda or --device=cpu", r);
        else if (all[r].instructions != all[0].instructions)
            status = elbo_fail(
                error, ELBO_USAGE,
                "rank %zu's processor has other instructions than rank 0's, which have other bits; give all ranks some "
                "that both have, such as --device=cpu:avx2 (`elbo help train`)",
                r);
        else if (all[r].options != all[0].options)
            status = elbo_fail(error, ELBO_USAGE,
                               "rank %zu was started with other options than rank 0; give every rank the same", r);
        else if (all[r].corpus != all[0].corpus)
            status =
                elbo_fail(error, ELBO_INPUT, "rank %zu has another corpus than rank 0 in %s; give every rank the same",
                          r, t->config->data.train);
    }
    free(yaml);
    free(all);
    return status;
}

/* ---- a step ---- */

elbo_status team_tell(struct trainer *t, unsigned which, struct pending *p, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    struct note mine = {.signal = p->signal, .seconds = p->seconds};
    return c ? c->post(c, which, &mine, sizeof mine, error) : ELBO_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The slowest rank, where it takes half as long again as the one in the middle. */
static void name_straggler(struct trainer *t, const struct note *notes, struct pending *p)
{
    double times[64];
    size_t n = least(t->team.ranks, 64), slowest = 0;
    for (size_t r = 0; r < t->team.ranks; r++) {
        if (r < n) times[r] = notes[r].seconds;
        if (notes[r].seconds > notes[slowest].seconds) slowest = r;
    }
    qsort(times, n, sizeof *times, by_value);
    double middle = times[(n - 1) / 2];
    p->straggler = slowest;
    p->straggles = middle > 0 ? notes[slowest].seconds / middle : 1;
}

elbo_status team_hear(struct trainer *t, unsigned which, struct pending *p, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    struct note *notes = (struct note *)(void *)t->team.notes;
    if (!c) return ELBO_OK;
    ELBO_TRY(c->collect(c, which, notes, error));
    p->signal = 0;
    for (size_t r = 0; r < c->ranks && !p->signal; r++) p->signal = notes[r].signal;
    name_straggler(t, notes, p);
    return ELBO_OK;
}

static elbo_status sum(void *context, size_t done, size_t steps, elbo_error *error)
{
    struct team *team = context;
    if (!done) return ELBO_OK;
    return done < steps ? reduction_step(team->reduction, done - 1, error) : reduction_finish(team->reduction, error);
}

static elbo_status gather(void *context, size_t done, size_t steps, elbo_error *error)
{
    return gathering_step(((struct team *)context)->gathering, done, steps, error);
}

/* Between two ranks pieces come in the order in which they went: weights before the first gradients, on every rank. */
static elbo_status gather_and_sum(void *context, size_t done, size_t steps, elbo_error *error)
{
    struct team *team = context;
    bool sums = done == steps || (done && team->buckets.list[0].ready <= done - 1);
    ELBO_TRY(sums ? gathering_finish(team->gathering, error) : gather(context, done, steps, error));
    return sum(context, done, steps, error);
}

execute_progress team_progress(bool gathers, bool sums)
{
    return gathers && sums ? gather_and_sum : gathers ? gather : sums ? sum : NULL;
}

elbo_status team_first_word(struct trainer *t, char *text, size_t size, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    if (!c) return ELBO_OK;
    char *all = calloc(c->ranks, size);
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory for what %zu ranks say", c->ranks);
    elbo_status status = collectives_gather(c, text, size, all, error);
    for (size_t r = 0; r < c->ranks && !status; r++) {
        if (!all[r * size]) continue;
        memcpy(text, all + r * size, size);
        break;
    }
    free(all);
    return status;
}

/* ---- replicas ---- */

static elbo_status hash_weights(struct trainer *t, uint64_t *hashes, elbo_error *error)
{
    enum { PIECE = 1 << 18 };
    const struct parameters *all = t->model.parameters;
    XXH3_state_t *state = XXH3_createState();
    float *piece = malloc(PIECE * sizeof *piece);
    for (size_t i = 0; i < parameters_count(all) && state && piece; i++) {
        const struct parameter *p = parameters_get(all, i);
        XXH3_64bits_reset(state);
        for (size_t at = 0; at < p->elements; at += PIECE) {
            size_t n = least(PIECE, p->elements - at);
            t->backend->memory.download(t->backend, piece, t->model.weights + p->offset + at, n * sizeof *piece);
            XXH3_64bits_update(state, piece, n * sizeof *piece);
        }
        hashes[i] = XXH3_64bits_digest(state);
    }
    bool there = state && piece;
    XXH3_freeState(state);
    free(piece);
    if (!there) return elbo_fail(error, ELBO_MEMORY, "no memory to compare the ranks' weights");
    return t->backend->stream.check ? t->backend->stream.check(t->backend, error) : ELBO_OK;
}

elbo_status team_check_weights(struct trainer *t, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    size_t n = parameters_count(t->model.parameters);
    if (!c) return ELBO_OK;
    uint64_t *mine = calloc(n + 1, sizeof *mine), *all = calloc((n + 1) * c->ranks, sizeof *all);
    elbo_status status = mine && all ? hash_weights(t, mine, error)
                                     : elbo_fail(error, ELBO_MEMORY, "no memory to compare the ranks' weights");
    status = collectives_agree(c, status, error);
    if (!status) status = collectives_gather(c, mine, n * sizeof *mine, all, error);
    for (size_t r = 1; r < c->ranks && !status; r++)
        for (size_t i = 0; i < n && !status; i++)
            if (all[r * n + i] != all[i])
                status = elbo_fail(
                    error, ELBO_PEER,
                    "rank %zu no longer has rank 0's weights: %s differs at step %llu, and did not at step %llu; "
                    "memory or a processor fails there, or the ranks' machines differ. Start again to go on from the "
                    "last "
                    "checkpoint",
                    r, parameters_get(t->model.parameters, i)->name, (unsigned long long)t->draws,
                    (unsigned long long)t->team.checked);
    if (!status) t->team.checked = t->draws;
    free(mine);
    free(all);
    return status;
}
