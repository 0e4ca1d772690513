/* The classes of characters in GPT-2's expression: \p{L}, \p{N}, white space. */
#ifndef INFER_CATEGORIES_H
#define INFER_CATEGORIES_H

#include <stdint.h>

enum category { CATEGORY_OTHER, CATEGORY_LETTER, CATEGORY_NUMBER, CATEGORY_SPACE };

enum category category_of(uint32_t code);

#endif
