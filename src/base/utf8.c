/* UTF-8 by the ranges of Unicode's table 3-7. The lead byte decides the number of bytes and the range of the second. */
#include "base/utf8.h"

#include <string.h>

/* Returns the number of bytes of the character and the range of its second byte; 0 for a byte that cannot lead. */
static size_t lead(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (c < 0x80) return 1;
    if (c < 0xc2) return 0;
    if (c < 0xe0) return 2;
    if (c < 0xf0) {
        if (c == 0xe0) *low = 0xa0;
        if (c == 0xed) *high = 0x9f;
        return 3;
    }
    if (c > 0xf4) return 0;
    if (c == 0xf0) *low = 0x90;
    if (c == 0xf4) *high = 0x8f;
    return 4;
}

/* Returns the number of leading bytes of a character of `want` bytes that are well-formed. */
static size_t follow(const unsigned char *s, size_t size, size_t want, unsigned char low, unsigned char high)
{
    size_t n = 1;
    while (n < want && n < size && s[n] >= low && s[n] <= high) {
        low = 0x80;
        high = 0xbf;
        n++;
    }
    return n;
}

size_t utf8_next(uint32_t *code, const char *text, size_t size)
{
    if (!size) return 0;
    const unsigned char *s = (const unsigned char *)text;
    unsigned char low, high;
    size_t want = lead(s[0], &low, &high);
    if (!want || follow(s, size, want, low, high) < want) return 0;
    if (code) {
        static const unsigned char mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
        uint32_t value = s[0] & mask[want];
        for (size_t i = 1; i < want; i++) value = value << 6 | (s[i] & 0x3f);
        *code = value;
    }
    return want;
}

size_t utf8_valid(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint64_t eight;
        if (size - at >= 8 && (memcpy(&eight, text + at, 8), !(eight & 0x8080808080808080u))) {
            at += 8;
            continue;
        }
        size_t n = utf8_next(NULL, text + at, size - at);
        if (!n) return at;
        at += n;
    }
    return size;
}

size_t utf8_bad(const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char low, high;
    size_t want = lead(s[0], &low, &high);
    return want ? follow(s, size, want, low, high) : 1;
}

size_t utf8_put(char out[4], uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00 >> n & 0xf0) | code);
    return n;
}
