/* Making a corpus out of text: one pass over the lines to learn the vocabulary from the train part, one to write ids.
 *
 * Tokens stream into corpus.bin; what is known per sentence (length, words, bytes: 12 bytes) stays in memory until the
 * end, when the header is filled in. The manifest is written last, so that a folder without one is not a corpus. */
#include "base/files.h"
#include "base/sealed.h"
#include "elbo/corpus.h"
#include "text/corpus_format.h"
#include "text/lines.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct part { /* a corpus while it is written */
    struct elbo_prepare_part *report;
    double to;                     /* end of its share of the hashes, 0 .. 1          */
    char folder[FILES_PATH];
    struct file_writer writer;
    uint32_t *rows;                /* (3, capacity in use) length, words, bytes       */
    size_t capacity;
};

struct preparation {
    const struct elbo_prepare_options *options;
    struct elbo_prepare_report *report;
    elbo_prepare_progress progress;
    void *context;
    struct line_source *sources;   /* (input_count) */
    struct part parts[ELBO_PREPARE_PARTS];
    struct elbo_tokenizer_trainer *trainer;
    struct elbo_tokenizer *tokenizer;
    struct elbo_text repaired;
    struct elbo_ids ids;
};

typedef elbo_status (*use_sentence)(struct preparation *p, struct part *part, const char *text, size_t size,
                                    elbo_error *error);

/* ---- the split ---- */

static elbo_status bad_split(const char *split, elbo_error *error)
{
    return elbo_fail(error, ELBO_USAGE, "--split=%.100s is not three percentages that sum to 100; write it like "
                     "95/2.5/2.5", split);
}

static elbo_status part_folder(struct part *part, const char *out, elbo_error *error)
{
    size_t size = strlen(out);
    if (size >= FILES_PATH) return elbo_fail(error, ELBO_USAGE, "--out is longer than %d bytes", FILES_PATH - 1);
    memcpy(part->folder, out, size + 1);
    return ELBO_OK;
}

static elbo_status plan_parts(struct preparation *p, elbo_error *error)
{
    const char *split = p->options->split;
    if (!split || !*split) {
        p->report->part_count = 1;
        p->parts[0].report = &p->report->parts[0];
        p->parts[0].to = 1;
        return part_folder(&p->parts[0], p->options->out, error);
    }
    double share[ELBO_PREPARE_PARTS], sum = 0;
    const char *at = split;
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) {
        char *end;
        if (!((*at >= '0' && *at <= '9') || *at == '.')) return bad_split(split, error);
        share[i] = strtod(at, &end);
        if (!isfinite(share[i]) || share[i] < 0 || *end != (i < ELBO_PREPARE_PARTS - 1 ? '/' : 0))
            return bad_split(split, error);
        sum += share[i];
        at = end + 1;
    }
    if (fabs(sum - 100) > 1e-6 || share[0] == 0) return bad_split(split, error);
    static const char *const names[ELBO_PREPARE_PARTS] = {"train", "valid", "test"};
    double from = 0;
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) {
        double to = i == ELBO_PREPARE_PARTS - 1 ? 1 : from + share[i] / 100;
        if (share[i] > 0) {
            struct part *part = &p->parts[p->report->part_count];
            part->report = &p->report->parts[p->report->part_count++];
            part->to = to;
            strcpy(part->report->name, names[i]);
            ELBO_TRY(file_join(part->folder, p->options->out, names[i], error));
        }
        from = to;
    }
    /* rounding must not leave a hash to nobody */
    p->parts[p->report->part_count - 1].to = 1;
    return ELBO_OK;
}

/* A sentence's part follows from its bytes alone: copies stay together, whatever the order of the input. */
static struct part *part_of(struct preparation *p, const char *text, size_t size)
{
    double place = (double)(XXH3_64bits(text, size) >> 11) * 0x1p-53;
    size_t i = 0;
    while (i + 1 < p->report->part_count && place >= p->parts[i].to) i++;
    return &p->parts[i];
}

/* ---- the lines ---- */

