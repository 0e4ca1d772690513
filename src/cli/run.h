/* Shared by the commands that use a trained model: opening it, reading sentences, writing them. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/cli.h"
#include "cli/input.h"
#include "model/generate.h"
#include "train/run.h"

/* Opens the run of the command's first argument. The command line overrides the run's own configuration. */
elbo_status cli_open_run(struct run *run, struct cli *cli, elbo_error *error);

/* Fails unless the model has a latent. */
elbo_status cli_needs_latent(const struct run *run, elbo_error *error);

/* Fails unless the corpus `name` has the model's tokenizer. */
elbo_status cli_same_tokenizer(const struct run *run, const struct elbo_corpus *corpus, const char *name,
                               const struct cli *cli, elbo_error *error);

/* ---- sentences: a batch at a time ---- */

struct cli_sentences {
    struct elbo_ids *ids;   /* (count) without marks       */
    struct elbo_text *text; /* (count) as given            */
    size_t count, capacity; /* count: sentences of the batch; capacity: their room */
    size_t first;           /* sentences before this batch */
    size_t shortened;       /* sentences that were cut, over all batches */
};

/* Adds a sentence to the batch. */
elbo_status cli_add_sentence(struct cli_sentences *s, struct run *run, const char *text, size_t size,
                             elbo_error *error);
/* Replaces the batch by the next one: waits for a line of standard input, then takes lines that are already there,
 * `most` lines at most. An empty batch means the end of the input. */
elbo_status cli_read_batch(struct cli_sentences *s, struct cli_input *in, size_t most, struct run *run,
                           elbo_error *error);
/* Warns of replaced UTF-8 and of sentences that were cut. */
void cli_report_sentences(const struct cli_sentences *s, const struct cli_input *in, struct run *run, struct cli *cli);
void cli_free_sentences(struct cli_sentences *s);

/* *z: (count, Z) from the batch's posteriors, the mean or, with posterior_mean off, a sample whose noise is addressed
 * by the sentence's number. stats: (count, 2Z) mu and logvar, may be null. free() *z and *stats. */
elbo_status cli_encode_sentences(float **z, float **stats, const struct cli_sentences *s, struct run *run,
                                 struct cli *cli, elbo_error *error);

/* Gives the number of --label. Models with labels need the option; other models refuse it. */
elbo_status cli_label(int32_t *label, const struct run *run, const struct cli *cli, elbo_error *error);

/* ---- generation ---- */

/* Reads the options of generation and refuses options without effect. `greedy`: take the likeliest token even without
 * --greedy. */
elbo_status cli_generate_options(struct generate_options *o, bool greedy, const struct run *run, struct cli *cli,
                                 elbo_error *error);

/* Decodes a sentence; elbo_text_free the text. */
elbo_status cli_text(struct elbo_text *text, const struct run *run, const struct elbo_ids *ids, elbo_error *error);

#endif
