/* A checkpoint's content: model.safetensors (weights by name), state/optimizer.safetensors (moments by name in f32,
 * running statistics), state/algorithms.bin (what the backend chose, if anything), config.yaml, tokenizer.json, and
 * counters in the manifest. */
#include "train/state.h"
#include "base/files.h"
#include "train/arena.h"
#include "checkpoint/checkpoint.h"
#include "train/report.h"
#include "train/resume.h"
#include "train/sharded.h"
#include "train/shards.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static struct safetensors_tensor describe(const struct parameter *p, const char *name, const struct arena *a)
{
    struct safetensors_tensor t = {
        .name = name, .dtype = SAFETENSORS_F32, .rank = p->rank, .source = &a->source, .at = p->offset};
    memcpy(t.shape, p->shape, p->rank * sizeof *p->shape);
    return t;
}

/* Finds the tensor in the file and puts it into its arena. */
static elbo_status load_tensor(const struct safetensors *file, const struct safetensors_tensor *wanted,
                               elbo_error *error)
{
    const struct safetensors_tensor *found;
    ELBO_TRY(safetensors_match(&found, file, wanted, error));
    return arena_load((const struct arena *)wanted->source, wanted->at, file, found, error);
}

#define ALGORITHMS "state/algorithms.bin"

static const char *const moment_names[] = {"moment1", "moment2"};

struct bundle {
    struct safetensors_tensor *weights, *state;
    char (*names)[160];
    struct arena arena[3]; /* weights, moment1, moment2 */
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

/* Gathers what is saved; whole: moments too. */
static elbo_status bundle_make(struct bundle *b, struct trainer *t, bool whole, elbo_error *error)
{
    const struct parameters *p = t->model.parameters;
    size_t n = parameters_count(p), z = t->model_config.latent.width;
    enum dtype moments = optimizer_moments(&t->optimizer.config);
    struct trainer *shared = sharded(t) ? t : NULL;
    b->arena[0] = (struct arena){{arena_read}, t->backend, (const char *)t->model.weights, DTYPE_F32, NULL, 0};
    b->arena[1] = (struct arena){{arena_read}, t->backend, t->optimizer.moment1, moments, shared, 0};
    b->arena[2] = (struct arena){{arena_read}, t->backend, t->optimizer.moment2, moments, shared, 1};
    b->weights = calloc(n + 1, sizeof *b->weights);
    b->state = calloc(2 * n + 1, sizeof *b->state);
    b->names = calloc(2 * n + 1, sizeof *b->names);
    if (!b->weights || !b->state || !b->names)
        return elbo_fail(error, ELBO_MEMORY, "no memory to gather a checkpoint of %zu parameters", n);
    for (size_t i = 0; i < n; i++) {
        const struct parameter *own = parameters_get(p, i);
        b->weights[b->count++] = describe(own, own->name, &b->arena[0]);
        for (size_t k = 0; k < 2 && b->arena[1 + k].memory && whole; k++) {
            snprintf(b->names[b->state_count], sizeof *b->names, "%s.%s", moment_names[k], own->name);
            b->state[b->state_count] = describe(own, b->names[b->state_count], &b->arena[1 + k]);
            b->state_count++;
        }
    }
    b->state[b->state_count++] = (struct safetensors_tensor){
        .name = "posterior.variance", .dtype = SAFETENSORS_F64, .rank = 1, .shape = {z + 1}, .data = t->variance};
    return ELBO_OK;
}

static elbo_status gather_choices(struct bundle *b, struct trainer *t, elbo_error *error)
{
    if (!t->backend->device.save_choices) return ELBO_OK;
    b->choices_bytes = t->backend->device.save_choices(t->backend, NULL);
    b->choices = malloc(b->choices_bytes + 1);
    if (!b->choices) return elbo_fail(error, ELBO_MEMORY, "no memory to gather the algorithms of a checkpoint");
    t->backend->device.save_choices(t->backend, b->choices);
    return ELBO_OK;
}

static const char *best_figure(const struct trainer *t)
{
    static const char *const names[] = {"none", "neg_elbo", "reconstruction", "own_z_gain", "active_units"};
    return names[t->config->checkpoint.best];
}

static json_t *counters(const struct trainer *t)
{
    json_t *all =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "draws", (json_int_t)t->draws, "updates",
                  (json_int_t)t->optimizer.updates, "next", (json_int_t)t->next, "skipped", (json_int_t)t->skipped,
                  "bad", (json_int_t)t->bad, "shortened", (json_int_t)t->shortened, "vocabulary",
                  (json_int_t)t->model_config.vocabulary, "positions", (json_int_t)t->model_config.positions, "corpus",
                  elbo_corpus_hash(t->train), "tokenizer", elbo_corpus_tokenizer_hash(t->train));
    int failed = 0;
    if (t->rewound) failed |= json_object_set_new(all, "rewound", json_integer((json_int_t)t->rewound));
    if (t->config->checkpoint.best != BEST_NONE)
        failed |=
            json_object_set_new(all, "best",
                                json_pack("{s:s, s:I, s:f, s:I}", "figure", best_figure(t), "step",
                                          (json_int_t)t->best_step, "value", t->best, "worse", (json_int_t)t->worse));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static elbo_status write_all(struct trainer *t, const struct bundle *b, const char *yaml, const char *tokenizer,
                             size_t tokenizer_size, elbo_error *error)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)XXH3_64bits(yaml, strlen(yaml)));
    const struct safetensors_note note = {"format", "pt"};
    struct checkpoint_file files[] = {
        {.name = "model.safetensors", .tensors = b->weights, .tensor_count = b->count, .notes = &note, .note_count = 1},
        {.name = "state/optimizer.safetensors", .tensors = b->state, .tensor_count = b->state_count},
        {.name = "config.yaml", .bytes = yaml, .size = strlen(yaml)},
        {.name = "tokenizer.json", .bytes = tokenizer, .size = tokenizer_size},
        {.name = ALGORITHMS, .bytes = b->choices, .size = b->choices_bytes},
    };
    size_t count = sizeof files / sizeof *files;
    if (!b->choices_bytes) count--;
    json_t *numbers = counters(t);
    if (!numbers) return elbo_fail(error, ELBO_MEMORY, "no memory for the counters of a checkpoint");
    struct checkpoint_contents contents = {.step = t->draws,
                                           .config_hash = hash,
                                           .counters = numbers,
                                           .files = files,
                                           .file_count = count,
                                           .ranks = 1,
                                           .best = t->best_step};
    if (t->shards) contents.ranks = t->team.ranks, contents.others = shards_write, contents.context = t;
    elbo_status status = checkpoint_save(t->config->run_dir, &contents, t->config->checkpoint.keep, error);
    json_decref(numbers);
    return status;
}

