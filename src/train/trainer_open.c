/* Opens a run, in parts that fail on every rank if they fail on one, and closes it. */
#include "base/checked.h"
#include "base/philox.h"
#include "base/files.h"
#include "device/backends.h"
#include "step/memory.h"
#include "train/effects.h"
#include "train/limits.h"
#include "train/resume.h"
#include "train/rewind.h"
#include "train/saving.h"
#include "train/step_options.h"
#include "train/warm_start.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Blocks the signals in all threads. The trainer asks for them between steps, so a signal waits until a step is
 * over. */
static void block_signals(struct trainer *t)
{
    sigset_t set = signals_that_stop();
    t->signals_blocked = !pthread_sigmask(SIG_BLOCK, &set, &t->old_signals);
}

static elbo_status open_labels(struct trainer *t, elbo_error *error)
{
    t->model.labels = 0;
    if (!t->config->data.labels) return ELBO_OK;
    ELBO_TRY(label_names_of_corpus(&t->labels, t->train, error));
    t->model.labels = t->labels.count;
    ELBO_TRY(label_numbers(&t->train_labels, &t->labels, t->train, error));
    return t->valid ? label_numbers(&t->valid_labels, &t->labels, t->valid, error) : ELBO_OK;
}

static elbo_status open_data(struct trainer *t, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    if (!*c->data.train)
        return elbo_fail(error, ELBO_USAGE, "--data.train is missing: a corpus made by `elbo prepare`");
    if (!*c->run_dir) return elbo_fail(error, ELBO_USAGE, "--run.dir is missing: a folder for this run");
    ELBO_TRY(elbo_corpus_open(&t->train, c->data.train, error));
    if (*c->data.valid) {
        ELBO_TRY(elbo_corpus_open(&t->valid, c->data.valid, error));
        if (strcmp(elbo_corpus_tokenizer_hash(t->train), elbo_corpus_tokenizer_hash(t->valid)))
            return elbo_fail(error, ELBO_INPUT,
                             "%s and %s have different tokenizers; prepare the second with "
                             "--tokenizer.from=%s",
                             c->data.train, c->data.valid, c->data.train);
    }
    const char *one = elbo_corpus_set(t->train), *other = t->valid ? elbo_corpus_set(t->valid) : "";
    if (*one && *other && strcmp(one, other)) {
        char text[2 * FILES_PATH + 128];
        snprintf(text, sizeof text, "%s and %s are parts of different splits: sentences of one may stand in the other",
                 c->data.train, c->data.valid);
        console_warning(&t->report, text);
    }
    ELBO_TRY(limits_check(t->train, "data.train", &c->data, &t->report, error));
    if (t->valid && c->train.eval_every) ELBO_TRY(limits_check(t->valid, "data.valid", &c->data, &t->report, error));
    t->model = c->model;
    t->model.vocabulary = elbo_corpus_vocabulary(t->train, ELBO_STREAM_DECODER);
    t->model.positions = c->data.max_length + 2;
    return open_labels(t, error);
}

static elbo_status copy_path(char to[FILES_PATH], const char *from, elbo_error *error)
{
    if (snprintf(to, FILES_PATH, "%s", from) >= FILES_PATH)
        return elbo_fail(error, ELBO_USAGE, "the path %s is too long", from);
    return ELBO_OK;
}

/* Opens the run directory on rank 0. `from` becomes the path to resume from, or stays empty. A path in `resume` begins
 * a run that has no checkpoint of its own; afterwards the same command goes on from the run's newest checkpoint,
 * however often it is started. */
