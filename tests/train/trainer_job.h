/* A trainer for C tests: a corpus of a few made-up sentences, a tiny model with every kind of noise, and a
 * configuration that is filled as the command line fills it. Include after cmocka.h. */
#ifndef TESTS_TRAIN_TRAINER_JOB_H
#define TESTS_TRAIN_TRAINER_JOB_H

#include "elbo/corpus.h"
#include "temporary.h"
#include "train/trainer_private.h"

struct job {
    struct elbo_config config;
    struct options *options;
    struct trainer *trainer;
    elbo_error error;
    char said[8192]; /* every line that the trainer printed */
};

static inline void job_line(void *context, const char *text)
{
    struct job *job = context;
    size_t used = strlen(job->said);
    snprintf(job->said + used, sizeof job->said - used, "%s\n", text);
}

/* Makes folder/text and folder/corpus: sentences of 1 to `longest` words out of 60. */
static inline void job_corpus(const struct temporary *folder, size_t sentences, unsigned longest)
{
    char text[512], out[512];
    FILE *file = fopen(temporary_path(text, folder, "text"), "w");
    unsigned random = 7;
    for (size_t i = 0; i < sentences; i++) {
        unsigned words = 1 + ((random = random * 1664525u + 1013904223u) >> 20) % longest;
        for (unsigned w = 0; w < words; w++)
            fprintf(file, "w%u ", ((random = random * 1664525u + 1013904223u) >> 20) % 60);
        fputc('\n', file);
    }
    fclose(file);
    const char *input = text;
    struct elbo_prepare_options options = {.inputs = &input,
                                           .input_count = 1,
                                           .out = temporary_path(out, folder, "corpus"),
                                           .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                           .tokenizer_size = 1000};
    struct elbo_prepare_report report;
    elbo_error error = {0};
    if (elbo_prepare(&options, &report, NULL, NULL, &error)) fail_msg("%s", error.message);
}

/* Opens a trainer on folder/corpus in folder/<run>, with more arguments "--key=value" up to a null. */
static inline void job_open(struct job *job, const struct temporary *folder, const char *run,
                            const char *const *arguments)
{
    static const char *const usual[] = {"--encoder.width=8",
                                        "--decoder.width=8",
                                        "--encoder.heads=2",
                                        "--decoder.heads=2",
                                        "--encoder.layers=1",
                                        "--decoder.layers=1",
                                        "--encoder.ff_width=16",
                                        "--decoder.ff_width=16",
                                        "--encoder.dropout=0.1",
                                        "--decoder.dropout=0.1",
                                        "--latent.width=3",
                                        "--train.slots=3",
                                        "--train.slot_tokens=24",
                                        "--data.max_length=9",
                                        "--train.steps=8",
                                        "--log.every=1",
                                        "--train.eval_every=0",
                                        "--checkpoint.every=0",
                                        "--optimizer.warmup_steps=4",
                                        "--threads=2",
                                        NULL};
    char train[600], out[600];
    snprintf(train, sizeof train, "--data.train=%s/corpus", folder->path);
    snprintf(out, sizeof out, "--run.dir=%s/%s", folder->path, run);
    *job = (struct job){.trainer = NULL};
    elbo_error *error = &job->error;
    const char *const own[] = {train, out, NULL}, *const * lists[] = {usual, own, arguments};
    if (options_open(&job->options, elbo_config_table(), &job->config, error)) fail_msg("%s", error->message);
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
        for (const char *const *a = lists[l]; a && *a; a++)
            if (options_read_argument(job->options, *a, COMMAND_TRAIN, error)) fail_msg("%s", error->message);
    struct train_report report = {job_line, job_line, job};
    if (trainer_open(&job->trainer, &job->config, job->options, &report, error)) fail_msg("%s", error->message);
}

static inline void job_close(struct job *job)
{
    trainer_close(job->trainer);
    options_free(job->options);
}

#endif
