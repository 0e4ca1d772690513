/* The whole configuration: one struct, filled by the option tables beside each section (key, type, default, range,
 * unit, help). Defaults come first, then a YAML file, then `--section.key=value`. */
#ifndef TRAIN_CONFIG_H
#define TRAIN_CONFIG_H

#include "elbo/status.h"
#include "base/options.h"
#include "model/config.h"
#include "job/config.h"
#include "step/config.h"

#include <stdint.h>

enum determinism_kind { DETERMINISM_FAST, DETERMINISM_RUN_TO_RUN, DETERMINISM_WORLD_INVARIANT };
enum eval_posterior { POSTERIOR_SAMPLE, POSTERIOR_MEAN };
enum best_kind { BEST_NONE, BEST_NEG_ELBO, BEST_RECONSTRUCTION, BEST_OWN_Z_GAIN, BEST_ACTIVE_UNITS };
enum collapse_kind { COLLAPSE_WARN, COLLAPSE_ROLLBACK, COLLAPSE_IGNORE };
enum product_format {
    FORMAT_NPY,
    FORMAT_JSONL,
    FORMAT_CVEC,
    FORMAT_HF,
    FORMAT_ONNX,
    FORMAT_GGUF,
    FORMAT_F32,
    FORMAT_Q8,
    FORMAT_Q4
};
enum fit_kind { FIT_GAUSSIAN, FIT_MIXTURE };
enum fit_covariance { FIT_FULL, FIT_DIAGONAL };
enum fit_of { FIT_MEAN, FIT_SAMPLE };

struct train_section {
    size_t steps, stop_after, slots, slot_tokens, slot_sentences;
    size_t eval_every, eval_sentences; /* 0: never; 0: all */
    size_t patience;                   /* evaluations; 0: no limit */
    int on_collapse;                   /* enum collapse_kind */
    double collapse_gain;              /* nats */
    size_t max_bad_steps;              /* consecutive steps that are not finite */
    size_t skip;                       /* step (from 1) whose update is left out; 0: none */
    int recompute;                     /* enum recompute_kind */
};
#define AT(field) offsetof(struct train_section, field)
static const struct option train_rows[] = {
    ROW_SIZE("steps", steps, "1000", 0, OPTION_MANY, "steps", KEPT_CHANGE, "length of the run"),
    ROW_SIZE("stop_after", stop_after, "0", 0, OPTION_MANY, "steps", KEPT_FREE,
             "save and stop after this many steps of a longer run; 0: run to the end"),
    ROW_SIZE("slots", slots, "8", 1, 65536, "", KEPT_CHANGE,
             "number of packed micro-batches (slots) in a global batch"),
    ROW_SIZE("slot_tokens", slot_tokens, "512", 3, 16777216, "tokens with marks",
             KEPT(TAKEN_BY_TRAINING | COMMAND_EVAL | COMMAND_FIT_PRIOR, OPTION_CHANGE),
             "capacity of a slot, for each of its streams"),
    ROW_SIZE("slot_sentences", slot_sentences, "0", 0, 16777216, "sentences",
             KEPT(TAKEN_BY_TRAINING | COMMAND_EVAL | COMMAND_FIT_PRIOR, OPTION_CHANGE),
             "most sentences in a slot; 0: no limit but slot_tokens"),
    ROW_SIZE("eval_every", eval_every, "500", 0, OPTION_MANY, "steps", KEPT_CHANGE,
             "number of steps between evaluations on data.valid; 0: never"),
    ROW_SIZE("eval_sentences", eval_sentences, "0", 0, OPTION_MANY, "sentences", KEPT_CHANGE,
             "number of sentences of data.valid to evaluate on; 0: all"),
    ROW_SIZE("patience", patience, "0", 0, OPTION_MANY, "evaluations", KEPT_CHANGE,
             "stop after this many evaluations in a row that do not improve on the best figure of checkpoint.best; 0: "
             "never"),
    ROW_CHOICE("on_collapse", on_collapse, "warn", KEPT_CHANGE,
               "reaction when an evaluation finds that the decoder ignores z; rollback: go back to the last checkpoint "
               "with a live latent, or start anew, and raise the KL's rate, at most three times",
               "warn", "rollback", "ignore"),
    ROW_NUMBER("collapse_gain", collapse_gain, "0.5", 0, 1e6, "nats", KEPT_CHANGE,
               "least gain of the decoder from a sentence's own z (own_z_gain) for the latent to count as alive"),
    ROW_SIZE("max_bad_steps", max_bad_steps, "5", 1, OPTION_MANY, "steps", KEPT_CHANGE,
             "stop after this many steps in a row whose loss or gradient is not finite"),
    ROW_SIZE("skip", skip, "0", 0, OPTION_MANY, "step", KEPT_CHANGE,
             "leave out the update of this step, counted from 1; 0: leave out none"),
    ROW_CHOICE("recompute", recompute, "none", KEPT_FREE,
               "activations to recompute in the backward pass instead of keeping them", "none", "cheap", "block"),
};
#undef AT

