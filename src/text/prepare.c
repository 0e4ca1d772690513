/* Makes a corpus from text in two or three passes over the lines:
 *
 *   learning   counts sentences, and learns the vocabulary from those whose place is in train's range (text/split.h)
 *   settling   with a split and unknown words: notes the parts of sentences with unknown words
 *   writing    ids stream into the parts' corpus.bin (text/corpus_write.h)
 *
 * The files are written into a folder beside the corpus' path. At the end that folder takes the path as a whole
 * (base/stage.h). */
#include "base/stage.h"
#include "elbo/corpus.h"
#include "text/corpus_format.h"
#include "text/corpus_write.h"
#include "text/labels.h"
#include "text/lines.h"
#include "text/split.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct preparation {
    const struct elbo_prepare_options *options;
    struct elbo_prepare_report *report;
    elbo_prepare_progress progress;
    void *context;
    struct line_source *sources; /* (input_count) */
    struct line_source label_source;
    struct labels labels;
    struct label_text label;     /* label of the current sentence; empty without labels */
    struct elbo_text label_line; /* the repaired line of labels that `label` points into */
    struct split split;
    uint8_t *part; /* (part_room) part of each sentence's place; only with a split */
    size_t part_room;
    size_t sentence; /* number of the current sentence in this pass */
    struct corpus_writer writers[ELBO_PREPARE_PARTS];
    struct stage stage;
    struct elbo_tokenizer_trainer *trainer;
    struct elbo_tokenizer *tokenizer;
    struct elbo_text repaired;
    struct elbo_ids ids;
};

/* `part` is the part that the sentence's place is in. */
typedef elbo_status (*use_sentence)(struct preparation *p, size_t part, const char *text, size_t size,
                                    elbo_error *error);

/* ---- the lines ---- */

static bool is_blank(const char *text, size_t size)
{
    while (size && is_space(text[size - 1])) size--;
    return !size;
}

/* Finds the part of a sentence in the first pass and looks it up in later ones. */
static elbo_status part_of(struct preparation *p, size_t *part, const char *text, size_t size, bool first,
                           elbo_error *error)
{
    size_t i = p->sentence++;
    *part = 0;
    if (p->split.count == 1) return ELBO_OK;
    if (i >= p->part_room) { /* true in a later pass only if an input changed, which the end of the pass reports */
        size_t room = p->part_room ? 2 * p->part_room : 1 << 12;
        uint8_t *larger = realloc(p->part, room);
        if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for the parts of %zu sentences", room);
        memset(larger + p->part_room, 0, room - p->part_room);
        p->part = larger;
        p->part_room = room;
    }
    if (first) {
        ELBO_TRY(split_part(&p->split, part, text, size, error));
        p->part[i] = (uint8_t)*part;
    }
    *part = p->part[i];
    return ELBO_OK;
}

/* ---- labels ---- */

static bool has_label_file(const struct preparation *p)
{
    return p->options->labels && *p->options->labels;
}

/* Reads the line of labels for a line of text; *more is false if there is none. */
static elbo_status read_label(struct preparation *p, bool *more, elbo_error *error)
{
    struct line line;
    size_t replaced, bad;
    p->label = (struct label_text){0};
    ELBO_TRY(line_next(more, &line, &p->label_source, error));
    if (!*more) return ELBO_OK;
    ELBO_TRY(elbo_text_repair(&p->label_line, &replaced, &bad, line.text, line.size, error));
    p->label = label_trim((struct label_text){p->label_line.text, p->label_line.size});
    return ELBO_OK;
}

static elbo_status fewer_labels(const struct preparation *p, const struct line_source *source, elbo_error *error)
{
    return elbo_fail(error, ELBO_INPUT,
                     "%s has %zu lines, and %s:%zu is line %zu of the text; give a label for each line, blank ones too",
                     p->label_source.name, p->label_source.number, source->name, source->number, p->report->lines);
}

/* Checks that the file of labels has no more lines than the text. */
static elbo_status no_more_labels(struct preparation *p, elbo_error *error)
{
    bool more;
    if (!has_label_file(p)) return ELBO_OK;
    ELBO_TRY(read_label(p, &more, error));
    if (!more) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT,
                     "%s has more than the text's %zu lines; give a label for each line, blank ones too",
                     p->label_source.name, p->report->lines);
}

