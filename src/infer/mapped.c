/* Maps a model's file, which is then read in place. */
#include "infer/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

elbo_status infer_map(void **bytes, size_t *size, const char *path, elbo_error *error)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat about;
    *bytes = MAP_FAILED;
    if (descriptor < 0) return elbo_fail(error, ELBO_IO, "cannot open %s: %s", path, strerror(errno));
    if (!fstat(descriptor, &about) && S_ISREG(about.st_mode) && about.st_size > 0) {
        *size = (size_t)about.st_size;
        *bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    } else {
        errno = EINVAL;
    }
    int number = errno;
    close(descriptor);
    if (*bytes != MAP_FAILED) return ELBO_OK;
    return elbo_fail(error, ELBO_IO, "cannot read %s: %s", path,
                     number == EINVAL ? "it is empty, or no regular file" : strerror(number));
}

void infer_unmap(void *bytes, size_t size)
{
    munmap(bytes, size);
}
