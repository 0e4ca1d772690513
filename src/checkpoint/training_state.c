/* Saves and loads the state of a run: see training_state.h. */
#include "checkpoint/training_state.h"

#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define ALGORITHMS "state/algorithms.bin"

/* ---- tensors ---- */

struct bundle {
    struct safetensors_tensor *weights, *state;
    char (*names)[MOMENTS_NAME];
    struct arena arena, moments[MOMENTS];
    void *choices;
    size_t count, state_count, choices_bytes;
};

static void bundle_free(struct bundle *b)
{
    free(b->weights);
    free(b->state);
    free(b->names);
    free(b->choices);
}

static void add_moments(struct bundle *b, const struct parameter *p)
{
    for (unsigned k = 0; k < MOMENTS && b->moments[k].memory; k++) {
        moments_name(b->names[b->state_count], k, p->name);
        b->state[b->state_count] = arena_tensor(&b->moments[k], p, b->names[b->state_count]);
        b->state_count++;
    }
}

/* Gathers the tensors to save or load, with moments if `whole`. `b` must not move, because tensors point into it. */
static elbo_status bundle_make(struct bundle *b, struct training_state *s, bool whole, elbo_error *error)
{
    b->arena = arena_of(s->backend, s->weights, DTYPE_F32);
    for (unsigned k = 0; k < MOMENTS; k++) b->moments[k] = moments_arena(&s->moments, k);
    size_t n = parameters_count(s->parameters);
    b->weights = calloc(n + 1, sizeof *b->weights);
    b->state = calloc(MOMENTS * n + s->statistic_count + 1, sizeof *b->state);
    b->names = calloc(MOMENTS * n + 1, sizeof *b->names);
    if (!b->weights || !b->state || !b->names)
        return elbo_fail(error, ELBO_MEMORY, "no memory to gather a checkpoint of %zu parameters", n);
    for (size_t i = 0; i < n; i++) {
        const struct parameter *own = parameters_get(s->parameters, i);
        b->weights[b->count++] = arena_tensor(&b->arena, own, own->name);
        if (whole) add_moments(b, own);
    }
    for (size_t i = 0; i < s->statistic_count; i++) b->state[b->state_count++] = s->statistics[i];
    return ELBO_OK;
}

static elbo_status gather_choices(struct bundle *b, struct backend *backend, elbo_error *error)
{
    if (!backend->device.save_choices) return ELBO_OK;
    b->choices_bytes = backend->device.save_choices(backend, NULL);
    b->choices = malloc(b->choices_bytes + 1);
    if (!b->choices) return elbo_fail(error, ELBO_MEMORY, "no memory to gather the algorithms of a checkpoint");
    backend->device.save_choices(backend, b->choices);
    return ELBO_OK;
}

/* ---- counters ---- */

