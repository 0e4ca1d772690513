/* The model's own figures for some sentences, for comparing an export with the model.
 *
 *   reference.safetensors   ids, offsets: n sentences without marks, one behind the other; greedy, greedy_offsets: the
 *                           decoder's output from mu; mu, logvar (n, Z); logits (rows, V): after each row of `start
 *                           words` of the first sentences, from mu
 *   reference.json          text: of each sentence, null if it does not give the ids back; greedy: text of the output;
 *                           label; logits_of: number of sentences that have logits */
#ifndef EXPORT_REFERENCE_H
#define EXPORT_REFERENCE_H

#include "export/export.h"

enum { REFERENCE_SENTENCES = 200, REFERENCE_LOGITS = 8 };

/* Writes both files for sentences (count) of ids without marks; sentences longer than the model was trained for are
 * cut. `tokenizer` is the model's. ELBO_MEMORY, ELBO_IO. */
elbo_status export_reference(const struct export_source *s, struct elbo_tokenizer *tokenizer,
                             const struct elbo_ids *sentences, size_t count, const char *folder, elbo_error *error);

#endif
