/* Fuzzes options of the command line, one a line. The first refused option ends the execution, as in the program. */
#include "fuzz/harness.h"
#include "train/config.h"

#include <stdlib.h>
#include <string.h>

int fuzz_one(const unsigned char *data, size_t size)
{
    struct elbo_config config;
    struct options *options;
    elbo_error error;
    FUZZ_CHECK(options_open(&options, elbo_config_table(), &config, &error) == ELBO_OK);
    elbo_status status = ELBO_OK;
    for (size_t at = 0; status == ELBO_OK && at < size;) {
        const unsigned char *end = memchr(data + at, '\n', size - at);
        size_t length = end ? (size_t)(end - data) - at : size - at;
        char *argument = malloc(length + 1);
        FUZZ_CHECK(argument);
        memcpy(argument, data + at, length);
        argument[length] = 0;
        status = options_read_argument(options, argument, COMMAND_TRAIN | COMMAND_PREPARE, &error);
        free(argument);
        at += length + 1;
    }
    if (status == ELBO_OK) elbo_config_check(&config, &error);
    FUZZ_PLANTED(config.train.steps > 200 && config.train.steps < 1000);
    options_free(options);
    return (int)status;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static const char *const seeds[] = {
        "--train.steps=200\n--strict\n--data.train=corpus/train\n--objective.beta=0.5",
        "--train.seed=18446744073709551615",
        "--tokenizer.kind=bpe\n--tokenizer.size=8000\n--split=95/2.5/2.5",
        "--objective.beta=-1e400\n--train.steps=1e9",
        "--trian.stpes=5\n--steps=9\n--=\n--\n-x\n--strict=maybe\n--data.train",
        "--train.steps=\n--latent.width=+5\n--latent.width= 5",
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_text(seeds[index], out, room) : 0;
}
