/* Slot records: the data order is a pure function of (seed, epoch, index), resuming continues it exactly, every
 * sentence comes once an epoch, capacities hold, the derived orders are sorted and stable, and word dropout drops its
 * share. */
#include "text/slots.h"

#include "elbo/corpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <cmocka.h>

#include "temporary.h"

#include <fcntl.h>

enum { SENTENCES = 500, LONGEST_WORDS = 30 };

struct fixture {
    struct temporary folder;
    struct elbo_corpus *corpus;
    elbo_error error;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_open();
    char text[512], out[512];
    FILE *file = fopen(temporary_path(text, &f->folder, "text.txt"), "w");
    unsigned random = 1;
    for (int i = 0; i < SENTENCES; i++) {
        int words = 1 + (int)((random = random * 1664525u + 1013904223u) >> 24) % LONGEST_WORDS;
        fprintf(file, "s%d", i); /* the first word identifies the sentence */
        for (int w = 1; w < words; w++) fprintf(file, " w%u", (random = random * 1664525u + 1013904223u) >> 27);
        fputc('\n', file);
    }
    fclose(file);
    const char *input = text;
    struct elbo_prepare_options options = {.inputs = &input,
                                           .input_count = 1,
                                           .out = temporary_path(out, &f->folder, "c"),
                                           .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                           .tokenizer_size = 10000};
    struct elbo_prepare_report report;
    if (elbo_prepare(&options, &report, NULL, NULL, &f->error)) fail_msg("%s", f->error.message);
    if (elbo_corpus_open(&f->corpus, out, &f->error)) fail_msg("%s", f->error.message);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    elbo_corpus_close(f->corpus);
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

static const struct slot_options usual = {
    .slots = 3, .encoder_tokens = 100, .decoder_tokens = 90, .max_length = 40, .shuffle = true, .seed = 5};

static struct slot_loader *open_loader(struct fixture *f, struct slot_options options)
{
    struct slot_loader *loader;
    if (slot_loader_open(&loader, f->corpus, &options, &f->error)) fail_msg("%s", f->error.message);
    return loader;
}

static const struct slot_batch *next(struct fixture *f, struct slot_loader *loader)
{
    const struct slot_batch *batch;
    if (slot_loader_next(loader, &batch, &f->error)) fail_msg("%s", f->error.message);
    return batch;
}

static void the_order_is_a_permutation(void **state)
{
    (void)state;
    const uint64_t sizes[] = {1, 2, 3, 4, 5, 17, 64, 65, 1000, 4097};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        uint64_t n = sizes[k];
        size_t moved = 0, same = 0;
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            char *seen = calloc(n, 1);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = slot_order(9, epoch, i, n);
                assert_true(at < n);
                assert_int_equal(seen[at]++, 0);
                moved += at != i;
                same += at == slot_order(9, epoch + 1, i, n);
            }
            free(seen);
        }
        if (n >= 64) { /* about one fixed point in an epoch, one coincidence between two */
            assert_true(moved > 3 * n - 20);
            assert_true(same < 20);
        }
    }
    /* The place of sentence 0 is uniform over seeds: chi square of 16 cells, 5 sigma. */
    double cells[16] = {0}, chi = 0;
    for (uint64_t seed = 0; seed < 3200; seed++) cells[slot_order(seed, 0, 0, 1600) / 100]++;
    for (int i = 0; i < 16; i++) chi += (cells[i] - 200) * (cells[i] - 200) / 200;
    assert_true(chi < 15 + 5 * sqrt(30));
}

/* A resumed run continues the order of the program that began it, so the order of a seed is fixed, also if the number
 * of sentences is a power of 4 and no number is walked on. */
static void the_order_of_a_seed_stays(void **state)
{
    (void)state;
    static const unsigned known[][8] = {{2, 1, 3, 0},
                                        {6, 11, 4, 12, 2, 14, 9, 0},
                                        {16, 5, 10, 12, 7, 2, 14, 9},
                                        {63, 5, 39, 19, 20, 42, 26, 31},
                                        {962, 96, 520, 833, 877, 894, 595, 825}};
    const uint64_t sizes[] = {4, 16, 17, 64, 1024};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (uint64_t i = 0; i < 8 && i < sizes[k]; i++) assert_int_equal(slot_order(3, 2, i, sizes[k]), known[k][i]);
}

