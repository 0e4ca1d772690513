/* Conversion of rows of floats to and from blocks of few bits. Quantization searches each block's scale (and offset)
 * for the least weighted squared error; see blocks.h for the layouts. */
#include "base/blocks.h"

#include <math.h>
#include <string.h>

const struct block_info block_infos[BLOCK_TYPES] = {[BLOCK_F32] = {"F32", 1, 4, 0},
                                                    [BLOCK_Q8_0] = {"Q8_0", 32, 34, 8},
                                                    [BLOCK_Q4_0] = {"Q4_0", 32, 18, 2},
                                                    [BLOCK_Q4_K] = {"Q4_K", 256, 144, 12},
                                                    [BLOCK_Q6_K] = {"Q6_K", 256, 210, 14}};

enum { SUPER = 256, SUB4 = 32, SUB6 = 16 };

size_t block_bytes(enum block_type type, size_t count)
{
    return count / block_infos[type].values * block_infos[type].bytes;
}

/* ---- binary16 ---- */

uint16_t half_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) return (uint16_t)(sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 : 0));
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
    if (magnitude < 0x38800000) {                                  /* below 2^-14: a multiple of 2^-24 */
        float scaled;
        memcpy(&scaled, &magnitude, sizeof scaled);
        return (uint16_t)(sign | (uint32_t)rintf(scaled * 0x1p24f));
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000) >> 13);
}

