/* Encodes each line of a file: the posterior's mean, one row of numbers a sentence.
 *
 *     cc encode.c $(pkg-config --cflags --libs elbo) -o encode && ./encode RUN sentences.txt */
#include <elbo/run.h>

#include <stdio.h>
#include <stdlib.h>

static elbo_status encode(elbo_run *run, FILE *lines, elbo_error *error)
{
    size_t width = elbo_run_latent_width(run), room = 0;
    float *mu = malloc(2 * width * sizeof *mu), *logvar = mu + width;
    char *line = NULL;
    long size;
    elbo_status status = ELBO_OK;
    while (!status && (size = (long)getline(&line, &room, lines)) > 0) {
        size_t bytes = (size_t)size - (line[size - 1] == '\n');
        const char *text = line;
        status = elbo_run_encode(run, mu, logvar, &text, &bytes, 1, error);
        for (size_t i = 0; i < width && !status; i++) printf("%g%c", (double)mu[i], i + 1 < width ? ' ' : '\n');
    }
    free(line);
    free(mu);
    return status;
}

int main(int argc, char **argv)
{
    elbo_error error;
    elbo_run *run;
    if (argc != 3) return fprintf(stderr, "usage: encode RUN SENTENCES.txt\n"), 2;
    FILE *lines = fopen(argv[2], "r");
    if (!lines) return perror(argv[2]), 4;
    elbo_status status = elbo_run_open(&run, argv[1], 0, &error);
    if (!status) {
        status = encode(run, lines, &error);
        elbo_run_close(run);
    }
    fclose(lines);
    if (status) fprintf(stderr, "encode: %s\n", error.message);
    return (int)status;
}
