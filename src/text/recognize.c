/* Recognizes files that are not text: see recognize.h. The checks come in this order: signatures (archives, documents,
 * encodings), byte statistics, and text that does not have one sentence per line. */
#include "text/recognize.h"

#include "base/files.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/strings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

struct head {
    const char *name; /* name in messages */
    const char *file; /* name in suggested commands: the file's name, or FILE for standard input */
    bool stream;      /* standard input */
    bool any_bytes;   /* accept any share of control bytes and ill-formed bytes */
    const char *into; /* the command that reads the converted text */
    const char *text;
    size_t size;
    bool whole;
    /* Counts of bytes. */
    size_t ill_formed, controls, nuls[2], line_ends[2], line_feeds, returns; /* index 0: even offsets, 1: odd offsets */
    size_t wide_nuls[4];                                                     /* zero bytes by offset modulo 4 */
};

/* ---- files with a signature ---- */

struct magic {
    const char *bytes;
    size_t at, size;
    const char *what, *command; /* the command that converts to text, before and after the file's name */
    const char *after;
};

#define MAGIC(at, bytes, what, command, after)                                                                         \
    {                                                                                                                  \
        bytes, at, sizeof bytes - 1, what, command, after                                                              \
    }

static const struct magic magics[] = {
    MAGIC(0, "\x1f\x8b", "compressed by gzip", "zcat", ""),
    MAGIC(0, "\x1f\x9d", "compressed by compress", "zcat", ""),
    MAGIC(0, "\x28\xb5\x2f\xfd", "compressed by zstd", "zstdcat", ""),
    MAGIC(0,
          "\xfd"
          "7zXZ\0",
          "compressed by xz", "xzcat", ""),
    MAGIC(0, "\x5d\0\0", "compressed by lzma", "xzcat --format=lzma", ""),
    MAGIC(0, "BZh", "compressed by bzip2", "bzcat", ""),
    MAGIC(0, "\x04\x22\x4d\x18", "compressed by lz4", "lz4 -dc", ""),
    MAGIC(0, "LZIP", "compressed by lzip", "lzip -dc", ""),
    MAGIC(0, "7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so", ""),
    MAGIC(0, "PK\3\4", "a zip archive, or a document in one", "unzip -p", ""),
    MAGIC(0, "Rar!\x1a\x07", "a rar archive", "unrar p -inul", ""),
    MAGIC(257, "ustar", "a tar archive", "tar -xOf", ""),
    MAGIC(0, "%PDF-", "a PDF", "pdftotext", " -"),
    MAGIC(0, "{\\rtf", "an RTF document", "unrtf --text", ""),
};

static elbo_status refuse_command(const struct head *h, const char *what, const char *command, const char *after,
                                  elbo_error *error)
{
    return elbo_fail(error, ELBO_INPUT, "%s is %s, not text with a sentence a line; `%s %.300s%s | %s` reads it",
                     h->name, what, command, h->file, after, h->into);
}

static elbo_status refuse_encoding(const struct head *h, const char *encoding, elbo_error *error)
{
    char what[32], command[64];
    snprintf(what, sizeof what, "%s text", encoding);
    snprintf(command, sizeof command, "iconv -f %s -t UTF-8", encoding);
    return elbo_fail(error, ELBO_INPUT, "%s is %s, and text is read as UTF-8; `%s %.300s | %s` reads it", h->name, what,
                     command, h->file, h->into);
}

static bool begins(const struct head *h, size_t at, const char *bytes, size_t size)
{
    return h->size >= at + size && !memcmp(h->text + at, bytes, size);
}

static elbo_status check_marks(const struct head *h, elbo_error *error)
{
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const struct magic *m = &magics[i];
        if (!begins(h, m->at, m->bytes, m->size)) continue;
        /* Text could begin with these short signatures, so look at more bytes. */
        if (!strcmp(m->command, "bzcat") && !begins(h, 4, "1AY&SY", 6)) continue;
        if (m->bytes[0] == '\x5d' && (h->size < 13 || utf8_valid(h->text, h->size) == h->size)) continue;
        return refuse_command(h, m->what, m->command, m->after, error);
    }
    /* UTF-32 first, because its byte order mark begins with that of UTF-16 */
    if (begins(h, 0, "\xff\xfe\0\0", 4)) return refuse_encoding(h, "UTF-32LE", error);
    if (begins(h, 0, "\0\0\xfe\xff", 4)) return refuse_encoding(h, "UTF-32BE", error);
    if (begins(h, 0, "\xff\xfe", 2)) return refuse_encoding(h, "UTF-16LE", error);
    if (begins(h, 0, "\xfe\xff", 2)) return refuse_encoding(h, "UTF-16BE", error);
    return ELBO_OK;
}

/* ---- statistics ---- */

static bool is_control(unsigned char c)
{
    return (c < 0x20 && c && !(c >= '\b' && c <= '\r') && c != 0x1b) || c == 0x7f;
}

