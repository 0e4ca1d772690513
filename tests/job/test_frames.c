/* Sends wrong frames: 10,000 to rank 0, which must give nothing away, and 2,000 answers with wrong bits to a rank,
 * which must accept none. Each check is also made on a side with a planted fault, which must be found. */
#include "job/hosting.h"
#include "base/clock.h"

#include <fcntl.h>

/* Makes one or two frames, most of them nearly right. */
static size_t scramble(unsigned char out[512], struct xorshift *x, const struct terms_of *t)
{
    unsigned char mac[WIRE_MAC];
    size_t size = t->hello_size;
    memcpy(out, t->hello, size);
    if (draw(x) % 2) {
        fill(mac, sizeof mac, draw(x));
        size += frame(out + size, WIRE_PROOF, mac);
    }
    switch (draw(x) % 8) {
    case 0: /* noise */
        size = draw(x) % 512;
        for (size_t i = 0; i < size; i++) out[i] = (unsigned char)draw(x);
        return size;
    case 1:
        return draw(x) % (size + 1); /* truncated */
    case 2:
        out[4 + draw(x) % 4] = (unsigned char)draw(x);
        return size; /* changes version, kind or length */
    case 3:          /* changes rank, world, restart or size */
        for (int i = 0; i < 4; i++) out[WIRE_HEADER + 4 * (draw(x) % 4) + (size_t)i] = (unsigned char)draw(x);
        return size;
    case 4: /* the same frames twice */
        memcpy(out + size, out, size);
        return 2 * size;
    case 5:
        out[draw(x) % size] ^= (unsigned char)(1u << draw(x) % 8);
        return size;
    default:
        return size; /* right, except for the proof */
    }
}

static const char *wrong_frames(host_function serve, size_t frames, uint64_t seed)
{
    struct hosting h;
    struct heard heard;
    struct xorshift x = {seed};
    size_t challenges = 0;
    const char *found = NULL;
    open_host(&h, serve, 2, 0, 60);
    for (size_t i = 0; i < frames && !found; i++) {
        struct terms_of t;
        unsigned char bytes[512];
        say_hello(&t, &h.ranks, draw(&x));
        size_t size = scramble(bytes, &x, &t);
        int fd = dial(h.ranks.port);
        send_bytes(fd, bytes, size);
        shutdown(fd, SHUT_WR); /* so that an unfinished frame ends the conversation too */
        heard.size = receive_bytes(fd, heard.bytes, HEARD, 2);
        close(fd);
        challenges += heard.size == ONE_CHALLENGE;
        found = given_away(&heard, h.id);
    }
    if (!found) assert_true(challenges > frames / 4); /* many frames must pass the first header */
    close_host(&h);
    return found;
}

static void ten_thousand_wrong_frames(void **state)
{
    (void)state;
    const char *found = wrong_frames(meeting_serve, 10000, 20261125);
    if (found) fail_msg("%s", found);
    fault_no_proof = true;
    found = wrong_frames(faulty_serve, 100, 20261125);
    fault_no_proof = false;
    if (!found) fail_msg("a host that takes any proof was not found out by 100 frames");
}

/* A host that knows the secret; one bit of its answer is wrong. */
struct liar {
    int fd;
    uint64_t seed;
    bool honest;
    unsigned char key[WIRE_KEY], id[ID];
};

static void *lie(void *context)
{
    struct liar *liar = context;
    struct xorshift x = {liar->seed};
    struct wire_terms terms;
    unsigned char in[128], out[512], body[512];
    static const size_t hello = WIRE_HEADER + 4 * 4 + WIRE_NONCE;
    if (receive_bytes(liar->fd, in, hello, 2) == hello) {
        wire_take_hello(&terms, in + WIRE_HEADER);
        fill(terms.nonce[1], WIRE_NONCE, draw(&x));
        size_t size = frame(out, WIRE_CHALLENGE, terms.nonce[1]);
        bool early = !liar->honest && draw(&x) % 4 == 0;
        if (early) out[draw(&x) % size] ^= (unsigned char)(1u << draw(&x) % 8);
        send_bytes(liar->fd, out, size);
        if (receive_bytes(liar->fd, in, WIRE_HEADER + WIRE_MAC, 2) == WIRE_HEADER + WIRE_MAC) {
            wire_seal(body, liar->id, &terms, liar->key);
            size = frame(out, WIRE_CONTENT, body);
            if (!liar->honest && !early) {
                out[draw(&x) % size] ^= (unsigned char)(1u << draw(&x) % 8);
                if (draw(&x) % 4 == 0) size = draw(&x) % size;
            }
            send_bytes(liar->fd, out, size);
        }
    }
    shutdown(liar->fd, SHUT_WR);
    if (liar->honest) receive_bytes(liar->fd, in, WIRE_HEADER + WIRE_MAC, 2);
    close(liar->fd);
    return NULL;
}

typedef enum joined (*join_function)(void *bytes, size_t size, int fd, const struct ranks *ranks,
                                     const unsigned char key[WIRE_KEY], double until);

/* Holds conversations with a lying host, except for every hundredth. Returns false when the rank accepted a lie or
 * refused the truth. */
static bool stands_lies(join_function join, size_t conversations)
{
    struct liar liar;
    struct xorshift x = {11};
    struct ranks ranks = rank_of(1, 2, 1);
    unsigned char nothing[ID] = {0};
    size_t false_answers = 0;
    key_of(liar.key, SECRET);
    fill(liar.id, ID, 5);
    for (size_t i = 0; i < conversations; i++) {
        int pair[2];
        unsigned char bytes[ID] = {0};
        pthread_t thread;
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
        fcntl(pair[0], F_SETFL, O_NONBLOCK);
        liar.fd = pair[1];
        liar.seed = draw(&x);
        liar.honest = i % 100 == 0;
        if (pthread_create(&thread, NULL, lie, &liar)) abort();
        enum joined result = join(bytes, ID, pair[0], &ranks, liar.key, clock_seconds() + 5);
        close(pair[0]);
        pthread_join(thread, NULL);
        if ((result == JOIN_DONE) != liar.honest || memcmp(bytes, liar.honest ? liar.id : nothing, ID)) return false;
        false_answers += result == JOIN_FALSE;
    }
    return false_answers > conversations / 10;
}

static void a_rank_takes_nothing_that_is_a_bit_off(void **state)
{
    (void)state;
    assert_true(stands_lies(meeting_join, 2000));
    fault_believes = true;
    bool stood = stands_lies(faulty_join, 100);
    fault_believes = false;
    if (stood) fail_msg("a rank that takes any answer was not found out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_wrong_frames),
        cmocka_unit_test(a_rank_takes_nothing_that_is_a_bit_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
