#include "train/trainer.h"
#include "base/checked.h"
#include "base/files.h"
#include "base/log.h"
#include "graph/backends.h"
#include "parallel/heartbeat.h"
#include "train/checkpoint.h"
#include "train/memory.h"
#include "train/schedule.h"
#include "train/sharded.h"
#include "train/report.h"
#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

/* Signals wait until a step is over: they are blocked in all threads and asked for between steps. */
static void block_signals(struct trainer *t)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    t->signals_blocked = !pthread_sigmask(SIG_BLOCK, &set, &t->old_signals);
}

static int pending_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    int number = sigtimedwait(&set, NULL, &(struct timespec){0});
    return number > 0 ? number : 0;
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
            return elbo_fail(error, ELBO_INPUT, "%s and %s have different tokenizers; prepare the second with "
                             "--tokenizer.from=%s", c->data.train, c->data.valid, c->data.train);
    }
    t->model_config = c->model;
    t->model_config.vocabulary = elbo_corpus_vocabulary(t->train, ELBO_STREAM_DECODER);
    t->model_config.positions = c->data.max_length + 2;
    return ELBO_OK;
}

static elbo_status copy_path(char to[FILES_PATH], const char *from, elbo_error *error)
{
    if (snprintf(to, FILES_PATH, "%s", from) >= FILES_PATH) return elbo_fail(error, ELBO_USAGE, "the path %s is too long", from);
    return ELBO_OK;
}

/* Rank 0's; `from`: where to resume from, or empty. */
static elbo_status open_run_directory(struct trainer *t, char from[FILES_PATH], elbo_error *error)
{
    const char *dir = t->config->run_dir, *how = t->config->resume;
    ELBO_TRY(file_make_folder(dir, error));
    ELBO_TRY(run_directory_lock(&t->lock, dir, error));
    t->locked = true;
    bool any = checkpoint_any(dir);
    if (strcmp(how, "auto") && strcmp(how, "none")) return copy_path(from, how, error);
    if (any) ELBO_TRY(copy_path(from, dir, error));
    if (!strcmp(how, "none") && any)
        return elbo_fail(error, ELBO_USAGE, "%s already holds checkpoints and resume is none; take another --run.dir, or "
                         "--resume=auto to go on from them", dir);
    return ELBO_OK;
}

/* What is read back of a step. */
static size_t read_floats(size_t z)
{
    return ELBO_PARTS + 5 * z + CONTROL_SIZE;
}

static elbo_status record(struct trainer *t, elbo_error *error)
{
    const struct objective_config *o = &t->config->objective;
    struct slot_options s = slot_options_of(t->config);
    size_t sentences = slot_sentence_capacity(&s);
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = s.encoder_tokens, [DIM_DEC_TOKENS] = s.decoder_tokens,
                                           [DIM_SENTENCES] = sentences, [DIM_DRAWS] = sentences}};
    struct train_recording recording = {.free_bits = {.nats = o->free_bits, .groups = o->free_bits_groups},
                                        .recompute = (enum recompute_policy)t->config->train.recompute,
                                        .wanted = optimizer_wanted(&t->config->optimizer)};
    recording.free_bits.kind = o->free_bits_kind == FREE_BITS_TOTAL   ? FREE_TOTAL
                               : o->free_bits_kind == FREE_BITS_GROUP ? FREE_PER_GROUP
                                                                      : FREE_PER_DIMENSION;
    return record_train(&t->recording, &t->model_config, t->model.parameters, &capacities, &recording, NULL, error);
}

