/* Takes the place of mpi.c in a build without MPI: opening the collectives fails. */
#include "job/collectives.h"

elbo_status mpi_collectives_open(struct collectives **c, double timeout, elbo_error *error)
{
    (void)c;
    (void)timeout;
    return elbo_fail(error, ELBO_USAGE,
                     "this elbo was built without MPI, which CPU ranks speak through: install an MPI (libopenmpi-dev "
                     "on Debian) and build again, or train with one rank");
}
