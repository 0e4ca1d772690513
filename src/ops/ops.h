/* What a model may record. One function per op; each returns its first output, checks shapes (errors are sticky in the
 * graph) and names no backend. N tokens, S sentences, D width, Z latent, V vocabulary, H heads, Hk key/value heads,
 * W head width, M latent keys per layer.
 *
 * Everything is f32 unless said. In a graph of bf16 precision the weights read as bf16, and an op's output has the type
 * of its first operand; statistics (of norm, softmax, latent, loss) and gradients of weights are f32 always. */
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "graph/graph.h"
#include "ops/list.h"

/* ---- embedding ---- */

/* y (N, D) = table[ids] (+ add). table (rows, D); ids (N) i32; order (N) i32: rows by rising id (the gradient's order);
 * add (N, D) optional. Ids must lie in the table. */
value op_embedding(struct graph *g, value table, value ids, value order, value add);
/* The same of two tables behind one another: id rows + k reads row k of marks (K, D). */
value op_embedding_marked(struct graph *g, value table, value marks, value ids, value order);
enum { ATTR_EMBEDDING_FIRST = 0 }; /* of the gradient: the id of the table's first row */

/* ---- linear ---- */

/* y (N, O) = x W^T (+ b). x (N, I), w (O, I), b (O) optional. */
value op_linear(struct graph *g, value x, value w, value b);

/* y (N, O) = gelu(x W^T (+ b)), one op: the sum before the activation is kept for the gradient. */
value op_linear_gelu(struct graph *g, value x, value w, value b);

/* ---- dropout ---- */

struct token_rows {
    value sentence, position, sample; /* (N) i32 row -> sentence, row -> position; (S) u64 global sample index */
};

/* Inverted dropout by addressed noise: coordinate = position * width + column. Its purpose is "scope.what", the scope
 * being the one in which op_dropping is called. p = 0: none. */
struct dropping {
    struct token_rows rows;
    double p;
    uint64_t purpose;
};

enum { ATTR_DROPOUT = 0 }; /* p, among the attributes that are reals */

struct dropping op_dropping(const struct graph *g, const struct token_rows *rows, double p, const char *what);
/* x itself where p is 0. */
value op_dropout(struct graph *g, value x, const struct dropping *dropping);

/* ---- norm ---- */

enum { ATTR_NORM_RMS = 0 };

struct normed {
    value y;   /* (N, D)                                      */
    value sum; /* (N, D) dropout(x) + residual; x without one */
};

/* Layer norm (Ba et al. 2016), or RMS norm without bias (Zhang and Sennrich 2019), epsilon 1e-5: of x, or of dropout(x)
 * + residual. Without a residual nothing is dropped; `dropping` may be null. */
struct normed op_norm(struct graph *g, value x, const struct dropping *dropping, value residual, value gamma,
                      value beta, bool rms);

/* ---- attention ---- */

struct attention_config {
    size_t heads, kv_heads, head_width;
    bool causal;
    size_t memory; /* M */
};

/* out (N, H W) = softmax(q k^T / sqrt(W)) v within each sentence (Vaswani et al. 2017). qkv (N, (H + 2 Hk) W): queries,
 * keys, values; query head h reads key head h / (H / Hk). offsets (S + 1) i32. memory (S, M, 2, Hk W) optional: keys
 * and values in front of the sentence's own, visible to every query. */
value op_attention(struct graph *g, value qkv, value offsets, value memory, const struct attention_config *config);

/* The same for one new token per row: appends its key and value to the cache at `position` and attends to all up to it.
 * qkv (R, (H + 2 Hk) W), position (R) i32, cache (R, T, 2, Hk W) state. history (R, T) i32, optional: the row whose
 * cache holds this row's position j, for every j before its own: so rows are continued by others without their caches
 * being copied. */
value op_attention_cached(struct graph *g, value qkv, value position, value memory, value history, value cache,
                          const struct attention_config *config);