struct data_config {
    const char *train, *valid, *test;
    size_t max_length; /* tokens without marks */
    int too_long;      /* enum slot_too_long */
    bool labels;
};
#define AT(field) offsetof(struct data_config, field)
static const struct option data_rows[] = {
    ROW_TEXT("train", train, "", KEPT(TAKEN_BY_TRAINING | COMMAND_FIT_PRIOR, OPTION_CHANGE),
             "corpus to train on, written by `elbo prepare`; fit-prior: corpus to fit to, the run's own unless given"),
    ROW_TEXT("valid", valid, "", KEPT_CHANGE, "corpus to evaluate on during training; empty: none"),
    ROW_TEXT("test", test, "", COMMAND_EVAL, "corpus to evaluate on"),
    ROW_SWITCH("labels", labels, "false", KEPT_MODEL,
               "condition encoder and decoder on each sentence's label; data.train must have labels"),
    ROW_SIZE("max_length", max_length, "100", 1, 1000000, "tokens without marks", KEPT_MODEL,
             "length of the longest sentence; see data.too_long"),
    ROW_CHOICE("too_long", too_long, "truncate",
               KEPT(TAKEN_BY_TRAINING | COMMAND_EVAL | COMMAND_FIT_PRIOR, OPTION_CHANGE),
               "treatment of sentences longer than data.max_length", "truncate", "skip", "refuse"),
};
#undef AT

struct checkpoint_config {
    size_t every, keep; /* every: steps, 0: at the end only */
    int best;           /* enum best_kind */
};
#define AT(field) offsetof(struct checkpoint_config, field)
static const struct option checkpoint_rows[] = {
    ROW_SIZE("every", every, "500", 0, OPTION_MANY, "steps", KEPT_FREE,
             "number of steps between checkpoints; 0: save at the end only"),
    ROW_CHOICE(
        "best", best, "none", KEPT_CHANGE,
        "figure of the evaluations on data.valid whose best checkpoint is also kept, and named in checkpoints/best",
        "none", "neg_elbo", "reconstruction", "own_z_gain", "active_units"),
    ROW_SIZE("keep", keep, "2", 1, 1000000, "", KEPT_FREE, "number of newest checkpoints to keep"),
};
#undef AT

struct init_config {
    const char *from, *parts; /* from "": no warm start; parts "": all parts */
};
#define AT(field) offsetof(struct init_config, field)
static const struct option init_rows[] = {
    ROW_TEXT(
        "from", from, "", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
        "run or checkpoint whose weights a new run starts with, by name and shape; optimizer and steps start anew"),
    ROW_TEXT("parts", parts, "", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
             "parts to take from init.from: a list of encoder, latent, decoder; each must fit whole; empty: all "
             "weights that fit"),
};
#undef AT

