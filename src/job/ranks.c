/* Finds this process' rank: see ranks.h. Every launcher has one function here, which reads only that launcher's
 * variables. */
#include "job/ranks.h"

#include "base/checked.h"
#include "job/slurm.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_PORT = 29511,  /* port when nothing tells jobs apart */
    FIRST_DERIVED = 10000, /* ports derived from a job's number, below those that systems assign */
    DERIVED = 20000,
    TRIES = 8, /* ports to try when a launcher gives only a nearby port */
    LARGEST_PORT = 65535,
};

struct reader {
    const char *(*get)(void *context, const char *name);
    void *context;
    elbo_error *error;
};

/* Returns a variable's value; null if it is unset or empty. */
static const char *text(const struct reader *r, const char *name)
{
    const char *value = r->get(r->context, name);
    return value && *value ? value : NULL;
}

/* ---- numbers and addresses, each refused by name ---- */

/* Parses a number of digits only, from `least` to `most`. */
static bool parse(size_t *out, const char *value, size_t least, size_t most)
{
    size_t n = 0;
    if (!*value) return false;
    for (; *value; value++) {
        if (!isdigit((unsigned char)*value)) return false;
        if (!checked_mul(&n, n, 10) || !checked_add(&n, n, (size_t)(*value - '0'))) return false;
    }
    *out = n;
    return n >= least && n <= most;
}

static elbo_status number(size_t *out, const struct reader *r, const char *name, size_t least, size_t most)
{
    const char *value = text(r, name);
    if (!value)
        return elbo_fail(r->error, ELBO_USAGE,
                         "%s is not set, though the launcher's other variables are; start the ranks by the "
                         "launcher itself, or say --parallel.rank and --parallel.ranks",
                         name);
    if (!parse(out, value, least, most))
        return elbo_fail(r->error, ELBO_USAGE,
                         "%s = '%.40s' is not a whole number from %zu to %zu; unset it, or say "
                         "--parallel.rank and --parallel.ranks",
                         name, value, least, most);
    return ELBO_OK;
}

static elbo_status number_or(size_t *out, const struct reader *r, const char *name, size_t fallback, size_t least,
                             size_t most)
{
    *out = fallback;
    return text(r, name) ? number(out, r, name, least, most) : ELBO_OK;
}

static elbo_status below(size_t value, const char *name, size_t limit, const char *limit_name, const struct reader *r)
{
    if (value < limit) return ELBO_OK;
    return elbo_fail(r->error, ELBO_USAGE, "%s = %zu, but %s = %zu: ranks count from 0", name, value, limit_name,
                     limit);
}

static elbo_status at_most(size_t value, const char *name, size_t limit, const char *limit_name, const struct reader *r)
{
    if (value <= limit) return ELBO_OK;
    return elbo_fail(r->error, ELBO_USAGE, "%s = %zu is more than %s = %zu", name, value, limit_name, limit);
}

/* Reads a host name or an IPv4 or IPv6 address, without brackets. */
static elbo_status address(char out[RANKS_ADDRESS], const char *value, const char *name, const struct reader *r)
{
    size_t size = strlen(value);
    if (size > 2 && *value == '[' && value[size - 1] == ']') {
        value++;
        size -= 2;
    }
    bool good = size > 0 && size < RANKS_ADDRESS;
    for (size_t i = 0; good && i < size; i++) good = isalnum((unsigned char)value[i]) || strchr(".-_:%", value[i]);
    if (!good)
        return elbo_fail(r->error, ELBO_USAGE, "%s = '%.60s' is neither a host name nor an address", name, value);
    memcpy(out, value, size);
    out[size] = 0;
    return ELBO_OK;
}

static bool is_loopback(const char *host)
{
    return !strcmp(host, "localhost") || !strcmp(host, "::1") || !strncmp(host, "127.", 4);
}

/* Makes a file name from the launcher's name for the job. */
static void name_job(struct ranks *ranks, const char *launcher, const char *name)
{
    snprintf(ranks->job, sizeof ranks->job, "%s-%s", launcher, name);
    for (char *p = ranks->job; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '-') *p = '_';
}

/* Derives a port from a job's name: FNV-1a, folded. */
static unsigned port_of(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
    return FIRST_DERIVED + (hash ^ hash >> 16) % DERIVED;
}

/* ---- one function per launcher ---- */