static void impossible_slots_are_refused(void **state)
{
    struct fixture *f = *state;
    struct slot_loader *loader;
    struct slot_options none = usual, empty = usual, narrow = usual, alone = usual;
    none.slots = 0;
    empty.decoder_tokens = 0;
    narrow.encoder_tokens = 1;
    assert_int_equal(slot_loader_open(&loader, f->corpus, &none, &f->error), ELBO_USAGE);
    assert_int_equal(slot_loader_open(&loader, f->corpus, &empty, &f->error), ELBO_USAGE);
    assert_int_equal(slot_loader_open(&loader, f->corpus, &narrow, &f->error), ELBO_USAGE);
    alone.encoder_tokens = 0; /* a language model reads one stream */
    slot_loader_close(open_loader(f, alone));
}

static void assert_sorted(const int32_t *order, const int32_t *key, size_t n)
{
    char *seen = calloc(n + 1, 1);
    for (size_t i = 0; i < n; i++) {
        assert_true(order[i] >= 0 && (size_t)order[i] < n);
        assert_int_equal(seen[order[i]]++, 0);
        if (!i) continue;
        int32_t before = key[order[i - 1]], here = key[order[i]];
        assert_true(before < here || (before == here && order[i - 1] < order[i]));
    }
    free(seen);
}

static void check_stream(const struct slot_stream *stream, size_t sentences)
{
    size_t longest = 0;
    assert_int_equal(stream->offsets[0], 0);
    assert_int_equal(stream->offsets[sentences], stream->tokens);
    for (size_t s = 0; s < sentences; s++) {
        size_t first = (size_t)stream->offsets[s], end = (size_t)stream->offsets[s + 1];
        if (end - first > longest) longest = end - first;
        for (size_t row = first; row < end; row++) {
            assert_int_equal(stream->sentence[row], s);
            assert_int_equal(stream->position[row], row - first);
        }
    }
    assert_int_equal(stream->longest, longest);
    assert_sorted(stream->id_order, stream->ids, stream->tokens);
    assert_sorted(stream->position_order, stream->position, stream->tokens);
}

static void check_slot(struct fixture *f, const struct slot *slot, const struct slot_options *options)
{
    const struct elbo_marks *marks = elbo_corpus_marks(f->corpus, ELBO_STREAM_DECODER);
    const struct slot_stream *encoder = &slot->encoder, *decoder = &slot->decoder;
    assert_true(slot->sentences > 0 && slot->sentences <= slot_sentence_capacity(options));
    assert_true(encoder->tokens <= options->encoder_tokens && decoder->tokens <= options->decoder_tokens);
    check_stream(decoder, slot->sentences);
    if (options->encoder_tokens)
        check_stream(encoder, slot->sentences);
    else
        assert_int_equal(encoder->tokens, 0);
    size_t words = 0, bytes = 0;
    for (size_t s = 0; s < slot->sentences; s++) {
        uint32_t ids[LONGEST_WORDS];
        size_t i = slot->source[s], length;
        assert_int_equal(elbo_corpus_read(f->corpus, ELBO_STREAM_DECODER, i, ids, LONGEST_WORDS, &length, &f->error),
                         ELBO_OK);
        words += elbo_corpus_sentence_words(f->corpus, i) + 1;
        bytes += elbo_corpus_sentence_bytes(f->corpus, i);
        const int32_t *in = decoder->ids + decoder->offsets[s], *out = decoder->labels + decoder->offsets[s];
        assert_int_equal(decoder->offsets[s + 1] - decoder->offsets[s], length + 1);
        assert_int_equal(in[0], marks->start);
        assert_int_equal(out[length], marks->end);
        for (size_t t = 0; t < length; t++) {
            if (options->word_dropout == 0) assert_int_equal(in[t + 1], ids[t]);
            assert_int_equal(out[t], ids[t]);
        }
        if (!options->encoder_tokens) continue;
        const int32_t *whole = encoder->ids + encoder->offsets[s];
        assert_int_equal(encoder->offsets[s + 1] - encoder->offsets[s], length + 2);
        assert_int_equal(whole[0], marks->start);
        assert_int_equal(whole[length + 1], marks->end);
        for (size_t t = 0; t < length; t++) assert_int_equal(whole[t + 1], ids[t]);
    }
    assert_int_equal(slot->words, words);
    assert_int_equal(slot->bytes, bytes);
    int32_t *falling = calloc(slot->sentences, sizeof *falling);
    for (size_t s = 0; s < slot->sentences; s++) falling[s] = -(decoder->offsets[s + 1] - decoder->offsets[s]);
    assert_sorted(slot->by_length, falling, slot->sentences);
    free(falling);
}

