/* Reading and writing safetensors. The reader checks in the reference's order: length, N, N within the file, JSON
 * (UTF-8, no duplicate keys), then the tensors sorted by offset: each begins where the previous one ended, its length
 * is the product of its shape times its element size, and the last one ends at the end of the file. */
#include "formats/safetensors.h"

#include "base/checked.h"
#include "base/json.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const size_t most_header_bytes = 100000000;
static const json_int_t most_integer = ((json_int_t)1 << 48) - 1; /* the limit in the format's schema */

static const struct {
    const char *name;
    size_t bytes;
} dtypes[SAFETENSORS_DTYPES] = {
    [SAFETENSORS_BOOL] = {"BOOL", 1},       [SAFETENSORS_U8] = {"U8", 1},           [SAFETENSORS_I8] = {"I8", 1},
    [SAFETENSORS_F8_E5M2] = {"F8_E5M2", 1}, [SAFETENSORS_F8_E4M3] = {"F8_E4M3", 1}, [SAFETENSORS_I16] = {"I16", 2},
    [SAFETENSORS_U16] = {"U16", 2},         [SAFETENSORS_F16] = {"F16", 2},         [SAFETENSORS_BF16] = {"BF16", 2},
    [SAFETENSORS_I32] = {"I32", 4},         [SAFETENSORS_U32] = {"U32", 4},         [SAFETENSORS_F32] = {"F32", 4},
    [SAFETENSORS_F64] = {"F64", 8},         [SAFETENSORS_I64] = {"I64", 8},         [SAFETENSORS_U64] = {"U64", 8},
};

struct safetensors {
    json_t *header; /* owns the names and notes */
    size_t count;
    struct safetensors_tensor *tensors; /* in file order */
    size_t *by_name;                    /* indices into tensors, sorted by name */
    struct safetensors_reader reader;   /* read is null when the bytes are in memory */
};

struct spot { /* a tensor while its offsets are being checked */
    struct safetensors_tensor tensor;
    size_t begin, end;
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

size_t safetensors_dtype_bytes(enum safetensors_dtype dtype)
{
    return dtypes[dtype].bytes;
}

static bool tensor_bytes(size_t *out, const struct safetensors_tensor *tensor)
{
    size_t bytes = dtypes[tensor->dtype].bytes;
    for (size_t i = 0; i < tensor->rank; i++)
        if (!checked_mul(&bytes, bytes, tensor->shape[i])) return false;
    *out = bytes;
    return true;
}

size_t safetensors_bytes(const struct safetensors_tensor *tensor)
{
    size_t bytes = 0;
    return tensor_bytes(&bytes, tensor) ? bytes : SIZE_MAX;
}

/* ---- writing ---- */

static int reference_order(const void *a, const void *b)
{
    const struct safetensors_tensor *x = *(const struct safetensors_tensor *const *)a;
    const struct safetensors_tensor *y = *(const struct safetensors_tensor *const *)b;
    if (x->dtype != y->dtype) return x->dtype > y->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Returns {"dtype", "shape", "data_offsets"}, or NULL. */
static json_t *tensor_entry(const struct safetensors_tensor *tensor, size_t begin, size_t end)
{
    json_t *shape = json_array();
    int failed = !shape;
    for (size_t i = 0; i < tensor->rank; i++)
        failed |= json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    if (failed) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[tensor->dtype].name, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)end);
}

