/* Prepares a text, trains a small VAE on it for 50 steps and writes three sentences from the prior.
 *
 *     cc train.c $(pkg-config --cflags --libs elbo) -o train && ./train sentences.txt FOLDER */
#include <elbo/corpus.h>
#include <elbo/run.h>

#include <stdio.h>
#include <stdlib.h>

enum { SENTENCES = 3 };

static void say(void *context, const char *line)
{
    (void)context;
    puts(line);
}

/* Rows of independent N(0, 1) numbers: the sum of twelve uniform ones less 6. */
static void draw(float *z, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        z[i] = -6;
        for (int k = 0; k < 12; k++) z[i] += (float)rand() / (float)RAND_MAX;
    }
}

static elbo_status train(const char *text, const char *folder, elbo_error *error)
{
    char corpus[512], data[600], run[512], dir[600];
    struct elbo_prepare_report report;
    snprintf(corpus, sizeof corpus, "%s/corpus", folder);
    snprintf(run, sizeof run, "%s/run", folder);
    snprintf(data, sizeof data, "--data.train=%s", corpus);
    snprintf(dir, sizeof dir, "--run.dir=%s", run);
    struct elbo_prepare_options prepare = {.inputs = &text,
                                           .input_count = 1,
                                           .out = corpus,
                                           .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                           .tokenizer_size = 4096};
    ELBO_TRY(elbo_prepare(&prepare, &report, NULL, NULL, error));
    printf("%zu sentences, %zu words in the vocabulary\n", report.parts[0].sentences, report.vocabulary);

    const char *options[] = {data,
                             dir,
                             "--encoder.width=32",
                             "--decoder.width=32",
                             "--encoder.layers=1",
                             "--decoder.layers=1",
                             "--encoder.heads=2",
                             "--decoder.heads=2",
                             "--latent.width=8",
                             "--train.steps=50",
                             "--log.every=25"};
    ELBO_TRY(elbo_train(NULL, options, sizeof options / sizeof *options, say, NULL, error));

    elbo_run *model;
    ELBO_TRY(elbo_run_open(&model, run, 0, error));
    size_t width = elbo_run_latent_width(model);
    float *z = malloc(SENTENCES * width * sizeof *z);
    struct elbo_text written[SENTENCES] = {{0}};
    draw(z, SENTENCES * width);
    elbo_status status = elbo_run_decode(model, written, z, SENTENCES,
                                         &(struct elbo_decode_options){.temperature = 0.8, .top_p = 0.9}, error);
    for (int i = 0; i < SENTENCES; i++) {
        if (!status) printf("%d  %s\n", i + 1, written[i].text);
        elbo_text_free(&written[i]);
    }
    free(z);
    elbo_run_close(model);
    return status;
}

int main(int argc, char **argv)
{
    elbo_error error;
    if (argc != 3) return fprintf(stderr, "usage: train SENTENCES.txt FOLDER\n"), 2;
    elbo_status status = train(argv[1], argv[2], &error);
    if (status) fprintf(stderr, "train: %s\n", error.message);
    return (int)status;
}
