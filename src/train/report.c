/* What a run says of itself: console lines, rows of metrics.jsonl, evaluations on the validation corpus. */
#include "train/report.h"
#include "base/log.h"
#include "model/evaluate.h"
#include "train/memory.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void report_line(struct trainer *t, const char *format, ...)
{
    char text[640];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (t->report.line) t->report.line(t->report.context, text);
}

static size_t active_units(const struct trainer *t)
{
    size_t z = t->model_config.latent.kind == LATENT_NONE ? 0 : t->model_config.latent.width, active = 0;
    double weight = t->variance[t->model_config.latent.width];
    for (size_t j = 0; j < z && weight > 0; j++) active += t->variance[j] / weight >= 0.01;
    return active;
}

/* A rank that is told of: its time over that of the one in the middle. */
static const double STRAGGLES = 1.5;

static double memory_mib(void)
{
    size_t pages = 0, unused;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%zu %zu", &unused, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
}

/* JSON has no NaN: null says that the number was not finite. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* A row that cannot be written is lost and told, once until one can be written again: the log of metrics never ends a
 * run. `row` may be NULL, for want of memory. */
static void write_row(struct trainer *t, const json_t *row)
{
    elbo_error error;
    if (!t->metrics) return; /* rank 0's to write */
    elbo_status status =
        row ? metrics_write(t->metrics, row, &error) : elbo_fail(&error, ELBO_MEMORY, "no memory for a row of metrics");
    if (status && !t->row_lost && t->report.warning) {
        elbo_fail_in(&error, "metrics of step %llu are lost: ", (unsigned long long)t->done);
        t->report.warning(t->report.context, error.message);
    }
    t->row_lost = status;
}

void report_sums(struct trainer *t)
{
    if (!t->exposed_steps) return;
    report_line(t,
                "sums over %zu rank%s: %zu buckets of at most %.2f MiB; %.3f ms a step were left when the backward "
                "pass ended (mean of %llu)",
                t->team.ranks, t->team.ranks > 1 ? "s" : "", t->team.buckets.count,
                (double)buckets_largest(&t->team.buckets) * sizeof(float) / 1048576.0,
                t->exposed_sum / (double)t->exposed_steps * 1e3, (unsigned long long)t->exposed_steps);
}

void report_step(struct trainer *t)
{
    double now = clock_seconds(), seconds = now - t->step_began;
    double rate = seconds > 0 ? (double)t->tokens_since / seconds : 0, mib = memory_mib();
    double done = (double)(t->done - t->first_draw), left = 0;
    if (done > 0) left = (now - t->begun) / done * (double)(t->config->train.steps - t->done);
    size_t active = active_units(t), z = t->model_config.latent.kind == LATENT_NONE ? 0 : t->model_config.latent.width;
    char latent[96] = "";
    if (z)
        snprintf(latent, sizeof latent, "  reconstruction %.3f  kl %.3f  beta %.3f  active %zu/%zu", t->reconstruction,
                 t->kl, t->beta, active, z);
    report_line(t, "step %llu/%zu  loss %.3f%s  |g| %.3f  %.1fk tok/s  %.0f MiB  %.0fm%02.0fs left%s",
                (unsigned long long)t->done, t->config->train.steps, t->loss, latent, t->gradient_norm, rate / 1e3, mib,
                floor(left / 60), floor(fmod(left, 60)), t->step_skipped ? "  (update skipped)" : "");
    json_t *row =
        json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:i, s:I, s:I, s:I, s:b, s:I}", "step",
                  (json_int_t)t->done, "loss", number(t->loss), "reconstruction", number(t->reconstruction), "kl",
                  number(t->kl), "kl_free", number(t->kl_free), "gradient_norm", number(t->gradient_norm), "beta",
                  t->beta, "learning_rate", t->learning_rate, "lambda", t->config->objective.lambda, "active_units",
                  (int)active, "sentences", (json_int_t)t->sentences, "tokens", (json_int_t)t->tokens, "words",
                  (json_int_t)t->words, "skipped", t->step_skipped, "shortened", (json_int_t)t->shortened);
    json_t *wall =
        json_pack("{s:f, s:f, s:f}", "seconds", now - t->begun, "tokens_per_second", rate, "memory_mib", mib);
    json_t *dims = json_array();
    int failed = 0;
    if (t->team.collectives && t->straggles > 0)
        failed |= json_object_update_new(wall, json_pack("{s:I, s:f}", "slowest_rank", (json_int_t)t->straggler,
                                                         "slowest_over_middle", t->straggles));
    if (t->exposed_steps) failed |= json_object_set_new(wall, "sum_exposed_seconds", number(t->exposed));
    if (t->straggles >= STRAGGLES)
        report_line(t, "rank %zu took %.1f times as long for its work as the rank in the middle", t->straggler,
                    t->straggles);
    for (size_t j = 0; j < z; j++) failed |= json_array_append_new(dims, number(t->kl_dim[j] / (double)t->sentences));
    failed |= json_object_set_new(row, "kl_per_dim", dims);
    failed |= json_object_set_new(row, "wall", wall);
    write_row(t, failed ? NULL : row);
    json_decref(row);
    t->step_began = now;
    t->tokens_since = 0;
}