/* Rotary positions (Su et al. 2021), halves split as in Llama: the first heads * head_width columns of x are rotated by
 * position / 10000^(2i / W), the others copied. */
value op_rotary(struct graph *g, value x, value position, size_t heads, size_t head_width);

/* ---- recurrent layers ---- */

enum recurrent_cell { RECURRENT_LSTM, RECURRENT_GRU };

struct recurrent_config {
    enum recurrent_cell cell;
    size_t directions; /* d: 1, from the first row to the last; or 2, the second one from the last row to the first */
};

/* G gates (LSTM 4: input, forget, cell, output; GRU 3: reset, update, new), H units in each direction. Gates follow
 * each other in blocks of H columns, in PyTorch's order; a second direction follows the first. */
struct recurrent_inputs {
    value x;       /* (N, d G H) the layer's input times its weights, with the input bias      */
    value w;       /* (d G H, H) weights of the earlier h                                      */
    value b;       /* (d G H) added to h W^T; a GRU's, none for an LSTM                         */
    value own;     /* (S, d G H) added to x in every row of the sentence; or none               */
    value initial; /* (S, d H) first h, and for an LSTM (S, 2 d H) first h | first c; or none: 0 */
};

/* y (N, d H): each sentence's rows through the cell, one after the other (ops/recurrent.c has the equations). Sentences
 * share nothing. c is f32. */
value op_recurrent(struct graph *g, const struct recurrent_inputs *in, value offsets,
                   const struct recurrent_config *config);

/* The same for one new token per row, of one direction: y (R, H); x (R, G H), own and initial have a row for each of
 * its rows. position (R) i32: at 0 the state is `initial`. state (R, 2, H) f32, for an LSTM (R, 2, 2 H): step t reads
 * half t % 2 and writes the other. history (R, room) i32, optional: row r continues row history[r, position - 1]. */
value op_recurrent_step(struct graph *g, const struct recurrent_inputs *in, value position, value history, value state,
                        const struct recurrent_config *config);

/* ---- one row per sentence <-> one row per token ---- */

/* POOL_ENDS: the first half of the columns from the last row, the second from the first, as a layer of two directions
 * ends. */
enum pool_kind { POOL_MEAN, POOL_FIRST, POOL_LAST, POOL_ATTENTION, POOL_ENDS };

/* y (S, D) from x (N, D). POOL_ATTENTION: softmax over the sentence of x . query, query (D). */
value op_pool(struct graph *g, value x, value offsets, value query, enum pool_kind kind);

/* y (N, D) = x + v[sentence], v (S, D). */
value op_broadcast_add(struct graph *g, value x, value v, value sentence, value offsets);

/* y (S, D) or (S) = sum of the sentence's rows. */
value op_segment_sum(struct graph *g, value x, value offsets, enum dim_kind rows);

/* y (N, D) = x, but with the first M rows of each sentence replaced by its prefix: a row of position j < M becomes row
 * j of prefix (S, M D)'s M rows of D. position (N) i32. One new token per row: sentence and offsets are none, and row n
 * belongs to row n of prefix. */
value op_prefix(struct graph *g, value x, value prefix, value position, value sentence, value offsets);
enum { ATTR_PREFIX = 0 }; /* M */

/* ---- latent ---- */

enum { ATTR_ROWS = 0, ATTR_SIGN = 0, ATTR_MARGIN = 0 }; /* the kind of rows of the ops below; reals */

struct latent_sample {
    value z;  /* (draws, Z)                                              */
    value kl; /* (S, Z) nats per dimension of KL(q(z|x) || N(0, 1))      */
};

/* stats (S, 2Z) = mu | logvar. z = mu + exp(logvar / 2) eps (Kingma and Welling 2014, reparameterization and appendix B
 * for the KL). eps by address: sample (S) u64, coordinate = dimension. sample_z false: z = mu. */
struct latent_sample op_latent(struct graph *g, value stats, value sample, bool sample_z);