/* The arena of gradients, the step's figures behind them, and the sum of both over lanes and ranks. */
static elbo_status build_sums(struct trainer *t, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    size_t gradients = parameters_arena_elements(t->model.parameters);
    size_t figures = align_up(recording_state_elements(&t->recording), PARAMETER_ALIGNMENT);
    struct optimizer_options updated = {.figures = figures, .share = sharded_share(t)};
    ELBO_TRY(optimizer_create(&t->optimizer, &c->optimizer, t->model.parameters, model_weights(&t->model), &updated, t->backend, error));
    ELBO_TRY(recording_place_state(&t->recording, t->optimizer.gradients + gradients, error));
    struct reduction_options options = {.backend = t->backend, .collectives = t->team.collectives, .arena = t->optimizer.gradients,
                                        .elements = gradients + figures, .lanes = team_lanes(c, t->team.ranks),
                                        .ordered = c->determinism != DETERMINISM_FAST, .bucket = c->parallel.bucket << 18};
    return reduction_create(&t->team.reduction, &options, error);
}

static elbo_status build(struct trainer *t, elbo_error *error)
{
    struct elbo_config planned = *t->config;
    planned.model = t->model_config;
    planned.parallel.ranks = t->team.ranks;
    struct memory_table table;
    ELBO_TRY(memory_plan(&table, &planned, t->backend, error));
    if (!t->backend->separate_memory) ELBO_TRY(memory_check(&table, memory_available(), error));
    ELBO_TRY(model_create(&t->model, &t->model_config, t->backend, error));
    ELBO_TRY(record(t, error));
    ELBO_TRY(build_sums(t, error));
    size_t z = t->model_config.latent.width;
    ELBO_TRY(model_bind(&t->model, (struct recording *[]){&t->recording}, 1, t->optimizer.gradients, error));
    t->moments = calloc(2 * z + 1, sizeof *t->moments);
    t->kl_dim = calloc(z + 1, sizeof *t->kl_dim);
    if (!t->moments || !t->kl_dim) return elbo_fail(error, ELBO_MEMORY, "no memory for the running statistics");
    optimizer_watch(&t->optimizer, executor_pointer(&t->recording.executor, t->recording.sum_loss));
    recording_bind_input(&t->recording, "control", t->optimizer.control);
    for (unsigned i = 0; i <= t->backend->ahead; i++)
        ELBO_TRY(t->backend->allocate_host(t->backend, (void **)&t->pending[i].read, read_floats(z) * sizeof(float), error));
    report_line(t, "%.2f M parameters on the %s (%s); plan %.1f MiB, of which activations %.1f MiB", (double)table.parameters / 1e6,
        t->backend->name, t->backend->detail, (double)table.total / 1048576.0, (double)table.activations / 1048576.0);
    return ELBO_OK;
}

/* The run directory names its configuration and tokenizer from the first moment on. */
static elbo_status write_beginning(struct trainer *t, elbo_error *error)
{
    char path[FILES_PATH], *yaml = options_yaml(t->options, COMMAND_TRAIN);
    elbo_status status = yaml ? file_join(path, t->config->run_dir, "config.yaml", error)
                              : elbo_fail(error, ELBO_MEMORY, "no memory to save the configuration");
    if (!status) status = file_write(path, yaml, strlen(yaml), error);
    if (!status) status = file_join(path, t->config->run_dir, "tokenizer.json", error);
    if (!status) status = elbo_tokenizer_save(elbo_corpus_tokenizer(t->train, ELBO_STREAM_DECODER), path, error);
    free(yaml);
    return status;
}

static bool any_beginning(const struct trainer *t)
{
    char path[FILES_PATH];
    elbo_error unused;
    return !file_join(path, t->config->run_dir, "config.yaml", &unused) && file_is_regular(path);
}

static elbo_status open_loader(struct trainer *t, elbo_error *error)
{
    struct slot_options s = slot_options_of(t->config);
    s.first = t->next;
    s.step = t->draws;
    return slot_loader_open(&t->loader, t->train, &s, error);
}

static elbo_status open_inputs(struct trainer *t, char from[FILES_PATH], elbo_error *error)
{
    ELBO_TRY(open_data(t, error));
    return t->team.rank ? ELBO_OK : open_run_directory(t, from, error);
}

