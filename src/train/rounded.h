/* Weights from a model file of few bits (infer/file.h) in the place of a checkpoint's, to measure the cost of
 * rounding. */
#ifndef TRAIN_ROUNDED_H
#define TRAIN_ROUNDED_H

#include "infer/file.h"
#include "model/model.h"

struct rounded {
    struct infer_file *file; /* null: none */
    struct placed_weight *placed;
};

/* Opens the file. On a CPU the model reads its weights from the file until rounded_close, and multiplies with them as
 * the file's own runtime does (cpu/quantized/product.h). On other devices the file's weights overwrite the model's.
 * Parameters that only training reads are unchanged. ELBO_INPUT: the file is damaged, or of another model. */
elbo_status rounded_open(struct rounded *r, struct model *m, const char *path, elbo_error *error);
void rounded_close(struct rounded *r);

#endif
