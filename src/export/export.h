/* Exports: a trained model as other programs read it. A format is a row of a table and its own files.
 *
 *     struct export_source source = {.model = &run.model, ...};
 *     status = export_write(&source, &(struct export_options){.format = EXPORT_HF}, "out", &error);
 *
 * A folder is built beside its place and takes it whole (base/stage.h): readers find what stood there or the new
 * export. Only a folder that an export made, an empty one, or none is replaced. */
#ifndef EXPORT_EXPORT_H
#define EXPORT_EXPORT_H

#include "base/stage.h"
#include "elbo/tokenizer.h"
#include "model/gaussians.h"
#include "model/model.h"

#include <jansson.h>

enum export_kind { EXPORT_NONE, EXPORT_HF, EXPORT_ONNX, EXPORT_GGUF, EXPORT_F32, EXPORT_Q8, EXPORT_Q4 };
enum export_part { EXPORT_WHOLE, EXPORT_ENCODER, EXPORT_DECODER };

/* The model, and what is said of it. All borrowed. */
struct export_source {
    struct model *model;   /* f32 weights on the CPU                                                */
    const char *tokenizer; /* tokenizer.json of ours                                                */
    size_t tokenizer_size;
    const struct text_marks *marks;
    const struct elbo_ids *banned;  /* tokens that are never generated, beside the marks               */
    const char *const *labels;      /* (model->config.labels) names of the classes                     */
    const struct gaussians *fitted; /* a prior that was fitted after training; null: none              */
    size_t max_length;              /* tokens without marks                                            */
    uint64_t step;                  /* training steps behind it                                        */
    const char *program, *name;     /* the version of elbo that trained it; the run's name, for people */
    const json_t *evaluation;       /* the last line of evaluations.jsonl (cli/evaluations.h); null    */
};

struct export_options {
    int format; /* enum export_kind                              */
    int part;   /* enum export_part                              */
    int bits;   /* of the weights of products over tokens: 32, or 8 or 4 for formats that know them */
    /* Called with the finished folder before it takes its place; may be null. An error leaves what stood there. */
    elbo_status (*check)(void *context, const char *folder, elbo_error *error);
    void *context;
};

/* ELBO_USAGE: the format cannot hold this model, or `folder` holds what is no export, with the reason; ELBO_BUSY:
 * another process is writing it; ELBO_IO; ELBO_MEMORY. */
elbo_status export_write(const struct export_source *source, const struct export_options *options, const char *folder,
                         elbo_error *error);

/* A folder of another kind that --out replaces by the same rules: open, fill stage->work, mark, stage_commit,
 * stage_close. */
elbo_status export_open(struct stage *stage, const char *folder, elbo_error *error);
elbo_status export_mark(const struct stage *stage, const char *kind, elbo_error *error);

/* A latent as llama.cpp adds it behind the blocks of a `gguf` export: folder/name, a control vector of the model's
 * `residual`. z (Z). ELBO_USAGE: z comes in by another way, or not behind blocks alone. */
elbo_status export_control_vector(const struct model *m, const float *z, const char *folder, const char *name,
                                  elbo_error *error);
elbo_status export_control_vector_check(const struct model *m, elbo_error *error);

#endif