/* Rank 0 finds the checkpoint; the others take the one that it took. */
static elbo_status resume(struct trainer *t, char from[FILES_PATH], elbo_error *error)
{
    elbo_status status = t->team.rank || !*from ? ELBO_OK : state_load(t, from, error);
    ELBO_TRY(team_agree(t, status, error));
    if (t->team.collectives) ELBO_TRY(collectives_share(t->team.collectives, from, FILES_PATH, error));
    if (!*from) return model_initialize(&t->model, t->config->seed, error);
    return t->team.rank ? state_load(t, from, error) : ELBO_OK;
}

static elbo_status open_outputs(struct trainer *t, elbo_error *error)
{
    if (t->team.rank) return ELBO_OK;
    if (!t->draws || !any_beginning(t)) ELBO_TRY(write_beginning(t, error));
    return metrics_open(&t->metrics, t->config->run_dir, t->draws, error);
}

static void tell_ranks(struct trainer *t)
{
    char line[RANKS_LINE];
    ranks_line(line, &t->team.who);
    report_line(t, "%s, through %s", line, t->team.collectives->name);
}

/* In parts that fail on every rank where they fail on one. */
static elbo_status open_all(struct trainer *t, elbo_error *error)
{
    char from[FILES_PATH] = "";
    ELBO_TRY(elbo_config_check(t->config, error));
    block_signals(t); /* in this thread and in those that it starts, the libraries' too */
    ELBO_TRY(team_detect(&t->team, t->config, &t->backend, error));
    t->backend->tf32 = t->config->tf32;
    ELBO_TRY(team_join(&t->team, t->config, t->backend, error));
    ELBO_TRY(team_fits(t->config, t->team.ranks, error));
    if (t->team.rank) t->report = (struct train_report){0};
    if (t->team.ranks > 1) tell_ranks(t);
    ELBO_TRY(team_agree(t, open_inputs(t, from, error), error));
    ELBO_TRY(team_compare(t, error));
    ELBO_TRY(team_agree(t, build(t, error), error));
    ELBO_TRY(resume(t, from, error));
    elbo_status status = open_outputs(t, error);
    if (!status) status = open_loader(t, error);
    return team_agree(t, status, error);
}

elbo_status trainer_open(struct trainer **out, const struct elbo_config *config, const struct options *options,
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
    t->first_draw = t->done = t->team.checked = t->draws;
    *out = t;
    return ELBO_OK;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    if (t->loader) slot_loader_close(t->loader);
    metrics_close(t->metrics);
    if (t->locked) run_directory_unlock(&t->lock);
    if (t->signals_blocked) pthread_sigmask(SIG_SETMASK, &t->old_signals, NULL);
    bool left = t->ended && t->team.collectives && t->backend->separate_memory;
    team_close(&t->team, t->backend, t->ended);
    if (left) return; /* what the device waits for may never come, and nothing that it uses can be released: the process ends next */
    for (unsigned i = 0; i < MOST_AHEAD; i++)
        if (t->pending[i].read) t->backend->release_host(t->backend, t->pending[i].read);
    recording_free(&t->recording, t->backend);
    if (t->sharded_staging) t->backend->release(t->backend, t->sharded_staging);
    if (t->optimizer.backend) optimizer_free(&t->optimizer);
    if (t->model.backend) model_free(&t->model);
    if (t->backend) t->backend->destroy(t->backend);
    if (t->train) elbo_corpus_close(t->train);
    if (t->valid) elbo_corpus_close(t->valid);
    free(t->moments);
    free(t->kl_dim);
    free(t);
}

/* ---- a step: launched, and finished when its figures are there, at most backend->ahead steps later ---- */

/* This rank's lanes: each is the sum of its slots. */
static elbo_status run_slots(struct trainer *t, const struct slot_batch *batch, elbo_error *error)
{
    size_t lanes = team_lanes(t->config, t->team.ranks);
    struct lane_run own = reduction_own(t->team.reduction);
    for (size_t lane = own.first; lane < own.first + own.count; lane++) {
        struct lane_run slots = lane_run_of(batch->count, lanes, lane);
        for (size_t i = slots.first; i < slots.first + slots.count; i++) {
            struct execution run = {.first_slot = i == slots.first, .seed = t->config->seed, .step = batch->step};
            recording_bind_slot(&t->recording, &batch->slots[i], &run);
            ELBO_TRY(executor_run(&t->recording.executor, &run, error));
        }
        reduction_lane(t->team.reduction, lane);
    }
    return ELBO_OK;
}

