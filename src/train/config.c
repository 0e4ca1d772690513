/* THE table of options: every key that `elbo` knows, with its type, default, range, unit, help and commands. */
#include "train/config.h"

#include "train/aliases.h"

#include <stdint.h>

#define AT(field)    offsetof(struct elbo_config, field)
#define CHOICES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* key, field, default[, min, max, unit], commands, help. `commands` may be KEPT(commands, class): a run keeps the
 * option. */
#define SIZE(key, field, value, min, max, unit, takers, help)                                                          \
    {                                                                                                                  \
        key, OPTION_SIZE, AT(field), value, min, max, unit, help, .commands = takers                                   \
    }
#define NUMBER(key, field, value, min, max, unit, takers, help)                                                        \
    {                                                                                                                  \
        key, OPTION_DOUBLE, AT(field), value, min, max, unit, help, .commands = takers                                 \
    }
#define SWITCH(key, field, value, takers, help)                                                                        \
    {                                                                                                                  \
        key, OPTION_BOOL, AT(field), value, 0, 0, "", help, .commands = takers                                         \
    }
#define TEXT(key, field, value, takers, help)                                                                          \
    {                                                                                                                  \
        key, OPTION_STRING, AT(field), value, 0, 0, "", help, .commands = takers                                       \
    }
#define CHOICE(key, field, value, takers, help, ...)                                                                   \
    {                                                                                                                  \
        key, OPTION_CHOICE, AT(field), value, 0, 0, "", help, .choices = CHOICES(__VA_ARGS__), .commands = takers      \
    }

/* A run that goes on with another value: refuses it (MODEL), says it (CHANGE) or ignores it (FREE); see enum
 * option_class. */
#define KEPT(takers, of_class) takers, .class = of_class
#define MODEL                  KEPT(TRAINS, OPTION_MODEL)
#define CHANGE                 KEPT(TRAINS, OPTION_CHANGE)
#define FREE                   KEPT(TRAINS, OPTION_FREE)

enum {
    TRAINS = COMMAND_TRAIN | COMMAND_PLAN | COMMAND_INIT | COMMAND_BENCH,
    READS_TEXT = COMMAND_RECONSTRUCT | COMMAND_INTERPOLATE | COMMAND_ENCODE,
    GENERATES = COMMAND_SAMPLE | COMMAND_RECONSTRUCT | COMMAND_INTERPOLATE | COMMAND_DECODE,
    PARALLEL = COMMAND_TRAIN | COMMAND_INIT,
    RUNS = COMMAND_EVAL | GENERATES | READS_TEXT,
    ALL = COMMAND_PREPARE | TRAINS | RUNS | COMMAND_TOKENIZE | COMMAND_INFO | COMMAND_BENCH,
};

#define MANY 1e15 /* whole numbers up to here are exact in the double that holds a range */

/* One Transformer stack under `name`. */
#define STACK(name, field)                                                                                             \
    CHOICE(name ".kind", field.kind, "transformer", MODEL, "family of the stack", "transformer"),                      \
        SIZE(name ".width", field.width, "128", 1, 65536, "D", MODEL, "width of the residual stream"),                 \
        SIZE(name ".layers", field.layers, "2", 1, 1024, "L", MODEL, "blocks"),                                        \
        SIZE(name ".heads", field.heads, "4", 1, 1024, "H", MODEL, "attention heads; must divide the width"),          \
        SIZE(name ".kv_heads", field.kv_heads, "0", 0, 1024, "", MODEL,                                                \
             "heads of keys and values, must divide the heads; 0: as many"),                                           \
        SIZE(name ".ff_width", field.ff_width, "0", 0, 1048576, "", MODEL,                                             \
             "inner width of the feed-forward part; 0: 4 times the width"),                                            \
        CHOICE(name ".norm", field.norm, "layernorm", MODEL, "normalization", "layernorm", "rmsnorm"),                 \
        CHOICE(name ".norm_position", field.norm_position, "pre", MODEL, "norm before a branch or after its residual", \
               "pre", "post"),                                                                                         \
        CHOICE(name ".positions", field.positions, "learned", MODEL, "position code", "learned", "rotary"),            \
        CHOICE(name ".activation", field.activation, "gelu", MODEL, "of the feed-forward part", "gelu", "swiglu"),     \
        NUMBER(name ".dropout", field.dropout, "0", 0, 0.95, "", CHANGE, "share of activations dropped in training")

