/* One stack of a model under the names of a known architecture: helpers that several formats share. */
#ifndef EXPORT_PART_H
#define EXPORT_PART_H

#include "export/format.h"

struct part {
    const struct export_source *s;
    const struct stack_config *c;
    const char *stack; /* "encoder", "decoder" */
    struct export_tensors t;
};

/* Longer than any name in elbo. */
enum { PART_NAME = 192 };

/* Keeps a parameter under the name `to`. */
elbo_status part_keep(struct part *p, const char *to, const char *from, elbo_error *error);
/* Keeps `weight` and `bias`; only `weight` if the model has no bias. */
elbo_status part_keep_both(struct part *p, const char *to, const char *from, elbo_error *error);
/* Keeps rows first .. first + rows of a matrix or of a bias. */
elbo_status part_keep_rows(struct part *p, const char *to, const char *from, size_t first, size_t rows,
                           elbo_error *error);
/* Keeps a matrix (out, in) as (in, out), and its bias. */
elbo_status part_keep_turned(struct part *p, const char *to, const char *from, elbo_error *error);

struct pair {
    const char *to, *from;
};

/* Calls `one` for each pair in each layer: to.LAYER.pair. */
elbo_status part_each_layer(struct part *p, const char *to, const char *from, const struct pair *pairs, size_t count,
                            elbo_status (*one)(struct part *, const char *, const char *, elbo_error *),
                            elbo_error *error);

size_t part_kv_heads(const struct stack_config *c);
size_t part_ff_width(const struct stack_config *c);

/* part_is_llama: whether a decoder is Llama's or else GPT-2's. part_check_decoder: refuses a decoder that is neither,
 * with ELBO_USAGE and "who: why; remedy". */
bool part_is_llama(const struct stack_config *c);
elbo_status part_check_decoder(const struct export_source *s, const char *who, const char *remedy, elbo_error *error);

/* Writes folder/elbo-latent.safetensors: the additions of z and labels to a decoder, under the names of docs/model.md.
 * Writes nothing if there are none. */
elbo_status part_write_additions(const struct export_source *s, const char *folder, elbo_error *error);

#endif
