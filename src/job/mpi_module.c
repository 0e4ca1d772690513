/* Opens MPI at run time. The code that calls MPI is a module of its own, elbo-mpi.so, because MPIs differ in their
 * binary interface. So one program and one library serve machines with and without MPI. */
#include "job/collectives.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef ELBO_MODULES
#define ELBO_MODULES "../lib/elbo" /* from the folder of the program */
#endif

typedef elbo_status open_function(struct collectives **c, double timeout, elbo_error *error);

/* Writes the folder of the program or shared library that holds this code, with its last slash. */
static void own_folder(char folder[PATH_MAX])
{
    Dl_info info;
    folder[0] = 0;
    if (!dladdr((const void *)(uintptr_t)own_folder, &info) || !info.dli_fname || !realpath(info.dli_fname, folder)) {
        if (!realpath("/proc/self/exe", folder)) return;
    }
    char *slash = strrchr(folder, '/');
    if (slash) slash[1] = 0;
}

elbo_status mpi_collectives_open(struct collectives **c, double timeout, elbo_error *error)
{
    static const char *const places[] = {"", "elbo/", ELBO_MODULES "/"};
    char folder[PATH_MAX], path[2 * PATH_MAX], why[512] = "";
    void *module = NULL;
    own_folder(folder);
    for (size_t i = 0; i < sizeof places / sizeof *places && !module; i++) {
        snprintf(path, sizeof path, "%s%selbo-mpi.so", folder, places[i]);
        if (access(path, F_OK)) continue;
        /* MPI's own plugins look for its symbols among the global ones. */
        module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        if (!module) snprintf(why, sizeof why, "%s", dlerror());
    }
    if (!module)
        return elbo_fail(error, ELBO_USAGE,
                         "CPU ranks speak through MPI, and elbo-mpi.so %s%s; install an MPI (libopenmpi-dev on Debian) "
                         "and build elbo again, or train with one rank",
                         why[0] ? "cannot be opened: " : "is missing beside the program and in " ELBO_MODULES, why);
    open_function *open;
    *(void **)&open = dlsym(module, "elbo_mpi_open");
    if (!open) return elbo_fail(error, ELBO_INTERNAL, "%s has no elbo_mpi_open", path);
    return open(c, timeout, error);
}