/* A slot is closed only when the next sentence does not fit. */
static void records_are_what_the_corpus_holds(void **state)
{
    struct fixture *f = *state;
    struct slot_options variants[] = {usual, usual, usual};
    variants[1].encoder_tokens = 0;
    variants[2].sentences = 2;
    for (int v = 0; v < 3; v++) {
        const struct slot_options *options = &variants[v];
        struct slot_loader *loader = open_loader(f, *options);
        uint64_t sample = 0;
        for (int b = 0; b < 60; b++) { /* a few epochs */
            const struct slot_batch *batch = next(f, loader);
            size_t sentences = 0;
            assert_int_equal(batch->step, b);
            assert_int_equal(batch->first, sample);
            assert_int_equal(batch->count, options->slots);
            assert_false(batch->last);
            for (size_t i = 0; i < batch->count; i++) {
                const struct slot *slot = &batch->slots[i];
                check_slot(f, slot, options);
                for (size_t s = 0; s < slot->sentences; s++, sample++) {
                    assert_int_equal(slot->sample[s], sample);
                    assert_int_equal(slot->source[s],
                                     slot_order(options->seed, sample / SENTENCES, sample % SENTENCES, SENTENCES));
                }
                sentences += slot->sentences;
                uint64_t after = slot_order(options->seed, sample / SENTENCES, sample % SENTENCES, SENTENCES);
                size_t length = elbo_corpus_length(f->corpus, ELBO_STREAM_DECODER, after);
                assert_true(slot->sentences == slot_sentence_capacity(options) ||
                            slot->decoder.tokens + length + 1 > options->decoder_tokens ||
                            (options->encoder_tokens && slot->encoder.tokens + length + 2 > options->encoder_tokens));
            }
            assert_int_equal(batch->sentences, sentences);
            assert_int_equal(batch->next, sample);
        }
        slot_loader_close(loader);
    }
}

