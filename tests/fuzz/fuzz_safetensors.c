/* Fuzzes safetensors. Accepted tensors must lie inside the file, and each is found by its name and copied. */
#include "formats/safetensors.h"
#include "fuzz/harness.h"

#include <stdlib.h>
#include <string.h>

int fuzz_one(const unsigned char *data, size_t size)
{
    struct safetensors *file;
    elbo_error error;
    elbo_status status = safetensors_parse(&file, data, size, &error);
    if (status) return (int)status;
    size_t total = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        size_t bytes = safetensors_bytes(tensor);
        FUZZ_CHECK((const unsigned char *)tensor->data >= data && bytes <= size);
        FUZZ_CHECK((const unsigned char *)tensor->data + bytes <= data + size);
        FUZZ_CHECK(safetensors_find(file, tensor->name) == tensor);
        total += bytes;
        char *copy = malloc(bytes + 1);
        FUZZ_CHECK(copy && safetensors_copy(file, copy, tensor, &error) == ELBO_OK);
        FUZZ_CHECK(!memcmp(copy, tensor->data, bytes));
        free(copy);
        FUZZ_PLANTED(bytes && *(const unsigned char *)tensor->data == 0xff);
    }
    FUZZ_CHECK(total <= size);
    safetensors_note(file, "format");
    safetensors_free(file);
    return 0;
}

static size_t file_of(unsigned char *out, const char *header, size_t bytes)
{
    size_t length = strlen(header);
    memset(out, 0, 8);
    out[0] = (unsigned char)length;
    out[1] = (unsigned char)(length >> 8);
    memcpy(out + 8, header, length);
    memset(out + 8 + length, 7, bytes);
    return 8 + length + bytes;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const struct {
        const char *header;
        size_t bytes;
    } seeds[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}  ", 24},
        {"{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]},"
         "\"b.c\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[8,16]}}",
         16},
        {"{\"e\":{\"dtype\":\"U8\",\"shape\":[0,5],\"data_offsets\":[0,0]},\"q\":{\"dtype\":\"BOOL\",\"shape\":[1,1,1,"
         "1,1,1,1,3],"
         "\"data_offsets\":[0,3]}}",
         3},
        {"{}", 0},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[281474976710655,281474976710655],\"data_offsets\":[0,281474976710655]}}",
         2},
        {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],\"\\u00e9\\ud83d\\ude00\":"
         "1.5e308}",
         0},
    };
    return index < sizeof seeds / sizeof *seeds && room > 1024 ? file_of(out, seeds[index].header, seeds[index].bytes)
                                                               : 0;
}
