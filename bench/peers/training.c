/* elbo's side of bench/peers/training: runs one whole training step per request, on batches that both sides read.
 *
 *     training BATCHES WIDTH LAYERS HEADS VOCABULARY THREADS WEIGHTS RECOMPUTE MOMENTS [KIND]
 *
 * BATCHES holds u32 numbers: the number of batches; for each its number of sentences; for each sentence its length and
 * its ids, without marks (0 start, 1 end, 2 unknown). A batch is one slot. The initial weights are written to WEIGHTS
 * (safetensors). The first output line is the anonymous memory at the start of main, in bytes. The second is the number
 * of parameters and the measured peak of f32 multiply-adds in GFLOP/s. Then each input line is the number of a batch;
 * the answer is the seconds and the loss of a step on it. RECOMPUTE: none, cheap or block (train.recompute); MOMENTS:
 * f32 or bf16 (optimizer.moments). KIND: transformer, with one token table; or lstm, with two token tables and untied
 * output weights, where z gives the first state and is beside every input, and the encoder pools its last state. */
#include "elbo/tokenizer.h"
#include "formats/safetensors.h"
#include "device/backends.h"
#include "step/step.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static elbo_error error;

static void must(elbo_status status)
{
    if (!status) return;
    fprintf(stderr, "%s\n", error.message);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t anonymous_memory(void)
{
    char line[128];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %zu kB", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

struct batch {
    size_t sentences, tokens; /* decoder tokens: words and one mark per sentence */
    const uint32_t **text;    /* (sentences) */
    size_t *lengths;          /* (sentences) */
};

struct batches {
    size_t count, most_sentences, most_tokens, longest;
    struct batch *batch;
};

static uint32_t *read_numbers(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) perror(path), exit(1);
    long bytes = ftell(f);
    uint32_t *numbers = malloc((size_t)bytes);
    rewind(f);
    if (!numbers || fread(numbers, 1, (size_t)bytes, f) != (size_t)bytes) perror(path), exit(1);
    fclose(f);
    return numbers;
}

static struct batches read_batches(const char *path)
{
    const uint32_t *at = read_numbers(path);
    struct batches all = {.count = *at++};
    all.batch = calloc(all.count, sizeof *all.batch);
    for (struct batch *b = all.batch; b < all.batch + all.count; b++) {
        b->sentences = *at++;
        b->text = calloc(b->sentences, sizeof *b->text);
        b->lengths = calloc(b->sentences, sizeof *b->lengths);
        for (size_t s = 0; s < b->sentences; s++) {
            b->lengths[s] = *at++;
            b->text[s] = at;
            b->tokens += b->lengths[s] + 1;
            at += b->lengths[s];
            if (b->lengths[s] > all.longest) all.longest = b->lengths[s];
        }
        if (b->sentences > all.most_sentences) all.most_sentences = b->sentences;
        if (b->tokens > all.most_tokens) all.most_tokens = b->tokens;
    }
    return all;
}

static void write_weights(const struct model *m, const char *path)
{
    size_t count = parameters_count(m->parameters);
    struct safetensors_tensor *tensors = calloc(count, sizeof *tensors);
    for (size_t i = 0; i < count; i++) {
        const struct parameter *p = parameters_get(m->parameters, i);
        tensors[i] = (struct safetensors_tensor){
            .name = p->name, .dtype = SAFETENSORS_F32, .rank = p->rank, .data = m->weights + p->offset};
        memcpy(tensors[i].shape, p->shape, p->rank * sizeof *p->shape);
    }
    struct sink_fd file = {open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), path};
    struct sink sink = sink_to_fd(&file);
    must(safetensors_write(&sink, tensors, count, NULL, 0, &error));
    close(file.fd);
    free(tensors);
}

int main(int count, char **arguments)
{
    if (count != 10 && count != 11) return fprintf(stderr, "see the head of bench/peers/training.c\n"), 2;
    printf("%zu\n", anonymous_memory());
    size_t size[5];
    for (size_t i = 0; i < 5; i++) size[i] = strtoul(arguments[2 + i], NULL, 10);
    struct batches all = read_batches(arguments[1]);
    struct stack_config stack = {.width = size[0], .layers = size[1], .heads = size[2], .pooling = POOLING_MEAN};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .latent = {.width = 32, .memory = 1, .sample = true},
                                  .share_embedding = true,
                                  .tie_output = true,
                                  .vocabulary = size[3],
                                  .positions = all.longest + 2};
    if (count == 11 && !strcmp(arguments[10], "lstm")) {
        config.encoder.kind = config.decoder.kind = STACK_LSTM;
        config.encoder.pooling = POOLING_LAST;
        config.share_embedding = config.tie_output = false;
    }
    struct optimizer_config how = {.kind = OPTIMIZER_ADAMW,
                                   .learning_rate = 1e-4,
                                   .schedule = SCHEDULE_CONSTANT,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .epsilon = 1e-8,
                                   .weight_decay = 0.01,
                                   .clip = 1,
                                   .encoder_factor = 1,
                                   .latent_factor = 1,
                                   .decoder_factor = 1,
                                   .moments = !strcmp(arguments[9], "bf16") ? MOMENTS_BF16 : MOMENTS_F32};
    struct slot_options options = {.encoder_tokens = all.most_tokens + all.most_sentences,
                                   .decoder_tokens = all.most_tokens,
                                   .sentences = all.most_sentences};
    struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    const struct objective_config objective = {.beta_schedule = BETA_CONSTANT, .beta = 0.5, .lambda = 1};
    struct step_options options_of_step = {.model = config,
                                           .objective = objective,
                                           .optimizer = how,
                                           .slots = options,
                                           .recompute = !strcmp(arguments[8], "cheap")   ? RECOMPUTE_CHEAP_OPS
                                                        : !strcmp(arguments[8], "block") ? RECOMPUTE_BLOCKS
                                                                                         : KEEP_ALL,
                                           .seed = 1};
    struct backend *backend;
    struct step step;
    struct slot slot;
    must(cpu_backend_create(&backend, size[4], NULL, &error));
    must(step_create(&step, &options_of_step, backend, &error));
    must(model_initialize(&step.model, 1, &error));
    must(slot_allocate(&slot, &options, &error));
    write_weights(&step.model, arguments[7]);
    printf("%zu %.4g\n", parameters_total(step.parameters), backend->device.peak_flops(backend, DTYPE_F32) / 1e9);
    fflush(stdout);

    char line[32];
    float *read = malloc(step_read_floats(&step) * sizeof *read);
    for (uint64_t number = 1; read && fgets(line, sizeof line, stdin); number++) {
        const struct batch *b = &all.batch[strtoul(line, NULL, 10) % all.count];
        struct step_schedule schedule;
        struct step_figures figures;
        double began = now();
        must(slot_fill(&slot, &options, &marks, b->text, b->lengths, b->sentences, number * b->sentences, &error));
        struct slot_batch batch = {.step = number, .sentences = b->sentences, .count = 1, .slots = &slot};
        must(step_run(&step, &schedule, &batch, false, &error));
        must(step_update(&step, &schedule, number, false, &error));
        step_read_later(&step, read);
        step_figures(&step, &figures, &schedule, read, true);
        printf("%.9f %.9g\n", now() - began, figures.loss);
        fflush(stdout);
    }
    free(read);
    slot_free(&slot);
    step_free(&step);
    backend->destroy(backend);
    return 0;
}
