/* Runs the tokenizer of a model's file on lines, for test_infer.py: `dump_words FILE < text` prints the ids of each
 * line, or with a second argument the text that the ids decode to. */
#include "infer/words.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    struct infer_file *f;
    struct infer_coder *c;
    struct elbo_ids ids = {0};
    struct elbo_text text = {0};
    elbo_error error;
    char *line = NULL;
    size_t room = 0;
    if (count < 2 || infer_open(&f, arguments[1], &error) || infer_coder_open(&c, f, &error)) {
        fprintf(stderr, "%s\n", count < 2 ? "dump_words FILE" : error.message);
        return 1;
    }
    for (ssize_t size; (size = getline(&line, &room, stdin)) >= 0;) {
        if (size && line[size - 1] == '\n') size--;
        if (infer_encode_text(c, &ids, line, (size_t)size, &error) ||
            infer_decode_text(c, &text, ids.ids, ids.count, &error)) {
            fprintf(stderr, "%s\n", error.message);
            return 1;
        }
        for (size_t i = 0; i < ids.count && count == 2; i++) printf("%s%u", i ? " " : "", ids.ids[i]);
        if (count > 2) fwrite(text.text, 1, text.size, stdout);
        putchar('\n');
    }
    free(line);
    elbo_ids_free(&ids);
    elbo_text_free(&text);
    infer_coder_close(c);
    infer_close(f);
    return 0;
}
