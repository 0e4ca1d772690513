/* A hash table of names and their numbers, so that looking up a parameter does not depend on the number of layers. */
#ifndef GRAPH_NAMES_H
#define GRAPH_NAMES_H

#include <stdbool.h>
#include <stddef.h>

struct named {
    const char *name; /* null: a free slot */
    size_t number;
};

/* An all-zero table is empty. */
struct names {
    struct named *place; /* (room) slots; room is a power of two, at most half of them taken */
    size_t count, room;
};

/* Adds a name. Returns false when memory ran out. The name stays the caller's, must outlive the table, and must not be
 * in it yet. */
bool names_add(struct names *names, const char *name, size_t number);
bool names_find(const struct names *names, const char *name, size_t *number);
void names_free(struct names *names);

#endif