/* Each sentence has the number of its class in the model, and the order of sentences by class is stable. */
static void labels_ride_with_their_sentences(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"blue", "green", "red"};
    static const int32_t numbers[] = {7, 2, 300};
    char text[512], labels[512], out[512];
    FILE *file = fopen(temporary_path(labels, &f->folder, "labels.txt"), "w");
    for (int i = 0; i < SENTENCES; i++) fprintf(file, " %s\r\n", names[(i * 7 + i / 5) % 3]);
    fclose(file);
    const char *input = temporary_path(text, &f->folder, "text.txt");
    struct elbo_prepare_options prepare = {.inputs = &input,
                                           .input_count = 1,
                                           .labels = labels,
                                           .out = temporary_path(out, &f->folder, "labelled"),
                                           .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                           .tokenizer_size = 10000};
    struct elbo_prepare_report report;
    struct elbo_corpus *corpus;
    struct slot_loader *loader;
    if (elbo_prepare(&prepare, &report, NULL, NULL, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(report.classes, 3);
    if (elbo_corpus_open(&corpus, out, &f->error)) fail_msg("%s", f->error.message);
    assert_int_equal(elbo_corpus_classes(corpus), 3);
    for (size_t k = 0; k < 3; k++) assert_string_equal(elbo_corpus_class(corpus, k), names[k]);
    for (int i = 0; i < SENTENCES; i++) assert_int_equal(elbo_corpus_label(corpus, (size_t)i), (i * 7 + i / 5) % 3);
    assert_int_equal(strlen(elbo_corpus_labels_hash(corpus)), 16);
    assert_string_equal(elbo_corpus_labels_hash(f->corpus), "");
    struct slot_options options = usual;
    options.labels = numbers;
    options.label = 1; /* sentences that are filled by hand alone */
    if (slot_loader_open(&loader, corpus, &options, &f->error)) fail_msg("%s", f->error.message);
    for (int b = 0; b < 12; b++) {
        const struct slot_batch *batch = next(f, loader);
        for (size_t i = 0; i < batch->count; i++) {
            const struct slot *slot = &batch->slots[i];
            for (size_t s = 0; s < slot->sentences; s++)
                assert_int_equal(slot->label[s], numbers[elbo_corpus_label(corpus, slot->source[s])]);
            assert_sorted(slot->label_order, slot->label, slot->sentences);
        }
    }
    slot_loader_close(loader);
    elbo_corpus_close(corpus);
}

static void resuming_continues_the_order(void **state)
{
    struct fixture *f = *state;
    struct slot_options options = usual;
    options.word_dropout = 0.3;
    struct slot_loader *whole = open_loader(f, options);
    for (int b = 0; b < 40; b++) {
        const struct slot_batch *one = next(f, whole);
        struct slot_options from = options;
        from.first = one->first;
        from.step = one->step;
        struct slot_loader *resumed = open_loader(f, from);
        const struct slot_batch *two = next(f, resumed);
        assert_int_equal(one->next, two->next);
        assert_int_equal(one->step, two->step);
        for (size_t i = 0; i < one->count; i++) {
            const struct slot *a = &one->slots[i], *b2 = &two->slots[i];
            assert_int_equal(a->sentences, b2->sentences);
            assert_int_equal(a->decoder.tokens, b2->decoder.tokens);
            assert_memory_equal(a->source, b2->source, a->sentences * sizeof *a->source);
            assert_memory_equal(a->decoder.ids, b2->decoder.ids, a->decoder.tokens * sizeof(int32_t));
            assert_memory_equal(a->decoder.id_order, b2->decoder.id_order, a->decoder.tokens * sizeof(int32_t));
        }
        slot_loader_close(resumed);
    }
    slot_loader_close(whole);
}

static void a_single_pass_sees_each_sentence_once(void **state)
{
    struct fixture *f = *state;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        struct slot_options options = usual;
        options.shuffle = shuffle;
        options.single_pass = true;
        struct slot_loader *loader = open_loader(f, options);
        char seen[SENTENCES] = {0};
        size_t total = 0, words = 0;
        for (bool last = false; !last;) {
            const struct slot_batch *batch = next(f, loader);
            last = batch->last;
            assert_true(batch->sentences > 0);
            for (size_t i = 0; i < batch->count; i++) {
                check_slot(f, &batch->slots[i], &options);
                words += batch->slots[i].words;
                for (size_t s = 0; s < batch->slots[i].sentences; s++, total++) {
                    if (!shuffle) assert_int_equal(batch->slots[i].source[s], total);
                    assert_int_equal(seen[batch->slots[i].source[s]]++, 0);
                }
            }
        }
        assert_int_equal(total, SENTENCES);
        assert_int_equal(words, elbo_corpus_words(f->corpus) + SENTENCES);
        const struct slot_batch *after = next(f, loader);
        assert_true(after->last && !after->count && !after->sentences);
        slot_loader_close(loader);
    }
}

static void long_sentences_follow_the_policy(void **state)
{
    struct fixture *f = *state;
    enum { LIMIT = 10 };
    size_t over = 0;
    for (size_t i = 0; i < SENTENCES; i++) over += elbo_corpus_length(f->corpus, ELBO_STREAM_DECODER, i) > LIMIT;
    assert_true(over > 100 && over < SENTENCES);
    for (int policy = SLOT_TRUNCATE; policy <= SLOT_SKIP; policy++) {
        struct slot_options options = usual;
        options.single_pass = true;
        options.max_length = LIMIT;
        options.too_long = policy;
        options.encoder_tokens = options.decoder_tokens = LIMIT + 2;
        struct slot_loader *loader = open_loader(f, options);
        size_t shortened = 0, sentences = 0;
        for (bool last = false; !last;) {
            const struct slot_batch *batch = next(f, loader);
            last = batch->last;
            shortened += batch->shortened;
            sentences += batch->sentences;
            for (size_t i = 0; i < batch->count; i++) {
                const struct slot *slot = &batch->slots[i];
                assert_true(slot->decoder.longest <= LIMIT + 1);
                /* words are tokens here, so a cut sentence's share is exact */
                assert_int_equal(slot->words, slot->decoder.tokens);
            }
        }
        assert_int_equal(shortened, over);
        assert_int_equal(sentences, policy == SLOT_SKIP ? SENTENCES - over : SENTENCES);
        slot_loader_close(loader);
    }
    struct slot_loader *loader;
    struct slot_options options = usual;
    options.max_length = LIMIT;
    options.too_long = SLOT_REFUSE;
    assert_int_equal(slot_loader_open(&loader, f->corpus, &options, &f->error), ELBO_INPUT);
    assert_non_null(strstr(f->error.message, "data.max_length is 10"));
    options = usual;
    options.decoder_tokens = 20;
    assert_int_equal(slot_loader_open(&loader, f->corpus, &options, &f->error), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "raise train.slot_tokens"));
}