struct log_config {
    size_t every; /* steps between console lines */
};
#define AT(field) offsetof(struct log_config, field)
static const struct option log_rows[] = {
    ROW_SIZE("every", every, "20", 1, OPTION_MANY, "steps", KEPT_FREE, "number of steps between lines on the console"),
};
#undef AT

struct prepare_config {
    const char *split, *tokenizer_from;
    int tokenizer_kind; /* enum elbo_tokenizer_kind */
    size_t tokenizer_size;
    bool strict;
    const char *labels;
    int label_column; /* enum elbo_label_column */
};
#define AT(field) offsetof(struct prepare_config, field)
static const struct option prepare_rows[] = {
    ROW_TEXT("split", split, "", COMMAND_PREPARE,
             "percentages for out/train, out/valid and out/test, such as 95/2.5/2.5; sentences with equal tokens go to "
             "one part"),
    ROW_TEXT("labels", labels, "", COMMAND_PREPARE,
             "file with one label for each line of the text, one a line; for data.labels"),
    ROW_CHOICE("label_column", label_column, "none", COMMAND_PREPARE,
               "field of the text's TAB-separated lines that holds the label, instead of a separate file", "none",
               "first", "last"),
    ROW_SWITCH("strict", strict, "false", COMMAND_PREPARE | COMMAND_TOKENIZE,
               "refuse text that is not valid UTF-8 instead of replacing the invalid bytes by U+FFFD"),
};
#undef AT

/* Rows of the section `tokenizer`. */
#define AT(field) offsetof(struct prepare_config, field)
static const struct option tokenizer_rows[] = {
    ROW_CHOICE("kind", tokenizer_kind, "word", COMMAND_PREPARE, "kind of token", "byte", "word", "bpe"),
    ROW_SIZE(
        "size", tokenizer_size, "8000", 4, 16777216, "ids", COMMAND_PREPARE | COMMAND_PLAN,
        "largest vocabulary of word and bpe, with the three marks; plan: the vocabulary if no data.train is given"),
    ROW_TEXT("from", tokenizer_from, "", COMMAND_PREPARE,
             "corpus or model whose tokenizer to take, instead of making one of tokenizer.kind and tokenizer.size"),
};
#undef AT

struct generate_config {
    size_t count, max_length, top_k, steps;
    double temperature, top_p, length_penalty;
    size_t beam;
    bool greedy, allow_unknown, posterior_mean, fitted;
    const char *from, *to, *label;
    int format; /* enum product_format */
};
#define AT(field) offsetof(struct generate_config, field)
static const struct option generate_rows[] = {
    ROW_SIZE("count", count, "5", 1, 1000000000, "sentences", COMMAND_SAMPLE, "number of sentences to write"),
    ROW_SIZE("steps", steps, "7", 2, 1000000, "sentences", COMMAND_INTERPOLATE,
             "number of sentences on the line, both ends included"),
    ROW_TEXT("label", label, "", TAKEN_BY_WRITING | TAKEN_WITH_TEXT,
             "label of every sentence, for a model that was trained with data.labels"),
    ROW_TEXT("from", from, "", COMMAND_INTERPOLATE, "sentence at the beginning of the line"),
    ROW_TEXT("to", to, "", COMMAND_INTERPOLATE, "sentence at the end of the line"),
    ROW_SIZE("max_length", max_length, "0", 0, 1000000, "tokens", TAKEN_BY_WRITING,
             "length of the longest sentence to write; 0: the length the model was trained with"),
    ROW_NUMBER("temperature", temperature, "0.8", 0.0001, 1000, "", TAKEN_BY_WRITING,
               "divisor of the logits when tokens are drawn (see greedy)"),
    ROW_NUMBER("top_p", top_p, "0.9", 0.000001, 1, "", TAKEN_BY_WRITING,
               "draw from the likeliest tokens that together hold this probability"),
    ROW_SIZE("top_k", top_k, "0", 0, 16777216, "tokens", TAKEN_BY_WRITING,
             "draw from this many of the likeliest tokens; 0: from all"),
    ROW_SIZE("beam", beam, "0", 0, 65536, "beginnings", TAKEN_BY_WRITING,
             "width of the beam search for the likeliest sentence: beginnings kept at each token; 0: no search"),
    ROW_NUMBER(
        "length_penalty", length_penalty, "1", 0, 10, "", TAKEN_BY_WRITING,
        "power of the length that divides log-probabilities in --beam; 0: no division, which favors empty sentences"),
    ROW_SWITCH("greedy", greedy, "false", TAKEN_BY_WRITING,
               "always take the likeliest token; reconstruct, interpolate and decode do so unless temperature, top_p, "
               "top_k or greedy=false is given"),
    ROW_SWITCH("allow_unknown", allow_unknown, "false", TAKEN_BY_WRITING, "allow the unknown mark in the output"),
    ROW_SWITCH("posterior_mean", posterior_mean, "true", TAKEN_WITH_TEXT,
               "encode to the posterior's mean mu; false: to a sample of z"),
    ROW_SWITCH(
        "fitted", fitted, "true", COMMAND_SAMPLE,
        "draw z from the prior that `elbo fit-prior` fitted, if there is one; false: from the model's own prior"),
    ROW_CHOICE("format", format, "npy", COMMAND_ENCODE | COMMAND_EXPORT,
               "format of the latents (encode) or of the model (export); cvec: a llama.cpp control vector for each "
               "latent; hf: a Hugging Face folder; onnx: two ONNX graphs; gguf: a decoder for llama.cpp; f32, q8, q4: "
               "a file for elbo-infer of as many bits",
               "npy", "jsonl", "cvec", "hf", "onnx", "gguf", "f32", "q8", "q4"),
};
#undef AT

