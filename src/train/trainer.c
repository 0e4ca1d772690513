/* The training loop: launches steps, finishes them, and evaluates, compares and saves when due. */
#include "base/files.h"
#include "base/philox.h"
#include "base/clock.h"
#include "job/heartbeat.h"
#include "train/monitor.h"
#include "train/passes.h"
#include "train/report.h"
#include "train/saving.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a step: launched, and finished when its figures arrive, at most `ahead` steps of the backend later ---- */

/* Gives the first step after the autoencoder's phase a new decoder. */
static elbo_status begin_phase(struct trainer *t, elbo_error *error)
{
    struct training_counters *count = &t->state.counters;
    size_t steps = t->config->objective.autoencoder_steps;
    if (!steps || count->draws != steps || !t->step.phase.autoencoder) return ELBO_OK;
    ELBO_TRY(step_whole(&t->step, error));
    ELBO_TRY(step_reset_decoder(&t->step, t->config->seed ^ noise_purpose("decoder.anew"), error));
    count->begun_anew = t->step.optimizer.updates;
    t->step.phase = (struct step_phase){count->begun_anew, t->config->train.steps - steps, false};
    console_line(&t->report, "step %zu ended the autoencoder's phase: the decoder begins anew", steps);
    return ELBO_OK;
}

static enum step_pass next_pass(struct trainer *t)
{
    struct training_counters *count = &t->state.counters;
    bool ended = count->passes.ended;
    enum step_pass pass = passes_next(&count->passes, &t->config->objective, count->draws);
    if (count->passes.ended && !ended)
        console_line(&t->report, "step %llu ended the encoder's passes: z tells no more of a sentence than before",
                     (unsigned long long)count->draws);
    return pass;
}

static elbo_status launch(struct trainer *t, const struct slot_batch **batch, elbo_error *error)
{
    struct training_counters *count = &t->state.counters;
    unsigned which = (unsigned)(count->draws % (t->backend->stream.ahead + 1));
    struct launched *l = &t->launched[which];
    ELBO_TRY(begin_phase(t, error));
    l->pass = t->beside ? next_pass(t) : PASS_WHOLE;
    bool encoder = l->pass == PASS_ENCODER;
    ELBO_TRY(slot_loader_next(encoder ? t->beside : t->loader, batch, error));
    l->step = count->draws + 1;
    l->shortened = (*batch)->shortened;
    l->tokens = l->words = l->dropped = 0;
    for (size_t i = 0; i < (*batch)->count; i++) {
        l->tokens += (*batch)->slots[i].predicted;
        l->words += (*batch)->slots[i].words;
        l->dropped += (*batch)->slots[i].dropped;
    }
    double before = clock_seconds();
    struct slot_batch drawn = **batch;
    drawn.step = count->draws; /* numbers the noise, because batches of encoder passes are numbered among themselves */
    ELBO_TRY(step_run_pass(&t->step, &l->schedule, l->pass, &drawn, t->done.step != count->draws, error));
    double waited = reduction_waited(t->step.sums.reduction);
    l->seconds = t->backend->memory.separate ? 0 : clock_seconds() - before - waited;
    l->news = (struct team_news){.signal = signals_take()};
    if (!t->team.collectives) t->signal = l->news.signal;
    ELBO_TRY(team_tell(&t->team, which, l->news.signal, l->seconds, error));
    ELBO_TRY(step_update(&t->step, &l->schedule, l->step, l->step == t->config->train.skip, error));
    step_read_later(&t->step, l->read);
    t->backend->stream.mark(t->backend, which);
    *(encoder ? &count->passes.encoder_next : &count->next) = (*batch)->next;
    count->passes.encoder_draws += encoder;
    count->draws++;
    return ELBO_OK;
}

/* Updates the running mean, over about fifty steps, of the variance of mu over a step's sentences, which makes a unit
 * active. A drift of mu's mean from step to step does not make a unit active. */
