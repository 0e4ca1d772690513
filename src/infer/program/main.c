/* elbo-infer: runs a trained text VAE from one file, in a shell. Sentences are lines. */
#include "elbo/infer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "elbo-infer FILE COMMAND [OPTION ...]: a text VAE from one file (elbo export --format=q8, q4 or f32)\n"
    "\n"
    "  encode        sentences of standard input -> mu, a line of numbers each\n"
    "  decode        such lines of standard input -> sentences\n"
    "  reconstruct   sentences of standard input, written back from mu\n"
    "  sample        sentences from the prior\n"
    "  interpolate FROM TO     from one sentence to another\n"
    "  analogy A B C           the sentence at mu(A) - mu(B) + mu(C)\n"
    "  score         sentences of standard input -> nats: reconstruction at mu, KL, their sum, and the sentence\n"
    "  info          what the file holds\n"
    "\n"
    "  --count=1         of sample                 --steps=7        of interpolate\n"
    "  --temperature=0   0: the likeliest token    --top_p=1 --top_k=0 --beam=0; sample: 0.8 and 0.9\n"
    "  --seed=1          of what is drawn          --max_length=0   tokens; 0: as many as in training\n"
    "  --label=NAME      for a model with labels   --threads=0      0: one for each processor\n"
    "  --instructions=NAME   generic, avx2, avx512 or amx in the place of the best there are\n"
    "  --verify          hold the whole file against its checksum first\n"
    "  --frugal          keep no weights packed beside the file: less memory, slower for several sentences\n"
    "\n"
    "Exit codes: 0 done, 2 wrong usage, 3 a damaged file, 4 files that cannot be read or written, 5 no memory\n";

struct program {
    struct elbo_infer *m;
    struct elbo_infer_options options;
    struct elbo_infer_writing how;
    size_t count, steps;
    const char *words[8]; /* FILE, COMMAND, and the command's sentences */
    size_t word_count;
};

/* ---- the command line ---- */

static bool read_number(const char *text, double *real, size_t *whole, uint64_t *wide)
{
    char *end;
    if (!*text || *text == '-') return false;
    if (real) *real = strtod(text, &end);
    if (whole) *whole = (size_t)strtoull(text, &end, 10);
    if (wide) *wide = strtoull(text, &end, 10);
    return !*end && (!real || isfinite(*real));
}

static bool read_option(struct program *p, const char *text)
{
    const struct {
        const char *name;
        double *real;
        size_t *whole;
        uint64_t *wide;
    } numbers[] = {{"--count=", NULL, &p->count, NULL},
                   {"--steps=", NULL, &p->steps, NULL},
                   {"--temperature=", &p->how.temperature, NULL, NULL},
                   {"--top_p=", &p->how.top_p, NULL, NULL},
                   {"--top_k=", NULL, &p->how.top_k, NULL},
                   {"--beam=", NULL, &p->how.beam, NULL},
                   {"--max_length=", NULL, &p->how.max_length, NULL},
                   {"--threads=", NULL, &p->options.threads, NULL},
                   {"--seed=", NULL, NULL, &p->how.seed}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        size_t length = strlen(numbers[i].name);
        if (!strncmp(text, numbers[i].name, length))
            return read_number(text + length, numbers[i].real, numbers[i].whole, numbers[i].wide);
    }
    const struct {
        const char *name;
        const char **text;
    } words[] = {{"--label=", &p->how.label}, {"--instructions=", &p->options.instructions}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].name);
        if (strncmp(text, words[i].name, length)) continue;
        *words[i].text = text + length;
        return true;
    }
    const struct {
        const char *name;
        bool *chosen;
    } flags[] = {{"--verify", &p->options.verify}, {"--frugal", &p->options.frugal}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!strcmp(text, flags[i].name)) return *flags[i].chosen = true;
    return false;
}

