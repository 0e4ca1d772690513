/* Tests how a process finds its rank, on environments of launchers: each row has one process's variables and the
 * expected result. Malformed or contradictory values must be refused by name. */
#include "job/ranks.h"
#include "job/slurm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { VARIABLES = 40 };

/* `context` is a list of "NAME=value" words, ended by null. */
static const char *look_up(void *context, const char *name)
{
    const char *const *words = context;
    size_t size = strlen(name);
    for (; *words; words++)
        if (!strncmp(*words, name, size) && (*words)[size] == '=') return *words + size + 1;
    return NULL;
}

static const struct parallel_config nothing = {.rank = "auto", .address = "", .secret_file = ""};

/* ---- environments ---- */

/* Copied from `torchrun --no-python --nproc-per-node=2` and from `mpirun -n 2` of Debian 12. */
#define TORCHRUN(rank, world, local, local_world, group, groups)                                                       \
    "RANK=" rank, "WORLD_SIZE=" world, "LOCAL_RANK=" local, "LOCAL_WORLD_SIZE=" local_world, "GROUP_RANK=" group,      \
        "GROUP_WORLD_SIZE=" groups, "ROLE_RANK=" rank, "ROLE_NAME=default", "ROLE_WORLD_SIZE=" world,                  \
        "TORCHELASTIC_MAX_RESTARTS=3", "TORCHELASTIC_RUN_ID=none", "TORCHELASTIC_USE_AGENT_STORE=True",                \
        "TORCH_NCCL_ASYNC_ERROR_HANDLING=1", "OMP_NUM_THREADS=1"
#define OPENMPI(rank, world, local, local_world)                                                                       \
    "OMPI_COMM_WORLD_RANK=" rank, "OMPI_COMM_WORLD_SIZE=" world, "OMPI_COMM_WORLD_LOCAL_RANK=" local,                  \
        "OMPI_COMM_WORLD_LOCAL_SIZE=" local_world, "OMPI_COMM_WORLD_NODE_RANK=5", "OMPI_UNIVERSE_SIZE=32",             \
        "PMIX_RANK=" rank, "PMIX_NAMESPACE=2543714305"
#define HYDRA(rank, world, local, local_world)                                                                         \
    "PMI_RANK=" rank, "PMI_SIZE=" world, "PMI_FD=9", "MPI_LOCALRANKID=" local, "MPI_LOCALNRANKS=" local_world
/* A step of 6 tasks on 2 hosts, 4 and 2, in a job of 8 tasks. */
#define SRUN(rank, local, node)                                                                                        \
    "SLURM_JOB_ID=123456", "SLURM_STEP_ID=2", "SLURM_PROCID=" rank, "SLURM_LOCALID=" local, "SLURM_NODEID=" node,      \
        "SLURM_STEP_NUM_TASKS=6", "SLURM_NTASKS=6", "SLURM_NPROCS=6", "SLURM_STEP_NUM_NODES=2", "SLURM_NNODES=2",      \
        "SLURM_STEP_TASKS_PER_NODE=4,2", "SLURM_TASKS_PER_NODE=4(x2)", "SLURM_STEP_NODELIST=gnode[08,20-22]",          \
        "SLURM_JOB_NODELIST=gnode[07-30]", "SLURM_NODELIST=gnode[08,20-22]"

struct row {
    const char *name, *variables[VARIABLES];
    size_t world, rank, local_world, local_rank, nodes, node;
    enum ranks_source source;
    const char *address;
    unsigned port;
    bool one_host;
    unsigned restart;
};

