/* Adds a file to a saved checkpoint: see checkpoint.h. Files of one stem are numbered, "stem-000001.suffix". */
#include "checkpoint/checkpoint.h"

#include "base/files.h"
#include "checkpoint/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns the number in a name of this stem; 0: the name has another stem. */
static unsigned number_of(const char *name, const char *stem)
{
    size_t length = strlen(stem);
    if (strncmp(name, stem, length) || name[length] != '-') return 0;
    return (unsigned)strtoul(name + length + 1, NULL, 10);
}

/* Removes files of the stem that the manifest does not name: from the addition before the last, or from an interrupted
 * one. */
static elbo_status sweep(const struct checkpoint *c, const char *folder, const char *stem, elbo_error *error)
{
    DIR *entries = opendir(folder);
    if (!entries) return file_fail(error, "read the folder", folder, errno);
    elbo_status status = ELBO_OK;
    for (struct dirent *entry; !status && (errno = 0, entry = readdir(entries));) {
        char path[FILES_PATH];
        if (!number_of(entry->d_name, stem) || checkpoint_has(c, entry->d_name)) continue;
        status = file_join(path, folder, entry->d_name, error);
        if (!status) status = file_remove(path, error);
    }
    if (!status && errno) status = file_fail(error, "read the folder", folder, errno);
    closedir(entries);
    return status;
}

/* Writes the checkpoint's own entries without those of the stem, and the new entry behind them. */
static elbo_status write_manifest(const struct checkpoint *c, const char *folder, const char *stem,
                                  const struct manifest_file *added, elbo_error *error)
{
    struct manifest manifest = *checkpoint_manifest(c);
    struct manifest_file *files = malloc((manifest.count + 1) * sizeof *files);
    char *text = NULL, path[FILES_PATH];
    size_t size, count = 0;
    if (!files) return elbo_fail(error, ELBO_MEMORY, "no memory for the entries of %zu files", manifest.count + 1);
    for (size_t i = 0; i < manifest.count; i++)
        if (!number_of(manifest.files[i].name, stem)) files[count++] = manifest.files[i];
    files[count++] = *added;
    manifest.files = files;
    manifest.count = count;
    elbo_status status = file_join(path, folder, CHECKPOINT_MANIFEST, error);
    if (!status) status = manifest_compose(&text, &size, &manifest, error);
    if (!status) status = file_write(path, text, size, error);
    free(text);
    free(files);
    return status;
}

elbo_status checkpoint_attach(const struct checkpoint *c, const char *stem, const char *suffix,
                              const struct checkpoint_file *file, elbo_error *error)
{
    const char *folder = checkpoint_path(c);
    char beginning[MANIFEST_MOST_NAME], name[MANIFEST_MOST_NAME];
    struct manifest_file entry = {0};
    snprintf(beginning, sizeof beginning, "%s-", stem);
    const char *before = checkpoint_named(c, beginning);
    snprintf(name, sizeof name, "%s-%06u.%s", stem, (before ? number_of(before, stem) : 0) + 1, suffix);
    struct checkpoint_file named = *file;
    named.name = name;
    elbo_status status = sweep(c, folder, stem, error);
    if (!status) status = checkpoint_write_file(&entry, folder, &named, error);
    if (!status) status = file_sync_folder(folder, error);
    if (!status) status = write_manifest(c, folder, stem, &entry, error);
    free(entry.chunks);
    if (status) elbo_fail_in(error, "%s was not added to %s: ", name, folder);
    return status;
}
