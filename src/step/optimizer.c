/* The optimizer's update graphs: squared norms, the guard, and AdamW or SGD on each piece of the arena that this rank
 * updates. */
#include "step/optimizer.h"
#include "step/buckets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert((int)GROUPS <= (int)MOST_NORMS, "the guard takes all groups");

static double part_factor(const struct optimizer_config *c, enum parameter_part part)
{
    return part == PART_ENCODER ? c->encoder_factor : part == PART_LATENT ? c->latent_factor : c->decoder_factor;
}

unsigned optimizer_wanted(const struct optimizer_config *c)
{
    unsigned wanted = 0;
    for (unsigned g = 0; g < GROUPS; g++)
        if (part_factor(c, g / 2) > 0) wanted |= 1u << g;
    return wanted;
}

enum dtype optimizer_moments(const struct optimizer_config *c)
{
    return c->moments == MOMENTS_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

static bool shared(const struct optimizer_share *s)
{
    return s->ranks > 1;
}

static unsigned group_at(const struct parameters *p, size_t element)
{
    const struct parameter_group *groups = parameters_groups(p);
    unsigned g = 0;
    while (element >= groups[g].offset + groups[g].elements) g++;
    return g;
}

struct listing {
    struct arena_piece *list; /* null: only counted */
    size_t count, moments;
};

static void add_piece(struct listing *l, unsigned group, size_t first, size_t count)
{
    if (!count) return;
    if (l->list) l->list[l->count] = (struct arena_piece){first, count, l->moments, group};
    l->count++;
    l->moments += count;
}

static struct listing list_pieces(struct arena_piece *list, const struct parameters *p,
                                  const struct optimizer_share *share)
{
    struct listing l = {.list = list};
    const struct parameter_group *groups = parameters_groups(p);
    for (unsigned g = 0; g < GROUPS && !shared(share); g++) add_piece(&l, g, groups[g].offset, groups[g].elements);
    for (size_t i = 0; shared(share) && i < share->buckets->count; i++) {
        const struct bucket *b = &share->buckets->list[i];
        struct lane_run left = bucket_piece(b, share->ranks, share->rank);
        while (left.count) {
            struct bucket_range s = bucket_take(b, &left);
            if (s.first < parameters_arena_elements(p))
                add_piece(&l, group_at(p, s.first), s.first, s.count); /* figures are not updated */
        }
    }
    return l;
}

size_t optimizer_share_elements(const struct parameters *p, const struct optimizer_share *share)
{
    return list_pieces(NULL, p, share).moments;
}

static elbo_status list_all(struct optimizer *o, elbo_error *error)
{
    struct optimizer_share share = o->share;
    size_t ranks = shared(&share) ? share.ranks : 1;
    o->begin = calloc(ranks + 1, sizeof *o->begin);
    for (share.rank = 0; o->begin && share.rank < ranks; share.rank++)
        o->begin[share.rank + 1] = o->begin[share.rank] + list_pieces(NULL, o->parameters, &share).count;
    if (o->begin) o->all = calloc(o->begin[ranks] + 1, sizeof *o->all);
    if (!o->all) return elbo_fail(error, ELBO_MEMORY, "no memory for the pieces of %zu ranks", ranks);
    for (share.rank = 0; share.rank < ranks; share.rank++)
        list_pieces(o->all + o->begin[share.rank], o->parameters, &share);
    o->pieces = o->all + o->begin[o->share.rank];
    o->piece_count = o->begin[o->share.rank + 1] - o->begin[o->share.rank];
    o->moments = optimizer_share_elements(o->parameters, &o->share);
    return ELBO_OK;
}

static value range(struct graph *g, const char *what, enum dtype dtype, size_t number, size_t elements)
{
    char name[48];
    snprintf(name, sizeof name, "%s.%zu", what, number);
    value v = graph_input(g, name, dtype, 1, (struct dim[]){{DIM_FIXED, elements}});
    graph_resident(g, v);
    return v;
}

static void bind_in(const struct graph *g, struct executor *e, const char *name, const void *data)
{
    value v = graph_input_named(g, name);
    if (v.index) e->inputs[graph_value(g, v)->binding] = data;
}

static void bind(struct update_kind *k, const char *name, const void *data)
{
    bind_in(k->graph, &k->executor, name, data);
}

static void bind_numbered(struct update_kind *k, const char *what, size_t number, const void *data)
{
    char name[48];
    snprintf(name, sizeof name, "%s.%zu", what, number);
    bind(k, name, data);
    if (k->squares_graph) bind_in(k->squares_graph, &k->squares, name, data);
}

static void bind_ranges(struct optimizer *o, struct update_kind *kind, struct weight_arenas weights)
{
    const struct parameter_group *groups = parameters_groups(o->parameters);
    size_t moment = dtype_bytes(optimizer_moments(&o->config)), block = 0,
           own = kind->section ? kind->section[o->share.rank] : 0;
    for (unsigned k = 0; k < GROUPS; k++) {
        bind_numbered(kind, "gradient", k, o->gradients + groups[k].offset);
        bind_numbered(kind, "scalars", k, o->scalars + k * STEP_SCALARS);
        if (kind->places && kind->trained[k]) bind_numbered(kind, "places", k, kind->places + block);
        if (kind->trained[k]) block += groups[k].elements / SQUARES_BLOCK;
    }
    for (size_t i = 0; i < o->piece_count; i++) {
        const struct arena_piece *p = &o->pieces[i];
        bind_numbered(kind, "piece", i, o->gradients + p->first);
        bind_numbered(kind, "weights", i, weights.master + p->first);
        bind_numbered(kind, "working", i, weights.working ? (const uint16_t *)weights.working + p->first : NULL);
        bind_numbered(kind, "moment1", i, (const char *)o->moment1 + p->at * moment);
        bind_numbered(kind, "moment2", i, o->moment2 ? (const char *)o->moment2 + p->at * moment : NULL);
        if (!kind->sums || !kind->trained[p->group]) continue;
        bind_numbered(kind, "squares", i, kind->sums + own);
        own += p->count / SQUARES_BLOCK;
    }
    bind(kind, "sums", kind->sums);
}

static value small(struct graph *g, const char *name, size_t rank, const struct dim *dim, bool resident)
{
    value v = graph_input(g, name, DTYPE_F32, rank, dim);
    if (resident) graph_resident(g, v);
    return v;
}

/* Records the norms, the guard, then each piece's update. */
static void record(struct optimizer *o, struct update_kind *kind, bool working, const struct optimizer_options *options)
{
    struct graph *g = kind->graph;
    const struct parameter_group *groups = parameters_groups(o->parameters);
    value gradient[GROUPS] = {{0}}, scalars[GROUPS] = {{0}}, norms[GROUPS], sums = NO_VALUE;
    enum dtype moments = optimizer_moments(&o->config);
    size_t count = 0;
    if (kind->sums)
        sums = graph_input(g, "sums", DTYPE_U64, 1, (struct dim[]){{DIM_FIXED, kind->section[o->share.ranks]}});
    if (kind->sums) graph_resident(g, sums);
    for (unsigned k = 0; k < GROUPS; k++) {
        if (!kind->trained[k]) continue;
        if (kind->sums) {
            norms[count++] =
                op_combined_norm(g, sums, range(g, "places", DTYPE_I32, k, groups[k].elements / SQUARES_BLOCK));
        } else {
            gradient[k] = range(g, "gradient", DTYPE_F32, k, groups[k].elements);
            norms[count++] = op_squared_norm(g, gradient[k]);
        }
    }
    struct dim rows[] = {{DIM_FIXED, 2 * GROUPS}, {DIM_FIXED, STEP_SCALARS}},
               of_groups[] = {{DIM_FIXED, GROUPS}, {DIM_FIXED, STEP_SCALARS}};
    value control = small(g, "control", 1, (struct dim[]){{DIM_FIXED, CONTROL_SIZE}}, true);
    value loss = small(g, "loss", 1, (struct dim[]){{DIM_FIXED, ELBO_PARTS}}, true);
    op_guard(g, small(g, "scalars", 2, of_groups, true), control, norms, count, loss, small(g, "rows", 2, rows, false),
             small(g, "settings", 1, (struct dim[]){{DIM_FIXED, GUARD_SETTINGS}}, false));
    if (options && options->further) options->further(options->context, g, loss, control);
    for (size_t i = 0; i < o->piece_count; i++) {
        const struct arena_piece *piece = &o->pieces[i];
        unsigned k = piece->group;
        size_t n = piece->count;
        if (!kind->trained[k]) continue;
        if (!scalars[k].index) scalars[k] = range(g, "scalars", DTYPE_F32, k, STEP_SCALARS);
        value d = gradient[k].index ? gradient[k] : range(g, "piece", DTYPE_F32, i, n);
        value w = range(g, "weights", DTYPE_F32, i, n), m = range(g, "moment1", moments, i, n);
        value copy = working ? range(g, "working", DTYPE_BF16, i, n) : NO_VALUE;
        if (o->config.kind == OPTIMIZER_ADAMW)
            op_adamw(g, w, copy, m, range(g, "moment2", moments, i, n), d, scalars[k], piece->first);
        else
            op_sgd(g, w, copy, m, d, scalars[k], piece->first);
    }
}

/* ---- several ranks: the squares of this rank's blocks, and the places of all blocks' sums ---- */

static elbo_status place_blocks(struct optimizer *o, struct update_kind *kind, elbo_error *error)
{
    const struct parameter_group *groups = parameters_groups(o->parameters);
    size_t ranks = o->share.ranks, begin[GROUPS] = {0}, blocks = 0, place = 0;
    for (unsigned k = 0; k < GROUPS; k++) {
        begin[k] = blocks;
        if (kind->trained[k]) blocks += groups[k].elements / SQUARES_BLOCK;
    }
    int32_t *places = calloc(blocks + 1, sizeof *places);
    kind->section = calloc(ranks + 1, sizeof *kind->section);
    bool there = places && kind->section;
    for (size_t r = 0; r < ranks && there; r++) {
        for (size_t i = o->begin[r]; i < o->begin[r + 1]; i++) {
            const struct arena_piece *p = &o->all[i];
            size_t at = begin[p->group] + (p->first - groups[p->group].offset) / SQUARES_BLOCK;
            for (size_t b = 0; kind->trained[p->group] && b < p->count / SQUARES_BLOCK; b++)
                places[at + b] = (int32_t)place++;
        }
        kind->section[r + 1] = place;
    }
    struct backend *b = o->backend;
    elbo_status status =
        there ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to plan the norm over %zu ranks", ranks);
    if (!status)
        status =
            b->memory.allocate(b, (void **)&kind->sums, (blocks + 1) * sizeof *kind->sums, "the norm's sums", error);
    if (!status)
        status = b->memory.allocate(b, (void **)&kind->places, (blocks + 1) * sizeof *places, "the norm's sums", error);
    if (!status) b->memory.upload(b, kind->places, places, blocks * sizeof *places);
    free(places);
    return status;
}

static elbo_status record_squares(struct optimizer *o, struct update_kind *kind, const struct graph_capacities *none,
                                  elbo_error *error)
{
    size_t own = kind->section[o->share.rank + 1] - kind->section[o->share.rank];
    if (!own) return ELBO_OK;
    ELBO_TRY(graph_create(&kind->squares_graph, "squares", o->parameters, none, error));
    for (size_t i = 0; i < o->piece_count; i++) {
        const struct arena_piece *p = &o->pieces[i];
        if (!kind->trained[p->group]) continue;
        op_block_squares(kind->squares_graph,
                         range(kind->squares_graph, "squares", DTYPE_U64, i, p->count / SQUARES_BLOCK),
                         range(kind->squares_graph, "piece", DTYPE_F32, i, p->count));
    }
    return executor_create(&kind->squares, kind->squares_graph, o->backend, error);
}

/* Creates the graphs of an update of these parts. */
static elbo_status create_kind(struct optimizer *o, struct update_kind *kind, unsigned parts,
                               struct weight_arenas weights, const struct optimizer_options *options, elbo_error *error)
{
    const struct parameter_group *groups = parameters_groups(o->parameters);
    struct graph_capacities none = {{0}};
    ELBO_TRY(graph_create(&kind->graph, "update", o->parameters, &none, error));
    for (unsigned k = 0; k < GROUPS; k++)
        kind->trained[k] = groups[k].elements && o->factor[k] > 0 && parts >> groups[k].part & 1;
    if (shared(&o->share)) {
        ELBO_TRY(place_blocks(o, kind, error));
        ELBO_TRY(record_squares(o, kind, &none, error));
    }
    record(o, kind, weights.working, options);
    ELBO_TRY(executor_create(&kind->executor, kind->graph, o->backend, error));
    bind_ranges(o, kind, weights);
    bind(kind, "control", o->control);
    bind(kind, "scalars", o->scalars);
    bind(kind, "rows", o->rows);
    bind(kind, "settings", o->settings);
    ELBO_TRY(o->backend->memory.allocate(o->backend, &kind->arena, kind->executor.plan.bytes, "the norms", error));
    if (kind->squares_graph)
        ELBO_TRY(executor_bind(&kind->squares, NULL, weights, o->gradients, NULL, error)); /* no activations */
    return executor_bind(&kind->executor, kind->arena, weights, o->gradients, NULL, error);
}

elbo_status optimizer_create(struct optimizer *o, const struct optimizer_config *config, struct parameters *parameters,
                             struct weight_arenas weights, const struct optimizer_options *options,
                             struct backend *backend, elbo_error *error)
{
    *o = (struct optimizer){.config = *config, .parameters = parameters, .backend = backend};
    if (options) o->share = options->share;
    const struct parameter_group *groups = parameters_groups(parameters);
    static const unsigned whole[OPTIMIZER_MOST_KINDS] = {ALL_PARTS};
    const unsigned *parts = options && options->parts[0] ? options->parts : whole;
    ELBO_TRY(list_all(o, error));
    size_t elements = parameters_arena_elements(parameters), figures = options ? options->figures : 0;
    size_t bytes = o->moments * dtype_bytes(optimizer_moments(config));
    ELBO_TRY(backend->memory.allocate(backend, (void **)&o->gradients, (elements + figures) * sizeof(float),
                                      "gradients", error));
    ELBO_TRY(backend->memory.allocate(backend, &o->moment1, bytes, "the optimizer's first moments", error));
    if (config->kind == OPTIMIZER_ADAMW)
        ELBO_TRY(backend->memory.allocate(backend, &o->moment2, bytes, "the optimizer's second moments", error));
    ELBO_TRY(backend->memory.allocate(backend, (void **)&o->control, CONTROL_SIZE * sizeof(float),
                                      "the guard's decision", error));
    ELBO_TRY(backend->memory.allocate(backend, (void **)&o->scalars, GROUPS * STEP_SCALARS * sizeof(float),
                                      "the step's scalars", error));
    for (unsigned k = 0; k < GROUPS; k++) o->factor[k] = part_factor(config, groups[k].part);
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < OPTIMIZER_MOST_KINDS && parts[i] && !status; i++)
        status = create_kind(o, &o->kind[o->kinds++], parts[i], weights, options, error);
    return status;
}

