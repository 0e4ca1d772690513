/* Saves a run and restores it from a checkpoint: see saving.h. */
#include "train/saving.h"
#include "base/clock.h"
#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *trainer_best_figure(const struct elbo_config *config)
{
    static const char *const names[] = {"none", "neg_elbo", "reconstruction", "own_z_gain", "active_units"};
    return names[config->checkpoint.best];
}

/* ---- saving ---- */

/* Gathers the files of a checkpoint beside the state: the corpus's tokenizer and the configuration in force. */
static elbo_status gather_files(struct training_files *files, const struct trainer *t, elbo_error *error)
{
    char path[FILES_PATH], *tokenizer = NULL;
    ELBO_TRY(file_join(path, elbo_corpus_folder(t->train), "tokenizer.json", error));
    ELBO_TRY(file_read(&tokenizer, &files->tokenizer_size, path, (size_t)1 << 30, error));
    files->tokenizer = tokenizer;
    files->yaml = options_yaml(t->options, COMMAND_TRAIN);
    return files->yaml ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to save the configuration");
}

void trainer_fetch_states(struct trainer *t)
{
    const struct kept_states *k = &t->states;
    float *to = k->copy;
    for (size_t i = 0; i < k->count; to += k->list[i++].elements)
        t->backend->memory.download(t->backend, to, k->list[i].memory, k->list[i].elements * sizeof *to);
}

void trainer_give_states(struct trainer *t)
{
    const struct kept_states *k = &t->states;
    const float *from = k->copy;
    for (size_t i = 0; i < k->count; from += k->list[i++].elements)
        t->backend->memory.upload(t->backend, k->list[i].memory, from, k->list[i].elements * sizeof *from);
    step_states_restored(&t->step);
}

/* Rank 0 gathers its files first. Then every rank enters the collective calls: once for whole weights and once for the
 * state. A rank that has failed enters them too, because the others wait for it there. */
elbo_status save(struct trainer *t, elbo_error *error)
{
    double before = clock_seconds();
    struct training_files files = {0};
    bool writes = !t->team.rank;
    elbo_error lost, unsynced;
    if (writes && metrics_sync(t->metrics, &unsynced)) /* rows may be lost, but the weights must not be lost too */
        console_warning(&t->report, unsynced.message);
    elbo_status status = writes ? gather_files(&files, t, error) : ELBO_OK, other = step_whole(&t->step, &lost);
    bool whole = !other;
    if (!status && other) *error = lost, status = other;
    if (status)
        elbo_fail_in(error, "the checkpoint of step %llu was not saved: ", (unsigned long long)t->state.counters.draws);
    t->state.counters.updates = t->step.optimizer.updates;
    memcpy(t->state.counters.part_updates, t->step.optimizer.part_updates, sizeof t->step.optimizer.part_updates);
    trainer_fetch_states(t);
    if (whole)
        other = training_state_save(&t->state, t->config->run_dir, writes && !status ? &files : NULL,
                                    t->config->checkpoint.keep, &lost);
    if (!status && other) *error = lost, status = other;
    if (writes && !status) t->saved_step = t->state.counters.draws;
    free((void *)files.tokenizer);
    free((void *)files.yaml);
    t->clock.step_began += clock_seconds() - before;
    return status;
}

bool save_on_the_way(struct trainer *t)
{
    elbo_error error = {0};
    if (!save(t, &error)) return true;
    console_warning(&t->report, error.message);
    return false;
}

/* ---- loading ---- */

/* Refuses a model other than the checkpoint's, and reports the other options that changed. */
static elbo_status compare_options(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    const void *yaml;
    size_t size;
    char name[FILES_PATH], *changed;
    ELBO_TRY(file_join(name, checkpoint_path(c), "config.yaml", error));
    ELBO_TRY(checkpoint_bytes(&yaml, &size, c, "config.yaml", error));
    ELBO_TRY(resume_compare(&changed, t->options, t->config, yaml, size, name, error));
    if (changed) console_line(&t->report, "changed since the checkpoint: %s", changed);
    free(changed);
    return ELBO_OK;
}

static elbo_status take_state(struct trainer *t, struct training_changes *changes, const struct checkpoint *c,
                              elbo_error *error)
{
    ELBO_TRY(training_state_load(&t->state, changes, c, error));
    trainer_give_states(t);
    ELBO_TRY(model_refresh(&t->step.model, error));
    t->step.optimizer.updates = t->state.counters.updates;
    memcpy(t->step.optimizer.part_updates, t->state.counters.part_updates, sizeof t->step.optimizer.part_updates);
    return ELBO_OK;
}

elbo_status restore_state(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    struct training_changes unused;
    return take_state(t, &unused, c, error);
}

static elbo_status load(struct trainer *t, const struct checkpoint *c, elbo_error *error)
{
    struct training_changes changes;
    ELBO_TRY(compare_options(t, c, error));
    ELBO_TRY(take_state(t, &changes, c, error));
    if (changes.instructions)
        console_warning(
            &t->report,
            "the checkpoint was computed by other instructions, another GPU or another cuBLAS: the run goes "
            "on, but not with the bits that it would have had there");
    if (changes.corpus)
        console_warning(
            &t->report,
            "data.train is not the corpus that this run began with: the run goes on, but not with the same bits");
    return ELBO_OK;
}

elbo_status resume_from(struct trainer *t, char path[FILES_PATH], elbo_error *error)
{
    struct checkpoint *c;
    ELBO_TRY(checkpoint_open(&c, path, console_warning, &t->report, error));
    elbo_status status = load(t, c, error);
    if (!status) console_line(&t->report, "resuming from %s", checkpoint_path(c));
    snprintf(path, FILES_PATH, "%s", checkpoint_path(c));
    checkpoint_close(c);
    return status;
}