static elbo_status open_run_directory(struct trainer *t, char from[FILES_PATH], elbo_error *error)
{
    const char *dir = t->config->run_dir, *how = t->config->resume;
    bool path = strcmp(how, "auto") && strcmp(how, "none");
    if (path && access(how, F_OK))
        return elbo_fail(error, ELBO_IO,
                         "resume = %s: neither auto nor none, and there is no run or checkpoint of that path", how);
    ELBO_TRY(file_make_folder(dir, error));
    ELBO_TRY(run_directory_lock(&t->lock, dir, error));
    t->locked = true;
    bool any = checkpoint_any(dir);
    if (any && !strcmp(how, "none"))
        return elbo_fail(error, ELBO_USAGE,
                         "%s already holds checkpoints and resume is none; take another --run.dir, or "
                         "--resume=auto to go on from them",
                         dir);
    if (t->config->rewind) return rewind_run(&t->report, t->config, from, error);
    if (any && path)
        console_line(&t->report,
                     "%s has checkpoints of its own and goes on from the newest, not from %s; --rewind=STEP goes back",
                     dir, how);
    if (any) return copy_path(from, dir, error);
    if (!path) return ELBO_OK;
    if (*t->config->init.from)
        return elbo_fail(error, ELBO_USAGE,
                         "--resume=%s takes a run's whole state and --init.from=%s its weights alone; give one of them",
                         how, t->config->init.from);
    return copy_path(from, how, error);
}

/* Describes where the moments are, also if the ranks share them out. */
static struct moments moments_of(const struct trainer *t)
{
    const struct optimizer *o = &t->step.optimizer;
    bool shared = o->share.ranks > 1;
    return (struct moments){.source = shared ? &moments_gathered : &moments_here,
                            .backend = t->backend,
                            .parameters = t->step.parameters,
                            .type = optimizer_moments(&o->config),
                            .memory = {o->moment1, o->moment2},
                            .collectives = shared ? t->team.collectives : NULL,
                            .pieces = o->all,
                            .begin = o->begin};
}

/* Names the states of the step's terms as statistics of a checkpoint. */
static elbo_status name_states(struct trainer *t, elbo_error *error)
{
    struct kept_states *k = &t->states;
    size_t floats = 0;
    k->count = step_states(&t->step, k->list, k->names);
    for (size_t i = 0; i < k->count; i++) floats += k->list[i].elements;
    k->copy = calloc(floats + 1, sizeof *k->copy);
    if (!k->copy) return elbo_fail(error, ELBO_MEMORY, "no memory for the states of the objective's terms");
    floats = 0;
    for (size_t i = 0; i < k->count; i++) {
        t->statistics[1 + i] = (struct safetensors_tensor){.name = k->list[i].name,
                                                           .dtype = SAFETENSORS_F32,
                                                           .rank = 1,
                                                           .shape = {k->list[i].elements},
                                                           .data = k->copy + floats};
        floats += k->list[i].elements;
    }
    trainer_fetch_states(t); /* a checkpoint that lacks a state leaves this value */
    return ELBO_OK;
}

/* Names the state that a checkpoint holds. Its memory is the step's. */
static elbo_status name_state(struct trainer *t, elbo_error *error)
{
    size_t z = t->model.latent.width;
    t->variance = calloc(z + 1, sizeof *t->variance);
    if (!t->variance) return elbo_fail(error, ELBO_MEMORY, "no memory for the running statistics");
    t->statistics[0] = (struct safetensors_tensor){
        .name = "posterior.variance", .dtype = SAFETENSORS_F64, .rank = 1, .shape = {z + 1}, .data = t->variance};
    ELBO_TRY(name_states(t, error));
    t->state = (struct training_state){.best = {.figure = trainer_best_figure(t->config)},
                                       .backend = t->backend,
                                       .parameters = t->step.parameters,
                                       .weights = t->step.model.weights,
                                       .moments = moments_of(t),
                                       .statistics = t->statistics,
                                       .statistic_count = 1 + t->states.count,
                                       .vocabulary = t->model.vocabulary,
                                       .positions = t->model.positions,
                                       .labels = t->labels.name,
                                       .label_count = t->labels.count,
                                       .corpus = elbo_corpus_hash(t->train),
                                       .tokenizer = elbo_corpus_tokenizer_hash(t->train)};
    return ELBO_OK;
}