/* JSON has no numbers that are not finite; null stands for them. */
static json_t *number_of(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *window_json(const struct pass_window *w)
{
    return json_pack("{s:I, s:f, s:f, s:b}", "gathered", (json_int_t)w->gathered, "sum", w->sum, "before", w->before,
                     "compared", w->compared);
}

/* Adds the updates of parts and the state of the passes. A run whose parts were all updated alike, and whose passes
 * never alternated, has neither. */
static int add_parts(json_t *all, const struct training_counters *c)
{
    const struct training_passes *p = &c->passes;
    bool alike = true;
    for (unsigned i = 0; i < PARTS; i++) alike = alike && c->part_updates[i] == c->updates;
    int failed = 0;
    if (!alike)
        failed |= json_object_set_new(all, "part_updates",
                                      json_pack("[I, I, I]", (json_int_t)c->part_updates[0],
                                                (json_int_t)c->part_updates[1], (json_int_t)c->part_updates[2]));
    if (c->begun_anew) failed |= json_object_set_new(all, "begun_anew", json_integer((json_int_t)c->begun_anew));
    if (!p->encoder_draws) return failed;
    json_t *passes = json_pack("{s:I, s:I, s:I, s:I, s:b, s:b}", "encoder_draws", (json_int_t)p->encoder_draws,
                               "encoder_next", (json_int_t)p->encoder_next, "first", (json_int_t)p->first,
                               "encoder_passes", (json_int_t)p->encoder_passes, "enough", p->enough, "ended", p->ended);
    json_t *recent = json_array();
    for (int i = 0; i < 2; i++)
        failed |=
            json_array_append_new(recent, json_pack("[I, o, o]", (json_int_t)p->recent[i].pass,
                                                    number_of(p->recent[i].loss), number_of(p->recent[i].information)));
    failed |= json_object_set_new(passes, "recent", recent);
    failed |= json_object_update_new(passes, window_json(&p->loss));
    failed |= json_object_set_new(passes, "information", window_json(&p->information));
    return failed | json_object_set_new(all, "passes", passes);
}

static int add_watch(json_t *all, const struct training_watch *w)
{
    if (!w->known) return 0;
    return json_object_set_new(
        all, "watch",
        json_pack("{s:I, s:I, s:I, s:I, s:b, s:b, s:f, s:f, s:f}", "last_alive", (json_int_t)w->last_alive, "kept",
                  (json_int_t)w->kept, "rollbacks", (json_int_t)w->rollbacks, "rolled", (json_int_t)w->rolled, "alive",
                  w->alive, "warned", w->warned, "gain", w->gain, "kl", w->kl, "information", w->information));
}

static json_t *counters_json(const struct training_state *s)
{
    const struct training_counters *c = &s->counters;
    json_t *all =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "draws", (json_int_t)c->draws, "updates",
                  (json_int_t)c->updates, "next", (json_int_t)c->next, "skipped", (json_int_t)c->skipped, "bad",
                  (json_int_t)c->bad, "shortened", (json_int_t)c->shortened, "vocabulary", (json_int_t)s->vocabulary,
                  "positions", (json_int_t)s->positions, "corpus", s->corpus, "tokenizer", s->tokenizer);
    json_t *labels = json_array();
    int failed = 0;
    for (size_t k = 0; k < s->label_count; k++) failed |= json_array_append_new(labels, json_string(s->labels[k]));
    if (s->label_count) failed |= json_object_set(all, "labels", labels);
    json_decref(labels);
    if (c->rewound) failed |= json_object_set_new(all, "rewound", json_integer((json_int_t)c->rewound));
    failed |= add_parts(all, c) | add_watch(all, &c->watch);
    if (c->clipped) failed |= json_object_set_new(all, "clipped", json_integer((json_int_t)c->clipped));
    if (strcmp(s->best.figure, "none"))
        failed |= json_object_set_new(all, "best",
                                      json_pack("{s:s, s:I, s:f, s:I}", "figure", s->best.figure, "step",
                                                (json_int_t)s->best.step, "value", s->best.value, "worse",
                                                (json_int_t)s->best.worse));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static elbo_status counter(const json_t *counters, const char *name, uint64_t *to, elbo_error *error)
{
    const json_t *v = json_object_get(counters, name);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter %s is missing or negative", name);
    *to = (uint64_t)json_integer_value(v);
    return ELBO_OK;
}

static elbo_status load_window(struct pass_window *w, const json_t *numbers, elbo_error *error)
{
    const json_t *sum = json_object_get(numbers, "sum"), *before = json_object_get(numbers, "before");
    ELBO_TRY(counter(numbers, "gathered", &w->gathered, error));
    if (!json_is_number(sum) || !json_is_number(before))
        return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter passes lacks numbers");
    w->sum = json_number_value(sum);
    w->before = json_number_value(before);
    w->compared = json_is_true(json_object_get(numbers, "compared"));
    return ELBO_OK;
}

static double number_or_nan(const json_t *x)
{
    return json_is_number(x) ? json_number_value(x) : NAN;
}

/* Loads the state of the passes. A checkpoint older than objective.aggressive_until has no window of information. */
static elbo_status load_passes(struct training_passes *p, const json_t *numbers, elbo_error *error)
{
    const json_t *recent = json_object_get(numbers, "recent"), *information = json_object_get(numbers, "information");
    ELBO_TRY(counter(numbers, "encoder_draws", &p->encoder_draws, error));
    ELBO_TRY(counter(numbers, "encoder_next", &p->encoder_next, error));
    ELBO_TRY(counter(numbers, "first", &p->first, error));
    ELBO_TRY(counter(numbers, "encoder_passes", &p->encoder_passes, error));
    ELBO_TRY(load_window(&p->loss, numbers, error));
    if (information) ELBO_TRY(load_window(&p->information, information, error));
    if (json_array_size(recent) != 2)
        return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter passes lacks numbers");
    p->enough = json_is_true(json_object_get(numbers, "enough"));
    p->ended = json_is_true(json_object_get(numbers, "ended"));
    for (size_t i = 0; i < 2; i++) {
        const json_t *of = json_array_get(recent, i);
        p->recent[i] =
            (struct pass_figures){(unsigned)json_integer_value(json_array_get(of, 0)),
                                  number_or_nan(json_array_get(of, 1)), number_or_nan(json_array_get(of, 2))};
    }
    return ELBO_OK;
}

static elbo_status load_watch(struct training_watch *w, const json_t *numbers, elbo_error *error)
{
    *w = (struct training_watch){0};
    if (!numbers) return ELBO_OK;
    ELBO_TRY(counter(numbers, "last_alive", &w->last_alive, error));
    ELBO_TRY(counter(numbers, "kept", &w->kept, error));
    ELBO_TRY(counter(numbers, "rollbacks", &w->rollbacks, error));
    ELBO_TRY(counter(numbers, "rolled", &w->rolled, error));
    w->alive = json_is_true(json_object_get(numbers, "alive"));
    w->warned = json_is_true(json_object_get(numbers, "warned"));
    w->known = true;
    w->gain = json_number_value(json_object_get(numbers, "gain"));
    w->kl = json_number_value(json_object_get(numbers, "kl"));
    w->information = json_number_value(json_object_get(numbers, "information"));
    return ELBO_OK;
}

static elbo_status load_parts(struct training_counters *c, const json_t *numbers, elbo_error *error)
{
    const json_t *parts = json_object_get(numbers, "part_updates"), *passes = json_object_get(numbers, "passes");
    c->begun_anew = 0;
    c->passes = (struct training_passes){0};
    for (unsigned i = 0; i < PARTS; i++) {
        json_t *own = json_array_get(parts, i);
        if (parts && (!json_is_integer(own) || json_integer_value(own) < 0))
            return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter part_updates lacks a number");
        c->part_updates[i] = parts ? (uint64_t)json_integer_value(own) : c->updates;
    }
    if (json_object_get(numbers, "begun_anew")) ELBO_TRY(counter(numbers, "begun_anew", &c->begun_anew, error));
    return passes ? load_passes(&c->passes, passes, error) : ELBO_OK;
}

static elbo_status load_counters(struct training_counters *c, const json_t *numbers, elbo_error *error)
{
    ELBO_TRY(counter(numbers, "draws", &c->draws, error));
    ELBO_TRY(counter(numbers, "updates", &c->updates, error));
    ELBO_TRY(counter(numbers, "next", &c->next, error));
    ELBO_TRY(counter(numbers, "skipped", &c->skipped, error));
    ELBO_TRY(counter(numbers, "bad", &c->bad, error));
    ELBO_TRY(counter(numbers, "shortened", &c->shortened, error));
    ELBO_TRY(load_parts(c, numbers, error));
    ELBO_TRY(load_watch(&c->watch, json_object_get(numbers, "watch"), error));
    c->clipped = 0;
    if (json_object_get(numbers, "clipped")) ELBO_TRY(counter(numbers, "clipped", &c->clipped, error));
    return json_object_get(numbers, "rewound") ? counter(numbers, "rewound", &c->rewound, error) : ELBO_OK;
}

static elbo_status load_best(struct training_best *to, const json_t *numbers, elbo_error *error)
{
    const json_t *best = json_object_get(numbers, "best"), *reached = json_object_get(best, "value");
    const char *figure = json_string_value(json_object_get(best, "figure"));
    to->step = to->worse = 0;
    if (!figure || strcmp(figure, to->figure)) return ELBO_OK; /* of another figure or none, so not comparable */
    if (!json_is_number(reached)) return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter best has no value");
    to->value = json_number_value(reached);
    ELBO_TRY(counter(best, "step", &to->step, error));
    return counter(best, "worse", &to->worse, error);
}

/* ---- saving ---- */

static elbo_status write_files(struct training_state *s, const struct bundle *b, const char *run_dir,
                               const struct training_files *files, size_t keep, elbo_error *error)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)XXH3_64bits(files->yaml, strlen(files->yaml)));
    const struct safetensors_note note = {"format", "pt"};
    const struct checkpoint_file all[] = {
        {.name = "model.safetensors", .tensors = b->weights, .tensor_count = b->count, .notes = &note, .note_count = 1},
        {.name = "state/optimizer.safetensors", .tensors = b->state, .tensor_count = b->state_count},
        {.name = "config.yaml", .bytes = files->yaml, .size = strlen(files->yaml)},
        {.name = "tokenizer.json", .bytes = files->tokenizer, .size = files->tokenizer_size},
        {.name = ALGORITHMS, .bytes = b->choices, .size = b->choices_bytes},
    };
    size_t count = sizeof all / sizeof *all;
    if (!b->choices_bytes) count--;
    json_t *numbers = counters_json(s);
    if (!numbers) return elbo_fail(error, ELBO_MEMORY, "no memory for the counters of a checkpoint");
    struct checkpoint_contents contents = {.step = s->counters.draws,
                                           .config_hash = hash,
                                           .counters = numbers,
                                           .files = all,
                                           .file_count = count,
                                           .ranks = 1,
                                           .best = s->best.step,
                                           .pinned = s->counters.watch.kept,
                                           .others = s->moments.source->others,
                                           .context = &s->moments};
    if (contents.others) contents.ranks = moments_ranks(&s->moments);
    elbo_status status = checkpoint_save(run_dir, &contents, keep, error);
    json_decref(numbers);
    return status;
}