static elbo_status each_sentence(struct preparation *p, const char *what, use_sentence use, elbo_error *error)
{
    struct elbo_prepare_report *report = p->report;
    size_t total = 0, before = 0;
    report->lines = report->blank_lines = report->replaced = report->replaced_lines = 0;
    for (size_t i = 0; i < p->options->input_count; i++) total += p->sources[i].size;
    for (size_t i = 0; i < p->options->input_count; i++) {
        const struct line_source *source = &p->sources[i];
        struct line line = {0};
        for (size_t at = 0; line_next(&line, source, &at);) {
            size_t replaced, bad;
            report->lines++;
            if (p->progress && report->lines % 4096 == 0)
                p->progress(p->context, (double)(before + at) / (double)total, what);
            if (!elbo_text_words(line.text, line.size)) {
                report->blank_lines++;
                continue;
            }
            if (line.size > UINT32_MAX / 4)
                return elbo_fail(error, ELBO_INPUT, "%s:%zu: a line of %zu bytes is too long; one sentence a line, at "
                                 "most %u bytes", source->name, line.number, line.size, UINT32_MAX / 4);
            ELBO_TRY(elbo_text_repair(&p->repaired, &replaced, &bad, line.text, line.size, error));
            if (replaced && p->options->strict)
                return elbo_fail(error, ELBO_INPUT, "%s:%zu:%zu: the byte 0x%02x is not valid UTF-8; correct the file, "
                                 "or leave out --strict to replace it by U+FFFD", source->name, line.number, bad + 1,
                                 (unsigned char)line.text[bad]);
            report->replaced += replaced;
            report->replaced_lines += replaced > 0;
            ELBO_TRY(use(p, part_of(p, p->repaired.text, p->repaired.size), p->repaired.text, p->repaired.size, error));
        }
        before += source->size;
    }
    return ELBO_OK;
}

/* ---- the vocabulary ---- */

static elbo_status learn_sentence(struct preparation *p, struct part *part, const char *text, size_t size,
                                  elbo_error *error)
{
    part->report->sentences++;
    if (part != &p->parts[0] || !p->trainer) return ELBO_OK;
    return elbo_tokenizer_trainer_add(p->trainer, text, size, error);
}

static elbo_status check_counts(const struct preparation *p, elbo_error *error)
{
    size_t sentences = 0;
    for (size_t i = 0; i < p->report->part_count; i++) sentences += p->parts[i].report->sentences;
    if (!sentences)
        return elbo_fail(error, ELBO_INPUT, "%s%s holds no sentences: all %zu lines are blank", p->sources[0].name,
                         p->options->input_count > 1 ? " (and the other inputs)" : "", p->report->lines);
    for (size_t i = 0; i < p->report->part_count; i++)
        if (!p->parts[i].report->sentences)
            return elbo_fail(error, ELBO_INPUT, "--split=%s leaves no sentence to '%s' of the %zu there are; give it a "
                             "larger share, or more text", p->options->split, p->parts[i].report->name, sentences);
    return ELBO_OK;
}

static elbo_status make_tokenizer(struct preparation *p, elbo_error *error)
{
    const char *from = p->options->tokenizer_from;
    bool reuse = from && *from;
    if (reuse)
        ELBO_TRY(elbo_tokenizer_find(&p->tokenizer, from, error));
    else
        ELBO_TRY(elbo_tokenizer_trainer_open(&p->trainer, p->options->tokenizer_kind, p->options->tokenizer_size, error));
    ELBO_TRY(each_sentence(p, reuse ? "counting" : "learning the vocabulary", learn_sentence, error));
    ELBO_TRY(check_counts(p, error));
    if (!reuse) ELBO_TRY(elbo_tokenizer_trainer_finish(p->trainer, &p->tokenizer, error));
    elbo_tokenizer_trainer_close(p->trainer);
    p->trainer = NULL;
    p->report->vocabulary = elbo_tokenizer_vocabulary(p->tokenizer);
    return ELBO_OK;
}

/* ---- writing ---- */

static size_t token_bytes(const struct preparation *p)
{
    return p->report->vocabulary <= 65536 ? 2 : 4;
}

static elbo_status pad(struct file_writer *writer, elbo_error *error)
{
    static const char zeros[CORPUS_ALIGNMENT];
    return file_append(writer, zeros, (size_t)(-writer->written % CORPUS_ALIGNMENT), error);
}

static elbo_status begin_part(struct part *part, elbo_error *error)
{
    char path[FILES_PATH];
    part->capacity = part->report->sentences;
    part->report->sentences = 0;
    part->rows = malloc(3 * part->capacity * sizeof *part->rows);
    if (!part->rows) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu sentences", part->capacity);
    ELBO_TRY(file_make_folder(part->folder, error));
    /* from here to the new manifest, what lies there is no corpus */
    ELBO_TRY(file_join(path, part->folder, CORPUS_MANIFEST, error));
    ELBO_TRY(file_remove(path, error));
    ELBO_TRY(file_join(path, part->folder, CORPUS_FILE, error));
    ELBO_TRY(file_replace(&part->writer, path, error));
    return file_append(&part->writer, &(struct corpus_header){0}, sizeof(struct corpus_header), error);
}