/* Finds the label of a line that is not blank, and the rest of the line. */
static elbo_status find_label(struct preparation *p, const struct line_source *source, const struct line *line,
                              const char **text, size_t *size, elbo_error *error)
{
    int column = (int)p->options->label_column;
    const char *where = column ? source->name : p->label_source.name;
    size_t number = column ? line->number : p->label_source.number;
    struct label_text label = p->label, sentence = {*text, *size};
    if (!column && !has_label_file(p)) return ELBO_OK;
    if (column && !label_cut(&label, &sentence, *text, *size, column))
        return elbo_fail(error, ELBO_INPUT,
                         "%s:%zu: the line has no TAB, and --label_column=%s wants a label in the %s of two fields",
                         where, number, column == ELBO_LABEL_FIRST ? "first" : "last",
                         column == ELBO_LABEL_FIRST ? "first" : "last");
    p->label = label_trim(label);
    *text = sentence.text;
    *size = sentence.size;
    if (is_blank(*text, *size)) return ELBO_OK;
    if (!p->label.size) return elbo_fail(error, ELBO_INPUT, "%s:%zu: the label is empty", where, number);
    if (p->label.size > LABEL_LONGEST || memchr(p->label.text, 0, p->label.size) ||
        memchr(p->label.text, '\t', p->label.size) || memchr(p->label.text, '\r', p->label.size))
        return elbo_fail(error, ELBO_INPUT,
                         "%s:%zu: the label '%.40s' has more than %d bytes, or a control character; give a name", where,
                         number, p->label.text, LABEL_LONGEST);
    return ELBO_OK;
}

static elbo_status use_line(struct preparation *p, const struct line_source *source, const struct line *line,
                            bool first, use_sentence use, elbo_error *error)
{
    struct elbo_prepare_report *report = p->report;
    size_t replaced, bad, part;
    report->lines++;
    ELBO_TRY(elbo_text_repair(&p->repaired, &replaced, &bad, line->text, line->size, error));
    const char *text = p->repaired.text;
    size_t size = p->repaired.size;
    if (has_label_file(p)) {
        bool more;
        ELBO_TRY(read_label(p, &more, error));
        if (!more) return fewer_labels(p, source, error);
    }
    if (!is_blank(text, size)) ELBO_TRY(find_label(p, source, line, &text, &size, error));
    if (is_blank(text, size)) {
        report->blank_lines++;
        return ELBO_OK;
    }
    if (replaced && p->options->strict)
        return elbo_fail(error, ELBO_INPUT,
                         "%s:%zu:%zu: the byte 0x%02x is not valid UTF-8; correct the file, or leave "
                         "out --strict to replace it by U+FFFD",
                         source->name, line->number, bad + 1, (unsigned char)line->text[bad]);
    report->replaced += replaced;
    report->replaced_lines += replaced > 0;
    ELBO_TRY(part_of(p, &part, text, size, first, error));
    return use(p, part, text, size, error);
}

static elbo_status each_sentence(struct preparation *p, const char *what, bool first, use_sentence use,
                                 elbo_error *error)
{
    struct elbo_prepare_report *report = p->report;
    size_t total = 0, before = 0;
    p->sentence = 0;
    report->lines = report->blank_lines = report->replaced = report->replaced_lines = 0;
    for (size_t i = 0; i < p->options->input_count; i++) total += p->sources[i].size;
    if (has_label_file(p)) line_source_rewind(&p->label_source);
    for (size_t i = 0; i < p->options->input_count; i++) {
        struct line_source *source = &p->sources[i];
        struct line line;
        bool more;
        line_source_rewind(source);
        for (;;) {
            ELBO_TRY(line_next(&more, &line, source, error));
            if (!more) break;
            ELBO_TRY(use_line(p, source, &line, first, use, error));
            if (p->progress && report->lines % 4096 == 0)
                p->progress(p->context, (double)(before + source->at) / (double)total, what);
        }
        before += source->size;
    }
    return no_more_labels(p, error);
}

/* ---- the passes ---- */

static elbo_status learn_sentence(struct preparation *p, size_t part, const char *text, size_t size, elbo_error *error)
{
    p->report->parts[part].sentences++;
    if (p->label.size) ELBO_TRY(labels_add(&p->labels, p->label.text, p->label.size, error));
    return part || !p->trainer ? ELBO_OK : elbo_tokenizer_trainer_add(p->trainer, text, size, error);
}

