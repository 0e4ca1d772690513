/* The states that a power failure may leave after recorded system calls. Nothing is promised but this:
 *
 *   - bytes of a file are there once it was fsynced; later ones are there, or not, or in part, or as zeros
 *   - a change of names in a folder (a new one, a rename, a removal) is there once the folder was fsynced; of the later
 *     ones any subset is there, in whatever order they were made; a rename is there whole or not at all
 *
 * That is less than any file system in use promises, so what survives this survives them.
 *
 *     struct crash_log log;
 *     crash_begin(&log, "/dev/shm/x/live"); -- reads the tree as it stands, then records through watched_calls.h
 *     ... code under test; crash_mark(&log) where it has promised more ...
 *     crash_end(&log);
 *     crash_search(&log, site, &search)    -- states at every point, as if the calls of `site` were not in the code */
#ifndef TESTS_CRASH_STATES_H
#define TESTS_CRASH_STATES_H

#include "temporary.h"
#include "watched_calls.h"

#include <execinfo.h>
#include <xxhash.h>

/* ---- the recording ---- */

enum { CRASH_CALLS = 4096, CRASH_NODES = 1024, CRASH_NAMES = 1024, CRASH_PENDING = 512, CRASH_WRITES = 2048 };
enum { CRASH_MARK = CALL_KINDS, CRASH_PICTURE = 1 << 20 };

struct crash_call {
    int kind; /* an enum call_kind, or CRASH_MARK */
    char path[WATCH_PATH], other[WATCH_PATH];
    int flags, descriptor;
    unsigned char *bytes;
    size_t size;
    off_t offset;
    uint64_t site; /* where in the code it is made: a hash of the callers */
};

struct crash_name {
    int folder, node;
    char name[64];
};

struct crash_log {
    char live[WATCH_PATH];
    struct crash_call *calls;
    size_t count;
    /* the tree before the first call; node 0 is the folder `live` */
    struct crash_name names[CRASH_NAMES];
    size_t name_count;
    int nodes;
    bool is_folder[CRASH_NODES];
    unsigned char *before[CRASH_NODES];
    size_t before_size[CRASH_NODES];
};

/* The same callers, the same line of the code. */
static inline uint64_t crash_site(void)
{
    void *callers[32];
    int depth = backtrace(callers, 32);
    return XXH3_64bits(callers, (size_t)depth * sizeof *callers);
}

static inline void crash_record(void *context, const struct system_call *call)
{
    struct crash_log *log = context;
    if (call->kind >= CALL_OPEN) { /* only folders that are opened to be synced */
        if (call->kind != CALL_OPEN) return;
    }
    if (log->count == CRASH_CALLS) abort();
    struct crash_call *c = &log->calls[log->count++];
    *c = (struct crash_call){.kind = (int)call->kind,
                             .flags = call->flags,
                             .descriptor = call->descriptor,
                             .size = call->size,
                             .offset = call->offset,
                             .site = crash_site()};
    snprintf(c->path, sizeof c->path, "%s", call->path);
    if (call->other) snprintf(c->other, sizeof c->other, "%s", call->other);
    if (call->bytes) {
        c->bytes = malloc(call->size + 1);
        if (!c->bytes) abort();
        memcpy(c->bytes, call->bytes, call->size);
    }
}

static inline int crash_new_node(struct crash_log *log, bool folder)
{
    if (log->nodes == CRASH_NODES) abort();
    log->is_folder[log->nodes] = folder;
    return log->nodes++;
}

static inline void crash_load(struct crash_log *log, int folder, const char *path)
{
    DIR *list = opendir(path);
    if (!list) abort();
    for (struct dirent *entry; (entry = readdir(list));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char inside[2 * WATCH_PATH];
        struct stat about;
        snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
        if (lstat(inside, &about) || log->name_count == CRASH_NAMES) abort();
        int node = crash_new_node(log, S_ISDIR(about.st_mode));
        struct crash_name *name = &log->names[log->name_count++];
        name->folder = folder;
        name->node = node;
        snprintf(name->name, sizeof name->name, "%.63s", entry->d_name);
        if (S_ISDIR(about.st_mode))
            crash_load(log, node, inside);
        else
            log->before[node] = (unsigned char *)temporary_read(inside, &log->before_size[node]);
    }
    closedir(list);
}

static inline void crash_begin(struct crash_log *log, const char *live)
{
    memset(log, 0, sizeof *log);
    snprintf(log->live, sizeof log->live, "%s", live);
    log->calls = calloc(CRASH_CALLS, sizeof *log->calls);
    if (!log->calls) abort();
    crash_load(log, crash_new_node(log, true), live);
    watch_begin(live, WATCH_ALL);
    watch.record = crash_record;
    watch.context = log;
}

