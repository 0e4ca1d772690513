/* Fuzzes a configuration in YAML. An accepted configuration must be the same after writing and reading it. */
#include "fuzz/harness.h"
#include "train/config.h"

#include <stdlib.h>
#include <string.h>

static elbo_status read_text(struct options **options, struct elbo_config *config, const char *text, size_t size)
{
    elbo_error error;
    FUZZ_CHECK(options_open(options, elbo_config_table(), config, &error) == ELBO_OK);
    elbo_status status = options_read_yaml_text(*options, text, size, "config.yaml", &error);
    if (status == ELBO_OK) elbo_config_check(config, &error);
    return status;
}

int fuzz_one(const unsigned char *data, size_t size)
{
    struct elbo_config config, again;
    struct options *options, *others = NULL;
    elbo_status status = read_text(&options, &config, (const char *)data, size);
    if (status == ELBO_OK) {
        fuzz_own_begin(); /* writing does not count as reading */
        char *yaml = options_yaml(options, ~0u);
        FUZZ_CHECK(yaml && read_text(&others, &again, yaml, strlen(yaml)) == ELBO_OK);
        char *same = options_yaml(others, ~0u);
        FUZZ_CHECK(same && !strcmp(yaml, same));
        free(same);
        free(yaml);
        options_free(others);
        fuzz_own_end();
        FUZZ_PLANTED(config.train.steps == 7);
    }
    options_free(options);
    return (int)status;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        "train:\n  steps: 200\n  slot_tokens: 4096\n  seed: 18446744073709551615\n",
        "# a comment\nmodel: {}\nlatent:\n  width: 32\ndecoder: {width: 64, layers: 2, heads: 4}\nrun:\n  dir: "
        "\"a\\x41\\u00e9 b\"\n",
        "data: {train: 'it''s', max_length: 64}\nobjective:\n  beta: 1e-3\n  beta_schedule: cyclical\nstrict: true\n",
        "train:\n  steps: &a 1\n  skip: *a\n",
        "train: [1, 2]\n",
        "--- \na: b\n---\nc: d\n",
        "train:\n  steps: 1\ntrain:\n  skip: 2\n",
        "run:\n  dir: |\n    folded\n    text\n",
        "run:\n  dir: >-\n   x\n   y\n",
        "? {a: b}\n: c\n",
        "!!str train.steps: !!int 5\n",
        "a: {b: {c: {d: {e: {f: {g: {h: {i: {j: k}}}}}}}}}\n",
        "{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{",
        ("\xef\xbb\xbf"
         "threads: 2\n"),
        "%YAML 1.1\n%TAG ! tag:x,2000:\n---\nthreads: 1\n...\n",
        "trian.steps: 5\n",
        "? ? ? ? ? ? ? ? ? ?\n- - - - - - - - -\n",
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index], out, room) : 0;
}
