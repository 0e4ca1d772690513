/* The proof of a protocol of system calls: no state that a power failure may leave is bad, and with any place in the
 * code that makes something durable taken away, one is. Include after cmocka.h. */
#ifndef TESTS_CRASH_PROOF_H
#define TESTS_CRASH_PROOF_H

#include "crash_states.h"

/* A count for every commit, and one for ELBO_TEST_FULL=1. */
static inline size_t crash_full(size_t quick, size_t many)
{
    return getenv("ELBO_TEST_FULL") ? many : quick;
}

struct crash_fixture {
    struct temporary folder;
    char live[256], run[320], scratch[256];
    struct crash_log log;
};

static inline int crash_setup(void **state)
{
    struct crash_fixture *f = calloc(1, sizeof *f);
    *state = f;
    snprintf(f->folder.path, sizeof f->folder.path, "%s/elbo-power-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(f->folder.path)) return -1;
    snprintf(f->live, sizeof f->live, "%s/live", f->folder.path);
    snprintf(f->run, sizeof f->run, "%s/run", f->live);
    snprintf(f->scratch, sizeof f->scratch, "%s/state", f->folder.path);
    return 0;
}

static inline int crash_teardown(void **state)
{
    struct crash_fixture *f = *state;
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

enum { CRASH_SITES = 256 };

struct crash_total {
    size_t states, distinct, bad, sites, removals;
    struct {
        uint64_t site;
        bool noticed;
        char text[WATCH_PATH + 160];
    } site[CRASH_SITES];
};

/* The place of a site in the table. */
static inline size_t crash_site_of(struct crash_total *total, const struct crash_log *log, size_t call,
                                   const char *scene)
{
    size_t i = 0;
    while (i < total->sites && total->site[i].site != log->calls[call].site) i++;
    if (i < total->sites) return i;
    assert_true(total->sites < CRASH_SITES);
    char text[WATCH_PATH + 64];
    total->site[i].site = log->calls[call].site;
    snprintf(total->site[i].text, sizeof total->site[i].text, "%.80s: %s", scene, crash_call_text(text, log, call));
    return total->sites++;
}

/* No state is bad. Then again with each place in the code that makes something durable away: is one found? */
static inline void crash_prove(struct crash_fixture *f, const char *name,
                               const char *(*fault)(void *, const char *, size_t), void *context,
                               struct crash_total *total)
{
    struct crash_search s = {
        .scratch = f->scratch, .fault = fault, .context = context, .random_states = crash_full(10, 80)};
    crash_search(&f->log, 0, &s);
    if (s.bad) print_error("%s: %zu of %zu states are bad; %s\n", name, s.bad, s.distinct, s.first);
    total->states += s.states;
    total->distinct += s.distinct;
    total->bad += s.bad;
    crash_search_free(&s);
    for (size_t i = 0; i < f->log.count; i++) {
        const struct crash_call *call = &f->log.calls[i];
        if (call->kind != CALL_FSYNC && call->kind != CALL_RENAME) continue;
        size_t site = crash_site_of(total, &f->log, i, name), earlier = 0;
        while (f->log.calls[earlier].site != call->site) earlier++;
        if (earlier < i || total->site[site].noticed) continue;
        struct crash_search without = {
            .scratch = f->scratch, .fault = fault, .context = context, .random_states = 4, .stop_at_first = true};
        crash_search(&f->log, call->site, &without);
        crash_search_free(&without);
        total->removals++;
        total->site[site].noticed = without.bad;
    }
    crash_free(&f->log);
}

/* Prints the figures and what was taken away and not missed; how many of those. `why`: what makes it good, NULL:
 * nothing. */
static inline size_t crash_report(const struct crash_total *total, const char *name, const char *why)
{
    size_t unnoticed = 0;
    for (size_t i = 0; i < total->sites; i++) {
        if (total->site[i].noticed) continue;
        unnoticed++;
        if (why)
            print_message("taken away, and %s: %s\n", why, total->site[i].text);
        else
            print_error("taken away, and nothing was found: %s\n", total->site[i].text);
    }
    print_message("figure %s.states %zu\nfigure %s.distinct %zu\nfigure %s.bad %zu\n", name, total->states, name,
                  total->distinct, name, total->bad);
    print_message("figure %s.syncs_and_renames_in_code %zu\nfigure %s.removals_unnoticed %zu\n", name, total->sites,
                  name, unnoticed);
    return unnoticed;
}

#endif
