/* UTF-8, as Unicode's table 3-7 defines it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Returns the bytes of the well-formed character at `text` (1 to 4); 0 when it is ill-formed or cut off. `*code` gets
 * the character; `code` may be null. */
size_t utf8_next(uint32_t *code, const char *text, size_t size);

/* Returns the number of leading bytes that are well-formed: `size` when all are. */
size_t utf8_valid(const char *text, size_t size);

/* Returns the bytes of the ill-formed part at `text`, 1 to 3, which one U+FFFD replaces ("maximal subpart", Unicode
 * 3.9). */
size_t utf8_bad(const char *text, size_t size);

/* Writes a character and returns its bytes, 1 to 4. */
size_t utf8_put(char out[4], uint32_t code);

#endif
