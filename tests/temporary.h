/* A temporary folder for a test, and files in it. Include after the system headers and before cmocka.h's users. */
#ifndef TESTS_TEMPORARY_H
#define TESTS_TEMPORARY_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct temporary {
    char path[64];
};

static inline struct temporary temporary_open(void)
{
    struct temporary folder = {"/tmp/elbo-test-XXXXXX"};
    if (!mkdtemp(folder.path)) abort();
    return folder;
}

/* "folder/name" in the caller's buffer. */
static inline const char *temporary_path(char out[512], const struct temporary *folder, const char *name)
{
    snprintf(out, 512, "%s/%s", folder->path, name);
    return out;
}

static inline void temporary_write(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) abort();
}

static inline char *temporary_read(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *data = malloc(1 << 22);
    if (!file || !data) abort();
    *size = fread(data, 1, (1 << 22) - 1, file);
    data[*size] = 0;
    fclose(file);
    return data;
}

static inline void temporary_remove(const char *path)
{
    DIR *folder = opendir(path);
    if (folder) {
        for (struct dirent *entry; (entry = readdir(folder));)
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
                char *inside;
                if (asprintf(&inside, "%s/%s", path, entry->d_name) < 0) abort();
                struct stat about;
                if (lstat(inside, &about) == 0 && S_ISDIR(about.st_mode))
                    temporary_remove(inside);
                else
                    unlink(inside);
                free(inside);
            }
        closedir(folder);
    }
    rmdir(path);
}

#endif
