/* Begins a new run with the weights of another: see warm_start.h. */
#include "train/warm_start.h"

#include <stdio.h>
#include <string.h>

static const char *const part_names[PARTS] = {"encoder", "latent", "decoder"};

/* Parses a list of parts into bits; an empty list means all parts. */
static elbo_status parse_parts(unsigned *parts, const char *list, elbo_error *error)
{
    *parts = *list ? 0 : (1u << PARTS) - 1;
    while (*list) {
        size_t size = strcspn(list, ","), part = 0;
        while (part < PARTS && (strlen(part_names[part]) != size || strncmp(part_names[part], list, size))) part++;
        if (part == PARTS)
            return elbo_fail(
                error, ELBO_USAGE,
                "init.parts: '%.*s' is no part of a model; give a list of encoder, latent, decoder, such as "
                "encoder,latent",
                (int)(size < 60 ? size : 60), list);
        *parts |= 1u << part;
        list += size + (list[size] == ',');
    }
    return ELBO_OK;
}

/* Tensors that begin anew because the file lacks them: a list of names, cut if long, and their number. */
struct left {
    char names[320];
    size_t count;
};

static void leave(struct left *l, const char *name)
{
    size_t used = strlen(l->names);
    if (used + strlen(name) + 32 < sizeof l->names)
        snprintf(l->names + used, sizeof l->names - used, "%s%s", used ? ", " : "", name);
    else if (used + 5 < sizeof l->names && strcmp(l->names + used - 3, "..."))
        strcat(l->names, ", ...");
    l->count++;
}

static elbo_status take_all(struct trainer *t, const struct safetensors *file, unsigned parts, bool whole,
                            size_t *taken, struct left *left, elbo_error *error)
{
    struct arena arena = arena_of(t->backend, t->step.model.weights, DTYPE_F32);
    for (size_t i = 0; i < parameters_count(t->step.parameters); i++) {
        const struct parameter *p = parameters_get(t->step.parameters, i);
        struct safetensors_tensor wanted = {.name = p->name, .dtype = SAFETENSORS_F32, .rank = p->rank};
        const struct safetensors_tensor *found;
        elbo_error unfit;
        memcpy(wanted.shape, p->shape, p->rank * sizeof *p->shape);
        if (!(parts >> p->part & 1)) continue;
        if (safetensors_match(&found, file, &wanted, &unfit)) {
            if (whole) {
                *error = unfit;
                return elbo_fail_in(error, "init.parts asks for the whole %s, but ", part_names[p->part]);
            }
            leave(left, p->name);
            continue;
        }
        ELBO_TRY(arena_load(&arena, p->offset, file, found, error));
        ++*taken;
    }
    return ELBO_OK;
}

static elbo_status check_tokenizer(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    const char *theirs = json_string_value(json_object_get(checkpoint_counters(c), "tokenizer"));
    if (theirs && !strcmp(theirs, elbo_corpus_tokenizer_hash(t->train))) return ELBO_OK;
    return elbo_fail(
        error, ELBO_INPUT,
        "init.from: %s was trained with another tokenizer than data.train has, so its token tables mean other "
        "tokens; prepare the corpus with --tokenizer.from=%s",
        checkpoint_path(c), checkpoint_path(c));
}

/* Checks the labels, because the rows of a label table belong to the other run's numbers. */
static elbo_status check_labels(const struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    struct label_names theirs;
    ELBO_TRY(label_names_of_counters(&theirs, checkpoint_counters(c), error));
    bool same = !theirs.count || !t->labels.count || theirs.count == t->labels.count;
    for (size_t k = 0; k < theirs.count && same && t->labels.count; k++)
        same = !strcmp(theirs.name[k], t->labels.name[k]);
    label_names_free(&theirs);
    if (same) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "init.from: %s was trained with other labels than data.train has, so its label tables mean other "
                     "classes; prepare the corpus with the same labels, or set data.labels=false",
                     checkpoint_path(c));
}

static elbo_status take(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    struct safetensors *file;
    struct left left = {.count = 0};
    unsigned parts;
    size_t taken = 0, all = parameters_count(t->step.parameters);
    ELBO_TRY(parse_parts(&parts, t->config->init.parts, error));
    ELBO_TRY(check_tokenizer(t, c, error));
    ELBO_TRY(check_labels(t, c, error));
    ELBO_TRY(checkpoint_tensors(&file, c, "model.safetensors", error));
    elbo_status status = take_all(t, file, parts, *t->config->init.parts, &taken, &left, error);
    safetensors_free(file);
    if (status) return elbo_fail_in(error, "init.from: %s: ", checkpoint_path(c));
    if (!taken)
        return elbo_fail(error, ELBO_INPUT, "init.from: no tensor of %s has a name and shape of this model",
                         checkpoint_path(c));
    console_line(&t->report, "%zu of %zu tensors begin with the weights of %s", taken, all, checkpoint_path(c));
    if (left.count)
        console_line(&t->report, "%zu begin anew, having no counterpart of their name and shape there: %s", left.count,
                     left.names);
    return model_refresh(&t->step.model, error);
}

elbo_status warm_start(struct trainer *t, char path[FILES_PATH], elbo_error *error)
{
    struct checkpoint *c;
    ELBO_TRY(checkpoint_open(&c, path, console_warning, &t->report, error));
    elbo_status status = take(t, c, error);
    snprintf(path, FILES_PATH, "%s", checkpoint_path(c));
    checkpoint_close(c);
    return status;
}
