/* A VAE trained by the core library alone, from arrays of token ids: no files, no text, no library but libc, libm and
 * threads. The loss must fall, and what is then encoded and searched for must be the sentences themselves.
 *
 * Also the shortest program that shows how the rooms fit together: record, initialize, then per step fill slots, run,
 * update. */
#include "base/philox.h"
#include "device/backends.h"
#include "model/generate.h"
#include "model/model.h"
#include "text/slots.h"
#include "step/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 20, MARKS = 3, SENTENCES = 24, LONGEST = 5, STEPS = 300, LEAST_RIGHT = 20 };

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if (call) {                                                                                                    \
            fprintf(stderr, "%s: %s\n", #call, error.message);                                                         \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

int main(void)
{
    elbo_error error = {0};
    struct backend *backend;
    struct model model;
    struct optimizer optimizer;
    struct recording train;
    struct text_marks marks = {.start = 0, .end = 1, .unknown = 2};
    struct stack_config stack = {.width = 32, .layers = 1, .heads = 2, .pooling = POOLING_MEAN};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .latent = {.width = 8, .memory = 1, .sample = true},
                                  .share_embedding = true,
                                  .tie_output = true,
                                  .vocabulary = WORDS + MARKS,
                                  .positions = LONGEST + 2};
    struct optimizer_config how = {.kind = OPTIMIZER_ADAMW,
                                   .beta1 = 0.9,
                                   .beta2 = 0.99,
                                   .epsilon = 1e-8,
                                   .clip = 1,
                                   .encoder_factor = 1,
                                   .latent_factor = 1,
                                   .decoder_factor = 1};
    struct slot_options slots = {
        .encoder_tokens = 256, .decoder_tokens = 256, .sentences = SENTENCES, .max_length = LONGEST};

    /* sentences of 1 to LONGEST words */
    uint32_t tokens[SENTENCES][LONGEST];
    const uint32_t *text[SENTENCES];
    size_t lengths[SENTENCES];
    uint64_t random = 1;
    for (size_t i = 0; i < SENTENCES; i++) {
        text[i] = tokens[i];
        lengths[i] = 1 + (random = mix64(random)) % LONGEST;
        for (size_t j = 0; j < lengths[i]; j++) tokens[i][j] = MARKS + (uint32_t)((random = mix64(random)) % WORDS);
    }

    MUST(cpu_backend_create(&backend, 2, NULL, &error));
    MUST(model_create(&model, &config, backend, &error));
    MUST(optimizer_create(&optimizer, &how, model.parameters, model_weights(&model), NULL, backend, &error));
    struct graph_capacities capacities = {
        {[DIM_ENC_TOKENS] = 256, [DIM_DEC_TOKENS] = 256, [DIM_SENTENCES] = SENTENCES, [DIM_DRAWS] = SENTENCES}};
    struct train_recording options = {.wanted = optimizer_wanted(&how)};
    MUST(record_train(&train, &config, model.parameters, &capacities, &options, &error));
    MUST(model_bind(&model, (struct recording *[]){&train}, 1, optimizer.gradients, &error));
    optimizer_watch(&optimizer, executor_pointer(&train.executor, train.sum_loss));
    recording_bind_input(&train, "control", optimizer.control);
    MUST(model_initialize(&model, 1, &error));

    struct slot slot;
    double first = 0, last = 0;
    MUST(slot_allocate(&slot, &slots, &error));
    for (uint64_t step = 1; step <= STEPS; step++) {
        float weights[2][ELBO_WEIGHTS], parts[ELBO_PARTS];
        for (size_t k = 0; k < 2; k++) {
            weights[k][ELBO_WEIGHT_NLL] = 1.0f / SENTENCES;
            weights[k][ELBO_WEIGHT_KL] = 0.05f / SENTENCES;
        }
        recording_bind_input(&train, "weights", weights);
        MUST(slot_fill(&slot, &slots, &marks, text, lengths, SENTENCES, step * SENTENCES, &error));
        struct execution run = {.first_slot = true, .seed = 1, .step = step};
        recording_bind_slot(&train, &slot, &run);
        MUST(executor_run(&train.executor, &run, &error));
        struct update update = {.learning_rate = {5e-3, 5e-3}, .number = {step, step}, .seed = 1, .step = step};
        MUST(optimizer_update(&optimizer, &update, &error));
        recording_read(&train, train.sum_loss, parts, run.count);
        last = (double)parts[ELBO_LOSS];
        if (step == 1) first = last;
    }
    printf("loss %.4f, after %d steps %.4f\n", first, STEPS, last);

    /* every sentence to its mean, and back by a search */
    float stats[SENTENCES * 16], z[SENTENCES * 8];
    struct elbo_ids source[SENTENCES], written[SENTENCES] = {{0}};
    for (size_t i = 0; i < SENTENCES; i++) source[i] = (struct elbo_ids){.ids = tokens[i], .count = lengths[i]};
    MUST(encode_sentences(&model, stats, source, SENTENCES, &slots, &marks, &error));
    for (size_t i = 0; i < SENTENCES; i++) memcpy(z + i * 8, stats + i * 16, 8 * sizeof *z);
    struct generate_options search = {.max_length = LONGEST, .beam = 3};
    MUST(generate(&model, written, z, SENTENCES, &search, &marks, &error));
    size_t right = 0;
    for (size_t i = 0; i < SENTENCES; i++) {
        right += written[i].count == lengths[i] && !memcmp(written[i].ids, tokens[i], lengths[i] * sizeof *tokens[i]);
        free(written[i].ids);
    }
    printf("%zu of %d sentences come back\n", right, SENTENCES);

    slot_free(&slot);
    recording_free(&train, backend);
    optimizer_free(&optimizer);
    model_free(&model);
    backend->destroy(backend);
    return isfinite(last) && last < 0.2 * first && right >= LEAST_RIGHT ? 0 : 1;
}