/* Builds the header as JSON, tensors in the order of `sorted`. */
static elbo_status build_header(json_t *header, const struct safetensors_tensor **sorted, size_t count,
                                const struct safetensors_note *notes, size_t note_count, elbo_error *error)
{
    if (note_count > 0) {
        json_t *metadata = json_object();
        errno = 0;
        int failed = json_object_set_new(header, "__metadata__", metadata);
        for (size_t i = 0; i < note_count; i++)
            failed |= json_object_set_new(metadata, notes[i].key, json_string(notes[i].value));
        if (failed && (!metadata || errno == ENOMEM))
            return elbo_fail(error, ELBO_MEMORY, "safetensors: no memory for the header's %zu notes", note_count);
        if (failed) return elbo_fail(error, ELBO_INTERNAL, "safetensors: the metadata is not UTF-8");
    }
    size_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_tensor *tensor = sorted[i];
        size_t bytes, end;
        if (tensor->rank > SAFETENSORS_MOST_DIMENSIONS || tensor->dtype >= SAFETENSORS_DTYPES ||
            !tensor_bytes(&bytes, tensor) || !checked_add(&end, offset, bytes) || end > (size_t)most_integer)
            return elbo_fail(error, ELBO_INTERNAL, "safetensors: tensor %s has a shape or type that cannot be written",
                             tensor->name);
        if (json_object_get(header, tensor->name))
            return elbo_fail(error, ELBO_INTERNAL, "safetensors: two tensors are called %s", tensor->name);
        if (json_object_set_new(header, tensor->name, tensor_entry(tensor, offset, end)))
            return elbo_fail(error, ELBO_MEMORY, "safetensors: no memory for the header entry of %s", tensor->name);
        offset = end;
    }
    return ELBO_OK;
}

static elbo_status write_source(const struct sink *sink, const struct safetensors_tensor *tensor, void *piece,
                                elbo_error *error)
{
    size_t element = safetensors_dtype_bytes(tensor->dtype), left = safetensors_bytes(tensor) / element,
           at = tensor->at;
    while (left) {
        size_t n = left < SAFETENSORS_PIECE / element ? left : SAFETENSORS_PIECE / element;
        ELBO_TRY(tensor->source->read(tensor->source, piece, at, n, error));
        ELBO_TRY(sink_write(sink, piece, n * element, error));
        at += n;
        left -= n;
    }
    return ELBO_OK;
}

static elbo_status write_tensors(const struct sink *sink, const struct safetensors_tensor **sorted, size_t count,
                                 elbo_error *error)
{
    void *piece = malloc(SAFETENSORS_PIECE);
    elbo_status status =
        piece ? ELBO_OK
              : elbo_fail(error, ELBO_MEMORY, "safetensors: no memory for a piece of %d bytes", SAFETENSORS_PIECE);
    for (size_t i = 0; i < count && !status; i++)
        status = sorted[i]->source ? write_source(sink, sorted[i], piece, error)
                                   : sink_write(sink, sorted[i]->data, safetensors_bytes(sorted[i]), error);
    free(piece);
    return status;
}