static const struct row rows[] = {
    {"plain", {"HOME=/root", NULL}, 1, 0, 1, 0, 1, 0, RANKS_SINGLE, "127.0.0.1", 29511, true, 0},
    {"elbo launch",
     {"ELBO_RANK=2", "ELBO_WORLD_SIZE=4", "ELBO_LOCAL_RANK=2", "ELBO_LOCAL_WORLD_SIZE=4", "ELBO_ADDRESS=127.0.0.1",
      "ELBO_PORT=40123", "ELBO_RESTART=3", NULL},
     4,
     2,
     4,
     2,
     1,
     0,
     RANKS_ELBO,
     "127.0.0.1",
     40123,
     true,
     3},
    {"elbo launch inside a Slurm step",
     {"ELBO_RANK=1", "ELBO_WORLD_SIZE=2", "ELBO_PORT=40123", SRUN("0", "0", "0"), NULL},
     2,
     1,
     2,
     1,
     1,
     0,
     RANKS_ELBO,
     "127.0.0.1",
     40123,
     true,
     0},
    {"torchrun on one host: its store has 29500",
     {TORCHRUN("1", "2", "1", "2", "0", "1"), "MASTER_ADDR=myhost", "MASTER_PORT=29500", "TORCHELASTIC_RESTART_COUNT=2",
      NULL},
     2,
     1,
     2,
     1,
     1,
     0,
     RANKS_TORCHRUN,
     "127.0.0.1",
     29501,
     true,
     2},
    {"torchrun on two hosts",
     {TORCHRUN("9", "16", "1", "8", "1", "2"), "MASTER_ADDR=node0.cluster", "MASTER_PORT=29400",
      "TORCHELASTIC_RESTART_COUNT=0", NULL},
     16,
     9,
     8,
     1,
     2,
     1,
     RANKS_TORCHRUN,
     "node0.cluster",
     29401,
     false,
     0},
    {"torchrun meets at IPv6",
     {TORCHRUN("9", "16", "1", "8", "1", "2"), "MASTER_ADDR=[fd00::17]", "MASTER_PORT=29400", NULL},
     16,
     9,
     8,
     1,
     2,
     1,
     RANKS_TORCHRUN,
     "fd00::17",
     29401,
     false,
     0},
    {"torchrun with the last port",
     {TORCHRUN("0", "2", "0", "2", "0", "1"), "MASTER_PORT=65535", NULL},
     2,
     0,
     2,
     0,
     1,
     0,
     RANKS_TORCHRUN,
     "127.0.0.1",
     65527,
     true,
     0},
    {"torchrun under srun",
     {TORCHRUN("3", "8", "3", "4", "0", "2"), "MASTER_ADDR=gnode08", "MASTER_PORT=29500", SRUN("0", "0", "0"), NULL},
     8,
     3,
     4,
     3,
     2,
     0,
     RANKS_TORCHRUN,
     "gnode08",
     29501,
     false,
     0},
    {"RANK alone is somebody else's",
     {"RANK=3", "WORLD_SIZE=8", NULL},
     1,
     0,
     1,
     0,
     1,
     0,
     RANKS_SINGLE,
     "127.0.0.1",
     29511,
     true,
     0},
    {"mpirun: node rank 5 is not a host",
     {OPENMPI("1", "2", "1", "2"), NULL},
     2,
     1,
     2,
     1,
     1,
     0,
     RANKS_OPENMPI,
     "127.0.0.1",
     11718,
     true,
     0},
    {"mpirun on two hosts, which it does not name",
     {OPENMPI("3", "4", "1", "2"), NULL},
     4,
     3,
     2,
     1,
     0,
     0,
     RANKS_OPENMPI,
     "",
     11718,
     false,
     0},
    {"elbo launch in front of mpirun",
     {OPENMPI("1", "2", "1", "2"), "ELBO_RESTART=1", "ELBO_SECRET=x", NULL},
     2,
     1,
     2,
     1,
     1,
     0,
     RANKS_OPENMPI,
     "127.0.0.1",
     11718,
     true,
     1},
    {"mpirun under sbatch",
     {OPENMPI("1", "2", "1", "2"), "SLURM_JOB_ID=7", "SLURM_PROCID=0", "SLURM_NTASKS=2", NULL},
     2,
     1,
     2,
     1,
     1,
     0,
     RANKS_OPENMPI,
     "127.0.0.1",
     11718,
     true,
     0},
    {"Hydra", {HYDRA("3", "4", "3", "4"), NULL}, 4, 3, 4, 3, 1, 0, RANKS_HYDRA, "127.0.0.1", 29511, true, 0},
    {"Hydra whose proxies srun started",
     {HYDRA("3", "4", "1", "2"), SRUN("1", "0", "1"), NULL},
     4,
     3,
     2,
     1,
     0,
     0,
     RANKS_HYDRA,
     "",
     29511,
     false,
     0},
    {"srun", {SRUN("5", "1", "1"), NULL}, 6, 5, 2, 1, 2, 1, RANKS_SLURM, "gnode08", 13458, false, 0},
    {"srun with PMI-2",
     {SRUN("3", "3", "0"), "PMI_RANK=3", "PMI_SIZE=6", "PMI_FD=5", NULL},
     6,
     3,
     4,
     3,
     2,
     0,
     RANKS_SLURM,
     "gnode08",
     13458,
     false,
     0},
    {"srun on one host",
     {"SLURM_JOB_ID=40000", "SLURM_STEP_ID=0", "SLURM_PROCID=1", "SLURM_LOCALID=1", "SLURM_NODEID=0", "SLURM_NTASKS=2",
      "SLURM_NNODES=1", "SLURM_STEP_NODELIST=gnode1", NULL},
     2,
     1,
     2,
     1,
     1,
     0,
     RANKS_SLURM,
     "127.0.0.1",
     10000,
     true,
     0},
    {"srun --ntasks-per-node, no list",
     {"SLURM_JOB_ID=1", "SLURM_STEP_ID=0", "SLURM_PROCID=3", "SLURM_LOCALID=1", "SLURM_NODEID=1", "SLURM_NTASKS=4",
      "SLURM_NNODES=2", "SLURM_NTASKS_PER_NODE=2", "SLURM_JOB_NODELIST=r[1-2]n[3,5].x", NULL},
     4,
     3,
     2,
     1,
     2,
     1,
     RANKS_SLURM,
     "r1n3.x",
     10001,
     false,
     0},
    {"bare sbatch",
     {"SLURM_JOB_ID=123456", "SLURM_PROCID=0", "SLURM_LOCALID=0", "SLURM_NODEID=0", "SLURM_NTASKS=8", "SLURM_NPROCS=8",
      "SLURM_JOB_NODELIST=gnode[1-2]", NULL},
     1,
     0,
     1,
     0,
     1,
     0,
     RANKS_SINGLE,
     "127.0.0.1",
     29511,
     true,
     0},
    {"the shell of salloc",
     {"SLURM_JOB_ID=123456", "SLURM_STEP_ID=4294967290", "SLURM_PROCID=0", "SLURM_LOCALID=0", "SLURM_NODEID=0",
      "SLURM_NTASKS=8", NULL},
     1,
     0,
     1,
     0,
     1,
     0,
     RANKS_SINGLE,
     "127.0.0.1",
     29511,
     true,
     0},
    {"empty variables are not set",
     {"ELBO_RANK=", "RANK=", "OMPI_COMM_WORLD_RANK=", "PMI_RANK=", "SLURM_STEP_ID=", NULL},
     1,
     0,
     1,
     0,
     1,
     0,
     RANKS_SINGLE,
     "127.0.0.1",
     29511,
     true,
     0},
};

