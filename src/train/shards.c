#include "train/shards.h"
#include "train/arena.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "train/sharded.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 192 };

static void name_of(char name[NAME], size_t rank, size_t ranks)
{
    snprintf(name, NAME, "state/optimizer-%zu-of-%zu.safetensors", rank, ranks);
}

/* ---- do all see one folder? ---- */

elbo_status shards_probe(struct trainer *t, elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    unsigned char told[16] = {0};
    char path[FILES_PATH], *text = NULL;
    size_t size = 0;
    elbo_error unsaid;
    if (!sharded(t)) return ELBO_OK;
    ELBO_TRY(file_join(path, t->config->run_dir, "probe.tmp", error));
    if (!t->team.rank) {
        randombytes_buf(told, sizeof told);
        if (file_write(path, told, sizeof told, &unsaid)) memset(told, 0, sizeof told); /* then nobody sees it */
    }
    ELBO_TRY(collectives_share(c, told, sizeof told, error));
    bool same =
        !file_read(&text, &size, path, sizeof told, &unsaid) && size == sizeof told && !memcmp(text, told, sizeof told);
    free(text);
    elbo_status status =
        collectives_agree(c, same ? ELBO_OK : elbo_fail(&unsaid, ELBO_IO, "it is not seen here"), &unsaid);
    t->shards = !status;
    if (!t->team.rank) file_remove(path, error); /* if it stays it does no harm */
    if (status != ELBO_PEER) return ELBO_OK;
    *error = unsaid;
    return status;
}

/* ---- saving ---- */

struct shard {
    struct arena arena[2];
    struct safetensors_tensor *tensors;
    char (*names)[NAME];
    size_t count;
};

/* The elements of parameter p that this piece has become tensors. */
static void add_piece(struct shard *s, const struct optimizer_piece *own, const struct parameter *p)
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
                                                           .at = own->moment + first - own->first};
        s->count++;
    }
}

static elbo_status write_own(struct trainer *t, const char *folder, struct manifest_file *entry, elbo_error *error)
{
    const struct optimizer *o = &t->optimizer;
    size_t n = parameters_count(o->parameters),
           most = 2 * (n + o->piece_count) + 1; /* a piece and a parameter begin each tensor */
    enum dtype type = optimizer_moments(&o->config);
    char name[NAME];
    struct shard s = {.arena = {{{arena_read}, t->backend, o->moment1, type, NULL, 0},
                                {{arena_read}, t->backend, o->moment2, type, NULL, 1}},
                      .tensors = calloc(most, sizeof *s.tensors),
                      .names = calloc(most, sizeof *s.names)};
    elbo_status status = s.tensors && s.names
                             ? ELBO_OK
                             : elbo_fail(error, ELBO_MEMORY, "no memory to gather the moments of %zu parameters", n);
    for (size_t k = 0; k < o->piece_count && !status; k++)
        for (size_t i = 0; i < n; i++) add_piece(&s, &o->pieces[k], parameters_get(o->parameters, i));
    name_of(name, t->team.rank, t->team.ranks);
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

/* Every rank's entry of the manifest, on rank 0; entries: null on the others. */
static elbo_status gather_entries(struct trainer *t, const struct manifest_file *own, struct manifest_file *entries,
                                  elbo_error *error)
{
    struct collectives *c = t->team.collectives;
    struct summary mine = {own->bytes, own->xxh3, own->chunk_count}, *all = calloc(c->ranks, sizeof *all);
    uint64_t *chunks = NULL, *padded = NULL;
    size_t most = 1;
    elbo_status status =
        all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", c->ranks);
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

/* All ranks: each writes its file, or none has. */
static elbo_status write_all(struct trainer *t, const char *folder, struct manifest_file *entries, elbo_error *error)
{
    struct manifest_file own = {0};
    elbo_status status = collectives_agree(t->team.collectives, write_own(t, folder, &own, error), error);
    if (!status) status = gather_entries(t, &own, entries, error);
    free(own.chunks);
    return status;
}

elbo_status shards_write(void *context, const char *folder, struct manifest_file **entries, size_t *count,
                         elbo_error *error)
{
    struct trainer *t = context;
    char told[FILES_PATH] = "";
    *entries = calloc(t->team.ranks, sizeof **entries);
    if (!*entries) return elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", t->team.ranks);
    *count = t->team.ranks;
    snprintf(told, sizeof told, "%s", folder);
    t->shards_told = true;
    ELBO_TRY(collectives_share(t->team.collectives, told, sizeof told, error));
    return write_all(t, folder, *entries, error);
}

elbo_status shards_serve(struct trainer *t, elbo_error *error)
{
    char folder[FILES_PATH] = "";
    ELBO_TRY(collectives_share(t->team.collectives, folder, sizeof folder, error));
    folder[sizeof folder - 1] = 0;
    if (!*folder) return ELBO_OK;
    return write_all(t, folder, NULL, error);
}

elbo_status shards_done(struct trainer *t, elbo_error *error)
{
    char none[FILES_PATH] = "";
    bool told = t->shards_told;
    t->shards_told = false;
    return told ? ELBO_OK : collectives_share(t->team.collectives, none, sizeof none, error);
}

/* ---- loading ---- */

bool shards_in(const struct checkpoint *c)
{
    char name[NAME];
    name_of(name, 0, checkpoint_ranks(c));
    return checkpoint_has(c, name);
}

/* "moment1.NAME@FIRST": which moment, parameter and element. */
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

static elbo_status load_file(struct trainer *t, const struct safetensors *file, const struct arena *moments,
                             size_t *missing, elbo_error *error)
{
    const struct parameters *all = t->model.parameters;
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

elbo_status shards_load(struct trainer *t, const struct checkpoint *c, const struct arena *moments, elbo_error *error)
{
    const struct parameters *all = t->model.parameters;
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
        status = load_file(t, file, moments, missing, error);
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