static elbo_status write_sorted(const struct sink *sink, const struct safetensors_tensor **sorted, size_t count,
                                const char *json, elbo_error *error)
{
    static const char spaces[] = "        ";
    size_t length = strlen(json), padded = align_up(length, 8);
    if (padded > most_header_bytes)
        return elbo_fail(error, ELBO_INTERNAL, "safetensors: the header has %zu bytes, at most %zu are allowed", padded,
                         most_header_bytes);
    unsigned char n[8];
    for (size_t i = 0; i < 8; i++) n[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    ELBO_TRY(sink_write(sink, n, sizeof n, error));
    ELBO_TRY(sink_write(sink, json, length, error));
    ELBO_TRY(sink_write(sink, spaces, padded - length, error));
    return write_tensors(sink, sorted, count, error);
}

elbo_status safetensors_write(const struct sink *sink, const struct safetensors_tensor *tensors, size_t count,
                              const struct safetensors_note *notes, size_t note_count, elbo_error *error)
{
    const struct safetensors_tensor **sorted = calloc(count + 1, sizeof *sorted);
    json_t *header = json_object();
    char *json = NULL;
    elbo_status status;
    if (!sorted || !header) {
        status = elbo_fail(error, ELBO_MEMORY, "safetensors: no memory for the header of %zu tensors", count);
        goto done;
    }
    for (size_t i = 0; i < count; i++) sorted[i] = &tensors[i];
    qsort(sorted, count, sizeof *sorted, reference_order);
    status = build_header(header, sorted, count, notes, note_count, error);
    if (status) goto done;
    json = json_text(header, JSON_COMPACT);
    if (!json) {
        status = elbo_fail(error, ELBO_MEMORY, "safetensors: no memory for the header of %zu tensors", count);
        goto done;
    }
    status = write_sorted(sink, sorted, count, json, error);
done:
    free(json);
    json_decref(header);
    free(sorted);
    return status;
}

/* ---- reading ---- */

static bool integer_in_range(size_t *out, const json_t *value)
{
    if (!json_is_integer(value)) return false;
    json_int_t integer = json_integer_value(value);
    if (integer < 0 || integer > most_integer) return false;
    *out = (size_t)integer;
    return true;
}

static elbo_status read_entry(struct spot *spot, const char *name, const json_t *entry, elbo_error *error)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    if (!type || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
        return elbo_fail(error, ELBO_INPUT, "tensor %.200s: the header needs a dtype, a shape and two data_offsets",
                         name);
    struct safetensors_tensor *tensor = &spot->tensor;
    tensor->name = name;
    tensor->dtype = 0;
    while (tensor->dtype < SAFETENSORS_DTYPES && strcmp(type, dtypes[tensor->dtype].name)) tensor->dtype++;
    if (tensor->dtype == SAFETENSORS_DTYPES)
        return elbo_fail(error, ELBO_INPUT, "tensor %.200s: dtype %.40s is not one this program reads", name, type);
    tensor->rank = json_array_size(shape);
    if (tensor->rank > SAFETENSORS_MOST_DIMENSIONS)
        return elbo_fail(error, ELBO_INPUT, "tensor %.200s: has %zu dimensions, at most %d are read", name,
                         tensor->rank, SAFETENSORS_MOST_DIMENSIONS);
    for (size_t i = 0; i < tensor->rank; i++)
        if (!integer_in_range(&tensor->shape[i], json_array_get(shape, i)))
            return elbo_fail(error, ELBO_INPUT, "tensor %.200s: dimension %zu is not an integer from 0 to 2^48 - 1",
                             name, i);
    if (!integer_in_range(&spot->begin, json_array_get(offsets, 0)) ||
        !integer_in_range(&spot->end, json_array_get(offsets, 1)))
        return elbo_fail(error, ELBO_INPUT, "tensor %.200s: data_offsets are not integers from 0 to 2^48 - 1", name);
    return ELBO_OK;
}

static int offset_order(const void *a, const void *b)
{
    const struct spot *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->tensor.name, y->tensor.name);
}

/* Checks that the spots, sorted by offset, tile the buffer exactly. */
static elbo_status check_places(const struct spot *spots, size_t count, size_t start, size_t size, elbo_error *error)
{
    size_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const struct spot *spot = &spots[i];
        const char *name = spot->tensor.name;
        if (spot->begin != end)
            return elbo_fail(error, ELBO_INPUT, "tensor %.200s: begins at offset %zu, but %s %zu", name, spot->begin,
                             spot->begin < end ? "overlaps the one that ends at" : "leaves a hole after", end);
        if (spot->end < spot->begin)
            return elbo_fail(error, ELBO_INPUT, "tensor %.200s: ends at offset %zu, before its beginning %zu", name,
                             spot->end, spot->begin);
        size_t bytes;
        if (!tensor_bytes(&bytes, &spot->tensor))
            return elbo_fail(error, ELBO_INPUT, "tensor %.200s: the product of its dimensions overflows", name);
        if (spot->end - spot->begin != bytes)
            return elbo_fail(error, ELBO_INPUT, "tensor %.200s: offsets %zu to %zu hold %zu bytes, its shape needs %zu",
                             name, spot->begin, spot->end, spot->end - spot->begin, bytes);
        end = spot->end;
    }
    size_t expected;
    if (!checked_add(&expected, start, end) || expected != size)
        return elbo_fail(error, ELBO_INPUT, "the tensors end at offset %zu of %zu bytes: the file is %s", end,
                         size - start, end > size - start ? "truncated" : "longer than its tensors");
    return ELBO_OK;
}

static elbo_status read_header(struct safetensors *file, struct spot *spots, const unsigned char *bytes, size_t start,
                               size_t size, elbo_error *error)
{
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (!json_is_object(entry)) return elbo_fail(error, ELBO_INPUT, "header entry %.200s is not an object", name);
        if (!strcmp(name, "__metadata__")) {
            const char *key;
            json_t *value;
            json_object_foreach(entry, key, value)
            {
                if (!json_is_string(value))
                    return elbo_fail(error, ELBO_INPUT, "__metadata__ entry %.200s is not a string", key);
            }
            continue;
        }
        ELBO_TRY(read_entry(&spots[file->count], name, entry, error));
        file->count++;
    }
    qsort(spots, file->count, sizeof *spots, offset_order);
    ELBO_TRY(check_places(spots, file->count, start, size, error));
    for (size_t i = 0; i < file->count; i++) {
        file->tensors[i] = spots[i].tensor;
        file->tensors[i].at = start + spots[i].begin;
        if (bytes) file->tensors[i].data = bytes + file->tensors[i].at;
    }
    return ELBO_OK;
}

