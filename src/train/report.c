/* Reports on a run: console lines, rows of metrics.jsonl, and evaluations on the validation corpus. */
#include "train/report.h"
#include "base/clock.h"
#include "model/evaluate.h"
#include "model/latent.h"
#include "train/monitor.h"
#include "train/step_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t active_units(const struct trainer *t)
{
    size_t z = t->model.latent.kind == LATENT_NONE ? 0 : t->model.latent.width, active = 0;
    double weight = t->variance[t->model.latent.width];
    for (size_t j = 0; j < z && weight > 0; j++) active += t->variance[j] / weight >= 0.01;
    return active;
}

/* A slow rank is reported when its time is this multiple of the median rank's. */
static const double STRAGGLES = 1.5;

static double memory_mib(void)
{
    size_t pages = 0, unused;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &unused, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
}

/* JSON has no NaN, so a number that is not finite becomes null. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* Writes a row. A row that cannot be written is lost with one warning until a row can be written again, because the log
 * of metrics never ends a run. `row` may be NULL if memory ran out. */
static void write_row(struct trainer *t, const json_t *row)
{
    elbo_error error;
    if (!t->metrics) return; /* only rank 0 writes */
    elbo_status status =
        row ? metrics_write(t->metrics, row, &error) : elbo_fail(&error, ELBO_MEMORY, "no memory for a row of metrics");
    if (status && !t->row_lost) {
        elbo_fail_in(&error, "metrics of step %llu are lost: ", (unsigned long long)t->done.step);
        console_warning(&t->report, error.message);
    }
    t->row_lost = status;
}

void report_sums(struct trainer *t)
{
    const struct done *d = &t->done;
    const struct buckets *b = &t->step.sums.buckets;
    if (!d->exposed_steps) return;
    console_line(
        &t->report,
        "sums over %zu rank%s: %zu buckets of at most %.2f MiB; %.3f ms a step were left when the backward pass "
        "ended (mean of %llu)",
        t->team.ranks, t->team.ranks > 1 ? "s" : "", b->count, (double)buckets_largest(b) * sizeof(float) / 1048576.0,
        d->exposed_sum / (double)d->exposed_steps * 1e3, (unsigned long long)d->exposed_steps);
}

/* Returns a figure's name. A KL estimated from draws has a name of its own. */
static const char *name_of(const struct trainer *t, const struct objective_figure *f)
{
    return strcmp(f->name, "kl") ? f->name : latent_kl_name(&t->model.latent);
}

/* Prints the last step's terms for the console: "  reconstruction 41.2  kl 9.1  beta 0.4  active 31/32". */
static void print_terms(char *text, size_t size, const struct trainer *t)
{
    const struct step_figures *f = &t->done.figures;
    size_t at = 0, z = t->model.latent.kind == LATENT_NONE ? 0 : t->model.latent.width;
    *text = 0;
    if (!z) return; /* without a latent the loss is enough */
    for (size_t i = 0; i < f->count && at < size; i++)
        if (f->terms[i].on_console)
            at += (size_t)snprintf(text + at, size - at, "  %s %.3f", name_of(t, &f->terms[i]), f->terms[i].value);
    if (at < size) snprintf(text + at, size - at, "  active %zu/%zu", active_units(t), z);
}

/* Adds the values or the weights of the last step's terms, each under its name. A KL of another name is added as `kl`
 * too. */
static int add_terms(json_t *row, const struct trainer *t, bool weights)
{
    const struct step_figures *f = &t->done.figures;
    int failed = 0;
    for (size_t i = 0; i < f->count; i++) {
        const char *name = f->terms[i].name, *called = name_of(t, &f->terms[i]);
        if (f->terms[i].is_weight != weights) continue;
        failed |= json_object_set_new(row, name, number(f->terms[i].value));
        if (strcmp(name, called)) failed |= json_object_set_new(row, called, number(f->terms[i].value));
    }
    return failed;
}

static json_t *kl_per_dim(const struct trainer *t)
{
    const struct step_figures *f = &t->done.figures;
    size_t z = t->model.latent.kind == LATENT_NONE ? 0 : t->model.latent.width;
    if (z && !f->kl_dim) return json_null(); /* this KL has no parts per dimension */
    json_t *dims = json_array();
    for (size_t j = 0; j < z; j++)
        if (json_array_append_new(dims, number((double)f->kl_dim[j] / (double)f->sentences))) {
            json_decref(dims);
            return NULL;
        }
    return dims;
}

