/* JSON reading and writing that survives a failed allocation. jansson ignores whether its buffers could grow:
 * json_dumps then omits bytes, and its reader reads past a token's end. Therefore json_text writes through its own
 * buffer, and the reader never sees an allocation fail. While json_read runs, a failed allocation is served from a
 * reserve that was set aside before, and the text ends at the next piece. A piece has at most 128 bytes, so after the
 * failure the reserve need only hold the values of one piece and one token of the whole text. */
#include "base/json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 128, VALUE = 512, ALIGNMENT = 16 };

struct reading {
    const char *text;
    size_t left;
    unsigned char *reserve;
    size_t size, used;
    bool starved;
};

/* State for the allocation hooks, which take no context. Set only while the thread is in json_read. */
static _Thread_local struct reading *reading;

static void *take(size_t size)
{
    struct reading *r = reading;
    void *memory = r && r->starved ? NULL : malloc(size);
    if (memory || !r) return memory;
    r->starved = true;
    if (size > r->size - r->used - ALIGNMENT) return NULL;
    memory = r->reserve + r->used;
    r->used += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return memory;
}

static void give(void *memory)
{
    uintptr_t at = (uintptr_t)memory, begin = reading ? (uintptr_t)reading->reserve : 0;
    if (reading && at >= begin && at - begin < reading->size) return;
    free(memory);
}

static size_t next_piece(void *buffer, size_t size, void *context)
{
    struct reading *r = context;
    if (r->starved) return (size_t)-1;
    if (size > r->left) size = r->left;
    if (size > PIECE) size = PIECE;
    memcpy(buffer, r->text, size);
    r->text += size;
    r->left -= size;
    return size;
}

json_t *json_read(const char *text, size_t size, size_t flags, json_error_t *reason, bool *starved)
{
    struct reading r = {.text = text, .left = size, .size = 4 * size + (size_t)PIECE * VALUE};
    r.reserve = malloc(r.size); /* untouched, so not resident, unless an allocation fails */
    *starved = !r.reserve;
    if (!r.reserve) return NULL;
    json_set_alloc_funcs(take, give); /* the same functions at every call */
    reading = &r;
    json_t *root = json_load_callback(next_piece, &r, flags, reason);
    if (r.starved) {
        json_decref(root);
        root = NULL;
    }
    reading = NULL;
    *starved = r.starved;
    free(r.reserve);
    return root;
}

/* ---- writing ---- */

struct text {
    char *bytes;
    size_t used, room;
    bool failed; /* sticky, because jansson goes on after a key that could not be written */
};

static int append(const char *bytes, size_t size, void *context)
{
    struct text *t = context;
    if (t->failed) return -1;
    if (size >= t->room - t->used) {
        size_t room = 2 * t->room + size + 256;
        char *grown = realloc(t->bytes, room);
        t->failed = !grown;
        if (!grown) return -1;
        t->bytes = grown;
        t->room = room;
    }
    memcpy(t->bytes + t->used, bytes, size);
    t->used += size;
    t->bytes[t->used] = 0;
    return 0;
}

char *json_text(const json_t *root, size_t flags)
{
    struct text t = {0};
    if (root && !json_dump_callback(root, append, &t, flags)) return t.bytes;
    free(t.bytes);
    return NULL;
}

elbo_status json_print(FILE *out, json_t *root, size_t flags, const char *what, elbo_error *error)
{
    char *text = json_text(root, flags);
    json_decref(root);
    if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory for %s as JSON", what);
    fprintf(out, "%s\n", text);
    free(text);
    return ELBO_OK;
}
