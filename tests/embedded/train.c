/* Trains a VAE with the core library alone, from arrays of token ids: no files, no text, and no library but libc, libm
 * and threads. The loss must fall, and a search from the encoded means must give back the sentences.
 *
 * This is also the shortest program that shows how the modules fit together: create a step, initialize, then fill
 * slots, run, update. */
#include "base/philox.h"
#include "device/backends.h"
#include "model/generate.h"
#include "step/step.h"
#include "text/slots.h"

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
    struct step step;
    struct elbo_marks marks = {.start = 0, .end = 1, .unknown = 2};
    struct stack_config stack = {.width = 32, .layers = 1, .heads = 2, .pooling = POOLING_MEAN};
    struct model_config config = {.encoder = stack,
                                  .decoder = stack,
                                  .latent = {.width = 8, .memory = 1, .sample = true},
                                  .share_embedding = true,
                                  .tie_output = true,
                                  .vocabulary = WORDS + MARKS,
                                  .positions = LONGEST + 2};
    struct optimizer_config how = {.kind = OPTIMIZER_ADAMW,
                                   .learning_rate = 5e-3,
                                   .schedule = SCHEDULE_CONSTANT,
                                   .beta1 = 0.9,
                                   .beta2 = 0.99,
                                   .epsilon = 1e-8,
                                   .clip = 1,
                                   .encoder_factor = 1,
                                   .latent_factor = 1,
                                   .decoder_factor = 1};
    struct slot_options slots = {
        .encoder_tokens = 256, .decoder_tokens = 256, .sentences = SENTENCES, .max_length = LONGEST};

    /* Makes sentences of 1 to LONGEST words. */
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
    struct step_options options = {.model = config,
                                   .objective = {.beta_schedule = BETA_CONSTANT, .beta = 0.05, .lambda = 1},
                                   .optimizer = how,
                                   .slots = slots,
                                   .seed = 1,
                                   .steps = STEPS};
    MUST(step_create(&step, &options, backend, &error));
    MUST(model_initialize(&step.model, 1, &error));

    struct slot slot;
    double first = 0, last = 0;
    MUST(slot_allocate(&slot, &slots, &error));
    float *read = malloc(step_read_floats(&step) * sizeof *read);
    for (uint64_t number = 1; read && number <= STEPS; number++) {
        struct slot_batch batch = {.step = number, .sentences = SENTENCES, .count = 1, .slots = &slot};
        struct step_schedule schedule;
        struct step_figures figures;
        MUST(slot_fill(&slot, &slots, &marks, text, lengths, SENTENCES, number * SENTENCES, &error));
        MUST(step_run(&step, &schedule, &batch, false, &error));
        MUST(step_update(&step, &schedule, number, false, &error));
        step_read_later(&step, read);
        step_figures(&step, &figures, &schedule, read, true);
        last = figures.loss;
        if (number == 1) first = last;
    }
    free(read);
    printf("loss %.4f, after %d steps %.4f\n", first, STEPS, last);

    /* Encodes every sentence to its mean and decodes the mean by a beam search. */
    float stats[SENTENCES * 16], z[SENTENCES * 8];
    struct elbo_ids source[SENTENCES], written[SENTENCES] = {{0}};
    for (size_t i = 0; i < SENTENCES; i++) source[i] = (struct elbo_ids){.ids = tokens[i], .count = lengths[i]};
    MUST(encode_sentences(&step.model, stats, source, SENTENCES, &slots, &marks, &error));
    for (size_t i = 0; i < SENTENCES; i++) memcpy(z + i * 8, stats + i * 16, 8 * sizeof *z);
    struct generate_options search = {.max_length = LONGEST, .beam = 3};
    MUST(generate(&step.model, written, z, SENTENCES, &search, &marks, &error));
    size_t right = 0;
    for (size_t i = 0; i < SENTENCES; i++) {
        right += written[i].count == lengths[i] && !memcmp(written[i].ids, tokens[i], lengths[i] * sizeof *tokens[i]);
        free(written[i].ids);
    }
    printf("%zu of %d sentences come back\n", right, SENTENCES);

    slot_free(&slot);
    step_free(&step);
    backend->destroy(backend);
    return isfinite(last) && last < 0.2 * first && right >= LEAST_RIGHT ? 0 : 1;
}
