/* Compares the options of a resumed run with those of its checkpoint: see resume.h. */
#include "train/resume.h"
#include "base/files.h"
#include "train/effects.h"

#include <stdio.h>
#include <stdlib.h>

struct comparison {
    const struct elbo_config *now, *before;
    FILE *model, *changed; /* differences to refuse; differences to report */
    size_t model_count, changed_count;
};

static void compare(void *context, const struct option *row, const char *now, const char *before)
{
    struct comparison *c = context;
    if (row->class != OPTION_MODEL && row->class != OPTION_CHANGE) return;
    if (effects_idle(c->now, row->key) && effects_idle(c->before, row->key)) return;
    if (row->class == OPTION_MODEL)
        fprintf(c->model, "%s%s is %s there and %s here", c->model_count++ ? ", " : "", row->key, before, now);
    else
        fprintf(c->changed, "%s%s %s -> %s", c->changed_count++ ? ", " : "", row->key, before, now);
}

static elbo_status compare_all(struct comparison *c, char **model, char **changed, const struct options *now,
                               const struct options *before, elbo_error *error)
{
    size_t sizes[2];
    c->model = open_memstream(model, &sizes[0]);
    c->changed = open_memstream(changed, &sizes[1]);
    if (c->model && c->changed) options_compare(now, before, compare, c);
    bool failed = !c->model || !c->changed || ferror(c->model) || ferror(c->changed);
    if (c->model && fclose(c->model)) failed = true;
    if (c->changed && fclose(c->changed)) failed = true;
    return failed ? elbo_fail(error, ELBO_MEMORY, "no memory to compare the options with the checkpoint's") : ELBO_OK;
}

elbo_status resume_compare(char **changed, const struct options *now, const struct elbo_config *config,
                           const char *yaml, size_t size, const char *name, elbo_error *error)
{
    struct elbo_config before;
    struct options *options;
    struct comparison c = {.now = config, .before = &before};
    char *model = NULL;
    *changed = NULL;
    ELBO_TRY(options_open(&options, elbo_config_table(), &before, error));
    elbo_status status = elbo_config_read_saved(options, yaml, size, name, error);
    if (!status) status = compare_all(&c, &model, changed, now, options, error);
    if (!status && c.model_count)
        status = elbo_fail(error, ELBO_USAGE,
                           "%s has another model: %s; give what stands there, or begin a new run in another --run.dir",
                           name, model);
    options_free(options);
    free(model);
    if (status || !c.changed_count) {
        free(*changed);
        *changed = NULL;
    }
    return status;
}

static elbo_status read_mark(int *mark, const char *yaml, size_t size, const char *name, elbo_error *error)
{
    struct elbo_config config;
    struct options *options;
    ELBO_TRY(options_open(&options, elbo_config_table(), &config, error));
    elbo_status status = elbo_config_read_saved(options, yaml, size, name, error);
    *mark = config.model.dropped_mark;
    options_free(options);
    return status;
}

elbo_status resume_mark(int *mark, const char *from, elbo_error *error)
{
    char path[FILES_PATH], *yaml;
    size_t size;
    ELBO_TRY(file_join(path, from, "config.yaml", error));
    if (!file_is_regular(path)) return ELBO_OK;
    ELBO_TRY(file_read(&yaml, &size, path, (size_t)1 << 30, error));
    elbo_status status = read_mark(mark, yaml, size, path, error);
    free(yaml);
    return status;
}
