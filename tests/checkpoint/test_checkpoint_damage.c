/* Damages a checkpoint: every single bit of its manifest and of its tensors' headers, and random flips, truncations,
 * swaps and duplications of all of its files. Each damage must be refused with the file's name and, where the size is
 * right, with the range of bytes; the checkpoint before is used instead.
 *
 * Self-test: a file that the manifest does not name must count as missed. ELBO_TEST_FULL=1 tries 100,000 random
 * damages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "damage.h"
#include "temporary.h"
#include "checkpoint/checkpoint_contents.h"

#include <fcntl.h>

static const char *const files[] = {"manifest.json", "model.safetensors",           "file-0.bin",
                                    "file-1.bin",    "state/optimizer.safetensors", "state/words.txt"};
enum { FILES = sizeof files / sizeof *files };

struct file {
    char path[400];
    unsigned char *bytes, *damaged;
    size_t size;
};

struct fixture {
    struct temporary folder;
    char run[128];
    struct file file[FILES];
    size_t looked, missed, unnamed;
    char first[1200];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    snprintf(f->folder.path, sizeof f->folder.path, "%s/elbo-damage-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(f->folder.path)) return -1;
    snprintf(f->run, sizeof f->run, "%s/run", f->folder.path);
    struct contents c = {.step = 10, .generation = 1, .tensors = 3, .files = 2, .state = true};
    elbo_error error;
    for (c.step = 10; c.step <= 20; c.step += 10)
        if (contents_save(f->run, &c, 0, &error)) return -1;
    for (size_t i = 0; i < FILES; i++) {
        struct file *file = &f->file[i];
        snprintf(file->path, sizeof file->path, "%s/checkpoints/step-00000020/%s", f->run, files[i]);
        file->bytes = (unsigned char *)temporary_read(file->path, &file->size);
        file->damaged = malloc(2 * file->size + 64);
    }
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < FILES; i++) free(f->file[i].bytes), free(f->file[i].damaged);
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

/* Opens the run with file `i` damaged: step 10 must open, with one warning that names the place. */
static void look(struct fixture *f, size_t i, bool same_size, const char *what)
{
    struct contents c = {0};
    struct warned warned;
    const char *fault = open_fault(&c, f->run, &warned);
    f->looked++;
    if (fault || c.step != 10) {
        if (!f->missed++)
            snprintf(f->first, sizeof f->first, "%s in %s: step %d opens; %.900s", what, files[i], (int)c.step,
                     fault ? fault : "");
        return;
    }
    bool ranged = !same_size || i == 0 || strstr(warned.first, "between byte");
    if (warned.count == 1 && strstr(warned.first, "step-00000020") && strstr(warned.first, files[i]) && ranged) return;
    if (!f->unnamed++) snprintf(f->first, sizeof f->first, "%s in %s: %.900s", what, files[i], warned.first);
}

static void put(const struct file *file, const unsigned char *bytes, size_t size)
{
    int fd = open(file->path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static void flip(const struct file *file, size_t byte, int bit)
{
    unsigned char flipped = (unsigned char)(file->bytes[byte] ^ (bit < 0 ? 0 : 1 << bit));
    int fd = open(file->path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &flipped, 1, (off_t)byte), 1);
    close(fd);
}

static void nothing_missed(const struct fixture *f, const char *figure)
{
    print_message("figure damage.%s %zu\nfigure damage.%s_missed %zu\n", figure, f->looked, figure,
                  f->missed + f->unnamed);
    if (f->missed || f->unnamed)
        fail_msg("%zu missed, %zu unnamed of %zu: %s", f->missed, f->unnamed, f->looked, f->first);
}

static void every_bit_of_manifest_and_headers(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < FILES; i++) {
        size_t size = f->file[i].size;
        if (strstr(files[i], ".safetensors")) {
            size = 8;
            for (size_t b = 0; b < 8; b++) size += (size_t)f->file[i].bytes[b] << (8 * b);
        } else if (i > 0) {
            continue;
        }
        for (size_t byte = 0; byte < size; byte++)
            for (int bit = 0; bit < 8; bit++) {
                flip(&f->file[i], byte, bit);
                look(f, i, true, "a flipped bit");
                flip(&f->file[i], byte, -1);
            }
    }
    struct contents c;
    struct warned warned;
    assert_null(open_fault(&c, f->run, &warned));
    assert_int_equal(c.step, 20); /* everything is restored */
    nothing_missed(f, "checkpoint_bits");
}

static void random_damage(void **state)
{
    struct fixture *f = *state;
    uint64_t random = 3;
    size_t wanted = getenv("ELBO_TEST_FULL") ? 100000 : 4000;
    while (f->looked < wanted) {
        size_t i = damage_draw(&random, FILES), size;
        struct file *file = &f->file[i];
        enum damage kind = (enum damage)damage_draw(&random, DAMAGES);
        if (!damage(file->damaged, &size, file->bytes, file->size, kind, &random)) continue;
        put(file, file->damaged, size);
        look(f, i, size == file->size, damage_names[kind]);
        put(file, file->bytes, file->size);
    }
    nothing_missed(f, "checkpoint_random");
}

static void what_is_not_checked_is_missed(void **state)
{
    struct fixture *f = *state;
    char path[300];
    snprintf(path, sizeof path, "%s/checkpoints/step-00000020/foreign.txt", f->run);
    temporary_write(path, "x", 1); /* not in the manifest, so the harness must count it as missed */
    look(f, 1, true, "a foreign file");
    assert_int_equal(f->missed, 1);
}

int main(void)
{
#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {WITH_RUN(what_is_not_checked_is_missed),
                                       WITH_RUN(every_bit_of_manifest_and_headers), WITH_RUN(random_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
