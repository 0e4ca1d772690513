/* Checkpoints whose every byte follows from a step and a generation, and the promises that a run directory must keep
 * after a failure. Include after the system headers. */
#ifndef TESTS_TRAIN_CHECKPOINT_CONTENTS_H
#define TESTS_TRAIN_CHECKPOINT_CONTENTS_H

#include "checkpoint/checkpoint.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Describes a checkpoint's contents. The checkpoint's counters repeat the description, so that a reader needs nothing
 * else. */
struct contents {
    uint64_t step;
    unsigned generation; /* the same step may be computed again */
    unsigned tensors, files;
    bool state; /* a folder state/ with two files */
};

enum { MOST_TENSORS = 12, MOST_FILES = 12, MOST_ELEMENTS = 64, MOST_FILE = 700 };

static inline uint32_t contents_word(const struct contents *c, unsigned part, size_t i)
{
    uint32_t x =
        (uint32_t)c->step * 2654435761u ^ c->generation * 2246822519u ^ part * 3266489917u ^ (uint32_t)i * 668265263u;
    return x ^ x >> 15;
}

static inline size_t contents_elements(unsigned tensor)
{
    return 1 + tensor * 29u % MOST_ELEMENTS;
}

static inline size_t contents_bytes(unsigned file)
{
    return file == 3 ? 0 : 20 + file * 173u % (MOST_FILE - 20);
}

static inline void contents_fill(unsigned char *out, const struct contents *c, unsigned part, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) out[i] = (unsigned char)contents_word(c, part, i);
}

static inline elbo_status contents_save(const char *run, const struct contents *c, size_t keep, elbo_error *error)
{
    static uint32_t data[MOST_TENSORS + 1][MOST_ELEMENTS];
    static unsigned char bytes[MOST_FILES][MOST_FILE];
    static char names[MOST_TENSORS][16], paths[MOST_FILES][24];
    struct safetensors_tensor tensors[MOST_TENSORS];
    struct checkpoint_file files[MOST_FILES + 3];
    size_t count = 0;
    for (unsigned t = 0; t < c->tensors; t++) {
        size_t n = contents_elements(t);
        snprintf(names[t], sizeof names[t], "w%u", t);
        contents_fill((unsigned char *)data[t], c, t, n * sizeof **data);
        tensors[t] = (struct safetensors_tensor){
            .name = names[t], .dtype = SAFETENSORS_U32, .rank = 1, .shape = {n}, .data = data[t]};
    }
    const struct safetensors_note note = {"format", "pt"};
    files[count++] = (struct checkpoint_file){
        .name = "model.safetensors", .tensors = tensors, .tensor_count = c->tensors, .notes = &note, .note_count = 1};
    for (unsigned f = 0; f < c->files; f++) {
        snprintf(paths[f], sizeof paths[f], "file-%u.bin", f);
        contents_fill(bytes[f], c, 100 + f, contents_bytes(f));
        files[count++] = (struct checkpoint_file){.name = paths[f], .bytes = bytes[f], .size = contents_bytes(f)};
    }
    contents_fill((unsigned char *)data[MOST_TENSORS], c, 99, sizeof *data);
    const struct safetensors_tensor moments = {
        .name = "moments", .dtype = SAFETENSORS_U32, .rank = 1, .shape = {MOST_ELEMENTS}, .data = data[MOST_TENSORS]};
    if (c->state) {
        files[count++] =
            (struct checkpoint_file){.name = "state/optimizer.safetensors", .tensors = &moments, .tensor_count = 1};
        files[count++] = (struct checkpoint_file){.name = "state/words.txt", .bytes = "words", .size = 5};
    }
    json_t *counters = json_pack("{s:i, s:i, s:i, s:b}", "generation", (int)c->generation, "tensors", (int)c->tensors,
                                 "files", (int)c->files, "state", c->state);
    if (!counters) return elbo_fail(error, ELBO_MEMORY, "no memory for the counters");
    elbo_status status = checkpoint_save(
        run,
        &(struct checkpoint_contents){
            .step = c->step, .config_hash = "c0ffee", .counters = counters, .files = files, .file_count = count},
        keep, error);
    json_decref(counters);
    return status;
}

