/* Names and their numbers: a hash table, so that a model of a thousand layers finds each of its parameters at once. */
#ifndef GRAPH_NAMES_H
#define GRAPH_NAMES_H

#include <stdbool.h>
#include <stddef.h>

struct named {
    const char *name; /* null: a free place */
    size_t number;
};

/* All zero: empty. */
struct names {
    struct named *place; /* (room) a power of two, at most half of them taken */
    size_t count, room;
};

/* False when there is no memory. The name stays the caller's, must outlive the table, and is not in it yet. */
bool names_add(struct names *names, const char *name, size_t number);
bool names_find(const struct names *names, const char *name, size_t *number);
void names_free(struct names *names);

#endif
