/* The model's own figures of some sentences, for comparing an export with it.
 *
 *   reference.safetensors   ids, offsets: n sentences without marks, behind one another; greedy, greedy_offsets: what
 *                           the decoder writes from mu; mu, logvar (n, Z); logits (rows, V): behind each row of `start
 *                           words` of the first sentences, from mu
 *   reference.json          text: of each sentence, null where it does not give the ids back; greedy: text of what
 *                           was written; label; logits_of: the sentences that have logits */
#ifndef EXPORT_REFERENCE_H
#define EXPORT_REFERENCE_H

#include "export/export.h"

enum { REFERENCE_SENTENCES = 200, REFERENCE_LOGITS = 8 };

/* Both files, for sentences (count) of ids without marks; those longer than the model was trained for are cut.
 * `tokenizer`: the model's. ELBO_MEMORY, ELBO_IO. */
elbo_status export_reference(const struct export_source *s, struct elbo_tokenizer *tokenizer,
                             const struct elbo_ids *sentences, size_t count, const char *folder, elbo_error *error);

#endif