static elbo_status unsaved(const struct training_state *s, elbo_error *error)
{
    return elbo_fail_in(error, "the checkpoint of step %llu was not saved: ", (unsigned long long)s->counters.draws);
}

static elbo_status write_all(struct training_state *s, const char *run_dir, const struct training_files *files,
                             size_t keep, elbo_error *error)
{
    struct bundle b = {0};
    elbo_status status = bundle_make(&b, s, s->moments.source->whole, error);
    if (!status) status = gather_choices(&b, s->backend, error);
    status = status ? unsaved(s, error) : write_files(s, &b, run_dir, files, keep, error);
    bundle_free(&b);
    return status;
}

elbo_status training_state_save(struct training_state *s, const char *run_dir, const struct training_files *files,
                                size_t keep, elbo_error *error)
{
    elbo_error lost;
    elbo_status status = files ? write_all(s, run_dir, files, keep, error) : ELBO_OK,
                told = moments_rank(&s->moments) ? moments_serve(&s->moments, &lost) : moments_done(&s->moments, &lost);
    if (status || !told) return status;
    *error = lost;
    return unsaved(s, error);
}

/* ---- loading ---- */

/* Finds the tensor in the file and loads it into its arena. */
static elbo_status load_tensor(const struct safetensors *file, const struct safetensors_tensor *wanted,
                               elbo_error *error)
{
    const struct safetensors_tensor *found;
    ELBO_TRY(safetensors_match(&found, file, wanted, error));
    return arena_load((const struct arena *)wanted->source, wanted->at, file, found, error);
}