static void free_kind(struct optimizer *o, struct update_kind *kind)
{
    void *memory[] = {kind->sums, kind->places, kind->arena};
    executor_free(&kind->executor);
    if (kind->squares_graph) executor_free(&kind->squares);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i]) o->backend->memory.release(o->backend, memory[i]);
    graph_free(kind->graph);
    graph_free(kind->squares_graph);
    free(kind->section);
}

void optimizer_free(struct optimizer *o)
{
    void *memory[] = {o->gradients, o->moment1, o->moment2, o->control, o->scalars};
    for (size_t i = 0; i < o->kinds; i++) free_kind(o, &o->kind[i]);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i]) o->backend->memory.release(o->backend, memory[i]);
    free(o->all);
    free(o->begin);
    *o = (struct optimizer){0};
}

void optimizer_bind(struct optimizer *o, const char *name, const void *data)
{
    for (size_t i = 0; i < o->kinds; i++) bind(&o->kind[i], name, data);
}

void optimizer_watch(struct optimizer *o, const void *loss)
{
    optimizer_bind(o, "loss", loss);
}

void optimizer_count(struct optimizer *o, unsigned parts)
{
    o->updates++;
    for (unsigned p = 0; p < PARTS; p++) o->part_updates[p] += parts >> p & 1;
}