static void update_variance(struct trainer *t, const struct step_figures *f)
{
    size_t z = t->model.latent.width;
    double n = (double)f->sentences;
    const double keep = 0.98;
    if (f->sentences < 2) return;
    for (size_t j = 0; j < z; j++) { /* (2 Z, 2): sum and sum of squares of mu_j */
        double sum = f->moments[2 * j], squares = f->moments[2 * j + 1], variance = (squares - sum * sum / n) / (n - 1);
        t->variance[j] = keep * t->variance[j] + (1 - keep) * (variance > 0 ? variance : 0);
    }
    t->variance[z] = keep * t->variance[z] + (1 - keep);
}

/* Notes how long the sum over ranks outlasted the step's backward pass. The time is known only while no later step is
 * under way. */
static void note_exposed(struct trainer *t)
{
    struct done *d = &t->done;
    if (!t->team.collectives || t->state.counters.draws != d->step) return;
    d->exposed = reduction_exposed(t->step.sums.reduction);
    if (isnan(d->exposed)) return;
    d->exposed_sum += d->exposed;
    d->exposed_steps++;
}

/* Finishes the oldest step under way: its figures become the trainer's. */
static elbo_status finish(struct trainer *t, elbo_error *error)
{
    struct training_counters *count = &t->state.counters;
    struct done *d = &t->done;
    launcher_heartbeat();
    unsigned which = (unsigned)(d->step % (t->backend->stream.ahead + 1));
    struct launched *l = &t->launched[which];
    ELBO_TRY(t->backend->stream.wait(t->backend, which, error));
    ELBO_TRY(team_hear(&t->team, which, &l->news, error));
    step_figures(&t->step, &d->figures, &l->schedule, l->read, d->applied);
    d->step = l->step;
    d->pass = l->pass;
    d->tokens = l->tokens;
    d->words = l->words;
    d->dropped = l->dropped;
    d->news = l->news;
    d->applied = d->figures.applied;
    count->bad = d->figures.finite ? 0 : count->bad + 1;
    count->skipped += !d->applied;
    double loss = d->figures.loss * (double)d->figures.sentences / (double)(d->tokens ? d->tokens : 1);
    d->information = passes_information(&d->figures, t->model.latent.width);
    passes_note(&count->passes, d->step - 1, d->pass, d->applied ? loss : NAN, d->applied ? d->information : NAN);
    count->clipped += d->figures.clipped;
    count->shortened += l->shortened;
    if (d->applied && d->figures.moments) update_variance(t, &d->figures);
    t->clock.tokens_since += l->tokens;
    if (l->news.signal) t->signal = l->news.signal;
    note_exposed(t);
    return ELBO_OK;
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

/* Saves the state of the last good update, runs the batch again, and names the first output that is not finite. */
static elbo_status diverged(struct trainer *t, const struct slot_batch *batch, elbo_error *error)
{
    struct culprit culprit = {{0}};
    bool saved = save_on_the_way(t);
    elbo_status status = step_look(&t->step, batch, look_for_culprit, &culprit, error);
    ELBO_TRY(team_agree(&t->team, status, error));
    ELBO_TRY(team_first_word(&t->team, culprit.name, sizeof culprit.name, error));
    return elbo_fail(
        error, ELBO_DIVERGED,
        "loss or gradient was not finite in %llu steps in a row, up to step %llu; first in %s. %s %s. Lower "
        "optimizer.learning_rate, or set or lower optimizer.clip, and resume",
        (unsigned long long)t->state.counters.bad, (unsigned long long)t->state.counters.draws,
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
    if (due(c->log.every, t->done.step) || t->done.step == c->train.steps || !t->done.applied) report_step(t);
    if (t->state.counters.bad < c->train.max_bad_steps) return ELBO_OK;
    while (t->done.step < t->state.counters.draws) ELBO_TRY(finish(t, error));
    return diverged(t, batch, error);
}

/* Whether the figure of checkpoint.best has not improved for train.patience evaluations. */
static bool stops_early(const struct trainer *t)
{
    return t->config->train.patience && t->config->checkpoint.best != BEST_NONE &&
           t->state.best.worse >= t->config->train.patience;
}

static void tell_early_stop(struct trainer *t)
{
    console_line(&t->report,
                 "stopped after step %llu: %llu evaluations in a row did not better the one of step %llu, whose "
                 "checkpoint is checkpoints/best; a larger train.patience goes on",
                 (unsigned long long)t->state.counters.draws, (unsigned long long)t->state.best.worse,
                 (unsigned long long)t->state.best.step);
}

/* Launches a step, and finishes the steps that need not be under way. Then evaluates, compares and saves if due. */
static elbo_status one_step(struct trainer *t, size_t last, bool *saved, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    const uint64_t *draws = &t->state.counters.draws;
    const struct slot_batch *batch;
    ELBO_TRY(launch(t, &batch, error));
    bool validate = t->valid && c->train.eval_every && (due(c->train.eval_every, *draws) || *draws == c->train.steps);
    bool save_now = due(c->checkpoint.every, *draws), check_now = due(c->parallel.check_every, *draws);
    bool stops = t->signal || validate || save_now || check_now || *draws == last ||
                 *draws == c->objective.autoencoder_steps; /* the decoder begins anew next */
    size_t ahead = stops ? 0 : t->backend->stream.ahead;
    while (*draws - t->done.step > ahead) {
        ELBO_TRY(finish_one(t, batch, error));
        if (t->signal) ahead = 0;
    }
    if (check_now || validate) ELBO_TRY(step_whole(&t->step, error));
    if (check_now) ELBO_TRY(team_check_weights(&t->team, &t->step.model, *draws, error));
    t->validation.bettered = false;
    if (validate) ELBO_TRY(report_validation(t, error));
    if (validate && t->validation.dead) ELBO_TRY(monitor_roll_back(t, error));
    bool keeps = validate && monitor_keeps(t);
    uint64_t kept = t->state.counters.watch.kept;
    if (keeps) t->state.counters.watch.kept = *draws;
    *saved = (save_now || t->validation.bettered || keeps) && save_on_the_way(t);
    if (keeps && !*saved) t->state.counters.watch.kept = kept;
    return ELBO_OK;
}

static elbo_status run(struct trainer *t, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    const uint64_t *draws = &t->state.counters.draws;
    t->clock.begun = t->clock.step_began = clock_seconds();
    size_t last = c->train.steps;
    if (c->train.stop_after && c->train.stop_after < last) last = c->train.stop_after;
    if (*draws >= last && *draws) {
        console_line(&t->report, "nothing to do: step %llu of %zu is done", (unsigned long long)*draws, last);
        return ELBO_OK;
    }
    bool saved = false;
    while (*draws < last && !t->signal && !stops_early(t)) ELBO_TRY(one_step(t, last, &saved, error));
    if (!saved) ELBO_TRY(team_agree(&t->team, save(t, error), error)); /* the last checkpoint is the run's product */
    report_sums(t);
    if (stops_early(t)) tell_early_stop(t);
    if (!t->signal) return ELBO_OK;
    return elbo_fail(error, ELBO_INTERRUPTED,
                     "stopped by signal %d (%s) after step %llu, saved in %s; the same command goes on", t->signal,
                     strsignal(t->signal), (unsigned long long)*draws, c->run_dir);
}

/* Saves the last update after an error between two steps, such as a corpus that cannot be read any more, so that no
 * steps are lost. A rank that others wait for does not save, nor does a device that failed. */
static void save_before_the_end(struct trainer *t, elbo_error *error)
{
    elbo_error reason = *error, unsaved;
    uint64_t draws = t->state.counters.draws;
    bool may =
        reason.code == ELBO_INPUT || reason.code == ELBO_IO || reason.code == ELBO_MEMORY || reason.code == ELBO_USAGE;
    if (!may || t->team.collectives || t->saved_step == draws || draws == t->clock.first_draw) return;
    while (t->done.step < draws)
        if (finish(t, &unsaved)) return;
    if (save(t, &unsaved)) return;
    elbo_fail(error, reason.code, "%s; step %llu is saved in %s, and the same command goes on", reason.message,
              (unsigned long long)draws, t->config->run_dir);
}

/* Whether a run that ends with this status ends on every rank. */
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
