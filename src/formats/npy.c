/* .npy for f32 matrices. A small strict parser reads the header's dictionary: the three keys in any order, plain
 * literals, nothing else. */
#include "formats/npy.h"

#include "base/checked.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

elbo_status npy_write_header(const struct sink *sink, size_t rows, size_t width, elbo_error *error)
{
    unsigned char header[192];
    memset(header, ' ', sizeof header);
    char text[160];
    int length =
        snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, width);
    size_t total = align_up(10 + (size_t)length + 1, 64); /* + 1 for the newline that ends the header */
    memcpy(header, magic, sizeof magic);
    header[6] = 1;
    header[7] = 0;
    header[8] = (unsigned char)((total - 10) & 255);
    header[9] = (unsigned char)((total - 10) >> 8);
    memcpy(header + 10, text, (size_t)length);
    header[total - 1] = '\n';
    return sink_write(sink, header, total, error);
}

elbo_status npy_write(const struct sink *sink, const float *data, size_t rows, size_t width, elbo_error *error)
{
    ELBO_TRY(npy_write_header(sink, rows, width, error));
    return sink_write(sink, data, rows * width * sizeof *data, error);
}

/* ---- reading ---- */

struct cursor {
    const char *at, *end;
};

static void skip_spaces(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n')) c->at++;
}

static bool take(struct cursor *c, const char *text)
{
    skip_spaces(c);
    size_t length = strlen(text);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, text, length)) return false;
    c->at += length;
    return true;
}

static bool take_number(struct cursor *c, size_t *out)
{
    skip_spaces(c);
    const char *first = c->at;
    *out = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (!checked_mul(out, *out, 10) || !checked_add(out, *out, (size_t)(*c->at - '0'))) return false;
    return c->at > first;
}

static elbo_status parse_dictionary(struct npy *out, struct cursor c, elbo_error *error)
{
    bool descr = false, order = false, shape = false;
    bool good = take(&c, "{");
    while (good && !take(&c, "}")) {
        if (!descr && take(&c, "'descr'")) {
            descr = take(&c, ":");
            if (!take(&c, "'<f4'"))
                return elbo_fail(error, ELBO_INPUT,
                                 "npy: the elements are not '<f4' (f32); convert with .astype('float32')");
        } else if (!order && take(&c, "'fortran_order'")) {
            order = take(&c, ":");
            if (!take(&c, "False"))
                return elbo_fail(error, ELBO_INPUT, "npy: the array is in Fortran order; save it in C order");
        } else if (!shape && take(&c, "'shape'")) {
            shape = take(&c, ":") && take(&c, "(") && take_number(&c, &out->rows) && take(&c, ",");
            out->width = 1;
            if (shape && !take(&c, ")")) {
                shape = take_number(&c, &out->width);
                take(&c, ",");
                if (!take(&c, ")"))
                    return elbo_fail(error, ELBO_INPUT, "npy: the array does not have 1 or 2 dimensions");
            }
            good = shape;
        } else {
            good = false;
        }
        if (good && !take(&c, ",")) {
            good = take(&c, "}");
            break;
        }
    }
    skip_spaces(&c);
    if (!good || !descr || !order || !shape || c.at != c.end)
        return elbo_fail(error, ELBO_INPUT, "npy: the header is malformed");
    return ELBO_OK;
}

bool npy_begins(const void *bytes, size_t size)
{
    return size >= sizeof magic && !memcmp(bytes, magic, sizeof magic);
}

elbo_status npy_header_size(size_t *header, const void *bytes, size_t size, elbo_error *error)
{
    const unsigned char *b = bytes;
    if (size < 10 || !npy_begins(b, size)) return elbo_fail(error, ELBO_INPUT, "not a .npy file");
    *header = 10 + ((size_t)b[8] | (size_t)b[9] << 8);
    if (b[6] == 2 || b[6] == 3) {
        if (size < NPY_BEGINNING) return elbo_fail(error, ELBO_INPUT, "npy: truncated in its header");
        *header += 2 + ((size_t)b[10] << 16 | (size_t)b[11] << 24);
    } else if (b[6] != 1) {
        return elbo_fail(error, ELBO_INPUT, "npy: version %d.%d is not one this program reads (1.0 to 3.0)", b[6],
                         b[7]);
    }
    return ELBO_OK;
}

elbo_status npy_parse_header(struct npy *out, const void *bytes, size_t header, elbo_error *error)
{
    const char *b = bytes;
    size_t start = b[6] == 1 ? 10 : NPY_BEGINNING, wanted;
    out->data = NULL;
    ELBO_TRY(parse_dictionary(out, (struct cursor){b + start, b + header}, error));
    if (!checked_mul(&wanted, out->rows, out->width) || !checked_mul(&wanted, wanted, sizeof(float)))
        return elbo_fail(error, ELBO_INPUT, "npy: the shape (%zu, %zu) overflows", out->rows, out->width);
    return ELBO_OK;
}

elbo_status npy_parse(struct npy *out, const void *bytes, size_t size, elbo_error *error)
{
    size_t header;
    ELBO_TRY(npy_header_size(&header, bytes, size, error));
    if (header > size) return elbo_fail(error, ELBO_INPUT, "npy: truncated in its header");
    ELBO_TRY(npy_parse_header(out, bytes, header, error));
    size_t wanted = out->rows * out->width * sizeof(float);
    if (wanted != size - header)
        return elbo_fail(error, ELBO_INPUT, "npy: the shape (%zu, %zu) needs %zu bytes, the file holds %zu", out->rows,
                         out->width, wanted, size - header);
    out->data = (const char *)bytes + header;
    return ELBO_OK;
}