static void take_down(struct trainer *t)
{
    for (unsigned i = 0; i < MOST_AHEAD; i++) {
        if (t->launched[i].read) t->backend->memory.release_host(t->backend, t->launched[i].read);
        t->launched[i].read = NULL;
    }
    moments_close(&t->state.moments);
    step_free(&t->step);
    free(t->variance);
    free(t->states.copy);
    t->variance = NULL;
    t->states.copy = NULL;
    t->done.figures.kl_dim = t->done.figures.moments = NULL;
}

/* Builds the step: records and plans it, and only then allocates it. */
static elbo_status build(struct trainer *t, elbo_error *error)
{
    struct step_options options = step_options_of(t->config, &t->model, t->team.ranks, t->team.rank);
    struct memory_table table;
    options.sums.collectives = t->team.collectives;
    objective_raise(&options.objective, &options.model, t->state.counters.watch.rollbacks);
    ELBO_TRY(step_record(&t->step, &options, error));
    ELBO_TRY(step_plan(&t->step, t->backend, error));
    memory_table_of(&table, &t->step);
    if (!t->backend->memory.separate) ELBO_TRY(memory_check(&table, memory_available(), error));
    ELBO_TRY(step_allocate(&t->step, error));
    ELBO_TRY(name_state(t, error));
    for (unsigned i = 0; i <= t->backend->stream.ahead; i++)
        ELBO_TRY(t->backend->memory.allocate_host(t->backend, (void **)&t->launched[i].read,
                                                  step_read_floats(&t->step) * sizeof(float), error));
    if (!t->state.counters.watch.rollbacks)
        console_line(&t->report, "%.2f M parameters on the %s (%s); plan %.1f MiB, of which activations %.1f MiB",
                     (double)table.parameters / 1e6, t->backend->name, t->backend->detail,
                     (double)table.total / 1048576.0, (double)table.activations / 1048576.0);
    return ELBO_OK;
}

elbo_status trainer_rebuild(struct trainer *t, elbo_error *error)
{
    struct training_counters count = t->state.counters;
    struct training_best best = t->state.best;
    struct step_phase phase = t->step.phase;
    step_part(&t->step);
    take_down(t);
    elbo_status status = build(t, error);
    t->state.counters = count;
    if (status) return status;
    t->state.best = best;
    t->step.phase = phase;
    return moments_choose(&t->state.moments, t->config->run_dir, error);
}

static elbo_status write_if_other(const char *path, const char *text, size_t size, elbo_error *error)
{
    char *now = NULL;
    size_t bytes = 0;
    elbo_error missing;
    bool same = !file_read(&now, &bytes, path, (size_t)1 << 30, &missing) && bytes == size && !memcmp(now, text, size);
    free(now);
    return same ? ELBO_OK : file_write(path, text, size, error);
}

/* Writes the configuration in force and the tokenizer into the run directory before the first step. */
static elbo_status write_beginning(struct trainer *t, elbo_error *error)
{
    char path[FILES_PATH], *yaml = options_yaml(t->options, COMMAND_TRAIN);
    elbo_status status = yaml ? file_join(path, t->config->run_dir, "config.yaml", error)
                              : elbo_fail(error, ELBO_MEMORY, "no memory to save the configuration");
    if (!status) status = write_if_other(path, yaml, strlen(yaml), error);
    if (!status) status = file_join(path, t->config->run_dir, "tokenizer.json", error);
    if (!status && (!t->state.counters.draws || !file_is_regular(path)))
        status = elbo_tokenizer_save(elbo_corpus_tokenizer(t->train, ELBO_STREAM_DECODER), path, error);
    free(yaml);
    return status;
}

static elbo_status open_loader(struct trainer *t, elbo_error *error)
{
    struct slot_options s = t->step.options.slots;
    sums_own_slots(&t->step.options.sums, &s);
    s.labels = t->train_labels;
    const struct training_passes *passes = &t->state.counters.passes;
    s.first = t->state.counters.next;
    s.step = t->state.counters.draws - passes->encoder_draws;
    ELBO_TRY(slot_loader_open(&t->loader, t->train, &s, error));
    if (!t->step.encoder.g) return ELBO_OK;
    s.seed ^= noise_purpose("data.encoder_passes"); /* an order and dropped words of their own */
    s.first = passes->encoder_next;
    s.step = passes->encoder_draws;
    return slot_loader_open(&t->beside, t->train, &s, error);
}

