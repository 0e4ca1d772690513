/* The classes of sentences while a corpus is prepared: the class names, and the label of each line.
 *
 * A label is the text of a field without surrounding blanks. Classes are numbered in the byte order of their names, so
 * the order of the sentences does not change the numbers. */
#ifndef TEXT_LABELS_H
#define TEXT_LABELS_H

#include "elbo/status.h"

#include <stddef.h>
#include <stdint.h>

enum { LABELS_MOST = 65536, LABEL_LONGEST = 256 }; /* number of classes; bytes of a name */

struct labels {
    char **name; /* (count) sorted */
    size_t count, room;
};

void labels_free(struct labels *l);
/* Adds a class unless it is known. ELBO_INPUT: LABELS_MOST classes are known already. `text` need not end with NUL. */
elbo_status labels_add(struct labels *l, const char *text, size_t size, elbo_error *error);
/* Returns the number of a known class. */
uint32_t labels_find(const struct labels *l, const char *text, size_t size);

/* ---- the label of a line ---- */

/* Part of a line. */
struct label_text {
    const char *text;
    size_t size;
};

/* Cuts a line at its first or last TAB: the first or the last field is the label, and the rest is the sentence. Returns
 * false if the line has no TAB. */
enum { LABEL_NO_COLUMN, LABEL_FIRST, LABEL_LAST };
int label_cut(struct label_text *label, struct label_text *sentence, const char *text, size_t size, int column);
/* Removes the blanks around a field. */
struct label_text label_trim(struct label_text field);

#endif
