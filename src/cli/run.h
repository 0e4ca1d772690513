/* What the commands that use a trained model share: opening it, reading sentences, writing them. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/cli.h"
#include "model/generate.h"
#include "train/run.h"

/* The run of the command's first argument, with its own configuration under the command line's. */
elbo_status cli_open_run(struct run *run, struct cli *cli, elbo_error *error);

/* Fails unless the model has a latent. */
elbo_status cli_needs_latent(const struct run *run, elbo_error *error);

struct cli_sentences {
    struct elbo_ids *ids; /* (count) without marks */
    char **text;          /* (count) as given      */
    size_t count, capacity, shortened;
};

/* Lines of standard input, or one given text, as ids. */
elbo_status cli_read_sentences(struct cli_sentences *s, struct run *run, struct cli *cli, elbo_error *error);
elbo_status cli_add_sentence(struct cli_sentences *s, struct run *run, const char *text, size_t size, elbo_error *error);
void cli_free_sentences(struct cli_sentences *s);

/* z (count, Z) of the sentences' posteriors: the mean, or a sample when posterior_mean is off. stats (count, 2Z) may be
 * null. free() *z. */
elbo_status cli_encode(float **z, float **stats, const struct cli_sentences *s, struct run *run, struct cli *cli,
                       elbo_error *error);

/* Generates one sentence per row of z; free each with elbo_ids_free, then the array. */
elbo_status cli_generate(struct elbo_ids **out, const float *z, size_t rows, bool greedy, struct run *run, struct cli *cli,
                         elbo_error *error);
void cli_free_ids(struct elbo_ids *ids, size_t count);

/* A sentence's text; elbo_text_free it. */
elbo_status cli_text(struct elbo_text *text, const struct run *run, const struct elbo_ids *ids, elbo_error *error);

#endif
