/* Updates of the optimizer as a run makes them, for test_optimizer_torch.py to compare with torch.optim.AdamW:
 *
 *     step_dump_optimizer OUT BETA1 BETA2 EPSILON UPDATES [ISA]
 *
 * ISA: generic, avx2 or avx512; by default the best of the processor. OUT: the gradients of all updates, (UPDATES, N),
 * then the weights after each update, (UPDATES, N), f32. Weights begin at zero, so that an f32 holds their movement to
 * its last bits. */
#include "base/files.h"
#include "base/philox.h"
#include "device/backends.h"
#include "step/optimizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 4096 };

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if (call) {                                                                                                    \
            fprintf(stderr, "%s\n", error.message);                                                                    \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Draws normal gradients, times a fixed size for each element from 1e-4 to 1. */
static void draw(float *gradient, size_t update)
{
    struct noise_key key = noise_key(7, noise_purpose("gradient"), update),
                     sizes = noise_key(7, noise_purpose("size"), 0);
    for (size_t i = 0; i < N; i += 4) {
        float four[4];
        noise_normal4(four, noise_block(key, 0, 0, (uint32_t)(i / 4)));
        for (size_t k = 0; k < 4; k++)
            gradient[i + k] = four[k] * (float)pow(10, -4 * noise_uniform(noise_bits(sizes, 0, 0, i + k)));
    }
}

int main(int argc, char **argv)
{
    elbo_error error;
    if (argc < 6) return 2;
    struct optimizer_config config = {.kind = OPTIMIZER_ADAMW,
                                      .learning_rate = 0.01,
                                      .beta1 = strtod(argv[2], NULL),
                                      .beta2 = strtod(argv[3], NULL),
                                      .epsilon = strtod(argv[4], NULL),
                                      .encoder_factor = 1,
                                      .latent_factor = 1,
                                      .decoder_factor = 1};
    size_t updates = strtoull(argv[5], NULL, 10), index;
    struct parameter one = {.name = "w", .rank = 1, .shape = {N}, .part = PART_DECODER};
    struct parameters *parameters;
    struct backend *backend;
    struct optimizer optimizer;
    struct file_writer out;
    char device[32];
    snprintf(device, sizeof device, argc > 6 ? "cpu:%s" : "cpu", argc > 6 ? argv[6] : "");
    MUST(parameters_create(&parameters, &error));
    MUST(parameters_declare(parameters, &index, &one, &error));
    MUST(parameters_layout(parameters, NULL, &error));
    MUST(backend_open(&backend, device, 1, &error));
    float *weights = calloc(parameters_arena_elements(parameters), sizeof *weights),
          *after = calloc(updates * N, sizeof *after);
    float loss[ELBO_PARTS] = {0};
    if (!weights || !after) return 1;
    MUST(optimizer_create(&optimizer, &config, parameters, (struct weight_arenas){.master = weights}, NULL, backend,
                          &error));
    optimizer_watch(&optimizer, loss);
    MUST(file_replace(&out, argv[1], &error));
    for (size_t i = 0; i < updates; i++) {
        struct update u = {.learning_rate = {0.01, 0.01}, .number = {{i, i, i}, {i, i, i}}, .step = i + 1};
        draw(optimizer.gradients, i);
        MUST(file_append(&out, optimizer.gradients, N * sizeof(float), &error));
        MUST(optimizer_update(&optimizer, &u, &error));
        memcpy(after + i * N, weights, N * sizeof *after);
    }
    MUST(file_append(&out, after, updates * N * sizeof *after, &error));
    MUST(file_commit(&out, &error));
    optimizer_free(&optimizer);
    backend->destroy(backend);
    parameters_free(parameters);
    free(weights);
    free(after);
    return 0;
}