static void count(struct head *h)
{
    for (size_t i = 0; i < h->size; i++) {
        unsigned char c = (unsigned char)h->text[i];
        h->controls += is_control(c);
        if (!c) h->nuls[i & 1]++, h->wide_nuls[i & 3]++;
        if (c == '\n') h->line_feeds++;
        if (c == '\r' && i + 1 < h->size && h->text[i + 1] != '\n' && h->text[i + 1] != '\r') h->returns++;
        /* A line end of UTF-16. The place of its zero byte gives the byte order. */
        if (i & 1) h->line_ends[0] += c == '\n' && !h->text[i - 1], h->line_ends[1] += !c && h->text[i - 1] == '\n';
    }
    for (size_t at = 0; at < h->size;) {
        at += utf8_valid(h->text + at, h->size - at);
        if (at == h->size) break;
        size_t bad = utf8_bad(h->text + at, h->size - at);
        if (!h->whole && h->size - at < 4) break; /* a character cut by the end of the head */
        h->ill_formed += bad;
        at += bad;
    }
}

/* Returns the encoding that the places of the zero bytes show, or NULL. */
static const char *wide_encoding(const struct head *h, bool suspicious)
{
    size_t quarter = h->size / 4, half = h->size / 2, even = h->nuls[0], odd = h->nuls[1];
    if (quarter && h->wide_nuls[3] * 10 >= quarter * 9 && h->wide_nuls[2] * 10 >= quarter * 8 &&
        h->wide_nuls[0] * 2 < quarter)
        return "UTF-32LE";
    if (quarter && h->wide_nuls[0] * 10 >= quarter * 9 && h->wide_nuls[1] * 10 >= quarter * 8 &&
        h->wide_nuls[3] * 2 < quarter)
        return "UTF-32BE";
    /* Text of mostly Latin letters has a zero byte in nearly every unit. Other scripts have one in blanks and line
     * ends. */
    if (odd > 20 * even && (odd * 10 >= half * 8 || (suspicious && h->line_ends[1]))) return "UTF-16LE";
    if (even > 20 * odd && (even * 10 >= half * 8 || (suspicious && h->line_ends[0]))) return "UTF-16BE";
    return NULL;
}

static elbo_status check_bytes(const struct head *h, elbo_error *error)
{
    size_t nuls = h->nuls[0] + h->nuls[1];
    bool some = h->ill_formed + h->controls >= 4;
    const char *encoding = wide_encoding(h, some && (h->ill_formed + h->controls) * 20 > h->size);
    if (encoding) return refuse_encoding(h, encoding, error);
    bool many = !h->any_bytes && h->ill_formed >= 8 && h->ill_formed * 5 > h->size;
    if (many && !nuls && h->controls * 100 <= h->size)
        return elbo_fail(error, ELBO_INPUT,
                         "%s is not UTF-8: %zu of its first %zu bytes are ill-formed; if it is text, "
                         "`iconv -f ENCODING -t UTF-8 %.300s | %s` reads it",
                         h->name, h->ill_formed, h->size, h->file, h->into);
    bool odd =
        !h->any_bytes && ((h->controls >= 8 && h->controls * 10 > h->size) || (nuls >= 8 && nuls * 10 > h->size * 4));
    if (many || odd)
        return elbo_fail(error, ELBO_INPUT,
                         "%s is binary, not text: of its first %zu bytes %zu are zero, %zu control "
                         "characters, and %zu ill-formed UTF-8; give text with a sentence a line",
                         h->name, h->size, nuls, h->controls, h->ill_formed);
    if (h->returns > h->line_feeds)
        return elbo_fail(error, ELBO_INPUT,
                         "%s ends its lines with carriage returns alone; `tr '\\r' '\\n' < %.300s | %s` "
                         "reads it",
                         h->name, h->file, h->into);
    return ELBO_OK;
}

/* ---- text without one sentence per line ---- */

/* Calls `use` for each complete line of the head that is not blank. */
static bool each_line(const struct head *h, bool (*use)(void *, const char *, size_t), void *context)
{
    const char *at = h->text, *end = h->text + h->size;
    size_t lines = 0;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop && !h->whole && lines) break;
        const char *last = stop ? stop : end;
        while (at < last && strchr(" \t\r", *at) && *at) at++;
        while (last > at && strchr(" \t\r", last[-1]) && last[-1]) last--;
        if (last > at) {
            if (!use(context, at, (size_t)(last - at))) return false;
            lines++;
        }
        if (!stop) break;
        at = stop + 1;
    }
    return lines > 0;
}

static bool is_braced(void *context, const char *line, size_t size)
{
    (void)context;
    return size >= 2 && ((line[0] == '{' && line[size - 1] == '}') || (line[0] == '[' && line[size - 1] == ']'));
}