/* (C, 2) sums and sums of squares of the columns of x (S, C). Not differentiable. */
value op_column_moments(struct graph *g, value x);

/* out (S, 1) nats = sign * sum_j log N(z_j; mu_j, exp(logvar_j)), a Gaussian of diagonal covariance. z (S, Z), rows of
 * sentences or of draws. stats (S, 2Z) = mu | logvar, a row for each row of z; or (2Z), one row for all of them: a
 * parameter that is declared `master`. At a drawn z the sum of log q(z|x) and, with sign -1, log p(z) is the KL's
 * estimate from one sample (Kingma and Welling 2014). */
value op_gaussian_log_density(struct graph *g, value z, value stats, double sign);

/* ---- priors ---- */

enum { ATTR_COMPONENTS = 1 }; /* K of a mixture, beside ATTR_ROWS and ATTR_SIGN */

/* kl (S, Z) nats by dimension of KL(N(mu, exp(logvar)) || N(mean, exp(logvar of the prior))). stats (S, 2Z) = mu |
 * logvar; prior (2Z) = mean | logvar, declared `master` where it is a parameter. */
value op_gaussian_kl(struct graph *g, value stats, value prior);

/* out (S, 1) nats = sign * log sum_k w_k N(z; mu_k, exp(logvar_k)), a mixture of K Gaussians of diagonal covariance. z
 * (S, Z), rows of sentences or of draws. components (K, 2Z), rows of mu | logvar, or (2K, Z), K rows of mu and then K
 * of logvar; logits (K), w = softmax(logits), or none: w = 1 / K. */
value op_mixture_log_density(struct graph *g, value z, value components, value logits, double sign);

/* out (1) nats = n max(0, margin - sum_b |mu_b - mean mu|^2 / (2n)) over the slot's n sentences; 0 where n = 0. stats
 * (S, 2Z) = mu | logvar; only mu has a gradient, while the hinge is above 0. It keeps the means of the posteriors apart
 * (mu-forcing, Liu et al. 2019, arXiv:1905.10072). `margin` in nats: where mean mu is 0, half the mean square of mu is
 * its share of the KL. */
value op_spread_hinge(struct graph *g, value stats, double margin);

/* ---- loss ---- */

/* nll (N) = -log softmax(y w^T)[label] in nats, no (N, V) tensor. y (N, D), w (V, D), labels (N) i32; a row whose label
 * is negative has no loss. In training one fused op computes it together with both gradients (the logits of a chunk are
 * overwritten by their gradient). `right`, unless null: (N) f32, 1 where no logit of the row is above the label's, else
 * 0; it has no gradient, and a recording that has it is not differentiated. */
value op_linear_cross_entropy(struct graph *g, value y, value w, value labels, value *right);

/* Step scalars that the loss reads: an input of ELBO_WEIGHTS f32. */
enum { ELBO_WEIGHT_NLL, ELBO_WEIGHT_KL, ELBO_WEIGHTS };
/* What op_elbo reports, sums over the slot: nats, and the sentences' shares of parts at or under their free bits. */
enum { ELBO_LOSS, ELBO_NLL, ELBO_KL, ELBO_KL_FREE, ELBO_UNDER, ELBO_PARTS };

enum free_form { FREE_HINGE, FREE_MASK };     /* max(f, KL), or KL where it is above f and 0 elsewhere */
enum free_scope { FREE_SLOT, FREE_SENTENCE }; /* of the mean over the slot's sentences, or of each     */
struct free_bits {
    enum { FREE_PER_DIMENSION, FREE_TOTAL, FREE_PER_GROUP } kind;
    enum free_form form;
    enum free_scope scope;
    double nats;
    size_t groups;
};
enum { ATTR_FREE_GROUPS = 0, ATTR_FREE_FORM, ATTR_FREE_SCOPE };

struct elbo_value {
    value loss;   /* (ELBO_PARTS); [ELBO_LOSS] is what is minimized                    */
    value kl_dim; /* (Z) sums of the true KL over the slot's sentences; none without z */
};

