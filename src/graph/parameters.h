/* The model's parameters: declared once by name, then laid out in one contiguous arena per class (weights,
 * gradients, moments). The arena is ordered by group (encoder | latent | decoder x decay | no decay), then by the
 * time at which the backward pass finishes the gradients. Each parameter starts at a multiple of 1,024 elements,
 * with zeros between. */
#ifndef GRAPH_PARAMETERS_H
#define GRAPH_PARAMETERS_H

#include "elbo/status.h"
#include "graph/graph.h"

enum parameter_part { PART_ENCODER, PART_LATENT, PART_DECODER, PARTS };
enum { GROUPS = 2 * PARTS, PARAMETER_ALIGNMENT = 1024 };

struct parameter_init {
    enum { INIT_NORMAL, INIT_CONSTANT } kind;
    double mean, std; /* INIT_CONSTANT: the value is `mean` */
};

struct parameter {
    const char *name;
    size_t rank, shape[MAX_RANK];
    size_t elements;
    enum parameter_part part;
    bool decay;
    bool master; /* read in f32 whatever the precision of the graph */
    struct parameter_init init;
    struct parameter_init init_tail; /* of the rows from `tail` on, when tail > 0 */
    size_t tail;
    size_t offset; /* in elements, the same in every arena */
};

struct parameter_group {
    size_t offset, elements; /* range of the arena, padding included */
    enum parameter_part part;
    bool decay;
};

/* Elements first .. first + count of the arenas, all of one group. In an arena that holds only a rank's share (its
 * moments), the piece begins at element `at`. */
struct arena_piece {
    size_t first, count, at;
    unsigned group;
};

struct parameters;

elbo_status parameters_create(struct parameters **p, elbo_error *error);
void parameters_free(struct parameters *p);

/* Declares a parameter, or finds an earlier declaration of the name. Fails when the earlier shape differs. */
elbo_status parameters_declare(struct parameters *p, size_t *index, const struct parameter *description,
                               elbo_error *error);

size_t parameters_count(const struct parameters *p);
const struct parameter *parameters_get(const struct parameters *p, size_t index);
bool parameters_find(const struct parameters *p, const char *name, size_t *index);

/* Lays out the arena. `ready[i]` is the time at which the gradient of parameter i is finished; null means declaration
 * order. */
elbo_status parameters_layout(struct parameters *p, const size_t *ready, elbo_error *error);

size_t parameters_arena_elements(const struct parameters *p);                /* padding included */
size_t parameters_total(const struct parameters *p);                         /* without padding */
const struct parameter_group *parameters_groups(const struct parameters *p); /* (GROUPS) */

/* Writes initial weights into an arena of parameters_arena_elements floats. Noise is addressed by (seed, parameter's
 * name). */
void parameters_initialize(const struct parameters *p, float *weights, uint64_t seed);
/* Writes the initial values of `count` elements of one parameter, from its element `first` on. */
void parameters_initial(float *to, const struct parameter *own, size_t first, size_t count, uint64_t seed);

#endif
