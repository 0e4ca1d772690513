/* The protocol of two ranks that meet, and the proofs that each knows the job's secret.
 *
 *     frame       "ELBR" | version, 1 byte | kind, 1 byte | bytes that follow, u16 | ...    (numbers little-endian)
 *
 *     rank r      HELLO      rank, world, restart, size: u32 each | nonce (32)
 *     rank 0      CHALLENGE  nonce (32)
 *     rank r      PROOF      mac("prove") (32)
 *     rank 0      CONTENT    mac("answer") (32) | nonce (24) | secretbox(content) (16 + size)
 *     rank r      THANKS     mac("thank") (32)
 *     either      FAREWELL   empty: the sender ends in order (bonds.h)
 *
 * mac(word) = crypto_auth(key, word | version | rank | world | restart | size | both nonces). A mac is valid for this
 * rank of this start of this job in this one conversation, in one direction. The secretbox has a key of its own,
 * mac("seal"). The rank proves itself first, so that a stranger sees no value made with the key. A frame of another
 * kind, version or length than the expected one ends the conversation. */
#ifndef JOB_WIRE_H
#define JOB_WIRE_H

#include "job/rendezvous.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER = 8,
    WIRE_NONCE = 32, /* of a conversation */
    WIRE_MAC = 32,   /* crypto_auth */
    WIRE_KEY = 32,
    WIRE_BOX_NONCE = 24,
    WIRE_BOX_EXTRA = 16,
    WIRE_LARGEST = WIRE_HEADER + WIRE_MAC + WIRE_BOX_NONCE + WIRE_BOX_EXTRA + RENDEZVOUS_MOST,
};

enum wire_kind { WIRE_HELLO = 1, WIRE_CHALLENGE, WIRE_PROOF, WIRE_CONTENT, WIRE_THANKS, WIRE_FAREWELL };

/* The terms of a conversation; every mac covers all of them. */
struct wire_terms {
    uint32_t rank, world, restart, size;
    unsigned char nonce[2][WIRE_NONCE]; /* the rank's, rank 0's */
};

/* One end of a conversation: a non-blocking socket, the incoming frame, and the outgoing bytes. */
struct wire {
    int fd;
    size_t got, left, sent; /* bytes of `in`; bytes of `out`, and how many of them are sent */
    unsigned char in[WIRE_LARGEST], out[WIRE_LARGEST];
};

enum wire_result { WIRE_DONE, WIRE_WAIT, WIRE_CLOSED, WIRE_WRONG };

/* ---- frames ---- */

/* Continues to read the expected frame. WIRE_DONE: wire_body() is its body until the next call. */
enum wire_result wire_receive(struct wire *wire, enum wire_kind due, size_t size);
static inline const unsigned char *wire_body(const struct wire *wire)
{
    return wire->in + WIRE_HEADER;
}
/* Begins an outgoing frame; the frame before must have been sent. Returns the place for its `size` bytes. */
unsigned char *wire_frame(struct wire *wire, enum wire_kind kind, size_t size);
/* Sends the remaining bytes. */
enum wire_result wire_send(struct wire *wire);

/* Writes the whole frame FAREWELL. */
void wire_farewell(unsigned char frame[WIRE_HEADER]);

/* ---- content of the frames ---- */

size_t wire_size(enum wire_kind kind, size_t content);
void wire_put_hello(unsigned char *body, const struct wire_terms *terms);
void wire_take_hello(struct wire_terms *terms, const unsigned char *body);
void wire_prove(unsigned char *body, enum wire_kind kind, const struct wire_terms *terms,
                const unsigned char key[WIRE_KEY]);
bool wire_proved(const unsigned char *body, enum wire_kind kind, const struct wire_terms *terms,
                 const unsigned char key[WIRE_KEY]);
/* wire_seal: writes CONTENT's body around `content` (terms->size). wire_open: reads it back; false if it was not made
 * with the key for these terms. */
void wire_seal(unsigned char *body, const void *content, const struct wire_terms *terms,
               const unsigned char key[WIRE_KEY]);
bool wire_open(void *content, const unsigned char *body, const struct wire_terms *terms,
               const unsigned char key[WIRE_KEY]);

#endif