/* loss = weight[NLL] sum nll + weight[KL] S sum_j max(f, mean over the slot's sentences of the KL of part j), where a
 * part is a dimension, a group of neighbours, or the whole (free bits: Kingma et al. 2016). FREE_SENTENCE: sum_s sum_j
 * max(f, KL of part j of sentence s). FREE_MASK: the KL itself where it is above f, else 0, in place of the maximum; it
 * has the same gradient. kl may be none. */
struct elbo_value op_elbo(struct graph *g, value nll, value kl, value weights, const struct free_bits *free_bits);

/* out (1) nats = -sum_s sum_n log softmax(logits_s)[label_n] over the rows n of each sentence s: what a bag of words
 * pays whose distribution is the sentence's row of logits (S, V) f32 (Zhao et al. 2017). labels (N) i32; a negative one
 * has no loss. offsets (S + 1) i32. Rows of draws are taken for those of sentences, of which each has one. */
enum { BAG_LOGSUM, BAG_LABELS, BAG_NATS, BAG_SUMS }; /* of its second output, for kernels */
value op_bag_cross_entropy(struct graph *g, value logits, value labels, value offsets);

/* The ELBO and further terms: out (ELBO_PARTS + count) nats, out[ELBO_LOSS] = elbo[ELBO_LOSS] + sum_k
 * weights[weight[k]] terms[k][0], the other parts as in elbo (ELBO_PARTS), out[ELBO_PARTS + k] = terms[k][0]. terms: up
 * to OBJECTIVE_TERMS (ops/objective.h) values (1), sums over the slot; weights: step scalars, an input f32. It is what
 * is minimized: its gradient is 1 for the loss and 0 for the rest, whatever reads it. */
value op_objective(struct graph *g, value elbo, const value *terms, const unsigned *weight, size_t count,
                   value weights);

/* ---- elementwise ---- */

value op_add(struct graph *g, value a, value b);
/* x rounded to another type; x itself where it has it. The gradient of what became bf16 is summed in f32. */
value op_cast(struct graph *g, value x, enum dtype dtype);
void op_cast_into(struct graph *g, value to, value x);
value op_gelu(struct graph *g, value x); /* tanh form, Hendrycks and Gimpel 2016 */
value op_tanh(struct graph *g, value x);
value op_swiglu(struct graph *g, value x); /* (N, 2F) gate | up -> (N, F) silu(gate) * up, Shazeer 2020 */

/* ---- optimizer: ranges of the arenas, bound as inputs of an update graph ---- */

/* What the last update decided, kept in the backend's memory as f32: so no step waits for the host to learn whether the
 * one before it was applied. Whatever depends on the count of updates comes in two rows, for both answers. */
enum { CONTROL_APPLIED, CONTROL_NORM, CONTROL_FINITE, CONTROL_SIZE };
/* y (K) = row CONTROL_APPLIED of rows (2, K), times scales (K) where given. */
value op_select_row(struct graph *g, value rows, value control, value scales);

/* A controller of one weight, a step of it after each update that is applied; otherwise only USED changes. Its state
 * (CONTROLLER_STATE) and scales (K) are inputs in the backend's memory that are written: scales[index] is the weight
 * for the next step, USED the one that this step had. It measures y = figures[part] / settings[SENTENCES], `figures`
 * being sums over the step, and `control` the guard's new decision.
 *
 * CONTROLLER_PI (ControlVAE, Shao et al. 2020), with e = target - y:
 *     SUM += -i e;   weight = p / (1 + exp(e)) + SUM + least, within least .. most
 * SUM goes no further than where the weight reaches a bound, and stands still while the error drives it further out.
 *
 * CONTROLLER_MULTIPLIER (minimum desired rate, Pelsmaeker and Aziz 2020): u = log(1 + exp(SUM)) multiplies target - y
 * in the Lagrangian, so that the weight of y in it is 1 - u:
 *     SUM += i (target - y) / (1 + exp(-SUM));   weight = 1 - u                                                      */
