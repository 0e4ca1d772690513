/* elbo devices: lists the devices that --device may name on this machine, and why another one cannot be used. */
#include "base/json.h"
#include "cli/cli.h"
#include "device/backends.h"

#include <string.h>

/* Opens the device and closes it again. *usable says whether that worked; `text` gets the device's description or the
 * reason. */
static elbo_status look(const char *name, size_t threads, bool *usable, char *text, size_t size, elbo_error *error)
{
    struct backend *backend;
    elbo_error why = {0};
    elbo_status status = backend_open(&backend, name, threads, &why);
    *usable = !status;
    snprintf(text, size, "%s", status ? why.message : backend->detail);
    if (!status) backend->destroy(backend);
    if (!status || status == ELBO_DEVICE) return ELBO_OK;
    *error = why; /* a failure that says nothing about the device, such as lack of memory */
    return status;
}

struct list {
    json_t *all; /* null: print text */
    int failed;
    size_t threads;
};

static elbo_status tell(struct list *l, const char *name, bool always, bool *usable, elbo_error *error)
{
    char text[sizeof error->message];
    ELBO_TRY(look(name, l->threads, usable, text, sizeof text, error));
    if (!*usable && !always) return ELBO_OK;
    if (l->all)
        l->failed |= json_array_append_new(
            l->all, json_pack("{s:s, s:b, s:s}", "device", name, "usable", *usable, "detail", text));
    else
        printf("%-12s %-4s %s\n", name, *usable ? "yes" : "no", text);
    return ELBO_OK;
}

static elbo_status tell_all(struct list *l, elbo_error *error)
{
    static const char *const cpu[] = {"cpu", "cpu:generic", "cpu:avx2", "cpu:avx512", "cpu:amx"};
    bool usable = true;
    for (size_t i = 0; i < sizeof cpu / sizeof *cpu; i++) ELBO_TRY(tell(l, cpu[i], true, &usable, error));
    usable = true;
    for (int i = 0; usable; i++) { /* GPUs are numbered without gaps */
        char name[32];
        snprintf(name, sizeof name, "cuda:%d", i);
        ELBO_TRY(tell(l, name, i == 0, &usable, error));
    }
    return ELBO_OK;
}

elbo_status cli_devices(struct cli *cli, elbo_error *error)
{
    struct list l = {.all = cli->config.json ? json_array() : NULL, .threads = cli->config.threads};
    if (cli->config.json && !l.all) return elbo_fail(error, ELBO_MEMORY, "no memory for the list of devices");
    elbo_status status = tell_all(&l, error);
    if (status || !l.all) {
        json_decref(l.all);
        return status;
    }
    if (l.failed) json_decref(l.all), l.all = NULL;
    return json_print(stdout, l.all, JSON_INDENT(2), "the list of devices", error);
}