/* Everything that depends on the count of updates, for both answers that the step before may have. */
static struct update schedule(struct trainer *t, struct pending *p)
{
    const struct elbo_config *c = t->config;
    struct update u = {.skip = p->step == c->train.skip, .seed = c->seed, .step = p->step};
    bool known = t->done == t->draws; /* then `updates` counts the step before already */
    for (unsigned answer = 0; answer < 2; answer++) {
        u.number[answer] = known ? t->optimizer.updates : t->optimizer.updates + answer;
        p->beta[answer] = schedule_beta(&c->objective, u.number[answer], c->train.steps);
        p->learning_rate[answer] = c->optimizer.learning_rate * schedule_learning_rate(&c->optimizer, u.number[answer], c->train.steps);
        u.learning_rate[answer] = p->learning_rate[answer];
        t->weights[answer][ELBO_WEIGHT_NLL] = (float)(c->objective.lambda / (double)p->sentences);
        t->weights[answer][ELBO_WEIGHT_KL] = (float)(p->beta[answer] / (double)p->sentences);
    }
    recording_bind_input(&t->recording, "weights", t->weights);
    return u;
}

static void read_later(struct trainer *t, const struct pending *p)
{
    struct backend *b = t->backend;
    size_t z = t->model_config.latent.width;
    const struct {
        const void *from;
        size_t floats;
    } parts[] = {{executor_pointer(&t->recording.executor, t->recording.sum_loss), ELBO_PARTS},
                 {executor_pointer(&t->recording.executor, t->recording.sum_kl_dim), z},
                 {executor_pointer(&t->recording.executor, t->recording.sum_moments), 4 * z},
                 {t->optimizer.control, CONTROL_SIZE}};
    float *to = p->read;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; to += parts[i++].floats)
        if (parts[i].from) b->download_later(b, to, parts[i].from, parts[i].floats * sizeof *to);
}

static elbo_status launch(struct trainer *t, const struct slot_batch **batch, elbo_error *error)
{
    unsigned which = (unsigned)(t->draws % (t->backend->ahead + 1));
    struct pending *p = &t->pending[which];
    ELBO_TRY(slot_loader_next(t->loader, batch, error));
    p->step = t->draws + 1;
    p->sentences = (*batch)->sentences;
    p->shortened = (*batch)->shortened;
    p->tokens = p->words = 0;
    for (size_t i = 0; i < (*batch)->count; i++) {
        p->tokens += (*batch)->slots[i].decoder.tokens;
        p->words += (*batch)->slots[i].words;
    }
    struct update u = schedule(t, p);
    double before = clock_seconds();
    ELBO_TRY(run_slots(t, *batch, error));
    p->seconds = t->backend->separate_memory ? 0 : clock_seconds() - before;
    p->signal = pending_signal();
    if (!t->team.collectives) t->signal = p->signal;
    ELBO_TRY(team_tell(t, which, p, error));
    ELBO_TRY(reduction_finish(t->team.reduction, error));
    ELBO_TRY(optimizer_update(&t->optimizer, &u, error));
    ELBO_TRY(sharded_gather(t, error));
    read_later(t, p);
    t->backend->mark(t->backend, which);
    p->live = true;
    t->next = (*batch)->next;
    t->draws++;
    return ELBO_OK;
}

/* Running moments of mu, for the active units of the console line: a mean over about fifty steps. */
static void update_moments(struct trainer *t, const float *batch)
{
    size_t z = t->model_config.latent.width;
    const double keep = 0.98;
    for (size_t j = 0; j < 2 * z; j++) {
        double sum = batch[j < z ? 2 * j : 2 * (j - z) + 1]; /* (2 Z, 2): mu's first, the sum before that of squares */
        t->moments[j] = keep * t->moments[j] + (1 - keep) * sum / (double)t->sentences;
    }
    t->moments[2 * z] = keep * t->moments[2 * z] + (1 - keep);
}

