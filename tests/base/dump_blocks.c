/* Converts blocks of few bits for test_blocks.py: `dump_blocks TYPE quantize|dequantize < in > out`, f32 to blocks or
 * back; TYPE half: f32 to binary16 and back. */
#include "base/blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *read_all(size_t *size)
{
    unsigned char *bytes = NULL;
    size_t room = 0, got;
    *size = 0;
    do {
        room = 2 * room + 65536;
        bytes = realloc(bytes, room);
        if (!bytes) abort();
        *size += got = fread(bytes + *size, 1, room - *size, stdin);
    } while (got);
    return bytes;
}

int main(int count, char **arguments)
{
    size_t size, written = 0;
    if (count != 3) return 2;
    unsigned char *in = read_all(&size), *out = malloc(size * 8 + 1);
    int type = BLOCK_TYPES;
    while (type--)
        if (!strcmp(block_infos[type].name, arguments[1])) break;
    int quantize = !strcmp(arguments[2], "quantize");
    if (!strcmp(arguments[1], "half")) {
        for (size_t i = 0; i < size / (quantize ? 4 : 2); i++)
            if (quantize)
                ((uint16_t *)out)[i] = half_of(((float *)in)[i]);
            else
                ((float *)out)[i] = half_to_float(((uint16_t *)in)[i]);
        written = quantize ? size / 2 : size * 2;
    } else if (type < 0) {
        return 2;
    } else if (quantize) {
        block_quantize((enum block_type)type, out, (float *)in, size / 4);
        written = block_bytes((enum block_type)type, size / 4);
    } else {
        size_t values = size / block_infos[type].bytes * block_infos[type].values;
        block_dequantize((enum block_type)type, (float *)out, in, values);
        written = values * 4;
    }
    int failed = fwrite(out, 1, written, stdout) != written;
    free(in);
    free(out);
    return failed;
}
