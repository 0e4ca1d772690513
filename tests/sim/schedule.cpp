/* Runs the blocks of a kernel, a block's warps between two barriers, a warp's lanes between two warp operations.
 *
 * One warp runs through its own operations up to the next block barrier before the next warp starts: whatever a missing
 * barrier left unordered is then as far apart as it can be, and differs between the orders. Results of a warp operation
 * are computed when its last lane arrives. */
#include "private.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

struct sim_place sim_place;

namespace sim
{

enum { MASKS = 64, WARP = 32, MOST_THREADS = 1024, REDZONE = 64, STATIC_LIMIT = 48 << 10 };
enum lane_state { FRESH, READY, AT_WARP, AT_BLOCK, DONE };

struct lane {
    lane_state state;
    struct fiber *fiber;
    uint3 index;
    const char *file; /* where it waits */
    int line;
    sim_operation operation;
    unsigned mask;
    int source;
    uint64_t bits, result;
    void (*together)(void *const *lanes);
    unsigned char barriers, operations[MASKS]; /* passed so far, the latter by mask; for the thread sanitizer */
};

struct shared_array {
    const void *site;
    const char *name;
    size_t at, bytes;
};

static lane lanes[MOST_THREADS];
static unsigned threads;
static lane *current;
static const std::function<void()> *body;
static uint64_t dice;
alignas(4096) static unsigned char shared[SHARED_LIMIT + 65 * 1024];
static size_t shared_used, shared_total, shared_static;
static std::vector<shared_array> arrays;
/* Points of order alternate: who leaves one barrier early and comes to the next must not be taken to be before those
 * who have yet to leave the first. */
static char start_point, end_point, block_point[2], warp_point[MOST_THREADS / WARP][MASKS][2];

static uint64_t roll()
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice;
}

static void arrange(std::vector<unsigned> &order, size_t count)
{
    order.resize(count);
    for (size_t i = 0; i < count; i++) order[i] = (unsigned)i;
    if (the().order == SIM_REVERSED) std::reverse(order.begin(), order.end());
    if (the().order == SIM_RANDOM)
        for (size_t i = count; i > 1; i--) std::swap(order[i - 1], order[roll() % i]);
}

/* ---- reports ---- */

static const char *operation_name(const lane &l)
{
    if (l.state == AT_BLOCK) return "__syncthreads";
    return l.operation == SIM_SYNCWARP  ? "__syncwarp"
           : l.operation == SIM_SHUFFLE ? "a shuffle"
           : l.operation == SIM_BALLOT  ? "a vote"
                                        : "a matrix operation";
}

static std::string whereabouts(const lane &l)
{
    char text[512];
    unsigned number = (unsigned)(&l - lanes);
    if (l.state == DONE)
        snprintf(text, sizeof text, "thread %u has exited", number);
    else
        snprintf(text, sizeof text, "thread %u waits at %s:%d (%s)", number, l.file, l.line, operation_name(l));
    return text;
}

/* ---- warp operations ---- */

static void finish(unsigned first, unsigned mask)
{
    uint64_t votes = 0;
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1 && lanes[first + i].bits) votes |= 1u << i;
    for (unsigned i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        lane &l = lanes[first + i];
        l.result = votes;
        if (l.operation == SIM_SHUFFLE) {
            unsigned source = l.source < 0 ? i : (unsigned)l.source;
            if (!(mask >> source & 1))
                report("%s and reads lane %u, which is not in its mask %08x", whereabouts(l).c_str(), source, mask);
            l.result = lanes[first + source].bits;
        }
    }
    if (lanes[first].operation == SIM_TOGETHER) {
        void *all[WARP];
        for (unsigned i = 0; i < WARP; i++) all[i] = reinterpret_cast<void *>(lanes[first + i].bits);
        lanes[first].together(all);
    }
    for (unsigned i = 0; i < WARP; i++)
        if (mask >> i & 1) lanes[first + i].state = READY;
}

/* Finishes every operation of the warp whose lanes have all arrived. When it returns false, lanes that still wait at
 * one can never be served. */