static void word_dropout_drops_its_share(void **state)
{
    struct fixture *f = *state;
    const double rates[] = {0.3, 1, 0.05};
    for (int r = 0; r < 3; r++) {
        struct slot_options options = usual;
        options.word_dropout = rates[r];
        struct slot_loader *loader = open_loader(f, options);
        const int32_t unknown = (int32_t)elbo_corpus_marks(f->corpus, ELBO_STREAM_DECODER)->unknown;
        double dropped = 0, inputs = 0;
        for (int b = 0; b < 200; b++) {
            const struct slot_batch *batch = next(f, loader);
            for (size_t i = 0; i < batch->count; i++) {
                const struct slot *slot = &batch->slots[i];
                check_slot(f, slot, &options); /* labels, marks and the encoder are untouched */
                for (size_t row = 0; row < slot->decoder.tokens; row++) {
                    if (slot->decoder.position[row] == 0) continue;
                    dropped += slot->decoder.ids[row] == unknown;
                    inputs++;
                }
            }
        }
        double sigma = sqrt(rates[r] * (1 - rates[r]) / inputs);
        assert_true(fabs(dropped / inputs - rates[r]) <= 5 * sigma);
        slot_loader_close(loader);
    }
}

/* Words that become the mark of dropped words are counted, also those of other ranks' slots. */
static void dropped_words_become_their_own_mark(void **state)
{
    struct fixture *f = *state;
    struct slot_options options = usual;
    options.word_dropout = 0.3;
    options.mark = 777777;
    struct slot_loader *loader = open_loader(f, options);
    options.own_first = options.own_count = 1;
    struct slot_loader *part = open_loader(f, options);
    for (int b = 0; b < 50; b++) {
        const struct slot_batch *batch = next(f, loader), *counted = next(f, part);
        for (size_t i = 0; i < batch->count; i++) {
            const struct slot *slot = &batch->slots[i];
            size_t marks = 0;
            for (size_t row = 0; row < slot->decoder.tokens; row++) marks += slot->decoder.ids[row] == 777777;
            assert_int_equal(slot->dropped, marks);
            assert_int_equal(counted->slots[i].dropped, marks);
            assert_true(marks > 0 || slot->decoder.tokens < 20);
        }
    }
    slot_loader_close(loader);
    slot_loader_close(part);
}

/* Prefix rows of a sentence predict nothing, and the rows behind them are those of a sentence without prefix. */
static void check_prefix(const struct slot_stream *with, const struct slot_stream *without, size_t s, size_t prefix)
{
    size_t from = (size_t)with->offsets[s], plain = (size_t)without->offsets[s],
           rows = (size_t)without->offsets[s + 1] - plain;
    assert_int_equal((size_t)with->offsets[s + 1] - from, prefix + rows);
    for (size_t i = 0; i < prefix + rows; i++) {
        assert_int_equal(with->position[from + i], i);
        assert_int_equal(with->sentence[from + i], s);
        assert_int_equal(with->labels[from + i], i < prefix ? -1 : without->labels[plain + i - prefix]);
        if (i >= prefix) assert_int_equal(with->ids[from + i], without->ids[plain + i - prefix]);
    }
}

