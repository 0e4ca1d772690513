/* Parts that all tokenizers share and that need no library: marks, growing buffers, ASCII white space. */
#ifndef TEXT_BUFFERS_H
#define TEXT_BUFFERS_H

#include "elbo/tokenizer.h"

enum { MARK_START, MARK_END, MARK_UNKNOWN, MARKS };

elbo_status ids_append(struct elbo_ids *ids, uint32_t id, elbo_error *error);
elbo_status text_append(struct elbo_text *text, const void *data, size_t size, elbo_error *error);

static inline bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

#endif