/* Writes a jq filter for the value that is most likely the sentence. */
static void jq_filter(char *out, size_t room, const json_t *value)
{
    static const char *const usual[] = {"text", "sentence", "content", "body"};
    const char *key, *found = NULL;
    json_t *member;
    for (size_t i = 0; i < sizeof usual / sizeof *usual && !found; i++)
        if (json_is_string(json_object_get(value, usual[i]))) found = usual[i];
    if (!found)
        json_object_foreach(
            (json_t *)value, key,
            member) if (json_is_string(member) &&
                        strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(key))
        {
            found = key;
            break;
        }
    snprintf(out, room, json_is_array(value) ? ".[0]" : ".%.60s", found ? found : "text");
}

struct first_line {
    const char *text;
    size_t size;
};

static bool take_first(void *context, const char *line, size_t size)
{
    *(struct first_line *)context = (struct first_line){line, size};
    return false;
}

static elbo_status check_json(const struct head *h, elbo_error *error)
{
    struct first_line first = {0};
    char filter[80] = ".[]";
    bool starved, lines = each_line(h, is_braced, NULL);
    each_line(h, take_first, &first);
    if (!first.size || (*first.text != '{' && *first.text != '[')) return ELBO_OK;
    json_t *value = lines ? json_read(first.text, first.size, 0, NULL, &starved) : NULL;
    bool document = !value && h->whole;
    if (document) value = json_read(h->text, h->size, 0, NULL, &starved);
    if (!value) return ELBO_OK;
    if (!document) jq_filter(filter, sizeof filter, value);
    json_decref(value);
    return elbo_fail(error, ELBO_INPUT,
                     "%s is JSON%s, not text with a sentence a line; `jq -r %s %.300s | elbo prepare - ...` "
                     "reads one of its fields",
                     h->name, document ? "" : " lines", filter, h->file);
}

struct separators {
    char separator;
    size_t count; /* separators in the first line; SIZE_MAX: no line seen yet */
};

static bool same_separators(void *context, const char *line, size_t size)
{
    struct separators *s = context;
    size_t count = 0;
    bool inside = false;
    for (size_t i = 0; i < size; i++) {
        if (line[i] == '"')
            inside = !inside;
        else
            count += line[i] == s->separator && !inside;
    }
    if (s->count == SIZE_MAX) s->count = count;
    return count > 0 && count == s->count && !inside;
}

static elbo_status check_table(const struct head *h, elbo_error *error)
{
    const char *dot = h->stream ? NULL : strrchr(h->name, '.');
    bool tabs = dot && !strcasecmp(dot, ".tsv");
    struct separators s = {.separator = tabs ? '\t' : ',', .count = SIZE_MAX};
    if (!dot || (!tabs && strcasecmp(dot, ".csv")) || !each_line(h, same_separators, &s)) return ELBO_OK;
    if (tabs)
        return elbo_fail(error, ELBO_INPUT,
                         "%s is a table of %zu columns; `cut -f1 %.300s | elbo prepare - ...` reads one, "
                         "--label_column=first or last takes it for a label, and `elbo prepare - < %.300s` takes its "
                         "lines as they are",
                         h->name, s.count + 1, h->file, h->file);
    return elbo_fail(error, ELBO_INPUT,
                     "%s is a table of %zu columns; `python3 -c 'import csv, sys; [print(row[0]) for row in "
                     "csv.reader(sys.stdin)]' < %.300s | elbo prepare - ...` reads one, and `elbo prepare - < %.300s` "
                     "takes its lines "
                     "as they are",
                     h->name, s.count + 1, h->file, h->file);
}

static elbo_status check_encoding(struct head *h, elbo_error *error)
{
    ELBO_TRY(check_marks(h, error));
    count(h);
    return check_bytes(h, error);
}

elbo_status text_recognize_stream(const char *head, size_t size, bool whole, elbo_error *error)
{
    struct head h = {.name = "standard input",
                     .file = "FILE",
                     .stream = true,
                     .any_bytes = true,
                     .into = "elbo ...",
                     .text = head,
                     .size = size,
                     .whole = whole};
    return check_encoding(&h, error);
}

elbo_status text_recognize(const char *name, const char *head, size_t size, bool whole, bool table, elbo_error *error)
{
    struct head h = {.name = name ? name : "standard input",
                     .file = name ? name : "FILE",
                     .stream = !name,
                     .into = "elbo prepare - ...",
                     .text = head,
                     .size = size,
                     .whole = whole};
    ELBO_TRY(check_encoding(&h, error));
    size_t mark = text_skip_bom(h.text, h.size);
    h.text += mark;
    h.size -= mark;
    ELBO_TRY(check_json(&h, error));
    return table ? ELBO_OK : check_table(&h, error);
}

bool text_is_text(const char *path)
{
    int descriptor;
    size_t size;
    elbo_error unused;
    if (file_open_regular(&descriptor, &size, path, &unused)) return false;
    size_t length = size < TEXT_HEAD ? size : TEXT_HEAD;
    char *head = malloc(length + 1);
    bool text = head && !file_read_at(descriptor, head, length, 0, path, &unused) &&
                !text_recognize(path, head, length, length == size, false, &unused);
    free(head);
    close(descriptor);
    return text;
}