static bool is_row(const struct ranks *got, const struct row *row)
{
    return got->world == row->world && got->rank == row->rank && got->local_world == row->local_world &&
           got->local_rank == row->local_rank && got->nodes == row->nodes && got->node == row->node &&
           got->source == row->source && !strcmp(got->address, row->address) && got->port == row->port &&
           got->one_host == row->one_host && got->restart == row->restart;
}

static void check_row(const struct row *row)
{
    struct ranks got;
    elbo_error error = {0};
    if (ranks_detect(&got, &nothing, look_up, (void *)row->variables, &error))
        fail_msg("%s: %s", row->name, error.message);
    if (!is_row(&got, row)) {
        char line[RANKS_LINE];
        ranks_line(line, &got);
        fail_msg("%s: %s; nodes %zu, node %zu, one host %d, restart %u", row->name, line, got.nodes, got.node,
                 got.one_host, got.restart);
    }
    if (!*got.job ||
        strspn(got.job, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != strlen(got.job))
        fail_msg("%s: '%s' is no file name", row->name, got.job);
    if (got.port + got.ports - 1 > 65535) fail_msg("%s: ports beyond the last", row->name);
}

static void launchers_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check_row(&rows[i]);
}

/* A program that confuses two variables. */
struct mistake {
    const char *variable, *taken;
    const char *const *words;
};

