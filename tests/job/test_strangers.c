/* Strangers at the meeting: a peer without the job's secret gets nothing of the shared bytes and nothing made with the
 * secret, not even with a recorded conversation. Each property is also checked on a host with a planted fault, where
 * the check must fail. */
#include "job/hosting.h"
#include "base/clock.h"

#include <poll.h>

/* Says a right hello, proves with `key`, and returns all that the host answers. */
static void prove_with(struct heard *heard, const struct hosting *h, const unsigned char key[WIRE_KEY], uint64_t seed)
{
    struct terms_of t;
    int fd = dial(h->ranks.port);
    say_hello(&t, &h->ranks, seed);
    send_bytes(fd, t.hello, t.hello_size);
    heard->size = receive_bytes(fd, heard->bytes, ONE_CHALLENGE, 2);
    assert_int_equal(heard->size, ONE_CHALLENGE);
    make_proof(&t, heard, key);
    send_bytes(fd, t.proof, t.proof_size);
    heard->size += receive_bytes(fd, heard->bytes + heard->size, HEARD - heard->size, fault_no_proof ? 0.2 : 2);
    close(fd);
}

static const char *wrong_secret(host_function serve)
{
    struct hosting h;
    struct heard heard;
    const char *found = NULL;
    unsigned char key[WIRE_KEY], zero[WIRE_KEY] = {0};
    open_host(&h, serve, 2, 0, 10);
    key_of(key, "another secret, as long as it is");
    for (uint64_t i = 0; i < 8 && !found; i++) {
        prove_with(&heard, &h, i % 2 ? key : zero, i + 1);
        found = given_away(&heard, h.id);
    }
    close_host(&h);
    return found;
}

static void who_does_not_know_the_secret_hears_nothing(void **state)
{
    (void)state;
    const char *found = wrong_secret(meeting_serve);
    if (found) fail_msg("%s", found);
    fault_no_proof = true;
    found = wrong_secret(faulty_serve);
    fault_no_proof = false;
    if (!found) fail_msg("a host that takes any proof was not found out");
}

/* Every number and nonce of the terms counts, and so does the direction: with one of them changed, no proof holds and
 * nothing opens. */
static void a_proof_holds_for_its_own_terms_only(void **state)
{
    (void)state;
    static const enum wire_kind kinds[] = {WIRE_PROOF, WIRE_CONTENT, WIRE_THANKS};
    struct wire_terms terms = {1, 2, 0, ID, {{0}}};
    unsigned char key[WIRE_KEY], mac[WIRE_MAC], body[WIRE_LARGEST], id[ID], out[ID];
    key_of(key, SECRET);
    fill(id, ID, 1);
    fill(terms.nonce, sizeof terms.nonce, 2);
    wire_seal(body, id, &terms, key);
    assert_true(wire_open(out, body, &terms, key));
    assert_memory_equal(out, id, ID);
    for (size_t k = 0; k < 3; k++) {
        wire_prove(mac, kinds[k], &terms, key);
        for (size_t other = 0; other < 3; other++)
            assert_int_equal(wire_proved(mac, kinds[other], &terms, key), k == other);
        for (size_t i = 0; i < sizeof terms; i++) { /* without padding, every byte is a field's */
            struct wire_terms wrong = terms;
            ((unsigned char *)&wrong)[i] ^= 1;
            if (wire_proved(mac, kinds[k], &wrong, key))
                fail_msg("byte %zu of the terms does not count for frame %d", i, kinds[k]);
            if (wrong.size == terms.size && wire_open(out, body, &wrong, key))
                fail_msg("byte %zu does not count for the content", i);
        }
        for (size_t i = 0; i < WIRE_KEY; i++) {
            key[i] ^= 1;
            assert_false(wire_proved(mac, kinds[k], &terms, key));
            key[i] ^= 1;
        }
    }
}

