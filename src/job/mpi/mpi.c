/* The collectives between CPU ranks: MPI in one thread, as the module elbo-mpi.so. All calls are non-blocking and
 * polled, so that a peer that hangs gives an error and not an endless wait. Polling yields the processor, because there
 * may be more ranks than processors. */
#include "base/clock.h"
#include "job/collectives.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LARGEST_MESSAGE = 1 << 30, PATIENCE = 1000 };

struct post {
    char *mine, *all;
    size_t bytes, room;
    MPI_Request request;
    bool live;
};

struct mpi {
    struct collectives base;
    MPI_Request *requests;
    size_t *peers; /* peer of each request */
    size_t begun, room;
    struct post posts[COLLECTIVES_POSTS];
};

static elbo_status failed(struct mpi *m, const char *what, int code, elbo_error *error)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    MPI_Error_string(code, text, &length);
    m->base.broken = true;
    return elbo_fail(error, ELBO_PEER, "rank %zu: %s failed: %s", m->base.rank, what, text);
}

/* Lists the ranks of unfinished requests: "1, 5". */
static void name_missing(struct mpi *m, size_t count, char *text, size_t size)
{
    size_t at = 0;
    bool *named = calloc(m->base.ranks, sizeof *named);
    for (size_t i = 0; i < count && named; i++) {
        int done = 0;
        MPI_Status unused;
        if (MPI_Request_get_status(m->requests[i], &done, &unused) || done || named[m->peers[i]]) continue;
        named[m->peers[i]] = true;
        int wrote = snprintf(text + at, size - at, "%s%zu", at ? ", " : "", m->peers[i]);
        at = wrote > 0 && (size_t)wrote < size - at ? at + (size_t)wrote : size - 1;
    }
    free(named);
}