void optimizer_clear(struct optimizer *o, enum parameter_part part)
{
    static const char zeros[1 << 16];
    struct backend *b = o->backend;
    size_t moment = dtype_bytes(optimizer_moments(&o->config));
    void *memory[] = {o->moment1, o->moment2};
    for (size_t i = 0; i < o->piece_count; i++) {
        const struct arena_piece *p = &o->pieces[i];
        if (p->group / 2 != (unsigned)part) continue;
        for (size_t m = 0; m < 2; m++)
            for (size_t at = 0, all = p->count * moment; at < all && memory[m]; at += sizeof zeros)
                b->memory.upload(b, (char *)memory[m] + p->at * moment + at, zeros,
                                 all - at < sizeof zeros ? all - at : sizeof zeros);
    }
    o->part_updates[part] = 0;
}

elbo_status optimizer_update(struct optimizer *o, const struct update *u, elbo_error *error)
{
    const struct optimizer_config *c = &o->config;
    const struct parameter_group *groups = parameters_groups(o->parameters);
    for (unsigned answer = 0; answer < 2; answer++)
        for (unsigned k = 0; k < GROUPS; k++) {
            float *s = o->rows[answer][k];
            double t = (double)(u->number[answer][groups[k].part] + 1);
            s[STEP_LEARNING_RATE] = (float)(u->learning_rate[answer] * o->factor[k]);
            s[STEP_GRADIENT_SCALE] = 1;
            s[STEP_DECAY] = (float)(groups[k].decay ? c->weight_decay : 0);
            /* 1 - beta in double, because in f32 it would be off by 6e-8 / (1 - beta) */
            s[STEP_BETA1] = (float)c->beta1;
            s[STEP_ONE_MINUS_BETA1] = (float)(1 - c->beta1);
            s[STEP_BETA2] = (float)c->beta2;
            s[STEP_ONE_MINUS_BETA2] = (float)(1 - c->beta2);
            s[STEP_EPSILON] = (float)c->epsilon;
            s[STEP_CORRECTION1] = (float)(1.0 / (1.0 - pow(c->beta1, t)));
            s[STEP_CORRECTION2] = (float)(1.0 / (1.0 - pow(c->beta2, t)));
            s[STEP_MOMENTUM] = (float)c->momentum;
            s[STEP_APPLY] = 0; /* set by the guard */
        }
    o->settings[GUARD_CLIP] = (float)c->clip;
    o->settings[GUARD_SKIP] = u->skip;
    struct execution run = {.seed = u->seed, .step = u->step};
    struct update_kind *kind = &o->kind[u->kind];
    o->now = u->kind;
    if (kind->squares_graph) ELBO_TRY(executor_run(&kind->squares, &run, error));
    if (shared(&o->share)) ELBO_TRY(o->share.exchange(o->share.context, error));
    return executor_run(&kind->executor, &run, error);
}