/* From here on the code has promised more: options.fault is told how many marks were passed. */
static inline void crash_mark(struct crash_log *log)
{
    log->calls[log->count++].kind = CRASH_MARK;
}

static inline void crash_end(struct crash_log *log)
{
    (void)log;
    watch_end();
}

static inline void crash_free(struct crash_log *log)
{
    for (size_t i = 0; i < log->count; i++) free(log->calls[i].bytes);
    for (int i = 0; i < log->nodes; i++) free(log->before[i]);
    free(log->calls);
}

/* ---- the calls, interpreted up to a point ---- */

struct crash_edit {              /* one change of names: all of it or nothing */
    struct crash_name change[2]; /* node -1: the name goes */
    int changes;
    bool settled;
};

struct crash_write {
    int file;
    const struct crash_call *call;
    off_t offset;
    bool synced;
};

struct crash_machine {
    const struct crash_log *log;
    struct crash_name now[CRASH_NAMES], settled[CRASH_NAMES];
    size_t now_count, settled_count;
    struct crash_edit edits[CRASH_PENDING];
    size_t edit_count;
    struct crash_write writes[CRASH_WRITES];
    size_t write_count;
    int nodes;
    bool is_folder[CRASH_NODES];
    size_t size[CRASH_NODES]; /* of files, as the process sees them */
    int open[WATCH_DESCRIPTORS];
    bool append[WATCH_DESCRIPTORS];
    off_t position[WATCH_DESCRIPTORS];
    size_t marks;
};

static inline struct crash_name *crash_find(struct crash_name *names, size_t count, int folder, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (names[i].folder == folder && !strcmp(names[i].name, name)) return &names[i];
    return NULL;
}

static inline void crash_apply(struct crash_name *names, size_t *count, const struct crash_name *change)
{
    struct crash_name *found = crash_find(names, *count, change->folder, change->name);
    if (found && change->node < 0)
        *found = names[--*count];
    else if (found)
        found->node = change->node;
    else if (change->node >= 0) {
        if (*count == CRASH_NAMES) abort();
        names[(*count)++] = *change;
    }
}

/* Folder and last name of a path; false when a folder on the way is not there. */
static inline bool crash_resolve(struct crash_machine *m, const char *path, struct crash_name *out)
{
    const char *at = path + strlen(m->log->live);
    out->folder = -1; /* the root itself */
    out->node = 0;
    while (*at == '/') {
        at++;
        const char *end = strchr(at, '/');
        size_t length = end ? (size_t)(end - at) : strlen(at);
        if (out->node < 0 || length >= sizeof out->name) return false;
        out->folder = out->node;
        snprintf(out->name, sizeof out->name, "%.*s", (int)length, at);
        struct crash_name *found = crash_find(m->now, m->now_count, out->folder, out->name);
        out->node = found ? found->node : -1;
        at += length;
    }
    return true;
}

static inline void crash_change(struct crash_machine *m, const struct crash_edit *edit)
{
    for (int i = 0; i < edit->changes; i++) crash_apply(m->now, &m->now_count, &edit->change[i]);
    if (m->edit_count == CRASH_PENDING) abort();
    m->edits[m->edit_count++] = *edit;
}

static inline void crash_sync(struct crash_machine *m, int node)
{
    size_t left = 0;
    for (size_t i = 0; i < m->edit_count; i++) {
        struct crash_edit *edit = &m->edits[i];
        bool here = edit->change[0].folder == node || (edit->changes == 2 && edit->change[1].folder == node);
        if (!here) {
            m->edits[left++] = *edit;
            continue;
        }
        for (int c = 0; c < edit->changes; c++) crash_apply(m->settled, &m->settled_count, &edit->change[c]);
    }
    m->edit_count = left;
    for (size_t i = 0; i < m->write_count; i++)
        if (m->writes[i].file == node) m->writes[i].synced = true;
}

static inline void crash_add_write(struct crash_machine *m, int file, const struct crash_call *call, off_t offset)
{
    if (m->write_count == CRASH_WRITES) abort();
    m->writes[m->write_count++] = (struct crash_write){file, call, offset, false};
}

static inline int crash_add_node(struct crash_machine *m, bool folder)
{
    if (m->nodes == CRASH_NODES) abort();
    m->is_folder[m->nodes] = folder;
    m->size[m->nodes] = 0;
    return m->nodes++;
}