static elbo_status write_sentence(struct preparation *p, struct part *part, const char *text, size_t size,
                                  elbo_error *error)
{
    struct elbo_prepare_part *report = part->report;
    ELBO_TRY(elbo_tokenizer_encode(p->tokenizer, &p->ids, text, size, error));
    uint32_t unknown = elbo_tokenizer_marks(p->tokenizer)->unknown;
    for (size_t i = 0; i < p->ids.count; i++) {
        uint32_t id = p->ids.ids[i];
        report->unknown += id == unknown;
        uint16_t narrow = (uint16_t)id;
        ELBO_TRY(token_bytes(p) == 2 ? file_append(&part->writer, &narrow, sizeof narrow, error)
                                     : file_append(&part->writer, &id, sizeof id, error));
    }
    if (report->sentences == part->capacity)
        return elbo_fail(error, ELBO_INPUT, "an input changed while it was read; try again");
    uint32_t *row = part->rows + report->sentences++;
    size_t words = elbo_text_words(text, size);
    row[0] = (uint32_t)p->ids.count;
    row[part->capacity] = (uint32_t)words;
    row[2 * part->capacity] = (uint32_t)size + 1;
    report->tokens += p->ids.count;
    report->words += words;
    report->bytes += size + 1;
    if (p->ids.count > report->longest) report->longest = p->ids.count;
    return ELBO_OK;
}

static elbo_status finish_file(struct preparation *p, struct part *part, elbo_error *error)
{
    const struct elbo_prepare_part *report = part->report;
    struct file_writer *writer = &part->writer;
    struct corpus_header header = {
        .magic = CORPUS_MAGIC, .version = CORPUS_VERSION, .streams = 1,
        .sentences = report->sentences, .words = report->words, .bytes = report->bytes,
        .stream[0] = {.vocabulary = p->report->vocabulary, .tokens = report->tokens, .token_bytes = token_bytes(p),
                      .longest = report->longest, .unknown = report->unknown},
    };
    if (report->sentences != part->capacity)
        return elbo_fail(error, ELBO_INPUT, "an input changed while it was read; try again");
    if (!corpus_lay_out(&header)) return elbo_fail(error, ELBO_INPUT, "%s would be too large", part->folder);
    ELBO_TRY(pad(writer, error));
    uint64_t offset = 0;
    ELBO_TRY(file_append(writer, &offset, sizeof offset, error));
    for (size_t i = 0; i < report->sentences; i++) {
        offset += part->rows[i];
        ELBO_TRY(file_append(writer, &offset, sizeof offset, error));
    }
    for (size_t c = 1; c < 3; c++) {
        ELBO_TRY(pad(writer, error));
        ELBO_TRY(file_append(writer, part->rows + c * part->capacity, report->sentences * sizeof *part->rows, error));
    }
    ELBO_TRY(pad(writer, error));
    if (writer->written != header.file_bytes)
        return elbo_fail(error, ELBO_INTERNAL, "%s: wrote %" PRIu64 " bytes of %" PRIu64, part->folder, writer->written,
                         header.file_bytes);
    ELBO_TRY(file_patch(writer, 0, &header, sizeof header, error));
    return file_commit(writer, error);
}

static elbo_status describe_file(json_t *files, const char *folder, const char *name, elbo_error *error)
{
    char path[FILES_PATH], hash[17];
    struct file_map map;
    ELBO_TRY(file_join(path, folder, name, error));
    ELBO_TRY(file_map_open(&map, path, error));
    snprintf(hash, sizeof hash, "%016" PRIx64, (uint64_t)XXH3_64bits(map.size ? (const void *)map.data : "", map.size));
    json_t *chunks = json_array();
    int failed = 0;
    for (size_t at = 0; at < map.size; at += SEALED_CHUNK) {
        size_t size = map.size - at < SEALED_CHUNK ? map.size - at : SEALED_CHUNK;
        failed |= json_array_append_new(chunks, sealed_hex(XXH3_64bits(map.data + at, size)));
    }
    json_t *entry = json_pack("{s:I, s:s, s:o}", "bytes", (json_int_t)map.size, "xxh3", hash, "chunks", chunks);
    failed |= json_object_set_new(files, name, entry);
    file_map_close(&map);
    return failed ? elbo_fail(error, ELBO_MEMORY, "no memory for the manifest of %s", folder) : ELBO_OK;
}

