/* The single list of commands, in the order of --help. The enumeration, the command line's table, the prototypes of
 * src/cli/ and the names in messages are generated from it. */
#ifndef BASE_COMMANDS_H
#define BASE_COMMANDS_H

/* X(NAME, name, "name", the word to type, its arguments as --help shows them, help in one line, whether it takes
 * options, fewest and most arguments, whether an argument is a configuration that is read before the overrides, an
 * example) */
#define ELBO_COMMANDS(X)                                                                                               \
    X(PREPARE, prepare, "prepare", "TEXT [TEXT ...]",                                                                  \
      "make a corpus from text with one sentence a line (- is standard input)", true, 1, 1u << 20, false,              \
      "elbo prepare a.txt --out=corpus --tokenizer.size=8000 --split=95/2.5/2.5")                                      \
    X(INIT, init, "init", "[CONFIG.yaml]",                                                                             \
      "write the default configuration with comments, to a file or standard output", true, 0, 1, false,                \
      "elbo init config.yaml")                                                                                         \
    X(TRAIN, train, "train", "[CONFIG.yaml]", "train a text VAE, or resume a run", true, 0, 1, true,                   \
      "elbo train --data.train=corpus/train --data.valid=corpus/valid --run.dir=runs/a")                               \
    X(EVAL, eval, "eval", "RUN", "measure a model on a corpus", true, 1, 1, false,                                     \
      "elbo eval runs/a --data.test=corpus/test --eval.iwae_samples=100 --json")                                       \
    X(FIT_PRIOR, fit_prior, "fit-prior", "RUN", "fit a prior to a trained model's latents, for sample and eval", true, \
      1, 1, false, "elbo fit-prior runs/a --prior.kind=mixture --prior.components=20")                                 \
    X(SAMPLE, sample, "sample", "RUN", "write new sentences", true, 1, 1, false,                                       \
      "elbo sample runs/a --count=5 --seed=1")                                                                         \
    X(RECONSTRUCT, reconstruct, "reconstruct", "RUN", "encode sentences of standard input and write them back", true,  \
      1, 1, false, "elbo reconstruct runs/a < sentences.txt")                                                          \
    X(INTERPOLATE, interpolate, "interpolate", "RUN",                                                                  \
      "write the sentences on the line between the latents of two sentences", true, 1, 1, false,                       \
      "elbo interpolate runs/a --from=\"...\" --to=\"...\" --steps=7")                                                 \
    X(ENCODE, encode, "encode", "RUN", "turn sentences of standard input into latents", true, 1, 1, false,             \
      "elbo encode runs/a --format=npy --out=z.npy < sentences.txt")                                                   \
    X(DECODE, decode, "decode", "RUN", "turn latents of standard input (JSON lines or a .npy) into sentences", true,   \
      1, 1, false, "elbo decode runs/a < z.npy")                                                                       \
    X(EXPORT, export, "export", "RUN", "write a model in a format of other programs", true, 1, 1, false,               \
      "elbo export runs/a --format=hf --out=a-hf")                                                                     \
    X(PLAN, plan, "plan", "[CONFIG.yaml]", "estimate the memory and the computation of a run", true, 0, 1, true,       \
      "elbo plan config.yaml --json")                                                                                  \
    X(BENCH, bench, "bench", "step|kernels|collectives",                                                               \
      "time training steps, kernels beside the device's limits, or exchanges between ranks", true, 1, 1, false,        \
      "elbo bench step --data.train=corpus/train --encoder.width=512 --json")                                          \
    X(DEVICES, devices, "devices", "", "list the devices that --device can name on this machine", true, 0, 0, false,   \
      "elbo devices --json")                                                                                           \
    X(LAUNCH, launch, "launch", "[-n N] [--max-restarts=K ...] -- COMMAND ...",                                        \
      "start N ranks of a command on this host's GPUs, watch them, and restart them", true, 0, 1u << 20, false,        \
      "elbo launch -n 4 --max-restarts=3 -- train config.yaml --run.dir=runs/a")                                       \
    X(TOKENIZE, tokenize, "tokenize", "CORPUS|RUN",                                                                    \
      "turn lines of standard input into token ids, or back with --decode", true, 1, 1, false,                         \
      "elbo tokenize corpus < text.txt")                                                                               \
    X(DUMP, dump, "dump", "CORPUS", "write a corpus's sentences as text", false, 1, 1, false, "elbo dump corpus/test") \
    X(INFO, info, "info", "CORPUS|RUN", "describe a corpus or a run", true, 1, 1, false,                               \
      "elbo info corpus/train --json")                                                                                 \
    X(HELP, help, "help", "[COMMAND]", "explain a command; --reference prints every option as Markdown", false, 0, 1,  \
      false, "elbo help prepare")                                                                                      \
    X(COMPLETION, completion, "completion", "bash", "print a completion script for a shell", false, 1, 1, false,       \
      "source <(elbo completion bash)")

/* One bit per command, for masks of the commands that take an option. */
#define COMMAND_NUMBER(bit, ...) COMMAND_NUMBER_##bit,
#define COMMAND_BIT(bit, ...)    COMMAND_##bit = 1 << COMMAND_NUMBER_##bit,
enum command_number { ELBO_COMMANDS(COMMAND_NUMBER) COMMANDS };
enum command { ELBO_COMMANDS(COMMAND_BIT) };
#undef COMMAND_NUMBER
#undef COMMAND_BIT

enum {
    TAKEN_BY_TRAINING = COMMAND_TRAIN | COMMAND_PLAN | COMMAND_INIT | COMMAND_BENCH,
    TAKEN_WITH_TEXT = COMMAND_RECONSTRUCT | COMMAND_INTERPOLATE | COMMAND_ENCODE,
    TAKEN_BY_WRITING = COMMAND_SAMPLE | COMMAND_RECONSTRUCT | COMMAND_INTERPOLATE | COMMAND_DECODE,
    TAKEN_BY_RANKS = COMMAND_TRAIN | COMMAND_INIT,
    TAKEN_WITH_RUNS = COMMAND_EVAL | COMMAND_FIT_PRIOR | TAKEN_BY_WRITING | TAKEN_WITH_TEXT,
    TAKEN_BY_ALL = COMMAND_PREPARE | COMMAND_EXPORT | TAKEN_BY_TRAINING | TAKEN_WITH_RUNS | COMMAND_TOKENIZE |
                   COMMAND_INFO | COMMAND_DEVICES,
};

#endif
