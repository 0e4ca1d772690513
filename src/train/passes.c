#include "train/passes.h"

#include <math.h>

/* A loss of the encoder's passes since the decoder moved last. */
static void judge(struct training_passes *p, const struct objective_config *c, double loss)
{
    if (!isfinite(loss)) return;
    p->sum += loss;
    if (++p->gathered < c->aggressive_window) return;
    double mean = p->sum / (double)p->gathered;
    if (p->compared && mean >= p->before) p->enough = true;
    p->before = mean;
    p->compared = true;
    p->sum = 0;
    p->gathered = 0;
}

static void begin_loop(struct training_passes *p, uint64_t first)
{
    p->first = first;
    p->encoder_passes = p->gathered = 0;
    p->sum = p->before = 0;
    p->compared = p->enough = false;
}

enum step_pass passes_next(struct training_passes *p, const struct objective_config *c, uint64_t draws)
{
    if (draws >= c->aggressive_steps || (c->autoencoder_steps && draws < c->autoencoder_steps)) return PASS_WHOLE;
    if (draws >= 2 && draws - 2 >= p->first) {
        const struct pass_loss *seen = &p->recent[draws % 2];
        if (seen->pass == PASS_ENCODER) judge(p, c, seen->loss);
    }
    if (p->encoder_passes && (p->enough || p->encoder_passes >= c->aggressive_most)) {
        begin_loop(p, draws + 1);
        return PASS_DECODER;
    }
    p->encoder_passes++;
    return PASS_ENCODER;
}

void passes_note(struct training_passes *p, uint64_t draw, enum step_pass pass, double loss)
{
    p->recent[draw % 2] = (struct pass_loss){pass, loss};
}