static const struct option rows[] = {
    SIZE("threads", threads, "0", 0, 1024, "",
         KEPT(ALL & ~(COMMAND_PREPARE | COMMAND_TOKENIZE | COMMAND_INFO), OPTION_FREE),
         "threads; 0: the processors this process may run on"),
    {"seed", OPTION_SEED, AT(seed), "1", 0, 0, "", "of everything random: weights, order, noise",
     .commands = KEPT(TRAINS | RUNS | COMMAND_BENCH, OPTION_CHANGE)},
    TEXT("device", device, "auto", KEPT(TRAINS | RUNS | COMMAND_BENCH, OPTION_CHANGE),
         "where to compute: cpu, cuda, cuda:1, or auto: a GPU if one can be used, else the CPU; cpu:generic, cpu:avx2, "
         "cpu:avx512 and cpu:amx "
         "choose the instructions, of which cpu takes the best"),
    CHOICE("precision", model.precision, "f32", CHANGE,
           "of activations; bf16: weights and losses stay f32; needs a GPU", "f32", "bf16"),
    SWITCH("tf32", tf32, "false", CHANGE,
           "f32 products on a GPU round their operands to TF32: faster, 1e-3 instead of 1e-7"),
    CHOICE("determinism", determinism, "run_to_run", KEPT(TRAINS | RUNS, OPTION_CHANGE),
           "run_to_run: the same bits on the same machine with as many ranks; world_invariant: the same bits on any "
           "number of ranks; fast: "
           "ranks may add in any order, and a GPU's products are timed to take the fastest way",
           "fast", "run_to_run", "world_invariant"),
    SWITCH("json", json, "false", ALL & ~(COMMAND_INIT | COMMAND_ENCODE), "the result as JSON on standard output"),
    TEXT("resume", resume, "auto", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
         "auto: go on from the newest checkpoint of run.dir if it has one; none: begin anew; or a run's or "
         "checkpoint's path: begin from it "
         "where run.dir has no checkpoint yet"),
    SIZE("rewind", rewind, "0", 0, MANY, "step", KEPT(COMMAND_TRAIN, OPTION_FREE),
         "go back, once, to run.dir's own checkpoint of this step; what was saved after it is put aside in "
         "checkpoints/abandoned-*; 0: no"),

    TEXT("init.from", init.from, "", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
         "a new run begins with the weights of this run or checkpoint, by name and shape; its optimizer and steps "
         "begin anew"),
    TEXT("init.parts", init.parts, "", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
         "of init.from: a list of encoder, latent, decoder, such as encoder,latent; those must fit whole; empty: "
         "whatever fits of all three"),

    TEXT("run.dir", run_dir, "", KEPT(COMMAND_TRAIN | COMMAND_INIT, OPTION_FREE),
         "folder for the configuration, metrics and checkpoints"),

    TEXT("data.train", data.train, "", CHANGE, "corpus to train on, as `elbo prepare` wrote it"),
    TEXT("data.valid", data.valid, "", CHANGE, "corpus to evaluate on during training; empty: none"),
    TEXT("data.test", data.test, "", COMMAND_EVAL, "corpus to evaluate on"),
    SIZE("data.max_length", data.max_length, "100", 1, 1000000, "tokens without marks", MODEL,
         "longest sentence; see data.too_long"),
    CHOICE("data.too_long", data.too_long, "truncate", KEPT(TRAINS | COMMAND_EVAL, OPTION_CHANGE),
           "what happens to longer sentences", "truncate", "skip", "refuse"),

    STACK("encoder", model.encoder),
    CHOICE("encoder.pooling", model.encoder.pooling, "mean", MODEL, "how a sentence's rows become one", "mean", "first",
           "last", "attention"),
    SWITCH("encoder.share_embedding", model.share_embedding, "true", MODEL,
           "the encoder reads the decoder's token table; needs equal widths"),
    STACK("decoder", model.decoder),
    SWITCH("decoder.tie_output", model.tie_output, "true", MODEL, "the output weights are the decoder's token table"),

    CHOICE("latent.kind", model.latent.kind, "normal", MODEL,
           "normal: a standard normal prior; none: a language model without a latent", "normal", "none"),
    SIZE("latent.width", model.latent.width, "32", 1, 65536, "Z", MODEL, "dimensions of z"),
    CHOICE("latent.injection", model.latent.injection, "both", MODEL,
           "how the decoder sees z: added to every input, as memory for attention, or both", "both", "memory",
           "embedding"),
    SIZE("latent.memory", model.latent.memory, "1", 1, 256, "M", MODEL, "latent keys and values per layer"),
    SWITCH("latent.sample", model.latent.sample, "true", CHANGE, "false: z = mu, a plain autoencoder"),

    CHOICE("objective.beta_schedule", objective.beta_schedule, "linear", CHANGE, "how the weight of the KL moves",
           "linear", "constant", "cyclical", "logistic"),
    NUMBER("objective.beta", objective.beta, "1", 0, 1e6, "", CHANGE, "final weight of the KL"),
    NUMBER("objective.beta_start", objective.beta_start, "0", 0, 1e6, "", CHANGE, "weight of the KL at the first step"),
    NUMBER("objective.beta_warmup", objective.beta_warmup, "0.8", 0, 1, "share of the steps", CHANGE,
           "how long beta rises; of each cycle when cyclical"),
    SIZE("objective.beta_cycles", objective.beta_cycles, "4", 1, 1000000, "", CHANGE, "cycles of a cyclical beta"),
    NUMBER("objective.lambda", objective.lambda, "1", 0, 1e6, "", CHANGE, "weight of the reconstruction"),
    CHOICE("objective.free_bits_kind", objective.free_bits_kind, "dimension", CHANGE,
           "what the free nats are counted for", "dimension", "total", "group"),
    NUMBER("objective.free_bits", objective.free_bits, "0.25", 0, 1e6, "nats", CHANGE,
           "KL that costs nothing; 0 switches it off"),
    SIZE("objective.free_bits_groups", objective.free_bits_groups, "4", 1, 65536, "", CHANGE,
         "groups of neighbouring dimensions, for free_bits_kind group"),
    NUMBER("objective.word_dropout", objective.word_dropout, "0.3", 0, 1, "", CHANGE,
           "share of the decoder's input words that become the unknown mark in training"),

    CHOICE("optimizer.kind", optimizer.kind, "adamw", MODEL, "update rule", "adamw", "sgd"),
    NUMBER("optimizer.learning_rate", optimizer.learning_rate, "0.002", 0, 1000, "", CHANGE, "highest learning rate"),
    NUMBER("optimizer.min_learning_rate_ratio", optimizer.min_learning_rate_ratio, "0.1", 0, 1, "", CHANGE,
           "learning rate at the end, as a share of the highest"),
    CHOICE("optimizer.schedule", optimizer.schedule, "cosine", CHANGE, "after the warm-up", "cosine", "linear",
           "constant"),
    SIZE("optimizer.warmup_steps", optimizer.warmup_steps, "100", 0, MANY, "steps", CHANGE,
         "over which the learning rate rises"),
    NUMBER("optimizer.beta1", optimizer.beta1, "0.9", 0, 0.999999, "", CHANGE, "decay of the first moment"),
    NUMBER("optimizer.beta2", optimizer.beta2, "0.999", 0, 0.9999999, "", CHANGE, "decay of the second moment"),
    NUMBER("optimizer.epsilon", optimizer.epsilon, "1.0e-8", 1e-30, 1, "", CHANGE, "added to the root"),
    NUMBER("optimizer.weight_decay", optimizer.weight_decay, "0.01", 0, 100, "", CHANGE, "decoupled; on matrices only"),
    NUMBER("optimizer.momentum", optimizer.momentum, "0.9", 0, 0.999999, "", CHANGE, "of sgd"),
    CHOICE(
        "optimizer.moments", optimizer.moments, "f32", CHANGE,
        "type of the moments; bf16: half the memory, rounded up or down at random so that nothing is lost in the mean",
        "f32", "bf16"),
    NUMBER("optimizer.clip", optimizer.clip, "1", 0, 1e9, "", CHANGE, "largest global gradient norm; 0: no limit"),
    NUMBER("optimizer.encoder_factor", optimizer.encoder_factor, "1", 0, 1e6, "", CHANGE,
           "of the encoder's learning rate; 0 freezes it"),
    NUMBER("optimizer.latent_factor", optimizer.latent_factor, "1", 0, 1e6, "", CHANGE,
           "of the latent head's learning rate; 0 freezes it"),
    NUMBER("optimizer.decoder_factor", optimizer.decoder_factor, "1", 0, 1e6, "", CHANGE,
           "of the decoder's learning rate; 0 freezes it"),

    SIZE("train.steps", train.steps, "1000", 0, MANY, "steps", CHANGE, "length of the run"),
    SIZE("train.stop_after", train.stop_after, "0", 0, MANY, "steps", FREE,
         "save and stop after this many steps of a longer run; 0: run to the end"),
    SIZE("train.slots", train.slots, "8", 1, 65536, "", CHANGE, "packed micro-batches in a global batch"),
    SIZE("train.slot_tokens", train.slot_tokens, "512", 3, 16777216, "tokens with marks",
         KEPT(TRAINS | COMMAND_EVAL, OPTION_CHANGE), "capacity of a slot, of each stream"),
    SIZE("train.slot_sentences", train.slot_sentences, "0", 0, 16777216, "sentences",
         KEPT(TRAINS | COMMAND_EVAL, OPTION_CHANGE), "capacity of a slot; 0: no limit but the tokens"),
    SIZE("train.eval_every", train.eval_every, "500", 0, MANY, "steps", CHANGE,
         "between evaluations on data.valid; 0: never"),
    SIZE("train.eval_sentences", train.eval_sentences, "0", 0, MANY, "sentences", CHANGE,
         "of data.valid to evaluate on; 0: all"),
    SIZE("train.patience", train.patience, "0", 0, MANY, "evaluations", CHANGE,
         "stop after this many in a row that did not better the best figure of checkpoint.best; 0: never"),
    SIZE("train.max_bad_steps", train.max_bad_steps, "5", 1, MANY, "steps", CHANGE,
         "stop after this many steps in a row whose loss or gradient is not finite"),
    SIZE("train.skip", train.skip, "0", 0, MANY, "step", CHANGE,
         "leave out the update of this step, counted from 1; 0: of none"),
    CHOICE("train.recompute", train.recompute, "none", FREE, "activations computed again instead of kept", "none",
           "cheap", "block"),

    SIZE("checkpoint.every", checkpoint.every, "500", 0, MANY, "steps", FREE,
         "between checkpoints; 0: at the end only"),
    CHOICE("checkpoint.best", checkpoint.best, "none", CHANGE,
           "figure of the evaluations on data.valid whose best checkpoint is kept, too, and named in checkpoints/best",
           "none", "neg_elbo", "reconstruction", "own_z_gain", "active_units"),
    SIZE("checkpoint.keep", checkpoint.keep, "2", 1, 1000000, "", FREE, "newest checkpoints to keep"),
    SIZE("log.every", log.every, "20", 1, MANY, "steps", FREE, "between lines on the console"),

    SIZE("parallel.lanes", parallel.lanes, "0", 0, 65536, "", CHANGE,
         "of determinism world_invariant: sums that are added along one tree on any number of ranks; 0: the smaller of "
         "8 and train.slots"),
    NUMBER("parallel.bucket", parallel.bucket, "32", 0.004, 1 << 20, "MiB", FREE,
           "gradients that travel between ranks at once"),
    SIZE("parallel.zero", parallel.zero, "0", 0, 1, "stage", FREE,
         "ZeRO: 1: each rank keeps and updates its share of the weights' moments; the same bits, no more bytes between "
         "ranks"),
    SIZE("parallel.always", parallel.always, "0", 0, 1, "", FREE,
         "1: a single rank, too, sums through NCCL or MPI, for what that costs"),
    SIZE("parallel.check_every", parallel.check_every, "500", 0, MANY, "steps", FREE,
         "between comparisons of the ranks' weights; 0: never"),
    NUMBER("parallel.bandwidth", parallel.bandwidth, "0", 0, 1e6, "GB/s", COMMAND_PLAN,
           "that a rank sends while it receives as much, for the estimate of waiting; see `elbo bench collectives`; 0: "
           "not known"),
    NUMBER("parallel.latency", parallel.latency, "0", 0, 1e9, "microseconds", COMMAND_PLAN,
           "of a message, for the same estimate"),
    SIZE("parallel.ranks", parallel.ranks, "0", 0, 1048576, "", CHANGE,
         "processes that train together; 0: as many as the launcher started"),
    TEXT("parallel.rank", parallel.rank, "auto", KEPT(PARALLEL, OPTION_FREE),
         "which of them this is, from 0, where no launcher says so; needs parallel.ranks"),
    TEXT("parallel.address", parallel.address, "", KEPT(PARALLEL, OPTION_FREE),
         "host where rank 0 is met; empty: what the launcher says, or this host; another than this one needs a secret"),
    SIZE("parallel.port", parallel.port, "0", 0, 65535, "", KEPT(PARALLEL, OPTION_FREE),
         "TCP port where rank 0 is met; 0: from the launcher or the job's number"),
    NUMBER("parallel.timeout", parallel.timeout, "300", 0.1, 86400, "seconds", KEPT(PARALLEL, OPTION_FREE),
           "that a rank waits for another one before it gives up; more than the longest save takes"),
    TEXT("parallel.secret_file", parallel.secret_file, "", KEPT(PARALLEL, OPTION_FREE),
         "file of mode 0600 with the secret that the job's ranks prove to each other; empty: the variable ELBO_SECRET"),

    TEXT("out", out, "", COMMAND_PREPARE | COMMAND_ENCODE,
         "prepare: folder of the corpus, made or replaced whole; encode: file to write"),
    TEXT("split", prepare.split, "", COMMAND_PREPARE,
         "percentages for out/train, out/valid and out/test, such as 95/2.5/2.5; what is the same to the tokenizer is "
         "in one part"),
    SWITCH("strict", prepare.strict, "false", COMMAND_PREPARE | COMMAND_TOKENIZE,
           "refuse text that is not valid UTF-8 instead of replacing it by U+FFFD"),
    CHOICE("tokenizer.kind", prepare.tokenizer_kind, "word", COMMAND_PREPARE, "what a token is", "byte", "word", "bpe"),
    SIZE("tokenizer.size", prepare.tokenizer_size, "8000", 4, 16777216, "ids", COMMAND_PREPARE | COMMAND_PLAN,
         "largest vocabulary of word and bpe, the three marks included; plan: V where no data.train is given"),
    TEXT("tokenizer.from", prepare.tokenizer_from, "", COMMAND_PREPARE,
         "take the tokenizer of this corpus or model instead of making one of tokenizer.kind and size"),

    SIZE("eval.iwae_samples", eval.iwae_samples, "10", 0, 1000000, "samples", COMMAND_EVAL,
         "per sentence for the importance-weighted likelihood; 0: leave it out"),
    SIZE("eval.sentences", eval.sentences, "0", 0, MANY, "sentences", COMMAND_EVAL, "to evaluate on; 0: all"),
    SIZE("eval.mi_sentences", eval.mi_sentences, "1000", 1, 1000000, "sentences", COMMAND_EVAL,
         "for the mutual information"),
    CHOICE("eval.posterior", eval.posterior, "sample", COMMAND_EVAL, "z that the reconstruction is measured with",
           "sample", "mean"),
    SWITCH("per-sentence", eval.per_sentence, "false", COMMAND_EVAL,
           "write each sentence's figures as a line of JSON; the summary goes to standard error"),
    TEXT("eval.baseline", eval.baseline, "", COMMAND_EVAL,
         "training corpus: also report what its word and word-pair counts alone pay"),

    SIZE("count", generate.count, "5", 1, 1000000000, "sentences", COMMAND_SAMPLE, "how many to write"),
    SIZE("steps", generate.steps, "7", 2, 1000000, "sentences", COMMAND_INTERPOLATE, "on the line, both ends included"),
    TEXT("from", generate.from, "", COMMAND_INTERPOLATE, "sentence at the beginning of the line"),
    TEXT("to", generate.to, "", COMMAND_INTERPOLATE, "sentence at its end"),
    SIZE("max_length", generate.max_length, "0", 0, 1000000, "tokens", GENERATES,
         "longest sentence to write; 0: as the model was trained"),
    NUMBER("temperature", generate.temperature, "0.8", 0.0001, 1000, "", GENERATES,
           "divides the logits where tokens are drawn; see greedy"),
    NUMBER("top_p", generate.top_p, "0.9", 0.000001, 1, "", GENERATES,
           "sample from the likeliest tokens that hold this probability"),
    SIZE("top_k", generate.top_k, "0", 0, 16777216, "tokens", GENERATES, "sample from this many; 0: from all"),
    SIZE("beam", generate.beam, "0", 0, 65536, "beginnings", GENERATES,
         "search for the likeliest sentence, this many beginnings kept at each token; 0: no search"),
    NUMBER("length_penalty", generate.length_penalty, "1", 0, 10, "", GENERATES,
           "of --beam: log-probabilities are divided by the length to this power; 0: by nothing, which favours empty "
           "sentences"),
    SWITCH("greedy", generate.greedy, "false", GENERATES,
           "always take the likeliest token; reconstruct, interpolate and decode do so unless temperature, top_p, "
           "top_k or greedy=false is given"),
    SWITCH("allow_unknown", generate.allow_unknown, "false", GENERATES, "let the unknown mark be written"),
    SWITCH("posterior_mean", generate.posterior_mean, "true", READS_TEXT, "encode to mu; false: to a sample of z"),
    CHOICE("format", generate.format, "npy", COMMAND_ENCODE, "of the latents", "npy", "jsonl"),
    SWITCH("decode", decode, "false", COMMAND_TOKENIZE, "from ids to text"),
    SWITCH("graph", graph, "false", COMMAND_INFO, "the recorded ops with their bytes and FLOPs"),
    SIZE("n", launch.n, "0", 0, 4096, "ranks", COMMAND_LAUNCH,
         "started on this host, also as -n N; 0: the command is started once, as it is, and starts its ranks itself"),
    SIZE("max-restarts", launch.max_restarts, "0", 0, 1000000, "", COMMAND_LAUNCH,
         "starts again after a rank was killed or its device failed; training goes on from its last checkpoint"),
    NUMBER("hang-timeout", launch.hang_timeout, "0", 0, 1e6, "seconds", COMMAND_LAUNCH,
           "without a step until a rank counts as hung; longer than the start, an evaluation and a save; 0: never"),
    NUMBER("grace", launch.grace, "1.5", 0, 1e6, "seconds", COMMAND_LAUNCH,
           "between SIGTERM and SIGKILL for the ranks that are left when one has failed"),
    NUMBER("pause", launch.pause, "1", 0, 30, "seconds", COMMAND_LAUNCH,
           "before the first restart; doubles with each, up to 30"),
};

