/* UTF-8, as Unicode's table 3-7 defines it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed character at `text` (1 to 4); 0 when it is ill-formed or cut off. `*code` may be null. */
size_t utf8_next(uint32_t *code, const char *text, size_t size);

/* Number of leading bytes that are well-formed: `size` when all are. */
size_t utf8_valid(const char *text, size_t size);

/* Bytes of the ill-formed part at `text`, 1 to 3: what one U+FFFD stands for ("maximal subpart", Unicode 3.9). */
size_t utf8_bad(const char *text, size_t size);

/* Writes a character, 1 to 4 bytes. */
size_t utf8_put(char out[4], uint32_t code);

#endif
