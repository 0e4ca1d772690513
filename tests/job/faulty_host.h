/* Compiles both sides of the meeting again, with faults that tests switch on and must find. */
#ifndef TESTS_PARALLEL_FAULTY_HOST_H
#define TESTS_PARALLEL_FAULTY_HOST_H

#include "job/meeting.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static bool fault_no_proof;   /* every hello counts as a rank */
static bool fault_same_nonce; /* rank 0 uses one nonce for all conversations */
static bool fault_one_by_one; /* each connection delays later ones by 10 ms */
static bool fault_believes;   /* a rank accepts any answer as rank 0's */

elbo_status faulty_serve(const struct meeting *meeting, const void *bytes, size_t size, elbo_error *error);
enum joined faulty_join(void *bytes, size_t size, int fd, const struct ranks *ranks, const unsigned char key[WIRE_KEY],
                        double until);

#define sockets_accept(fd)         (fault_one_by_one ? usleep(10000), sockets_accept(fd) : sockets_accept(fd))
#define wire_proved(...)           (fault_no_proof || wire_proved(__VA_ARGS__))
#define randombytes_buf(out, size) (fault_same_nonce ? (void)memset(out, 7, size) : randombytes_buf(out, size))
#define meeting_serve              faulty_serve
#include "job/meeting_serve.c"
#undef meeting_serve
#undef randombytes_buf
#undef wire_proved
#undef sockets_accept

#define wire_open(content, body, terms, key)                                                                           \
    (fault_believes ? (memcpy(content, body, (terms)->size), true) : wire_open(content, body, terms, key))
#define meeting_join faulty_join
#include "job/meeting_join.c"
#undef meeting_join
#undef wire_open

#endif