/* A call that could not have worked because an earlier one is taken away does nothing. */
static inline void crash_step(struct crash_machine *m, const struct crash_call *c)
{
    struct crash_edit edit = {.changes = 1};
    struct crash_name *a = &edit.change[0], *b = &edit.change[1];
    int fd = c->descriptor, file = fd >= 0 && fd < WATCH_DESCRIPTORS ? m->open[fd] : -1;
    if (c->kind == CRASH_MARK) {
        m->marks++;
        return;
    }
    switch ((enum call_kind)c->kind) {
    case CALL_OPEN:
    case CALL_CREATE:
        m->open[fd] = -1;
        if (!crash_resolve(m, c->path, a)) return;
        if (a->node < 0 && c->flags & O_CREAT) {
            a->node = crash_add_node(m, false);
            crash_change(m, &edit);
        }
        m->open[fd] = a->node;
        m->append[fd] = c->flags & O_APPEND;
        m->position[fd] = 0;
        if (c->flags & O_TRUNC && a->node >= 0) abort(); /* nobody does so yet */
        break;
    case CALL_CLOSE:
        m->open[fd] = -1;
        break;
    case CALL_WRITE:
        if (file < 0) return;
        {
            off_t at = c->offset >= 0 ? c->offset : m->append[fd] ? (off_t)m->size[file] : m->position[fd];
            crash_add_write(m, file, c, at);
            if (c->offset < 0) m->position[fd] = at + (off_t)c->size;
            if ((size_t)at + c->size > m->size[file]) m->size[file] = (size_t)at + c->size;
        }
        break;
    case CALL_TRUNCATE:
        if (file < 0) return;
        crash_add_write(m, file, c, (off_t)c->size);
        m->size[file] = c->size;
        break;
    case CALL_FSYNC:
        if (file >= 0) crash_sync(m, file);
        break;
    case CALL_MKDIR:
        if (!crash_resolve(m, c->path, a) || a->node >= 0) return;
        a->node = crash_add_node(m, true);
        crash_change(m, &edit);
        break;
    case CALL_RENAME:
        edit.changes = 2;
        if (!crash_resolve(m, c->path, a) || !crash_resolve(m, c->other, b) || a->node < 0) return;
        for (size_t i = 0; i < m->now_count && !(c->flags & RENAME_EXCHANGE) && b->node >= 0; i++)
            if (m->now[i].folder == b->node) return; /* a folder that is not empty is not replaced */
        {
            int moved = a->node;
            a->node = c->flags & RENAME_EXCHANGE ? b->node : -1;
            b->node = moved;
        }
        crash_change(m, &edit);
        break;
    case CALL_UNLINK:
    case CALL_RMDIR:
        if (!crash_resolve(m, c->path, a) || a->node < 0) return;
        a->node = -1;
        crash_change(m, &edit);
        break;
    default:
        break;
    }
}

static inline void crash_machine_begin(struct crash_machine *m, const struct crash_log *log)
{
    m->log = log;
    memcpy(m->now, log->names, sizeof log->names);
    memcpy(m->settled, log->names, sizeof log->names);
    m->now_count = m->settled_count = log->name_count;
    m->edit_count = m->write_count = m->marks = 0;
    m->nodes = log->nodes;
    memcpy(m->is_folder, log->is_folder, sizeof log->is_folder);
    memcpy(m->size, log->before_size, sizeof log->before_size);
    for (size_t i = 0; i < WATCH_DESCRIPTORS; i++) m->open[i] = -1;
}

/* ---- one state ---- */

static inline uint32_t crash_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

enum crash_bytes { BYTES_SYNCED, BYTES_ALL, BYTES_RANDOM };

/* A file's bytes into `out`; its size. */
static inline size_t crash_file(const struct crash_machine *m, int file, enum crash_bytes kind, uint64_t *random,
                                unsigned char *out)
{
    static const char *const garbage = "\xa5\x5a{}\"0";
    size_t size = file < m->log->nodes ? m->log->before_size[file] : 0, unsynced = 0, seen = 0;
    if (size) memcpy(out, m->log->before[file], size);
    for (size_t i = 0; i < m->write_count; i++)
        if (m->writes[i].file == file && !m->writes[i].synced) unsynced += m->writes[i].call->size + 1;
    /* of unsynced bytes: all up to a cut, then nothing, zeros, garbage; or each write by itself */
    uint32_t how = crash_random(random) % 5;
    size_t cut = kind == BYTES_RANDOM && unsynced ? crash_random(random) % (unsynced + 1) : SIZE_MAX;
    if (kind == BYTES_SYNCED) cut = 0, how = 0;
    if (kind == BYTES_ALL) cut = SIZE_MAX, how = 0;
    for (size_t i = 0; i < m->write_count; i++) {
        const struct crash_write *w = &m->writes[i];
        if (w->file != file) continue;
        size_t length = w->call->size, keep = length;
        if (!w->synced) {
            if (how == 4)
                keep = crash_random(random) & 1 ? length : 0;
            else
                keep = seen >= cut ? 0 : cut - seen < length ? cut - seen : length;
            seen += length + 1;
            if (!keep && (how == 0 || how == 4) && kind != BYTES_ALL) continue;
        }
        if (w->call->kind == CALL_TRUNCATE) {
            if (length > size) memset(out + size, 0, length - size);
            size = length;
            continue;
        }
        size_t at = (size_t)w->offset, end = at + (w->synced || how ? length : keep);
        if (end > CRASH_PICTURE) abort();
        if (at > size) memset(out + size, 0, at - size);
        memcpy(out + at, w->call->bytes, keep);
        for (size_t b = at + keep; b < end; b++) out[b] = how == 2 ? (unsigned char)garbage[b % 6] : 0;
        if (end > size) size = end;
    }
    return size;
}

