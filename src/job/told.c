/* Makes the variables that the launcher gives to its ranks: see told.h. */
#include "job/told.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void told_secret(struct told *told)
{
    unsigned char bytes[TOLD_SECRET / 2];
    if (!told->ranks && getenv("ELBO_SECRET")) return;
    randombytes_buf(bytes, sizeof bytes);
    sodium_bin2hex(told->secret, sizeof told->secret, bytes, sizeof bytes);
    sodium_memzero(bytes, sizeof bytes);
}

size_t told_variables(struct child_variable out[TOLD_MOST], const struct told *told, size_t rank)
{
    const struct {
        const char *name;
        size_t value;
    } numbers[] = {
        {"ELBO_RESTART", told->restart},
        {"ELBO_RANK", rank},
        {"ELBO_LOCAL_RANK", rank},
        {"ELBO_WORLD_SIZE", told->ranks},
        {"ELBO_LOCAL_WORLD_SIZE", told->ranks},
        {"ELBO_PORT", told->port},
    };
    size_t count = told->ranks ? sizeof numbers / sizeof *numbers : 1, n = 0;
    for (size_t i = 0; i < count; i++) {
        out[n].name = numbers[i].name;
        snprintf(out[n++].value, sizeof out->value, "%zu", numbers[i].value);
    }
    if (told->ranks) out[n++] = (struct child_variable){"ELBO_ADDRESS", "127.0.0.1"};
    if (*told->secret) {
        out[n].name = "ELBO_SECRET";
        memcpy(out[n++].value, told->secret, sizeof told->secret);
    }
    return n;
}
