#include "train/trainer.h"
#include "base/log.h"
#include "job/heartbeat.h"
#include "train/report.h"
#include "step/schedule.h"
#include "train/sharded.h"
#include "train/shards.h"
#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a step: launched, and finished when its figures are there, at most backend->ahead steps later ---- */

/* This rank's lanes: each is the sum of its slots. The first one takes in the weights that other ranks have updated;
 * the last one tells the sum over ranks how far it has come. Neither is so where the step is only looked at again. */
static elbo_status run_slots(struct trainer *t, const struct slot_batch *batch, bool summed, elbo_error *error)
{
    size_t lanes = team_lanes(t->config, t->team.ranks);
    struct lane_run own = reduction_own(t->team.reduction);
    for (size_t lane = own.first; lane < own.first + own.count; lane++) {
        struct lane_run slots = lane_run_of(batch->count, lanes, lane);
        for (size_t i = slots.first; i < slots.first + slots.count; i++) {
            bool last = lane + 1 == own.first + own.count && i + 1 == slots.first + slots.count,
                 first = lane == own.first && i == slots.first;
            struct execution run = {.first_slot = i == slots.first,
                                    .seed = t->config->seed,
                                    .step = batch->step,
                                    .progress_context = &t->team};
            run.progress = team_progress(summed && first && t->team.gathering, summed && last && t->team.collectives);
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
        p->learning_rate[answer] =
            c->optimizer.learning_rate * schedule_learning_rate(&c->optimizer, u.number[answer], c->train.steps);
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
        if (parts[i].from) b->memory.download_later(b, to, parts[i].from, parts[i].floats * sizeof *to);
}

static int pending_signal(void)
{
    sigset_t set = trainer_signals();
    int number = sigtimedwait(&set, NULL, &(struct timespec){0});
    return number > 0 ? number : 0;
}

static elbo_status launch(struct trainer *t, const struct slot_batch **batch, elbo_error *error)
{
    unsigned which = (unsigned)(t->draws % (t->backend->stream.ahead + 1));
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
    ELBO_TRY(run_slots(t, *batch, true, error));
    double waited = reduction_waited(t->team.reduction);
    p->seconds = t->backend->memory.separate ? 0 : clock_seconds() - before - waited;
    p->signal = pending_signal();
    if (!t->team.collectives) t->signal = p->signal;
    ELBO_TRY(team_tell(t, which, p, error));
    ELBO_TRY(optimizer_update(&t->optimizer, &u, error));
    t->apart = sharded(t);
    read_later(t, p);
    t->backend->stream.mark(t->backend, which);
    p->live = true;
    t->next = (*batch)->next;
    t->draws++;
    return ELBO_OK;
}

/* The variance of mu over a step's sentences, as a running mean over about fifty steps: what makes a unit active. The
 * mean of mu may drift from step to step without making one. */
static void update_variance(struct trainer *t, const float *batch)
{
    size_t z = t->model_config.latent.width;
    double n = (double)t->sentences;
    const double keep = 0.98;
    if (t->sentences < 2) return;
    for (size_t j = 0; j < z; j++) { /* (2 Z, 2): the sum of mu_j, and that of its squares */
        double sum = batch[2 * j], squares = batch[2 * j + 1], variance = (squares - sum * sum / n) / (n - 1);
        t->variance[j] = keep * t->variance[j] + (1 - keep) * (variance > 0 ? variance : 0);
    }
    t->variance[z] = keep * t->variance[z] + (1 - keep);
}

/* What was left of the sum over ranks when a step's backward pass ended: known while no later step is on its way. */
static void note_exposed(struct trainer *t)
{
    if (!t->team.collectives || t->draws != t->done) return;
    t->exposed = reduction_exposed(t->team.reduction);
    if (isnan(t->exposed)) return;
    t->exposed_sum += t->exposed;
    t->exposed_steps++;
}

/* The oldest step under way: its figures become the trainer's. */
static elbo_status finish(struct trainer *t, elbo_error *error)
{
    launcher_heartbeat();
    unsigned which = (unsigned)(t->done % (t->backend->stream.ahead + 1));
    struct pending *p = &t->pending[which];
    size_t z = t->model_config.latent.width;
    ELBO_TRY(t->backend->stream.wait(t->backend, which, error));
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
    if (t->applied && t->recording.sum_moments.index) update_variance(t, moments);
    t->shortened += p->shortened;
    t->tokens_since += p->tokens;
    if (p->signal) t->signal = p->signal;
    t->straggler = p->straggler;
    t->straggles = p->straggles;
    note_exposed(t);
    return ELBO_OK;
}

/* All weights on every rank, for what is no training step. */
static elbo_status make_whole(struct trainer *t, elbo_error *error)
{
    if (t->apart) ELBO_TRY(gathering_whole(t->team.gathering, error));
    t->apart = false;
    return ELBO_OK;
}

/* ---- saving ---- */

static elbo_status save(struct trainer *t, elbo_error *error)
{
    double before = clock_seconds();
    elbo_error lost;
    elbo_status told = make_whole(t, &lost), status = told || t->team.rank ? ELBO_OK : state_save(t, error);
    if (!told && t->shards)
        told = t->team.rank ? shards_serve(t, &lost) : shards_done(t, &lost);
    else if (!told && sharded(t))
        told = t->team.rank ? sharded_serve(t, &lost) : sharded_done(t, &lost);
    if (!status && told) {
        *error = lost;
        status = elbo_fail_in(error, "the checkpoint of step %llu was not saved: ", (unsigned long long)t->draws);
    }
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
        call->backend->memory.download(call->backend, x, call->out[k], n * dtype_bytes(call->out_type[k]));
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
    elbo_status status = run_slots(t, batch, false, error);
    t->recording.executor.hook = NULL;
    ELBO_TRY(team_agree(t, status, error));
    ELBO_TRY(team_first_word(t, culprit.name, sizeof culprit.name, error));
    return elbo_fail(
        error, ELBO_DIVERGED,
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

/* The figure of checkpoint.best has not bettered itself for train.patience evaluations. */
static bool stops_early(const struct trainer *t)
{
    return t->config->train.patience && t->config->checkpoint.best != BEST_NONE &&
           t->worse >= t->config->train.patience;
}

static void tell_early_stop(struct trainer *t)
{
    report_line(
        t,
        "stopped after step %llu: %llu evaluations in a row did not better the one of step %llu, whose checkpoint is "
        "checkpoints/best; a larger train.patience goes on",
        (unsigned long long)t->draws, (unsigned long long)t->worse, (unsigned long long)t->best_step);
}

static elbo_status run(struct trainer *t, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    t->begun = t->step_began = clock_seconds();
    size_t last = c->train.steps;
    if (c->train.stop_after && c->train.stop_after < last) last = c->train.stop_after;
    if (t->draws >= last && t->draws) {
        report_line(t, "nothing to do: step %llu of %zu is done", (unsigned long long)t->draws, last);
        return ELBO_OK;
    }
    bool saved = false;
    while (t->draws < last && !t->signal && !stops_early(t)) {
        const struct slot_batch *batch;
        ELBO_TRY(launch(t, &batch, error));
        bool validate =
            t->valid && c->train.eval_every && (due(c->train.eval_every, t->draws) || t->draws == c->train.steps);
        bool save_now = due(c->checkpoint.every, t->draws), check_now = due(c->parallel.check_every, t->draws);
        size_t ahead =
            t->signal || validate || save_now || check_now || t->draws == last ? 0 : t->backend->stream.ahead;
        while (t->draws - t->done > ahead) {
            ELBO_TRY(finish_one(t, batch, error));
            if (t->signal) ahead = 0;
        }
        if (check_now || validate) ELBO_TRY(make_whole(t, error));
        if (check_now) ELBO_TRY(team_check_weights(t, error));
        t->bettered = false;
        if (validate) ELBO_TRY(report_validation(t, error));
        saved = (save_now || t->bettered) && save_on_the_way(t);
    }
    if (!saved) ELBO_TRY(team_agree(t, save(t, error), error)); /* the last one is the run's product */
    report_sums(t);
    if (stops_early(t)) tell_early_stop(t);
    if (!t->signal) return ELBO_OK;
    return elbo_fail(error, ELBO_INTERRUPTED,
                     "stopped by signal %d (%s) after step %llu, saved in %s; the same command goes on", t->signal,
                     strsignal(t->signal), (unsigned long long)t->draws, c->run_dir);
}

/* An error between two steps, such as a corpus that cannot be read any more, takes no steps along: what the last update
 * left is saved first. Ranks that others wait for do not try, nor does a device that failed. */
static void save_before_the_end(struct trainer *t, elbo_error *error)
{
    elbo_error reason = *error, unsaved;
    bool may =
        reason.code == ELBO_INPUT || reason.code == ELBO_IO || reason.code == ELBO_MEMORY || reason.code == ELBO_USAGE;
    if (!may || t->team.collectives || t->saved_step == t->draws || t->draws == t->first_draw) return;
    while (t->done < t->draws)
        if (finish(t, &unsaved)) return;
    if (save(t, &unsaved)) return;
    elbo_fail(error, reason.code, "%s; step %llu is saved in %s, and the same command goes on", reason.message,
              (unsigned long long)t->draws, t->config->run_dir);
}

/* How a run ends that every rank ends. */
static bool agreed(elbo_status status)
{
    return status == ELBO_OK || status == ELBO_INTERRUPTED || status == ELBO_DIVERGED;
}

elbo_status trainer_run(struct trainer *t, elbo_error *error)
{
    elbo_status status = run(t, error);
    if (!agreed(status)) save_before_the_end(t, error);
    t->ended = agreed(status) ? ELBO_OK : status;
    return status;
}