/* Compares with slots of as many sentences without prefix; slots of other ranks count the same. */
static void rows_in_front(void **state)
{
    struct fixture *f = *state;
    struct slot_options plain = usual;
    plain.sentences = 2;
    plain.word_dropout = 0.4;
    struct slot_options options = plain;
    options.prefix = 3;
    struct slot_loader *without = open_loader(f, plain), *with = open_loader(f, options);
    options.own_first = options.own_count = 1;
    struct slot_loader *part = open_loader(f, options);
    for (int b = 0; b < 50; b++) {
        const struct slot_batch *bare = next(f, without), *batch = next(f, with), *counted = next(f, part);
        for (size_t i = 0; i < batch->count; i++) {
            const struct slot *slot = &batch->slots[i], *other = &bare->slots[i], *told = &counted->slots[i];
            assert_int_equal(slot->sentences, other->sentences);
            assert_int_equal(slot->predicted, other->decoder.tokens);
            assert_int_equal(slot->dropped, other->dropped);
            assert_int_equal(slot->decoder.tokens, other->decoder.tokens + 3 * slot->sentences);
            assert_int_equal(slot->decoder.longest, other->decoder.longest + 3);
            for (size_t s = 0; s < slot->sentences; s++) check_prefix(&slot->decoder, &other->decoder, s, 3);
            assert_true(told->predicted == slot->predicted && told->decoder.tokens == slot->decoder.tokens);
        }
    }
    slot_loader_close(without);
    slot_loader_close(with);
    slot_loader_close(part);
    options = usual; /* a prefix takes room in the slot */
    options.decoder_tokens = 2 * (5 + 1);
    options.prefix = 5;
    assert_int_equal(slot_sentence_capacity(&options), 2);
    options.decoder_tokens = 24;
    struct slot_loader *loader;
    assert_int_equal(slot_loader_open(&loader, f->corpus, &options, &f->error), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "has room for 18 between its marks"));
}

static void same_decoder(const struct slot *a, const struct slot *b)
{
    assert_int_equal(a->decoder.tokens, b->decoder.tokens);
    assert_memory_equal(a->decoder.ids, b->decoder.ids, a->decoder.tokens * sizeof *a->decoder.ids);
}

/* Statistics of a noisy encoder sentence compared with the original. */
struct noisy {
    double words, left, marks, moved;
};

static void compare_sentence(struct noisy *n, const struct slot_stream *now, const struct slot_stream *was, size_t s,
                             const struct slot_options *options)
{
    size_t count = (size_t)(was->offsets[s + 1] - was->offsets[s]) - 2,
           left = (size_t)(now->offsets[s + 1] - now->offsets[s]) - 2;
    const int32_t *before = was->ids + was->offsets[s], *after = now->ids + now->offsets[s];
    assert_true(left <= count && after[0] == before[0] && after[left + 1] == before[count + 1]);
    n->words += (double)count;
    n->left += (double)left;
    for (size_t i = 1; i <= left; i++) n->marks += after[i] == options->mark;
    for (size_t i = 1; i <= left && options->swap > 0; i++) { /* swaps alone move a word by at most one place */
        assert_true(after[i] == before[i] || after[i] == before[i - 1] || after[i] == before[i + 1]);
        n->moved += after[i] != before[i];
    }
}

/* Each kind of noise alone has its share, and slots hold the same sentences as without noise, on every rank. */
static void the_encoder_is_denoised(void **state)
{
    struct fixture *f = *state;
    const double share = 0.25;
    for (int kind = 0; kind < 3; kind++) {
        struct slot_options options = usual, part;
        struct noisy n = {0};
        struct slot_loader *plain = open_loader(f, options);
        options.mark = 777777;
        *(kind == 0 ? &options.drop : kind == 1 ? &options.blank : &options.swap) = share;
        struct slot_loader *loader = open_loader(f, options);
        part = options;
        part.own_first = part.own_count = 1;
        struct slot_loader *own = open_loader(f, part);
        for (int b = 0; b < 100; b++) {
            const struct slot_batch *was = next(f, plain), *now = next(f, loader), *counted = next(f, own);
            assert_true(was->next == now->next && was->next == counted->next && was->count == now->count);
            for (size_t i = 0; i < now->count; i++) {
                const struct slot *x = &now->slots[i], *y = &was->slots[i];
                assert_int_equal(x->sentences, y->sentences);
                assert_int_equal(counted->slots[i].sentences, y->sentences);
                same_decoder(x, y);
                for (size_t s = 0; s < x->sentences; s++) compare_sentence(&n, &x->encoder, &y->encoder, s, &options);
            }
        }
        double sigma = sqrt(share * (1 - share) / n.words);
        if (kind == 0) assert_true(fabs(1 - n.left / n.words - share) <= 5 * sigma);
        if (kind == 1) assert_true(fabs(n.marks / n.words - share) <= 5 * sigma && n.left == n.words);
        if (kind == 2) assert_true(n.moved > 0.2 * n.words && n.moved < 0.5 * n.words && n.left == n.words);
        slot_loader_close(plain);
        slot_loader_close(loader);
        slot_loader_close(own);
    }
}