static elbo_status write_manifest(struct preparation *p, struct part *part, elbo_error *error)
{
    const struct elbo_prepare_part *report = part->report;
    char path[FILES_PATH];
    json_t *files = json_object();
    elbo_status status = describe_file(files, part->folder, CORPUS_FILE, error);
    if (status == ELBO_OK) status = describe_file(files, part->folder, CORPUS_TOKENIZER, error);
    if (status == ELBO_OK) status = file_join(path, part->folder, CORPUS_MANIFEST, error);
    if (status != ELBO_OK) {
        json_decref(files);
        return status;
    }
    const char *kind = elbo_tokenizer_kind_name(elbo_tokenizer_kind(p->tokenizer));
    json_t *manifest = json_pack(
        "{s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:o}", "format", CORPUS_FORMAT, "version",
        CORPUS_VERSION, "part", report->name, "sentences", (json_int_t)report->sentences, "tokens",
        (json_int_t)report->tokens, "words", (json_int_t)report->words, "bytes", (json_int_t)report->bytes, "longest",
        (json_int_t)report->longest, "unknown", (json_int_t)report->unknown, "vocabulary",
        (json_int_t)p->report->vocabulary, "tokenizer", kind, "blank_lines_of_all_parts",
        (json_int_t)p->report->blank_lines, "replaced_of_all_parts", (json_int_t)p->report->replaced, "files", files);
    char *text;
    size_t size;
    status = sealed_compose(&text, &size, manifest, "the manifest of a corpus", error);
    json_decref(manifest);
    ELBO_TRY(status);
    status = file_write(path, text, size, error);
    free(text);
    return status;
}

static elbo_status write_parts(struct preparation *p, elbo_error *error)
{
    size_t count = p->report->part_count;
    char path[FILES_PATH];
    ELBO_TRY(file_make_folder(p->options->out, error));
    /* a corpus that lay where the parts go now is gone with its manifest */
    ELBO_TRY(file_join(path, p->options->out, CORPUS_MANIFEST, error));
    ELBO_TRY(file_remove(path, error));
    for (size_t i = 0; i < count; i++) ELBO_TRY(begin_part(&p->parts[i], error));
    ELBO_TRY(each_sentence(p, "writing tokens", write_sentence, error));
    for (size_t i = 0; i < count; i++) {
        struct part *part = &p->parts[i];
        ELBO_TRY(finish_file(p, part, error));
        ELBO_TRY(file_join(path, part->folder, CORPUS_TOKENIZER, error));
        ELBO_TRY(elbo_tokenizer_save(p->tokenizer, path, error));
        ELBO_TRY(write_manifest(p, part, error));
    }
    return ELBO_OK;
}

static elbo_status run(struct preparation *p, elbo_error *error)
{
    const struct elbo_prepare_options *options = p->options;
    if (!options->input_count)
        return elbo_fail(error, ELBO_USAGE, "no text to prepare; name one or more files, or - for standard input");
    if (!options->out || !*options->out)
        return elbo_fail(error, ELBO_USAGE, "--out is missing; name the folder of the corpus, such as --out=corpus");
    ELBO_TRY(plan_parts(p, error));
    for (size_t i = 0; i < options->input_count; i++)
        ELBO_TRY(line_source_open(&p->sources[i], options->inputs[i], error));
    ELBO_TRY(make_tokenizer(p, error));
    return write_parts(p, error);
}

elbo_status elbo_prepare(const struct elbo_prepare_options *options, struct elbo_prepare_report *report,
                         elbo_prepare_progress progress, void *context, elbo_error *error)
{
    struct preparation *p = calloc(1, sizeof *p);
    struct line_source *sources = calloc(options->input_count + 1, sizeof *sources);
    if (!p || !sources) {
        free(p);
        free(sources);
        return elbo_fail(error, ELBO_MEMORY, "no memory to prepare a corpus");
    }
    *report = (struct elbo_prepare_report){0};
    *p = (struct preparation){.options = options, .report = report, .progress = progress, .context = context,
                              .sources = sources};
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) p->parts[i].writer.descriptor = -1;
    elbo_status status = run(p, error);
    for (size_t i = 0; i < options->input_count; i++) line_source_close(&sources[i]);
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) {
        file_abort(&p->parts[i].writer);
        free(p->parts[i].rows);
    }
    elbo_tokenizer_trainer_close(p->trainer);
    elbo_tokenizer_close(p->tokenizer);
    elbo_ids_free(&p->ids);
    elbo_text_free(&p->repaired);
    free(sources);
    free(p);
    return status;
}
