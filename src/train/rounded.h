/* Weights from a model's file of few bits (infer/file.h), in the place of a checkpoint's: what the rounding costs. */
#ifndef TRAIN_ROUNDED_H
#define TRAIN_ROUNDED_H

#include "infer/file.h"
#include "model/model.h"

struct rounded {
    struct infer_file *file; /* null: none */
    struct placed_weight *placed;
};

/* On a CPU the model reads its weights in the file from now on, and multiplies with them as the file's own runtime does
 * (cpu/quantized/product.h), until rounded_close. Elsewhere they overwrite the model's. What training alone reads
 * stays. ELBO_INPUT: the file is damaged, or of another model. */
elbo_status rounded_open(struct rounded *r, struct model *m, const char *path, elbo_error *error);
void rounded_close(struct rounded *r);

#endif