/* The oldest step under way: its figures become the trainer's. */
static elbo_status finish(struct trainer *t, elbo_error *error)
{
    launcher_heartbeat();
    unsigned which = (unsigned)(t->done % (t->backend->ahead + 1));
    struct pending *p = &t->pending[which];
    size_t z = t->model_config.latent.width;
    ELBO_TRY(t->backend->wait(t->backend, which, error));
    ELBO_TRY(team_hear(t, which, p, error));
    const float *parts = p->read, *kl_dim = parts + ELBO_PARTS, *moments = kl_dim + z, *control = moments + 4 * z;
    double n = (double)p->sentences;
    p->live = false;
    t->done = p->step;
    t->sentences = p->sentences;
    t->tokens = p->tokens;
    t->words = p->words;
    t->beta = p->beta[t->applied];
    t->learning_rate = p->learning_rate[t->applied];
    t->loss = parts[ELBO_LOSS];
    t->reconstruction = parts[ELBO_NLL] / n;
    t->kl = parts[ELBO_KL] / n;
    t->kl_free = parts[ELBO_KL_FREE] / n;
    for (size_t j = 0; j < z; j++) t->kl_dim[j] = t->recording.sum_kl_dim.index ? kl_dim[j] : 0;
    t->gradient_norm = control[CONTROL_NORM];
    t->applied = control[CONTROL_APPLIED] != 0;
    t->step_skipped = !t->applied;
    t->bad = control[CONTROL_FINITE] != 0 ? 0 : t->bad + 1;
    t->skipped += t->step_skipped;
    t->optimizer.updates += t->applied;
    if (t->applied && t->recording.sum_moments.index) update_moments(t, moments);
    t->shortened += p->shortened;
    t->tokens_since += p->tokens;
    if (p->signal) t->signal = p->signal;
    t->straggler = p->straggler;
    t->straggles = p->straggles;
    return ELBO_OK;
}

/* ---- saving ---- */

static elbo_status save(struct trainer *t, elbo_error *error)
{
    double before = clock_seconds();
    elbo_status status = t->team.rank ? ELBO_OK : state_save(t, error);
    if (sharded(t)) {
        elbo_error lost;
        elbo_status told = t->team.rank ? sharded_serve(t, &lost) : sharded_done(t, &lost);
        if (!status && told) *error = lost, status = told;
    }
    if (status) elbo_fail_in(error, "the checkpoint of step %llu was not saved: ", (unsigned long long)t->draws);
    t->save_seconds = clock_seconds() - before;
    t->step_began += t->save_seconds;
    return status;
}

/* A save on the way that fails is told, nothing is lost, and training goes on; the next one is due as before. */
static bool save_on_the_way(struct trainer *t)
{
    elbo_error error = {0};
    if (!save(t, &error)) return true;
    if (t->report.warning) t->report.warning(t->report.context, error.message);
    return false;
}

/* ---- a step that is not finite ---- */

struct culprit {
    char name[192];
};

static void look_for_culprit(void *context, const struct call *call, bool after)
{
    struct culprit *c = context;
    if (!after || c->name[0]) return;
    for (unsigned k = 0; k < MAX_OUTPUTS; k++) {
        if (!call->out[k] || call->size.out[k][0] == 0) continue;
        bool narrow = call->out_type[k] == DTYPE_BF16;
        size_t n = 1;
        for (unsigned d = 0; d < MAX_RANK && (d == 0 || call->size.out[k][d]); d++) n *= call->size.out[k][d];
        uint32_t *x = malloc(n * sizeof *x);
        if (!x) return;
        call->backend->download(call->backend, x, call->out[k], n * dtype_bytes(call->out_type[k]));
        for (size_t i = 0; i < n && !c->name[0]; i++) {
            uint32_t exponent = narrow ? (uint32_t)((const uint16_t *)x)[i] << 16 : x[i];
            if ((exponent & 0x7f800000u) == 0x7f800000u) /* infinite, or not a number */
                snprintf(c->name, sizeof c->name, "%s (%s, output %u)", call->node->name, call->node->type->name, k);
        }
        free(x);
        if (c->name[0]) return;
    }
}