elbo_status weights_load(float *weights, const struct parameters *parameters, struct backend *backend,
                         const struct checkpoint *c, elbo_error *error)
{
    struct safetensors *file;
    ELBO_TRY(checkpoint_tensors(&file, c, "model.safetensors", error));
    struct arena arena = arena_of(backend, weights, DTYPE_F32);
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < parameters_count(parameters) && !status; i++) {
        const struct parameter *p = parameters_get(parameters, i);
        struct safetensors_tensor wanted = arena_tensor(&arena, p, p->name);
        status = load_tensor(file, &wanted, error);
    }
    if (status) elbo_fail_in(error, "%s: ", checkpoint_path(c));
    safetensors_free(file);
    return status;
}

static elbo_status load_moments(struct training_state *s, const struct checkpoint *c, elbo_error *error)
{
    struct safetensors *file;
    struct bundle b = {0};
    ELBO_TRY(checkpoint_tensors(&file, c, "state/optimizer.safetensors", error));
    bool whole = !moments_are_beside(c);
    elbo_status status = bundle_make(&b, s, whole, error);
    if (!status && !whole) status = moments_load_beside(&s->moments, c, error);
    for (size_t i = 0; i < b.state_count && !status; i++) {
        if (b.state[i].source)
            status = load_tensor(file, &b.state[i], error);
        else if (safetensors_find(file,
                                  b.state[i].name)) /* version 0.1.0 kept another statistic; this one begins anew */
            status = safetensors_copy(file, (void *)b.state[i].data, &b.state[i], error);
    }
    bundle_free(&b);
    safetensors_free(file);
    return status;
}