static const char *look_up_wrongly(void *context, const char *name)
{
    const struct mistake *m = context;
    return look_up((void *)m->words, strcmp(name, m->variable) ? name : m->taken);
}

static void mistakes_with_variables_are_found(void **state)
{
    (void)state;
    static const char *const mistakes[][2] = {
        {"SLURM_STEP_ID", "SLURM_JOB_ID"},
        {"SLURM_LOCALID", "SLURM_LOCAL_ID"},
        {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"},
        {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"},
        {"LOCAL_RANK", "GROUP_RANK"},
        {"LOCAL_RANK", "RANK"},
        {"GROUP_RANK", "RANK"},
        {"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_NODE_RANK"},
        {"OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_UNIVERSE_SIZE"},
        {"MPI_LOCALRANKID", "PMI_RANK"},
        {"MPI_LOCALNRANKS", "PMI_SIZE"},
        {"ELBO_RANK", "SLURM_PROCID"},
        {"ELBO_PORT", "MASTER_PORT"},
        {"TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"},
        {"MASTER_ADDR", "HOSTNAME"},
        {"WORLD_SIZE", "LOCAL_WORLD_SIZE"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        size_t found = 0;
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            struct mistake mistake = {mistakes[i][0], mistakes[i][1], rows[r].variables};
            struct ranks got;
            elbo_error error = {0};
            found += ranks_detect(&got, &nothing, look_up_wrongly, &mistake, &error) || !is_row(&got, &rows[r]);
        }
        if (!found) fail_msg("no row tells %s from %s", mistakes[i][0], mistakes[i][1]);
    }
}

/* ---- refusals ---- */

struct refusal {
    const char *variables[VARIABLES], *says;
};

static const struct refusal refusals[] = {
    {{"ELBO_RANK=4", "ELBO_WORLD_SIZE=4", NULL}, "ELBO_RANK = 4, but ELBO_WORLD_SIZE = 4"},
    {{"ELBO_RANK=0", NULL}, "ELBO_WORLD_SIZE is not set"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=0", NULL}, "ELBO_WORLD_SIZE = '0'"},
    {{"ELBO_RANK=-1", "ELBO_WORLD_SIZE=2", NULL}, "ELBO_RANK = '-1'"},
    {{"ELBO_RANK=+1", "ELBO_WORLD_SIZE=2", NULL}, "ELBO_RANK = '+1'"},
    {{"ELBO_RANK= 1", "ELBO_WORLD_SIZE=2", NULL}, "ELBO_RANK = ' 1'"},
    {{"ELBO_RANK=1e0", "ELBO_WORLD_SIZE=2", NULL}, "ELBO_RANK = '1e0'"},
    {{"ELBO_RANK=0x1", "ELBO_WORLD_SIZE=2", NULL}, "ELBO_RANK = '0x1'"},
    {{"ELBO_RANK=18446744073709551617", "ELBO_WORLD_SIZE=2", NULL}, "ELBO_RANK"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=99999999999999999999999999", NULL}, "ELBO_WORLD_SIZE"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=1048577", NULL}, "ELBO_WORLD_SIZE"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_PORT=65536", NULL}, "ELBO_PORT"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_PORT=0", NULL}, "ELBO_PORT"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_LOCAL_WORLD_SIZE=3", NULL}, "ELBO_LOCAL_WORLD_SIZE = 3 is more than"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_LOCAL_RANK=2", NULL}, "ELBO_LOCAL_RANK = 2"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_RESTART=x", NULL}, "ELBO_RESTART"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_ADDRESS=a b", NULL}, "ELBO_ADDRESS = 'a b'"},
    {{"ELBO_RANK=0", "ELBO_WORLD_SIZE=2", "ELBO_ADDRESS=[]", NULL}, "ELBO_ADDRESS"},
    {{TORCHRUN("2", "2", "0", "2", "0", "1"), NULL}, "RANK = 2, but WORLD_SIZE = 2"},
    {{TORCHRUN("1", "2", "2", "2", "0", "1"), NULL}, "LOCAL_RANK = 2, but LOCAL_WORLD_SIZE = 2"},
    {{TORCHRUN("1", "2", "1", "4", "0", "1"), NULL}, "LOCAL_WORLD_SIZE = 4 is more than WORLD_SIZE = 2"},
    {{TORCHRUN("1", "4", "1", "2", "2", "2"), NULL}, "GROUP_RANK = 2, but GROUP_WORLD_SIZE = 2"},
    {{TORCHRUN("1", "2", "1", "2", "0", "1"), "MASTER_PORT=a", NULL}, "MASTER_PORT"},
    {{TORCHRUN("1", "2", "1", "2", "0", "1"), "TORCHELASTIC_RESTART_COUNT=-2", NULL}, "TORCHELASTIC_RESTART_COUNT"},
    {{TORCHRUN("1", "4", "1", "2", "0", "2"), "MASTER_ADDR=$(evil)", NULL}, "MASTER_ADDR"},
    {{"RANK=0", "WORLD_SIZE=2", "LOCAL_RANK=0", NULL}, "LOCAL_WORLD_SIZE is not set"},
    {{OPENMPI("2", "2", "1", "2"), NULL}, "OMPI_COMM_WORLD_RANK = 2"},
    {{OPENMPI("1", "2", "2", "2"), NULL}, "OMPI_COMM_WORLD_LOCAL_RANK = 2"},
    {{OPENMPI("1", "0", "0", "1"), NULL}, "OMPI_COMM_WORLD_SIZE = '0'"},
    {{OPENMPI("1", "2", "1", "3"), NULL}, "OMPI_COMM_WORLD_LOCAL_SIZE = 3"},
    {{HYDRA("4", "4", "0", "4"), NULL}, "PMI_RANK = 4"},
    {{HYDRA("0", "4", "9", "4"), NULL}, "MPI_LOCALRANKID = 9"},
    {{"PMI_RANK=1", "PMI_SIZE=4", NULL}, "MPI_LOCALNRANKS is not set"},
    {{SRUN("6", "1", "1"), NULL}, "SLURM_PROCID = 6, but SLURM_STEP_NUM_TASKS = 6"},
    {{SRUN("5", "2", "1"), NULL}, "SLURM_LOCALID = 2"},
    {{SRUN("5", "1", "2"), NULL}, "SLURM_NODEID = 2"},
    {{"SLURM_STEP_ID=0", "SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_NNODES=2", "SLURM_LOCALID=0", NULL},
     "SLURM_STEP_TASKS_PER_NODE is not"},
    {{"SLURM_STEP_ID=0", "SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_STEP_TASKS_PER_NODE=2(x3)", NULL}, "makes 6 tasks"},
    {{"SLURM_STEP_ID=0", "SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_STEP_TASKS_PER_NODE=2(y2)", NULL},
     "SLURM_STEP_TASKS_PER_NODE"},
    {{"SLURM_STEP_ID=x", "SLURM_PROCID=0", "SLURM_NTASKS=1", "SLURM_LOCALID=0", NULL}, "SLURM_STEP_ID"},
    {{"SLURM_STEP_ID=0", "SLURM_JOB_ID=-7", "SLURM_PROCID=0", "SLURM_NTASKS=1", "SLURM_LOCALID=0", NULL},
     "SLURM_JOB_ID"},
    {{"SLURM_STEP_ID=0", "SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_NNODES=2", "SLURM_STEP_TASKS_PER_NODE=2(x2)",
      "SLURM_LOCALID=0", "SLURM_STEP_NODELIST=n[1-2", NULL},
     "SLURM_STEP_NODELIST"},
};