float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff, bits;
    float x;
    if (!exponent) {
        x = (float)fraction * 0x1p-24f;
        return sign ? -x : x;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Stores a scale as f16. A magnitude above 65504, the largest finite f16, is clamped to 65504. */
static void put_half(unsigned char *to, float x)
{
    uint16_t h = half_of(fmaxf(-65504, fminf(65504, x)));
    to[0] = (unsigned char)h;
    to[1] = (unsigned char)(h >> 8);
}

static float get_half(const unsigned char *from)
{
    return half_to_float((uint16_t)(from[0] | from[1] << 8));
}

/* ---- search ---- */

static int clamp(float x, int least, int most)
{
    float r = rintf(x);
    return r <= (float)least ? least : r >= (float)most ? most : (int)r;
}

/* Rounds and clamps like clamp(), but without a branch, so that loops over it vectorize. */
static inline float clamped(float x, float least, float most)
{
    const float whole = 0x1.8p23f; /* adding and subtracting 1.5 * 2^23 rounds to a whole number */
    x = x < least ? least : x > most ? most : x;
    return x + whole - whole;
}

enum { LANES = 8 }; /* partial sums; every count of values is a multiple of LANES */

static float total(const float sum[LANES])
{
    float all = 0;
    for (size_t l = 0; l < LANES; l++) all += sum[l];
    return all;
}

/* Returns the scale s that leaves the least squared error of x against s q, weighted by x^2, with q a whole number
 * from `least` to -least - 1. The value of largest magnitude maps to about `least`; 19 scales around this point are
 * tried. */
static float symmetric_scale(const float *x, size_t count, int least)
{
    float extreme = 0, best = 0, most = 0;
    for (size_t i = 0; i < count; i++)
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    if (extreme == 0) return 0;
    for (int step = -9; step <= 9; step++) {
        float inverse = ((float)least - 0.1f * (float)step) / extreme, xq[LANES] = {0}, qq[LANES] = {0};
        for (size_t i = 0; i < count; i += LANES)
            for (size_t l = 0; l < LANES; l++) {
                float v = x[i + l] / extreme, q = clamped(x[i + l] * inverse, (float)least, (float)(-least - 1));
                xq[l] += v * v * v * q;
                qq[l] += v * v * q * q;
            }
        float a = total(xq), b = total(qq);
        if (b > 0 && a * a / b > most) { /* a^2 / b is the reduction of the error by the best s for these q */
            most = a * a / b;
            best = a / b * extreme;
        }
    }
    return best;
}

struct affine {
    float scale, offset; /* x = scale q - offset, offset >= 0 */
};

/* Rounds the values to q = (x - low) * inverse, and returns the weighted least-squares scale and offset for these q.
 * `*error` is the weighted squared error of the result. */
static struct affine fit(float *error, const float *x, const float *weight, size_t count, float low, float inverse)
{
    float w1[LANES] = {0}, wq[LANES] = {0}, wqq[LANES] = {0}, wx[LANES] = {0}, wxq[LANES] = {0}, gaps[LANES] = {0};
    for (size_t i = 0; i < count; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            float w = weight[i + l], q = clamped((x[i + l] - low) * inverse, 0, 15);
            w1[l] += w;
            wq[l] += w * q;
            wqq[l] += w * q * q;
            wx[l] += w * x[i + l];
            wxq[l] += w * x[i + l] * q;
        }
    double n = total(w1), q = total(wq), qq = total(wqq), v = total(wx), vq = total(wxq), d = n * qq - q * q;
    double scale = d > 0 ? (n * vq - q * v) / d : 0, offset = d > 0 ? (q * vq - qq * v) / d : 0;
    if (d <= 0 || offset < 0) { /* all q are equal, or the offset has a sign that no block can hold */
        offset = 0;
        scale = qq > 0 ? vq / qq : 0;
    }
    struct affine a = {(float)scale, (float)offset};
    float back = scale > 0 ? (float)(1 / scale) : 0;
    for (size_t i = 0; i < count; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            float gap = a.scale * clamped((x[i + l] + a.offset) * back, 0, 15) - a.offset - x[i + l];
            gaps[l] += weight[i + l] * gap * gap;
        }
    *error = scale > 0 ? total(gaps) : INFINITY;
    return a;
}

/* Returns the scale and offset that leave the least squared error of x against scale q - offset, with q from 0 to 15.
 * The weight of a value is |x| + the root mean square of x. */
static struct affine affine_scale(const float *x, size_t count)
{
    float low = 0, high = -INFINITY, weight[SUPER], least = INFINITY;
    double square = 0;
    struct affine best = {0, 0};
    for (size_t i = 0; i < count; i++) {
        square += (double)x[i] * (double)x[i];
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    if (high <= low) return (struct affine){0, -low};
    float rms = sqrtf((float)(square / (double)count));
    for (size_t i = 0; i < count; i++) weight[i] = rms + fabsf(x[i]);
    for (int step = 0; step <= 20; step++) {
        float error;
        struct affine a = fit(&error, x, weight, count, low, (15.0f - 1.0f + 0.1f * (float)step) / (high - low));
        if (error < least) {
            least = error;
            best = a;
        }
    }
    return best;
}

/* ---- blocks ---- */

static void to_q8_0(unsigned char *to, const float *x)
{
    float largest = 0;
    for (size_t i = 0; i < 32; i++) largest = fmaxf(largest, fabsf(x[i]));
    float d = largest / 127;
    put_half(to, d);
    for (size_t i = 0; i < 32; i++) to[2 + i] = (unsigned char)clamp(d > 0 ? x[i] / d : 0, -127, 127);
}

static void from_q8_0(float *x, const unsigned char *from)
{
    float d = get_half(from);
    for (size_t i = 0; i < 32; i++) x[i] = d * (float)(int8_t)from[2 + i];
}

static void to_q4_0(unsigned char *to, const float *x)
{
    put_half(to, symmetric_scale(x, 32, -8));
    float d = get_half(to), inverse = d != 0 ? 1 / d : 0;
    for (size_t i = 0; i < 16; i++)
        to[2 + i] = (unsigned char)((clamp(x[i] * inverse, -8, 7) + 8) | (clamp(x[i + 16] * inverse, -8, 7) + 8) << 4);
}

static void from_q4_0(float *x, const unsigned char *from)
{
    float d = get_half(from);
    for (size_t i = 0; i < 16; i++) {
        x[i] = d * (float)((from[2 + i] & 15) - 8);
        x[i + 16] = d * (float)((from[2 + i] >> 4) - 8);
    }
}

/* Stores the 6-bit scale and offset of sub-block j of 8. The first four sub-blocks lie in the low 6 bits of bytes 0 ..
 * 3 (scales) and 4 .. 7 (offsets). The low nibbles of the last four lie in bytes 8 .. 11, and their upper two bits in
 * the top bits of bytes 0 .. 3 and 4 .. 7. */
static void put_six(unsigned char *s, size_t j, unsigned scale, unsigned offset)
{
    if (j < 4) {
        s[j] = (unsigned char)(s[j] | scale);
        s[j + 4] = (unsigned char)(s[j + 4] | offset);
    } else {
        s[j + 4] = (unsigned char)((scale & 15) | (offset & 15) << 4);
        s[j - 4] = (unsigned char)(s[j - 4] | (scale >> 4) << 6);
        s[j] = (unsigned char)(s[j] | (offset >> 4) << 6);
    }
}

static void get_six(const unsigned char *s, size_t j, unsigned *scale, unsigned *offset)
{
    *scale = j < 4 ? s[j] & 63u : (s[j + 4] & 15u) | (unsigned)(s[j - 4] >> 6) << 4;
    *offset = j < 4 ? s[j + 4] & 63u : (unsigned)(s[j + 4] >> 4) | (unsigned)(s[j] >> 6) << 4;
}

static void to_q4_k(unsigned char *to, const float *x)
{
    struct affine sub[8];
    float scale = 0, offset = 0;
    for (size_t j = 0; j < 8; j++) {
        sub[j] = affine_scale(x + j * SUB4, SUB4);
        scale = fmaxf(scale, sub[j].scale);
        offset = fmaxf(offset, sub[j].offset);
    }
    memset(to, 0, 144);
    put_half(to, scale / 63);
    put_half(to + 2, offset / 63);
    float d = get_half(to), e = get_half(to + 2);
    for (size_t j = 0; j < 8; j++) {
        unsigned s = (unsigned)clamp(d > 0 ? sub[j].scale / d : 0, 0, 63),
                 m = (unsigned)clamp(e > 0 ? sub[j].offset / e : 0, 0, 63);
        float own = d * (float)s, shift = e * (float)m;
        put_six(to + 4, j, s, m);
        for (size_t i = 0; i < SUB4; i++) {
            int q = own > 0 ? clamp((x[j * SUB4 + i] + shift) / own, 0, 15) : 0;
            unsigned char *at = to + 16 + j / 2 * 32 + i;
            *at = (unsigned char)(*at | q << (j % 2 * 4));
        }
    }
}

static void from_q4_k(float *x, const unsigned char *from)
{
    float d = get_half(from), e = get_half(from + 2);
    for (size_t j = 0; j < 8; j++) {
        unsigned s, m;
        get_six(from + 4, j, &s, &m);
        float own = d * (float)s, shift = e * (float)m;
        for (size_t i = 0; i < SUB4; i++)
            x[j * SUB4 + i] = own * (float)(from[16 + j / 2 * 32 + i] >> (j % 2 * 4) & 15) - shift;
    }
}

/* Value i of the 256 has h = i / 128 and l = i % 128. Its low 4 bits are nibble l / 64 of byte l % 64 of the 64 low
 * bytes of half h. Its high 2 bits start at bit 2 (l / 32) of byte l % 32 of the 32 high bytes of half h. */
static void to_q6_k(unsigned char *to, const float *x)
{
    float sub[16], extreme = 0;
    for (size_t j = 0; j < 16; j++) {
        sub[j] = symmetric_scale(x + j * SUB6, SUB6, -32);
        if (fabsf(sub[j]) > fabsf(extreme)) extreme = sub[j];
    }
    memset(to, 0, 210);
    put_half(to + 208, extreme / -128);
    float d = get_half(to + 208);
    for (size_t j = 0; j < 16; j++) {
        int s = clamp(d != 0 ? sub[j] / d : 0, -128, 127);
        float own = d * (float)s;
        to[192 + j] = (unsigned char)(int8_t)s;
        for (size_t i = j * SUB6; i < (j + 1) * SUB6; i++) {
            unsigned q = (unsigned)((own != 0 ? clamp(x[i] / own, -32, 31) : 0) + 32);
            size_t h = i / 128, l = i % 128;
            unsigned char *low = to + h * 64 + l % 64, *high = to + 128 + h * 32 + l % 32;
            *low = (unsigned char)(*low | (q & 15) << (l / 64 * 4));
            *high = (unsigned char)(*high | (q >> 4) << (l / 32 * 2));
        }
    }
}

static void from_q6_k(float *x, const unsigned char *from)
{
    float d = get_half(from + 208);
    for (size_t i = 0; i < SUPER; i++) {
        size_t h = i / 128, l = i % 128;
        int q = (from[h * 64 + l % 64] >> (l / 64 * 4) & 15) | (from[128 + h * 32 + l % 32] >> (l / 32 * 2) & 3) << 4;
        x[i] = d * (float)(int8_t)from[192 + i / SUB6] * (float)(q - 32);
    }
}

/* ---- the table ---- */

static void (*const to_block[BLOCK_TYPES])(unsigned char *, const float *) = {
    [BLOCK_Q8_0] = to_q8_0, [BLOCK_Q4_0] = to_q4_0, [BLOCK_Q4_K] = to_q4_k, [BLOCK_Q6_K] = to_q6_k};
static void (*const from_block[BLOCK_TYPES])(float *, const unsigned char *) = {
    [BLOCK_Q8_0] = from_q8_0, [BLOCK_Q4_0] = from_q4_0, [BLOCK_Q4_K] = from_q4_k, [BLOCK_Q6_K] = from_q6_k};

void block_quantize(enum block_type type, void *to, const float *from, size_t count)
{
    const struct block_info *b = &block_infos[type];
    float finite[SUPER];
    if (type == BLOCK_F32) {
        memcpy(to, from, count * sizeof *from);
        return;
    }
    for (size_t at = 0; at < count; at += b->values) {
        for (size_t i = 0; i < b->values; i++) finite[i] = isfinite(from[at + i]) ? from[at + i] : 0;
        to_block[type]((unsigned char *)to + at / b->values * b->bytes, finite);
    }
}

void block_dequantize(enum block_type type, float *to, const void *from, size_t count)
{
    const struct block_info *b = &block_infos[type];
    if (type == BLOCK_F32) {
        memcpy(to, from, count * sizeof *to);
        return;
    }
    for (size_t at = 0; at < count; at += b->values)
        from_block[type](to + at, (const unsigned char *)from + at / b->values * b->bytes);
}
