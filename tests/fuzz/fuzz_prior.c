/* Fuzzes a fitted prior for a z of two dimensions, beside a checkpoint's manifest that fits. The first byte selects the
 * rest: the file; or the numbers of Gaussians with deviations or with a lower triangle, for which a header is made. An
 * accepted prior must lie in the file and be a density. */
#include "fuzz/harness.h"
#include "fuzz/small_checkpoint.h"
#include "train/fitted_prior.h"

#include <math.h>
#include <stdlib.h>

enum { AS_IT_IS, DEVIATIONS, TRIANGLE, KINDS };
enum { WIDTH = 2, HEADER = 512 };

static const char name[] = "prior-000001.safetensors";

/* Returns the number of doubles of a Gaussian: log weight, mean, factor. */
static size_t numbers_of(bool full)
{
    return 1 + WIDTH + (full ? WIDTH * WIDTH : WIDTH);
}

/* Writes a file whose tensors follow one another in `data`, with as many Gaussians as the numbers suffice for. */
static size_t wrap(unsigned char *out, bool full, const unsigned char *data, size_t size)
{
    size_t count = size / sizeof(double) / numbers_of(full), mean = 8 * count, factor = mean + 8 * count * WIDTH,
           end = 8 * count * numbers_of(full);
    char *header = (char *)out + 8;
    size_t length = (size_t)sprintf(header,
                                    "{\"__metadata__\":{\"sentences\":\"9\",\"corpus\":\"0123456789abcdef\"},"
                                    "\"log_weight\":{\"dtype\":\"F64\",\"shape\":[%zu],\"data_offsets\":[0,%zu]},"
                                    "\"mean\":{\"dtype\":\"F64\",\"shape\":[%zu,2],\"data_offsets\":[%zu,%zu]},"
                                    "\"factor\":{\"dtype\":\"F64\",\"shape\":[%zu,2%s],\"data_offsets\":[%zu,%zu]}}",
                                    count, mean, count, mean, factor, count, full ? ",2" : "", factor, end);
    for (; length % 8; length++) header[length] = ' ';
    memset(out, 0, 8);
    out[0] = (unsigned char)length;
    out[1] = (unsigned char)(length >> 8);
    if (end) memcpy(out + 8 + length, data, end);
    return 8 + length + end;
}

static void check(const struct fitted_prior *p, size_t size)
{
    const struct gaussians *g = &p->density;
    const float zero[WIDTH] = {0};
    double weights = 0, nats = gaussians_log_density(g, zero);
    volatile double used = nats;
    (void)used;
    FUZZ_CHECK(g->count && g->width == WIDTH && g->count * numbers_of(g->full) * sizeof(double) <= size);
    for (size_t k = 0; k < g->count; k++) {
        FUZZ_CHECK(g->constant[k] < HUGE_VAL); /* no component has an infinite density */
        weights += exp(g->log_weight[k]);
    }
    FUZZ_CHECK(fabs(weights - 1) < 1e-6);
    for (size_t i = 0; i < g->count * WIDTH; i++) FUZZ_CHECK(isfinite(g->mean[i]));
    for (size_t i = 0; i < g->count * (numbers_of(g->full) - 1 - WIDTH); i++) FUZZ_CHECK(isfinite(g->factor[i]));
    for (double uniform = 0; uniform <= 1; uniform += 0.25) {
        float z[WIDTH] = {0};
        gaussians_sample(g, z, uniform); /* samples from one of the components */
    }
    FUZZ_PLANTED(g->mean[0] < 0);
}

int fuzz_one(const unsigned char *data, size_t size)
{
    static unsigned char file[FUZZ_LARGEST + HEADER];
    static char manifest[2 * HEADER], body[2 * HEADER];
    int kind = size ? data[0] % KINDS : 0;
    size_t length = size ? size - 1 : 0;
    if (length > FUZZ_LARGEST) return 1;
    if (kind != AS_IT_IS)
        length = wrap(file, kind == TRIANGLE, data + 1, length);
    else if (length)
        memcpy(file, data + 1, length);
    fuzz_put(name, file, length);
    fuzz_put("manifest.json", manifest, seal(manifest, body, small_checkpoint(body, name, file, length)));
    struct checkpoint *checkpoint;
    elbo_error error;
    FUZZ_CHECK(checkpoint_open(&checkpoint, fuzz_folder(), NULL, NULL, &error) == ELBO_OK);
    struct fitted_prior prior;
    elbo_status status = fitted_prior_load(&prior, checkpoint, WIDTH, &error);
    if (status == ELBO_OK) check(&prior, length);
    fitted_prior_close(&prior);
    checkpoint_close(checkpoint);
    return (int)status;
}

/* Writes a file whose factor has this shape and no bytes. */
static size_t hollow(unsigned char *out, const char *shape)
{
    size_t length =
        (size_t)sprintf((char *)out + 8, "{\"factor\":{\"dtype\":\"F64\",\"shape\":%s,\"data_offsets\":[0,0]}}", shape);
    memset(out, 0, 8);
    out[0] = (unsigned char)length;
    return 8 + length;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const double numbers[] = {-0.6931471805599453, -0.6931471805599453, 1, 2, 3, 4, 1, 0.5, 0.25, 2, 1, 1, 3, 1};
    size_t gaussians = 1 + index % 2, size; /* one or two Gaussians, of both kinds, as a file and as numbers */
    bool full = index / 2 % 2;
    unsigned char data[sizeof numbers];
    (void)room;
    out[0] = AS_IT_IS;
    if (index == 8) return 1 + hollow(out + 1, "[100000,2,0]");
    if (index == 9) return 1 + hollow(out + 1, "[4611686018427387904,2,0]");
    if (index > 11) return 0;
    if (index >= 10) { /* a mean or a factor that is not finite */
        double broken[] = {0, 1, index == 10 ? INFINITY : 1, 1, 0, index == 10 ? 0 : INFINITY, 1};
        out[0] = TRIANGLE;
        memcpy(out + 1, broken, sizeof broken);
        return 1 + sizeof broken;
    }
    size = gaussians * numbers_of(full) * sizeof(double);
    memcpy(data, numbers, sizeof numbers);
    if (gaussians == 1) memset(data, 0, sizeof(double)); /* the only weight is 1 */
    if (gaussians == 1) memcpy(data + sizeof(double), numbers + 2, sizeof numbers - 2 * sizeof(double));
    if (index < 4) return 1 + wrap(out + 1, full, data, size);
    out[0] = full ? TRIANGLE : DEVIATIONS;
    memcpy(out + 1, data, size);
    return 1 + size;
}