struct eval_config {
    size_t iwae_samples, sentences;
    size_t mi_sentences; /* sentences for the aggregate posterior */
    int posterior;       /* enum eval_posterior */
    bool per_sentence;
    const char *baseline; /* corpus whose counts give the n-gram baselines */
};
#define AT(field) offsetof(struct eval_config, field)
static const struct option eval_rows[] = {
    ROW_SIZE("iwae_samples", iwae_samples, "10", 0, 1000000, "samples", COMMAND_EVAL,
             "samples per sentence for the importance-weighted likelihood; 0: leave it out"),
    ROW_SIZE("sentences", sentences, "0", 0, OPTION_MANY, "sentences", COMMAND_EVAL,
             "number of sentences to evaluate on; 0: all"),
    ROW_SIZE("mi_sentences", mi_sentences, "1000", 1, 1000000, "sentences", COMMAND_EVAL,
             "number of sentences for the mutual information"),
    ROW_CHOICE("posterior", posterior, "sample", COMMAND_EVAL,
               "z with which the reconstruction is measured: a sample of the posterior, or its mean", "sample", "mean"),
    ROW_TEXT("baseline", baseline, "", COMMAND_EVAL,
             "training corpus whose word and word-pair counts give baselines to report too"),
};
#undef AT

/* Keys without a section. */
#define AT(field) offsetof(struct eval_config, field)
static const struct option eval_switch_rows[] = {
    ROW_SWITCH("per-sentence", per_sentence, "false", COMMAND_EVAL,
               "write each sentence's figures as a line of JSON; the summary goes to standard error"),
};
#undef AT

