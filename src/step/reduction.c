/* The sum of gradients over lanes and ranks, bucket by bucket: ordered along the tree of lanes (roots sent, added, sums
 * returned), or by the collectives' own sum. */
#include "step/reduction.h"
#include "base/clock.h"

#include <stdlib.h>

struct root {
    struct lane_run lanes;
    size_t rank;
    /* Own root: an arena. Another rank's root: the elements of this rank's piece of the current bucket, without
     * gaps. */
    float *data;
};

enum phase { IDLE, ROOTS, SUMS }; /* of the bucket `next`: not sent; roots under way; sums under way */

struct reduction {
    struct reduction_options o;
    size_t ranks, rank;
    struct lane_run own;
    /* (aside_room, elements) sums that wait for their right neighbors; at the end, all roots except the last. */
    float *aside;
    size_t aside_room, aside_count;
    size_t last_joined; /* sums set aside that are added to the rank's last lane */
    struct root *roots; /* of all ranks, in the order of lanes */
    size_t root_count, own_roots, root;
    float *received; /* (root_count - own_roots, largest piece) */
    struct transfer *transfers;
    size_t transfer_count;
    size_t next, due; /* the current bucket; the number of ready buckets */
    enum phase phase;
    double waited, exposed;
};

static size_t roots_in_all(size_t lanes, size_t ranks)
{
    size_t count = 0;
    for (size_t r = 0; r < ranks; r++) count += lanes_roots(NULL, lanes, lane_run_of(lanes, ranks, r));
    return count;
}

static size_t received_elements(size_t lanes, size_t ranks, size_t rank, bool ordered, size_t largest)
{
    if (!ordered || ranks == 1) return 0;
    size_t foreign = roots_in_all(lanes, ranks) - lanes_roots(NULL, lanes, lane_run_of(lanes, ranks, rank));
    return foreign *
           bucket_piece(&(struct bucket){.elements = largest}, ranks, 0).count; /* the first piece is the largest */
}

static elbo_status list_roots(struct reduction *r, elbo_error *error)
{
    size_t lanes = r->o.lanes;
    struct lane_run *runs = malloc(lanes * sizeof *runs);
    r->root_count = roots_in_all(lanes, r->ranks);
    r->own_roots = lanes_roots(NULL, lanes, r->own);
    r->roots = calloc(r->root_count, sizeof *r->roots);
    r->transfers = calloc(2 * r->ranks * r->root_count * (GROUPS + 1), sizeof *r->transfers);
    for (size_t rank = 0, n = 0; rank < r->ranks && runs && r->roots; rank++) {
        size_t count = lanes_roots(runs, lanes, lane_run_of(lanes, r->ranks, rank));
        for (size_t i = 0; i < count; i++) r->roots[n++] = (struct root){.lanes = runs[i], .rank = rank};
    }
    free(runs);
    return runs && r->roots && r->transfers
               ? ELBO_OK
               : elbo_fail(error, ELBO_MEMORY, "no memory to plan the sum over %zu lanes", lanes);
}