elbo_status state_save(struct trainer *t, elbo_error *error)
{
    struct bundle b = {0};
    char path[FILES_PATH], *tokenizer = NULL, *yaml = options_yaml(t->options, COMMAND_TRAIN);
    size_t size = 0;
    elbo_status status = yaml ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to save the configuration");
    elbo_error unsynced;
    if (metrics_sync(t->metrics, &unsynced) && t->report.warning) /* rows may be lost: no reason to lose weights too */
        t->report.warning(t->report.context, unsynced.message);
    if (!status) status = file_join(path, elbo_corpus_folder(t->train), "tokenizer.json", error);
    if (!status) status = file_read(&tokenizer, &size, path, (size_t)1 << 30, error);
    if (!status) status = bundle_make(&b, t, !t->shards, error);
    if (!status) status = gather_choices(&b, t, error);
    if (status)
        elbo_fail_in(error, "the checkpoint of step %llu was not saved: ", (unsigned long long)t->draws);
    else
        status = write_all(t, &b, yaml, tokenizer, size, error);
    if (!status) t->saved_step = t->draws;
    bundle_free(&b);
    free(tokenizer);
    free(yaml);
    return status;
}

/* ---- loading ---- */

elbo_status state_load_weights(struct model *m, const struct checkpoint *c, elbo_error *error)
{
    struct safetensors *file;
    ELBO_TRY(checkpoint_tensors(&file, c, "model.safetensors", error));
    struct arena arena = {{arena_read}, m->backend, (const char *)m->weights, DTYPE_F32, NULL, 0};
    elbo_status status = ELBO_OK;
    for (size_t i = 0; i < parameters_count(m->parameters) && !status; i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        struct safetensors_tensor wanted = describe(p, p->name, &arena);
        status = load_tensor(file, &wanted, error);
    }
    if (!status) status = model_refresh(m, error);
    if (status) elbo_fail_in(error, "%s: ", checkpoint_path(c));
    safetensors_free(file);
    return status;
}

static elbo_status load_state(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    struct safetensors *file;
    struct bundle b = {0};
    ELBO_TRY(checkpoint_tensors(&file, c, "state/optimizer.safetensors", error));
    bool whole = !shards_in(c);
    elbo_status status = bundle_make(&b, t, whole, error);
    if (!status && !whole) status = shards_load(t, c, &b.arena[1], error);
    for (size_t i = 0; i < b.state_count && !status; i++) {
        if (b.state[i].source)
            status = load_tensor(file, &b.state[i], error);
        else if (safetensors_find(
                     file, b.state[i].name)) /* version 0.1.0 kept another statistic: this one begins anew then */
            status = safetensors_copy(file, (void *)b.state[i].data, &b.state[i], error);
    }
    bundle_free(&b);
    safetensors_free(file);
    return status;
}

static void warn(void *context, const char *message)
{
    struct trainer *t = context;
    if (t->report.warning) t->report.warning(t->report.context, message);
}