static const struct option_command commands[] = {
    {"prepare", COMMAND_PREPARE},
    {"init", COMMAND_INIT},
    {"train", COMMAND_TRAIN},
    {"eval", COMMAND_EVAL},
    {"sample", COMMAND_SAMPLE},
    {"reconstruct", COMMAND_RECONSTRUCT},
    {"interpolate", COMMAND_INTERPOLATE},
    {"encode", COMMAND_ENCODE},
    {"decode", COMMAND_DECODE},
    {"tokenize", COMMAND_TOKENIZE},
    {"plan", COMMAND_PLAN},
    {"info", COMMAND_INFO},
    {"bench", COMMAND_BENCH},
    {"launch", COMMAND_LAUNCH},
};

const struct option_table *elbo_config_table(void)
{
    static const struct option_table table = {rows,           sizeof rows / sizeof *rows,
                                              commands,       sizeof commands / sizeof *commands,
                                              config_aliases, sizeof config_aliases / sizeof *config_aliases};
    return &table;
}

/* ---- rules between options ---- */

static elbo_status check_stack(const char *name, const struct stack_config *stack, elbo_error *error)
{
    if (stack->width % stack->heads)
        return elbo_fail(
            error, ELBO_USAGE,
            "%s.heads = %zu does not divide %s.width = %zu; choose a width that is a multiple of the heads", name,
            stack->heads, name, stack->width);
    if (stack->kv_heads && stack->heads % stack->kv_heads)
        return elbo_fail(error, ELBO_USAGE,
                         "%s.kv_heads = %zu does not divide %s.heads = %zu; choose a divisor, or 0 for as many", name,
                         stack->kv_heads, name, stack->heads);
    size_t head_width = stack->width / stack->heads;
    if (stack->positions == POSITION_ROTARY && head_width % 2)
        return elbo_fail(error, ELBO_USAGE,
                         "%s.positions = rotary turns pairs, but %s.width / %s.heads = %zu is odd; choose an even head "
                         "width, or positions learned",
                         name, name, name, head_width);
    return ELBO_OK;
}