static inline unsigned contents_counter(const struct checkpoint *checkpoint, const char *name)
{
    return (unsigned)json_integer_value(json_object_get(checkpoint_counters(checkpoint), name));
}

static inline bool contents_tensor(const struct safetensors *file, const struct contents *c, const char *name,
                                   unsigned part, size_t elements)
{
    uint32_t found[MOST_ELEMENTS], wanted[MOST_ELEMENTS];
    elbo_error error;
    const struct safetensors_tensor tensor = {.name = name, .dtype = SAFETENSORS_U32, .rank = 1, .shape = {elements}};
    contents_fill((unsigned char *)wanted, c, part, elements * sizeof *wanted);
    return !safetensors_copy(file, found, &tensor, &error) && !memcmp(found, wanted, elements * sizeof *found);
}

/* Returns NULL when an opened checkpoint holds the contents of its step and generation; fills *c. */
static inline const char *contents_fault(struct contents *c, const struct checkpoint *checkpoint)
{
    elbo_error error;
    struct safetensors *file;
    const void *found;
    size_t size;
    unsigned char wanted[MOST_FILE];
    *c = (struct contents){checkpoint_step(checkpoint), contents_counter(checkpoint, "generation"),
                           contents_counter(checkpoint, "tensors"), contents_counter(checkpoint, "files"),
                           json_is_true(json_object_get(checkpoint_counters(checkpoint), "state"))};
    if (checkpoint_tensors(&file, checkpoint, "model.safetensors", &error)) return "model.safetensors does not parse";
    bool good = safetensors_count(file) == c->tensors;
    for (unsigned t = 0; t < c->tensors && good; t++) {
        char name[16];
        snprintf(name, sizeof name, "w%u", t);
        good = contents_tensor(file, c, name, t, contents_elements(t));
    }
    safetensors_free(file);
    if (!good) return "model.safetensors holds other weights";
    for (unsigned f = 0; f < c->files; f++) {
        char name[24];
        snprintf(name, sizeof name, "file-%u.bin", f);
        contents_fill(wanted, c, 100 + f, contents_bytes(f));
        if (checkpoint_bytes(&found, &size, checkpoint, name, &error) || size != contents_bytes(f) ||
            memcmp(found, wanted, size))
            return "a file holds other bytes";
    }
    if (!c->state) return NULL;
    if (checkpoint_tensors(&file, checkpoint, "state/optimizer.safetensors", &error)) return "the state does not parse";
    good = contents_tensor(file, c, "moments", 99, MOST_ELEMENTS);
    safetensors_free(file);
    return good ? NULL : "the state holds other moments";
}

/* ---- a run directory ---- */

struct warned {
    size_t count;
    char first[512];
};

static inline void count_warning(void *context, const char *message)
{
    struct warned *warned = context;
    if (!warned->count++) snprintf(warned->first, sizeof warned->first, "%.500s", message);
}

/* Opens `path` (a run or a checkpoint); returns NULL when it verifies and holds its contents. */
static inline const char *open_fault(struct contents *c, const char *path, struct warned *warned)
{
    static char text[1100];
    struct checkpoint *checkpoint = NULL;
    elbo_error error = {0};
    *warned = (struct warned){0};
    if (checkpoint_open(&checkpoint, path, count_warning, warned, &error)) {
        snprintf(text, sizeof text, "nothing opens: %.1000s", error.message);
        return text;
    }
    const char *fault = contents_fault(c, checkpoint);
    checkpoint_close(checkpoint);
    return fault;
}

enum { MOST_STEPS = 16 };

struct steps {
    uint64_t step[MOST_STEPS];
    size_t count;
};

static inline bool steps_have(const struct steps *steps, uint64_t step)
{
    for (size_t i = 0; i < steps->count; i++)
        if (steps->step[i] == step) return true;
    return false;
}