/* The section `prior` of the command fit-prior. */
struct fit_config {
    int kind, covariance, of; /* enum fit_kind, fit_covariance, fit_of */
    size_t components, sentences, iterations;
};
#define AT(field) offsetof(struct fit_config, field)
static const struct option fit_rows[] = {
    ROW_CHOICE("kind", kind, "gaussian", COMMAND_FIT_PRIOR, "density to fit: one Gaussian, or a mixture of several",
               "gaussian", "mixture"),
    ROW_SIZE("components", components, "10", 1, 65536, "Gaussians", COMMAND_FIT_PRIOR,
             "number of Gaussians (prior.kind=mixture)"),
    ROW_CHOICE("covariance", covariance, "full", COMMAND_FIT_PRIOR, "covariance of each Gaussian", "full", "diagonal"),
    ROW_CHOICE("of", of, "mean", COMMAND_FIT_PRIOR, "latents to fit to: the posteriors' means, or a sample of each",
               "mean", "sample"),
    ROW_SIZE("sentences", sentences, "0", 0, OPTION_MANY, "sentences", COMMAND_FIT_PRIOR,
             "number of sentences to fit to; 0: all"),
    ROW_SIZE("iterations", iterations, "200", 1, 1000000, "", COMMAND_FIT_PRIOR,
             "most steps of expectation maximization; fewer if it converges earlier"),
};
#undef AT

struct launch_config {
    size_t n, max_restarts;            /* n 0: the command starts its ranks itself */
    double hang_timeout, grace, pause; /* seconds */
};
#define AT(field) offsetof(struct launch_config, field)
static const struct option launch_rows[] = {
    ROW_SIZE("n", n, "0", 0, 4096, "ranks", COMMAND_LAUNCH,
             "number of ranks to start on this host, also as -n N; 0: start the command once, as it is; it starts its "
             "ranks itself"),
    ROW_SIZE("max-restarts", max_restarts, "0", 0, 1000000, "", COMMAND_LAUNCH,
             "most restarts after a rank was killed or its device failed; training continues from its last checkpoint"),
    ROW_NUMBER("hang-timeout", hang_timeout, "0", 0, 1e6, "seconds", COMMAND_LAUNCH,
               "time without a step after which a rank counts as hung; must exceed the start, an evaluation and a "
               "save; 0: never"),
    ROW_NUMBER("grace", grace, "1.5", 0, 1e6, "seconds", COMMAND_LAUNCH,
               "time between SIGTERM and SIGKILL for the remaining ranks when one has failed"),
    ROW_NUMBER("pause", pause, "1", 0, 30, "seconds", COMMAND_LAUNCH,
               "pause before the first restart; doubles with each restart, up to 30"),
};
#undef AT

struct elbo_config {
    uint64_t seed;
    const char *device; /* cpu, cuda, cuda:1, auto */
    int determinism;
    bool tf32;                /* round f32 products on a GPU to TF32 */
    size_t threads;           /* 0: the processors this process may run on */
    bool json, decode, graph; /* output switches of commands */
    const char *run_dir, *resume;
    size_t rewind; /* step; 0: none */
    struct init_config init;
    const char *weights; /* file; "" when not given */
    const char *out;     /* prepare, export: a folder; encode: a file; "" when not given */
    int part;            /* enum export_part */
    int bits;            /* 0: 32, 1: 8, 2: 4 */
    const char *check;   /* corpus; "" when not given */
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
    struct fit_config fit;
    struct launch_config launch;
};
/* Keys without a section. */
#define AT(field) offsetof(struct elbo_config, field)
static const struct option common_rows[] = {
    ROW_SIZE("threads", threads, "0", 0, 1024, "",
             KEPT_OWN(TAKEN_BY_ALL & ~(COMMAND_PREPARE | COMMAND_TOKENIZE | COMMAND_INFO), OPTION_FREE),
             "number of threads; 0: one for each processor this process may run on"),
    {"seed", OPTION_SEED, AT(seed), "1", 0, 0, "", "random seed for weights, data order and noise",
     .commands = KEPT(TAKEN_BY_TRAINING | TAKEN_WITH_RUNS | COMMAND_BENCH, OPTION_CHANGE)},
    ROW_TEXT("device", device, "auto", KEPT_OWN(TAKEN_BY_TRAINING | TAKEN_WITH_RUNS | COMMAND_BENCH, OPTION_CHANGE),
             "device to compute on: cpu, cuda, cuda:1 or auto (a usable GPU, else the CPU); cpu:generic, cpu:avx2, "
             "cpu:avx512 and cpu:amx choose the instruction set, cpu takes the best"),
    ROW_CHOICE("precision", model.precision, "f32", KEPT_CHANGE,
               "type of the activations; bf16: weights and losses stay f32, needs a GPU", "f32", "bf16"),
    ROW_SWITCH("tf32", tf32, "false", KEPT_CHANGE,
               "round the operands of f32 products on a GPU to TF32: faster, error 1e-3 instead of 1e-7"),
    ROW_CHOICE("determinism", determinism, "run_to_run", KEPT(TAKEN_BY_TRAINING | TAKEN_WITH_RUNS, OPTION_CHANGE),
               "reproducibility; run_to_run: same bits on the same machine with the same number of ranks; "
               "world_invariant: same bits on any number of ranks; fast: ranks may add in any order, and a GPU's "
               "products are timed to choose the fastest way",
               "fast", "run_to_run", "world_invariant"),
    ROW_SWITCH("json", json, "false", TAKEN_BY_ALL & ~(COMMAND_INIT | COMMAND_ENCODE),
               "write the result as JSON on standard output"),
    ROW_TEXT("resume", resume, "auto", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
             "checkpoint to continue from; auto: the newest of run.dir, if any; none: start anew; or the path of a run "
             "or checkpoint, used while run.dir has no checkpoint yet"),
    ROW_SIZE("rewind", rewind, "0", 0, OPTION_MANY, "step", KEPT(COMMAND_TRAIN, OPTION_FREE),
             "go back, once, to run.dir's own checkpoint of this step; later ones move to checkpoints/abandoned-*; 0: "
             "do not"),
};
#undef AT

