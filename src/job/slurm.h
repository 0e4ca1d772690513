/* Slurm's compressed lists: hosts as "gnode[08,20-22],login1" and tasks as "8(x2),4". */
#ifndef JOB_SLURM_H
#define JOB_SLURM_H

#include <stdbool.h>
#include <stddef.h>

/* Writes the first host of a list: "gnode08". Returns false if the list is malformed up to there or the name does not
 * fit. */
bool slurm_first_host(char *out, size_t room, const char *list);

/* Finds the tasks of the host with index `node`, and of all hosts together. Returns false if the list is malformed or
 * has no such host. */
bool slurm_tasks(size_t *tasks, size_t *total, const char *list, size_t node);

#endif