static elbo_status read_arguments(struct program *p, int count, char **arguments, elbo_error *error)
{
    *p = (struct program){.count = 1, .steps = 7, .how = {.seed = 1, .temperature = -1}};
    for (int i = 1; i < count; i++) {
        if (!strncmp(arguments[i], "--", 2)) {
            if (!read_option(p, arguments[i]))
                return elbo_fail(error, ELBO_USAGE, "%s is no option, or has no such value; see elbo-infer --help",
                                 arguments[i]);
        } else if (p->word_count == sizeof p->words / sizeof *p->words) {
            return elbo_fail(error, ELBO_USAGE, "too many words: %s; see elbo-infer --help", arguments[i]);
        } else {
            p->words[p->word_count++] = arguments[i];
        }
    }
    if (p->word_count < 2)
        return elbo_fail(error, ELBO_USAGE, "elbo-infer needs FILE and COMMAND; see elbo-infer --help");
    bool drawn = p->how.temperature < 0 && !strcmp(p->words[1], "sample") && !p->how.beam; /* as elbo sample */
    if (drawn && !(p->how.top_p > 0)) p->how.top_p = 0.9;
    if (p->how.temperature < 0) p->how.temperature = drawn ? 0.8 : 0;
    if (p->how.top_p > 1) return elbo_fail(error, ELBO_USAGE, "--top_p is a share, at most 1");
    if (p->steps < 2 || p->steps > 1 << 20 || p->count > 1 << 30)
        return elbo_fail(error, ELBO_USAGE, "--steps is 2 to 1048576, --count at most 1073741824");
    return ELBO_OK;
}

/* ---- sentences ---- */

static elbo_status starved(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY, "no memory for sentences");
}

static elbo_status put(const struct elbo_text *text, elbo_error *error)
{
    if (fwrite(text->text, 1, text->size, stdout) == text->size && putchar('\n') == '\n') return ELBO_OK;
    return elbo_fail(error, ELBO_IO, "cannot write to standard output");
}

/* Writes sentences from rows of z. */
static elbo_status write_rows(struct program *p, const float *z, size_t count, elbo_error *error)
{
    struct elbo_text *text = calloc(count + 1, sizeof *text);
    elbo_status status = text ? elbo_infer_write(p->m, text, z, count, &p->how, error) : starved(error);
    for (size_t i = 0; i < count && !status; i++) status = put(&text[i], error);
    for (size_t i = 0; text && i < count; i++) elbo_text_free(&text[i]);
    free(text);
    return status;
}

enum { BATCH = 64, CHUNK = 1 << 16 };

typedef elbo_status use_lines(struct program *p, const char *const *lines, size_t count, elbo_error *error);

/* Bytes read from standard input and not used yet; the last line may be incomplete. */
struct input {
    char *text;
    size_t size, room;
    size_t searched; /* bytes of the unfinished line that hold no line end */
};

/* Reads more bytes and waits for them if necessary; sets *end at the end of the input. */
static elbo_status read_more(struct input *in, bool *end, elbo_error *error)
{
    if (in->room - in->size < CHUNK + 1) {
        char *grown = realloc(in->text, 2 * in->room + CHUNK + 1);
        if (!grown) return starved(error);
        in->text = grown;
        in->room = 2 * in->room + CHUNK + 1;
    }
    ssize_t size;
    do size = read(STDIN_FILENO, in->text + in->size, CHUNK);
    while (size < 0 && errno == EINTR);
    if (size < 0) return elbo_fail(error, ELBO_IO, "cannot read standard input: %s", strerror(errno));
    in->size += (size_t)size;
    *end = !size;
    return ELBO_OK;
}

/* Uses the complete lines, and at the end also the rest. */
static elbo_status use_all(struct program *p, struct input *in, bool end, use_lines *use, elbo_error *error)
{
    const char *lines[BATCH];
    size_t count = 0, at = 0;
    elbo_status status = ELBO_OK;
    while (!status) {
        char *from = in->text + at, *stop = memchr(from + in->searched, '\n', in->size - at - in->searched);
        bool more = stop || (end && at < in->size);
        if (count == BATCH || (!more && count)) {
            status = use(p, lines, count, error);
            if (!status && fflush(stdout)) status = elbo_fail(error, ELBO_IO, "cannot write to standard output");
            count = 0;
        } else if (more) {
            if (!stop) stop = in->text + in->size;
            in->searched = 0;
            at = stop < in->text + in->size ? (size_t)(stop - in->text) + 1 : in->size;
            do *stop = 0;
            while (stop-- > from && *stop == '\r');
            lines[count++] = from;
        } else {
            break;
        }
    }
    memmove(in->text, in->text + at, in->size - at);
    in->size -= at;
    in->searched = in->size;
    return status;
}

