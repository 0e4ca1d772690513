/* The forward pass of a training slot: the whole VAE as a list of equations, and the values that an objective may use
 * (step/objective.h). */
#ifndef MODEL_TRAINING_H
#define MODEL_TRAINING_H

#include "model/latent.h"

/* N rows of the decoder, S sentences, D the decoder's width, Z the latent's. */
struct training_pass {
    struct recorder *recorder;
    value sample;              /* (S) u64 global number of each sentence: the address of its noise */
    struct latent_pass latent; /* all none without a latent */
    value rows;                /* (N, D) the decoder's last rows */
    value labels, offsets;     /* (N) i32 token predicted by each row; (S + 1) i32 first rows */
    value nll;                 /* (N) f32 nats of each predicted token */
};

/* Records the pass. Errors are sticky in the recorder's graph. */
void training_record(struct training_pass *pass, struct recorder *r);

#endif