elbo_status reduction_create(struct reduction **out, const struct reduction_options *options, elbo_error *error)
{
    struct reduction *r = calloc(1, sizeof *r);
    if (!r) return elbo_fail(error, ELBO_MEMORY, "no memory for the sum over ranks");
    r->o = *options;
    r->ranks = options->collectives ? options->collectives->ranks : 1;
    r->rank = options->collectives ? options->collectives->rank : 0;
    r->o.ordered =
        options->ordered && r->ranks > 1; /* one rank has only one order, so it uses the collectives' own sum */
    r->own = lane_run_of(options->lanes, r->ranks, r->rank);
    r->last_joined = lanes_joined(options->lanes, r->own, r->own.first + r->own.count - 1);
    r->aside_room = lanes_aside(options->lanes, r->own);
    size_t received =
        received_elements(options->lanes, r->ranks, r->rank, options->ordered, buckets_largest(options->buckets));
    struct backend *b = options->backend;
    elbo_status status = list_roots(r, error);
    if (!status && r->aside_room)
        status = b->memory.allocate(b, (void **)&r->aside, r->aside_room * options->elements * sizeof *r->aside,
                                    "the sums of lanes", error);
    if (!status && received)
        status = b->memory.allocate(b, (void **)&r->received, received * sizeof *r->received, "the sums of other ranks",
                                    error);
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
    if (r->aside) r->o.backend->memory.release(r->o.backend, r->aside);
    if (r->received) r->o.backend->memory.release(r->o.backend, r->received);
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

static bool last_lane(const struct reduction *r, size_t lane)
{
    return lane + 1 == r->own.first + r->own.count;
}

void reduction_lane(struct reduction *r, size_t lane)
{
    struct backend *b = r->o.backend;
    if (lane == r->own.first) r->aside_count = 0;
    if (last_lane(r, lane) && r->o.collectives) return; /* added bucket by bucket as they are sent */
    for (size_t joined = lanes_joined(r->o.lanes, r->own, lane); joined--;)
        b->memory.accumulate(b, r->o.arena, aside(r, --r->aside_count), r->o.elements);
    if (!last_lane(r, lane))
        b->memory.copy(b, aside(r, r->aside_count++), r->o.arena, r->o.elements * sizeof *r->o.arena);
}

/* ---- one bucket between ranks ---- */

static const struct bucket *at_hand(const struct reduction *r)
{
    return &r->o.buckets->list[r->next];
}

/* Adds the sums set aside to the rank's last lane, the newest first. */
static void join_last_lane(struct reduction *r)
{
    struct backend *b = r->o.backend;
    size_t waiting = r->own_roots - 1 + r->last_joined;
    for (size_t k = 0; k < r->last_joined; k++)
        for (size_t i = 0; i < at_hand(r)->ranges; i++) {
            struct bucket_range s = at_hand(r)->range[i];
            b->memory.accumulate(b, r->o.arena + s.first, aside(r, waiting - 1 - k) + s.first, s.count);
        }
}

static void add_transfer(struct reduction *r, size_t peer, float *data, size_t elements, bool receive)
{
    if (elements) r->transfers[r->transfer_count++] = (struct transfer){peer, data, elements * sizeof *data, receive};
}

/* Adds the transfers of a piece of the bucket from or into an arena, only ranges from element `least` on. */
static void add_piece(struct reduction *r, size_t peer, float *arena, struct lane_run piece, size_t least, bool receive)
{
    while (piece.count) {
        struct bucket_range s = bucket_take(at_hand(r), &piece);
        if (s.first >= least) add_transfer(r, peer, arena + s.first, s.count, receive);
    }
}

static elbo_status begin(struct reduction *r, elbo_error *error)
{
    size_t count = r->transfer_count;
    r->transfer_count = 0;
    return r->o.collectives->begin(r->o.collectives, r->transfers, count, error);
}

/* Sends every other rank this rank's roots of its piece, and receives the other roots of this rank's piece. Received
 * roots have no gaps, so only the sender splits a piece into ranges of the arena. */
static elbo_status send_roots(struct reduction *r, elbo_error *error)
{
    size_t foreign = 0, own = 0;
    struct lane_run mine = bucket_piece(at_hand(r), r->ranks, r->rank);
    for (size_t i = 0; i < r->root_count; i++) {
        struct root *root = &r->roots[i];
        if (root->rank != r->rank) {
            root->data = r->received + foreign++ * mine.count;
            struct lane_run left = mine;
            for (float *to = root->data; left.count;) {
                struct bucket_range s = bucket_take(at_hand(r), &left);
                add_transfer(r, root->rank, to, s.count, true);
                to += s.count;
            }
            continue;
        }
        root->data = own + 1 < r->own_roots ? aside(r, own) : r->o.arena;
        for (size_t q = 0; q < r->ranks; q++)
            if (q != r->rank) add_piece(r, q, root->data, bucket_piece(at_hand(r), r->ranks, q), 0, false);
        own++;
    }
    return begin(r, error);
}

static float *place(const struct reduction *r, const struct root *root, struct bucket_range s, size_t without_gaps)
{
    return root->data + (root->rank == r->rank ? s.first : without_gaps);
}

/* Returns the sum of a node of the tree, stored in its leftmost root. */
static const struct root *add_up(struct reduction *r, struct lane_run node, struct lane_run mine)
{
    const struct root *next = &r->roots[r->root];
    struct backend *b = r->o.backend;
    if (next->lanes.first == node.first && next->lanes.count == node.count) return &r->roots[r->root++];
    size_t left = lanes_left(node.count);
    const struct root *sum = add_up(r, (struct lane_run){node.first, left}, mine);
    const struct root *right = add_up(r, (struct lane_run){node.first + left, node.count - left}, mine);
    for (size_t at = 0; mine.count;) {
        struct bucket_range s = bucket_take(at_hand(r), &mine);
        b->memory.accumulate(b, place(r, sum, s, at), place(r, right, s, at), s.count);
        at += s.count;
    }
    return sum;
}

/* Adds up this rank's piece and sends it to every rank, except the elements that stay with their rank. */
static elbo_status return_sums(struct reduction *r, elbo_error *error)
{
    struct backend *b = r->o.backend;
    size_t at = 0;
    struct lane_run mine = bucket_piece(at_hand(r), r->ranks, r->rank), left = mine;
    r->root = 0;
    const struct root *sum = mine.count ? add_up(r, (struct lane_run){0, r->o.lanes}, mine) : NULL;
    while (left.count && sum->data != r->o.arena) {
        struct bucket_range s = bucket_take(at_hand(r), &left);
        b->memory.copy(b, r->o.arena + s.first, place(r, sum, s, at), s.count * sizeof *r->o.arena);
        at += s.count;
    }
    for (size_t q = 0; q < r->ranks; q++) {
        if (q == r->rank) continue;
        add_piece(r, q, r->o.arena, bucket_piece(at_hand(r), r->ranks, q), r->o.kept, true);
        add_piece(r, q, r->o.arena, mine, r->o.kept, false);
    }
    return begin(r, error);
}

/* ---- one bucket after the other ---- */

static elbo_status start(struct reduction *r, elbo_error *error)
{
    struct collectives *c = r->o.collectives;
    join_last_lane(r);
    r->phase = r->o.ordered ? ROOTS : SUMS;
    if (r->o.ordered) return send_roots(r, error);
    for (size_t i = 0; i < at_hand(r)->ranges; i++) {
        struct bucket_range s = at_hand(r)->range[i];
        ELBO_TRY(c->begin_sum(c, r->o.arena + s.first, s.count, error));
    }
    return ELBO_OK;
}

/* Continues after the current transfer has arrived. */
static elbo_status advance(struct reduction *r, elbo_error *error)
{
    if (r->phase == ROOTS) {
        r->phase = SUMS;
        return return_sums(r, error);
    }
    r->phase = IDLE;
    r->next++;
    return ELBO_OK;
}

/* Advances the buckets before `end` as far as possible; `patient` waits for all of them. */
static elbo_status push(struct reduction *r, size_t end, bool patient, elbo_error *error)
{
    struct collectives *c = r->o.collectives;
    while (r->next < end) {
        if (r->phase == IDLE) ELBO_TRY(start(r, error));
        bool through = false;
        ELBO_TRY(c->poll(c, &through, error));
        if (!through && !patient) return ELBO_OK;
        double before = clock_seconds();
        if (!through) ELBO_TRY(c->wait(c, error));
        r->waited += through ? 0 : clock_seconds() - before;
        ELBO_TRY(advance(r, error));
    }
    return ELBO_OK;
}

static elbo_status push_aside(struct reduction *r, size_t due, elbo_error *error)
{
    struct backend *b = r->o.backend;
    if (b->side.begin) b->side.begin(b);
    elbo_status status = push(r, r->due, true, error); /* finish the earlier buckets first */
    r->due = due;
    if (!status) status = push(r, due, false, error);
    if (b->side.end) b->side.end(b);
    return status;
}

elbo_status reduction_step(struct reduction *r, size_t step, elbo_error *error)
{
    const struct buckets *all = r->o.buckets;
    size_t due = r->due;
    if (!r->o.collectives) return ELBO_OK;
    while (due < all->count && all->list[due].ready <= step) due++;
    return due > r->due ? push_aside(r, due, error) : push(r, due, false, error);
}

elbo_status reduction_finish(struct reduction *r, elbo_error *error)
{
    struct backend *b = r->o.backend;
    if (!r->o.collectives) return ELBO_OK;
    double before = clock_seconds();
    if (r->due < r->o.buckets->count) ELBO_TRY(push_aside(r, r->o.buckets->count, error));
    ELBO_TRY(push(r, r->due, true, error));
    if (b->side.join) b->side.join(b);
    r->exposed = clock_seconds() - before;
    r->next = r->due = 0;
    return ELBO_OK;
}

double reduction_waited(struct reduction *r)
{
    double waited = r->waited;
    r->waited = 0;
    return waited;
}

double reduction_exposed(const struct reduction *r)
{
    struct backend *b = r->o.backend;
    return b->side.seconds ? b->side.seconds(b) : r->exposed;
}

size_t reduction_bytes(size_t elements, size_t lanes, size_t ranks, size_t rank, bool ordered, size_t largest)
{
    return (lanes_aside(lanes, lane_run_of(lanes, ranks, rank)) * elements +
            received_elements(lanes, ranks, rank, ordered, largest)) *
           sizeof(float);
}