static void same_stream(const struct slot_stream *a, const struct slot_stream *b, size_t sentences)
{
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->longest, b->longest);
    if (!a->ids) return;
    assert_memory_equal(a->ids, b->ids, a->tokens * sizeof *a->ids);
    assert_memory_equal(a->offsets, b->offsets, (sentences + 1) * sizeof *a->offsets);
    assert_memory_equal(a->id_order, b->id_order, a->tokens * sizeof *a->id_order);
}

/* A rank's loader fills only its own slots, with the contents of the loader of all slots, and knows the other slots'
 * counts. */
static void own_slots_alone(void **state)
{
    struct fixture *f = *state;
    struct slot_options options = usual;
    options.slots = 5;
    options.word_dropout = 0.2;
    options.too_long = SLOT_SKIP;
    options.max_length = 25;
    for (size_t own = 0; own < 5; own++) {
        options.own_count = 0;
        struct slot_loader *whole = open_loader(f, options);
        options.own_first = own;
        options.own_count = own == 3 ? 2 : 1;
        struct slot_loader *part = open_loader(f, options);
        for (int step = 0; step < 8; step++) {
            const struct slot_batch *a = next(f, part), *b = next(f, whole);
            assert_int_equal(a->count, b->count);
            assert_int_equal(a->sentences, b->sentences);
            assert_int_equal(a->shortened, b->shortened);
            assert_true(a->next == b->next);
            for (size_t i = 0; i < a->count; i++) {
                const struct slot *x = &a->slots[i], *y = &b->slots[i];
                assert_int_equal(x->memory != NULL, i >= own && i < own + options.own_count);
                assert_int_equal(x->sentences, y->sentences);
                assert_int_equal(x->words, y->words);
                assert_int_equal(x->bytes, y->bytes);
                same_stream(&x->encoder, &y->encoder, x->sentences);
                same_stream(&x->decoder, &y->decoder, x->sentences);
                if (x->memory) assert_memory_equal(x->sample, y->sample, x->sentences * sizeof *x->sample);
            }
        }
        slot_loader_close(part);
        slot_loader_close(whole);
    }
}

static void filling_by_hand(void **state)
{
    struct fixture *f = *state;
    const struct elbo_marks marks = {0, 1, 2};
    struct slot_options options = {.encoder_tokens = 12, .decoder_tokens = 12, .slots = 1};
    struct slot slot;
    if (slot_allocate(&slot, &options, &f->error)) fail_msg("%s", f->error.message);
    const uint32_t a[] = {7, 300, 70000}, b[] = {5};
    const uint32_t *const tokens[] = {a, b, b};
    /* an empty sentence is legal */
    if (slot_fill(&slot, &options, &marks, tokens, (const size_t[]){3, 0, 1}, 3, 40, &f->error))
        fail_msg("%s", f->error.message);
    const int32_t encoder[] = {0, 7, 300, 70000, 1, 0, 1, 0, 5, 1}, labels[] = {7, 300, 70000, 1, 1, 5, 1};
    assert_int_equal(slot.encoder.tokens, 10);
    assert_memory_equal(slot.encoder.ids, encoder, sizeof encoder);
    assert_int_equal(slot.decoder.tokens, 7);
    assert_memory_equal(slot.decoder.labels, labels, sizeof labels);
    assert_int_equal(slot.sample[2], 42);
    const int32_t by_length[] = {0, 2, 1};
    assert_memory_equal(slot.by_length, by_length, sizeof by_length);
    check_stream(&slot.encoder, 3);
    check_stream(&slot.decoder, 3);
    const uint32_t *const longer[] = {a, a, a};
    assert_int_equal(slot_fill(&slot, &options, &marks, longer, (const size_t[]){3, 3, 3}, 3, 0, &f->error),
                     ELBO_INPUT);
    slot_free(&slot);
}

