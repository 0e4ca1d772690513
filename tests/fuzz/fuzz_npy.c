/* Fuzzes .npy. An accepted array must lie inside the file. */
#include "formats/npy.h"
#include "fuzz/harness.h"

#include <stdlib.h>
#include <string.h>

int fuzz_one(const unsigned char *data, size_t size)
{
    struct npy npy, announced;
    elbo_error error;
    size_t header;
    elbo_status status = npy_parse(&npy, data, size, &error);
    /* Reads like a stream: the header alone, from a block of exactly its bytes, and then the rows. */
    elbo_status streamed = npy_header_size(&header, data, size < NPY_BEGINNING ? size : NPY_BEGINNING, &error);
    if (!streamed && header <= size) {
        unsigned char *copy = malloc(header);
        FUZZ_CHECK(copy != NULL);
        memcpy(copy, data, header);
        streamed = npy_parse_header(&announced, copy, header, &error);
        free(copy);
        FUZZ_CHECK(!streamed || status);
        FUZZ_CHECK(status || (announced.rows == npy.rows && announced.width == npy.width &&
                              (const unsigned char *)npy.data == data + header));
    }
    if (status) return (int)status;
    size_t bytes = npy.rows * npy.width * sizeof(float);
    FUZZ_CHECK(bytes <= size && (const unsigned char *)npy.data + bytes == data + size);
    float sum = 0, value;
    for (size_t i = 0; i < npy.rows * npy.width; i++) {
        memcpy(&value, (const char *)npy.data + i * sizeof value, sizeof value);
        sum += value;
    }
    volatile float used = sum;
    (void)used;
    FUZZ_PLANTED(bytes && data[size - 1] != 63);
    return 0;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const struct {
        const char *dictionary;
        size_t bytes;
        unsigned char version;
    } seeds[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }      \n", 24, 1},
        {"{'shape': (4,), 'descr': '<f4', 'fortran_order': False}\n", 16, 1},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 0), }\n", 0, 2},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n", 0, 3},
        {"{'descr': '<f8', 'fortran_order': True, 'shape': (1, 1, 1), }\n", 8, 1},
    };
    if (index >= sizeof seeds / sizeof *seeds || room < 1024) return 0;
    size_t length = strlen(seeds[index].dictionary), start = seeds[index].version == 1 ? 10 : 12;
    memset(out, 0, start);
    memcpy(out, "\x93NUMPY", 6);
    out[6] = seeds[index].version;
    out[8] = (unsigned char)length;
    memcpy(out + start, seeds[index].dictionary, length);
    memset(out + start + length, 63, seeds[index].bytes);
    return start + length + seeds[index].bytes;
}
