/* Calls built from the table of collectives: exchange, gather, agree, share. See collectives.h. */
#include "job/collectives.h"

#include <stdlib.h>
#include <string.h>

elbo_status collectives_exchange(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error)
{
    ELBO_TRY(c->begin(c, list, count, error));
    return c->wait(c, error);
}

elbo_status collectives_gather(struct collectives *c, const void *mine, size_t bytes, void *all, elbo_error *error)
{
    ELBO_TRY(c->post(c, COLLECTIVES_NOW, mine, bytes, error));
    return c->collect(c, COLLECTIVES_NOW, all, error);
}

elbo_status collectives_agree(struct collectives *c, elbo_status status, elbo_error *error)
{
    elbo_error mine = {.code = ELBO_OK}, unsaid;
    if (status) mine = *error;
    elbo_error *all = calloc(c->ranks, sizeof *all);
    if (!all) return status ? status : elbo_fail(error, ELBO_MEMORY, "no memory for what %zu ranks say", c->ranks);
    elbo_status told = collectives_gather(c, &mine, sizeof mine, all, status ? &unsaid : error);
    for (size_t r = 0; r < c->ranks && !status && !told; r++)
        if (all[r].code) {
            all[r].message[sizeof all[r].message - 1] = '\0';
            status = elbo_fail(error, all[r].code, "rank %zu: %s", r, all[r].message);
        }
    free(all);
    return status ? status : told;
}

elbo_status collectives_share(struct collectives *c, void *bytes, size_t size, elbo_error *error)
{
    char *all = malloc(c->ranks * size + 1);
    if (!all) return elbo_fail(error, ELBO_MEMORY, "no memory to share %zu bytes between %zu ranks", size, c->ranks);
    elbo_status status = collectives_gather(c, bytes, size, all, error);
    if (!status) memcpy(bytes, all, size);
    free(all);
    return status;
}