/* The real client, with values of another job. */
static void ranks_of_other_jobs_are_not_served(void **state)
{
    (void)state;
    struct hosting h;
    unsigned char bytes[ID], key[WIRE_KEY], nothing[ID] = {0};
    open_host(&h, meeting_serve, 2, 3, 10);
    key_of(key, "another secret, as long as it is");
    for (int what = 0; what < 6; what++) {
        struct ranks ranks = h.ranks;
        ranks.rank = what == 1 ? 2 : what == 2 ? 0 : 1;
        ranks.world = what == 3 ? 3 : 2;
        ranks.restart = what == 4 ? 2 : what == 5 ? 4 : 3;
        memset(bytes, 0, ID);
        enum joined result = join_as(bytes, &h, &ranks, what == 0 ? key : h.key);
        if (result != JOIN_CLOSED) fail_msg("case %d: %d", what, result);
        assert_memory_equal(bytes, nothing, ID);
    }
    close_host(&h);
}

static void a_rank_counts_once_and_when_it_has_thanked(void **state)
{
    (void)state;
    struct hosting h;
    struct heard heard;
    unsigned char bytes[ID] = {0}, nothing[ID] = {0}, thanks[WIRE_HEADER + WIRE_MAC];
    struct terms_of t;
    open_host(&h, meeting_serve, 3, 0, 10);
    /* A peer that knows the secret but breaks off or thanks wrongly has not been served. */
    for (int wrong = 0; wrong < 2; wrong++) {
        int fd = dial(h.ranks.port);
        say_hello(&t, &h.ranks, 5);
        send_bytes(fd, t.hello, t.hello_size);
        heard.size = receive_bytes(fd, heard.bytes, ONE_CHALLENGE, 2);
        make_proof(&t, &heard, h.key);
        send_bytes(fd, t.proof, t.proof_size);
        assert_true(receive_bytes(fd, heard.bytes, WIRE_HEADER + wire_size(WIRE_CONTENT, ID), 2) > ID);
        if (wrong) send_bytes(fd, thanks, frame(thanks, WIRE_THANKS, nothing));
        if (wrong) receive_bytes(fd, heard.bytes, 1, 2); /* until the host has read it */
        close(fd);
    }
    struct ranks ranks = h.ranks;
    ranks.rank = 1;
    assert_int_equal(join_as(bytes, &h, &ranks, h.key), JOIN_DONE);
    memset(bytes, 0, ID);
    usleep(20000);                                                    /* the thanks have arrived */
    assert_int_equal(join_as(bytes, &h, &ranks, h.key), JOIN_CLOSED); /* a second process with the same rank */
    assert_memory_equal(bytes, nothing, ID);
    ranks.rank = 2;
    assert_int_equal(join_as(bytes, &h, &ranks, h.key), JOIN_DONE);
    pthread_join(h.thread, NULL);
    close(h.listening);
    assert_int_equal(h.status, ELBO_OK);
}

static void rank_0_names_what_came_instead(void **state)
{
    (void)state;
    struct job job;
    make_job(&job, 4, free_ports(1));
    for (size_t r = 0; r < 4; r++) job.members[r].options.timeout = 1;
    job.members[2].options.secret = "another secret, as long as it is";
    job.members[3].ranks.restart = 1;
    run_job(&job);
    assert_int_equal(job.members[1].status, ELBO_OK);
    const char *said = job.members[0].error.message;
    if (!strstr(said, "did not come: 2, 3.") || !strstr(said, "did not know the secret") ||
        strstr(said, " 0 did not know"))
        fail_msg("%s", said);
    for (size_t r = 2; r < 4; r++)
        if (job.members[r].status != ELBO_PEER || !strstr(job.members[r].error.message, "another ELBO_SECRET"))
            fail_msg("%s", job.members[r].error.message);
}

/* ---- replay ---- */

/* A relay between a rank and the host that records both. */
struct relay {
    int listening;
    unsigned port;
    unsigned char said[2][HEARD]; /* from the rank, from the host */
    size_t size[2];
    pthread_t thread;
};

