/* JSON objects that end with a checksum of their own bytes: composing and checking them; see sealed.h. */
#include "base/sealed.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char before_checksum[] = ",\n \"checksum\": \"", after_checksum[] = "\"\n}\n";
enum { TAIL = sizeof before_checksum - 1 + SEALED_HEX + sizeof after_checksum - 1 };

json_t *sealed_hex(uint64_t value)
{
    char text[SEALED_HEX + 1];
    snprintf(text, sizeof text, "%016" PRIx64, value);
    return json_string(text);
}

bool sealed_read_hex(uint64_t *out, const char *text)
{
    *out = 0;
    if (!text || strlen(text) != SEALED_HEX) return false;
    for (size_t i = 0; i < SEALED_HEX; i++) {
        char c = text[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return false;
        *out = *out << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

elbo_status sealed_compose(char **text, size_t *size, const json_t *root, const char *what, elbo_error *error)
{
    /* 17 digits, so that a double reads back as the same bits */
    char *json = json_text(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    size_t length = json ? strlen(json) - 2 : 0; /* without the last "\n}" */
    char *out = json ? malloc(length + TAIL + 1) : NULL;
    if (!out) {
        free(json);
        return elbo_fail(error, ELBO_MEMORY, "no memory for %s", what);
    }
    memcpy(out, json, length);
    snprintf(out + length, TAIL + 1, "%s%016" PRIx64 "%s", before_checksum, (uint64_t)XXH3_64bits(json, length),
             after_checksum);
    free(json);
    *text = out;
    *size = length + TAIL;
    return ELBO_OK;
}

elbo_status sealed_check(const char *text, size_t size, elbo_error *error)
{
    char digits[SEALED_HEX + 1] = {0};
    uint64_t sum;
    if (size <= TAIL) return elbo_fail(error, ELBO_INPUT, "is truncated (%zu bytes)", size);
    const char *tail = text + size - TAIL;
    memcpy(digits, tail + sizeof before_checksum - 1, SEALED_HEX);
    if (memcmp(tail, before_checksum, sizeof before_checksum - 1) ||
        memcmp(tail + TAIL - (sizeof after_checksum - 1), after_checksum, sizeof after_checksum - 1) ||
        !sealed_read_hex(&sum, digits))
        return elbo_fail(error, ELBO_INPUT, "does not end with a checksum: truncated, or not written by this program");
    if (XXH3_64bits(text, size - TAIL) != sum)
        return elbo_fail(error, ELBO_INPUT,
                         "does not match its own checksum: it is damaged between byte 0 and byte %zu", size);
    return ELBO_OK;
}