/* Saves what the last good update left, runs the batch again and names the first output that is not finite. */
static elbo_status diverged(struct trainer *t, const struct slot_batch *batch, elbo_error *error)
{
    struct culprit culprit = {{0}};
    bool saved = save_on_the_way(t);
    t->recording.executor.hook = look_for_culprit;
    t->recording.executor.hook_context = &culprit;
    elbo_status status = run_slots(t, batch, error);
    t->recording.executor.hook = NULL;
    ELBO_TRY(team_agree(t, status, error));
    ELBO_TRY(team_first_word(t, culprit.name, sizeof culprit.name, error));
    return elbo_fail(error, ELBO_DIVERGED,
                     "loss or gradient was not finite in %llu steps in a row, up to step %llu; first in %s. %s %s. Lower "
                     "optimizer.learning_rate, or set or lower optimizer.clip, and resume",
                     (unsigned long long)t->bad, (unsigned long long)t->draws,
                     culprit.name[0] ? culprit.name : "the norm of the gradient",
                     saved ? "The weights of the last good update are saved in" : "Nothing new was saved in", t->config->run_dir);
}

/* ---- the loop ---- */

static bool due(size_t every, uint64_t step)
{
    return every && step % every == 0;
}

static elbo_status finish_one(struct trainer *t, const struct slot_batch *batch, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    ELBO_TRY(finish(t, error));
    if (due(c->log.every, t->done) || t->done == c->train.steps || t->step_skipped) report_step(t);
    if (t->bad < c->train.max_bad_steps) return ELBO_OK;
    while (t->done < t->draws) ELBO_TRY(finish(t, error));
    return diverged(t, batch, error);
}

static elbo_status run(struct trainer *t, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    t->begun = t->step_began = clock_seconds();
    size_t last = c->train.steps;
    if (c->train.stop_after && c->train.stop_after < last) last = c->train.stop_after;
    if (t->draws >= last) {
        report_line(t, "nothing to do: step %llu of %zu is done", (unsigned long long)t->draws, last);
        return ELBO_OK;
    }
    bool saved = false;
    while (t->draws < last && !t->signal) {
        const struct slot_batch *batch;
        ELBO_TRY(launch(t, &batch, error));
        bool validate = t->valid && (due(c->train.eval_every, t->draws) || t->draws == c->train.steps);
        bool save_now = due(c->checkpoint.every, t->draws), check_now = due(c->parallel.check_every, t->draws);
        size_t ahead = t->signal || validate || save_now || check_now || t->draws == last ? 0 : t->backend->ahead;
        while (t->draws - t->done > ahead) {
            ELBO_TRY(finish_one(t, batch, error));
            if (t->signal) ahead = 0;
        }
        if (check_now) ELBO_TRY(team_check_weights(t, error));
        if (validate) ELBO_TRY(report_validation(t, error));
        saved = save_now && save_on_the_way(t);
    }
    if (!saved) ELBO_TRY(team_agree(t, save(t, error), error)); /* the last one is the run's product */
    if (!t->signal) return ELBO_OK;
    return elbo_fail(error, ELBO_INTERRUPTED, "stopped by signal %d (%s) after step %llu, saved in %s; the same command goes on",
                     t->signal, strsignal(t->signal), (unsigned long long)t->draws, c->run_dir);
}

/* How a run ends that every rank ends. */
static bool agreed(elbo_status status)
{
    return status == ELBO_OK || status == ELBO_INTERRUPTED || status == ELBO_DIVERGED;
}

elbo_status trainer_run(struct trainer *t, elbo_error *error)
{
    elbo_status status = run(t, error);
    t->ended = agreed(status) ? ELBO_OK : status;
    return status;
}