static elbo_status read_given(struct ranks *ranks, const struct parallel_config *given, const struct reader *r)
{
    if (!given->ranks)
        return elbo_fail(r->error, ELBO_USAGE, "parallel.rank = %.40s needs parallel.ranks, the number of ranks",
                         given->rank);
    ranks->world = given->ranks;
    if (!parse(&ranks->rank, given->rank, 0, RANKS_MOST))
        return elbo_fail(r->error, ELBO_USAGE,
                         "parallel.rank = '%.40s' is neither a whole number from 0 to %d nor auto", given->rank,
                         RANKS_MOST);
    ELBO_TRY(below(ranks->rank, "parallel.rank", ranks->world, "parallel.ranks", r));
    /* The options do not describe hosts. Without an address all ranks are on this host. With an address each rank
     * counts as alone on its host, and --device=cuda:K says which GPU belongs to which rank. */
    ranks->one_host = !*given->address || is_loopback(given->address);
    ranks->local_world = ranks->one_host ? ranks->world : 1;
    ranks->local_rank = ranks->one_host ? ranks->rank : 0;
    ranks->nodes = ranks->one_host;
    return ELBO_OK;
}

static elbo_status read_elbo(struct ranks *ranks, const struct reader *r)
{
    size_t port;
    ELBO_TRY(number(&ranks->world, r, "ELBO_WORLD_SIZE", 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->rank, r, "ELBO_RANK", 0, RANKS_MOST));
    ELBO_TRY(below(ranks->rank, "ELBO_RANK", ranks->world, "ELBO_WORLD_SIZE", r));
    ELBO_TRY(number_or(&ranks->local_rank, r, "ELBO_LOCAL_RANK", ranks->rank, 0, RANKS_MOST));
    ELBO_TRY(number_or(&ranks->local_world, r, "ELBO_LOCAL_WORLD_SIZE", ranks->world, 1, RANKS_MOST));
    ELBO_TRY(below(ranks->local_rank, "ELBO_LOCAL_RANK", ranks->local_world, "ELBO_LOCAL_WORLD_SIZE", r));
    ELBO_TRY(at_most(ranks->local_world, "ELBO_LOCAL_WORLD_SIZE", ranks->world, "ELBO_WORLD_SIZE", r));
    ELBO_TRY(number_or(&port, r, "ELBO_PORT", DEFAULT_PORT, 1, LARGEST_PORT));
    if (text(r, "ELBO_ADDRESS")) ELBO_TRY(address(ranks->address, text(r, "ELBO_ADDRESS"), "ELBO_ADDRESS", r));
    ranks->port = (unsigned)port;
    ranks->one_host = ranks->local_world == ranks->world;
    ranks->nodes = ranks->one_host;
    return ELBO_OK;
}

static elbo_status read_torchrun(struct ranks *ranks, const struct reader *r)
{
    size_t port, restart;
    ELBO_TRY(number(&ranks->world, r, "WORLD_SIZE", 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->rank, r, "RANK", 0, RANKS_MOST));
    ELBO_TRY(below(ranks->rank, "RANK", ranks->world, "WORLD_SIZE", r));
    ELBO_TRY(number(&ranks->local_rank, r, "LOCAL_RANK", 0, RANKS_MOST));
    ELBO_TRY(number(&ranks->local_world, r, "LOCAL_WORLD_SIZE", 1, RANKS_MOST));
    ELBO_TRY(below(ranks->local_rank, "LOCAL_RANK", ranks->local_world, "LOCAL_WORLD_SIZE", r));
    ELBO_TRY(at_most(ranks->local_world, "LOCAL_WORLD_SIZE", ranks->world, "WORLD_SIZE", r));
    ELBO_TRY(number_or(&ranks->nodes, r, "GROUP_WORLD_SIZE", 0, 1, RANKS_MOST));
    ELBO_TRY(number_or(&ranks->node, r, "GROUP_RANK", 0, 0, RANKS_MOST));
    if (ranks->nodes) ELBO_TRY(below(ranks->node, "GROUP_RANK", ranks->nodes, "GROUP_WORLD_SIZE", r));
    ELBO_TRY(number_or(&port, r, "MASTER_PORT", 29500, 1, LARGEST_PORT));
    ELBO_TRY(number_or(&restart, r, "TORCHELASTIC_RESTART_COUNT", 0, 0, RANKS_MOST));
    if (text(r, "MASTER_ADDR")) ELBO_TRY(address(ranks->address, text(r, "MASTER_ADDR"), "MASTER_ADDR", r));
    /* torchrun's own store may listen on MASTER_PORT */
    ranks->port = port + TRIES <= LARGEST_PORT ? (unsigned)port + 1 : (unsigned)port - TRIES;
    ranks->ports = TRIES;
    ranks->restart = (unsigned)restart;
    ranks->one_host = ranks->local_world == ranks->world;
    char name[RANKS_JOB];
    const char *run = text(r, "TORCHELASTIC_RUN_ID");
    snprintf(name, sizeof name, "%zu-%.40s", port, run ? run : "");
    name_job(ranks, "torchrun", name);
    return ELBO_OK;
}

