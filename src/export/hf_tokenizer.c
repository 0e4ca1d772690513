/* Writes a tokenizer for the package `tokenizers`: the same ids for the same text, and both marks around a sentence.
 *
 *   word        WordLevel over the words between white space
 *   bpe, byte   BPE over GPT-2's alphabet of bytes; byte has no merges
 *
 * Text never makes a mark, because tokenizer_config.json treats special tokens in text as ordinary text, and the
 * vocabulary cannot spell the marks' names. */
#include "export/hf.h"

#include "base/json.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

enum { MARK_COUNT = 3 };

struct names {
    char mark[MARK_COUNT][16]; /* by id: start, end, unknown */
};

static elbo_status starved(elbo_error *error)
{
    return elbo_fail(error, ELBO_MEMORY, "no memory for the tokenizer");
}

static bool add_piece(json_t *vocabulary, const json_t *piece, size_t id)
{
    const char *text = json_string_value(piece);
    size_t size = json_string_length(piece);
    if (json_object_getn(vocabulary, text, size)) return true; /* a merge made an earlier piece again */
    return !json_object_setn_new_nocheck(vocabulary, text, size, json_integer((json_int_t)id));
}

/* Adds GPT-2's alphabet: a character for each byte. */
static bool add_bytes(json_t *vocabulary)
{
    uint32_t spare = 0x100;
    char text[4];
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        size_t size = utf8_put(text, itself ? byte : spare++);
        if (json_object_setn_new_nocheck(vocabulary, text, size, json_integer(MARK_COUNT + byte))) return false;
    }
    return true;
}

static bool add_words(json_t *vocabulary, const json_t *words)
{
    for (size_t i = 0; i < json_array_size(words); i++)
        if (!add_piece(vocabulary, json_array_get(words, i), MARK_COUNT + i)) return false;
    return true;
}

static bool add_merges(json_t *vocabulary, const json_t *merges)
{
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *pair = json_array_get(merges, i), *left = json_array_get(pair, 0),
                     *right = json_array_get(pair, 1);
        json_t *piece =
            json_sprintf("%s%s", json_string_value(left), json_string_value(right)); /* this alphabet has no NUL */
        bool added = piece && add_piece(vocabulary, piece, MARK_COUNT + json_object_size(vocabulary));
        json_decref(piece);
        if (!added) return false;
    }
    return true;
}

/* Names the marks so that no piece of the vocabulary has a mark's name: a name that is taken gets a blank, which no
 * piece and no word holds. A list of words is looked up without change, so the names of start and end always get a
 * blank there. */
static bool name_marks(struct names *names, json_t *vocabulary, bool words)
{
    static const char *const plain[] = {"<s>", "</s>", "<unk>"}, *const blank[] = {"<s >", "</s >", "<unk >"};
    for (size_t i = 0; i < MARK_COUNT; i++) {
        bool taken = (words && i < 2) || json_object_get(vocabulary, plain[i]);
        snprintf(names->mark[i], sizeof names->mark[i], "%s", taken ? blank[i] : plain[i]);
        if (json_object_set_new(vocabulary, names->mark[i], json_integer((json_int_t)i))) return false;
    }
    return true;
}

static json_t *added_json(const struct names *names)
{
    json_t *list = json_array();
    for (size_t i = 0; i < MARK_COUNT; i++)
        json_array_append_new(list,
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)i, "content", names->mark[i],
                                        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    return list;
}

static json_t *special_json(const char *name, int id)
{
    return json_pack("{s:s, s:[i], s:[s]}", "id", name, "ids", id, "tokens", name);
}

/* Frames a sentence: start, the sentence, end. */
static json_t *frame_json(const struct names *names)
{
    const char *start = names->mark[0], *end = names->mark[1];
    return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], "
                     "s:{s:o, s:o}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", start, "type_id", 0, "Sequence",
                     "id", "A", "type_id", 0, "SpecialToken", "id", end, "type_id", 0, "pair", "Sequence", "id", "A",
                     "type_id", 0, "Sequence", "id", "B", "type_id", 1, "special_tokens", start, special_json(start, 0),
                     end, special_json(end, 1));
}

