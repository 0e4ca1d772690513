/* Tests safetensors: a written file is read back bit for bit, in the reference's order and alignment. No hostile header
 * is accepted or read past its bytes; for the address sanitizer, inputs are in heap blocks of exactly their size. */
#include "formats/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct buffer {
    unsigned char *bytes;
    size_t size, limit; /* limit: bytes after which the sink fails; 0: none */
};

static elbo_status append(void *context, const void *bytes, size_t size, elbo_error *error)
{
    struct buffer *buffer = context;
    if (buffer->limit && buffer->size + size > buffer->limit) return elbo_fail(error, ELBO_IO, "disk full");
    buffer->bytes = realloc(buffer->bytes, buffer->size + size + 1);
    assert_non_null(buffer->bytes);
    if (size) memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
    return ELBO_OK;
}

static const float matrix[6] = {1, -2, 3.5f, -0.0f, 1e-30f, 7};
static const uint64_t counter[1] = {UINT64_C(0xfedcba9876543210)};
static const int64_t signed_row[2] = {-1, INT64_MAX};
static const uint16_t half[3] = {0x3f80, 0xbf80, 0x7fc0};

static const struct safetensors_tensor sample[] = {
    {.name = "decoder.b", .dtype = SAFETENSORS_F32, .rank = 2, .shape = {2, 3}, .data = matrix},
    {.name = "half", .dtype = SAFETENSORS_BF16, .rank = 1, .shape = {3}, .data = half},
    {.name = "draw", .dtype = SAFETENSORS_U64, .rank = 0, .data = counter},
    {.name = "signed", .dtype = SAFETENSORS_I64, .rank = 1, .shape = {2}, .data = signed_row},
    {.name = "empty", .dtype = SAFETENSORS_F32, .rank = 2, .shape = {0, 3}, .data = NULL},
    {.name = "a \"quoted\" n\xc3\xa4me", .dtype = SAFETENSORS_F32, .rank = 1, .shape = {1}, .data = matrix},
};
enum { SAMPLE = sizeof sample / sizeof *sample };
static const struct safetensors_note notes[] = {{"format", "pt"}, {"producer", "elbo"}};

static struct buffer write_sample(void)
{
    struct buffer buffer = {0};
    elbo_error error = {0};
    assert_int_equal(safetensors_write(&(struct sink){append, &buffer}, sample, SAMPLE, notes, 2, &error), ELBO_OK);
    return buffer;
}

static void round_trip(void **state)
{
    (void)state;
    struct buffer buffer = write_sample();
    elbo_error error = {0};
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_parse(&file, buffer.bytes, buffer.size, &error), ELBO_OK);
    assert_int_equal(safetensors_count(file), SAMPLE);
    assert_string_equal(safetensors_note(file, "format"), "pt");
    assert_null(safetensors_note(file, "absent"));
    for (size_t i = 0; i < SAMPLE; i++) {
        const struct safetensors_tensor *found = safetensors_find(file, sample[i].name);
        assert_non_null(found);
        assert_int_equal(found->dtype, sample[i].dtype);
        assert_int_equal(found->rank, sample[i].rank);
        unsigned char out[64];
        memset(out, 0xee, sizeof out);
        size_t bytes = safetensors_bytes(&sample[i]);
        assert_int_equal(safetensors_copy(file, out, &sample[i], &error), ELBO_OK);
        if (bytes) assert_memory_equal(out, sample[i].data, bytes);
        assert_int_equal(out[bytes], 0xee);
    }
    assert_null(safetensors_find(file, "__metadata__"));
    safetensors_free(file);
    free(buffer.bytes);
}

