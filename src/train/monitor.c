/* Watches the latent for collapse and rolls a run back: see monitor.h. */
#include "train/monitor.h"
#include "base/philox.h"
#include "model/evaluate.h"
#include "train/report.h"
#include "train/saving.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool watches(const struct trainer *t)
{
    return t->model.latent.kind != LATENT_NONE && t->config->train.on_collapse != COLLAPSE_IGNORE;
}

bool monitor_note(struct trainer *t, const struct evaluation *e)
{
    struct training_watch *w = &t->state.counters.watch;
    if (t->model.latent.kind == LATENT_NONE || !isfinite(e->own_z_gain)) return false;
    w->known = isfinite(e->kl) && isfinite(e->mutual_information);
    w->gain = e->own_z_gain;
    w->kl = w->known ? e->kl : 0;
    w->information = w->known ? e->mutual_information : 0;
    if (!watches(t)) return false;
    uint64_t step = t->state.counters.draws;
    bool alive = e->own_z_gain >= t->config->train.collapse_gain;
    bool late = 4 * (step - w->rolled) >= t->config->train.steps - w->rolled;
    bool dead = !alive && (w->alive || (late && !w->warned));
    w->alive = alive || (w->alive && !dead);
    if (alive) {
        w->last_alive = step;
        w->warned = false;
        return false;
    }
    if (!dead) return false;
    /* a run that begins anew needs steps to learn in */
    bool time = w->kept || 4 * (t->config->train.steps - step) >= t->config->train.steps;
    bool rolls = t->config->train.on_collapse == COLLAPSE_ROLLBACK && w->rollbacks < MONITOR_MOST && time;
    char remedy[160];
    objective_remedy(remedy, sizeof remedy, &t->config->objective, &t->model);
    if (!rolls) {
        char text[480];
        snprintf(text, sizeof text,
                 "step %llu: the decoder does not read z: a sentence's own z is worth %.3f nats, of a KL of %.3f, with "
                 "%zu of %zu units active; try %s%s",
                 (unsigned long long)step, e->own_z_gain, e->kl, e->active_units, e->latent_width, remedy,
                 !(t->config->train.on_collapse == COLLAPSE_ROLLBACK) ? ", or --train.on_collapse=rollback"
                 : w->rollbacks >= MONITOR_MOST ? " (the run was rolled back as often as it may be)"
                                                : " (too few steps are left to begin anew)");
        console_warning(&t->report, text);
        w->warned = true;
    }
    return rolls;
}

bool monitor_keeps(const struct trainer *t)
{
    const struct training_watch *w = &t->state.counters.watch;
    uint64_t every = t->config->checkpoint.every, draws = t->state.counters.draws;
    return watches(t) && t->config->train.on_collapse == COLLAPSE_ROLLBACK && w->last_alive && w->last_alive == draws &&
           (!w->kept || draws - w->kept >= every);
}

/* Opens the kept checkpoint and checks all of it; null: there is none. */
static elbo_status open_kept(struct checkpoint **c, const struct trainer *t, elbo_error *error)
{
    char folder[FILES_PATH], name[CHECKPOINT_NAME], path[FILES_PATH];
    *c = NULL;
    if (!t->state.counters.watch.kept) return ELBO_OK;
    ELBO_TRY(file_join(folder, t->config->run_dir, CHECKPOINT_FOLDER, error));
    checkpoint_name(name, t->state.counters.watch.kept);
    ELBO_TRY(file_join(path, folder, name, error));
    return checkpoint_open(c, path, NULL, NULL, error);
}

/* Restores the weights and moments of the kept checkpoint, or draws first weights. */
static elbo_status restore(struct trainer *t, const struct checkpoint *kept, uint64_t rollbacks, elbo_error *error)
{
    if (kept) return restore_state(t, kept, error);
    memset(t->state.counters.part_updates, 0, sizeof t->state.counters.part_updates);
    return model_initialize(&t->step.model, t->config->seed ^ noise_purpose("monitor.anew") ^ rollbacks, error);
}

/* Rolls the state back. The counters go on, except those of the moments, which are restored with the moments. */
static elbo_status roll_back(struct trainer *t, const struct checkpoint *kept, elbo_error *error)
{
    struct training_counters *count = &t->state.counters;
    struct training_best best = t->state.best;
    count->updates = t->step.optimizer.updates; /* clock of the schedules */
    count->watch.rollbacks++;
    count->watch.rolled = count->draws;
    count->watch.alive = kept != NULL;
    struct training_counters now = *count;
    elbo_status status = trainer_rebuild(t, error);
    if (!status) status = restore(t, kept, now.watch.rollbacks, error);
    if (status) {
        t->clock.first_draw = count->draws; /* prevents a save of the half-restored state */
        return status;
    }
    memcpy(now.part_updates, count->part_updates, sizeof now.part_updates);
    *count = now;
    t->state.best = best;
    t->step.optimizer.updates = now.updates;
    memcpy(t->step.optimizer.part_updates, now.part_updates, sizeof now.part_updates);
    return ELBO_OK;
}

static void tell(struct trainer *t)
{
    const struct training_counters *count = &t->state.counters;
    char raised[160], to[64] = "first ones";
    objective_raised(raised, sizeof raised, &t->config->objective, &t->model, count->watch.rollbacks);
    if (count->watch.kept) snprintf(to, sizeof to, "those of step %llu", (unsigned long long)count->watch.kept);
    console_line(&t->report, "step %llu: the decoder does not read z; weights and moments are %s again, and %s",
                 (unsigned long long)count->draws, to, raised);
    report_rollback(t, raised);
}

/* Rolls back. A kept checkpoint that cannot be read does not end the run, because the run has good weights. */
elbo_status monitor_roll_back(struct trainer *t, elbo_error *error)
{
    struct checkpoint *kept;
    elbo_error lost = {0};
    if (team_agree(&t->team, open_kept(&kept, t, &lost), &lost)) {
        elbo_fail_in(&lost, "step %llu: the decoder does not read z, and the run cannot roll back: ",
                     (unsigned long long)t->state.counters.draws);
        console_warning(&t->report, lost.message);
        t->state.counters.watch.kept = 0;
        if (kept) checkpoint_close(kept);
        return ELBO_OK;
    }
    elbo_status status = team_agree(&t->team, roll_back(t, kept, error), error);
    if (kept) checkpoint_close(kept);
    if (!status) tell(t);
    return status;
}