static elbo_status load_choices(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    const void *bytes;
    size_t size;
    if (!t->backend->device.restore_choices || !checkpoint_has(c, ALGORITHMS)) return ELBO_OK;
    ELBO_TRY(checkpoint_bytes(&bytes, &size, c, ALGORITHMS, error));
    if (!t->backend->device.restore_choices(t->backend, bytes, size))
        warn(t, "the checkpoint was computed by other instructions, another GPU or another cuBLAS: the run goes on, "
                "but not with the bits that "
                "it would have had there");
    return ELBO_OK;
}

static elbo_status counter(const json_t *counters, const char *name, uint64_t *to, elbo_error *error)
{
    const json_t *v = json_object_get(counters, name);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter %s is missing or negative", name);
    *to = (uint64_t)json_integer_value(v);
    return ELBO_OK;
}

/* Refuses another model than the checkpoint's, and says what else is not as it was. */
static elbo_status compare_options(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    const void *yaml;
    size_t size;
    char name[FILES_PATH], *changed;
    ELBO_TRY(file_join(name, checkpoint_path(c), "config.yaml", error));
    ELBO_TRY(checkpoint_bytes(&yaml, &size, c, "config.yaml", error));
    ELBO_TRY(resume_compare(&changed, t->options, t->config, yaml, size, name, error));
    if (changed) report_line(t, "changed since the checkpoint: %s", changed);
    free(changed);
    return ELBO_OK;
}

static elbo_status load_best(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    const json_t *best = json_object_get(checkpoint_counters(c), "best"), *reached = json_object_get(best, "value");
    const char *figure = json_string_value(json_object_get(best, "figure"));
    t->best_step = t->worse = 0;
    if (!figure || strcmp(figure, best_figure(t)))
        return ELBO_OK; /* of another figure, or of none: nothing to compare with */
    if (!json_is_number(reached)) return elbo_fail(error, ELBO_INPUT, "the checkpoint's counter best has no value");
    t->best = json_number_value(reached);
    ELBO_TRY(counter(best, "step", &t->best_step, error));
    return counter(best, "worse", &t->worse, error);
}

static elbo_status load_from(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    const json_t *numbers = checkpoint_counters(c);
    uint64_t vocabulary;
    ELBO_TRY(compare_options(t, c, error));
    ELBO_TRY(counter(numbers, "vocabulary", &vocabulary, error));
    if (vocabulary != t->model_config.vocabulary)
        return elbo_fail(error, ELBO_INPUT,
                         "%s was trained with %llu token types, data.train has %zu; give the corpus it was "
                         "trained on",
                         checkpoint_path(c), (unsigned long long)vocabulary, t->model_config.vocabulary);
    const char *tokenizer = json_string_value(json_object_get(numbers, "tokenizer"));
    if (!tokenizer || strcmp(tokenizer, elbo_corpus_tokenizer_hash(t->train)))
        return elbo_fail(error, ELBO_INPUT,
                         "%s was trained with another tokenizer than data.train has; give the corpus it was "
                         "trained on, or prepare one with --tokenizer.from=%s",
                         checkpoint_path(c), checkpoint_path(c));
    ELBO_TRY(state_load_weights(&t->model, c, error));
    ELBO_TRY(load_state(t, c, error));
    ELBO_TRY(load_choices(t, c, error));
    ELBO_TRY(counter(numbers, "draws", &t->draws, error));
    ELBO_TRY(counter(numbers, "updates", &t->optimizer.updates, error));
    ELBO_TRY(counter(numbers, "next", &t->next, error));
    ELBO_TRY(counter(numbers, "skipped", &t->skipped, error));
    ELBO_TRY(counter(numbers, "bad", &t->bad, error));
    ELBO_TRY(counter(numbers, "shortened", &t->shortened, error));
    if (json_object_get(numbers, "rewound")) ELBO_TRY(counter(numbers, "rewound", &t->rewound, error));
    ELBO_TRY(load_best(t, c, error));
    const char *corpus = json_string_value(json_object_get(numbers, "corpus"));
    if (!corpus || strcmp(corpus, elbo_corpus_hash(t->train)))
        warn(t, "data.train is not the corpus that this run began with: the run goes on, but not with the same bits");
    return ELBO_OK;
}

elbo_status state_load(struct trainer *t, char path[FILES_PATH], elbo_error *error)
{
    struct checkpoint *c;
    ELBO_TRY(checkpoint_open(&c, path, warn, t, error));
    elbo_status status = load_from(t, c, error);
    if (!status && t->report.line) {
        char text[FILES_PATH + 64];
        snprintf(text, sizeof text, "resuming from %s", checkpoint_path(c));
        t->report.line(t->report.context, text);
    }
    snprintf(path, FILES_PATH, "%s", checkpoint_path(c));
    checkpoint_close(c);
    return status;
}