static void wrong_values_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *row = &refusals[i];
        struct ranks got;
        elbo_error error = {0};
        if (ranks_detect(&got, &nothing, look_up, (void *)row->variables, &error) != ELBO_USAGE)
            fail_msg("not refused: %s", row->says);
        if (!strstr(error.message, row->says)) fail_msg("'%s' is not in: %s", row->says, error.message);
    }
}

/* ---- the options ---- */

struct given_row {
    struct parallel_config given;
    const char *variables[VARIABLES], *refused; /* null: accepted */
    size_t world, rank, local_rank;
    const char *address;
    unsigned port, ports;
    bool one_host;
};

static void options_go_before_launchers(void **state)
{
    (void)state;
    static const struct given_row table[] = {
        {{.ranks = 4, .rank = "3", .address = ""},
         {TORCHRUN("0", "2", "0", "2", "0", "1"), NULL},
         NULL,
         4,
         3,
         3,
         "127.0.0.1",
         29511,
         1,
         true},
        {{.ranks = 4, .rank = "3", .address = "a.b", .port = 80}, {NULL}, NULL, 4, 3, 0, "a.b", 80, 1, false},
        {{.ranks = 4, .rank = "0", .address = "localhost"}, {NULL}, NULL, 4, 0, 0, "localhost", 29511, 1, true},
        {{.ranks = 2, .rank = "auto", .address = "", .port = 7},
         {TORCHRUN("1", "2", "1", "2", "0", "1"), NULL},
         NULL,
         2,
         1,
         1,
         "127.0.0.1",
         7,
         1,
         true},
        {{.rank = "auto", .address = "other"},
         {OPENMPI("1", "2", "1", "2"), NULL},
         NULL,
         2,
         1,
         1,
         "other",
         11718,
         8,
         false},
        {{.rank = "auto", .address = "other"}, {NULL}, NULL, 1, 0, 0, "other", 29511, 1, true},
        {{.ranks = 1, .rank = "auto", .address = ""}, {NULL}, NULL, 1, 0, 0, "127.0.0.1", 29511, 1, true},
        {{.ranks = 4, .rank = "4", .address = ""},
         {NULL},
         "parallel.rank = 4, but parallel.ranks = 4",
         0,
         0,
         0,
         NULL,
         0,
         0,
         0},
        {{.ranks = 4, .rank = "-1", .address = ""}, {NULL}, "parallel.rank = '-1'", 0, 0, 0, NULL, 0, 0, 0},
        {{.rank = "0", .address = ""}, {NULL}, "needs parallel.ranks", 0, 0, 0, NULL, 0, 0, 0},
        {{.ranks = 8, .rank = "auto", .address = ""}, {NULL}, "elbo launch -n 8", 0, 0, 0, NULL, 0, 0, 0},
        {{.ranks = 8, .rank = "auto", .address = ""},
         {OPENMPI("1", "2", "1", "2"), NULL},
         "Open MPI started 2",
         0,
         0,
         0,
         NULL,
         0,
         0,
         0},
        {{.ranks = 2, .rank = "1", .address = "a/b"}, {NULL}, "parallel.address = 'a/b'", 0, 0, 0, NULL, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct given_row *row = &table[i];
        struct ranks got;
        elbo_error error = {0};
        elbo_status status = ranks_detect(&got, &row->given, look_up, (void *)row->variables, &error);
        if (row->refused) {
            if (status != ELBO_USAGE || !strstr(error.message, row->refused))
                fail_msg("%s: %s", row->refused, error.message);
            continue;
        }
        if (status) fail_msg("row %zu: %s", i, error.message);
        if (got.world != row->world || got.rank != row->rank || got.local_rank != row->local_rank ||
            strcmp(got.address, row->address) || got.port != row->port || got.ports != row->ports ||
            got.one_host != row->one_host)
            fail_msg("row %zu: rank %zu of %zu at %s:%u", i, got.rank, got.world, got.address, got.port);
    }
}

static void the_line_says_what_was_used(void **state)
{
    (void)state;
    static const struct {
        struct ranks ranks;
        const char *line;
    } table[] = {
        {{.world = 1}, "one rank: no launcher started several"},
        {{.world = 8,
          .rank = 3,
          .local_world = 8,
          .local_rank = 3,
          .nodes = 1,
          .source = RANKS_TORCHRUN,
          .address = "127.0.0.1",
          .port = 29501},
         "rank 3 of 8 (torchrun), 3 of 8 on this host, meeting at 127.0.0.1:29501"},
        {{.world = 4,
          .rank = 3,
          .local_world = 2,
          .local_rank = 1,
          .nodes = 2,
          .node = 1,
          .source = RANKS_SLURM,
          .address = "fd00::1",
          .port = 10001,
          .restart = 2},
         "rank 3 of 4 (Slurm), 1 of 2 on this host (host 1 of 2), meeting at [fd00::1]:10001, restart 2"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char line[RANKS_LINE];
        ranks_line(line, &table[i].ranks);
        assert_string_equal(line, table[i].line);
    }
}

/* ---- Slurm's lists ---- */

static void first_hosts(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"gnode", "gnode"},
        {"gnode1,gnode2", "gnode1"},
        {"gnode[10,20-22]", "gnode10"},
        {"gnode[007-012]", "gnode007"},
        {"a-b_c.d", "a-b_c.d"},
        {"r[1-2]n[3-4]", "r1n3"},
        {"n[2-3].x,m", "n2.x"},
        {"a,b[", "a"},
    };
    static const char *const bad[] = {"", ",a", "n[", "n[]", "n[a]", "n]", "n[1", "n[1;2]", "n 1", "n[-1]", "n[1-2]/x"};
    char host[256], small[4];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(slurm_first_host(host, sizeof host, good[i][0]));
        assert_string_equal(host, good[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (slurm_first_host(host, sizeof host, bad[i])) fail_msg("taken: '%s'", bad[i]);
    assert_true(slurm_first_host(small, sizeof small, "abc"));
    assert_false(slurm_first_host(small, sizeof small, "abcd"));
    assert_false(slurm_first_host(small, sizeof small, "a[123]"));
}

static void tasks_of_hosts(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        size_t node, tasks, total;
    } good[] = {
        {"8", 0, 8, 8}, {"8(x2),4", 0, 8, 20}, {"8(x2),4", 1, 8, 20}, {"8(x2),4", 2, 4, 20}, {"1,2,3(x3)", 4, 3, 12}};
    static const struct {
        const char *list;
        size_t node;
    } bad[] = {{"", 0},
               {"8", 1},
               {"8(x2),4", 3},
               {"8(x2", 0},
               {"8(2)", 0},
               {"8(x0)", 0},
               {"a", 0},
               {"8,", 1},
               {"8;4", 0},
               {",8", 1},
               {"-8", 0},
               {"99999999999999999999", 0},
               {"4294967296(x4294967296)", 0},
               {"1(x18446744073709551615),1", 0}};
    size_t tasks, total;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(slurm_tasks(&tasks, &total, good[i].list, good[i].node));
        assert_int_equal(tasks, good[i].tasks);
        assert_int_equal(total, good[i].total);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (slurm_tasks(&tasks, &total, bad[i].list, bad[i].node))
            fail_msg("taken: '%s' at %zu", bad[i].list, bad[i].node);
}

/* Replaces every value of every row by garbage; the result must never be a rank outside its world. */
static void garbage_never_makes_a_wrong_rank(void **state)
{
    (void)state;
    static const char *const garbage[] = {"-1", "a",    "1.5",      "0x10", "4294967296", "18446744073709551616",
                                          "1 ", "%s%n", "\xff\xfe", "9",    "7,8",        "4(x2)",
                                          "[[["};
    size_t refused = 0, taken = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t v = 0; rows[i].variables[v]; v++) {
            for (size_t g = 0; g < sizeof garbage / sizeof *garbage; g++) {
                const char *variables[VARIABLES];
                memcpy(variables, rows[i].variables, sizeof variables);
                char word[256];
                snprintf(word, sizeof word, "%.*s%s", (int)(strchr(variables[v], '=') - variables[v] + 1), variables[v],
                         garbage[g]);
                variables[v] = word;
                struct ranks got;
                elbo_error error = {0};
                if (ranks_detect(&got, &nothing, look_up, variables, &error)) {
                    assert_int_equal(error.code, ELBO_USAGE);
                    refused++;
                    continue;
                }
                taken++;
                if (got.rank >= got.world || got.local_rank >= got.local_world || got.local_world > got.world ||
                    !got.port || got.port + got.ports - 1 > 65535)
                    fail_msg("%s with %s: rank %zu of %zu", rows[i].name, word, got.rank, got.world);
            }
        }
    }
    assert_true(refused > 500 && taken > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launchers_are_read),
        cmocka_unit_test(mistakes_with_variables_are_found),
        cmocka_unit_test(wrong_values_are_refused_by_name),
        cmocka_unit_test(options_go_before_launchers),
        cmocka_unit_test(the_line_says_what_was_used),
        cmocka_unit_test(first_hosts),
        cmocka_unit_test(tasks_of_hosts),
        cmocka_unit_test(garbage_never_makes_a_wrong_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