static int name_order(const void *a, const void *b, void *tensors)
{
    const struct safetensors_tensor *all = tensors;
    return strcmp(all[*(const size_t *)a].name, all[*(const size_t *)b].name);
}

/* Reads the header's length from the first nine bytes of a file of `size` bytes. */
static elbo_status header_bytes(size_t *out, const unsigned char b[9], uint64_t size, elbo_error *error)
{
    uint64_t n = 0;
    for (size_t i = 0; i < 8; i++) n |= (uint64_t)b[i] << (8 * i);
    if (n > most_header_bytes)
        return elbo_fail(error, ELBO_INPUT,
                         "the header claims %llu bytes, at most %zu are allowed: not a safetensors file",
                         (unsigned long long)n, most_header_bytes);
    if (n > size - 8)
        return elbo_fail(error, ELBO_INPUT, "the header claims %llu bytes, the file has %llu: it is truncated",
                         (unsigned long long)n, (unsigned long long)size - 8);
    if (n == 0 || b[8] != '{')
        return elbo_fail(error, ELBO_INPUT, "the header does not start with {: not a safetensors file");
    *out = (size_t)n;
    return ELBO_OK;
}

/* Parses the file's JSON `header`. `bytes` is the whole file, or null when a reader provides the bytes. */
static elbo_status parse_header(struct safetensors *file, const char *header, size_t n, const unsigned char *bytes,
                                size_t size, elbo_error *error)
{
    json_error_t reason;
    bool starved;
    file->header = json_read(header, n, JSON_REJECT_DUPLICATES, &reason, &starved);
    if (starved) return elbo_fail(error, ELBO_MEMORY, "no memory to read a header of %zu bytes", n);
    if (!json_is_object(file->header))
        return elbo_fail(error, ELBO_INPUT, "the header is not valid: byte %d: %s", reason.position, reason.text);
    size_t entries = json_object_size(file->header);
    file->tensors = calloc(entries + 1, sizeof *file->tensors);
    file->by_name = calloc(entries + 1, sizeof *file->by_name);
    struct spot *spots = calloc(entries + 1, sizeof *spots);
    elbo_status status = file->tensors && file->by_name && spots
                             ? read_header(file, spots, bytes, 8 + n, size, error)
                             : elbo_fail(error, ELBO_MEMORY, "no memory for %zu tensors", entries);
    free(spots);
    if (status) return status;
    for (size_t i = 0; i < file->count; i++) file->by_name[i] = i;
    qsort_r(file->by_name, file->count, sizeof *file->by_name, name_order, file->tensors);
    return ELBO_OK;
}

static elbo_status begin(struct safetensors **out, uint64_t size, elbo_error *error)
{
    if (size < 8)
        return elbo_fail(error, ELBO_INPUT, "%llu bytes are too few for a safetensors file", (unsigned long long)size);
    if (size > SIZE_MAX)
        return elbo_fail(error, ELBO_INPUT, "%llu bytes are too many for this machine", (unsigned long long)size);
    *out = calloc(1, sizeof **out);
    return *out ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for a safetensors header");
}

static elbo_status end(struct safetensors **out, struct safetensors *file, elbo_status status)
{
    if (status)
        safetensors_free(file);
    else
        *out = file;
    return status;
}

elbo_status safetensors_parse(struct safetensors **out, const void *bytes, size_t size, elbo_error *error)
{
    struct safetensors *file;
    size_t n = 0;
    ELBO_TRY(begin(&file, size, error));
    elbo_status status = header_bytes(&n, bytes, size, error);
    if (!status) status = parse_header(file, (const char *)bytes + 8, n, bytes, size, error);
    return end(out, file, status);
}