#define AT(field) offsetof(struct elbo_config, field)
static const struct option run_rows[] = {
    ROW_TEXT("dir", run_dir, "", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
             "folder for the configuration, metrics and checkpoints"),
};
#undef AT

#define AT(field) offsetof(struct elbo_config, field)
static const struct option product_rows[] = {
    ROW_TEXT(
        "out", out, "", COMMAND_PREPARE | COMMAND_ENCODE | COMMAND_EXPORT,
        "output; prepare, export, encode --format=cvec: folder to make, or to replace whole; encode: file to write"),
    ROW_CHOICE("part", part, "whole", COMMAND_EXPORT,
               "part of the model to export; decoder and encoder are written under the names of a known architecture",
               "whole", "encoder", "decoder"),
    ROW_CHOICE("bits", bits, "32", COMMAND_EXPORT,
               "bits of the weights that are multiplied with rows of tokens; 8 and 4 need --format=onnx", "32", "8",
               "4"),
    ROW_TEXT("weights", weights, "", TAKEN_WITH_RUNS,
             "file of elbo export --format=f32, q8 or q4 whose rounded weights replace the checkpoint's"),
    ROW_TEXT("check", check, "", COMMAND_EXPORT,
             "corpus on whose sentences the export is compared with the model before it is moved to --out"),
};
#undef AT

#define AT(field) offsetof(struct elbo_config, field)
static const struct option switch_rows[] = {
    ROW_SWITCH("decode", decode, "false", COMMAND_TOKENIZE, "turn ids into text"),
    ROW_SWITCH("graph", graph, "false", COMMAND_INFO, "list the recorded ops with their bytes and FLOPs"),
};
#undef AT

/* Returns the table of options, whose target is a struct elbo_config. */
const struct option_table *elbo_config_table(void);

/* Reads a checkpoint's configuration as options_read_yaml_text does. The configuration may be older than an option: if
 * it lacks objective.dropped_mark, dropped words become the unknown mark. */
elbo_status elbo_config_read_saved(struct options *options, const char *yaml, size_t size, const char *name,
                                   elbo_error *error);

/* Checks the rules between options of the model, the objective and the training: heads divide widths, a slot holds the
 * longest sentence, and so on. The message names the options and a value that would do. */
elbo_status elbo_config_check(const struct elbo_config *config, elbo_error *error);

#endif