static elbo_status load_choices(bool *other, struct backend *backend, const struct checkpoint *c, elbo_error *error)
{
    const void *bytes;
    size_t size;
    if (!backend->device.restore_choices || !checkpoint_has(c, ALGORITHMS)) return ELBO_OK;
    ELBO_TRY(checkpoint_bytes(&bytes, &size, c, ALGORITHMS, error));
    *other = !backend->device.restore_choices(backend, bytes, size);
    return ELBO_OK;
}

/* Compares the labels in order, because a label's number is its place in the list. */
static elbo_status compare_labels(const struct training_state *s, const struct checkpoint *c, elbo_error *error)
{
    const json_t *labels = json_object_get(checkpoint_counters(c), "labels");
    size_t count = json_array_size(labels);
    bool same = count == s->label_count;
    for (size_t k = 0; k < count && same; k++) {
        const char *name = json_string_value(json_array_get(labels, k));
        same = name && !strcmp(name, s->labels[k]);
        if (!same)
            return elbo_fail(error, ELBO_INPUT,
                             "%s was trained with the label '%.80s', where data.train has '%.80s'; give the corpus it "
                             "was trained on",
                             checkpoint_path(c), name ? name : "(none)", s->labels[k]);
    }
    if (same) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "%s was trained with %zu labels, data.train has %zu; give the corpus it was trained on",
                     checkpoint_path(c), count, s->label_count);
}

/* Refuses the tables of another vocabulary, tokenizer or list of labels. */
static elbo_status compare_data(const struct training_state *s, const struct checkpoint *c, elbo_error *error)
{
    const json_t *numbers = checkpoint_counters(c);
    uint64_t vocabulary;
    ELBO_TRY(counter(numbers, "vocabulary", &vocabulary, error));
    if (vocabulary != s->vocabulary)
        return elbo_fail(error, ELBO_INPUT,
                         "%s was trained with %llu token types, data.train has %zu; give the corpus it was trained on",
                         checkpoint_path(c), (unsigned long long)vocabulary, s->vocabulary);
    ELBO_TRY(compare_labels(s, c, error));
    const char *tokenizer = json_string_value(json_object_get(numbers, "tokenizer"));
    if (tokenizer && !strcmp(tokenizer, s->tokenizer)) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "%s was trained with another tokenizer than data.train has; give the corpus it was trained on, or "
                     "prepare one with --tokenizer.from=%s",
                     checkpoint_path(c), checkpoint_path(c));
}

elbo_status training_state_load(struct training_state *s, struct training_changes *changes, const struct checkpoint *c,
                                elbo_error *error)
{
    const json_t *numbers = checkpoint_counters(c);
    const char *corpus = json_string_value(json_object_get(numbers, "corpus"));
    *changes = (struct training_changes){.corpus = !corpus || strcmp(corpus, s->corpus)};
    ELBO_TRY(compare_data(s, c, error));
    ELBO_TRY(weights_load(s->weights, s->parameters, s->backend, c, error));
    ELBO_TRY(load_moments(s, c, error));
    ELBO_TRY(load_choices(&changes->instructions, s->backend, c, error));
    ELBO_TRY(load_counters(&s->counters, numbers, error));
    return load_best(&s->best, numbers, error);
}
