#include "parallel/reduction.h"
#include "graph/parameters.h"

#include <stdlib.h>

enum { BLOCK = PARAMETER_ALIGNMENT };

struct root {
    struct lane_run lanes;
    size_t rank;
    float *data; /* of the bucket at hand: this rank's piece */
};

struct reduction {
    struct reduction_options o;
    size_t ranks, rank;
    struct lane_run own;
    float *aside;         /* (aside_room, elements) sums that wait for their right neighbours; at the end: roots, but the last */
    size_t aside_room, aside_count;
    struct root *roots;   /* of all ranks, in the order of lanes        */
    size_t root_count, own_roots, root;
    float *received;      /* (root_count - own_roots, largest piece)    */
    struct transfer *transfers;
    size_t transfer_count;
};

static struct lane_run piece_of(size_t count, size_t ranks, size_t rank)
{
    struct lane_run blocks = lane_run_of(count / BLOCK, ranks, rank);
    return (struct lane_run){blocks.first * BLOCK, blocks.count * BLOCK};
}

static size_t roots_in_all(size_t lanes, size_t ranks)
{
    size_t count = 0;
    for (size_t r = 0; r < ranks; r++) count += lanes_roots(NULL, lanes, lane_run_of(lanes, ranks, r));
    return count;
}

static size_t bucket_size(const struct reduction_options *o)
{
    return o->bucket && o->bucket < o->elements ? o->bucket : o->elements;
}

static size_t received_elements(const struct reduction_options *o, size_t ranks, size_t rank)
{
    if (!o->ordered || ranks == 1) return 0;
    size_t foreign = roots_in_all(o->lanes, ranks) - lanes_roots(NULL, o->lanes, lane_run_of(o->lanes, ranks, rank));
    return foreign * piece_of(bucket_size(o), ranks, 0).count; /* the first piece is the largest */
}

static elbo_status list_roots(struct reduction *r, elbo_error *error)
{
    size_t lanes = r->o.lanes;
    struct lane_run *runs = malloc(lanes * sizeof *runs);
    r->root_count = roots_in_all(lanes, r->ranks);
    r->own_roots = lanes_roots(NULL, lanes, r->own);
    r->roots = calloc(r->root_count, sizeof *r->roots);
    r->transfers = calloc(2 * r->ranks * r->root_count, sizeof *r->transfers);
    for (size_t rank = 0, n = 0; rank < r->ranks && runs && r->roots; rank++) {
        size_t count = lanes_roots(runs, lanes, lane_run_of(lanes, r->ranks, rank));
        for (size_t i = 0; i < count; i++) r->roots[n++] = (struct root){.lanes = runs[i], .rank = rank};
    }
    free(runs);
    return runs && r->roots && r->transfers ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to plan the sum over %zu lanes", lanes);
}

elbo_status reduction_create(struct reduction **out, const struct reduction_options *options, elbo_error *error)
{
    struct reduction *r = calloc(1, sizeof *r);
    if (!r) return elbo_fail(error, ELBO_MEMORY, "no memory for the sum over ranks");
    r->o = *options;
    r->ranks = options->collectives ? options->collectives->ranks : 1;
    r->rank = options->collectives ? options->collectives->rank : 0;
    r->own = lane_run_of(options->lanes, r->ranks, r->rank);
    r->aside_room = lanes_aside(options->lanes, r->own);
    size_t received = received_elements(options, r->ranks, r->rank);
    struct backend *b = options->backend;
    elbo_status status = list_roots(r, error);
    if (!status && r->aside_room)
        status = b->allocate(b, (void **)&r->aside, r->aside_room * options->elements * sizeof *r->aside, "the sums of lanes", error);
    if (!status && received)
        status = b->allocate(b, (void **)&r->received, received * sizeof *r->received, "the sums of other ranks", error);
    if (status) {
        reduction_free(r);
        return status;
    }
    *out = r;
    return ELBO_OK;
}

void reduction_free(struct reduction *r)
{
    if (!r) return;
    if (r->aside) r->o.backend->release(r->o.backend, r->aside);
    if (r->received) r->o.backend->release(r->o.backend, r->received);
    free(r->roots);
    free(r->transfers);
    free(r);
}

struct lane_run reduction_own(const struct reduction *r)
{
    return r->own;
}

static float *aside(const struct reduction *r, size_t k)
{
    return r->aside + k * r->o.elements;
}