static bool finish_complete(unsigned first, unsigned count)
{
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        const lane &l = lanes[first + i];
        if (l.state != AT_WARP) continue;
        bool complete = true;
        for (unsigned j = 0; j < WARP && complete; j++) {
            if (!(l.mask >> j & 1)) continue;
            const lane &other = lanes[first + j];
            complete = j < count && other.state == AT_WARP && other.mask == l.mask && other.line == l.line &&
                       other.operation == l.operation && !strcmp(other.file, l.file);
        }
        if (!complete) continue;
        finish(first, l.mask);
        any = true;
    }
    return any;
}

static void report_stuck(unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const lane &l = lanes[first + i];
        if (l.state != AT_WARP) continue;
        for (unsigned j = 0; j < WARP; j++) {
            if (!(l.mask >> j & 1)) continue;
            if (j >= count)
                report("%s with lane %u in its mask %08x, which the block does not have", whereabouts(l).c_str(), j,
                       l.mask);
            const lane &other = lanes[first + j];
            if (other.state != AT_WARP || other.mask != l.mask || other.line != l.line || strcmp(other.file, l.file))
                report("divergent warp operation: %s with lane %u in its mask %08x, but %s", whereabouts(l).c_str(), j,
                       l.mask, whereabouts(other).c_str());
        }
    }
}

/* ---- blocks ---- */

static void run_lane(lane &l)
{
    if (l.state == FRESH) {
        l.fiber = fiber_take();
        l.state = READY;
    }
    current = &l;
    sim_place.thread = l.index;
    fiber_enter(l.fiber);
    if (l.state == DONE && fiber_reuse) fiber_give(l.fiber);
}

static void run_warp(unsigned warp)
{
    static std::vector<unsigned> order;
    unsigned first = warp * WARP, count = std::min<unsigned>(WARP, threads - first);
    do {
        arrange(order, count);
        for (unsigned i : order)
            if (lanes[first + i].state == FRESH || lanes[first + i].state == READY) run_lane(lanes[first + i]);
    } while (finish_complete(first, count));
    report_stuck(first, count);
}

/* All threads have exited or wait at a barrier. False when the block is done. */
static bool pass_barrier()
{
    const lane *waiting = nullptr, *exited = nullptr;
    for (unsigned i = 0; i < threads; i++) {
        const lane &l = lanes[i];
        if (l.state == DONE) {
            exited = &l;
        } else {
            if (waiting && (waiting->line != l.line || strcmp(waiting->file, l.file)))
                report("divergent barrier: %s, but %s", whereabouts(*waiting).c_str(), whereabouts(l).c_str());
            waiting = &l;
        }
    }
    if (!waiting) return false;
    if (exited) report("divergent barrier: %s, but %s", whereabouts(*waiting).c_str(), whereabouts(*exited).c_str());
    for (unsigned i = 0; i < threads; i++) lanes[i].state = READY;
    return true;
}

/* Space for an array with a redzone behind it. Fresh memory is NaN, in random order huge: fmax and fmin hide a NaN. */
static size_t place(size_t bytes)
{
    size_t at = shared_used, room = (bytes + 15) / 16 * 16;
    if (at + room + REDZONE > sizeof shared) report("more shared memory than a block may have");
    fiber_fresh(shared + at, bytes, the().order == SIM_RANDOM ? PATTERN_HUGE : PATTERN_NAN);
    fiber_fresh(shared + at + bytes, room - bytes + REDZONE, PATTERN_NAN);
    shared_used = at + room + REDZONE;
    SIM_CLOSE(shared + at + bytes, shared_used - at - bytes);
    return at;
}

static void open_shared(const launch &l)
{
    shared_used = REDZONE;
    shared_total = l.shared_bytes;
    shared_static = 0;
    arrays.clear();
    fiber_renew(shared, sizeof shared);
    memset(shared, 0xff, REDZONE);
    SIM_CLOSE(shared, REDZONE);
    arrays.push_back({nullptr, "the dynamic shared array", place(l.shared_bytes), l.shared_bytes});
}

static void close_shared()
{
    SIM_OPEN(shared, sizeof shared);
    size_t from = 0;
    const char *before = "the first shared array";
    for (const shared_array &a : arrays) {
        for (size_t i = from; i < a.at; i++)
            if (shared[i] != 0xff) report("a write outside the shared array: %zu bytes past %s", i - from, before);
        from = a.at + a.bytes;
        before = a.name;
    }
    for (size_t i = from; i < shared_used; i++)
        if (shared[i] != 0xff) report("a write outside the shared array: %zu bytes past %s", i - from, before);
}