/* OMPI_COMM_WORLD_NODE_RANK is not read, because it counts this host's ranks over all jobs and does not number
 * hosts. */
static elbo_status read_openmpi(struct ranks *ranks, const struct reader *r)
{
    ELBO_TRY(number(&ranks->world, r, "OMPI_COMM_WORLD_SIZE", 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->rank, r, "OMPI_COMM_WORLD_RANK", 0, RANKS_MOST));
    ELBO_TRY(below(ranks->rank, "OMPI_COMM_WORLD_RANK", ranks->world, "OMPI_COMM_WORLD_SIZE", r));
    ELBO_TRY(number(&ranks->local_world, r, "OMPI_COMM_WORLD_LOCAL_SIZE", 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->local_rank, r, "OMPI_COMM_WORLD_LOCAL_RANK", 0, RANKS_MOST));
    ELBO_TRY(
        below(ranks->local_rank, "OMPI_COMM_WORLD_LOCAL_RANK", ranks->local_world, "OMPI_COMM_WORLD_LOCAL_SIZE", r));
    ELBO_TRY(at_most(ranks->local_world, "OMPI_COMM_WORLD_LOCAL_SIZE", ranks->world, "OMPI_COMM_WORLD_SIZE", r));
    const char *job = text(r, "PMIX_NAMESPACE");
    ranks->one_host = ranks->local_world == ranks->world;
    ranks->nodes = ranks->one_host;
    ranks->port = job ? port_of(job) : DEFAULT_PORT;
    ranks->ports = TRIES;
    if (job) name_job(ranks, "openmpi", job);
    return ELBO_OK;
}

static elbo_status read_hydra(struct ranks *ranks, const struct reader *r)
{
    ELBO_TRY(number(&ranks->world, r, "PMI_SIZE", 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->rank, r, "PMI_RANK", 0, RANKS_MOST));
    ELBO_TRY(below(ranks->rank, "PMI_RANK", ranks->world, "PMI_SIZE", r));
    ELBO_TRY(number(&ranks->local_world, r, "MPI_LOCALNRANKS", 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->local_rank, r, "MPI_LOCALRANKID", 0, RANKS_MOST));
    ELBO_TRY(below(ranks->local_rank, "MPI_LOCALRANKID", ranks->local_world, "MPI_LOCALNRANKS", r));
    ELBO_TRY(at_most(ranks->local_world, "MPI_LOCALNRANKS", ranks->world, "PMI_SIZE", r));
    ranks->one_host = ranks->local_world == ranks->world;
    ranks->nodes = ranks->one_host;
    ranks->ports = TRIES;
    return ELBO_OK;
}

/* Returns the first of the variables that is set, or the last one. */
static const char *first_set(const struct reader *r, const char *const *names)
{
    for (; names[1]; names++)
        if (text(r, *names)) break;
    return *names;
}

/* Reads the tasks of this host from the step's list, or else from the number requested per host. */
static elbo_status read_slurm_local(struct ranks *ranks, const char *world_name, const struct reader *r)
{
    const char *list = text(r, "SLURM_STEP_TASKS_PER_NODE");
    if (list) {
        size_t total;
        if (!slurm_tasks(&ranks->local_world, &total, list, ranks->node))
            return elbo_fail(r->error, ELBO_USAGE,
                             "SLURM_STEP_TASKS_PER_NODE = '%.60s' has no entry for SLURM_NODEID = %zu; it "
                             "looks like 8(x2),4",
                             list, ranks->node);
        if (total != ranks->world)
            return elbo_fail(r->error, ELBO_USAGE, "SLURM_STEP_TASKS_PER_NODE = '%.60s' makes %zu tasks, but %s = %zu",
                             list, total, world_name, ranks->world);
    } else {
        ELBO_TRY(number_or(&ranks->local_world, r, "SLURM_NTASKS_PER_NODE", ranks->nodes == 1 ? ranks->world : 0, 1,
                           RANKS_MOST));
        if (!ranks->local_world)
            return elbo_fail(r->error, ELBO_USAGE,
                             "SLURM_STEP_TASKS_PER_NODE is not set, so the ranks of this host are not known; "
                             "start them with srun, or say --parallel.rank and --parallel.ranks");
        if (ranks->local_world > ranks->world) ranks->local_world = ranks->world; /* fewer given than asked for */
    }
    ELBO_TRY(number(&ranks->local_rank, r, "SLURM_LOCALID", 0, RANKS_MOST));
    return below(ranks->local_rank, "SLURM_LOCALID", ranks->local_world, "tasks of this host", r);
}

