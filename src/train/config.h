/* The whole configuration: one struct, filled by the one table of options in config.c (key, type, default, range,
 * unit, help), from defaults, then a YAML file, then `--section.key=value`. */
#ifndef TRAIN_CONFIG_H
#define TRAIN_CONFIG_H

#include "elbo/status.h"
#include "base/options.h"
#include "model/config.h"
#include "job/config.h"
#include "step/config.h"

#include <stdint.h>

enum determinism_kind { DETERMINISM_FAST, DETERMINISM_RUN_TO_RUN, DETERMINISM_WORLD_INVARIANT };
enum posterior_kind { POSTERIOR_SAMPLE, POSTERIOR_MEAN };
enum best_kind { BEST_NONE, BEST_NEG_ELBO, BEST_RECONSTRUCTION, BEST_OWN_Z_GAIN, BEST_ACTIVE_UNITS };
enum encode_format { FORMAT_NPY, FORMAT_JSONL };

/* Which commands take an option. */
enum config_command {
    COMMAND_PREPARE = 1 << 0,
    COMMAND_INIT = 1 << 1,
    COMMAND_TRAIN = 1 << 2,
    COMMAND_EVAL = 1 << 3,
    COMMAND_SAMPLE = 1 << 4,
    COMMAND_RECONSTRUCT = 1 << 5,
    COMMAND_INTERPOLATE = 1 << 6,
    COMMAND_ENCODE = 1 << 7,
    COMMAND_DECODE = 1 << 8,
    COMMAND_TOKENIZE = 1 << 9,
    COMMAND_PLAN = 1 << 10,
    COMMAND_INFO = 1 << 11,
    COMMAND_BENCH = 1 << 12,
    COMMAND_LAUNCH = 1 << 13,
};

struct train_section {
    size_t steps, stop_after, slots, slot_tokens, slot_sentences;
    size_t eval_every, eval_sentences; /* 0: never; 0: all     */
    size_t patience;                   /* evaluations; 0: ever */
    size_t max_bad_steps;              /* not finite in a row  */
    size_t skip;                       /* step (from 1) whose update is left out; 0: none */
    int recompute;                     /* enum recompute_kind  */
};

struct data_config {
    const char *train, *valid, *test;
    size_t max_length; /* tokens without marks */
    int too_long;      /* enum slot_too_long   */
};

struct checkpoint_config {
    size_t every, keep; /* steps; 0: at the end only */
    int best;           /* enum best_kind            */
};

struct init_config {
    const char *from, *parts; /* "" for none; for all      */
};

struct log_config {
    size_t every; /* steps between console lines */
};

struct prepare_config {
    const char *split, *tokenizer_from;
    int tokenizer_kind; /* enum elbo_tokenizer_kind */
    size_t tokenizer_size;
    bool strict;
};

struct generate_config {
    size_t count, max_length, top_k, steps;
    double temperature, top_p, length_penalty;
    size_t beam;
    bool greedy, allow_unknown, posterior_mean;
    const char *from, *to;
    int format; /* enum encode_format */
};

struct eval_config {
    size_t iwae_samples, sentences;
    size_t mi_sentences; /* sentences for the aggregate posterior */
    int posterior;       /* enum posterior_kind */
    bool per_sentence;
    const char *baseline; /* corpus whose counts give the n-gram baselines */
};

struct launch_config {
    size_t n, max_restarts;            /* n 0: the command starts its ranks itself */
    double hang_timeout, grace, pause; /* seconds                                  */
};

struct elbo_config {
    uint64_t seed;
    const char *device; /* cpu, cuda, cuda:1, auto */
    int determinism;
    bool tf32;                /* f32 products on a GPU */
    size_t threads;           /* 0: the processors this process may run on */
    bool json, decode, graph; /* output switches of commands               */
    const char *run_dir, *resume;
    size_t rewind; /* step; 0: none             */
    struct init_config init;
    const char *out; /* prepare: a folder; encode: a file; "" when not given */
    struct model_config model;
    struct objective_config objective;
    struct optimizer_config optimizer;
    struct train_section train;
    struct data_config data;
    struct checkpoint_config checkpoint;
    struct log_config log;
    struct parallel_config parallel;
    struct prepare_config prepare;
    struct generate_config generate;
    struct eval_config eval;
    struct launch_config launch;
};

/* THE table of options; its target is a struct elbo_config. */
const struct option_table *elbo_config_table(void);

/* Rules that tie several options together: heads divide widths, a slot holds the longest sentence, and so on. Checks
 * the model, objective, optimizer and training parts; the message names the options and a value that would do. */
elbo_status elbo_config_check(const struct elbo_config *config, elbo_error *error);

#endif