static void rest(size_t *turns)
{
    if (++*turns < PATIENCE)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* Tests whether all begun requests are done. */
static elbo_status poll(struct collectives *c, bool *through, elbo_error *error)
{
    struct mpi *m = (struct mpi *)c;
    int done = 1, code = m->begun ? MPI_Testall((int)m->begun, m->requests, &done, MPI_STATUSES_IGNORE) : 0;
    if (code) return failed(m, "an exchange between ranks", code, error);
    *through = done;
    if (done) m->begun = 0;
    return ELBO_OK;
}

static elbo_status wait(struct collectives *c, elbo_error *error)
{
    struct mpi *m = (struct mpi *)c;
    double deadline = clock_seconds() + c->timeout;
    for (size_t turns = 0;; rest(&turns)) {
        bool through;
        ELBO_TRY(poll(c, &through, error));
        if (through) return ELBO_OK;
        if (turns % 64 || clock_seconds() < deadline) continue;
        char missing[256] = "none by name";
        name_missing(m, m->begun, missing, sizeof missing);
        c->broken = true;
        return elbo_fail(
            error, ELBO_PEER,
            "rank %zu waited %.0f s in vain for rank %s: dead, stopped or in trouble there; start again to "
            "go on from the last checkpoint, or raise parallel.timeout if a step may take so long",
            c->rank, c->timeout, missing);
    }
}

/* Makes room for `more` requests behind those that were begun. */
static elbo_status make_room(struct mpi *m, size_t more, elbo_error *error)
{
    size_t count = m->begun + more;
    if (count <= m->room) return ELBO_OK;
    MPI_Request *requests = realloc(m->requests, count * sizeof *requests);
    if (requests) m->requests = requests;
    size_t *peers = realloc(m->peers, count * sizeof *peers);
    if (peers) m->peers = peers;
    if (!requests || !peers) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu messages between ranks", count);
    m->room = count;
    return ELBO_OK;
}

/* Adds a message and returns the place of its request. */
static MPI_Request *place(struct mpi *m, size_t peer)
{
    m->peers[m->begun] = peer;
    return &m->requests[m->begun++];
}

static elbo_status begin(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error)
{
    struct mpi *m = (struct mpi *)c;
    size_t messages = 0;
    for (size_t i = 0; i < count; i++) messages += (list[i].bytes + LARGEST_MESSAGE - 1) / LARGEST_MESSAGE;
    ELBO_TRY(make_room(m, messages, error));
    for (size_t i = 0; i < count; i++)
        for (size_t at = 0; at < list[i].bytes; at += LARGEST_MESSAGE) {
            size_t bytes = list[i].bytes - at < LARGEST_MESSAGE ? list[i].bytes - at : LARGEST_MESSAGE;
            char *data = (char *)list[i].data + at;
            int peer = (int)list[i].peer, code;
            MPI_Request *request = place(m, list[i].peer);
            if (list[i].receive)
                code = MPI_Irecv(data, (int)bytes, MPI_BYTE, peer, 0, MPI_COMM_WORLD, request);
            else
                code = MPI_Isend(data, (int)bytes, MPI_BYTE, peer, 0, MPI_COMM_WORLD, request);
            if (code) return failed(m, "an exchange between ranks", code, error);
        }
    return ELBO_OK;
}

static elbo_status begin_sum(struct collectives *c, float *x, size_t count, elbo_error *error)
{
    struct mpi *m = (struct mpi *)c;
    const size_t most = LARGEST_MESSAGE / sizeof *x;
    ELBO_TRY(make_room(m, (count + most - 1) / most, error));
    for (size_t at = 0; at < count; at += most) {
        size_t n = count - at < most ? count - at : most;
        int code = MPI_Iallreduce(MPI_IN_PLACE, x + at, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                                  place(m, c->rank)); /* a sum does not tell which rank is late */
        if (code) return failed(m, "a sum over the ranks", code, error);
    }
    return ELBO_OK;
}

/* Stores a note. collect sends it to every rank by a message of its own, so that a missing rank can be named. */
static elbo_status post(struct collectives *c, unsigned which, const void *mine, size_t bytes, elbo_error *error)
{
    struct mpi *m = (struct mpi *)c;
    struct post *p = &m->posts[which];
    if (bytes * (c->ranks + 1) > p->room) {
        char *memory = realloc(p->mine, bytes * (c->ranks + 1));
        if (!memory)
            return elbo_fail(error, ELBO_MEMORY, "no memory for a note of %zu bytes between %zu ranks", bytes,
                             c->ranks);
        p->mine = memory;
        p->room = bytes * (c->ranks + 1);
    }
    p->all = p->mine + bytes;
    p->bytes = bytes;
    if (bytes) memcpy(p->mine, mine, bytes);
    return ELBO_OK;
}

static elbo_status collect(struct collectives *c, unsigned which, void *all, elbo_error *error)
{
    struct mpi *m = (struct mpi *)c;
    struct post *p = &m->posts[which];
    ELBO_TRY(make_room(m, 2 * c->ranks, error));
    for (size_t r = 0; r < c->ranks; r++) {
        int code = 0, bytes = (int)p->bytes;
        if (r == c->rank) continue;
        code = MPI_Irecv(p->all + r * p->bytes, bytes, MPI_BYTE, (int)r, 1, MPI_COMM_WORLD, place(m, r));
        if (!code) code = MPI_Isend(p->mine, bytes, MPI_BYTE, (int)r, 1, MPI_COMM_WORLD, place(m, r));
        if (code) return failed(m, "a note between ranks", code, error);
    }
    memcpy(p->all + c->rank * p->bytes, p->mine, p->bytes);
    ELBO_TRY(wait(c, error));
    memcpy(all, p->all, p->bytes * c->ranks);
    return ELBO_OK;
}

/* Ends MPI. A rank that ends because of a failure does not finalize, so that mpirun ends the others. */
static void destroy(struct collectives *c)
{
    struct mpi *m = (struct mpi *)c;
    if (!c->broken) MPI_Finalize();
    for (unsigned i = 0; i < COLLECTIVES_POSTS; i++) free(m->posts[i].mine);
    free(m->requests);
    free(m->peers);
    free(m);
}

/* The symbol that job/mpi_module.c looks for. */
ELBO_API elbo_status elbo_mpi_open(struct collectives **out, double timeout, elbo_error *error);

elbo_status elbo_mpi_open(struct collectives **out, double timeout, elbo_error *error)
{
    int given = 0, ranks = 0, rank = 0, there = 0;
    MPI_Finalized(&there);
    if (there) return elbo_fail(error, ELBO_INTERNAL, "MPI has ended in this process and cannot begin again");
    struct mpi *m = calloc(1, sizeof *m);
    if (!m) return elbo_fail(error, ELBO_MEMORY, "no memory for the ranks");
    MPI_Initialized(&there);
    int code = there ? 0 : MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given);
    if (!code) code = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (!code) code = MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (!code) code = MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (code) {
        free(m);
        return elbo_fail(error, ELBO_PEER, "MPI cannot begin (code %d)", code);
    }
    m->base = (struct collectives){.name = "MPI",
                                   .ranks = (size_t)ranks,
                                   .rank = (size_t)rank,
                                   .timeout = timeout,
                                   .begin = begin,
                                   .begin_sum = begin_sum,
                                   .poll = poll,
                                   .wait = wait,
                                   .post = post,
                                   .collect = collect,
                                   .destroy = destroy};
    *out = &m->base;
    return ELBO_OK;
}
