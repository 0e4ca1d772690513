/* The classes of a corpus' sentences while it is prepared: names, and each sentence's.
 *
 * A label is the text of a field without blanks around it. Classes are numbered by their names' bytes, so no order of
 * the sentences changes the numbers. */
#ifndef TEXT_LABELS_H
#define TEXT_LABELS_H

#include "elbo/status.h"

#include <stddef.h>
#include <stdint.h>

enum { LABELS_MOST = 65536, LABEL_LONGEST = 256 }; /* classes; bytes of a name */

struct labels {
    char **name; /* (count) rising */
    size_t count, room;
};

void labels_free(struct labels *l);
/* Adds a class unless it is there. ELBO_INPUT: there are LABELS_MOST already. `text` need not end with NUL. */
elbo_status labels_add(struct labels *l, const char *text, size_t size, elbo_error *error);
/* The number of a class that is there. */
uint32_t labels_find(const struct labels *l, const char *text, size_t size);

/* ---- where a line has it ---- */

/* A piece of a line. */
struct label_text {
    const char *text;
    size_t size;
};

/* Cuts a line at a TAB: its first field, or its last one, is the label and the rest the sentence. False: there is no
 * TAB. */
enum { LABEL_NO_COLUMN, LABEL_FIRST, LABEL_LAST };
int label_cut(struct label_text *label, struct label_text *sentence, const char *text, size_t size, int column);
/* Leaves blanks around it away. */
struct label_text label_trim(struct label_text field);

#endif