/* Returns the part of a row that depends on the clock and the machine. */
static json_t *wall_of(const struct trainer *t, double seconds, double rate, double mib)
{
    const struct done *d = &t->done;
    json_t *wall = json_pack("{s:f, s:f, s:f}", "seconds", seconds, "tokens_per_second", rate, "memory_mib", mib);
    int failed = 0;
    if (t->team.collectives && d->news.straggles > 0)
        failed |= json_object_update_new(wall, json_pack("{s:I, s:f}", "slowest_rank", (json_int_t)d->news.straggler,
                                                         "slowest_over_middle", d->news.straggles));
    if (d->exposed_steps) failed |= json_object_set_new(wall, "sum_exposed_seconds", number(d->exposed));
    if (!failed) return wall;
    json_decref(wall);
    return NULL;
}

/* Returns the effects of options: the share of the steps so far whose gradient was clipped, and the step's own
 * shares. */
static json_t *effective(const struct trainer *t)
{
    const struct done *d = &t->done;
    json_t *all = json_object();
    int failed = json_object_set_new(all, "clipped", number((double)t->state.counters.clipped / (double)d->step));
    size_t words = d->tokens - d->figures.sentences; /* without the start marks, which are never dropped */
    if (t->config->objective.word_dropout > 0)
        failed |= json_object_set_new(all, "words_dropped", number(words ? (double)d->dropped / (double)words : 0));
    if (!isnan(d->figures.under_free))
        failed |= json_object_set_new(all, "under_free_bits", number(d->figures.under_free));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

static json_t *row_of_step(const struct trainer *t, double seconds, double rate, double mib)
{
    const struct done *d = &t->done;
    const struct step_figures *f = &d->figures;
    json_t *row = json_pack("{s:I, s:o}", "step", (json_int_t)d->step, "loss", number(f->loss));
    int failed = add_terms(row, t, false);
    failed |= json_object_set_new(row, "gradient_norm", number(f->gradient_norm));
    failed |= add_terms(row, t, true);
    failed |= json_object_update_new(row, json_pack("{s:f, s:i, s:I, s:I, s:I, s:b, s:I}", "learning_rate",
                                                    f->learning_rate, "active_units", (int)active_units(t), "sentences",
                                                    (json_int_t)f->sentences, "tokens", (json_int_t)d->tokens, "words",
                                                    (json_int_t)d->words, "skipped", !d->applied, "shortened",
                                                    (json_int_t)t->state.counters.shortened));
    if (t->beside)
        failed |= json_object_set_new(row, "pass",
                                      json_string(d->pass == PASS_ENCODER   ? "encoder"
                                                  : d->pass == PASS_DECODER ? "decoder"
                                                                            : "whole"));
    if (t->beside && t->config->objective.aggressive_until == AGGRESSIVE_INFORMATION)
        failed |= json_object_set_new(row, "information", number(d->information));
    failed |= json_object_set_new(row, "effective", effective(t));
    failed |= json_object_set_new(row, "kl_per_dim", kl_per_dim(t));
    failed |= json_object_set_new(row, "wall", wall_of(t, seconds, rate, mib));
    if (!failed) return row;
    json_decref(row);
    return NULL;
}

void report_step(struct trainer *t)
{
    const struct done *d = &t->done;
    double now = clock_seconds(), seconds = now - t->clock.step_began;
    double rate = seconds > 0 ? (double)t->clock.tokens_since / seconds : 0, mib = memory_mib();
    double done = (double)(d->step - t->clock.first_draw), left = 0;
    if (done > 0) left = (now - t->clock.begun) / done * (double)(t->config->train.steps - d->step);
    char terms[256];
    print_terms(terms, sizeof terms, t);
    console_line(&t->report, "step %llu/%zu  loss %.3f%s  |g| %.3f  %.1fk tok/s  %.0f MiB  %.0fm%02.0fs left%s",
                 (unsigned long long)d->step, t->config->train.steps, d->figures.loss, terms, d->figures.gradient_norm,
                 rate / 1e3, mib, floor(left / 60), floor(fmod(left, 60)), d->applied ? "" : "  (update skipped)");
    if (d->news.straggles >= STRAGGLES)
        console_line(&t->report, "rank %zu took %.1f times as long for its work as the rank in the middle",
                     d->news.straggler, d->news.straggles);
    json_t *row = row_of_step(t, now - t->clock.begun, rate, mib);
    write_row(t, row);
    json_decref(row);
    t->clock.step_began = now;
    t->clock.tokens_since = 0;
}

/* Implements evaluate_options.combine: bitwise OR over the ranks, one piece at a time, gathered on every rank. */
static elbo_status combine(void *context, elbo_status status, void *data, size_t bytes, elbo_error *error)
{
    enum { ALL = 4 << 20, LEAST = 4096 };
    struct collectives *c = ((struct trainer *)context)->team.collectives;
    size_t most = ALL / c->ranks > LEAST ? ALL / c->ranks : LEAST;
    ELBO_TRY(collectives_agree(c, status, error));
    unsigned char *all = malloc(most * c->ranks);
    status = all ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory to evaluate on %zu ranks", c->ranks);
    status = collectives_agree(c, status, error);
    for (size_t at = 0; at < bytes && !status; at += most) {
        size_t n = bytes - at < most ? bytes - at : most;
        unsigned char *own = (unsigned char *)data + at;
        status = collectives_gather(c, own, n, all, error);
        for (size_t r = 0; r < c->ranks && !status; r++)
            for (size_t i = 0; i < n; i++) own[i] |= all[r * n + i];
    }
    free(all);
    return status;
}

/* Notes whether this evaluation is the best so far by checkpoint.best. A figure that is not finite is never the
 * best. */
static void note_best(struct trainer *t, const struct evaluation *e)
{
    int kind = t->config->checkpoint.best;
    if (kind == BEST_NONE) return;
    double figure = kind == BEST_NEG_ELBO         ? e->neg_elbo
                    : kind == BEST_RECONSTRUCTION ? e->reconstruction
                    : kind == BEST_OWN_Z_GAIN     ? e->own_z_gain
                                                  : (double)e->active_units;
    bool more = kind == BEST_OWN_Z_GAIN || kind == BEST_ACTIVE_UNITS;
    struct training_best *best = &t->state.best;
    bool betters = isfinite(figure) && (!best->step || (more ? figure > best->value : figure < best->value));
    t->validation.bettered = betters;
    best->worse = betters ? 0 : best->worse + 1;
    if (!betters) return;
    best->value = figure;
    best->step = t->state.counters.draws;
}

/* Adds the mutual information, and the changes of the latent's figures since the evaluation before. */
static int add_trend(json_t *figures, const struct evaluation *e, const struct training_watch *before)
{
    int failed = json_object_set_new(figures, "mutual_information", number(e->mutual_information));
    if (!before->known) return failed;
    return failed | json_object_set_new(figures, "trend",
                                        json_pack("{s:o, s:o, s:o}", "own_z_gain", number(e->own_z_gain - before->gain),
                                                  "kl", number(e->kl - before->kl), "mutual_information",
                                                  number(e->mutual_information - before->information)));
}

elbo_status report_validation(struct trainer *t, elbo_error *error)
{
    enum { MI_SENTENCES = 500 };
    const struct elbo_config *c = t->config;
    struct evaluate_options o = {
        .slots = slot_options_of(c), .sentences = c->train.eval_sentences, .own_z = true, .seed = c->seed};
    o.slots.labels = t->valid_labels;
    if (t->model.latent.kind != LATENT_NONE) o.mi_sentences = MI_SENTENCES;
    if (t->team.collectives) o.ranks = t->team.ranks, o.rank = t->team.rank, o.combine = combine, o.context = t;
    struct evaluation e;
    double before = clock_seconds();
    elbo_error reason;
    elbo_status evaluated = evaluate(&e, &t->step.model, t->valid, &o, &reason);
    ELBO_TRY(step_bind(&t->step, error));
    if (evaluated == ELBO_MEMORY) { /* the run goes on, because the next evaluation may find more memory */
        elbo_fail_in(&reason, "step %llu is not evaluated: ", (unsigned long long)t->state.counters.draws);
        console_warning(&t->report, reason.message);
        return ELBO_OK;
    }
    if (evaluated) {
        *error = reason;
        return evaluated;
    }
    double seconds = clock_seconds() - before;
    char latent[128] = "";
    if (e.latent_width)
        snprintf(latent, sizeof latent, "  reconstruction %.3f  %s %.3f  active %zu/%zu  own z %.2f", e.reconstruction,
                 latent_kl_name(&t->model.latent), e.kl, e.active_units, e.latent_width, e.own_z_gain);
    console_line(&t->report, "valid at %llu: neg_elbo %.3f%s  (%zu sentences, %.1f s)",
                 (unsigned long long)t->state.counters.draws, e.neg_elbo, latent, e.sentences, seconds);
    t->validation = (struct last_validation){.step = t->state.counters.draws,
                                             .neg_elbo = e.neg_elbo,
                                             .reconstruction = e.reconstruction,
                                             .kl = e.kl,
                                             .own_z_gain = e.own_z_gain,
                                             .active_units = e.active_units,
                                             .mutual_information = e.mutual_information};
    note_best(t, &e);
    const struct training_watch before_it = t->state.counters.watch;
    t->validation.dead = monitor_note(t, &e);
    json_t *row =
        json_pack("{s:I, s:{s:o, s:o, s:o, s:I, s:o, s:o, s:I}, s:{s:f}}", "step", (json_int_t)t->state.counters.draws,
                  "valid", "neg_elbo", number(e.neg_elbo), "reconstruction", number(e.reconstruction), "kl",
                  number(e.kl), "active_units", (json_int_t)e.active_units, "own_z_gain", number(e.own_z_gain),
                  "ppl_word", number(e.ppl_word), "sentences", (json_int_t)e.sentences, "wall", "seconds", seconds);
    json_t *figures = json_object_get(row, "valid");
    int failed = t->validation.bettered && row && json_object_set_new(figures, "best", json_true());
    if (row && strcmp(latent_kl_name(&t->model.latent), "kl"))
        failed |= json_object_set_new(figures, latent_kl_name(&t->model.latent), number(e.kl));
    if (row && e.latent_width) failed |= add_trend(figures, &e, &before_it);
    if (failed) {
        json_decref(row);
        row = NULL;
    }
    evaluation_free(&e);
    write_row(t, row);
    json_decref(row);
    t->clock.step_began += seconds;
    return ELBO_OK;
}

void report_rollback(struct trainer *t, const char *raised)
{
    const struct training_watch *w = &t->state.counters.watch;
    json_t *row =
        json_pack("{s:I, s:{s:s, s:I, s:I, s:s}}", "step", (json_int_t)t->state.counters.draws, "event", "kind",
                  "rollback", "to", (json_int_t)w->kept, "rollbacks", (json_int_t)w->rollbacks, "raised", raised);
    write_row(t, row);
    json_decref(row);
}

json_t *trainer_result(const struct trainer *t)
{
    if (t->team.rank) return NULL;
    const struct last_validation *v = &t->validation;
    const struct step_figures *f = &t->done.figures;
    json_t *all =
        json_pack("{s:s, s:I, s:I, s:b}", "run_dir", t->config->run_dir, "step", (json_int_t)t->state.counters.draws,
                  "steps", (json_int_t)t->config->train.steps, "interrupted", t->signal != 0);
    int failed = 0;
    if (t->done.step > t->clock.first_draw) {
        failed |= json_object_set_new(all, "loss", number(f->loss));
        failed |= add_terms(all, t, false);
        failed |= add_terms(all, t, true);
        failed |= json_object_set_new(all, "gradient_norm", number(f->gradient_norm));
    }
    if (v->step)
        failed |= json_object_set_new(all, "valid",
                                      json_pack("{s:I, s:o, s:o, s:o, s:o, s:I}", "step", (json_int_t)v->step,
                                                "neg_elbo", number(v->neg_elbo), "reconstruction",
                                                number(v->reconstruction), "kl", number(v->kl), "own_z_gain",
                                                number(v->own_z_gain), "active_units", (json_int_t)v->active_units));
    if (t->state.best.step)
        failed |= json_object_set_new(
            all, "best", json_pack("{s:I, s:f}", "step", (json_int_t)t->state.best.step, "value", t->state.best.value));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}
