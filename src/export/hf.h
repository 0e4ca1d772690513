/* The files of a Hugging Face folder. */
#ifndef EXPORT_HF_H
#define EXPORT_HF_H

#include "export/format.h"

json_t *hf_config(const struct export_source *s);

/* folder/elbo.json: the same, and the prior that `sample` draws from. */
elbo_status export_facts(const struct export_source *s, const char *folder, elbo_error *error);

/* Pieces -> ids of the tokenizer, with those of GPT-2's alphabet of bytes where it is made of bytes; `own`:
 * tokenizer.json of ours; words: it is a list of words. json_decref both. */
elbo_status hf_vocabulary(json_t **own, json_t **vocabulary, bool *words, const struct export_source *s,
                          elbo_error *error);

/* folder/tokenizer.json and tokenizer_config.json, for the package tokenizers: the same ids for the same text. */
elbo_status hf_tokenizer(const struct export_source *s, const char *folder, elbo_error *error);

/* folder/README.md, the model card. `use`: Python that shows how the folder is read; `library`, `task`: of its front
 * matter. */
elbo_status hf_card(const struct export_source *s, const char *folder, const char *library, const char *task,
                    const char *use, elbo_error *error);

/* One stack under the names of a known architecture. ELBO_USAGE: it is none, with the reason. */
elbo_status hf_part_check(const struct export_source *s, int part, elbo_error *error);
elbo_status hf_part_write(const struct export_source *s, int part, const char *folder, elbo_error *error);

#endif