static void *relay(void *context)
{
    struct relay *r = context;
    int fds[2] = {accept(r->listening, NULL, NULL), dial(r->port)};
    for (;;) {
        struct pollfd both[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
        if (poll(both, 2, 5000) <= 0) break;
        int from = both[0].revents ? 0 : 1;
        ssize_t n = recv(fds[from], r->said[from] + r->size[from], HEARD - r->size[from], 0);
        if (n <= 0) break;
        send_bytes(fds[!from], r->said[from] + r->size[from], (size_t)n);
        r->size[from] += (size_t)n;
    }
    close(fds[0]);
    close(fds[1]);
    return NULL;
}

static void record(struct relay *r, host_function serve)
{
    struct hosting h;
    unsigned char bytes[ID] = {0};
    open_host(&h, serve, 2, 0, 10);
    struct ranks ranks = h.ranks;
    ranks.rank = 1;
    memset(r, 0, sizeof *r);
    r->port = h.ranks.port;
    unsigned port = free_ports(1);
    r->listening = listen_on_port(port);
    if (pthread_create(&r->thread, NULL, relay, r)) abort();
    int fd = dial(port);
    enum joined result = meeting_join(bytes, ID, fd, &ranks, h.key, clock_seconds() + 5);
    close(fd);
    pthread_join(r->thread, NULL);
    pthread_join(h.thread, NULL);
    close(r->listening);
    close(h.listening);
    assert_int_equal(result, JOIN_DONE);
    assert_memory_equal(bytes, h.id, ID);
    for (int who = 0; who < 2; who++) /* an eavesdropper gets no id either */
        for (size_t i = 0; i + 8 <= r->size[who]; i++)
            for (size_t j = 0; j + 8 <= ID; j++)
                if (!memcmp(r->said[who] + i, h.id + j, 8)) fail_msg("the id crossed the network in the clear");
}

/* Replays a rank's messages of another start of the same job to a host. */
static const char *replay_to_host(const struct relay *r, host_function serve)
{
    struct hosting h;
    struct heard heard;
    open_host(&h, serve, 2, 0, 10);
    int fd = dial(h.ranks.port);
    send_bytes(fd, r->said[0], r->size[0]);
    heard.size = receive_bytes(fd, heard.bytes, HEARD, 0.3);
    close(fd);
    const char *found = given_away(&heard, h.id);
    if (!found || h.serve == meeting_serve) {
        close_host(&h);
        return found;
    }
    pthread_join(h.thread, NULL); /* it accepted the replayed thanks */
    close(h.listening);
    return found;
}

static void a_recorded_conversation_opens_nothing(void **state)
{
    (void)state;
    static struct relay r;
    record(&r, meeting_serve);
    const char *found = replay_to_host(&r, meeting_serve);
    if (found) fail_msg("replayed to rank 0: %s", found);
    /* The host's messages are replayed to a rank. */
    int pair[2];
    unsigned char bytes[ID] = {0}, nothing[ID] = {0}, key[WIRE_KEY];
    struct ranks ranks = rank_of(1, 2, 1);
    key_of(key, SECRET);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair)) abort();
    send_bytes(pair[1], r.said[1], r.size[1]);
    assert_int_equal(meeting_join(bytes, ID, pair[0], &ranks, key, clock_seconds() + 1), JOIN_FALSE);
    assert_memory_equal(bytes, nothing, ID);
    close(pair[0]);
    close(pair[1]);
    fault_same_nonce = true;
    record(&r, faulty_serve);
    found = replay_to_host(&r, faulty_serve);
    fault_same_nonce = false;
    if (!found) fail_msg("a host whose nonces repeat was not found out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_know_the_secret_hears_nothing),
        cmocka_unit_test(a_proof_holds_for_its_own_terms_only),
        cmocka_unit_test(ranks_of_other_jobs_are_not_served),
        cmocka_unit_test(a_rank_counts_once_and_when_it_has_thanked),
        cmocka_unit_test(rank_0_names_what_came_instead),
        cmocka_unit_test(a_recorded_conversation_opens_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