static bool has_unknown(const struct preparation *p)
{
    uint32_t unknown = elbo_tokenizer_marks(p->tokenizer)->unknown;
    for (size_t i = 0; i < p->ids.count; i++)
        if (p->ids.ids[i] == unknown) return true;
    return false;
}

static elbo_status settle_sentence(struct preparation *p, size_t part, const char *text, size_t size, elbo_error *error)
{
    ELBO_TRY(elbo_tokenizer_encode(p->tokenizer, &p->ids, text, size, error));
    return has_unknown(p) ? split_note(&p->split, part, &p->ids, error) : ELBO_OK;
}

static elbo_status write_sentence(struct preparation *p, size_t part, const char *text, size_t size, elbo_error *error)
{
    uint32_t unknown = elbo_tokenizer_marks(p->tokenizer)->unknown;
    ELBO_TRY(elbo_tokenizer_encode(p->tokenizer, &p->ids, text, size, error));
    if (part && has_unknown(p)) part = split_noted(&p->split, part, &p->ids);
    uint32_t label = labels_find(&p->labels, p->label.text, p->label.size);
    return corpus_writer_add(&p->writers[part], &p->ids, unknown, elbo_text_words(text, size), size + 1, label, error);
}

/* Checks that every part has sentences. */
static elbo_status check_counts(const struct preparation *p, elbo_error *error)
{
    size_t sentences = 0;
    for (size_t i = 0; i < p->split.count; i++) sentences += p->report->parts[i].sentences;
    if (!sentences)
        return elbo_fail(error, ELBO_INPUT, "%s%s holds no sentences: all %zu lines are blank", p->sources[0].name,
                         p->options->input_count > 1 ? " (and the other inputs)" : "", p->report->lines);
    for (size_t i = 0; i < p->split.count; i++)
        if (!p->report->parts[i].sentences)
            return elbo_fail(error, ELBO_INPUT,
                             "--split=%s leaves no sentence to '%s' of the %zu there are%s; give it a "
                             "larger share, or more text",
                             p->options->split, p->split.parts[i].name, sentences,
                             p->split.used ? " (those that differ only in unknown words are kept together)" : "");
    return ELBO_OK;
}

static elbo_status make_tokenizer(struct preparation *p, elbo_error *error)
{
    ELBO_TRY(each_sentence(p, p->trainer ? "learning the vocabulary" : "counting", true, learn_sentence, error));
    ELBO_TRY(check_counts(p, error));
    if (p->trainer) ELBO_TRY(elbo_tokenizer_trainer_finish(p->trainer, &p->tokenizer, error));
    elbo_tokenizer_trainer_close(p->trainer);
    p->trainer = NULL;
    p->report->classes = p->labels.count;
    p->report->vocabulary = elbo_tokenizer_vocabulary(p->tokenizer);
    p->report->tokenizer = elbo_tokenizer_kind(p->tokenizer);
    /* Only a word tokenizer has unknown words; the others have a token for every byte. */
    if (p->split.count > 1 && elbo_tokenizer_kind(p->tokenizer) == ELBO_TOKENIZER_WORD)
        ELBO_TRY(each_sentence(p, "splitting", false, settle_sentence, error));
    return ELBO_OK;
}

/* ---- the files ---- */

static elbo_status open_part(struct preparation *p, size_t i, elbo_error *error)
{
    struct elbo_prepare_part *part = &p->report->parts[i];
    char folder[FILES_PATH];
    *part = (struct elbo_prepare_part){0};
    strcpy(part->name, p->split.parts[i].name);
    if (!*part->name) return corpus_writer_open(&p->writers[i], part, p->stage.work, p->report->vocabulary, error);
    ELBO_TRY(file_join(folder, p->stage.work, part->name, error));
    ELBO_TRY(file_make_folder(folder, error));
    return corpus_writer_open(&p->writers[i], part, folder, p->report->vocabulary, error);
}