static json_t *byte_level(bool split)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     (int)split);
}

static json_t *model_json(const json_t *own, json_t *vocabulary, const struct names *names, bool words)
{
    json_t *merges = json_object_get(own, "merges");
    if (words)
        return json_pack("{s:s, s:O, s:s}", "type", "WordLevel", "vocab", vocabulary, "unk_token", names->mark[2]);
    return json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:O, s:o}", "type", "BPE", "dropout", "unk_token",
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab",
                     vocabulary, "merges", merges ? json_incref(merges) : json_array());
}

/* Removes U+FEFF, which is no text (docs/formats.md). */
static json_t *normalizer_json(void)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", "\xef\xbb\xbf", "content", "");
}

static json_t *tokenizer_json(const json_t *own, json_t *vocabulary, const struct names *names, bool words, bool bytes)
{
    json_t *cut = words ? json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                    "[ \\t\\n\\x0B\\f\\r]+", "behavior", "Removed", "invert", 0)
                        : byte_level(!bytes);
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added_json(names), "normalizer", normalizer_json(), "pre_tokenizer", cut,
                     "post_processor", frame_json(names), "decoder", words ? json_null() : byte_level(true), "model",
                     model_json(own, vocabulary, names, words));
}

static json_t *settings_json(const struct export_source *s, const struct names *names)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:s, s:[s, s]}", "tokenizer_class",
                     "PreTrainedTokenizerFast", "bos_token", names->mark[0], "eos_token", names->mark[1], "unk_token",
                     names->mark[2], "pad_token", names->mark[1], "model_max_length", (json_int_t)(s->max_length + 2),
                     "split_special_tokens", 1, "clean_up_tokenization_spaces", 0, "padding_side", "right",
                     "model_input_names", "input_ids", "attention_mask");
}

/* Fills the vocabulary and adds the marks' names to it. */
static elbo_status fill(struct names *names, json_t *vocabulary, const json_t *own, bool words, elbo_error *error)
{
    bool added = words ? add_words(vocabulary, json_object_get(own, "words"))
                       : add_bytes(vocabulary) && add_merges(vocabulary, json_object_get(own, "merges"));
    return added && name_marks(names, vocabulary, words) ? ELBO_OK : starved(error);
}

static bool is_kind(const json_t *own, const char *kind)
{
    const char *text = json_string_value(json_object_get(own, "kind"));
    return text && !strcmp(text, kind);
}

static elbo_status open_vocabulary(struct names *names, json_t **own, json_t **vocabulary,
                                   const struct export_source *s, elbo_error *error)
{
    bool wanting;
    *own = json_read(s->tokenizer, s->tokenizer_size, JSON_ALLOW_NUL, NULL, &wanting);
    *vocabulary = json_object();
    elbo_status status =
        *own && *vocabulary ? fill(names, *vocabulary, *own, is_kind(*own, "word"), error) : starved(error);
    if (!status) return ELBO_OK;
    json_decref(*own);
    json_decref(*vocabulary);
    return status;
}

elbo_status hf_vocabulary(json_t **own, json_t **vocabulary, bool *words, const struct export_source *s,
                          elbo_error *error)
{
    struct names names;
    ELBO_TRY(open_vocabulary(&names, own, vocabulary, s, error));
    *words = is_kind(*own, "word");
    return ELBO_OK;
}

elbo_status hf_tokenizer(const struct export_source *s, const char *folder, elbo_error *error)
{
    json_t *own, *vocabulary;
    struct names names;
    ELBO_TRY(open_vocabulary(&names, &own, &vocabulary, s, error));
    bool words = is_kind(own, "word"), bytes = is_kind(own, "byte");
    elbo_status status =
        export_json(folder, "tokenizer.json", tokenizer_json(own, vocabulary, &names, words, bytes), error);
    if (!status) status = export_json(folder, "tokenizer_config.json", settings_json(s, &names), error);
    json_decref(own);
    json_decref(vocabulary);
    return status;
}