/* Passes the lines of standard input to `use` as they arrive, up to BATCH at a time. */
static elbo_status each_batch(struct program *p, use_lines *use, elbo_error *error)
{
    struct input in = {0};
    bool end = false;
    elbo_status status = ELBO_OK;
    while (!end && !status) {
        status = read_more(&in, &end, error);
        if (!status) status = use_all(p, &in, end, use, error);
    }
    free(in.text);
    return status;
}

/* Computes mu (count, Z); the caller frees it. */
static elbo_status means(struct program *p, float **mu, const char *const *sentences, size_t count, elbo_error *error)
{
    *mu = malloc((count * elbo_infer_latent_width(p->m) + 1) * sizeof **mu);
    if (!*mu) return starved(error);
    elbo_status status = elbo_infer_encode(p->m, sentences, count, p->how.label, *mu, NULL, error);
    if (status) free(*mu);
    return status;
}

static elbo_status encode(struct program *p, const char *const *lines, size_t count, elbo_error *error)
{
    float *mu;
    size_t z = elbo_infer_latent_width(p->m);
    ELBO_TRY(means(p, &mu, lines, count, error));
    for (size_t i = 0; i < count * z; i++) printf("%.9g%c", (double)mu[i], (i + 1) % z ? ' ' : '\n');
    free(mu);
    return ELBO_OK;
}

static elbo_status reconstruct(struct program *p, const char *const *lines, size_t count, elbo_error *error)
{
    float *mu;
    ELBO_TRY(means(p, &mu, lines, count, error));
    elbo_status status = write_rows(p, mu, count, error);
    p->how.first += count;
    free(mu);
    return status;
}

static elbo_status score(struct program *p, const char *const *lines, size_t count, elbo_error *error)
{
    double *nats = malloc((2 * count + 1) * sizeof *nats);
    if (!nats) return starved(error);
    elbo_status status = elbo_infer_score(p->m, lines, count, p->how.label, nats, nats + count, error);
    for (size_t i = 0; i < count && !status; i++)
        printf("%.6f %.6f %.6f %s\n", nats[i], nats[count + i], nats[i] + nats[count + i], lines[i]);
    free(nats);
    return status;
}

/* Reads a row of z from a line: as many finite numbers as z has, with blanks between them. */
static bool read_row(float *z, size_t width, const char *line)
{
    for (size_t j = 0; j < width; j++) {
        char *end;
        z[j] = strtof(line, &end);
        if (end == line || !isfinite(z[j])) return false;
        line = end;
    }
    return !line[strspn(line, " \t")];
}

static elbo_status decode(struct program *p, const char *const *lines, size_t count, elbo_error *error)
{
    size_t width = elbo_infer_latent_width(p->m);
    if (!width)
        return elbo_fail(error, ELBO_USAGE, "the model is a language model without a latent: it decodes nothing");
    float *z = malloc((count * width + 1) * sizeof *z);
    elbo_status status = z ? ELBO_OK : starved(error);
    for (size_t i = 0; i < count && !status; i++)
        if (!read_row(z + i * width, width, lines[i]))
            status = elbo_fail(error, ELBO_USAGE, "a line is not %zu numbers: %.60s", width, lines[i]);
    if (!status) status = write_rows(p, z, count, error);
    p->how.first += count;
    free(z);
    return status;
}

/* ---- commands ---- */

static elbo_status run_encode(struct program *p, elbo_error *error)
{
    return each_batch(p, encode, error);
}

