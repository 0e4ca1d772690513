/* Everything that a run keeps of itself, into a checkpoint and back: weights, moments, running statistics, counters. A
 * checkpoint holds
 *
 *   model.safetensors              weights by name, F32
 *   state/optimizer.safetensors    moments by name in F32, and running statistics
 *   state/optimizer-R-of-N...      moments that ranks wrote beside each other instead (moments.h)
 *   state/algorithms.bin           what the backend chose by itself, if anything
 *   config.yaml, tokenizer.json    as they are
 *
 * and the counters in its manifest. docs/formats.md is its reference. */
#ifndef CHECKPOINT_TRAINING_STATE_H
#define CHECKPOINT_TRAINING_STATE_H

#include "checkpoint/moments.h"
#include "graph/parameters.h"

/* What the choice of passes remembers (train/passes.h). */
struct pass_figures {
    unsigned pass;
    double loss, information;
};
/* A window of a figure's values that is being filled, and the one before. */
struct pass_window {
    uint64_t gathered;
    double sum, before; /* of its values; mean of the one before */
    bool compared;      /* there was one before                  */
};
struct training_passes {
    uint64_t encoder_draws, encoder_next; /* steps of the encoder's passes, and their data cursor      */
    uint64_t first;                       /* step behind the decoder's last pass                       */
    uint64_t encoder_passes;              /* since then                                                */
    struct pass_window loss, information; /* of the encoder's passes since then; of all steps          */
    bool enough, ended;                   /* the encoder betters itself no more; nor will it be ahead  */
    struct pass_figures recent[2];        /* of the last two steps, even and odd                       */
};

/* What the watch over the latent remembers (train/monitor.h). */
struct training_watch {
    uint64_t last_alive;        /* step of the last evaluation that was alive; 0: none            */
    uint64_t kept;              /* step of the checkpoint that is kept to roll back to; 0: none   */
    uint64_t rollbacks, rolled; /* and the step of the last of them                          */
    bool alive, warned;
    /* Figures of the last evaluation, if there was one. */
    bool known;
    double gain, kl, information;
};

struct training_counters {
    uint64_t draws;               /* training forward passes: the noise's step              */
    uint64_t updates;             /* applied                                                */
    uint64_t next;                /* data cursor                                            */
    uint64_t skipped;             /* updates left out, in all                               */
    uint64_t bad;                 /* steps in a row that were not finite                    */
    uint64_t shortened;           /* sentences cut or left out, in all                      */
    uint64_t rewound;             /* step that the run went back to last; 0: never          */
    uint64_t clipped;             /* updates whose gradient was clipped                     */
    uint64_t part_updates[PARTS]; /* applied, of each part of the model           */
    uint64_t begun_anew;          /* updates before the decoder was; 0: it was not */
    struct training_passes passes;
    struct training_watch watch;
};

/* The evaluation that is the best so far by a figure. */
struct training_best {
    const char *figure; /* its name; "none": nothing is compared                  */
    uint64_t step;      /* 0: none yet                                            */
    uint64_t worse;     /* evaluations since                                      */
    double value;
};

struct training_state {
    struct training_counters counters;
    struct training_best best;
    struct backend *backend;
    const struct parameters *parameters;
    float *weights; /* their arena                                            */
    struct moments moments;
    /* Running statistics and the states of an objective's terms, in host memory; a checkpoint that lacks one leaves it
     * as it is. */
    const struct safetensors_tensor *statistics;
    size_t statistic_count;
    /* Which data and vocabulary they are of. */
    size_t vocabulary, positions;
    const char *const *labels; /* (label_count) names that the model knows; 0: a model without labels */
    size_t label_count;
    const char *corpus, *tokenizer; /* hashes                                                 */
};

/* The rest of a checkpoint of the run, as it is. */
struct training_files {
    const char *yaml, *tokenizer;
    size_t tokenizer_size;
};

/* Every rank's. Rank 0 gives the files and writes the checkpoint; the others give null and take their part in moments
 * that are shared out, until rank 0 is through. Rank 0 gives null where it has nothing to write, and lets the others
 * go. A save that fails loses nothing, and the error names its step. */
elbo_status training_state_save(struct training_state *s, const char *run_dir, const struct training_files *files,
                                size_t keep, elbo_error *error);

/* Things that a load found to be otherwise than they were: the run goes on, but not with the same bits. */
struct training_changes {
    bool instructions, corpus;
};

/* Fills the memory that the state names, and its counters. ELBO_INPUT: another vocabulary or tokenizer, or damage. The
 * working weights are the caller's to refresh. */
elbo_status training_state_load(struct training_state *s, struct training_changes *changes, const struct checkpoint *c,
                                elbo_error *error);

/* The weights alone: every parameter of the table into its arena. */
elbo_status weights_load(float *weights, const struct parameters *parameters, struct backend *backend,
                         const struct checkpoint *c, elbo_error *error);

#endif