elbo_status elbo_config_check(const struct elbo_config *config, elbo_error *error)
{
    const struct model_config *model = &config->model;
    bool latent = model->latent.kind != LATENT_NONE;
    ELBO_TRY(check_stack("decoder", &model->decoder, error));
    if (latent) {
        ELBO_TRY(check_stack("encoder", &model->encoder, error));
        if (model->share_embedding && model->encoder.width != model->decoder.width)
            return elbo_fail(error, ELBO_USAGE,
                             "encoder.share_embedding needs equal widths, but encoder.width = %zu and decoder.width = "
                             "%zu; make them equal or set encoder.share_embedding=false",
                             model->encoder.width, model->decoder.width);
        const struct objective_config *objective = &config->objective;
        if (objective->free_bits_kind == FREE_BITS_GROUP && model->latent.width % objective->free_bits_groups)
            return elbo_fail(error, ELBO_USAGE,
                             "objective.free_bits_groups = %zu does not divide latent.width = %zu; choose a divisor",
                             objective->free_bits_groups, model->latent.width);
    }
    if (config->train.slot_tokens < config->data.max_length + 2)
        return elbo_fail(error, ELBO_USAGE,
                         "train.slot_tokens = %zu cannot hold a sentence of data.max_length = %zu tokens and its two "
                         "marks; set train.slot_tokens to at least %zu, or data.max_length to at most %zu",
                         config->train.slot_tokens, config->data.max_length, config->data.max_length + 2,
                         config->train.slot_tokens - 2);
    if (config->parallel.lanes > config->train.slots)
        return elbo_fail(
            error, ELBO_USAGE,
            "parallel.lanes = %zu exceeds train.slots = %zu, and a lane needs a slot; lower the one or raise "
            "the other",
            config->parallel.lanes, config->train.slots);
    if (config->train.skip > config->train.steps)
        return elbo_fail(error, ELBO_USAGE, "train.skip = %zu is beyond train.steps = %zu; steps count from 1",
                         config->train.skip, config->train.steps);
    return ELBO_OK;
}