static elbo_status run_decode(struct program *p, elbo_error *error)
{
    return each_batch(p, decode, error);
}

static elbo_status run_reconstruct(struct program *p, elbo_error *error)
{
    return each_batch(p, reconstruct, error);
}

static elbo_status run_score(struct program *p, elbo_error *error)
{
    return each_batch(p, score, error);
}

static elbo_status run_sample(struct program *p, elbo_error *error)
{
    size_t z = elbo_infer_latent_width(p->m);
    float *rows = malloc((p->count * z + 1) * sizeof *rows);
    if (!rows) return starved(error);
    elbo_status status = z ? elbo_infer_draw(p->m, rows, p->count, p->how.seed, error) : ELBO_OK;
    if (!status) status = write_rows(p, z ? rows : NULL, p->count, error);
    free(rows);
    return status;
}

static elbo_status run_interpolate(struct program *p, elbo_error *error)
{
    size_t z = elbo_infer_latent_width(p->m);
    float *ends, *rows = malloc((p->steps * z + 1) * sizeof *rows);
    elbo_status status = rows ? means(p, &ends, p->words + 2, 2, error) : starved(error);
    if (!status) {
        for (size_t i = 0; i < p->steps; i++)
            for (size_t j = 0; j < z; j++) {
                float t = (float)i / (float)(p->steps - 1);
                rows[i * z + j] = (1 - t) * ends[j] + t * ends[z + j];
            }
        free(ends);
        status = write_rows(p, rows, p->steps, error);
    }
    free(rows);
    return status;
}

static elbo_status run_analogy(struct program *p, elbo_error *error)
{
    size_t z = elbo_infer_latent_width(p->m);
    float *mu;
    ELBO_TRY(means(p, &mu, p->words + 2, 3, error));
    for (size_t j = 0; j < z; j++) mu[j] += mu[2 * z + j] - mu[z + j];
    elbo_status status = write_rows(p, mu, 1, error);
    free(mu);
    return status;
}

static elbo_status run_info(struct program *p, elbo_error *error)
{
    (void)error;
    printf("latent width %zu\nlongest sentence %zu tokens\n", elbo_infer_latent_width(p->m), elbo_infer_longest(p->m));
    for (size_t i = 0; i < elbo_infer_labels(p->m); i++) printf("label %s\n", elbo_infer_label(p->m, i));
    return ELBO_OK;
}

static elbo_status run(struct program *p, elbo_error *error)
{
    static const struct {
        const char *name;
        elbo_status (*run)(struct program *, elbo_error *);
        size_t words;
    } commands[] = {{"encode", run_encode, 0},
                    {"decode", run_decode, 0},
                    {"reconstruct", run_reconstruct, 0},
                    {"sample", run_sample, 0},
                    {"interpolate", run_interpolate, 2},
                    {"analogy", run_analogy, 3},
                    {"score", run_score, 0},
                    {"info", run_info, 0}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, p->words[1])) continue;
        if (p->word_count - 2 != commands[i].words)
            return elbo_fail(error, ELBO_USAGE, "%s takes %zu sentences behind it; see elbo-infer --help",
                             commands[i].name, commands[i].words);
        ELBO_TRY(elbo_infer_open(&p->m, p->words[0], &p->options, error));
        elbo_status status = commands[i].run(p, error);
        elbo_infer_close(p->m);
        return status;
    }
    return elbo_fail(error, ELBO_USAGE, "%s is no command; see elbo-infer --help", p->words[1]);
}

int main(int count, char **arguments)
{
    struct program p;
    elbo_error error;
    for (int i = 1; i < count; i++)
        if (!strcmp(arguments[i], "--help") || !strcmp(arguments[i], "-h")) return fputs(help, stdout) < 0;
    elbo_status status = read_arguments(&p, count, arguments, &error);
    if (!status) status = run(&p, &error);
    if (!status && fflush(stdout)) status = elbo_fail(&error, ELBO_IO, "cannot write to standard output");
    if (status) fprintf(stderr, "elbo-infer: %s\n", error.message);
    return (int)status;
}