static elbo_status open_inputs(struct trainer *t, char from[FILES_PATH], elbo_error *error)
{
    ELBO_TRY(open_data(t, error));
    return t->team.rank ? ELBO_OK : open_run_directory(t, from, error);
}

typedef elbo_status (*take_checkpoint)(struct trainer *t, char path[FILES_PATH], elbo_error *error);

/* Loads a checkpoint: rank 0 finds it, and the others load the one that rank 0 took. */
static elbo_status take(struct trainer *t, char from[FILES_PATH], take_checkpoint load, elbo_error *error)
{
    elbo_status status = t->team.rank || !*from ? ELBO_OK : load(t, from, error);
    ELBO_TRY(team_agree(&t->team, status, error));
    if (t->team.collectives) ELBO_TRY(collectives_share(t->team.collectives, from, FILES_PATH, error));
    return t->team.rank && *from ? load(t, from, error) : ELBO_OK;
}

static elbo_status load_again(struct trainer *t, const char *path, elbo_error *error)
{
    struct checkpoint *c;
    ELBO_TRY(checkpoint_open(&c, path, NULL, NULL, error));
    elbo_status status = restore_state(t, c, error);
    checkpoint_close(c);
    return status;
}

/* Sets the phase of a run that is past its autoencoder's phase. */
static void resume_phase(struct trainer *t)
{
    const struct training_counters *count = &t->state.counters;
    size_t steps = t->config->objective.autoencoder_steps;
    if (steps && count->draws > steps)
        t->step.phase = (struct step_phase){count->begun_anew, t->config->train.steps - steps, false};
}

static elbo_status begin(struct trainer *t, char from[FILES_PATH], elbo_error *error)
{
    bool rewinds = *from && t->config->rewind;
    ELBO_TRY(take(t, from, resume_from, error));
    if (rewinds) t->state.counters.rewound = t->config->rewind;
    if (t->state.counters.watch.rollbacks) { /* the raised rate is part of the recording */
        ELBO_TRY(team_agree(&t->team, trainer_rebuild(t, error), error));
        ELBO_TRY(team_agree(&t->team, load_again(t, from, error), error));
    }
    resume_phase(t);
    if (*from) return ELBO_OK;
    ELBO_TRY(model_initialize(&t->step.model, t->config->seed, error));
    ELBO_TRY(copy_path(from, t->config->init.from, error));
    return *from ? take(t, from, warm_start, error) : ELBO_OK;
}

/* Makes `best` name the checkpoint in the state, because a process may have ended between a save and the naming. */
static elbo_status name_best(struct trainer *t, elbo_error *error)
{
    char folder[FILES_PATH], name[CHECKPOINT_NAME], path[FILES_PATH];
    ELBO_TRY(file_join(folder, t->config->run_dir, CHECKPOINT_FOLDER, error));
    checkpoint_name(name, t->state.best.step);
    ELBO_TRY(file_join(path, folder, name, error));
    if (t->state.best.step && file_is_folder(path))
        return checkpoint_mark(t->config->run_dir, "best", t->state.best.step, error);
    ELBO_TRY(file_join(path, folder, "best", error));
    return file_is_regular(path) ? file_remove(path, error) : ELBO_OK;
}

static elbo_status open_outputs(struct trainer *t, elbo_error *error)
{
    if (t->team.rank) return ELBO_OK;
    ELBO_TRY(write_beginning(t, error));
    ELBO_TRY(name_best(t, error));
    return metrics_open(&t->metrics, t->config->run_dir, t->state.counters.draws, error);
}

