/* The table of parameters: declaration by name, layout of the arenas by group, and initial values. */
#include "graph/parameters.h"
#include "base/checked.h"
#include "base/philox.h"
#include "graph/names.h"

#include <stdlib.h>
#include <string.h>

struct parameters {
    struct parameter *list;
    size_t count, room;
    struct names names;
    struct parameter_group group[GROUPS];
    size_t arena;
};

elbo_status parameters_create(struct parameters **p, elbo_error *error)
{
    *p = calloc(1, sizeof **p);
    return *p ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for the table of parameters");
}

void parameters_free(struct parameters *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->count; i++) free((char *)p->list[i].name);
    free(p->list);
    names_free(&p->names);
    free(p);
}

elbo_status parameters_declare(struct parameters *p, size_t *index, const struct parameter *d, elbo_error *error)
{
    if (parameters_find(p, d->name, index)) {
        const struct parameter *old = &p->list[*index];
        bool same = old->rank == d->rank && !memcmp(old->shape, d->shape, sizeof *d->shape * d->rank);
        return same ? ELBO_OK : elbo_fail(error, ELBO_INTERNAL, "parameter %s is declared with two shapes", d->name);
    }
    if (p->count == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        struct parameter *list = realloc(p->list, room * sizeof *list);
        if (!list) return elbo_fail(error, ELBO_MEMORY, "no memory for the table of parameters");
        p->list = list;
        p->room = room;
    }
    struct parameter *own = &p->list[p->count];
    *own = *d;
    own->elements = 1;
    for (size_t i = 0; i < d->rank; i++)
        if (!checked_mul(&own->elements, own->elements, d->shape[i]))
            return elbo_fail(error, ELBO_USAGE, "parameter %s is too large to address", d->name);
    own->name = strdup(d->name);
    if (!own->name || !names_add(&p->names, own->name, p->count)) {
        free((char *)own->name);
        return elbo_fail(error, ELBO_MEMORY, "no memory for the table of parameters");
    }
    *index = p->count++;
    return ELBO_OK;
}

size_t parameters_count(const struct parameters *p)
{
    return p->count;
}

const struct parameter *parameters_get(const struct parameters *p, size_t index)
{
    return &p->list[index];
}

bool parameters_find(const struct parameters *p, const char *name, size_t *index)
{
    return names_find(&p->names, name, index);
}

struct place {
    size_t index, ready;
};

static int by_ready(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->ready != y->ready) return x->ready < y->ready ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

elbo_status parameters_layout(struct parameters *p, const size_t *ready, elbo_error *error)
{
    struct place *places = malloc((p->count + 1) * sizeof *places);
    if (!places) return elbo_fail(error, ELBO_MEMORY, "no memory to lay out the parameters");
    size_t at = 0;
    bool fits = true;
    for (unsigned g = 0; g < GROUPS; g++) {
        struct parameter_group *group = &p->group[g];
        *group = (struct parameter_group){.offset = at, .part = g / 2, .decay = g % 2 == 0};
        size_t n = 0;
        for (size_t i = 0; i < p->count; i++)
            if (p->list[i].part == group->part && p->list[i].decay == group->decay)
                places[n++] = (struct place){i, ready ? ready[i] : i};
        qsort(places, n, sizeof *places, by_ready);
        for (size_t i = 0; i < n; i++) {
            struct parameter *own = &p->list[places[i].index];
            own->offset = at;
            fits = fits && checked_add(&at, at, own->elements) && checked_align(&at, at, PARAMETER_ALIGNMENT);
        }
        group->elements = at - group->offset;
    }
    p->arena = at;
    free(places);
    return fits ? ELBO_OK : elbo_fail(error, ELBO_USAGE, "the parameters are too many to address");
}

size_t parameters_arena_elements(const struct parameters *p)
{
    return p->arena;
}

size_t parameters_total(const struct parameters *p)
{
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++) total += p->list[i].elements;
    return total;
}

const struct parameter_group *parameters_groups(const struct parameters *p)
{
    return p->group;
}

void parameters_initial(float *to, const struct parameter *own, size_t first, size_t count, uint64_t seed)
{
    struct noise_key key = noise_key(seed, noise_purpose(own->name) ^ noise_purpose("initialize"), 0);
    size_t row = own->rank > 1 ? own->elements / (own->shape[0] ? own->shape[0] : 1) : 1;
    float normal[4];
    for (size_t k = first; k < first + count; k++) {
        const struct parameter_init *init = own->tail && k >= own->tail * row ? &own->init_tail : &own->init;
        /* The element's number is the noise address; its high 32 bits take the place of the sample. */
        if (k == first || k % 4 == 0) noise_normal4(normal, noise_block(key, k >> 32, 0, (uint32_t)(k / 4)));
        to[k - first] = (float)init->mean;
        if (init->kind == INIT_NORMAL) to[k - first] += (float)init->std * normal[k % 4];
    }
}

void parameters_initialize(const struct parameters *p, float *weights, uint64_t seed)
{
    memset(weights, 0, p->arena * sizeof *weights);
    for (size_t i = 0; i < p->count; i++)
        parameters_initial(weights + p->list[i].offset, &p->list[i], 0, p->list[i].elements, seed);
}
