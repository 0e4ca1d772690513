/* state/optimizer-R-of-N.safetensors holds rank R's pieces of parameters. Tensor "moment1.NAME@FIRST" (n) F32 holds
 * elements FIRST .. FIRST + n of parameter NAME. Each rank writes its own file; rank 0 gathers the manifest entries. */
#include "base/files.h"
#include "checkpoint/manifest.h"
#include "checkpoint/moments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = MOMENTS_NAME };

static void name_of(char name[NAME], size_t rank, size_t ranks)
{
    snprintf(name, NAME, "state/optimizer-%zu-of-%zu.safetensors", rank, ranks);
}

/* ---- saving ---- */

struct shard {
    struct arena arena[2];
    struct safetensors_tensor *tensors;
    char (*names)[NAME];
    size_t count;
};

/* Makes tensors of the elements of parameter p that this piece has. */
static void add_piece(struct shard *s, const struct arena_piece *own, const struct parameter *p)
{
    size_t first = own->first > p->offset ? own->first : p->offset, end = own->first + own->count;
    if (end > p->offset + p->elements) end = p->offset + p->elements;
    for (unsigned k = 0; k < 2 && first < end && s->arena[k].memory; k++) {
        snprintf(s->names[s->count], NAME, "moment%u.%s@%zu", k + 1, p->name, first - p->offset);
        s->tensors[s->count] = (struct safetensors_tensor){.name = s->names[s->count],
                                                           .dtype = SAFETENSORS_F32,
                                                           .rank = 1,
                                                           .shape = {end - first},
                                                           .source = &s->arena[k].source,
                                                           .at = own->at + first - own->first};
        s->count++;
    }
}

static elbo_status write_own(struct moments *m, const char *folder, struct manifest_file *entry, elbo_error *error)
{
    size_t rank = moments_rank(m), n = parameters_count(m->parameters);
    size_t most = 2 * (n + m->begin[rank + 1] - m->begin[rank]) + 1; /* each tensor begins at a piece or a parameter */
    char name[NAME];
    struct shard s = {
        .arena = {arena_of(m->backend, m->memory[0], m->type), arena_of(m->backend, m->memory[1], m->type)},
        .tensors = calloc(most, sizeof *s.tensors),
        .names = calloc(most, sizeof *s.names)};
    elbo_status status = s.tensors && s.names
                             ? ELBO_OK
                             : elbo_fail(error, ELBO_MEMORY, "no memory to gather the moments of %zu parameters", n);
    for (size_t k = m->begin[rank]; k < m->begin[rank + 1] && !status; k++)
        for (size_t i = 0; i < n; i++) add_piece(&s, &m->pieces[k], parameters_get(m->parameters, i));
    name_of(name, rank, moments_ranks(m));
    struct checkpoint_file file = {.name = name, .tensors = s.tensors, .tensor_count = s.count};
    if (!status) status = checkpoint_write_file(entry, folder, &file, error);
    entry->name = NULL;
    free(s.tensors);
    free(s.names);
    return status;
}

struct summary {
    uint64_t bytes, xxh3, chunks;
};

/* Gathers every rank's manifest entry on rank 0, unless a rank has failed; `entries` is null on the other ranks. */
static elbo_status gather_entries(struct moments *m, elbo_status status, const struct manifest_file *own,
                                  struct manifest_file *entries, elbo_error *error)
{
    struct collectives *c = m->collectives;
    struct summary mine = {own->bytes, own->xxh3, own->chunk_count}, *all = calloc(c->ranks, sizeof *all);
    uint64_t *chunks = NULL, *padded = NULL;
    size_t most = 1;
    if (!status && !all) status = elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", c->ranks);
    status = collectives_agree(c, status, error);
    if (!status) status = collectives_gather(c, &mine, sizeof mine, all, error);
    for (size_t r = 0; r < c->ranks && !status; r++) most = all[r].chunks > most ? all[r].chunks : most;
    if (!status) {
        padded = calloc(most, sizeof *padded);
        chunks = calloc(most * c->ranks, sizeof *chunks);
        if (!padded || !chunks)
            status = elbo_fail(error, ELBO_MEMORY, "no memory for the checksums of %zu files", c->ranks);
        if (padded && own->chunk_count) memcpy(padded, own->chunks, own->chunk_count * sizeof *padded);
        status = collectives_agree(c, status, error);
    }
    if (!status) status = collectives_gather(c, padded, most * sizeof *padded, chunks, error);
    for (size_t r = 0; entries && r < c->ranks && !status; r++) {
        char name[NAME];
        size_t count = all[r].chunks;
        name_of(name, r, c->ranks);
        entries[r] =
            (struct manifest_file){strdup(name), all[r].bytes, all[r].xxh3, malloc(count * sizeof *chunks + 1), count};
        if (!entries[r].name || !entries[r].chunks)
            status = elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", c->ranks);
        else
            memcpy(entries[r].chunks, chunks + r * most, count * sizeof *chunks);
    }
    free(all);
    free(padded);
    free(chunks);
    return status;
}

