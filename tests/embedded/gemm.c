/* Tests the product with the instructions that every processor of a kind has (NEON on 64-bit Arm, SSE2 on x86-64)
 * against sums in double, with libc alone, so that it runs wherever the core is built for. Covers whole and partial
 * tiles, either operand along k or across, an added C, a bias, GELU, and a factor of GELU's slope. A row's bits alone
 * must be its bits among other rows. */
#define CPU_VARIANT generic
#include "cpu/gemm.h"
#include "device/backends.h"
#include "tolerances.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADD = 1, BIAS = 2, GELU = 4, SLOPE = 8 };

static float *numbers(size_t n)
{
    static unsigned state = 1;
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; x && i < n; i++) x[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1;
    return x;
}

static double gelu_slope(double x, double *y)
{
    double c = sqrt(2 / acos(-1)), u = tanh(c * (x + 0.044715 * x * x * x));
    *y = 0.5 * x * (1 + u);
    return 0.5 * (1 + u) + 0.5 * x * (1 - u * u) * c * (1 + 3 * 0.044715 * x * x);
}

/* Returns the worst error of C (and of its GELU), relative to the magnitudes that were added; 1 when a row alone has
 * other bits. */
static double worst_of(const struct call *call, size_t m, size_t n, size_t k, bool a_across, bool b_along,
                       unsigned what)
{
    float *a = numbers(m * k), *b = numbers(k * n), *c = numbers(m * n), *before = numbers(m * n), *bias = numbers(n),
          *x = numbers(m * n);
    float *y = numbers(m * n), *alone = numbers(n);
    if (!a || !b || !c || !before || !bias || !x || !y || !alone) return 1;
    memcpy(before, c, m * n * sizeof *c);
    struct product p = {.m = m,
                        .n = n,
                        .k = k,
                        .c = c,
                        .ldc = n,
                        .add = what & ADD,
                        .bias = what & BIAS ? bias : NULL,
                        .gelu = what & GELU ? y : NULL,
                        .slope = what & SLOPE ? x : NULL};
    p.a = a_across ? (struct matrix){a, 1, m} : (struct matrix){a, k, 1};
    p.b = b_along ? (struct matrix){b, 1, k} : (struct matrix){b, n, 1};
    cpu_gemm_generic(call, &p);
    double worst = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = what & ADD ? before[i * n + j] : 0, size = fabs(sum) + 1e-3, activated, slope;
            if (what & BIAS) sum += bias[j], size += fabs(bias[j]);
            for (size_t q = 0; q < k; q++) {
                double term = (double)a[i * p.a.row + q * p.a.col] * b[q * p.b.row + j * p.b.col];
                sum += term;
                size += fabs(term);
            }
            slope = gelu_slope(what & SLOPE ? x[i * n + j] : sum, &activated);
            worst = fmax(worst, fabs(c[i * n + j] - (what & SLOPE ? sum * slope : sum)) / size);
            if (what & GELU) worst = fmax(worst, fabs(y[i * n + j] - activated) / (size + fabs(activated)));
        }
    size_t row = m / 2;
    memcpy(alone, before + row * n, n * sizeof *alone);
    p.m = 1;
    p.a.data += row * p.a.row;
    p.c = alone;
    p.gelu = NULL;
    if (p.slope) p.slope += row * n;
    cpu_gemm_generic(call, &p);
    if (memcmp(alone, c + row * n, n * sizeof *alone)) worst = 1;
    free(a), free(b), free(c), free(before), free(bias), free(x), free(y), free(alone);
    return worst;
}

int main(void)
{
    static const size_t shapes[][3] = {{1, 1, 1},     {3, 5, 7},     {4, 8, 16},    {5, 9, 17},
                                       {8, 33, 65},   {9, 31, 300},  {13, 7, 257},  {37, 130, 64},
                                       {145, 61, 40}, {20, 520, 33}, {70, 90, 520}, {33, 600, 770}};
    static const unsigned kinds[] = {0, ADD, BIAS, BIAS | GELU, GELU, SLOPE, ADD | BIAS};
    elbo_error error = {0};
    struct backend *backend;
    size_t tried = 0;
    double worst = 0;
    if (cpu_backend_create(&backend, 2, "generic", &error) ||
        backend->memory.reserve(backend, cpu_gemm_scratch_generic(), &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    struct call call = {.backend = backend};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (unsigned strides = 0; strides < 4; strides++)
            for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++, tried++) {
                double found =
                    worst_of(&call, shapes[s][0], shapes[s][1], shapes[s][2], strides & 1, strides & 2, kinds[i]);
                if (!(found <= TOLERANCE_PRODUCT)) /* true for NaN */
                    printf("%zu x %zu x %zu, strides %u, kind %u: off by %.1e\n", shapes[s][0], shapes[s][1],
                           shapes[s][2], strides, kinds[i], found);
                worst = !(found <= worst) ? found : worst;
            }
    backend->destroy(backend);
    printf("%zu products, off by at most %.1e of what was added; %.0e is allowed\n", tried, worst, TOLERANCE_PRODUCT);
    return !(worst <= TOLERANCE_PRODUCT);
}
