/* lanes: runs cover all lanes, roots are the largest nodes of the tree, and the sums that are set aside and joined form
 * the tree. */
#include "step/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 40, TEXT = 1024 };

/* Writes the tree as text, e.g. "((0+1)+2)". */
static void write_node(char *text, size_t first, size_t count)
{
    char left[TEXT], right[TEXT];
    if (count == 1) {
        snprintf(text, TEXT, "%zu", first);
        return;
    }
    size_t half = 1;
    while (half * 2 < count) half *= 2;
    write_node(left, first, half);
    write_node(right, first + half, count - half);
    assert_true((size_t)snprintf(text, TEXT, "(%.500s+%.500s)", left, right) < TEXT);
}

static void runs_cover_the_whole(void **state)
{
    (void)state;
    for (size_t whole = 0; whole < MOST; whole++)
        for (size_t n = 1; n < MOST; n++) {
            size_t at = 0, most = 0, fewest = whole;
            for (size_t r = 0; r < n; r++) {
                struct lane_run run = lane_run_of(whole, n, r);
                assert_int_equal(run.first, at);
                at += run.count;
                most = run.count > most ? run.count : most;
                fewest = run.count < fewest ? run.count : fewest;
            }
            assert_int_equal(at, whole);
            assert_true(most - fewest <= 1);
        }
}

/* Works through a rank's lanes as a reduction does, on text. The remaining sums are the roots. */
static size_t work_through(char sums[][TEXT], size_t lanes, struct lane_run own)
{
    size_t aside = 0, most = 0;
    char both[TEXT];
    for (size_t l = own.first; l < own.first + own.count; l++) {
        char now[TEXT];
        snprintf(now, sizeof now, "%zu", l);
        for (size_t joined = lanes_joined(lanes, own, l); joined--;) {
            snprintf(both, sizeof both, "(%.500s+%.500s)", sums[--aside], now);
            memcpy(now, both, sizeof now);
        }
        memcpy(sums[aside++], now, sizeof now);
        if (l + 1 < own.first + own.count && aside > most) most = aside;
    }
    assert_int_equal(most, lanes_aside(lanes, own));
    return aside;
}

/* Checks that the roots of all ranks, joined along the rest of the tree, give the tree. */
static void check_tree(char roots[][TEXT], const struct lane_run *nodes, size_t *next, char *out, size_t first,
                       size_t count)
{
    char left[TEXT], right[TEXT];
    if (nodes[*next].first == first && nodes[*next].count == count) {
        memcpy(out, roots[(*next)++], TEXT);
        return;
    }
    assert_true(count > 1);
    size_t half = lanes_left(count);
    check_tree(roots, nodes, next, left, first, half);
    check_tree(roots, nodes, next, right, first + half, count - half);
    snprintf(out, TEXT, "(%.500s+%.500s)", left, right);
}

static void every_number_of_ranks_adds_the_same_tree(void **state)
{
    static char roots[2 * MOST][TEXT];
    (void)state;
    for (size_t lanes = 1; lanes <= MOST; lanes++)
        for (size_t ranks = 1; ranks <= lanes; ranks++) {
            struct lane_run nodes[2 * MOST];
            size_t count = 0, next = 0;
            char wanted[TEXT], got[TEXT];
            for (size_t r = 0; r < ranks; r++) {
                struct lane_run own = lane_run_of(lanes, ranks, r);
                size_t n = lanes_roots(nodes + count, lanes, own);
                assert_int_equal(n, lanes_roots(NULL, lanes, own));
                assert_int_equal(n, work_through(roots + count, lanes, own));
                for (size_t i = count; i < count + n; i++) { /* each root is the sum of its node */
                    write_node(wanted, nodes[i].first, nodes[i].count);
                    assert_string_equal(roots[i], wanted);
                }
                count += n;
            }
            check_tree(roots, nodes, &next, got, 0, lanes);
            write_node(wanted, 0, lanes);
            assert_string_equal(got, wanted);
            assert_int_equal(next, count);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_cover_the_whole),
                                       cmocka_unit_test(every_number_of_ranks_adds_the_same_tree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
