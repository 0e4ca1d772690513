/* Exports: a trained model in formats that other programs read. A format is a row of a table and its own files.
 *
 *     struct export_source source = {.model = &run.model, ...};
 *     status = export_write(&source, &(struct export_options){.format = EXPORT_HF}, "out", &error);
 *
 * A folder is built beside its place and replaces the place as a whole (base/stage.h), so readers find the old export
 * or the new one. Only an export's folder, an empty folder or a missing one is replaced. */
#ifndef EXPORT_EXPORT_H
#define EXPORT_EXPORT_H

#include "base/stage.h"
#include "elbo/tokenizer.h"
#include "model/gaussians.h"
#include "model/model.h"

#include <jansson.h>

enum export_kind { EXPORT_NONE, EXPORT_HF, EXPORT_ONNX, EXPORT_GGUF, EXPORT_F32, EXPORT_Q8, EXPORT_Q4 };
enum export_part { EXPORT_WHOLE, EXPORT_ENCODER, EXPORT_DECODER };

/* The model and facts about it; all borrowed. */
struct export_source {
    struct model *model;   /* f32 weights on the CPU */
    const char *tokenizer; /* elbo's own tokenizer.json */
    size_t tokenizer_size;
    const struct elbo_marks *marks;
    const struct elbo_ids *banned;  /* tokens that are never generated, besides the marks */
    const char *const *labels;      /* (model->config.labels) names of the classes */
    const struct gaussians *fitted; /* prior fitted after training; null: none */
    size_t max_length;              /* tokens without marks */
    uint64_t step;                  /* training steps of these weights */
    const char *program, *name;     /* the version of elbo that trained it; the run's name, for people */
    const json_t *evaluation;       /* last line of evaluations.jsonl (cli/evaluations.h); null: none */
};

struct export_options {
    int format; /* enum export_kind */
    int part;   /* enum export_part */
    int bits;   /* of weights multiplied with rows of tokens: 32, or 8 or 4 in formats that have them */
    /* Called with the finished folder before it takes its place; may be null. After an error the old folder stays. */
    elbo_status (*check)(void *context, const char *folder, elbo_error *error);
    void *context;
};

/* Writes an export. ELBO_USAGE: the format cannot hold this model, or `folder` is not an export, with the reason;
 * ELBO_BUSY: another process is writing the folder; ELBO_IO; ELBO_MEMORY. */
elbo_status export_write(const struct export_source *source, const struct export_options *options, const char *folder,
                         elbo_error *error);

/* For a folder of another kind that --out replaces by the same rules: export_open, fill stage->work, export_mark,
 * stage_commit, stage_close. */
elbo_status export_open(struct stage *stage, const char *folder, elbo_error *error);
elbo_status export_mark(const struct stage *stage, const char *kind, elbo_error *error);

/* Writes folder/name, a control vector that llama.cpp adds behind the blocks of a `gguf` export, for z (Z) of a model
 * with injection `residual`. ELBO_USAGE: z comes in by another way, or not behind blocks alone. */
elbo_status export_control_vector(const struct model *m, const float *z, const char *folder, const char *name,
                                  elbo_error *error);
elbo_status export_control_vector_check(const struct model *m, elbo_error *error);

#endif