/* Which of the pending changes of names are there: none, all, all but one, only one, or by chance. */
struct crash_choice {
    enum { NAMES_NONE, NAMES_ALL, NAMES_ALL_BUT, NAMES_ONLY, NAMES_RANDOM } names;
    size_t which;
    enum crash_bytes bytes;
    uint64_t random;
};

struct crash_picture { /* the tree, as text: "d path\n" or "f path size\n" bytes */
    char *text;
    size_t size;
};

static inline void crash_freeze(struct crash_picture *out, const struct crash_machine *m, struct crash_name *names,
                                size_t count, int folder, const char *path, const struct crash_choice *choice,
                                unsigned depth)
{
    if (depth > 8) abort(); /* a cycle of folders would be our own bug */
    for (size_t i = 0; i < count; i++) {
        if (names[i].folder != folder) continue;
        char inside[WATCH_PATH];
        int node = names[i].node;
        snprintf(inside, sizeof inside, "%.400s/%s", path, names[i].name);
        if (out->size > CRASH_PICTURE / 2) abort();
        if (m->is_folder[node]) {
            out->size += (size_t)sprintf(out->text + out->size, "d %s\n", inside);
            crash_freeze(out, m, names, count, node, inside, choice, depth + 1);
            continue;
        }
        static unsigned char bytes[CRASH_PICTURE];
        uint64_t random = choice->random ^ (uint64_t)node * 0x9e3779b97f4a7c15u;
        size_t size = crash_file(m, node, choice->bytes, &random, bytes);
        out->size += (size_t)sprintf(out->text + out->size, "f %s %zu\n", inside, size);
        memcpy(out->text + out->size, bytes, size);
        out->size += size;
    }
}

static inline int crash_name_order(const void *a, const void *b)
{
    const struct crash_name *x = a, *y = b;
    return x->folder != y->folder ? (x->folder < y->folder ? -1 : 1) : strcmp(x->name, y->name);
}

static inline void crash_state(struct crash_picture *out, const struct crash_machine *m,
                               const struct crash_choice *choice)
{
    static struct crash_name names[CRASH_NAMES];
    size_t count = m->settled_count;
    uint64_t random = choice->random;
    memcpy(names, m->settled, count * sizeof *names);
    for (size_t i = 0; i < m->edit_count; i++) {
        bool keep = choice->names == NAMES_ALL || (choice->names == NAMES_ALL_BUT && i != choice->which) ||
                    (choice->names == NAMES_ONLY && i == choice->which) ||
                    (choice->names == NAMES_RANDOM && crash_random(&random) & 1);
        for (int c = 0; keep && c < m->edits[i].changes; c++) crash_apply(names, &count, &m->edits[i].change[c]);
    }
    qsort(names, count, sizeof *names, crash_name_order);
    out->size = 0;
    crash_freeze(out, m, names, count, 0, "", choice, 0);
}

static inline void crash_write_out(const struct crash_picture *picture, const char *root)
{
    temporary_remove(root);
    if (mkdir(root, 0700)) abort();
    for (size_t at = 0; at < picture->size;) {
        char path[WATCH_PATH], whole[2 * WATCH_PATH];
        size_t size = 0;
        int length = 0;
        if (picture->text[at] == 'd') {
            sscanf(picture->text + at, "d %599s%n", path, &length);
            snprintf(whole, sizeof whole, "%s%s", root, path);
            if (mkdir(whole, 0700)) abort();
            at += (size_t)length + 1;
            continue;
        }
        sscanf(picture->text + at, "f %599s %zu%n", path, &size, &length);
        snprintf(whole, sizeof whole, "%s%s", root, path);
        at += (size_t)length + 1;
        int fd = open(whole, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || write(fd, picture->text + at, size) != (ssize_t)size) abort();
        close(fd);
        at += size;
    }
}

