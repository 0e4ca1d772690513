/* Writers of the files of a Hugging Face folder. */
#ifndef EXPORT_HF_H
#define EXPORT_HF_H

#include "export/format.h"

json_t *hf_config(const struct export_source *s);

/* Writes folder/elbo.json: hf_config, and the prior that `sample` draws from. */
elbo_status export_facts(const struct export_source *s, const char *folder, elbo_error *error);

/* Builds the map from the tokenizer's pieces to ids, with GPT-2's alphabet of bytes if the tokenizer is made of bytes.
 * `own` is elbo's tokenizer.json; `words` tells a list of words. The caller releases both by json_decref. */
elbo_status hf_vocabulary(json_t **own, json_t **vocabulary, bool *words, const struct export_source *s,
                          elbo_error *error);

/* Writes folder/tokenizer.json and tokenizer_config.json for the package tokenizers: the same ids for the same text. */
elbo_status hf_tokenizer(const struct export_source *s, const char *folder, elbo_error *error);

/* Writes folder/README.md, the model card. `use` is Python that reads the folder; `library` and `task` go into the
 * front matter. */
elbo_status hf_card(const struct export_source *s, const char *folder, const char *library, const char *task,
                    const char *use, elbo_error *error);

/* Write one stack under the names of a known architecture. ELBO_USAGE: it fits no known architecture, with the
 * reason. */
elbo_status hf_part_check(const struct export_source *s, int part, elbo_error *error);
elbo_status hf_part_write(const struct export_source *s, int part, const char *folder, elbo_error *error);

#endif
