/* Exports two ONNX graphs, the encoder and the decoder, with their weights in one file beside them. elbo.json, and
 * genai_config.json for a decoder with keys and values, tell runtimes what they need. */
#include "export/onnx.h"
#include "base/files.h"
#include "export/hf.h"
#include "model/stack.h"

#include <stdlib.h>

#define ENCODER "encoder_model.onnx"
#define DECODER "decoder_model.onnx"
#define WEIGHTS "weights.bin"

/* ---- the graphs ---- */

/* Computes the positions of the tokens, (batch, time), from the mask; for a decoder those of this call, behind the
 * prefix rows. */
static const char *positions(struct onnx *x)
{
    const char *at = onnx_node(
        x, "Sub", ONNX_IN(onnx_node(x, "CumSum", ONNX_IN(ONNX_MASK, onnx_integer(x, 1)), NULL), onnx_integer(x, 1)),
        NULL);
    at = onnx_node(x, "Max", ONNX_IN(at, onnx_integer(x, 0)), NULL);
    if (!x->decoder) return at;
    const char *first = onnx_node(x, "Sub", ONNX_IN(onnx_size(x, ONNX_MASK, 1), onnx_size(x, ONNX_IDS, 1)), NULL);
    at = onnx_node(x, "Slice",
                   ONNX_IN(at, onnx_unsqueeze(x, first, 0), ONNX_INTEGERS(x, INT64_MAX), ONNX_INTEGERS(x, 1)), NULL);
    if (!x->prefix) return at;
    const char *front = onnx_integer(x, (int64_t)x->prefix);
    at = onnx_node(x, "Add", ONNX_IN(at, front), NULL);
    const char *rows =
        onnx_unsqueeze(x, onnx_node(x, "Range", ONNX_IN(onnx_integer(x, 0), front, onnx_integer(x, 1)), NULL), 0);
    const char *size = onnx_node(
        x, "Concat", ONNX_IN(onnx_unsqueeze(x, onnx_size(x, ONNX_IDS, 0), 0), ONNX_INTEGERS(x, (int64_t)x->prefix)),
        "axis=0");
    return onnx_node(x, "Concat", ONNX_IN(onnx_node(x, "Expand", ONNX_IN(rows, size), NULL), at), "axis=1");
}

/* Declares the graph's inputs in the place of the recording's. */
static void inputs(struct onnx *x, const char *stream)
{
    bool masked = !x->decoder || x->source->model->config.decoder.kind == STACK_TRANSFORMER;
    onnx_input(x, ONNX_IDS, ONNX_INT64, "batch,time");
    if (masked) onnx_input(x, ONNX_MASK, ONNX_INT64, x->decoder ? "batch,total" : "batch,time");
    onnx_set(x, graph_input_named(x->g, onnx_string(x, "%s.ids", stream)), ONNX_IDS);
    if (masked) onnx_set(x, graph_input_named(x->g, onnx_string(x, "%s.position", stream)), positions(x));
    value label = graph_input_named(x->g, "label"), z = graph_input_named(x->g, "z");
    if (label.index) onnx_input(x, "label", ONNX_INT64, "batch");
    onnx_set(x, label, "label");
    if (z.index) onnx_input(x, "z", ONNX_FLOAT, onnx_string(x, "batch,%zu", x->source->model->config.latent.width));
    onnx_set(x, z, "z");
}

static void encoder_outputs(struct onnx *x, value stats)
{
    const char *dims = onnx_string(x, "batch,%zu", x->source->model->config.latent.width);
    onnx_nodes(x, "Split", ONNX_IN(onnx_of(x, stats)), "axis=-1", ONNX_IN("mu", "logvar"));
    onnx_output(x, "mu", ONNX_FLOAT, dims);
    onnx_output(x, "logvar", ONNX_FLOAT, dims);
}

/* Adds the outputs. generation_logits is for programs that choose tokens: tokens that are never generated get -1e30. */
static void decoder_outputs(struct onnx *x, value logits)
{
    const struct export_source *s = x->source;
    size_t v = s->model->config.vocabulary;
    const char *dims = onnx_string(x, "batch,time,%zu", v), *y = onnx_of(x, logits);
    float *banned = calloc(v, sizeof *banned);
    if (!banned) {
        if (!x->status) x->status = elbo_fail(x->error, ELBO_MEMORY, "no memory for a vocabulary of %zu tokens", v);
        return;
    }
    banned[s->marks->start] = banned[s->marks->unknown] = -1e30f;
    for (size_t i = 0; i < s->banned->count; i++) banned[s->banned->ids[i]] = -1e30f;
    onnx_nodes(x, "Slice",
               ONNX_IN(y, ONNX_INTEGERS(x, (int64_t)x->prefix), ONNX_INTEGERS(x, INT64_MAX), ONNX_INTEGERS(x, 1)), NULL,
               ONNX_IN("logits"));
    onnx_nodes(x, "Add", ONNX_IN("logits", onnx_weight(x, "never_generated", ONNX_FLOAT, &v, 1, banned)), NULL,
               ONNX_IN("generation_logits"));
    free(banned);
    onnx_output(x, "logits", ONNX_FLOAT, dims);
    onnx_output(x, "generation_logits", ONNX_FLOAT, dims);
}

