/* Meets the other ranks of its job like a training, and prints its own place and rank 0's id:
 *
 *     job_dump_meeting [TIMEOUT]      "rank 1 of 2 (torchrun), ... | 5f0c..."; the exit code is the elbo_status */
#include "job/heartbeat.h"
#include "job/ranks.h"
#include "job/rendezvous.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static elbo_status meet(double timeout, elbo_error *error)
{
    const char *address = getenv("MEET_AT"), *port = getenv("MEET_PORT"), *rank = getenv("MEET_RANK"),
               *ranks_given = getenv("MEET_RANKS");
    struct parallel_config config = {.rank = rank ? rank : "auto",
                                     .ranks = ranks_given ? strtoul(ranks_given, NULL, 10) : 0,
                                     .address = address ? address : "",
                                     .port = port ? strtoul(port, NULL, 10) : 0,
                                     .timeout = timeout,
                                     .secret_file = ""};
    struct ranks ranks;
    char line[RANKS_LINE];
    unsigned char id[128] = {0};
    ELBO_TRY(ranks_detect(&ranks, &config, ranks_environment, NULL, error));
    ranks_line(line, &ranks);
    if (ranks.rank == 0) {
        FILE *file = fopen("/dev/urandom", "rb");
        if (!file || fread(id, 1, sizeof id, file) != sizeof id) return elbo_fail(error, ELBO_IO, "no /dev/urandom");
        fclose(file);
    }
    struct rendezvous_options options = rendezvous_here(&config);
    ELBO_TRY(rendezvous_share(&ranks, &options, id, sizeof id, NULL, error));
    launcher_heartbeat();
    char text[RANKS_LINE + 64], *end = text + sprintf(text, "%s | ", line);
    for (int i = 112; i < 128; i++) end += sprintf(end, "%02x", id[i]);
    puts(text);
    return ELBO_OK;
}

int main(int argc, char **argv)
{
    elbo_error error = {0};
    elbo_status status = meet(argc > 1 ? strtod(argv[1], NULL) : 10, &error);
    if (status) fprintf(stderr, "%s\n", error.message);
    return (int)status;
}