/* ---- the search ---- */

struct crash_search {
    const char *scratch; /* where a state is laid out */
    /* NULL when the state in `scratch` is as promised after `marks` marks. */
    const char *(*fault)(void *context, const char *scratch, size_t marks);
    void *context;
    size_t random_states; /* at each point, beside the regular ones */
    bool stop_at_first;
    /* ---- found ---- */
    size_t states, distinct, bad;
    char first[512]; /* the first bad one */
    uint64_t *seen;  /* hashes of the good ones */
    size_t room;
};

static inline void crash_look(struct crash_search *s, const struct crash_machine *m, const struct crash_choice *choice,
                              size_t end)
{
    static char text[CRASH_PICTURE + WATCH_PATH];
    struct crash_picture picture = {text, 0};
    crash_state(&picture, m, choice);
    s->states++;
    uint64_t hash = XXH3_64bits_withSeed(text, picture.size, m->marks) | 1;
    if (2 * s->distinct >= s->room) {
        size_t room = s->room ? 2 * s->room : 1 << 12;
        uint64_t *seen = calloc(room, sizeof *seen);
        if (!seen) abort();
        for (size_t i = 0; i < s->room; i++) {
            size_t at = s->seen[i] % room;
            while (s->seen[i] && seen[at]) at = (at + 1) % room;
            if (s->seen[i]) seen[at] = s->seen[i];
        }
        free(s->seen);
        s->seen = seen;
        s->room = room;
    }
    size_t at = hash % s->room;
    while (s->seen[at] && s->seen[at] != hash) at = (at + 1) % s->room;
    if (s->seen[at]) return;
    crash_write_out(&picture, s->scratch);
    const char *fault = s->fault(s->context, s->scratch, m->marks);
    s->distinct++;
    s->seen[at] = hash;
    if (!fault) return;
    if (!s->bad++)
        snprintf(s->first, sizeof s->first, "after call %zu of %zu (%zu marks; names %d/%zu, bytes %d): %.350s", end,
                 m->log->count, m->marks, choice->names, choice->which, choice->bytes, fault);
}

/* Looks at the states after each call; the calls of `site` are taken for absent (0: none is). */
static inline void crash_search(const struct crash_log *log, uint64_t site, struct crash_search *s)
{
    static struct crash_machine m;
    bool removed = site == 0; /* until then, the states are the same as without it */
    crash_machine_begin(&m, log);
    for (size_t end = 0; end <= log->count; end++) {
        bool absent = end && site && log->calls[end - 1].site == site;
        if (end && !absent) crash_step(&m, &log->calls[end - 1]);
        if (!(removed |= absent)) continue;
        uint64_t random = 0x5851f42d4c957f2du * (end + 1);
        for (int names = NAMES_NONE; names <= NAMES_ONLY; names++)
            for (size_t which = 0; which < (names < NAMES_ALL_BUT ? 1 : m.edit_count); which++)
                for (int bytes = BYTES_SYNCED; bytes <= BYTES_ALL; bytes++) {
                    struct crash_choice choice = {.names = names, .which = which, .bytes = (enum crash_bytes)bytes};
                    crash_look(s, &m, &choice, end);
                    if (s->bad && s->stop_at_first) return;
                }
        for (size_t i = 0; i < s->random_states; i++) {
            struct crash_choice choice = {.names = NAMES_RANDOM, .bytes = BYTES_RANDOM};
            choice.random = (uint64_t)crash_random(&random) << 32 | crash_random(&random);
            crash_look(s, &m, &choice, end);
            if (s->bad && s->stop_at_first) return;
        }
    }
}

static inline void crash_search_free(struct crash_search *s)
{
    free(s->seen);
    s->seen = NULL;
    s->room = 0;
}

/* Writes a call for messages: "fsync /step-00000003.tmp/state". */
static inline const char *crash_call_text(char out[WATCH_PATH + 64], const struct crash_log *log, size_t i)
{
    static const char *const names[] = {"create", "write",  "fsync", "close",    "mkdir",
                                        "rename", "unlink", "rmdir", "truncate", "open"};
    const struct crash_call *c = &log->calls[i];
    if (c->kind >= CALL_READ)
        snprintf(out, WATCH_PATH + 64, "call %zu", i);
    else
        snprintf(out, WATCH_PATH + 64, "%s %s (call %zu)", names[c->kind], c->path + strlen(log->live), i);
    return out;
}

#endif
