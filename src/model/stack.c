/* The table of stack kinds, the checks of their options and ways for z, and the parts of a stack that kinds share. */
#include "model/stack.h"

#include <stdio.h>
#include <string.h>

extern const struct stack_kind transformer_kind, bow_kind, lstm_kind, gru_kind;

/* indexed by enum stack_choice */
static const struct stack_kind *const kinds[] = {[STACK_TRANSFORMER] = &transformer_kind,
                                                 [STACK_BOW] = &bow_kind,
                                                 [STACK_LSTM] = &lstm_kind,
                                                 [STACK_GRU] = &gru_kind};

static const char *const injections[] = {INJECTION_NAMES};

/* Options of the section `latent` that belong to one way. */
static const struct {
    const char *key;
    unsigned way;
    const char *because;
} ways[] = {
    {"memory", INJECT_MEMORY, "z does not come into this decoder as latent memory"},
    {"prefix", INJECT_PREFIX, "z does not come into this decoder as rows in front"},
    {"init_tanh", INJECT_INIT, "z does not come into this decoder as its first state"},
};

const struct stack_kind *stack_kind_of(const struct stack_config *c)
{
    return kinds[c->kind];
}

elbo_status stack_check(const char *section, const struct stack_config *c, elbo_error *error)
{
    const struct stack_kind *kind = stack_kind_of(c);
    if (kind->cannot_decode && !strcmp(section, "decoder"))
        return elbo_fail(error, ELBO_USAGE,
                         "decoder.kind = %s: %s; choose a kind that writes token by token, such as %s", kind->name,
                         kind->cannot_decode, kinds[0]->name);
    return kind->check ? kind->check(section, c, error) : ELBO_OK;
}

unsigned stack_injection(const struct stack_config *decoder, unsigned injection)
{
    if (injection && !(injection & INJECT_BOTH)) return injection;
    return (injection & ~(unsigned)INJECT_BOTH) | stack_kind_of(decoder)->both;
}

size_t stack_prefix(const struct model_config *m)
{
    bool has = m->latent.kind != LATENT_NONE && stack_injection(&m->decoder, m->latent.injection) & INJECT_PREFIX;
    return has ? m->latent.prefix : 0;
}

const char *stack_injection_idle(const struct model_config *m, const char *key)
{
    unsigned taken = stack_injection(&m->decoder, m->latent.injection);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(ways[i].key, key) && !(taken & ways[i].way)) return ways[i].because;
    return NULL;
}

void stack_injection_text(char *text, size_t size, unsigned injection)
{
    *text = 0;
    for (size_t i = 0; i < sizeof injections / sizeof *injections; i++)
        if (injection >> i & 1)
            snprintf(text + strlen(text), size - strlen(text), "%s%s", *text ? "," : "", injections[i]);
}

elbo_status stack_check_injection(const struct stack_config *decoder, unsigned injection, elbo_error *error)
{
    const struct stack_kind *kind = stack_kind_of(decoder);
    unsigned foreign = injection & ~(kind->injections | INJECT_BOTH);
    unsigned twice = injection & INJECT_BOTH ? injection & kind->both : 0;
    char given[96], known[96];
    stack_injection_text(given, sizeof given, foreign | twice);
    stack_injection_text(known, sizeof known, foreign ? kind->injections : kind->both);
    if (foreign)
        return elbo_fail(error, ELBO_USAGE,
                         "latent.injection = %s is no way into decoder.kind = %s; choose both, or any of %s", given,
                         kind->name, known);
    if (injection & INJECT_RESIDUAL && decoder->layers < 2)
        return elbo_fail(
            error, ELBO_USAGE,
            "latent.injection = residual adds z behind every block but the first, and decoder.layers = %zu "
            "has no other; choose decoder.layers of at least 2, or another way",
            decoder->layers);
    if (twice)
        return elbo_fail(error, ELBO_USAGE,
                         "latent.injection has %s twice, because both stands for %s; leave one of them out", given,
                         known);
    return ELBO_OK;
}

