/* One stack of a model under the names of a known architecture: what the formats that write such share. */
#ifndef EXPORT_PART_H
#define EXPORT_PART_H

#include "export/format.h"

struct part {
    const struct export_source *s;
    const struct stack_config *c;
    const char *stack; /* "encoder", "decoder" */
    struct export_tensors t;
};

/* Longer than any name of ours. */
enum { PART_NAME = 192 };

/* A parameter under the name `to`. */
elbo_status part_keep(struct part *p, const char *to, const char *from, elbo_error *error);
/* `weight` and `bias`; without a bias where the model has none. */
elbo_status part_keep_both(struct part *p, const char *to, const char *from, elbo_error *error);
/* Rows first .. first + rows of a matrix or of a bias. */
elbo_status part_keep_rows(struct part *p, const char *to, const char *from, size_t first, size_t rows,
                           elbo_error *error);
/* A matrix (out, in) as (in, out), and its bias. */
elbo_status part_keep_turned(struct part *p, const char *to, const char *from, elbo_error *error);

struct pair {
    const char *to, *from;
};

/* `one` of each pair in each layer: to.LAYER.pair. */
elbo_status part_each_layer(struct part *p, const char *to, const char *from, const struct pair *pairs, size_t count,
                            elbo_status (*one)(struct part *, const char *, const char *, elbo_error *),
                            elbo_error *error);

size_t part_kv_heads(const struct stack_config *c);
size_t part_ff_width(const struct stack_config *c);

/* A decoder is GPT-2's or Llama's: which, and why it is none: ELBO_USAGE, "who: why; remedy". */
bool part_is_llama(const struct stack_config *c);
elbo_status part_check_decoder(const struct export_source *s, const char *who, const char *remedy, elbo_error *error);

/* folder/elbo-latent.safetensors: what z and labels add to a decoder, under the names of docs/model.md; nothing where
 * there is none. */
elbo_status part_write_additions(const struct export_source *s, const char *folder, elbo_error *error);

#endif
