/* Shared by the commands that use a trained model: opening it, reading sentences, writing them. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/cli.h"
#include "cli/input.h"
#include "model/generate.h"
#include "train/run.h"

/* The run of the command's first argument, with its own configuration under the command line's. */
elbo_status cli_open_run(struct run *run, struct cli *cli, elbo_error *error);

/* Fails unless the model has a latent. */
elbo_status cli_needs_latent(const struct run *run, elbo_error *error);

/* Fails unless the corpus that is called `name` has the model's tokenizer. */
elbo_status cli_same_tokenizer(const struct run *run, const struct elbo_corpus *corpus, const char *name,
                               const struct cli *cli, elbo_error *error);

/* ---- sentences: a batch at a time ---- */

struct cli_sentences {
    struct elbo_ids *ids;   /* (count) without marks       */
    struct elbo_text *text; /* (count) as given            */
    size_t count, capacity; /* of the batch; its room      */
    size_t first;           /* sentences before this batch */
    size_t shortened;       /* of all batches              */
};

/* Adds a sentence to the batch. */
elbo_status cli_add_sentence(struct cli_sentences *s, struct run *run, const char *text, size_t size,
                             elbo_error *error);
/* The next batch in the place of the last one: waits for a line of standard input and takes what is there behind it, up
 * to `most`. No sentence: the end. */
elbo_status cli_read_batch(struct cli_sentences *s, struct cli_input *in, size_t most, struct run *run,
                           elbo_error *error);
/* Warns of what was replaced and cut. */
void cli_report_sentences(const struct cli_sentences *s, const struct cli_input *in, struct run *run, struct cli *cli);
void cli_free_sentences(struct cli_sentences *s);

/* z (count, Z) of the batch's posteriors: the mean, or a sample when posterior_mean is off, whose noise has the
 * sentence's number. stats (count, 2Z) may be null. free() *z. */
elbo_status cli_encode_sentences(float **z, float **stats, const struct cli_sentences *s, struct run *run,
                                 struct cli *cli, elbo_error *error);

/* The number of --label, which a model with labels wants and no other takes. */
elbo_status cli_label(int32_t *label, const struct run *run, const struct cli *cli, elbo_error *error);

/* ---- generation ---- */

/* Options of the command line for generation; refuses those without effect. `greedy`: unless drawing is asked for. */
elbo_status cli_generate_options(struct generate_options *o, bool greedy, const struct run *run, struct cli *cli,
                                 elbo_error *error);

/* A sentence's text; elbo_text_free it. */
elbo_status cli_text(struct elbo_text *text, const struct run *run, const struct elbo_ids *ids, elbo_error *error);

#endif
