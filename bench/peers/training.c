/* elbo's side of bench/peers/training: whole training steps on batches that both sides read, one when asked.
 *
 *     training BATCHES WIDTH LAYERS HEADS VOCABULARY THREADS WEIGHTS RECOMPUTE MOMENTS
 *
 * BATCHES holds u32 numbers: how many batches; for each its number of sentences; for each of them its length and its
 * ids, without marks (0 start, 1 end, 2 unknown). A batch is one slot. The initial weights go to WEIGHTS (safetensors).
 * First two lines written: anonymous memory when main began, in bytes, and the number of parameters. Then every line
 * read is the number of a batch, and a step on it answers with its seconds and loss. RECOMPUTE: none, cheap or block
 * (train.recompute); MOMENTS: f32 or bf16 (optimizer.moments). */
#include "elbo/tokenizer.h"
#include "formats/safetensors.h"
#include "device/backends.h"
#include "model/model.h"
#include "step/optimizer.h"

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
    size_t sentences, tokens; /* of the decoder: words and one mark a sentence */
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
    if (count != 10) return fprintf(stderr, "see the head of bench/peers/training.c\n"), 2;
    printf("%zu\n", anonymous_memory());
    size_t number[5];
    for (size_t i = 0; i < 5; i++) number[i] = strtoul(arguments[2 + i], NULL, 10);
    struct batches all = read_batches(arguments[1]);
    struct stack_config stack = {.width = number[0], .layers = number[1], .heads = number[2], .pooling = POOLING_MEAN};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .latent = {.width = 32, .memory = 1, .sample = true},
                                  .share_embedding = true,
                                  .tie_output = true,
                                  .vocabulary = number[3],
                                  .positions = all.longest + 2};
    struct optimizer_config how = {.kind = OPTIMIZER_ADAMW,
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
    struct text_marks marks = {.start = 0, .end = 1, .unknown = 2};
    struct backend *backend;
    struct model model;
    struct optimizer optimizer;
    struct recording train;
    struct slot slot;
    must(cpu_backend_create(&backend, number[4], NULL, &error));
    must(model_create(&model, &config, backend, &error));
    must(optimizer_create(&optimizer, &how, model.parameters, model_weights(&model), NULL, backend, &error));
    struct graph_capacities capacities = {{[DIM_ENC_TOKENS] = options.encoder_tokens,
                                           [DIM_DEC_TOKENS] = options.decoder_tokens,
                                           [DIM_SENTENCES] = options.sentences,
                                           [DIM_DRAWS] = options.sentences}};
    struct train_recording recording = {.wanted = optimizer_wanted(&how),
                                        .recompute = !strcmp(arguments[8], "cheap")   ? RECOMPUTE_CHEAP_OPS
                                                     : !strcmp(arguments[8], "block") ? RECOMPUTE_BLOCKS
                                                                                      : KEEP_ALL};
    must(record_train(&train, &config, model.parameters, &capacities, &recording, &error));
    must(model_bind(&model, (struct recording *[]){&train}, 1, optimizer.gradients, &error));
    optimizer_watch(&optimizer, executor_pointer(&train.executor, train.sum_loss));
    recording_bind_input(&train, "control", optimizer.control);
    must(model_initialize(&model, 1, &error));
    must(slot_allocate(&slot, &options, &error));
    write_weights(&model, arguments[7]);
    printf("%zu\n", parameters_total(model.parameters));
    fflush(stdout);

    char line[32];
    for (uint64_t step = 1; fgets(line, sizeof line, stdin); step++) {
        const struct batch *b = &all.batch[strtoul(line, NULL, 10) % all.count];
        float weights[2][ELBO_WEIGHTS], parts[ELBO_PARTS];
        double began = now();
        for (size_t k = 0; k < 2; k++) {
            weights[k][ELBO_WEIGHT_NLL] = 1.0f / (float)b->sentences;
            weights[k][ELBO_WEIGHT_KL] = 0.5f / (float)b->sentences;
        }
        recording_bind_input(&train, "weights", weights);
        must(slot_fill(&slot, &options, &marks, b->text, b->lengths, b->sentences, step * b->sentences, &error));
        struct execution run = {.first_slot = true, .seed = 1, .step = step};
        recording_bind_slot(&train, &slot, &run);
        must(executor_run(&train.executor, &run, &error));
        struct update update = {.learning_rate = {1e-4, 1e-4}, .number = {step - 1, step - 1}, .seed = 1, .step = step};
        must(optimizer_update(&optimizer, &update, &error));
        recording_read(&train, train.sum_loss, parts, run.count);
        printf("%.9f %.9g\n", now() - began, (double)parts[ELBO_LOSS]);
        fflush(stdout);
    }
    slot_free(&slot);
    recording_free(&train, backend);
    optimizer_free(&optimizer);
    model_free(&model);
    backend->destroy(backend);
    return 0;
}
