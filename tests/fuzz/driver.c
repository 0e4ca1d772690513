/* A driver for builds without libFuzzer: runs the seeds, the given files, and then mutations of both, the same each
 * time.
 *
 *     tests/fuzz_npy [--executions=N] [FILE ...] */
#include "damage.h"
#include "fuzz/harness.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_SEEDS = 256 };

static struct {
    unsigned char *bytes[MOST_SEEDS];
    size_t size[MOST_SEEDS], count;
} seeds;

static void add_seed(const unsigned char *bytes, size_t size)
{
    if (seeds.count == MOST_SEEDS || !size) return;
    seeds.bytes[seeds.count] = malloc(size);
    memcpy(seeds.bytes[seeds.count], bytes, size);
    seeds.size[seeds.count++] = size;
}

static void add_file(unsigned char *buffer, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "cannot open %s\n", path);
        exit(2);
    }
    size_t size = fread(buffer, 1, FUZZ_LARGEST, file);
    fclose(file);
    LLVMFuzzerTestOneInput(buffer, size);
    add_seed(buffer, size);
}

/* Mutates in place: another digit for a digit, a boundary value for a byte, or a piece of another seed. */
static size_t mutate(unsigned char *out, size_t size, uint64_t *random)
{
    static const unsigned char boundaries[] = {0,   1,   0x7f, 0x80, 0xff, '"', '\\', '{',
                                               '}', '[', ']',  ',',  ':',  ' ', '\n', '-'};
    size_t at = damage_draw(random, size);
    switch (damage_draw(random, 3)) {
    case 0:
        for (size_t i = 0; i < size; i++, at = (at + 1) % size)
            if (out[at] >= '0' && out[at] <= '9') break;
        out[at] = (unsigned char)('0' + damage_draw(random, 10));
        break;
    case 1:
        out[at] = boundaries[damage_draw(random, sizeof boundaries)];
        break;
    default: {
        size_t other = damage_draw(random, seeds.count), from = damage_draw(random, seeds.size[other]);
        size_t length = 1 + damage_draw(random, seeds.size[other] - from);
        if (length > FUZZ_LARGEST - at) length = FUZZ_LARGEST - at;
        memcpy(out + at, seeds.bytes[other] + from, length);
        if (at + length > size) size = at + length;
    }
    }
    return size;
}

int main(int count, char **arguments)
{
    size_t executions = 2000;
    LLVMFuzzerInitialize(&count, &arguments);
    unsigned char *now = malloc(2 * FUZZ_LARGEST + 64), *next = malloc(2 * FUZZ_LARGEST + 64);
    for (size_t i = 0, size; (size = fuzz_seed(i, now, FUZZ_LARGEST)) > 0; i++) {
        LLVMFuzzerTestOneInput(now, size);
        add_seed(now, size);
    }
    LLVMFuzzerTestOneInput(now, 0);
    for (int i = 1; i < count; i++)
        if (!strncmp(arguments[i], "--executions=", 13))
            executions = strtoull(arguments[i] + 13, NULL, 10);
        else
            add_file(now, arguments[i]);
    uint64_t random = 1;
    for (size_t done = 0; done < executions; done++) {
        size_t seed = damage_draw(&random, seeds.count), size = seeds.size[seed];
        memcpy(now, seeds.bytes[seed], size);
        for (size_t times = 1 + damage_draw(&random, 4); times && size; times--) {
            if (damage_draw(&random, 2)) {
                size = mutate(now, size, &random);
                continue;
            }
            damage(next, &size, now, size, (enum damage)damage_draw(&random, DAMAGES), &random);
            if (size > FUZZ_LARGEST) size = FUZZ_LARGEST;
            memcpy(now, next, size);
        }
        /* A block of exactly this size, so that the sanitizer finds a read past it. */
        unsigned char *exact = malloc(size + !size);
        memcpy(exact, now, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    for (size_t i = 0; i < seeds.count; i++) free(seeds.bytes[i]);
    free(now);
    free(next);
    return 0;
}