void stack_history(struct recorder *r, struct sequence *s, struct dim rows, size_t room)
{
    s->history = graph_input(r->g, "history", DTYPE_I32, 2, (struct dim[]){rows, {DIM_FIXED, room}});
}

size_t stack_embedding_width(const struct stack_config *c)
{
    const struct stack_kind *kind = stack_kind_of(c);
    return kind->embedding_width ? kind->embedding_width(c) : c->width;
}

const char *stack_embedding_option(const struct stack_config *c)
{
    return stack_embedding_width(c) == c->width ? "width" : "embedding_width";
}

double stack_embedding_std(const struct stack_config *c)
{
    const struct stack_kind *kind = stack_kind_of(c);
    return kind->embedding_std ? kind->embedding_std(c) : 0.02;
}

/* Returns whether a kind reads an option that not every kind reads. */
static bool reads(const struct stack_kind *kind, const char *key)
{
    for (const char *const *k = kind->options; *k; k++)
        if (!strcmp(*k, key)) return true;
    return false;
}

const char *stack_idle(const char *section, const struct stack_config *c, const char *key)
{
    static _Thread_local char because[96];
    const struct stack_kind *kind = stack_kind_of(c);
    bool some_kinds = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) some_kinds |= reads(kinds[i], key);
    if (!some_kinds || reads(kind, key)) return NULL;
    snprintf(because, sizeof because, "%s.kind=%s has no %s", section, kind->name, key);
    return because;
}

value stack_embed(struct recorder *r, const struct stack *s, const struct sequence *sequence)
{
    graph_scope(r->g, "%s.embedding", s->name);
    if (sequence->vectors.index) return sequence->vectors;
    value table = recorder_token_table(r, s->name);
    if (r->config->dropped_mark != DROPPED_OWN)
        return op_embedding(r->g, table, sequence->ids, sequence->id_order, NO_VALUE);
    return op_embedding_marked(r->g, table, recorder_mark_table(r, s->name), sequence->ids, sequence->id_order);
}

/* Adds each sentence's vector to its rows. */
static value add_to_rows(struct recorder *r, const struct sequence *s, value x, value each)
{
    if (s->offsets.index) return op_broadcast_add(r->g, x, each, s->sentence, s->offsets);
    return op_add(r->g, x, each);
}

value stack_label(struct recorder *r, const struct stack *s, const struct sequence *sequence, value embedded)
{
    if (!sequence->label.index) return embedded;
    graph_scope(r->g, "%s.embedding", s->name);
    return op_embedding(r->g, recorder_label_table(r, s->name), sequence->label, sequence->label_order, embedded);
}

value stack_add_prefix(struct recorder *r, const struct stack_input *in, value x)
{
    const struct sequence *s = in->sequence;
    return in->prefix.index ? op_prefix(r->g, x, in->prefix, s->position, s->sentence, s->offsets) : x;
}

value stack_add_embedded(struct recorder *r, const struct stack_input *in, value x)
{
    return in->embedded.index ? add_to_rows(r, in->sequence, x, in->embedded) : x;
}

/* Adds z W^T of the sentence to x; W is the weight called `name`. */
static value add_latent(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, value z,
                        const char *name)
{
    graph_scope(r->g, "%s", name);
    return add_to_rows(r, in->sequence, x,
                       recorder_linear(r, s->part, z, graph_width(r->g, x), 0.02, false, false, name));
}

value stack_residual(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, size_t block)
{
    char name[64];
    if (!block || !(in->injection & INJECT_RESIDUAL)) return x;
    snprintf(name, sizeof name, "%s.%zu.residual", s->name, block);
    return add_latent(r, s, in, x, in->latent, name);
}

value stack_skip(struct recorder *r, const struct stack *s, const struct stack_input *in, value x, int layer)
{
    char name[64];
    if (!in->skip.index) return x;
    if (layer < 0)
        snprintf(name, sizeof name, "%s.output.skip", s->name);
    else
        snprintf(name, sizeof name, "%s.%d.skip", s->name, layer);
    return add_latent(r, s, in, x, in->skip, name);
}