/* The promises that a run directory must keep, whatever happened to it. */
struct promise {
    struct steps may_open;  /* steps, one of which must open; none given: there may be no checkpoint */
    struct steps must_stay; /* steps that must be there */
    struct steps must_go;   /* steps that must not be there */
    uint64_t computed;      /* the step that is being saved ... */
    unsigned at_least;      /* ... and its least generation when this step opens */
    bool may_warn;          /* `latest` may be missing or name another checkpoint */
};

/* Returns NULL when the promises hold: an allowed step opens, `latest` does not dangle, no folder with a checkpoint's
 * name is torn, and the steps that must stay are there. */
static inline const char *promise_fault(const struct promise *p, const char *run)
{
    static char text[1400];
    char folder[600];
    struct contents c;
    struct warned warned;
    struct steps there = {.count = 0};
    snprintf(folder, sizeof folder, "%.500s/checkpoints", run);
    DIR *list = opendir(folder);
    for (struct dirent *entry; list && (entry = readdir(list));) {
        uint64_t step;
        char path[900];
        if (!checkpoint_parse_name(&step, entry->d_name)) continue;
        snprintf(path, sizeof path, "%s/%.200s", folder, entry->d_name);
        const char *fault = open_fault(&c, path, &warned);
        if (!fault && c.step != step) fault = "another step";
        if (fault) {
            static char torn[1400]; /* `fault` may point to another function's static text */
            snprintf(torn, sizeof torn, "%.250s is torn: %.1000s", entry->d_name, fault);
            closedir(list);
            return torn;
        }
        there.step[there.count++] = step;
    }
    if (list) closedir(list);
    for (size_t i = 0; i < p->must_stay.count; i++)
        if (!steps_have(&there, p->must_stay.step[i])) {
            snprintf(text, sizeof text, "step %d is lost", (int)p->must_stay.step[i]);
            return text;
        }
    for (size_t i = 0; i < p->must_go.count; i++)
        if (steps_have(&there, p->must_go.step[i])) {
            snprintf(text, sizeof text, "step %d is still there", (int)p->must_go.step[i]);
            return text;
        }
    if (!p->may_open.count && !there.count) return NULL;
    const char *fault = open_fault(&c, run, &warned);
    if (fault) return fault;
    if (warned.count && !p->may_warn) {
        snprintf(text, sizeof text, "step %d opens with a warning: %.500s", (int)c.step, warned.first);
        return text;
    }
    if (p->may_open.count ? !steps_have(&p->may_open, c.step) : c.step != p->computed) {
        snprintf(text, sizeof text, "step %d opens", (int)c.step);
        return text;
    }
    if (c.step == p->computed && c.generation < p->at_least) {
        snprintf(text, sizeof text, "step %d opens as generation %u", (int)c.step, c.generation);
        return text;
    }
    return NULL;
}

/* Gives the promises of saving `step` to a run with the steps `before`: during the save, and after its return. */
static inline void promise_of_save(struct promise *during, struct promise *after, const struct steps *before,
                                   uint64_t latest, uint64_t step, unsigned generation, size_t keep)
{
    *during = *after = (struct promise){.computed = step};
    for (size_t i = 0; i < before->count; i++) {
        size_t newer = 1; /* rank among the kept steps: the new step, and the old ones between */
        for (size_t k = 0; k < before->count; k++) newer += before->step[k] < step && before->step[k] > before->step[i];
        if (before->step[i] < step && keep && newer >= keep)
            after->must_go.step[after->must_go.count++] = before->step[i];
        else
            during->must_stay.step[during->must_stay.count++] = before->step[i];
    }
    after->must_stay = during->must_stay;
    if (!steps_have(&after->must_stay, step)) after->must_stay.step[after->must_stay.count++] = step;
    if (before->count) {
        during->may_open.step[during->may_open.count++] = latest;
        if (latest != step) during->may_open.step[during->may_open.count++] = step;
    }
    after->may_open = (struct steps){{step}, 1};
    after->at_least = generation;
}

#endif