static void run_block(const launch &l)
{
    static std::vector<unsigned> order;
    threads = l.block.x * l.block.y * l.block.z;
    for (unsigned i = 0; i < threads; i++) {
        lanes[i].state = FRESH;
        if (!fiber_reuse) {
            lanes[i].barriers = 0;
            memset(lanes[i].operations, 0, sizeof lanes[i].operations);
        }
        lanes[i].index = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
    }
    open_shared(l);
    fiber_release(&start_point); /* of what the scheduler did: blocks are not ordered by it */
    do {
        arrange(order, (threads + WARP - 1) / WARP);
        for (unsigned w : order) run_warp(w);
    } while (pass_barrier());
    if (!fiber_reuse)
        for (unsigned i = threads; i-- > 0;) fiber_give(lanes[i].fiber);
    copies_end(threads);
    close_shared();
}

void run_kernel(const launch &l, const std::function<void()> &work)
{
    std::vector<unsigned> order;
    open_device open;
    dice = the().seed * 0x9e3779b97f4a7c15u | 1;
    body = &work;
    the().kernel = l.kernel;
    sim_place.block_size = l.block;
    sim_place.grid_size = l.grid;
    fiber_release(&start_point);
    arrange(order, (size_t)l.grid.x * l.grid.y * l.grid.z);
    for (unsigned b : order) {
        sim_place.block = {b % l.grid.x, b / l.grid.x % l.grid.y, b / l.grid.x / l.grid.y};
        run_block(l);
    }
    fiber_acquire(&end_point);
    the().kernel = nullptr;
}

void fiber_main(fiber *self)
{
    for (;;) {
        fiber_acquire(&start_point);
        (*body)();
        fiber_release(&end_point);
        current->state = DONE;
        fiber_leave(self);
    }
}

} // namespace sim

/* ---- what kernels call ---- */

using namespace sim;

void sim_block_barrier(const char *file, int line)
{
    lane *self = current;
    self->state = AT_BLOCK;
    self->file = file;
    self->line = line;
    char *point = &block_point[self->barriers++ % 2];
    fiber_release(point);
    fiber_leave(self->fiber);
    fiber_acquire(point);
}

uint64_t sim_warp_operation(sim_operation operation, unsigned mask, uint64_t bits, int source, const char *file,
                            int line)
{
    lane *self = current;
    unsigned number = (unsigned)(self - lanes);
    self->state = AT_WARP;
    self->file = file;
    self->line = line;
    self->operation = operation;
    self->mask = mask;
    self->bits = bits;
    self->source = source;
    if (!(mask >> number % WARP & 1)) report("%s and is not in its own mask %08x", whereabouts(*self).c_str(), mask);
    unsigned slot = mask * 0x9e3779b9u >> 26;
    char *point = &warp_point[number / WARP][slot][self->operations[slot]++ % 2];
    fiber_release(point);
    fiber_leave(self->fiber);
    fiber_acquire(point);
    return self->result;
}

void sim_warp_together(void *mine, void (*together)(void *const *lanes), const char *file, int line)
{
    current->together = together;
    sim_warp_operation(SIM_TOGETHER, 0xffffffffu, reinterpret_cast<uint64_t>(mine), -1, file, line);
}

void sim_check_shared(const void *p, const char *file, int line)
{
    size_t at = (size_t)((uintptr_t)p - (uintptr_t)shared);
    if (at % 16 || at >= shared_used)
        report("%s:%d: 16 bytes at %p, which is not shared memory or not aligned", file, line, p);
}

void *sim_shared_array(const void *site, size_t bytes, const char *name)
{
    for (const shared_array &a : arrays)
        if (a.site == site) return shared + a.at;
    shared_static += bytes;
    shared_total += bytes;
    if (shared_static > STATIC_LIMIT || shared_total > SHARED_LIMIT)
        report("%zu bytes of static shared arrays, %zu in all, with %s: the limits are %d and %d", shared_static,
               shared_total, name, (int)STATIC_LIMIT, (int)SHARED_LIMIT);
    arrays.push_back({site, name, place(bytes), bytes});
    return shared + arrays.back().at;
}

void *sim_shared_dynamic()
{
    return shared + arrays[0].at;
}
