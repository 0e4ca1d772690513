/* The ranks of a run: finds and joins them, compares them, and exchanges notes at every step. See team.h. */
#include "train/team.h"
#include "device/backends.h"
#include "job/rendezvous.h"
#include "train/signals.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* A rank's note on a step. */
struct note {
    int32_t signal; /* signal received by the rank, or 0 */
    uint32_t unused;
    double seconds; /* of the rank's own work, without waiting */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Returns the threads of a rank if the number is not given: its share of the host, or 0 if its launcher gave it
 * processors of its own. */
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

/* Meets the other ranks. A signal ends the wait at once, because there is nothing to save yet. */
static elbo_status meet(struct team *team, const struct rendezvous_options *options, unsigned char id[DEVICE_ID],
                        elbo_error *error)
{
    sigset_t set = signals_that_stop(), before;
    pthread_sigmask(SIG_UNBLOCK, &set, &before);
    elbo_status status = rendezvous_share(&team->who, options, id, DEVICE_ID, &team->bonds, error);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* Joins the devices of the ranks. NCCL's id reaches every rank through MPI if mpirun started the ranks, else over
 * TCP. */
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

elbo_status team_join(struct team *team, const struct elbo_config *c, struct backend *backend, elbo_error *error)
{
    if (team->ranks > 1 || c->parallel.always) {
        signal(SIGPIPE, SIG_IGN); /* a broken connection is then an error of the call that meets it */
        if (device_of(backend)->join)
            ELBO_TRY(join_devices(team, &c->parallel, backend, error));
        else
            ELBO_TRY(join_mpi(team, &team->collectives, c->parallel.timeout, error));
    }
    team->notes = calloc(team->ranks, sizeof(struct note));
    return team->notes ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the notes of %zu ranks", team->ranks);
}

void team_close(struct team *team, elbo_status ended)
{
    struct collectives *all[] = {team->collectives, team->host};
    free(team->notes);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i]) continue;
        if (ended) all[i]->broken = true;
        all[i]->destroy(all[i]);
    }
    bonds_close(&team->bonds, !ended || ended == ELBO_INTERRUPTED);
}

elbo_status team_agree(struct team *team, elbo_status status, elbo_error *error)
{
    return team->collectives ? collectives_agree(team->collectives, status, error) : status;
}

/* ---- comparing the ranks ---- */

struct likeness {
    uint64_t options, corpus, device, instructions; /* hashes; instructions: of a CPU */
};

elbo_status team_compare(struct team *team, const struct team_likeness *of, elbo_error *error)
{
    struct collectives *c = team->collectives;
    if (!c) return ELBO_OK;
    char *yaml = options_shared_yaml(of->options, COMMAND_TRAIN);
    struct likeness mine = {0}, *all = calloc(c->ranks, sizeof *all);
    elbo_status status =
        yaml && all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to compare %zu ranks", c->ranks);
    if (!status) {
        const char *corpus = of->corpus;
        char instructions[64];
        size_t bytes = of->backend->memory.separate ? 0 : of->backend->device.save_choices(of->backend, NULL);
        if (bytes && bytes <= sizeof instructions) of->backend->device.save_choices(of->backend, instructions);
        mine = (struct likeness){XXH3_64bits(yaml, strlen(yaml)), XXH3_64bits(corpus, strlen(corpus)),
                                 XXH3_64bits(of->backend->name, strlen(of->backend->name)),
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
            status = elbo_fail(error, ELBO_INPUT,
                               "rank %zu has another corpus than rank 0 in %s; give every rank the same", r, of->data);
    }
    free(yaml);
    free(all);
    return status;
}

/* ---- a step ---- */

elbo_status team_tell(struct team *team, unsigned which, int signal, double seconds, elbo_error *error)
{
    struct collectives *c = team->collectives;
    struct note mine = {.signal = signal, .seconds = seconds};
    return c ? c->post(c, which, &mine, sizeof mine, error) : ELBO_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Finds the slowest rank, and its time over the median rank's. */
static void name_straggler(struct team_news *news, const struct note *notes, size_t ranks)
{
    double times[64];
    size_t n = least(ranks, 64), slowest = 0;
    for (size_t r = 0; r < ranks; r++) {
        if (r < n) times[r] = notes[r].seconds;
        if (notes[r].seconds > notes[slowest].seconds) slowest = r;
    }
    qsort(times, n, sizeof *times, by_value);
    double middle = times[(n - 1) / 2];
    news->straggler = slowest;
    news->straggles = middle > 0 ? notes[slowest].seconds / middle : 1;
}

elbo_status team_hear(struct team *team, unsigned which, struct team_news *news, elbo_error *error)
{
    struct collectives *c = team->collectives;
    struct note *notes = (struct note *)(void *)team->notes;
    if (!c) return ELBO_OK;
    ELBO_TRY(c->collect(c, which, notes, error));
    news->signal = 0;
    for (size_t r = 0; r < c->ranks && !news->signal; r++) news->signal = notes[r].signal;
    name_straggler(news, notes, c->ranks);
    return ELBO_OK;
}

elbo_status team_first_word(struct team *team, char *text, size_t size, elbo_error *error)
{
    struct collectives *c = team->collectives;
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

static elbo_status hash_weights(const struct model *m, uint64_t *hashes, elbo_error *error)
{
    enum { PIECE = 1 << 18 };
    const struct parameters *all = m->parameters;
    XXH3_state_t *state = XXH3_createState();
    float *piece = malloc(PIECE * sizeof *piece);
    for (size_t i = 0; i < parameters_count(all) && state && piece; i++) {
        const struct parameter *p = parameters_get(all, i);
        XXH3_64bits_reset(state);
        for (size_t at = 0; at < p->elements; at += PIECE) {
            size_t n = least(PIECE, p->elements - at);
            m->backend->memory.download(m->backend, piece, m->weights + p->offset + at, n * sizeof *piece);
            XXH3_64bits_update(state, piece, n * sizeof *piece);
        }
        hashes[i] = XXH3_64bits_digest(state);
    }
    bool there = state && piece;
    XXH3_freeState(state);
    free(piece);
    if (!there) return elbo_fail(error, ELBO_MEMORY, "no memory to compare the ranks' weights");
    return m->backend->stream.check ? m->backend->stream.check(m->backend, error) : ELBO_OK;
}

elbo_status team_check_weights(struct team *team, const struct model *m, uint64_t step, elbo_error *error)
{
    struct collectives *c = team->collectives;
    size_t n = parameters_count(m->parameters);
    if (!c) return ELBO_OK;
    uint64_t *mine = calloc(n + 1, sizeof *mine), *all = calloc((n + 1) * c->ranks, sizeof *all);
    elbo_status status = mine && all ? hash_weights(m, mine, error)
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
                    r, parameters_get(m->parameters, i)->name, (unsigned long long)step,
                    (unsigned long long)team->checked);
    if (!status) team->checked = step;
    free(mine);
    free(all);
    return status;
}
