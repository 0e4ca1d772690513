/* The memory plan places the largest value first, each at the lowest offset that is free for its whole lifetime.
 *
 * Two lifetimes meet if one begins within the other. So the bytes taken during a lifetime are those of the lifetimes
 * that begin within it, and those of the lifetimes that cover its first step. A binary tree over the steps keeps both
 * as sets of spans for whole ranges of steps: a lifetime asks O(log steps) sets instead of every other lifetime. In
 * deep models the activations of successive layers lie side by side, so that a set is a few spans. */
#include "graph/plan.h"
#include "base/checked.h"
#include "base/redzone.h"

#include <stdlib.h>
#include <string.h>

struct lifetime {
    size_t value, bytes, first, last, offset; /* value: from graph_values() on, a step's scratch */
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

/* ---- the taken bytes, by time ---- */

struct span {
    size_t from, to;
};

/* Ordered by offset; touching spans are merged. */
struct spans {
    struct span *list;
    size_t count, room;
};

/* Node 1 is the root, 2k and 2k + 1 are the halves of node k, and leaves + s is step s. */
struct taken {
    size_t leaves;        /* a power of two */
    struct spans *begun;  /* (2 leaves) taken by lifetimes that begin at a step of the node */
    struct spans *lasted; /* (2 leaves) taken by lifetimes that cover the node, but not its parent */
};

static bool taken_create(struct taken *t, size_t steps)
{
    for (t->leaves = 1; t->leaves < steps; t->leaves *= 2) continue;
    t->begun = calloc(2 * t->leaves, sizeof *t->begun);
    t->lasted = calloc(2 * t->leaves, sizeof *t->lasted);
    return t->begun && t->lasted;
}

static void taken_free(struct taken *t)
{
    for (size_t k = 0; t->begun && k < 2 * t->leaves; k++) free(t->begun[k].list);
    for (size_t k = 0; t->lasted && k < 2 * t->leaves; k++) free(t->lasted[k].list);
    free(t->begun);
    free(t->lasted);
}

static bool spans_add(struct spans *s, struct span add)
{
    size_t first = 0, end = s->count;
    while (first < end) { /* finds the first span that ends at add.from or later */
        size_t middle = first + (end - first) / 2;
        if (s->list[middle].to >= add.from)
            end = middle;
        else
            first = middle + 1;
    }
    for (end = first; end < s->count && s->list[end].from <= add.to; end++) {
        if (s->list[end].from < add.from) add.from = s->list[end].from;
        if (s->list[end].to > add.to) add.to = s->list[end].to;
    }
    if (end == first && s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 2;
        struct span *list = realloc(s->list, room * sizeof *list);
        if (!list) return false;
        s->list = list;
        s->room = room;
    }
    if (end != first + 1) /* one span replaces first .. end */
        memmove(&s->list[first + 1], &s->list[end], (s->count - end) * sizeof *s->list);
    s->count = s->count + 1 - (end - first);
    s->list[first] = add;
    return true;
}

static bool take(struct taken *t, const struct lifetime *l)
{
    struct span span = {l->offset, l->offset + l->bytes};
    bool fits = true;
    for (size_t k = t->leaves + l->first; k && fits; k /= 2) fits = spans_add(&t->begun[k], span);
    for (size_t a = t->leaves + l->first, b = t->leaves + l->last + 1; a < b && fits; a /= 2, b /= 2) {
        if (a & 1) fits = spans_add(&t->lasted[a++], span);
        if (b & 1 && fits) fits = spans_add(&t->lasted[--b], span);
    }
    return fits;
}

enum { MOST_SETS = 3 * 64 + 3 }; /* three per level of the tree */

/* The spans of a set that may still be in the way. */
struct rest {
    const struct span *next, *end;
};

static size_t rest_of(struct rest *to, const struct spans *s)
{
    if (s->count) *to = (struct rest){s->list, s->list + s->count};
    return s->count > 0;
}

/* Collects the sets that hold the bytes of all lifetimes that meet first..last. */
static size_t meeting(struct rest sets[MOST_SETS], const struct taken *t, size_t first, size_t last)
{
    size_t n = 0;
    for (size_t a = t->leaves + first, b = t->leaves + last + 1; a < b; a /= 2, b /= 2) {
        if (a & 1) n += rest_of(&sets[n], &t->begun[a++]);
        if (b & 1) n += rest_of(&sets[n], &t->begun[--b]);
    }
    for (size_t k = t->leaves + first; k; k /= 2) n += rest_of(&sets[n], &t->lasted[k]);
    return n;
}

/* Returns the lowest free offset: visits the sets in turn and raises the offset past each span in the way, until a
 * whole round finds none. */
static size_t lowest_free(const struct taken *t, const struct lifetime *l)
{
    struct rest sets[MOST_SETS];
    size_t n = meeting(sets, t, l->first, l->last), offset = 0, i = 0, quiet = 0;
    while (quiet++ < n) {
        if (i >= n) i = 0;
        struct rest *r = &sets[i++];
        if (r->next->from >= offset + l->bytes) continue;
        for (; r->next < r->end && r->next->from < offset + l->bytes; r->next++)
            if (r->next->to > offset) offset = r->next->to;
        if (r->next == r->end) *r = sets[--n];
        quiet = 0;
    }
    return offset;
}

/* ---- lifetimes ---- */

/* Lists the lifetimes of the activations and the scratch. `unwritten` becomes the first activation that a node reads
 * before any node writes it. */
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

static elbo_status place(struct plan *plan, struct lifetime *lives, size_t n, size_t values, size_t steps,
                         elbo_error *error)
{
    struct taken taken = {0};
    bool fits = taken_create(&taken, steps + 1); /* + 1: the host reads kept values after the last step */
    qsort(lives, n, sizeof *lives, larger_first);
    for (size_t i = 0; i < n && fits; i++) {
        struct lifetime *l = &lives[i];
        l->offset = lowest_free(&taken, l);
        fits = take(&taken, l);
        *(l->value < values ? &plan->offset[l->value] : &plan->scratch[l->value - values]) = l->offset;
        plan->sum += l->bytes;
        if (l->offset + l->bytes > plan->bytes) plan->bytes = l->offset + l->bytes;
    }
    taken_free(&taken);
    return fits ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to plan %zu values", values);
}

elbo_status plan_create(struct plan *plan, const struct graph *g, const size_t *scratch, elbo_error *error)
{
    const uint32_t *order;
    size_t values = graph_values(g), steps = graph_schedule(g, &order);
    *plan = (struct plan){.offset = calloc(values, sizeof(size_t)), .scratch = calloc(steps + 1, sizeof(size_t))};
    struct lifetime *lives = malloc((values + steps) * sizeof *lives);
    value unwritten = NO_VALUE;
    elbo_status status = plan->offset && plan->scratch && lives
                             ? ELBO_OK
                             : elbo_fail(error, ELBO_MEMORY, "no memory to plan %zu values", values);
    size_t n = status ? 0 : collect(g, scratch, lives, &unwritten);
    if (unwritten.index)
        status = elbo_fail(error, ELBO_INTERNAL, "the graph reads %s before it is computed",
                           graph_value(g, unwritten)->name);
    if (!status) status = place(plan, lives, n, values, steps, error);
    free(lives);
    if (status) plan_free(plan);
    return status;
}

void plan_free(struct plan *plan)
{
    free(plan->offset);
    free(plan->scratch);
    *plan = (struct plan){0};
}
