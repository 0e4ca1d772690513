/* Chooses how shared moments reach a checkpoint, and builds their arenas: see moments.h. */
#include "checkpoint/moments.h"
#include "base/files.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct moments_source moments_here = {.name = "here", .whole = true};

/* Tests whether all ranks see one folder: rank 0 writes a file, and every rank looks for it. */
static elbo_status probe(bool *same, struct moments *m, const char *run_dir, elbo_error *error)
{
    struct collectives *c = m->collectives;
    unsigned char told[16] = {0};
    char path[FILES_PATH], *text = NULL;
    size_t size = 0;
    elbo_error unsaid;
    ELBO_TRY(file_join(path, run_dir, "probe.tmp", error));
    if (!moments_rank(m)) {
        randombytes_buf(told, sizeof told);
        if (file_write(path, told, sizeof told, &unsaid)) memset(told, 0, sizeof told); /* no rank sees it */
    }
    ELBO_TRY(collectives_share(c, told, sizeof told, error));
    bool seen =
        !file_read(&text, &size, path, sizeof told, &unsaid) && size == sizeof told && !memcmp(text, told, sizeof told);
    free(text);
    elbo_status status =
        collectives_agree(c, seen ? ELBO_OK : elbo_fail(&unsaid, ELBO_IO, "it is not seen here"), &unsaid);
    *same = !status;
    if (!moments_rank(m)) file_remove(path, error); /* a file that stays does no harm */
    if (status != ELBO_PEER) return ELBO_OK;
    *error = unsaid;
    return status;
}

elbo_status moments_choose(struct moments *m, const char *run_dir, elbo_error *error)
{
    bool same;
    if (!m->collectives) return ELBO_OK;
    ELBO_TRY(probe(&same, m, run_dir, error));
    m->source = same ? &moments_beside : &moments_gathered;
    return ELBO_OK;
}

void moments_close(struct moments *m)
{
    if (m->staging) m->backend->memory.release(m->backend, m->staging);
    m->staging = NULL;
}

/* ---- arenas ---- */

static elbo_status read_shared(const struct arena *a, void *to, size_t at, size_t elements, elbo_error *error)
{
    struct moments *m = a->context;
    return m->source->read(m, a->which, to, at, elements, error);
}

struct arena moments_arena(struct moments *m, unsigned which)
{
    struct arena a = arena_of(m->backend, m->memory[which], m->type);
    size_t rank = moments_rank(m);
    if (m->source->read) a.read = read_shared;
    a.context = m;
    a.which = which;
    if (!m->collectives) return a;
    a.pieces = m->pieces + m->begin[rank];
    a.piece_count = m->begin[rank + 1] - m->begin[rank];
    return a;
}

void moments_name(char name[MOMENTS_NAME], unsigned which, const char *parameter)
{
    snprintf(name, MOMENTS_NAME, "moment%u.%s", which + 1, parameter);
}

elbo_status moments_serve(struct moments *m, elbo_error *error)
{
    return m->source->serve ? m->source->serve(m, error) : ELBO_OK;
}

elbo_status moments_done(struct moments *m, elbo_error *error)
{
    return m->source->done ? m->source->done(m, error) : ELBO_OK;
}
