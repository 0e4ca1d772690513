/* elbo's side of bench/peers/inference: runs a model's file with the library of elbo/infer.h. Reads commands from
 * standard input and answers each with its seconds:
 *
 *   write B T     B sentences of T tokens, the likeliest token at each step
 *   encode FILE   the sentences of a file, one a line
 *   read          reads 1 GiB with the same number of threads; answers with gigabytes per second
 *
 *     inference FILE THREADS */
#include "elbo/infer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(elbo_status status, const elbo_error *error)
{
    if (!status) return;
    fprintf(stderr, "inference: %s\n", error->message);
    exit(1);
}

/* ---- memory ---- */

enum { MOST_THREADS = 256 };
static const size_t GIB = 1 << 30;

struct share {
    const char *from;
    size_t bytes;
    uint64_t sum;
};

static void *read_share(void *argument)
{
    typedef uint64_t eight __attribute__((vector_size(64)));
    struct share *s = argument;
    eight sum[4] = {{0}};
    for (size_t at = 0; at + 256 <= s->bytes; at += 256)
        for (size_t i = 0; i < 4; i++) sum[i] += *(const eight *)(const void *)(s->from + at + 64 * i);
    for (size_t i = 0; i < 4; i++)
        for (size_t l = 0; l < 8; l++) s->sum += sum[i][l];
    return NULL;
}

/* Returns the highest rate of several passes, in GB/s. */
static double bandwidth(size_t threads)
{
    char *memory = aligned_alloc(1 << 21, GIB);
    double best = 0;
    volatile uint64_t used = 0;
    if (!memory) return 0;
    memset(memory, 1, GIB);
    for (int pass = 0; pass < 4; pass++) {
        pthread_t thread[MOST_THREADS];
        struct share share[MOST_THREADS];
        double began = now();
        for (size_t i = 0; i < threads; i++) {
            share[i] = (struct share){memory + GIB / threads * i, GIB / threads, 0};
            if (i) pthread_create(&thread[i], NULL, read_share, &share[i]);
        }
        read_share(&share[0]);
        for (size_t i = 1; i < threads; i++) pthread_join(thread[i], NULL);
        double rate = (double)GIB / (now() - began) / 1e9;
        for (size_t i = 0; i < threads; i++) used += share[i].sum;
        if (rate > best) best = rate;
    }
    free(memory);
    return best;
}

/* ---- the model ---- */

static double write_sentences(struct elbo_infer *m, size_t count, size_t length)
{
    elbo_error error;
    size_t width = elbo_infer_latent_width(m), words = 0;
    struct elbo_text *text = calloc(count, sizeof *text);
    float *z = calloc(count * width + 1, sizeof *z);
    must(elbo_infer_draw(m, z, count, 1, &error), &error);
    double began = now();
    must(elbo_infer_write(m, text, z, count, &(struct elbo_infer_writing){.max_length = length}, &error), &error);
    double seconds = now() - began;
    for (size_t i = 0; i < count; i++) {
        words += text[i].size > 0;
        for (size_t j = 0; j < text[i].size; j++) words += text[i].text[j] == ' ';
        elbo_text_free(&text[i]);
    }
    if (words != count * length) fprintf(stderr, "inference: %zu words in the place of %zu\n", words, count * length);
    free(text);
    free(z);
    return seconds;
}

static double encode_file(struct elbo_infer *m, const char *path)
{
    enum { MOST = 1 << 16 };
    static char *lines[MOST];
    elbo_error error;
    size_t count = 0, room = 0;
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    while (count < MOST && getline(&lines[count], &room, file) > 0) {
        lines[count][strcspn(lines[count], "\n")] = 0;
        count++;
        room = 0;
    }
    fclose(file);
    float *mu = malloc((count * elbo_infer_latent_width(m) + 1) * sizeof *mu);
    double began = now();
    must(elbo_infer_encode(m, (const char *const *)lines, count, NULL, mu, NULL, &error), &error);
    double seconds = now() - began;
    free(mu);
    for (size_t i = 0; i < count; i++) {
        free(lines[i]);
        lines[i] = NULL;
    }
    return seconds;
}

int main(int count, char **arguments)
{
    elbo_error error;
    struct elbo_infer *m;
    char line[4200], path[4096];
    size_t a, b, threads = count > 2 ? strtoul(arguments[2], NULL, 10) : 1;
    if (count < 3 || threads < 1 || threads > MOST_THREADS) return 2;
    must(elbo_infer_open(&m, arguments[1], &(struct elbo_infer_options){.threads = threads}, &error), &error);
    while (fgets(line, sizeof line, stdin)) {
        double answer = -1;
        if (sscanf(line, "write %zu %zu", &a, &b) == 2)
            answer = write_sentences(m, a, b);
        else if (sscanf(line, "encode %4095s", path) == 1)
            answer = encode_file(m, path);
        else if (!strncmp(line, "read", 4))
            answer = bandwidth(threads);
        printf("%.9f\n", answer);
        fflush(stdout);
    }
    elbo_infer_close(m);
    return 0;
}
