/* Implements the frames and proofs of the ranks' meeting: see wire.h. */
#include "job/wire.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>

_Static_assert(WIRE_MAC == crypto_auth_BYTES && WIRE_KEY == crypto_auth_KEYBYTES &&
                   WIRE_KEY == crypto_secretbox_KEYBYTES && WIRE_BOX_NONCE == crypto_secretbox_NONCEBYTES &&
                   WIRE_BOX_EXTRA == crypto_secretbox_MACBYTES,
               "the sizes of libsodium are part of the protocol");

static const unsigned char magic[4] = {'E', 'L', 'B', 'R'};

enum { HELLO = 4 * 4 + WIRE_NONCE, WORD = 8, TRANSCRIPT = WORD + 1 + 4 * 4 + 2 * WIRE_NONCE };

static unsigned char *put32(unsigned char *out, uint32_t x)
{
    for (int i = 0; i < 4; i++) *out++ = (unsigned char)(x >> 8 * i);
    return out;
}

static const unsigned char *take32(uint32_t *x, const unsigned char *in)
{
    *x = (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
    return in + 4;
}

/* ---- frames ---- */

static enum wire_result failure(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) return WIRE_WAIT;
    return WIRE_CLOSED;
}

static void put_header(unsigned char out[WIRE_HEADER], enum wire_kind kind, size_t size)
{
    const unsigned char header[WIRE_HEADER] = {magic[0],
                                               magic[1],
                                               magic[2],
                                               magic[3],
                                               WIRE_VERSION,
                                               (unsigned char)kind,
                                               (unsigned char)size,
                                               (unsigned char)(size >> 8)};
    memcpy(out, header, sizeof header);
}

static bool header_is(const unsigned char *in, size_t got, enum wire_kind kind, size_t size)
{
    unsigned char due[WIRE_HEADER];
    put_header(due, kind, size);
    return !memcmp(in, due, got < WIRE_HEADER ? got : WIRE_HEADER);
}

enum wire_result wire_receive(struct wire *wire, enum wire_kind due, size_t size)
{
    const size_t whole = WIRE_HEADER + size;
    while (wire->got < whole) {
        ssize_t n = recv(wire->fd, wire->in + wire->got, whole - wire->got, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failure();
        if (n == 0) return WIRE_CLOSED;
        wire->got += (size_t)n;
        if (!header_is(wire->in, wire->got, due, size)) return WIRE_WRONG;
    }
    wire->got = 0; /* the next call begins the next frame */
    return WIRE_DONE;
}

unsigned char *wire_frame(struct wire *wire, enum wire_kind kind, size_t size)
{
    put_header(wire->out, kind, size);
    wire->left = WIRE_HEADER + size;
    wire->sent = 0;
    return wire->out + WIRE_HEADER;
}

enum wire_result wire_send(struct wire *wire)
{
    while (wire->sent < wire->left) {
        ssize_t n = send(wire->fd, wire->out + wire->sent, wire->left - wire->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failure();
        wire->sent += (size_t)n;
    }
    wire->left = wire->sent = 0;
    return WIRE_DONE;
}

void wire_farewell(unsigned char frame[WIRE_HEADER])
{
    put_header(frame, WIRE_FAREWELL, 0);
}

/* ---- content ---- */

size_t wire_size(enum wire_kind kind, size_t content)
{
    switch (kind) {
    case WIRE_HELLO:
        return HELLO;
    case WIRE_CHALLENGE:
        return WIRE_NONCE;
    case WIRE_CONTENT:
        return WIRE_MAC + WIRE_BOX_NONCE + WIRE_BOX_EXTRA + content;
    default:
        return WIRE_MAC;
    }
}

void wire_put_hello(unsigned char *body, const struct wire_terms *terms)
{
    body = put32(put32(put32(put32(body, terms->rank), terms->world), terms->restart), terms->size);
    memcpy(body, terms->nonce[0], WIRE_NONCE);
}

void wire_take_hello(struct wire_terms *terms, const unsigned char *body)
{
    body = take32(&terms->rank, body);
    body = take32(&terms->world, body);
    body = take32(&terms->restart, body);
    body = take32(&terms->size, body);
    memcpy(terms->nonce[0], body, WIRE_NONCE);
}

/* Writes word | version | rank | world | restart | size | nonces. */
static void transcript(unsigned char out[TRANSCRIPT], const char *word, const struct wire_terms *terms)
{
    memset(out, 0, WORD);
    memcpy(out, word, strlen(word));
    out += WORD;
    *out++ = WIRE_VERSION;
    out = put32(put32(put32(put32(out, terms->rank), terms->world), terms->restart), terms->size);
    memcpy(out, terms->nonce, sizeof terms->nonce);
}

static const char *word_of(enum wire_kind kind)
{
    return kind == WIRE_PROOF ? "prove" : kind == WIRE_CONTENT ? "answer" : "thank";
}

void wire_prove(unsigned char *body, enum wire_kind kind, const struct wire_terms *terms,
                const unsigned char key[WIRE_KEY])
{
    unsigned char text[TRANSCRIPT];
    transcript(text, word_of(kind), terms);
    crypto_auth(body, text, sizeof text, key);
}

bool wire_proved(const unsigned char *body, enum wire_kind kind, const struct wire_terms *terms,
                 const unsigned char key[WIRE_KEY])
{
    unsigned char text[TRANSCRIPT];
    transcript(text, word_of(kind), terms);
    return crypto_auth_verify(body, text, sizeof text, key) == 0;
}

static void seal_key(unsigned char out[WIRE_KEY], const struct wire_terms *terms, const unsigned char key[WIRE_KEY])
{
    unsigned char text[TRANSCRIPT];
    transcript(text, "seal", terms);
    crypto_auth(out, text, sizeof text, key);
}

void wire_seal(unsigned char *body, const void *content, const struct wire_terms *terms,
               const unsigned char key[WIRE_KEY])
{
    unsigned char sealing[WIRE_KEY], *nonce = body + WIRE_MAC;
    wire_prove(body, WIRE_CONTENT, terms, key);
    seal_key(sealing, terms, key);
    randombytes_buf(nonce, WIRE_BOX_NONCE);
    crypto_secretbox_easy(nonce + WIRE_BOX_NONCE, content, terms->size, nonce, sealing);
    sodium_memzero(sealing, sizeof sealing);
}

bool wire_open(void *content, const unsigned char *body, const struct wire_terms *terms,
               const unsigned char key[WIRE_KEY])
{
    unsigned char sealing[WIRE_KEY];
    const unsigned char *nonce = body + WIRE_MAC;
    if (!wire_proved(body, WIRE_CONTENT, terms, key)) return false;
    seal_key(sealing, terms, key);
    bool good =
        crypto_secretbox_open_easy(content, nonce + WIRE_BOX_NONCE, WIRE_BOX_EXTRA + terms->size, nonce, sealing) == 0;
    sodium_memzero(sealing, sizeof sealing);
    return good;
}
