/* Largest value first, each at the lowest offset where nothing that lives at the same time lies. */
#include "graph/plan.h"
#include "base/checked.h"
#include "base/redzone.h"

#include <stdlib.h>
#include <string.h>

struct lifetime {
    size_t value, bytes, first, last, offset; /* value: from graph_values() on, steps' scratch */
};

static size_t room_for(size_t bytes)
{
    return align_up(bytes, PLAN_ALIGNMENT) + align_up(REDZONE_BYTES, PLAN_ALIGNMENT);
}

static int larger_first(const void *a, const void *b)
{
    const struct lifetime *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->value < y->value ? -1 : 1;
}

static int lower_first(const void *a, const void *b)
{
    const struct lifetime *const *x = a, *const *y = b;
    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/* `unwritten` becomes the first activation that would be read before anything has written it. */
static size_t collect(const struct graph *g, const size_t *scratch, struct lifetime *lives, value *unwritten)
{
    const uint32_t *order;
    size_t steps = graph_schedule(g, &order), values = graph_values(g), n = 0;
    for (size_t v = 0; v < values; v++) lives[v] = (struct lifetime){.value = v, .first = SIZE_MAX};
    for (size_t s = 0; s < steps; s++) {
        const struct node *node = graph_node_get(g, order[s]);
        for (unsigned k = 0; k < MAX_INPUTS + MAX_OUTPUTS; k++) {
            uint32_t v = k < MAX_INPUTS ? node->in[k].index : node->out[k - MAX_INPUTS].index;
            if (!v) continue;
            if (lives[v].first == SIZE_MAX) {
                lives[v].first = s;
                bool activation = graph_value(g, (value){v})->class == VALUE_ACTIVATION;
                if (k < MAX_INPUTS && activation && !unwritten->index) unwritten->index = v;
            }
            lives[v].last = s;
        }
    }
    for (size_t v = 1; v < values; v++) {
        const struct value_info *info = graph_value(g, (value){(uint32_t)v});
        if (info->class != VALUE_ACTIVATION || lives[v].first == SIZE_MAX) continue;
        lives[v].bytes = room_for(graph_bytes(g, (value){(uint32_t)v}, graph_capacity(g)->count));
        if (info->kept) lives[v].last = steps;
        lives[n++] = lives[v];
    }
    for (size_t s = 0; scratch && s < steps; s++)
        if (scratch[s])
            lives[n++] = (struct lifetime){.value = values + s, .bytes = room_for(scratch[s]), .first = s, .last = s};
    return n;
}

elbo_status plan_create(struct plan *plan, const struct graph *g, const size_t *scratch, elbo_error *error)
{
    const uint32_t *order;
    size_t values = graph_values(g), steps = graph_schedule(g, &order), most = values + steps;
    *plan = (struct plan){.offset = calloc(values, sizeof(size_t)), .scratch = calloc(steps + 1, sizeof(size_t))};
    struct lifetime *lives = malloc(most * sizeof *lives);
    struct lifetime **meeting = malloc(most * sizeof *meeting);
    if (!plan->offset || !plan->scratch || !lives || !meeting) {
        free(lives);
        free(meeting);
        plan_free(plan);
        return elbo_fail(error, ELBO_MEMORY, "no memory to plan %zu values", values);
    }
    value unwritten = NO_VALUE;
    size_t n = collect(g, scratch, lives, &unwritten);
    if (unwritten.index) {
        elbo_fail(error, ELBO_INTERNAL, "the graph reads %s before it is computed", graph_value(g, unwritten)->name);
        free(lives);
        free(meeting);
        plan_free(plan);
        return error->code;
    }
    qsort(lives, n, sizeof *lives, larger_first);
    for (size_t i = 0; i < n; i++) {
        struct lifetime *l = &lives[i];
        size_t m = 0;
        for (size_t j = 0; j < i; j++)
            if (lives[j].first <= l->last && l->first <= lives[j].last) meeting[m++] = &lives[j];
        qsort(meeting, m, sizeof *meeting, lower_first);
        for (size_t j = 0; j < m; j++) {
            if (meeting[j]->offset >= l->offset + l->bytes) break;
            size_t end = meeting[j]->offset + meeting[j]->bytes;
            if (end > l->offset) l->offset = end;
        }
        *(l->value < values ? &plan->offset[l->value] : &plan->scratch[l->value - values]) = l->offset;
        plan->sum += l->bytes;
        if (l->offset + l->bytes > plan->bytes) plan->bytes = l->offset + l->bytes;
    }
    free(lives);
    free(meeting);
    return ELBO_OK;
}

void plan_free(struct plan *plan)
{
    free(plan->offset);
    free(plan->scratch);
    *plan = (struct plan){0};
}