/* Settles objective.dropped_mark before the step is recorded. Rank 0 reads the mark that the run has. */
static elbo_status settle_mark(struct trainer *t, const char *from, elbo_error *error)
{
    int kept = -1;
    elbo_status status = t->team.rank || !*from ? ELBO_OK : resume_mark(&kept, from, error);
    ELBO_TRY(team_agree(&t->team, status, error));
    if (t->team.collectives) ELBO_TRY(collectives_share(t->team.collectives, &kept, sizeof kept, error));
    ELBO_TRY(effects_settle_mark(t->options, t->config, kept, error));
    t->model.dropped_mark = t->config->model.dropped_mark;
    return ELBO_OK;
}

static void tell_ranks(struct trainer *t)
{
    char line[RANKS_LINE];
    ranks_line(line, &t->team.who);
    console_line(&t->report, "%s, through %s", line, t->team.collectives->name);
}

/* Opens the run in parts that fail on every rank if they fail on one. */
static elbo_status open_all(struct trainer *t, elbo_error *error)
{
    char from[FILES_PATH] = "", *said;
    ELBO_TRY(effects_check(&said, t->options, t->config, error));
    if (said) console_line(&t->report, "%s", said);
    free(said);
    ELBO_TRY(elbo_config_check(t->config, error));
    block_signals(t); /* in this thread and in the threads that it starts, including those of libraries */
    ELBO_TRY(team_detect(&t->team, t->config, &t->backend, error));
    t->backend->device.tf32 = t->config->tf32;
    t->backend->device.timed_products = t->config->determinism == DETERMINISM_FAST;
    ELBO_TRY(team_join(&t->team, t->config, t->backend, error));
    struct step_options planned = step_options_of(t->config, &t->config->model, t->team.ranks, t->team.rank);
    ELBO_TRY(sums_check(&planned.sums, t->config->train.slots, error));
    if (t->team.rank) t->report = (struct train_report){0};
    if (t->team.collectives) tell_ranks(t);
    ELBO_TRY(team_agree(&t->team, open_inputs(t, from, error), error));
    char data[64]; /* hash of the sentences, and of their labels */
    snprintf(data, sizeof data, "%s%s", elbo_corpus_hash(t->train),
             t->config->data.labels ? elbo_corpus_labels_hash(t->train) : "");
    ELBO_TRY(
        team_compare(&t->team, &(struct team_likeness){t->options, data, t->config->data.train, t->backend}, error));
    ELBO_TRY(settle_mark(t, from, error));
    ELBO_TRY(team_agree(&t->team, build(t, error), error));
    ELBO_TRY(begin(t, from, error));
    ELBO_TRY(moments_choose(&t->state.moments, t->config->run_dir, error));
    elbo_status status = open_outputs(t, error);
    if (!status) status = open_loader(t, error);
    return team_agree(&t->team, status, error);
}

elbo_status trainer_open(struct trainer **out, const struct elbo_config *config, struct options *options,
                         const struct train_report *report, elbo_error *error)
{
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return elbo_fail(error, ELBO_MEMORY, "no memory for the trainer");
    t->config = config;
    t->options = options;
    if (report) t->report = *report;
    elbo_status status = open_all(t, error);
    if (status) {
        t->ended = status;
        trainer_close(t);
        return status;
    }
    t->clock.first_draw = t->done.step = t->team.checked = t->state.counters.draws;
    *out = t;
    return ELBO_OK;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    if (t->loader) slot_loader_close(t->loader);
    if (t->beside) slot_loader_close(t->beside);
    metrics_close(t->metrics);
    if (t->locked) run_directory_unlock(&t->lock);
    if (t->signals_blocked) pthread_sigmask(SIG_SETMASK, &t->old_signals, NULL);
    /* The device may wait forever, and then nothing that it uses can be released. The process ends next. */
    bool left = t->ended && t->team.collectives && t->backend->memory.separate;
    if (!left) step_part(&t->step);
    team_close(&t->team, t->ended);
    if (left) return;
    if (t->backend) take_down(t);
    if (t->backend) t->backend->destroy(t->backend);
    label_names_free(&t->labels);
    free(t->train_labels);
    free(t->valid_labels);
    if (t->train) elbo_corpus_close(t->train);
    if (t->valid) elbo_corpus_close(t->valid);
    free(t);
}