static elbo_status write_graph(const struct export_source *s, const struct export_options *o, bool decoder,
                               struct onnx_data *data, const char *folder, elbo_error *error)
{
    struct model_config config = s->model->config;
    struct graph_capacities most = {
        {[DIM_ENC_TOKENS] = 64, [DIM_DEC_TOKENS] = 64, [DIM_SENTENCES] = 4, [DIM_DRAWS] = 4}};
    struct recording r;
    struct onnx x = {0};
    config.precision = PRECISION_F32;
    ELBO_TRY(decoder ? record_decode(&r, &config, s->model->parameters, &most, error)
                     : record_encode(&r, &config, s->model->parameters, &most, error));
    elbo_status status = onnx_begin(&x, s, r.g, data, error);
    if (!status) {
        x.decoder = decoder;
        x.bits = o->bits;
        x.prefix = decoder ? stack_prefix(&config) : 0;
        inputs(&x, decoder ? "decoder" : "encoder");
        if (decoder)
            decoder_outputs(&x, r.logits);
        else
            encoder_outputs(&x, r.stats);
        status = onnx_write(&x, folder, decoder ? DECODER : ENCODER);
    }
    onnx_free(&x);
    recording_free(&r, s->model->backend);
    return status;
}

static elbo_status write_graphs(const struct export_source *s, const struct export_options *o, const char *folder,
                                elbo_error *error)
{
    char path[FILES_PATH];
    struct file_writer writer;
    struct onnx_data data = {.writer = &writer, .file = WEIGHTS};
    ELBO_TRY(file_join(path, folder, WEIGHTS, error));
    ELBO_TRY(file_create(&writer, path, error));
    elbo_status status = ELBO_OK;
    if (s->model->config.latent.kind != LATENT_NONE) status = write_graph(s, o, false, &data, folder, error);
    if (!status) status = write_graph(s, o, true, &data, folder, error);
    if (!status) status = file_seal(&writer, error);
    file_abort(&writer);
    onnx_data_free(&data);
    return status;
}

/* ---- facts for programs that use the graphs ---- */

static json_t *genai_decoder(const struct model_config *m)
{
    const struct stack_config *d = &m->decoder;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:{s:[]}, s:{s:s, s:s, s:s, s:s}, s:{s:s, s:s, s:s}}", "filename",
                     DECODER, "head_size", (json_int_t)(d->width / d->heads), "hidden_size", (json_int_t)d->width,
                     "num_attention_heads", (json_int_t)d->heads, "num_key_value_heads",
                     (json_int_t)(d->kv_heads ? d->kv_heads : d->heads), "num_hidden_layers", (json_int_t)d->layers,
                     "session_options", "provider_options", "inputs", "input_ids", ONNX_IDS, "attention_mask",
                     ONNX_MASK, "past_key_names", "past_key_values.%d.key", "past_value_names",
                     "past_key_values.%d.value", "outputs", "logits", "generation_logits", "present_key_names",
                     "present.%d.key", "present_value_names", "present.%d.value");
}

static elbo_status write_genai(const struct export_source *s, const char *folder, elbo_error *error)
{
    const struct model_config *m = &s->model->config;
    json_int_t longest = (json_int_t)m->positions;
    return export_json(folder, "genai_config.json",
                       json_pack("{s:{s:s, s:I, s:I, s:I, s:I, s:I, s:o}, s:{s:I, s:i, s:b, s:b, s:f, s:i, s:f, s:i}}",
                                 "model", "type", "decoder", "bos_token_id", (json_int_t)s->marks->start,
                                 "eos_token_id", (json_int_t)s->marks->end, "pad_token_id", (json_int_t)s->marks->end,
                                 "vocab_size", (json_int_t)m->vocabulary, "context_length", longest, "decoder",
                                 genai_decoder(m), "search", "max_length", longest, "min_length", 0, "do_sample", 0,
                                 "past_present_share_buffer", 0, "temperature", 1.0, "num_beams", 1, "top_p", 1.0,
                                 "top_k", 0),
                       error);
}

static const char use[] =
    "import onnxruntime\n\n"
    "encoder = onnxruntime.InferenceSession(\"DIR/encoder_model.onnx\")\n"
    "mu, logvar = encoder.run(None, {\"input_ids\": ids, \"attention_mask\": mask})   # ids: start words end, (B, T) "
    "int64\n"
    "decoder = onnxruntime.InferenceSession(\"DIR/decoder_model.onnx\")\n"
    "# input_ids (B, T >= 1), z (B, Z), and what an earlier call gave as present.*; before the first call its length "
    "is "
    "0.\n"
    "# logits are of each row; generation_logits leave out what is never generated. check/check_onnx.py is an "
    "example.\n";

static elbo_status write(const struct export_source *s, const struct export_options *o, const char *folder,
                         elbo_error *error)
{
    ELBO_TRY(write_graphs(s, o, folder, error));
    ELBO_TRY(export_facts(s, folder, error));
    if (s->model->config.decoder.kind == STACK_TRANSFORMER) ELBO_TRY(write_genai(s, folder, error));
    ELBO_TRY(hf_tokenizer(s, folder, error));
    return hf_card(s, folder, "onnx", "text-generation", use, error);
}

static elbo_status check(const struct export_source *s, const struct export_options *o, elbo_error *error)
{
    (void)s;
    if (o->part == EXPORT_WHOLE) return ELBO_OK;
    return elbo_fail(error, ELBO_USAGE, "--part belongs to --format=hf; --format=onnx has encoder and decoder apart");
}

const struct export_format export_onnx = {.name = "onnx", .bits = true, .check = check, .write = write};