elbo_status safetensors_open(struct safetensors **out, const struct safetensors_reader *reader, elbo_error *error)
{
    struct safetensors *file;
    unsigned char first[9] = {0};
    char *header = NULL;
    size_t n = 0;
    ELBO_TRY(begin(&file, reader->size, error));
    file->reader = *reader;
    elbo_status status = reader->read(reader->context, first, 0, reader->size < sizeof first ? 8 : sizeof first, error);
    if (!status) status = header_bytes(&n, first, reader->size, error);
    if (!status && !(header = malloc(n)))
        status = elbo_fail(error, ELBO_MEMORY, "no memory for a header of %zu bytes", n);
    if (!status) status = reader->read(reader->context, header, 8, n, error);
    if (!status) status = parse_header(file, header, n, NULL, (size_t)reader->size, error);
    free(header);
    return end(out, file, status);
}

void safetensors_free(struct safetensors *file)
{
    if (!file) return;
    json_decref(file->header);
    free(file->tensors);
    free(file->by_name);
    free(file);
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct safetensors_tensor *tensor = &file->tensors[file->by_name[middle]];
        int order = strcmp(name, tensor->name);
        if (order == 0) return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *safetensors_note(const struct safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

/* Writes "F32 (3, 4)". */
static void describe(char *out, size_t size, const struct safetensors_tensor *tensor)
{
    size_t used = (size_t)snprintf(out, size, "%s (", dtypes[tensor->dtype].name);
    for (size_t i = 0; i < tensor->rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%zu", i ? ", " : "", tensor->shape[i]);
    if (used < size) snprintf(out + used, size - used, ")");
}

elbo_status safetensors_match(const struct safetensors_tensor **out, const struct safetensors *file,
                              const struct safetensors_tensor *wanted, elbo_error *error)
{
    const struct safetensors_tensor *found = safetensors_find(file, wanted->name);
    if (!found)
        return elbo_fail(error, ELBO_INPUT, "tensor %.200s is not in the file (which has %zu tensors)", wanted->name,
                         file->count);
    if (found->dtype != wanted->dtype || found->rank != wanted->rank ||
        memcmp(found->shape, wanted->shape, found->rank * sizeof *found->shape)) {
        char has[200], wants[200];
        describe(has, sizeof has, found);
        describe(wants, sizeof wants, wanted);
        return elbo_fail(error, ELBO_INPUT, "tensor %.200s is %s in the file, %s is wanted", wanted->name, has, wants);
    }
    *out = found;
    return ELBO_OK;
}

elbo_status safetensors_each_piece(const struct safetensors *file, const struct safetensors_tensor *tensor,
                                   safetensors_use use, void *context, elbo_error *error)
{
    size_t each = safetensors_dtype_bytes(tensor->dtype), left = safetensors_bytes(tensor) / each,
           most = SAFETENSORS_PIECE / each;
    char *buffer = file->reader.read && left ? malloc((left < most ? left : most) * each) : NULL;
    if (file->reader.read && left && !buffer)
        return elbo_fail(error, ELBO_MEMORY, "no memory to read tensor %.200s", tensor->name);
    elbo_status status = ELBO_OK;
    for (size_t first = 0, n; left && !status; first += n, left -= n) {
        n = left < most ? left : most;
        const void *data = buffer ? buffer : (const char *)tensor->data + first * each;
        if (buffer)
            status = file->reader.read(file->reader.context, buffer, tensor->at + first * each, n * each, error);
        if (!status) status = use(context, data, first, n, error);
    }
    free(buffer);
    return status;
}

struct copy {
    char *to;
    size_t each;
};

static elbo_status copy_piece(void *context, const void *data, size_t first, size_t elements, elbo_error *error)
{
    const struct copy *c = context;
    (void)error;
    memcpy(c->to + first * c->each, data, elements * c->each);
    return ELBO_OK;
}

elbo_status safetensors_copy(const struct safetensors *file, void *out, const struct safetensors_tensor *wanted,
                             elbo_error *error)
{
    const struct safetensors_tensor *found;
    struct copy c = {out, safetensors_dtype_bytes(wanted->dtype)};
    ELBO_TRY(safetensors_match(&found, file, wanted, error));
    return safetensors_each_piece(file, found, copy_piece, &c, error);
}