/* struct evaluate_options.combine: a piece at a time, which every rank sends to every rank. */
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

/* Whether this evaluation is the best so far by checkpoint.best. What is not a number betters nothing. */
static void note_best(struct trainer *t, const struct evaluation *e)
{
    int kind = t->config->checkpoint.best;
    if (kind == BEST_NONE) return;
    double figure = kind == BEST_NEG_ELBO         ? e->neg_elbo
                    : kind == BEST_RECONSTRUCTION ? e->reconstruction
                    : kind == BEST_OWN_Z_GAIN     ? e->own_z_gain
                                                  : (double)e->active_units;
    bool more = kind == BEST_OWN_Z_GAIN || kind == BEST_ACTIVE_UNITS;
    t->bettered = isfinite(figure) && (!t->best_step || (more ? figure > t->best : figure < t->best));
    t->worse = t->bettered ? 0 : t->worse + 1;
    if (!t->bettered) return;
    t->best = figure;
    t->best_step = t->draws;
}

elbo_status report_validation(struct trainer *t, elbo_error *error)
{
    const struct elbo_config *c = t->config;
    struct evaluate_options o = {
        .slots = slot_options_of(c), .sentences = c->train.eval_sentences, .own_z = true, .seed = c->seed};
    if (t->team.collectives) o.ranks = t->team.ranks, o.rank = t->team.rank, o.combine = combine, o.context = t;
    struct evaluation e;
    double before = clock_seconds();
    elbo_error reason;
    elbo_status evaluated = evaluate(&e, &t->model, t->valid, &o, &reason);
    ELBO_TRY(model_bind(&t->model, (struct recording *[]){&t->recording}, 1, t->optimizer.gradients, error));
    if (evaluated == ELBO_MEMORY) { /* the next one may find more: no reason to end the run */
        elbo_fail_in(&reason, "step %llu is not evaluated: ", (unsigned long long)t->draws);
        if (t->report.warning) t->report.warning(t->report.context, reason.message);
        return ELBO_OK;
    }
    if (evaluated) {
        *error = reason;
        return evaluated;
    }
    double seconds = clock_seconds() - before;
    char latent[128] = "";
    if (e.latent_width)
        snprintf(latent, sizeof latent, "  reconstruction %.3f  kl %.3f  active %zu/%zu  own z %.2f", e.reconstruction,
                 e.kl, e.active_units, e.latent_width, e.own_z_gain);
    report_line(t, "valid at %llu: neg_elbo %.3f%s  (%zu sentences, %.1f s)", (unsigned long long)t->draws, e.neg_elbo,
                latent, e.sentences, seconds);
    t->validation =
        (struct last_validation){t->draws, e.neg_elbo, e.reconstruction, e.kl, e.own_z_gain, e.active_units};
    note_best(t, &e);
    json_t *row =
        json_pack("{s:I, s:{s:o, s:o, s:o, s:I, s:o, s:o, s:I}, s:{s:f}}", "step", (json_int_t)t->draws, "valid",
                  "neg_elbo", number(e.neg_elbo), "reconstruction", number(e.reconstruction), "kl", number(e.kl),
                  "active_units", (json_int_t)e.active_units, "own_z_gain", number(e.own_z_gain), "ppl_word",
                  number(e.ppl_word), "sentences", (json_int_t)e.sentences, "wall", "seconds", seconds);
    if (t->bettered && row && json_object_set_new(json_object_get(row, "valid"), "best", json_true())) {
        json_decref(row);
        row = NULL;
    }
    evaluation_free(&e);
    write_row(t, row);
    json_decref(row);
    t->step_began += seconds;
    return ELBO_OK;
}

json_t *trainer_result(const struct trainer *t)
{
    if (t->team.rank) return NULL;
    const struct last_validation *v = &t->validation;
    json_t *all = json_pack("{s:s, s:I, s:I, s:b}", "run_dir", t->config->run_dir, "step", (json_int_t)t->draws,
                            "steps", (json_int_t)t->config->train.steps, "interrupted", t->signal != 0);
    int failed = 0;
    if (t->done > t->first_draw)
        failed |=
            json_object_update_new(all, json_pack("{s:o, s:o, s:o, s:f, s:o}", "loss", number(t->loss),
                                                  "reconstruction", number(t->reconstruction), "kl", number(t->kl),
                                                  "beta", t->beta, "gradient_norm", number(t->gradient_norm)));
    if (v->step)
        failed |= json_object_set_new(all, "valid",
                                      json_pack("{s:I, s:o, s:o, s:o, s:o, s:I}", "step", (json_int_t)v->step,
                                                "neg_elbo", number(v->neg_elbo), "reconstruction",
                                                number(v->reconstruction), "kl", number(v->kl), "own_z_gain",
                                                number(v->own_z_gain), "active_units", (json_int_t)v->active_units));
    if (t->best_step)
        failed |= json_object_set_new(all, "best",
                                      json_pack("{s:I, s:f}", "step", (json_int_t)t->best_step, "value", t->best));
    if (!failed) return all;
    json_decref(all);
    return NULL;
}
