/* Chooses the pass of each step while the encoder is trained ahead of the decoder: see passes.h. */
#include "train/passes.h"

#include <math.h>

/* Takes a figure into the window. Returns true if the window is full; *rise is then its mean less that of the window
 * before, or NaN for the first window. */
static bool take(struct pass_window *w, double *rise, double figure, size_t size)
{
    if (!isfinite(figure)) return false;
    w->sum += figure;
    if (++w->gathered < size) return false;
    double mean = w->sum / (double)w->gathered;
    *rise = w->compared ? mean - w->before : NAN;
    *w = (struct pass_window){.before = mean, .compared = true};
    return true;
}

static void begin_loop(struct training_passes *p, uint64_t first)
{
    p->first = first;
    p->encoder_passes = 0;
    p->loss = (struct pass_window){0};
    p->enough = false;
}

static bool is_over(const struct training_passes *p, const struct objective_config *c, uint64_t draws)
{
    return p->ended || (c->aggressive_steps && draws >= c->aggressive_steps);
}

/* Judges the figures of step `draw`, counted from 0. */
static void judge(struct training_passes *p, const struct objective_config *c, uint64_t draw)
{
    const struct pass_figures *seen = &p->recent[draw % 2];
    double rise;
    if (c->aggressive_until == AGGRESSIVE_INFORMATION &&
        take(&p->information, &rise, seen->information, c->aggressive_information_window) && rise <= 0)
        p->ended = true;
    if (draw < p->first || seen->pass != PASS_ENCODER) return;
    if (take(&p->loss, &rise, seen->loss, c->aggressive_window) && rise >= 0) p->enough = true;
}

enum step_pass passes_next(struct training_passes *p, const struct objective_config *c, uint64_t draws)
{
    if (is_over(p, c, draws) || draws < c->autoencoder_steps) return PASS_WHOLE;
    if (draws >= c->autoencoder_steps + 2) judge(p, c, draws - 2);
    if (p->ended) return PASS_WHOLE;
    if (p->encoder_passes && (p->enough || p->encoder_passes >= c->aggressive_most)) {
        begin_loop(p, draws + 1);
        return PASS_DECODER;
    }
    p->encoder_passes++;
    return PASS_ENCODER;
}

void passes_note(struct training_passes *p, uint64_t draw, enum step_pass pass, double loss, double information)
{
    p->recent[draw % 2] = (struct pass_figures){pass, loss, information};
}

double passes_information(const struct step_figures *f, size_t width)
{
    double n = (double)f->sentences, nats = 0;
    if (!f->moments || f->sentences < 2) return NAN;
    for (size_t j = 0; j < width; j++) {
        const float *mu = f->moments + 2 * j, *logvar = f->moments + 2 * (width + j);
        double center = mu[0] / n, mean = logvar[0] / n;
        double between = fmax(0, (mu[1] - n * center * center) / (n - 1)),
               spread = fmax(0, logvar[1] / n - mean * mean);
        nats += 0.5 * (log(between + exp(mean + spread / 2)) - mean);
    }
    return nats;
}
