/* Keeps quantized weights packed, in a hash table by their address. */
#include "cpu/quantized/packed.h"

#include "base/pool.h"

#include <stdlib.h>

struct packed_weight {
    const void *w;
    enum block_type type;
    size_t n, k, uses;
    char *panels; /* null: not packed */
};

static struct packed_weight *place_of(const struct packed_weights *p, const void *w)
{
    size_t at = (size_t)((uintptr_t)w >> 5) * 0x9e3779b97f4a7c15u >> 7;
    while (p->all[at % p->room].w && p->all[at % p->room].w != w) at++;
    return &p->all[at % p->room];
}

static bool make_room(struct packed_weights *p)
{
    struct packed_weights larger = {.room = p->room ? 2 * p->room : 64};
    if (2 * (p->count + 1) <= p->room) return true;
    larger.all = calloc(larger.room, sizeof *larger.all);
    if (!larger.all) return false;
    for (size_t i = 0; i < p->room; i++)
        if (p->all[i].w) *place_of(&larger, p->all[i].w) = p->all[i];
    free(p->all);
    p->all = larger.all;
    p->room = larger.room;
    return true;
}

struct packing {
    const struct quantized_kernel *kernel;
    struct quantized_product of;
    char *panels;
};

static size_t panel_bytes(const struct packing *p)
{
    return p->kernel->panel_bytes(p->of.type, p->of.k);
}

static void pack_panel(void *argument, size_t tile, size_t worker)
{
    const struct packing *p = argument;
    (void)worker;
    p->kernel->pack(&p->of, tile, p->panels + tile * panel_bytes(p));
}

static void keep(struct packed_weights *p, struct packed_weight *weight)
{
    struct packing all = {.kernel = p->kernel,
                          .of = {.n = weight->n, .k = weight->k, .w = weight->w, .type = weight->type}};
    size_t panels = (weight->n + p->kernel->columns - 1) / p->kernel->columns, bytes = panels * panel_bytes(&all);
    elbo_error error; /* ignored: without memory, each product packs its weights */
    if (weight->n < all.kernel->columns || bytes > p->most - p->bytes) return;
    if (p->backend->memory.allocate(p->backend, (void **)&all.panels, bytes, "packed weights", &error)) return;
    pool_run(p->backend->pool, panels, pack_panel, &all);
    weight->panels = all.panels;
    p->bytes += bytes;
}

const char *packed_weight(struct packed_weights *p, const void *w, enum block_type type, size_t n, size_t k)
{
    if (!p->most || !make_room(p)) return NULL;
    struct packed_weight *found = place_of(p, w);
    if (!found->w) {
        *found = (struct packed_weight){.w = w, .type = type, .n = n, .k = k};
        p->count++;
    }
    if (found->type != type || found->n != n || found->k != k) return NULL;
    if (++found->uses == PACKED_WORTH) keep(p, found);
    return found->panels;
}

void packed_weights_free(struct packed_weights *p)
{
    for (size_t i = 0; i < p->room; i++)
        if (p->all[i].panels) p->backend->memory.release(p->backend, p->all[i].panels);
    free(p->all);
}
