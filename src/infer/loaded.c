/* Reads a model's file into memory, for systems that cannot map files. */
#include "infer/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long size_of(FILE *file)
{
    if (fseek(file, 0, SEEK_END)) return -1;
    long size = ftell(file);
    return fseek(file, 0, SEEK_SET) ? -1 : size;
}

elbo_status infer_map(void **bytes, size_t *size, const char *path, elbo_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file) return elbo_fail(error, ELBO_IO, "cannot open %s: %s", path, strerror(errno));
    long whole = size_of(file);
    *size = whole > 0 ? (size_t)whole : 0;
    *bytes = whole > 0 ? aligned_alloc(INFER_ALIGNMENT, (*size / INFER_ALIGNMENT + 1) * INFER_ALIGNMENT) : NULL;
    elbo_status status = ELBO_OK;
    if (whole <= 0)
        status = elbo_fail(error, ELBO_IO, "cannot read %s: it is empty, or no regular file", path);
    else if (!*bytes)
        status = elbo_fail(error, ELBO_MEMORY, "no memory for %s, of %zu bytes", path, *size);
    else if (fread(*bytes, 1, *size, file) != *size)
        status = elbo_fail(error, ELBO_IO, "cannot read %s: %s", path, strerror(errno));
    fclose(file);
    if (!status) return ELBO_OK;
    free(*bytes);
    return status;
}

void infer_unmap(void *bytes, size_t size)
{
    (void)size;
    free(bytes);
}