/* Writes the files of all ranks and gathers their entries. Every rank calls it; it fails on all ranks if one fails. */
static elbo_status write_all(struct moments *m, const char *folder, struct manifest_file *entries, elbo_error *error)
{
    struct manifest_file own = {0};
    elbo_status status = write_own(m, folder, &own, error);
    status = gather_entries(m, status, &own, entries, error);
    free(own.chunks);
    return status;
}

static elbo_status write_others(void *context, const char *folder, struct manifest_file **entries, size_t *count,
                                elbo_error *error)
{
    struct moments *m = context;
    size_t ranks = moments_ranks(m);
    char told[FILES_PATH] = "";
    *entries = calloc(ranks, sizeof **entries);
    if (!*entries) return elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", ranks);
    *count = ranks;
    snprintf(told, sizeof told, "%s", folder);
    m->told = true;
    ELBO_TRY(collectives_share(m->collectives, told, sizeof told, error));
    return write_all(m, folder, *entries, error);
}

static elbo_status serve(struct moments *m, elbo_error *error)
{
    char folder[FILES_PATH] = "";
    ELBO_TRY(collectives_share(m->collectives, folder, sizeof folder, error));
    folder[sizeof folder - 1] = 0;
    if (!*folder) return ELBO_OK;
    return write_all(m, folder, NULL, error);
}

/* Sends an empty folder name if the save failed before the other ranks were told a folder, because they wait for
 * one. */
static elbo_status done(struct moments *m, elbo_error *error)
{
    char none[FILES_PATH] = "";
    bool told = m->told;
    m->told = false;
    return told ? ELBO_OK : collectives_share(m->collectives, none, sizeof none, error);
}

const struct moments_source moments_beside = {.name = "beside", .others = write_others, .serve = serve, .done = done};

/* ---- loading ---- */

bool moments_are_beside(const struct checkpoint *c)
{
    char name[NAME];
    name_of(name, 0, checkpoint_ranks(c));
    return checkpoint_has(c, name);
}

/* Parses "moment1.NAME@FIRST" into moment, parameter and element. */
static bool parse(const struct parameters *p, const char *text, unsigned *moment, size_t *parameter, size_t *first)
{
    char name[NAME], *end;
    const char *at = strrchr(text, '@');
    if (strncmp(text, "moment", 6) || (text[6] != '1' && text[6] != '2') || text[7] != '.' || !at ||
        at - text - 8 >= NAME)
        return false;
    *moment = (unsigned)(text[6] - '1');
    snprintf(name, sizeof name, "%.*s", (int)(at - text - 8), text + 8);
    if (at[1] < '0' || at[1] > '9') return false;
    *first = strtoull(at + 1, &end, 10);
    return !*end && parameters_find(p, name, parameter);
}

static elbo_status load_file(const struct parameters *all, const struct safetensors *file, const struct arena *moments,
                             size_t *missing, elbo_error *error)
{
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *s = safetensors_at(file, i);
        unsigned k;
        size_t which, first;
        if (!parse(all, s->name, &k, &which, &first))
            return elbo_fail(error, ELBO_INPUT, "%.200s is no piece of a moment of this model", s->name);
        const struct parameter *p = parameters_get(all, which);
        size_t *left = &missing[k * parameters_count(all) + which], n = s->rank == 1 ? s->shape[0] : 0;
        if (s->rank != 1 || s->dtype != SAFETENSORS_F32 || first > p->elements || n > p->elements - first || n > *left)
            return elbo_fail(error, ELBO_INPUT, "%.200s: not so many numbers in F32 as %s has from there on", s->name,
                             p->name);
        *left -= n;
        if (moments[k].memory) ELBO_TRY(arena_load(&moments[k], p->offset + first, file, s, error));
    }
    return ELBO_OK;
}

elbo_status moments_load_beside(struct moments *m, const struct checkpoint *c, elbo_error *error)
{
    const struct parameters *all = m->parameters;
    const struct arena moments[MOMENTS] = {moments_arena(m, 0), moments_arena(m, 1)};
    size_t n = parameters_count(all), ranks = checkpoint_ranks(c), *missing = calloc(2 * n + 1, sizeof *missing);
    elbo_status status =
        missing ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to load the moments of %zu parameters", n);
    for (size_t i = 0; i < 2 * n && !status; i++) missing[i] = parameters_get(all, i % n)->elements;
    for (size_t r = 0; r < ranks && !status; r++) {
        char name[NAME];
        struct safetensors *file;
        name_of(name, r, ranks);
        status = checkpoint_tensors(&file, c, name, error);
        if (status) break;
        status = load_file(all, file, moments, missing, error);
        if (status) elbo_fail_in(error, "%s/%s: ", checkpoint_path(c), name);
        safetensors_free(file);
    }
    for (size_t i = 0; i < 2 * n && !status; i++)
        if (missing[i] && moments[i / n].memory)
            status = elbo_fail(error, ELBO_INPUT, "%s: %zu elements of moment%zu.%s are in none of its files",
                               checkpoint_path(c), missing[i], i / n + 1, parameters_get(all, i % n)->name);
    free(missing);
    return status;
}