void reduction_lane(struct reduction *r, size_t lane)
{
    struct backend *b = r->o.backend;
    for (size_t joined = lanes_joined(r->o.lanes, r->own, lane); joined--;)
        b->accumulate(b, r->o.arena, aside(r, --r->aside_count), r->o.elements);
    if (lane + 1 < r->own.first + r->own.count)
        b->copy(b, aside(r, r->aside_count++), r->o.arena, r->o.elements * sizeof *r->o.arena);
}

/* ---- between ranks, a bucket at a time ---- */

static void add_transfer(struct reduction *r, size_t peer, float *data, size_t elements, bool receive)
{
    if (elements) r->transfers[r->transfer_count++] = (struct transfer){peer, data, elements * sizeof *data, receive};
}

static elbo_status exchange(struct reduction *r, elbo_error *error)
{
    size_t count = r->transfer_count;
    r->transfer_count = 0;
    return r->o.collectives->exchange(r->o.collectives, r->transfers, count, error);
}

/* This rank's i-th root, from element `first` of the arena on. */
static float *own_root(const struct reduction *r, size_t i, size_t first)
{
    return (i + 1 < r->own_roots ? aside(r, i) : r->o.arena) + first;
}

/* Every rank gets the others' roots of its piece. */
static elbo_status send_roots(struct reduction *r, size_t first, size_t count, struct lane_run mine, elbo_error *error)
{
    size_t foreign = 0, own = 0;
    for (size_t i = 0; i < r->root_count; i++) {
        struct root *root = &r->roots[i];
        if (root->rank != r->rank) {
            root->data = r->received + foreign++ * mine.count;
            add_transfer(r, root->rank, root->data, mine.count, true);
            continue;
        }
        root->data = own_root(r, own, first + mine.first);
        for (size_t q = 0; q < r->ranks; q++) {
            struct lane_run theirs = piece_of(count, r->ranks, q);
            if (q != r->rank) add_transfer(r, q, own_root(r, own, first + theirs.first), theirs.count, false);
        }
        own++;
    }
    return exchange(r, error);
}

/* The sum of a node of the tree, in the place of its leftmost root. */
static float *add_up(struct reduction *r, struct lane_run node, size_t elements)
{
    const struct root *next = &r->roots[r->root];
    if (next->lanes.first == node.first && next->lanes.count == node.count) return r->roots[r->root++].data;
    size_t left = lanes_left(node.count);
    float *sum = add_up(r, (struct lane_run){node.first, left}, elements);
    const float *right = add_up(r, (struct lane_run){node.first + left, node.count - left}, elements);
    r->o.backend->accumulate(r->o.backend, sum, right, elements);
    return sum;
}

static elbo_status return_pieces(struct reduction *r, size_t first, size_t count, struct lane_run mine, elbo_error *error)
{
    for (size_t q = 0; q < r->ranks; q++) {
        struct lane_run theirs = piece_of(count, r->ranks, q);
        if (q == r->rank) continue;
        add_transfer(r, q, r->o.arena + first + theirs.first, theirs.count, true);
        add_transfer(r, q, r->o.arena + first + mine.first, mine.count, false);
    }
    return exchange(r, error);
}

static elbo_status reduce(struct reduction *r, size_t first, size_t count, elbo_error *error)
{
    struct backend *b = r->o.backend;
    struct lane_run mine = piece_of(count, r->ranks, r->rank);
    ELBO_TRY(send_roots(r, first, count, mine, error));
    if (mine.count) {
        float *to = r->o.arena + first + mine.first;
        r->root = 0;
        const float *sum = add_up(r, (struct lane_run){0, r->o.lanes}, mine.count);
        if (sum != to) b->copy(b, to, sum, mine.count * sizeof *to);
    }
    return return_pieces(r, first, count, mine, error);
}

elbo_status reduction_finish(struct reduction *r, elbo_error *error)
{
    struct collectives *c = r->o.collectives;
    size_t bucket = bucket_size(&r->o);
    if (r->ranks == 1) return ELBO_OK;
    if (!r->o.ordered) return c->sum(c, r->o.arena, r->o.elements, error);
    for (size_t first = 0; first < r->o.elements; first += bucket)
        ELBO_TRY(reduce(r, first, r->o.elements - first < bucket ? r->o.elements - first : bucket, error));
    r->aside_count = 0;
    return ELBO_OK;
}

size_t reduction_bytes(size_t elements, size_t lanes, size_t ranks, size_t rank, bool ordered, size_t bucket)
{
    struct reduction_options o = {.elements = elements, .lanes = lanes, .ordered = ordered, .bucket = bucket};
    return (lanes_aside(lanes, lane_run_of(lanes, ranks, rank)) * elements + received_elements(&o, ranks, rank)) * sizeof(float);
}
