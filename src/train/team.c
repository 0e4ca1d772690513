#include "train/team.h"
#include "base/log.h"
#include "train/report.h"
#include "train/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* What a rank says of a step. */
struct note {
    int32_t signal;  /* that came to it, or 0            */
    uint32_t unused;
    double seconds;  /* of its own work: without waiting */
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

static size_t from_environment(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : 0;
}

elbo_status team_open(struct trainer *t, elbo_error *error)
{
    struct team *team = &t->team;
    const struct elbo_config *c = t->config;
    team->ranks = 1;
    if (from_environment("OMPI_COMM_WORLD_SIZE") > 1 || from_environment("PMI_SIZE") > 1) {
        ELBO_TRY(mpi_collectives_open(&team->collectives, c->parallel.timeout, error));
        team->ranks = team->collectives->ranks;
        team->rank = team->collectives->rank;
    }
    size_t lanes = team_lanes(c, team->ranks);
    if (c->train.slots < team->ranks)
        return elbo_fail(error, ELBO_USAGE, "train.slots = %zu are fewer than the %zu ranks, and each needs one; raise train.slots, or start "
                         "fewer ranks", c->train.slots, team->ranks);
    if (lanes < team->ranks)
        return elbo_fail(error, ELBO_USAGE, "%zu lanes are fewer than the %zu ranks, and each needs one; raise parallel.lanes (and "
                         "train.slots), or start fewer ranks; more lanes are other sums, so other bits", lanes, team->ranks);
    team->notes = calloc(team->ranks, sizeof(struct note));
    return team->notes ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the notes of %zu ranks", team->ranks);
}

void team_close(struct trainer *t, elbo_status ended)
{
    struct collectives *c = t->team.collectives;
    reduction_free(t->team.reduction);
    free(t->team.notes);
    if (!c) return;
    if (ended) c->broken = true;
    c->destroy(c);
}

elbo_status team_agree(struct trainer *t, elbo_status status, elbo_error *error)
{
    return t->team.collectives ? collectives_agree(t->team.collectives, status, error) : status;
}

/* ---- the same run everywhere ---- */

struct likeness {
    uint64_t options, corpus, figures;
};

elbo_status team_compare(struct trainer *t, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    if (!c) return ELBO_OK;
    char *yaml = options_yaml(t->options, COMMAND_TRAIN);
    struct likeness mine = {0}, *all = calloc(c->ranks, sizeof *all);
    elbo_status status = yaml && all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to compare %zu ranks", c->ranks);
    if (!status) {
        const char *corpus = elbo_corpus_hash(t->train);
        mine = (struct likeness){XXH3_64bits(yaml, strlen(yaml)), XXH3_64bits(corpus, strlen(corpus)), sizeof(struct note)};
    }
    status = collectives_agree(c, status, error);
    if (!status) status = collectives_gather(c, &mine, sizeof mine, all, error);
    for (size_t r = 1; r < c->ranks && !status; r++) {
        if (all[r].options != all[0].options || all[r].figures != all[0].figures)
            status = elbo_fail(error, ELBO_USAGE, "rank %zu was started with other options than rank 0; give every rank the same", r);
        else if (all[r].corpus != all[0].corpus)
            status = elbo_fail(error, ELBO_INPUT, "rank %zu has another corpus than rank 0 in %s; give every rank the same", r,
                               t->config->data.train);
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
            t->backend->download(t->backend, piece, t->model.weights + p->offset + at, n * sizeof *piece);
            XXH3_64bits_update(state, piece, n * sizeof *piece);
        }
        hashes[i] = XXH3_64bits_digest(state);
    }
    bool there = state && piece;
    XXH3_freeState(state);
    free(piece);
    if (!there) return elbo_fail(error, ELBO_MEMORY, "no memory to compare the ranks' weights");
    return t->backend->check ? t->backend->check(t->backend, error) : ELBO_OK;
}

elbo_status team_check_weights(struct trainer *t, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    size_t n = parameters_count(t->model.parameters);
    if (!c) return ELBO_OK;
    uint64_t *mine = calloc(n + 1, sizeof *mine), *all = calloc((n + 1) * c->ranks, sizeof *all);
    elbo_status status = mine && all ? hash_weights(t, mine, error) : elbo_fail(error, ELBO_MEMORY, "no memory to compare the ranks' weights");
    status = collectives_agree(c, status, error);
    if (!status) status = collectives_gather(c, mine, n * sizeof *mine, all, error);
    for (size_t r = 1; r < c->ranks && !status; r++)
        for (size_t i = 0; i < n && !status; i++)
            if (all[r * n + i] != all[i])
                status = elbo_fail(error, ELBO_PEER, "rank %zu no longer has rank 0's weights: %s differs at step %llu, and did not at step %llu; "
                                   "memory or a processor fails there, or the ranks' machines differ. Start again to go on from the last "
                                   "checkpoint", r, parameters_get(t->model.parameters, i)->name, (unsigned long long)t->draws,
                                   (unsigned long long)t->team.checked);
    if (!status) t->team.checked = t->draws;
    free(mine);
    free(all);
    return status;
}
