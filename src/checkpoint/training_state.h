/* The state that a run keeps in its checkpoints: weights, moments, running statistics, counters. A checkpoint holds
 *
 *   model.safetensors              weights by name, F32
 *   state/optimizer.safetensors    moments by name in F32, and running statistics
 *   state/optimizer-R-of-N...      moments that ranks wrote beside each other instead (moments.h)
 *   state/algorithms.bin           choices that the backend made by itself, if any
 *   config.yaml, tokenizer.json    as they are
 *
 * and the counters in its manifest. docs/formats.md is its reference. */
#ifndef CHECKPOINT_TRAINING_STATE_H
#define CHECKPOINT_TRAINING_STATE_H

#include "checkpoint/moments.h"
#include "graph/parameters.h"

/* Figures of a step that the choice of passes reads (train/passes.h). */
struct pass_figures {
    unsigned pass;
    double loss, information;
};
/* A window of a figure's values that is being filled, and the mean of the window before. */
struct pass_window {
    uint64_t gathered;
    double sum, before; /* sum of its values; mean of the window before */
    bool compared;      /* there was a window before */
};
struct training_passes {
    uint64_t encoder_draws, encoder_next; /* steps of encoder passes, and their data cursor */
    uint64_t first;                       /* first step after the decoder's last pass */
    uint64_t encoder_passes;              /* number since `first` */
    struct pass_window loss, information; /* of the encoder passes since `first`; of all steps */
    bool enough, ended;                   /* the encoder improves no more; the phase of encoder passes is over */
    struct pass_figures recent[2];        /* of the last two steps, even and odd */
};

/* State of the watch over the latent (train/monitor.h). */
struct training_watch {
    uint64_t last_alive;        /* step of the last evaluation with a live latent; 0: none */
    uint64_t kept;              /* step of the checkpoint kept for rollbacks; 0: none */
    uint64_t rollbacks, rolled; /* number of rollbacks; step of the last one */
    bool alive, warned;
    /* Figures of the last evaluation; known: there was one. */
    bool known;
    double gain, kl, information;
};

struct training_counters {
    uint64_t draws;               /* training forward passes, which number the noise */
    uint64_t updates;             /* updates applied */
    uint64_t next;                /* data cursor */
    uint64_t skipped;             /* total of updates left out */
    uint64_t bad;                 /* consecutive steps that were not finite */
    uint64_t shortened;           /* total of sentences cut or left out */
    uint64_t rewound;             /* step that the run last went back to; 0: never */
    uint64_t clipped;             /* updates whose gradient was clipped */
    uint64_t part_updates[PARTS]; /* updates applied to each part of the model */
    uint64_t begun_anew;          /* updates applied before the decoder began anew; 0: it did not */
    struct training_passes passes;
    struct training_watch watch;
};

/* The best evaluation so far by a figure. */
struct training_best {
    const char *figure; /* name of the figure; "none": no comparison */
    uint64_t step;      /* 0: none yet */
    uint64_t worse;     /* evaluations since */
    double value;
};

struct training_state {
    struct training_counters counters;
    struct training_best best;
    struct backend *backend;
    const struct parameters *parameters;
    float *weights; /* arena of the weights */
    struct moments moments;
    /* Running statistics and the states of an objective's terms, in host memory. A checkpoint that lacks one leaves its
     * value unchanged. */
    const struct safetensors_tensor *statistics;
    size_t statistic_count;
    /* The data and the vocabulary of the state. */
    size_t vocabulary, positions;
    const char *const *labels; /* (label_count) names that the model knows; 0: no labels */
    size_t label_count;
    const char *corpus, *tokenizer; /* hashes */
};

/* The other files of a run's checkpoint, stored as they are. */
struct training_files {
    const char *yaml, *tokenizer;
    size_t tokenizer_size;
};

/* Saves the state. Every rank calls it. Rank 0 gives the files and writes the checkpoint; the other ranks give null and
 * take their part in shared moments until rank 0 has finished. Rank 0 gives null if it has nothing to write, which ends
 * the others' part. A failed save loses nothing, and the error names its step. */
elbo_status training_state_save(struct training_state *s, const char *run_dir, const struct training_files *files,
                                size_t keep, elbo_error *error);

/* Differences that a load found: the run goes on, but not with the same bits. */
struct training_changes {
    bool instructions, corpus;
};

/* Fills the memory that the state names, and its counters. ELBO_INPUT: another vocabulary or tokenizer, or damage. The
 * caller refreshes the working weights. */
elbo_status training_state_load(struct training_state *s, struct training_changes *changes, const struct checkpoint *c,
                                elbo_error *error);

/* Loads the weights alone: every parameter of the table into its arena. */
elbo_status weights_load(float *weights, const struct parameters *parameters, struct backend *backend,
                         const struct checkpoint *c, elbo_error *error);

#endif