static void the_order_and_alignment_are_the_reference_s(void **state)
{
    (void)state;
    struct buffer buffer = write_sample();
    elbo_error error = {0};
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_parse(&file, buffer.bytes, buffer.size, &error), ELBO_OK);
    /* Wide types come first; tensors of one type are in the order of their names. */
    const char *order[] = {"draw", "signed", "a \"quoted\" n\xc3\xa4me", "decoder.b", "empty", "half"};
    const unsigned char *start = safetensors_at(file, 0)->data;
    assert_int_equal((size_t)(start - buffer.bytes) % 8, 0);
    for (size_t i = 0; i < SAMPLE; i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        assert_string_equal(tensor->name, order[i]);
        size_t offset = (size_t)((const unsigned char *)tensor->data - start);
        assert_int_equal(offset % safetensors_dtype_bytes(tensor->dtype), 0);
    }
    safetensors_free(file);
    free(buffer.bytes);
}

static void a_wrong_type_or_shape_is_named(void **state)
{
    (void)state;
    struct buffer buffer = write_sample();
    elbo_error error = {0};
    struct safetensors *file = NULL;
    float out[8];
    assert_int_equal(safetensors_parse(&file, buffer.bytes, buffer.size, &error), ELBO_OK);
    struct safetensors_tensor wanted = sample[0];
    wanted.shape[0] = 3, wanted.shape[1] = 2;
    assert_int_equal(safetensors_copy(file, out, &wanted, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "decoder.b is F32 (2, 3) in the file, F32 (3, 2) is wanted"));
    wanted = sample[0];
    wanted.dtype = SAFETENSORS_I32;
    assert_int_equal(safetensors_copy(file, out, &wanted, &error), ELBO_INPUT);
    wanted = sample[0];
    wanted.rank = 1, wanted.shape[0] = 6;
    assert_int_equal(safetensors_copy(file, out, &wanted, &error), ELBO_INPUT);
    wanted.name = "nobody";
    assert_int_equal(safetensors_copy(file, out, &wanted, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "nobody"));
    safetensors_free(file);
    free(buffer.bytes);
}

static void two_tensors_of_one_name_are_not_written(void **state)
{
    (void)state;
    struct safetensors_tensor twins[] = {sample[0], sample[0]};
    struct buffer buffer = {0};
    elbo_error error = {0};
    assert_int_equal(safetensors_write(&(struct sink){append, &buffer}, twins, 2, NULL, 0, &error), ELBO_INTERNAL);
    assert_int_equal(buffer.size, 0);
}

static void a_sink_that_fails_ends_the_writing(void **state)
{
    (void)state;
    struct buffer whole = write_sample();
    for (size_t limit = 1; limit < whole.size; limit++) {
        struct buffer buffer = {.limit = limit};
        elbo_error error = {0};
        assert_int_equal(safetensors_write(&(struct sink){append, &buffer}, sample, SAMPLE, notes, 2, &error), ELBO_IO);
        free(buffer.bytes);
    }
    free(whole.bytes);
}

/* ---- hostile files ---- */

/* Parses a copy in a heap block of exactly `size` bytes. */
static elbo_status parse_copy(const void *bytes, size_t size, elbo_error *error)
{
    unsigned char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    struct safetensors *file = NULL;
    elbo_status status = safetensors_parse(&file, copy, size, error);
    if (status == ELBO_OK) {
        for (size_t i = 0; i < safetensors_count(file); i++) { /* every byte of a tensor can be read */
            const struct safetensors_tensor *tensor = safetensors_at(file, i);
            const volatile unsigned char *data = tensor->data;
            for (size_t k = 0; k < safetensors_bytes(tensor); k++) (void)data[k];
        }
    }
    safetensors_free(file);
    free(copy);
    return status;
}

