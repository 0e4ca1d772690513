/* The classes of sentences, kept sorted by name, and the label field of a line: see labels.h. */
#include "text/labels.h"

#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

void labels_free(struct labels *l)
{
    for (size_t i = 0; i < l->count; i++) free(l->name[i]);
    free(l->name);
    *l = (struct labels){0};
}

/* Returns < 0, 0 or > 0 if the name sorts before, equals or sorts behind the text. */
static int compare(const char *name, const char *text, size_t size)
{
    size_t length = strlen(name);
    int order = memcmp(name, text, length < size ? length : size);
    return order ? order : length < size ? -1 : length > size;
}

/* Returns the index of the text among the names, or the index at which to insert it. */
static size_t place_of(const struct labels *l, const char *text, size_t size)
{
    size_t from = 0, to = l->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (compare(l->name[middle], text, size) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

elbo_status labels_add(struct labels *l, const char *text, size_t size, elbo_error *error)
{
    size_t at = place_of(l, text, size);
    if (at < l->count && !compare(l->name[at], text, size)) return ELBO_OK;
    if (l->count == LABELS_MOST)
        return elbo_fail(error, ELBO_INPUT,
                         "there are more than %d different labels, of which the last is '%.*s'; give labels of few "
                         "classes",
                         LABELS_MOST, (int)(size < 40 ? size : 40), text);
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 16;
        char **larger = realloc(l->name, room * sizeof *larger);
        if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu labels", room);
        l->name = larger;
        l->room = room;
    }
    char *name = strndup(text, size);
    if (!name) return elbo_fail(error, ELBO_MEMORY, "no memory for a label");
    memmove(l->name + at + 1, l->name + at, (l->count - at) * sizeof *l->name);
    l->name[at] = name;
    l->count++;
    return ELBO_OK;
}

uint32_t labels_find(const struct labels *l, const char *text, size_t size)
{
    return (uint32_t)place_of(l, text, size);
}

int label_cut(struct label_text *label, struct label_text *sentence, const char *text, size_t size, int column)
{
    const char *tab = column == LABEL_FIRST ? memchr(text, '\t', size) : memrchr(text, '\t', size);
    if (!tab) return 0;
    struct label_text before = {text, (size_t)(tab - text)}, behind = {tab + 1, size - (size_t)(tab + 1 - text)};
    *label = column == LABEL_FIRST ? before : behind;
    *sentence = column == LABEL_FIRST ? behind : before;
    return 1;
}

struct label_text label_trim(struct label_text f)
{
    while (f.size && is_space(*f.text)) f.text++, f.size--;
    while (f.size && is_space(f.text[f.size - 1])) f.size--;
    return f;
}