static elbo_status read_slurm(struct ranks *ranks, const struct reader *r)
{
    static const char *const world_names[] = {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS", NULL};
    static const char *const node_names[] = {"SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", NULL};
    static const char *const list_names[] = {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST", NULL};
    const char *world_name = first_set(r, world_names), *node_name = first_set(r, node_names),
               *list_name = first_set(r, list_names);
    size_t job, step;
    ELBO_TRY(number(&ranks->world, r, world_name, 1, RANKS_MOST));
    ELBO_TRY(number(&ranks->rank, r, "SLURM_PROCID", 0, RANKS_MOST));
    ELBO_TRY(below(ranks->rank, "SLURM_PROCID", ranks->world, world_name, r));
    ELBO_TRY(number_or(&ranks->nodes, r, node_name, 1, 1, RANKS_MOST));
    ELBO_TRY(number_or(&ranks->node, r, "SLURM_NODEID", 0, 0, RANKS_MOST));
    ELBO_TRY(below(ranks->node, "SLURM_NODEID", ranks->nodes, node_name, r));
    ELBO_TRY(read_slurm_local(ranks, world_name, r));
    ELBO_TRY(number_or(&job, r, "SLURM_JOB_ID", 0, 0, UINT32_MAX));
    ELBO_TRY(number(&step, r, "SLURM_STEP_ID", 0, UINT32_MAX));
    ranks->one_host = ranks->local_world == ranks->world;
    const char *hosts = text(r, list_name);
    if (!ranks->one_host && hosts && !slurm_first_host(ranks->address, sizeof ranks->address, hosts))
        return elbo_fail(r->error, ELBO_USAGE, "%s = '%.60s' does not begin with a host; say --parallel.address",
                         list_name, hosts);
    ranks->port = FIRST_DERIVED + (unsigned)((job + step) % DERIVED);
    ranks->ports = TRIES;
    char name[RANKS_JOB];
    snprintf(name, sizeof name, "%zu-%zu", job, step);
    name_job(ranks, "slurm", name);
    return ELBO_OK;
}

/* srun sets SLURM_STEP_ID. A bare sbatch script has the job's variables without SLURM_STEP_ID. A shell of salloc has a
 * number that Slurm reserves for steps that are no step. Both are single processes, whatever SLURM_NTASKS says. */
static bool in_slurm_step(const struct reader *r)
{
    const size_t first_reserved = 0xfffffff0u;
    const char *value = text(r, "SLURM_STEP_ID");
    size_t step;
    return value && text(r, "SLURM_PROCID") &&
           !(parse(&step, value, 0, SIZE_MAX) && step >= first_reserved && step <= UINT32_MAX);
}

static elbo_status read_source(struct ranks *ranks, const struct parallel_config *given, const struct reader *r)
{
    if (*given->rank && strcmp(given->rank, "auto")) {
        ranks->source = RANKS_GIVEN;
        return read_given(ranks, given, r);
    }
    if (text(r, "ELBO_RANK")) {
        ranks->source = RANKS_ELBO;
        return read_elbo(ranks, r);
    }
    if (text(r, "RANK") && text(r, "WORLD_SIZE") && text(r, "LOCAL_RANK")) {
        ranks->source = RANKS_TORCHRUN;
        return read_torchrun(ranks, r);
    }
    if (text(r, "OMPI_COMM_WORLD_RANK")) {
        ranks->source = RANKS_OPENMPI;
        return read_openmpi(ranks, r);
    }
    /* srun --mpi=pmi2 sets PMI_RANK too, but not Hydra's own two variables */
    if (text(r, "PMI_RANK") && (text(r, "MPI_LOCALRANKID") || !in_slurm_step(r))) {
        ranks->source = RANKS_HYDRA;
        return read_hydra(ranks, r);
    }
    if (in_slurm_step(r)) {
        ranks->source = RANKS_SLURM;
        return read_slurm(ranks, r);
    }
    ranks->world = ranks->local_world = ranks->nodes = 1;
    ranks->one_host = true;
    return ELBO_OK;
}

/* Finds the address where the ranks meet. Options take precedence over the launcher. On one host the address is the
 * loopback, whatever the host's name is. */
static elbo_status read_meeting(struct ranks *ranks, const struct parallel_config *given, const struct reader *r)
{
    if (*given->address) {
        ELBO_TRY(address(ranks->address, given->address, "parallel.address", r));
        ranks->one_host = ranks->one_host && (ranks->world == 1 || is_loopback(ranks->address));
    } else if (ranks->one_host) {
        strcpy(ranks->address, "127.0.0.1");
    }
    if (given->port) {
        ranks->port = (unsigned)given->port;
        ranks->ports = 1;
    }
    if (!ranks->job[0]) {
        char name[16];
        snprintf(name, sizeof name, "%u", ranks->port);
        name_job(ranks, "port", name);
    }
    return ELBO_OK;
}

elbo_status ranks_detect(struct ranks *ranks, const struct parallel_config *given,
                         const char *(*get)(void *context, const char *name), void *context, elbo_error *error)
{
    const struct reader r = {get, context, error};
    size_t restart;
    *ranks = (struct ranks){.port = DEFAULT_PORT, .ports = 1};
    ELBO_TRY(read_source(ranks, given, &r));
    if (ranks->source != RANKS_TORCHRUN) { /* `elbo launch` in front of another launcher counts its restarts */
        ELBO_TRY(number_or(&restart, &r, "ELBO_RESTART", 0, 0, RANKS_MOST));
        ranks->restart = (unsigned)restart;
    }
    if (given->ranks && given->ranks != ranks->world && ranks->source == RANKS_SINGLE)
        return elbo_fail(
            error, ELBO_USAGE,
            "parallel.ranks = %zu, but no launcher started this process: for GPUs elbo launch -n %zu -- train "
            "... does, and torchrun --no-python; for CPUs and GPUs mpirun -n %zu elbo train ..., and srun; or "
            "say --parallel.rank too",
            given->ranks, given->ranks, given->ranks);
    if (given->ranks && given->ranks != ranks->world)
        return elbo_fail(error, ELBO_USAGE,
                         "parallel.ranks = %zu, but %s started %zu; start as many, or leave the option out",
                         given->ranks, ranks_source_name(ranks->source), ranks->world);
    return read_meeting(ranks, given, &r);
}

const char *ranks_environment(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

/* ---- for people ---- */

const char *ranks_source_name(enum ranks_source source)
{
    static const char *const names[] = {
        [RANKS_SINGLE] = "no launcher", [RANKS_GIVEN] = "--parallel.rank", [RANKS_ELBO] = "elbo launch",
        [RANKS_TORCHRUN] = "torchrun",  [RANKS_OPENMPI] = "Open MPI",      [RANKS_HYDRA] = "Hydra (MPICH, Intel MPI)",
        [RANKS_SLURM] = "Slurm",
    };
    return names[source];
}

void ranks_line(char line[RANKS_LINE], const struct ranks *ranks)
{
    char hosts[64] = "", restart[32] = "";
    if (ranks->source == RANKS_SINGLE) {
        snprintf(line, RANKS_LINE, "one rank: no launcher started several");
        return;
    }
    if (ranks->nodes > 1) snprintf(hosts, sizeof hosts, " (host %zu of %zu)", ranks->node, ranks->nodes);
    if (ranks->restart) snprintf(restart, sizeof restart, ", restart %u", ranks->restart);
    const char *brackets = strchr(ranks->address, ':') ? "[]" : "";
    snprintf(line, RANKS_LINE, "rank %zu of %zu (%s), %zu of %zu on this host%s, meeting at %.1s%s%.1s:%u%s",
             ranks->rank, ranks->world, ranks_source_name(ranks->source), ranks->local_rank, ranks->local_world, hosts,
             brackets, *ranks->address ? ranks->address : "an address that was not given",
             *brackets ? brackets + 1 : "", ranks->port, restart);
}