static elbo_status write_manifests(struct preparation *p, elbo_error *error)
{
    const char *kind = elbo_tokenizer_kind_name(elbo_tokenizer_kind(p->tokenizer));
    struct corpus_split split = {.count = p->split.count};
    bool parts = *p->split.parts[0].name;
    strcpy(split.tokenizer, p->writers[0].tokenizer_hash);
    for (size_t i = 0; i < split.count; i++) {
        strcpy(split.parts[i].name, p->split.parts[i].name);
        strcpy(split.parts[i].corpus, p->writers[i].hash);
    }
    if (parts) corpus_split_name(&split);
    for (size_t i = 0; i < split.count; i++)
        ELBO_TRY(corpus_writer_manifest(&p->writers[i], p->report, split.set, kind, &p->labels, error));
    return parts ? corpus_write_split(&split, p->stage.work, error) : ELBO_OK;
}

static elbo_status write_parts(struct preparation *p, elbo_error *error)
{
    size_t count = p->split.count;
    for (size_t i = 0; i < count; i++) ELBO_TRY(open_part(p, i, error));
    ELBO_TRY(each_sentence(p, "writing tokens", false, write_sentence, error));
    ELBO_TRY(check_counts(p, error));
    for (size_t i = 0; i < count; i++) ELBO_TRY(corpus_writer_finish(&p->writers[i], p->tokenizer, &p->labels, error));
    ELBO_TRY(write_manifests(p, error));
    ELBO_TRY(corpus_may_replace(p->stage.place, error)); /* again, because the folder may have changed */
    return stage_commit(&p->stage, error);
}

/* ---- the whole preparation ---- */

/* Refuses bad options and inputs before anything is written. */
static elbo_status check(struct preparation *p, elbo_error *error)
{
    const struct elbo_prepare_options *options = p->options;
    const char *from = options->tokenizer_from;
    char place[FILES_PATH];
    if (!options->input_count)
        return elbo_fail(error, ELBO_USAGE, "no text to prepare; name one or more files, or - for standard input");
    if (!options->out || !*options->out)
        return elbo_fail(error, ELBO_USAGE, "--out is missing; name the folder of the corpus, such as --out=corpus");
    if (has_label_file(p) && options->label_column)
        return elbo_fail(error, ELBO_USAGE,
                         "--labels=%s and --label_column both say where labels are; give one of them", options->labels);
    if (has_label_file(p) && !strcmp(options->labels, "-"))
        for (size_t i = 0; i < options->input_count; i++)
            if (!strcmp(options->inputs[i], "-"))
                return elbo_fail(error, ELBO_USAGE, "standard input cannot be the text and its labels; name a file");
    ELBO_TRY(split_open(&p->split, options->split, error));
    p->report->part_count = p->split.count;
    if (from && *from)
        ELBO_TRY(elbo_tokenizer_find(&p->tokenizer, from, error));
    else
        ELBO_TRY(elbo_tokenizer_trainer_open(&p->trainer, options->tokenizer_kind, options->tokenizer_size, error));
    ELBO_TRY(stage_place(place, options->out, error));
    ELBO_TRY(corpus_may_replace(place, error));
    for (size_t i = 0; i < options->input_count; i++)
        ELBO_TRY(options->label_column ? line_source_open_table(&p->sources[i], options->inputs[i], error)
                                       : line_source_open(&p->sources[i], options->inputs[i], error));
    if (has_label_file(p)) ELBO_TRY(line_source_open_table(&p->label_source, options->labels, error));
    return ELBO_OK;
}

static elbo_status run(struct preparation *p, elbo_error *error)
{
    ELBO_TRY(check(p, error));
    ELBO_TRY(stage_open(&p->stage, p->options->out, error));
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
    *p = (struct preparation){.options = options,
                              .report = report,
                              .progress = progress,
                              .context = context,
                              .sources = sources,
                              .label_source = {.descriptor = -1},
                              .stage.lock = -1};
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) p->writers[i].file.descriptor = -1;
    for (size_t i = 0; i < options->input_count; i++) sources[i].descriptor = -1;
    elbo_status status = run(p, error);
    for (size_t i = 0; i < options->input_count; i++) line_source_close(&sources[i]);
    for (int i = 0; i < ELBO_PREPARE_PARTS; i++) corpus_writer_close(&p->writers[i]);
    stage_close(&p->stage);
    split_close(&p->split);
    free(p->part);
    line_source_close(&p->label_source);
    labels_free(&p->labels);
    elbo_text_free(&p->label_line);
    elbo_tokenizer_trainer_close(p->trainer);
    elbo_tokenizer_close(p->tokenizer);
    elbo_ids_free(&p->ids);
    elbo_text_free(&p->repaired);
    free(sources);
    free(p);
    return status;
}
