/* Parses Slurm's compressed lists: see slurm.h. */
#include "job/slurm.h"

#include "base/checked.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

static bool in_host_name(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '.';
}

/* Copies the first number of "[08,20-22]" with its leading zeros; moves `*at` behind the bracket. */
static bool first_number(char *out, size_t *size, size_t room, const char **at)
{
    const char *end = strchr(*at, ']'), *p = *at + 1;
    if (!end || !isdigit((unsigned char)*p)) return false;
    for (; isdigit((unsigned char)*p); p++) {
        if (*size + 1 >= room) return false;
        out[(*size)++] = *p;
    }
    for (; p < end; p++)
        if (!isdigit((unsigned char)*p) && *p != ',' && *p != '-') return false;
    *at = end + 1;
    return true;
}

bool slurm_first_host(char *out, size_t room, const char *list)
{
    size_t size = 0;
    while (*list && *list != ',') {
        if (*list == '[') {
            if (!first_number(out, &size, room, &list)) return false;
            continue;
        }
        if (!in_host_name(*list) || size + 1 >= room) return false;
        out[size++] = *list++;
    }
    out[size] = 0;
    return size > 0;
}

static bool number(size_t *out, const char **at)
{
    *out = 0;
    if (!isdigit((unsigned char)**at)) return false;
    for (; isdigit((unsigned char)**at); (*at)++)
        if (!checked_mul(out, *out, 10) || !checked_add(out, *out, (size_t)(**at - '0'))) return false;
    return true;
}

bool slurm_tasks(size_t *tasks, size_t *total, const char *list, size_t node)
{
    size_t first = 0; /* index of the entry's first host */
    bool found = false;
    *total = 0;
    for (;; list++) {
        size_t count, hosts = 1, product;
        if (!number(&count, &list)) return false;
        if (*list == '(') {
            if (*++list != 'x') return false;
            list++;
            if (!number(&hosts, &list) || !hosts || *list++ != ')') return false;
        }
        if (!checked_mul(&product, count, hosts) || !checked_add(total, *total, product)) return false;
        if (node >= first && node - first < hosts) {
            *tasks = count;
            found = true;
        }
        if (!checked_add(&first, first, hosts)) return false;
        if (!*list) return found;
        if (*list != ',') return false;
    }
}
