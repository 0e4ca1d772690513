/* Contiguous runs of lanes, and the binary tree along which lanes are added. */
#include "step/lanes.h"

struct lane_run lane_run_of(size_t whole, size_t n, size_t r)
{
    size_t each = whole / n, more = whole % n; /* the first `more` runs have one more */
    return (struct lane_run){r * each + (r < more ? r : more), each + (r < more)};
}

size_t lanes_left(size_t count)
{
    size_t left = 1;
    while (2 * left < count) left *= 2;
    return left;
}

static bool within(struct lane_run node, struct lane_run own)
{
    return node.first >= own.first && node.first + node.count <= own.first + own.count;
}

static size_t roots_below(struct lane_run *roots, struct lane_run node, struct lane_run own)
{
    if (node.first + node.count <= own.first || own.first + own.count <= node.first) return 0;
    if (within(node, own)) {
        if (roots) *roots = node;
        return 1;
    }
    size_t left = lanes_left(node.count);
    size_t n = roots_below(roots, (struct lane_run){node.first, left}, own);
    return n + roots_below(roots ? roots + n : NULL, (struct lane_run){node.first + left, node.count - left}, own);
}

size_t lanes_roots(struct lane_run *roots, size_t lanes, struct lane_run own)
{
    return own.count ? roots_below(roots, (struct lane_run){0, lanes}, own) : 0;
}

size_t lanes_joined(size_t lanes, struct lane_run own, size_t lane)
{
    struct lane_run node = {0, lanes};
    size_t joined = 0;
    /* Descend to the lane. Each whole node of the rank that ends with the lane is complete now, and its left part was
     * set aside. */
    while (node.count > 1) {
        size_t left = lanes_left(node.count);
        if (within(node, own) && node.first + node.count == lane + 1) joined++;
        if (lane < node.first + left) {
            node.count = left;
        } else {
            node.first += left;
            node.count -= left;
        }
    }
    return joined;
}

size_t lanes_aside(size_t lanes, struct lane_run own)
{
    size_t aside = 0, most = 0;
    for (size_t l = own.first; l + 1 < own.first + own.count; l++) {
        aside = aside + 1 - lanes_joined(lanes, own, l);
        if (aside > most) most = aside;
    }
    return most;
}
