/* Schedules of the learning rate (warm-up, then cosine, linear, constant or inverse square root) and of beta. */
#include "step/schedule.h"

#include <math.h>
#include <stdbool.h>

double schedule_learning_rate(const struct optimizer_config *c, size_t update, size_t steps)
{
    double least = c->min_learning_rate_ratio;
    if (update < c->warmup_steps) return (double)(update + 1) / (double)c->warmup_steps;
    if (c->schedule == SCHEDULE_INVERSE_SQRT) {
        double share = sqrt((double)(c->warmup_steps ? c->warmup_steps : 1) / (double)(update + 1));
        return share > least ? share : least;
    }
    if (c->schedule == SCHEDULE_CONSTANT || steps <= c->warmup_steps) return 1.0;
    double t = (double)(update - c->warmup_steps) / (double)(steps - c->warmup_steps);
    if (t > 1) t = 1;
    double share = c->schedule == SCHEDULE_COSINE ? 0.5 * (1.0 + cos(3.14159265358979323846 * t)) : 1.0 - t;
    return least + (1.0 - least) * share;
}

/* Rises from 0.0025 at 0 to 0.9975 at 1; the schedule rescales it to reach both ends. */
static double logistic(double t)
{
    return 1.0 / (1.0 + exp(-12.0 * (t - 0.5)));
}

double schedule_beta(const struct objective_config *c, size_t update, size_t steps)
{
    double period = (double)steps, at = (double)update;
    if (c->beta_schedule == BETA_CONSTANT) return c->beta;
    if (c->beta_schedule == BETA_CYCLICAL) {
        period /= (double)(c->beta_cycles ? c->beta_cycles : 1);
        at = period > 0 ? fmod(at, period) : 0;
    }
    bool sloped = c->beta_schedule == BETA_LOGISTIC && c->beta_slope > 0;
    if (sloped) return c->beta_start + (c->beta - c->beta_start) / (1.0 + exp(-c->beta_slope * (at - c->beta_center)));
    double hold = c->beta_hold * period, rise = c->beta_warmup * period;
    double t = at < hold ? 0.0 : rise > 0 ? (at - hold) / rise : 1.0;
    double share = t > 1 ? 1 : t;
    if (c->beta_schedule == BETA_LOGISTIC) share = (logistic(share) - logistic(0)) / (logistic(1) - logistic(0));
    return c->beta_start + (c->beta - c->beta_start) * share;
}