static elbo_status parse_header(const char *json, size_t data_bytes, elbo_error *error)
{
    size_t length = strlen(json), size = 8 + length + data_bytes;
    unsigned char *bytes = calloc(size, 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(bytes + 8, json, length);
    elbo_status status = parse_copy(bytes, size, error);
    free(bytes);
    return status;
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct buffer buffer = write_sample();
    for (size_t size = 0; size < buffer.size; size++) {
        elbo_error error = {0};
        assert_int_equal(parse_copy(buffer.bytes, size, &error), ELBO_INPUT);
        assert_true(error.message[0] != 0);
    }
    elbo_error error = {0};
    append(&buffer, "x", 1, &error);
    assert_int_equal(parse_copy(buffer.bytes, buffer.size, &error), ELBO_INPUT); /* a trailing byte */
    free(buffer.bytes);
}

static void any_changed_byte_is_refused_or_harmless(void **state)
{
    (void)state;
    struct buffer buffer = write_sample();
    for (size_t i = 0; i < buffer.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            elbo_error error = {0};
            buffer.bytes[i] ^= (unsigned char)(1 << bit);
            elbo_status status = parse_copy(buffer.bytes, buffer.size, &error);
            assert_true(status == ELBO_OK || status == ELBO_INPUT);
            buffer.bytes[i] ^= (unsigned char)(1 << bit);
        }
    }
    free(buffer.bytes);
}

static void headers_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        size_t data;
        const char *says;
    } cases[] = {
        {"", 0, "does not start"},
        {"[]", 0, "does not start"},
        {" {}", 0, "does not start"},
        {"{", 0, "not valid"},
        {"{}x", 0, "not valid"},
        {"{\"a\":1}", 0, "not an object"},
        {"{\"a\":{}}", 0, "needs a dtype"},
        {"{\"\xff\":{}}", 0, "not valid"},
        {"{\"__metadata__\":{\"n\":1}}", 0, "not a string"},
        {"{\"__metadata__\":[]}", 0, "not an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "duplicate"},
        {"{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype F99"},
        {"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4, "not valid"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "9 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,1],\"data_offsets\":[0,4]}}", 4, "overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[281474976710655,65536],\"data_offsets\":[0,4]}}", 4, "overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "needs a dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,-4]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,281474976710656]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "needs 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,-0]}}",
         0, "needs 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "overlaps"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,2]}}",
         4, "before its beginning"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "longer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        elbo_error error = {0};
        elbo_status status = parse_header(cases[i].json, cases[i].data, &error);
        if (status != ELBO_INPUT || !strstr(error.message, cases[i].says))
            fail_msg("%s: status %d, \"%s\", wanted \"%s\"", cases[i].json, status, error.message, cases[i].says);
    }
    const unsigned char huge[9] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{'};
    const unsigned char above[9] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{'}; /* 100,000,001 */
    elbo_error error = {0};
    assert_int_equal(parse_copy(huge, 9, &error), ELBO_INPUT);
    assert_int_equal(parse_copy(above, 9, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "at most 100000000"));
}

static void deep_nesting_is_refused_without_harm(void **state)
{
    (void)state;
    enum { DEPTH = 200000 };
    char *json = malloc(DEPTH + 16);
    assert_non_null(json);
    memcpy(json, "{\"a\":", 5);
    memset(json + 5, '[', DEPTH);
    json[5 + DEPTH] = 0;
    elbo_error error = {0};
    assert_int_equal(parse_header(json, 0, &error), ELBO_INPUT);
    free(json);
}

static void good_headers_of_others_are_read(void **state)
{
    (void)state;
    elbo_error error = {0};
    assert_int_equal(parse_header("{}", 0, &error), ELBO_OK);
    assert_int_equal(parse_header("{}      ", 0, &error), ELBO_OK);
    assert_int_equal(parse_header("{\"a\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[0,3]},"
                                  "\"b\":{\"shape\":[],\"data_offsets\":[3,7],\"dtype\":\"F32\",\"more\":0}}",
                                  7, &error),
                     ELBO_OK); /* odd offsets, another order of keys, an unknown key */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(the_order_and_alignment_are_the_reference_s),
        cmocka_unit_test(a_wrong_type_or_shape_is_named),
        cmocka_unit_test(two_tensors_of_one_name_are_not_written),
        cmocka_unit_test(a_sink_that_fails_ends_the_writing),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(any_changed_byte_is_refused_or_harmless),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(deep_nesting_is_refused_without_harm),
        cmocka_unit_test(good_headers_of_others_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
