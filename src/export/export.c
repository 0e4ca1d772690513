/* Writes exports: the folder, its files and tensors, and the table of formats. See export.h. */
#include "export/format.h"

#include "base/files.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MARK "elbo-export.json" /* marks a folder as an export */

static const struct export_format *const formats[] = {
    [EXPORT_HF] = &export_hf,   [EXPORT_ONNX] = &export_onnx, [EXPORT_GGUF] = &export_gguf,
    [EXPORT_F32] = &export_f32, [EXPORT_Q8] = &export_q8,     [EXPORT_Q4] = &export_q4};

/* ---- files ---- */

elbo_status export_text(const char *folder, const char *name, const char *text, size_t size, elbo_error *error)
{
    char path[FILES_PATH];
    ELBO_TRY(file_join(path, folder, name, error));
    return file_write_new(path, text, size, error);
}

elbo_status export_copy(const char *folder, const char *name, elbo_error *error)
{
    for (const struct export_file *f = export_files; f->name; f++)
        if (!strcmp(f->name, name)) return export_text(folder, name, (const char *)f->bytes, f->size, error);
    return elbo_fail(error, ELBO_INTERNAL, "this program has no %s", name);
}

elbo_status export_json(const char *folder, const char *name, json_t *root, elbo_error *error)
{
    char *text = json_text(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(root);
    if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory for %s", name);
    elbo_status status = export_text(folder, name, text, strlen(text), error);
    free(text);
    return status;
}

void export_print(struct export_words *words, const char *format, ...)
{
    char *piece;
    va_list args;
    va_start(args, format);
    int size = words->failed ? -1 : vasprintf(&piece, format, args);
    va_end(args);
    words->failed |= size < 0;
    if (words->failed) return;
    struct elbo_text *t = &words->text;
    char *grown = realloc(t->text, t->size + (size_t)size + 1);
    words->failed = !grown;
    if (grown) {
        t->text = grown;
        memcpy(t->text + t->size, piece, (size_t)size + 1);
        t->size += (size_t)size;
    }
    free(piece);
}

/* ---- tensors ---- */

static elbo_status starved(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY, "no memory for the list of the export's tensors");
}

/* Takes ownership of `memory`, even if it fails. */
static elbo_status own(struct export_tensors *t, void *memory, elbo_error *error)
{
    if (memory && t->owned_count == t->owned_room) {
        size_t room = 2 * t->owned_room + 64;
        void **grown = realloc(t->owned, room * sizeof *grown);
        if (!grown) {
            free(memory);
            return starved(error);
        }
        t->owned = grown;
        t->owned_room = room;
    }
    if (!memory) return starved(error);
    t->owned[t->owned_count++] = memory;
    return ELBO_OK;
}

static elbo_status add(struct export_tensors *t, const struct safetensors_tensor *tensor, const char *name,
                       elbo_error *error)
{
    if (t->count == t->room) {
        size_t room = 2 * t->room + 64;
        struct safetensors_tensor *grown = realloc(t->tensors, room * sizeof *grown);
        if (!grown) return starved(error);
        t->tensors = grown;
        t->room = room;
    }
    char *copy = strdup(name);
    ELBO_TRY(own(t, copy, error));
    t->tensors[t->count] = *tensor;
    t->tensors[t->count++].name = copy;
    return ELBO_OK;
}

void export_tensors_begin(struct export_tensors *t, const struct export_source *s)
{
    *t = (struct export_tensors){.arena = arena_of(s->model->backend, s->model->weights, DTYPE_F32)};
}

elbo_status export_tensors_keep(struct export_tensors *t, const struct parameter *p, const char *name,
                                elbo_error *error)
{
    struct safetensors_tensor tensor = arena_tensor(&t->arena, p, name);
    return add(t, &tensor, name, error);
}

elbo_status export_tensors_make(struct export_tensors *t, float **out, const char *name, size_t rows, size_t columns,
                                elbo_error *error)
{
    *out = calloc(rows * (columns ? columns : 1) + 1, sizeof **out);
    ELBO_TRY(own(t, *out, error));
    return add(t,
               &(struct safetensors_tensor){
                   .dtype = SAFETENSORS_F32, .rank = columns ? 2 : 1, .shape = {rows, columns}, .data = *out},
               name, error);
}

static elbo_status to_file(void *context, const void *bytes, size_t size, elbo_error *error)
{
    return file_append(context, bytes, size, error);
}

elbo_status export_tensors_write(const struct export_tensors *t, const char *folder, const char *name,
                                 elbo_error *error)
{
    char path[FILES_PATH];
    struct file_writer writer;
    const struct safetensors_note note = {"format", "pt"};
    ELBO_TRY(file_join(path, folder, name, error));
    ELBO_TRY(file_create(&writer, path, error));
    struct sink sink = {to_file, &writer};
    elbo_status status = safetensors_write(&sink, t->tensors, t->count, &note, 1, error);
    if (!status) status = file_seal(&writer, error);
    file_abort(&writer);
    return status;
}

void export_tensors_free(struct export_tensors *t)
{
    for (size_t i = 0; i < t->owned_count; i++) free(t->owned[i]);
    free(t->owned);
    free(t->tensors);
    *t = (struct export_tensors){0};
}

const float *export_weights(const struct export_source *s, const struct parameter **p, const char *format, ...)
{
    char name[128];
    size_t index;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    *p = NULL;
    if (!parameters_find(s->model->parameters, name, &index)) return NULL;
    *p = parameters_get(s->model->parameters, index);
    return s->model->weights + (*p)->offset;
}

/* ---- the folder ---- */

static bool is_export(const char *place)
{
    char path[FILES_PATH];
    elbo_error ignored;
    return !file_join(path, place, MARK, &ignored) && file_is_regular(path);
}

/* Whether `place` is an empty folder or missing. */
static bool is_free(const char *place)
{
    DIR *folder = opendir(place);
    bool found = false;
    if (!folder) return errno == ENOENT || errno == ENOTDIR; /* stage_open reports other problems with the path */
    for (const struct dirent *e; !found && (e = readdir(folder));)
        found = strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(folder);
    return !found;
}

elbo_status export_open(struct stage *stage, const char *folder, elbo_error *error)
{
    char place[FILES_PATH];
    ELBO_TRY(stage_place(place, folder, error));
    if (!is_free(place) && !is_export(place))
        return elbo_fail(error, ELBO_USAGE,
                         "%s holds what no export has written (there is no " MARK
                         " in it), and is left alone; give another --out",
                         folder);
    return stage_open(stage, folder, error);
}

elbo_status export_mark(const struct stage *stage, const char *kind, elbo_error *error)
{
    return export_json(stage->work, MARK,
                       json_pack("{s:s, s:i, s:s}", "format", "elbo-export", "version", 1, "kind", kind), error);
}

elbo_status export_write(const struct export_source *source, const struct export_options *options, const char *folder,
                         elbo_error *error)
{
    struct stage stage;
    const struct export_format *format = formats[options->format];
    if (options->bits != 32 && !format->bits)
        return elbo_fail(error, ELBO_USAGE, "--format=%s has weights of 32 bits only; leave --bits out", format->name);
    if (format->check) ELBO_TRY(format->check(source, options, error));
    ELBO_TRY(export_open(&stage, folder, error));
    elbo_status status = format->write(source, options, stage.work, error);
    if (!status) status = export_mark(&stage, format->name, error);
    if (!status && options->check) status = options->check(options->context, stage.work, error);
    if (!status) status = stage_commit(&stage, error);
    stage_close(&stage);
    return status;
}
