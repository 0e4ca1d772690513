/* Declarations shared by the three files of the option engine. */
#ifndef BASE_OPTIONS_PRIVATE_H
#define BASE_OPTIONS_PRIVATE_H

#include "base/options.h"

struct options_string; /* an owned string; a list of them is freed with the options */

struct options {
    const struct option_table *table;
    unsigned char *target;
    struct options_string *strings;
    const char **where; /* (count) null: default */
};

/* Prints a value as YAML; strings are quoted. */
void options_print_value(FILE *out, const struct option *row, const void *target);

#endif
