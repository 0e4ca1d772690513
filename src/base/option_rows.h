/* Macros for rows of options, written beside the field that a row fills: the name within the section, the field (AT
 * gives its offset in the struct), the default, the range and unit of a number, the takers, and the help.
 *
 *     struct log_config {
 *         size_t every;
 *     };
 *     #define AT(field) offsetof(struct log_config, field)
 *     static const struct option log_rows[] = {
 *         ROW_SIZE("every", every, "20", 1, OPTION_MANY, "steps", KEPT_FREE, "number of steps between lines"),
 *     };
 *     #undef AT
 *
 * The takers are a mask of commands (base/commands.h), or KEPT(commands, class) for an option that a run keeps. */
#ifndef BASE_OPTION_ROWS_H
#define BASE_OPTION_ROWS_H

#include "base/commands.h"
#include "base/options.h"

#define ROW_SIZE(key, field, value, min, max, unit, takers, help)                                                      \
    {                                                                                                                  \
        key, OPTION_SIZE, AT(field), value, min, max, unit, help, .commands = takers                                   \
    }
#define ROW_NUMBER(key, field, value, min, max, unit, takers, help)                                                    \
    {                                                                                                                  \
        key, OPTION_DOUBLE, AT(field), value, min, max, unit, help, .commands = takers                                 \
    }
#define ROW_SWITCH(key, field, value, takers, help)                                                                    \
    {                                                                                                                  \
        key, OPTION_BOOL, AT(field), value, 0, 0, "", help, .commands = takers                                         \
    }
#define ROW_TEXT(key, field, value, takers, help)                                                                      \
    {                                                                                                                  \
        key, OPTION_STRING, AT(field), value, 0, 0, "", help, .commands = takers                                       \
    }
#define ROW_CHOICE(key, field, value, takers, help, ...)                                                               \
    {                                                                                                                  \
        key, OPTION_CHOICE, AT(field), value, 0, 0, "", help, .commands = takers, .choices = ROW_NAMES(__VA_ARGS__)    \
    }
#define ROW_SET(key, field, value, takers, help, ...)                                                                  \
    {                                                                                                                  \
        key, OPTION_SET, AT(field), value, 0, 0, "", help, .commands = takers, .choices = ROW_NAMES(__VA_ARGS__)       \
    }
#define ROW_NAMES(...)                                                                                                 \
    (const char *const[])                                                                                              \
    {                                                                                                                  \
        __VA_ARGS__, NULL                                                                                              \
    }

/* A resumed run with another value refuses it (MODEL), reports it (CHANGE) or ignores it (FREE); see enum option_class.
 * OWN: each rank may have its own value. */
#define KEPT(takers, of_class)     takers, .class = of_class
#define KEPT_OWN(takers, of_class) takers, .class = of_class, .own = true
#define KEPT_MODEL                 KEPT(TAKEN_BY_TRAINING, OPTION_MODEL)
#define KEPT_CHANGE                KEPT(TAKEN_BY_TRAINING, OPTION_CHANGE)
#define KEPT_FREE                  KEPT(TAKEN_BY_TRAINING, OPTION_FREE)

#define OPTION_MANY 1e15 /* whole numbers up to this one are exact in the double that holds a range */

#endif