enum controller_rule { CONTROLLER_PI, CONTROLLER_MULTIPLIER };
enum { CONTROLLER_WEIGHT, CONTROLLER_USED, CONTROLLER_SUM, CONTROLLER_STATE };
enum {
    CONTROLLER_TARGET,
    CONTROLLER_P,
    CONTROLLER_I,
    CONTROLLER_LEAST,
    CONTROLLER_MOST,
    CONTROLLER_SENTENCES,
    CONTROLLER_SETTINGS
};
enum { ATTR_CONTROLLER_RULE = 0, ATTR_CONTROLLER_PART, ATTR_CONTROLLER_INDEX };
void op_controller(struct graph *g, value state, value scales, value figures, value control, value settings,
                   enum controller_rule rule, size_t part, size_t index);

/* sum += x over the slots of a step; the first one overwrites. sum: a state. */
void op_accumulate(struct graph *g, value sum, value x);

enum { NORM_SQUARED, NORM_NOT_FINITE, NORM_RECORD };
/* record (NORM_RECORD) = sum of squares in a fixed order over blocks of 1,024, and the number of values not finite. */
value op_squared_norm(struct graph *g, value gradient);
/* The same in two parts with the same bits, for a gradient of which ranks have pieces. sums (ceil(N / SQUARES_BLOCK)),
 * doubles, an input that is written: of gradient (N). record from sums (any), in which block i lies at at[i] (i32). */
enum { SQUARES_BLOCK = 1024 };
void op_block_squares(struct graph *g, value sums, value gradient);
value op_combined_norm(struct graph *g, value sums, value at);

/* Step scalars of one group. */
enum {
    STEP_LEARNING_RATE,
    STEP_GRADIENT_SCALE,
    STEP_DECAY,
    STEP_BETA1,
    STEP_ONE_MINUS_BETA1,
    STEP_BETA2,
    STEP_ONE_MINUS_BETA2,
    STEP_EPSILON,
    STEP_CORRECTION1,
    STEP_CORRECTION2,
    STEP_MOMENTUM,
    STEP_APPLY,
    STEP_SCALARS
};
/* The guard: norm = square root of the sum of up to MOST_NORMS squared norms. The update is applied where it and `loss`
 * are finite and settings[GUARD_SKIP] is 0. scalars (K, STEP_SCALARS) = the row of `rows` (2, K, STEP_SCALARS) that
 * `control` as it was selects, each gradient scale times min(1, clip / norm) (no clip where GUARD_CLIP is 0),
 * STEP_APPLY = applied; control = the new decision. */
enum { GUARD_CLIP, GUARD_SKIP, GUARD_SETTINGS, MOST_NORMS = 8 };
void op_guard(struct graph *g, value scalars, value control, const value *norms, size_t count, value loss, value rows,
              value settings);

/* AdamW (Loshchilov and Hutter 2019): decay is the learning rate times the weight decay, decoupled. `working`: the
 * weights again in bf16, optional. Moments are f32 or bf16; the latter are stored with stochastic rounding: the 16 bits
 * that a bf16 lacks carry when noise of as many bits is added, so the mean over the noise is the f32 value. The noise
 * is addressed by the run's seed, the step and the element's index in the arena, `first` being that of the range's
 * first. */
enum { ATTR_MOMENTS_FIRST = 0 };
void op_adamw(struct graph *g, value weights, value working, value moment1, value moment2, value gradient,
              value scalars, size_t first);
void op_sgd(struct graph *g, value weights, value working, value moment, value gradient, value scalars, size_t first);

/* ---- for the rules themselves ---- */

/* A dimension as recorded, and a check that two are the same. */
struct dim op_rows(const struct graph *g, value v);
bool op_same_rows(const struct graph *g, value a, value b);

#endif