/* Reads batches until the loader fails, at most a few, because batches that were filled before are handed out. */
static void fails_soon(struct fixture *f, struct slot_loader *loader, const char *part)
{
    const struct slot_batch *batch;
    elbo_status status = ELBO_OK;
    for (int i = 0; i < 4 && !status; i++) status = slot_loader_next(loader, &batch, &f->error);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(status, ELBO_INPUT);
        if (!strstr(f->error.message, part)) fail_msg("'%s' is not in: %s", part, f->error.message);
        assert_non_null(strstr(f->error.message, "/c/corpus.bin"));
        f->error.message[0] = 0;
        status = slot_loader_next(loader, &batch, &f->error);
    }
}

/* Overwrites in place, so that the file is never shorter. */
static void overwrite(const char *path, const char *bytes, size_t size)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size) abort();
    close(fd);
}

static void a_corpus_that_changes_is_an_error(void **state)
{
    struct fixture *f = *state;
    char path[512];
    size_t size;
    temporary_path(path, &f->folder, "c/corpus.bin");
    char *bytes = temporary_read(path, &size);
    for (int way = 0; way < 4; way++) {
        struct slot_loader *loader = open_loader(f, usual);
        for (int i = 0; i < 5; i++) next(f, loader);
        if (way == 0) { /* touched, without a change */
            overwrite(path, bytes, size);
            for (int i = 0; i < 50; i++) next(f, loader);
        } else if (way == 1) { /* cut off in the middle of the tokens */
            if (truncate(path, 200)) abort();
            fails_soon(f, loader, "became shorter");
        } else if (way == 2) { /* another file of the same size */
            char *other = calloc(1, size);
            memset(other, 3, size);
            overwrite(path, other, size);
            fails_soon(f, loader, "changed while it was read");
            free(other);
        } else { /* one byte of one token becomes another token of the vocabulary */
            bytes[200] ^= 1;
            overwrite(path, bytes, size);
            bytes[200] ^= 1;
            fails_soon(f, loader, "changed while it was read");
        }
        slot_loader_close(loader);
        overwrite(path, bytes, size);
    }
    free(bytes);
}

/* A corpus that is replaced whole is read on from the opened files. */
static void a_replaced_corpus_is_read_on(void **state)
{
    struct fixture *f = *state;
    char text[512], out[512];
    const char *input = temporary_path(text, &f->folder, "other.txt");
    temporary_write(input, "another sentence\n", 17);
    struct slot_loader *loader = open_loader(f, usual);
    next(f, loader);
    struct elbo_prepare_options options = {.inputs = &input,
                                           .input_count = 1,
                                           .out = temporary_path(out, &f->folder, "c"),
                                           .tokenizer_kind = ELBO_TOKENIZER_WORD,
                                           .tokenizer_size = 10000};
    struct elbo_prepare_report report;
    if (elbo_prepare(&options, &report, NULL, NULL, &f->error)) fail_msg("%s", f->error.message);
    for (int i = 0; i < 50; i++) next(f, loader);
    slot_loader_close(loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_a_permutation),
        cmocka_unit_test(the_order_of_a_seed_stays),
        cmocka_unit_test(impossible_slots_are_refused),
        cmocka_unit_test(records_are_what_the_corpus_holds),
        cmocka_unit_test(labels_ride_with_their_sentences),
        cmocka_unit_test(resuming_continues_the_order),
        cmocka_unit_test(a_single_pass_sees_each_sentence_once),
        cmocka_unit_test(long_sentences_follow_the_policy),
        cmocka_unit_test(word_dropout_drops_its_share),
        cmocka_unit_test(dropped_words_become_their_own_mark),
        cmocka_unit_test(rows_in_front),
        cmocka_unit_test(the_encoder_is_denoised),
        cmocka_unit_test(own_slots_alone),
        cmocka_unit_test(a_corpus_that_changes_is_an_error),
        cmocka_unit_test(filling_by_hand),
        cmocka_unit_test(a_replaced_corpus_is_read_on),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
