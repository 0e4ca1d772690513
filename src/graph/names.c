/* An open-addressing hash table of names with linear probing. */
#include "graph/names.h"
#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

/* Returns the slot of the name, or the free slot where the name belongs. */
static struct named *look(struct named *place, size_t room, const char *name)
{
    size_t at = (size_t)mix64(noise_purpose(name)) & (room - 1);
    while (place[at].name && strcmp(place[at].name, name) != 0) at = (at + 1) & (room - 1);
    return &place[at];
}

bool names_add(struct names *names, const char *name, size_t number)
{
    if (2 * names->count >= names->room) {
        size_t room = names->room ? 2 * names->room : 64;
        struct named *place = calloc(room, sizeof *place);
        if (!place) return false;
        for (size_t i = 0; i < names->room; i++)
            if (names->place[i].name) *look(place, room, names->place[i].name) = names->place[i];
        free(names->place);
        names->place = place;
        names->room = room;
    }
    *look(names->place, names->room, name) = (struct named){name, number};
    names->count++;
    return true;
}

bool names_find(const struct names *names, const char *name, size_t *number)
{
    const struct named *found = names->room ? look(names->place, names->room, name) : NULL;
    if (!found || !found->name) return false;
    *number = found->number;
    return true;
}

void names_free(struct names *names)
{
    free(names->place);
    *names = (struct names){0};
}
