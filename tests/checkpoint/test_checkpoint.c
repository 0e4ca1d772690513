/* Tests checkpoints: saved contents come back. Damage of any byte, truncation, links, foreign files and files of other
 * versions are refused by name, and the checkpoint before is used. Saving, rotating and replacing always leave a
 * checkpoint.
 *
 * The program runs itself as the process whose save fails: checkpoint_test_checkpoint save RUN STEP KEEP */
#include "counted_memory.h"

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "train/run_lock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>
#include <cmocka.h>

enum { WEIGHTS = 64, PATH = 512 };

/* ---- contents that depend only on the step ---- */

static float weight(uint64_t step, size_t i)
{
    return (float)step + (float)i / WEIGHTS;
}

static elbo_status save_step(const char *run, uint64_t step, size_t keep, elbo_error *error)
{
    float weights[WEIGHTS];
    uint64_t draws[2] = {step, UINT64_MAX - step};
    char config[64];
    for (size_t i = 0; i < WEIGHTS; i++) weights[i] = weight(step, i);
    int length = snprintf(config, sizeof config, "{\"step\": %llu}", (unsigned long long)step);
    const struct safetensors_tensor model[] = {
        {.name = "encoder.w", .dtype = SAFETENSORS_F32, .rank = 2, .shape = {8, 4}, .data = weights},
        {.name = "decoder.w", .dtype = SAFETENSORS_F32, .rank = 1, .shape = {32}, .data = weights + 32},
    };
    const struct safetensors_tensor state[] = {
        {.name = "draws", .dtype = SAFETENSORS_U64, .rank = 1, .shape = {2}, .data = draws}};
    const struct safetensors_note notes[] = {{"format", "pt"}};
    const struct checkpoint_file files[] = {
        {.name = "model.safetensors", .tensors = model, .tensor_count = 2, .notes = notes, .note_count = 1},
        {.name = "config.json", .bytes = config, .size = (size_t)length},
        {.name = "empty.txt", .bytes = NULL, .size = 0},
        {.name = "state/optimizer.safetensors", .tensors = state, .tensor_count = 1},
    };
    json_t *counters = json_pack("{s:I, s:f}", "cursor", (json_int_t)step * 3, "mean", 0.1 * (double)step);
    elbo_status status = checkpoint_save(
        run,
        &(struct checkpoint_contents){
            .step = step, .config_hash = "c0ffee", .counters = counters, .files = files, .file_count = 4},
        keep, error);
    json_decref(counters);
    return status;
}

/* Returns NULL when the contents are those of their step. */
static const char *contents_fault(const struct checkpoint *checkpoint)
{
    elbo_error error;
    uint64_t step = checkpoint_step(checkpoint), draws[2];
    struct safetensors *model, *state;
    float weights[WEIGHTS];
    const struct safetensors_tensor encoder = {
        .name = "encoder.w", .dtype = SAFETENSORS_F32, .rank = 2, .shape = {8, 4}};
    const struct safetensors_tensor decoder = {.name = "decoder.w", .dtype = SAFETENSORS_F32, .rank = 1, .shape = {32}};
    const struct safetensors_tensor drawn = {.name = "draws", .dtype = SAFETENSORS_U64, .rank = 1, .shape = {2}};
    if (checkpoint_tensors(&model, checkpoint, "model.safetensors", &error)) return "model";
    elbo_status status = safetensors_copy(model, weights, &encoder, &error);
    if (!status) status = safetensors_copy(model, weights + 32, &decoder, &error);
    safetensors_free(model);
    if (status) return "tensors";
    for (size_t i = 0; i < WEIGHTS; i++)
        if (weights[i] != weight(step, i)) return "weights";
    if (checkpoint_tensors(&state, checkpoint, "state/optimizer.safetensors", &error)) return "state";
    status = safetensors_copy(state, draws, &drawn, &error);
    safetensors_free(state);
    if (status || draws[0] != step || draws[1] != UINT64_MAX - step) return "draws";
    json_t *counters = checkpoint_counters(checkpoint);
    if (json_integer_value(json_object_get(counters, "cursor")) != (json_int_t)step * 3) return "cursor";
    if (json_real_value(json_object_get(counters, "mean")) != 0.1 * (double)step) return "mean";
    if (strcmp(checkpoint_config_hash(checkpoint), "c0ffee")) return "config hash";
    const void *bytes;
    size_t size;
    char config[64];
    snprintf(config, sizeof config, "{\"step\": %llu}", (unsigned long long)step);
    if (checkpoint_bytes(&bytes, &size, checkpoint, "config.json", &error) || size != strlen(config) ||
        memcmp(bytes, config, size))
        return "config";
    if (((const char *)bytes)[size]) return "no zero behind the bytes";
    if (checkpoint_bytes(&bytes, &size, checkpoint, "empty.txt", &error) || size != 0) return "empty file";
    return NULL;
}

/* ---- the scratch run directory ---- */

struct fixture {
    char run[64];
};

static int make_run(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    strcpy(fixture->run, "/tmp/elbo-checkpoint-XXXXXX");
    *state = fixture;
    return mkdtemp(fixture->run) ? 0 : -1;
}

static int remove_run(void **state)
{
    struct fixture *fixture = *state;
    char command[PATH + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture->run);
    int status = system(command);
    free(fixture);
    return status;
}

static const char *inside(char out[PATH], void **state, const char *name)
{
    snprintf(out, PATH, "%.63s/%.400s", ((struct fixture *)*state)->run, name);
    return out;
}

static void must_save(void **state, uint64_t step, size_t keep)
{
    elbo_error error = {0};
    if (save_step(((struct fixture *)*state)->run, step, keep, &error)) fail_msg("%s", error.message);
}

struct warnings {
    size_t count;
    char text[4096];
};

static void collect(void *context, const char *message)
{
    struct warnings *warnings = context;
    warnings->count++;
    size_t used = strlen(warnings->text);
    snprintf(warnings->text + used, sizeof warnings->text - used, "%s\n", message);
}

/* Opens the run, which must give `step` with its contents and collects the warnings. */
static void must_open(void **state, uint64_t step, struct warnings *warnings)
{
    elbo_error error = {0};
    struct checkpoint *checkpoint = NULL;
    *warnings = (struct warnings){0};
    if (checkpoint_open(&checkpoint, ((struct fixture *)*state)->run, collect, warnings, &error))
        fail_msg("%s", error.message);
    assert_int_equal(checkpoint_step(checkpoint), step);
    const char *fault = contents_fault(checkpoint);
    if (fault) fail_msg("%s of step %d", fault, (int)step);
    checkpoint_close(checkpoint);
}

static elbo_status try_open(const char *path, elbo_error *error)
{
    struct checkpoint *checkpoint = NULL;
    struct warnings warnings = {0};
    elbo_status status = checkpoint_open(&checkpoint, path, collect, &warnings, error);
    checkpoint_close(checkpoint);
    return status;
}

static bool exists(void **state, const char *name)
{
    char path[PATH];
    struct stat about;
    return lstat(inside(path, state, name), &about) == 0;
}

static char *read_all(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *bytes = malloc(1 << 20);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void write_over(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* ---- tests ---- */

static void round_trip(void **state)
{
    struct warnings warnings;
    char path[PATH];
    elbo_error error = {0};
    assert_false(checkpoint_any(((struct fixture *)*state)->run));
    must_save(state, 7, 0);
    assert_true(checkpoint_any(((struct fixture *)*state)->run));
    must_open(state, 7, &warnings);
    assert_int_equal(warnings.count, 0);

    struct checkpoint *checkpoint; /* a checkpoint's own folder is accepted in the place of a run */
    assert_int_equal(checkpoint_open(&checkpoint, inside(path, state, "checkpoints/step-00000007"), NULL, NULL, &error),
                     0);
    assert_null(contents_fault(checkpoint));
    assert_string_equal(checkpoint_path(checkpoint), path);
    assert_true(checkpoint_has(checkpoint, "config.json"));
    assert_false(checkpoint_has(checkpoint, "manifest.json"));
    const void *bytes;
    size_t size;
    assert_int_equal(checkpoint_bytes(&bytes, &size, checkpoint, "../../secret", &error), ELBO_INPUT);
    checkpoint_close(checkpoint);

    mode_t mask = umask(0); /* modes follow the umask */
    umask(mask);
    const char *const names[] = {"", "/state", "/model.safetensors", "/manifest.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char inner[4096];
        struct stat about;
        snprintf(inner, sizeof inner, "%.3000s%s", path, names[i]);
        assert_int_equal(stat(inner, &about), 0);
        assert_int_equal(about.st_mode & 0777, (i < 2 ? 0777 : 0666) & ~mask);
    }
}

static const char *const saved_files[] = {"manifest.json", "model.safetensors", "config.json",
                                          "state/optimizer.safetensors"};

static void any_flipped_byte_is_found_and_the_one_before_is_used(void **state)
{
    must_save(state, 10, 0);
    must_save(state, 20, 0);
    struct warnings warnings;
    for (size_t f = 0; f < 4; f++) {
        char name[PATH], path[PATH];
        snprintf(name, sizeof name, "checkpoints/step-00000020/%s", saved_files[f]);
        size_t size;
        char *bytes = read_all(inside(path, state, name), &size);
        assert_true(size > 0);
        for (size_t i = 0; i < size; i++) {
            bytes[i] ^= (char)(1 << i % 8);
            write_over(path, bytes, size);
            must_open(state, 10, &warnings);
            assert_int_equal(warnings.count, 1);
            assert_non_null(strstr(warnings.text, "step-00000020"));
            assert_non_null(strstr(warnings.text, saved_files[f]));
            bytes[i] ^= (char)(1 << i % 8);
        }
        for (size_t shorter = 0; shorter < size; shorter += 1 + size / 50) {
            write_over(path, bytes, shorter);
            must_open(state, 10, &warnings);
            assert_int_equal(warnings.count, 1);
        }
        write_over(path, bytes, size);
        char *longer = calloc(size + 1, 1);
        assert_non_null(longer);
        memcpy(longer, bytes, size);
        write_over(path, longer, size + 1);
        must_open(state, 10, &warnings);
        write_over(path, bytes, size);
        assert_int_equal(unlink(path), 0);
        must_open(state, 10, &warnings);
        write_over(path, bytes, size);
        must_open(state, 20, &warnings);
        assert_int_equal(warnings.count, 0);
        free(longer);
        free(bytes);
    }
}

static void damage_is_reported_by_its_place(void **state)
{
    size_t size = MANIFEST_CHUNK + 100;
    char *bytes = calloc(size, 1), path[PATH];
    assert_non_null(bytes);
    const struct checkpoint_file file = {.name = "large.bin", .bytes = bytes, .size = size};
    elbo_error error = {0};
    const char *run = ((struct fixture *)*state)->run;
    assert_int_equal(
        checkpoint_save(run,
                        &(struct checkpoint_contents){.step = 1, .config_hash = "", .files = &file, .file_count = 1}, 0,
                        &error),
        ELBO_OK);
    free(bytes);
    assert_int_equal(try_open(run, &error), ELBO_OK);
    int fd = open(inside(path, state, "checkpoints/step-00000001/large.bin"), O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, MANIFEST_CHUNK + 50), 1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(try_open(run, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "large.bin is damaged between byte 16777216 and byte 16777316"));
}

static void leftovers_are_ignored_and_cleared(void **state)
{
    char path[PATH];
    struct warnings warnings;
    must_save(state, 5, 0);
    assert_int_equal(mkdir(inside(path, state, "checkpoints/step-00000006.tmp"), 0700), 0);
    assert_int_equal(mkdir(inside(path, state, "checkpoints/step-00000006.tmp/state"), 0700), 0);
    write_over(inside(path, state, "checkpoints/step-00000006.tmp/state/x"), "x", 1);
    write_over(inside(path, state, "checkpoints/step-00000006.tmp/manifest.json"), "x", 1);
    write_over(inside(path, state, "checkpoints/latest.1.tmp"), "x", 1);
    write_over(inside(path, state, "checkpoints/notes.tmp"), "mine", 4);
    must_open(state, 5, &warnings);
    assert_int_equal(warnings.count, 0);
    must_save(state, 6, 0);
    must_open(state, 6, &warnings);
    assert_false(exists(state, "checkpoints/step-00000006.tmp"));
    assert_false(exists(state, "checkpoints/latest.1.tmp"));
    assert_true(exists(state, "checkpoints/notes.tmp")); /* not elbo's file */
}

static void latest_may_be_missing_stale_or_nonsense(void **state)
{
    char path[PATH];
    struct warnings warnings;
    must_save(state, 1, 0);
    must_save(state, 2, 0);
    must_save(state, 3, 0);
    inside(path, state, "checkpoints/latest");
    write_over(path, "step-00000002\n", 14); /* as after a crash between the rename and the move of `latest` */
    must_open(state, 2, &warnings);
    assert_int_equal(warnings.count, 0);
    write_over(path, "step-00000009\n", 14);
    must_open(state, 3, &warnings);
    assert_int_equal(warnings.count, 1);
    write_over(path, "../../../etc\n", 13);
    must_open(state, 3, &warnings);
    assert_int_equal(warnings.count, 1);
    write_over(path, "", 0);
    must_open(state, 3, &warnings);
    assert_int_equal(unlink(path), 0);
    must_open(state, 3, &warnings);
    assert_int_equal(warnings.count, 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    must_open(state, 3, &warnings);
    assert_int_equal(warnings.count, 1);
}

static void the_newest_are_kept(void **state)
{
    struct warnings warnings;
    for (uint64_t step = 1; step <= 6; step++) must_save(state, step, 2);
    assert_false(exists(state, "checkpoints/step-00000004"));
    assert_true(exists(state, "checkpoints/step-00000005"));
    must_open(state, 6, &warnings);
    must_save(state, 3, 2); /* after a resume from an earlier step, the new step 3 must not be deleted */
    must_open(state, 3, &warnings);
    must_save(state, 4, 2);
    must_save(state, 5, 2); /* replaces the abandoned step 5 */
    must_open(state, 5, &warnings);
    assert_false(exists(state, "checkpoints/step-00000003"));
    assert_false(exists(state, "checkpoints/step-00000005.tmp"));
    must_save(state, 6, 1);
    assert_false(exists(state, "checkpoints/step-00000005"));
    must_open(state, 6, &warnings);
    assert_int_equal(warnings.count, 0);
}

static void a_failed_save_loses_nothing(void **state)
{
    struct warnings warnings;
    must_save(state, 1, 1);
    pid_t child = fork();
    if (child == 0) { /* as on a full disk: files may not grow */
        char command[PATH];
        snprintf(command, sizeof command, "ulimit -f 0; trap '' XFSZ; exec /proc/%d/exe save '%s' 2 1 2>/dev/null",
                 (int)getppid(), ((struct fixture *)*state)->run);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(99);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), ELBO_IO);
    must_open(state, 1, &warnings);
    assert_int_equal(warnings.count, 0);
    assert_false(exists(state, "checkpoints/step-00000002"));
    assert_false(exists(state, "checkpoints/step-00000002.tmp"));
    must_save(state, 2, 1);
    must_open(state, 2, &warnings);
}

static void links_are_not_followed(void **state)
{
    char from[PATH], to[PATH];
    struct warnings warnings;
    must_save(state, 1, 0);
    must_save(state, 2, 0);
    for (size_t f = 0; f < 4; f++) { /* the same bytes, but behind a link */
        char name[PATH];
        snprintf(name, sizeof name, "checkpoints/step-00000002/%s", saved_files[f]);
        inside(from, state, name);
        inside(to, state, "elsewhere");
        assert_int_equal(rename(from, to), 0);
        assert_int_equal(symlink(to, from), 0);
        must_open(state, 1, &warnings);
        assert_int_equal(warnings.count, 1);
        assert_int_equal(rename(to, from), 0);
    }
    inside(from, state, "checkpoints/step-00000002/state");
    inside(to, state, "elsewhere");
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(symlink(to, from), 0);
    must_open(state, 1, &warnings);
    assert_int_equal(unlink(from), 0);
    assert_int_equal(rename(to, from), 0);
    inside(from, state, "checkpoints/step-00000002");
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(symlink(to, from), 0);
    must_open(state, 1, &warnings);
    assert_non_null(strstr(warnings.text, "step-00000002 is not a folder (symbolic links are not followed)"));
    assert_int_equal(unlink(from), 0);
    assert_int_equal(mkfifo(from, 0600), 0); /* a pipe must not be waited for */
    must_open(state, 1, &warnings);
}

/* Replaces text in the manifest and seals it with the right checksum, as an attacker or another version could. */
static void forge(void **state, const char *from, const char *to)
{
    char path[PATH], out[8192];
    size_t size;
    char *text = read_all(inside(path, state, "checkpoints/step-00000001/manifest.json"), &size);
    text[size] = 0;
    char *tail = strstr(text, ",\n \"checksum\"");
    assert_non_null(tail);
    *tail = 0;
    char *at = strstr(text, from);
    assert_non_null(at);
    int length = snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    snprintf(out + length, sizeof out - (size_t)length, ",\n \"checksum\": \"%016llx\"\n}\n",
             (unsigned long long)XXH3_64bits(out, (size_t)length));
    write_over(path, out, strlen(out));
    free(text);
}

static void forged_manifests_are_refused(void **state)
{
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"version\": 1", "\"version\": 2", "format version 2"},
        {"\"elbo\": \"checkpoint\"", "\"elbo\": \"corpus\"", "not the manifest"},
        {"\"name\": \"config.json\"", "\"name\": \"/etc/hostname\"", "cannot be in a checkpoint"},
        {"\"name\": \"config.json\"", "\"name\": \"../config.json\"", "cannot be in a checkpoint"},
        {"\"name\": \"config.json\"", "\"name\": \"a/b/c\"", "cannot be in a checkpoint"},
        {"\"name\": \"config.json\"", "\"name\": \"model.safetensors\"", "twice"},
        {"\"name\": \"config.json\"", "\"name\": \"other.json\"", "other.json"},
        {"\"bytes\": 0", "\"bytes\": -1", "malformed"},
        {"\"bytes\": 0", "\"bytes\": 4611686018427387904", "malformed"},
        {"\"bytes\": 0", "\"bytes\": 0, \"bytes\": 0", "duplicate"},
        {"\"step\": 1", "\"step\": 3", "its name does not say"},
        {"\"counters\": {", "\"counters\": [], \"x\": {", "wrong type"},
        {"\"chunk_bytes\": 16777216", "\"chunk_bytes\": 0", "wrong type"},
        {"\"chunk_bytes\": 16777216", "\"chunk\": 16777216", "wrong type"},
        {"\"program\": ", "\"programme\": ", "wrong type"},
        {"\"config_hash\": ", "\"hash\": ", "wrong type"},
        {"\"files\": [", "\"files\": 1, \"list\": [", "wrong type"},
        {"\"step\": 1", "\"step\": \"1\"", "wrong type"},
        {"\"ranks\": 1", "\"ranks\": 0", "wrong type"},
        {"\"ranks\": 1", "\"ranks\": null", "wrong type"},
        {"\"elbo\": ", "\"what\": ", "not the manifest"},
        {"\"name\": \"config.json\"", "\"name\": \"\"", "cannot be in a checkpoint"},
        {"\"name\": \"config.json\"", "\"name\": 5", "cannot be in a checkpoint"},
        {"\"xxh3\": \"", "\"xxh3\": \"g", "malformed"},
        {"\"xxh3\": ", "\"sum\": ", "malformed"},
        {"\"chunks\": [", "\"chunks\": [\"0123456789abcdef\", ", "malformed"},
    };
    elbo_error error = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        must_save(state, 1, 0);
        forge(state, cases[i].from, cases[i].to);
        elbo_status status = try_open(((struct fixture *)*state)->run, &error);
        if (status == ELBO_OK || !strstr(error.message, cases[i].says))
            fail_msg("%s: status %d, \"%s\"", cases[i].to, status, error.message);
    }
}

static size_t open_files(void)
{
    size_t count = 0;
    for (int i = 0; i < 256; i++) count += fcntl(i, F_GETFD) >= 0;
    return count;
}

/* Lets each allocation fail once: no memory and no descriptor stays, and an opened checkpoint is whole. */
static void memory_may_run_out_anywhere(void **state)
{
    char path[PATH];
    if (!COUNTED) skip();
    const char *run = ((struct fixture *)*state)->run;
    size_t failed = 0;
    must_save(state, 1, 0);
    must_save(state, 2, 0);
    inside(path, state, "checkpoints");
    for (int lists = 0; lists < 2; lists++)
        for (long which = 1;; which++) {
            long before = atomic_load(&memory_held);
            size_t files = open_files(), count = 0;
            uint64_t *steps = NULL;
            struct checkpoint *checkpoint = NULL;
            elbo_error error = {0};
            atomic_store(&memory_until, which);
            elbo_status status = lists ? checkpoint_list(&steps, &count, path, &error)
                                       : checkpoint_open(&checkpoint, run, NULL, NULL, &error);
            bool over = atomic_exchange(&memory_until, 0) > 0;
            if (!status && !lists) assert_null(contents_fault(checkpoint));
            if (!status && lists) assert_int_equal(count, 2);
            checkpoint_close(checkpoint);
            free(steps);
            if (!status != over) fail_msg("call %ld: status %d", which, status);
            if (atomic_load(&memory_held) != before || open_files() != files)
                fail_msg("call %ld: something stays", which);
            if (over) break;
            failed++;
        }
    assert_true(failed > 20);
}

static void what_is_no_run_is_refused(void **state)
{
    char path[PATH];
    elbo_error error = {0};
    assert_int_equal(try_open(((struct fixture *)*state)->run, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "neither a run directory"));
    assert_int_equal(try_open(inside(path, state, "nowhere"), &error), ELBO_IO);
    assert_int_equal(mkdir(inside(path, state, "checkpoints"), 0700), 0);
    assert_int_equal(try_open(((struct fixture *)*state)->run, &error), ELBO_INPUT);
    assert_non_null(strstr(error.message, "holds no checkpoint"));
}

static void a_run_directory_has_one_owner(void **state)
{
    const char *run = ((struct fixture *)*state)->run;
    struct run_lock lock;
    elbo_error error = {0};
    int ready[2], done[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        struct run_lock mine;
        elbo_error failed;
        byte = run_directory_lock(&mine, run, &failed) ? 'n' : 'y';
        if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) < 0) _exit(1);
        _exit(0); /* without unlocking, as after a crash */
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(run_directory_lock(&lock, run, &error), ELBO_BUSY);
    char number[32];
    snprintf(number, sizeof number, "process %d", (int)child);
    assert_non_null(strstr(error.message, number));
    assert_int_equal(write(done[1], "x", 1), 1);
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(run_directory_lock(&lock, run, &error), ELBO_OK);
    run_directory_unlock(&lock);
    assert_int_equal(run_directory_lock(&lock, run, &error), ELBO_OK);
    run_directory_unlock(&lock);
    for (size_t i = 0; i < 2; i++) close(ready[i]), close(done[i]);
}

/* ---- the process whose save fails ---- */

static int drive(char **argv)
{
    elbo_error error = {0};
    elbo_status status = save_step(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), &error);
    if (status) fprintf(stderr, "%s\n", error.message);
    return (int)status;
}

int main(int argc, char **argv)
{
    if (argc == 5) return drive(argv);
#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, make_run, remove_run)
    const struct CMUnitTest tests[] = {
        WITH_RUN(round_trip),
        WITH_RUN(any_flipped_byte_is_found_and_the_one_before_is_used),
        WITH_RUN(damage_is_reported_by_its_place),
        WITH_RUN(leftovers_are_ignored_and_cleared),
        WITH_RUN(latest_may_be_missing_stale_or_nonsense),
        WITH_RUN(the_newest_are_kept),
        WITH_RUN(a_failed_save_loses_nothing),
        WITH_RUN(links_are_not_followed),
        WITH_RUN(forged_manifests_are_refused),
        WITH_RUN(memory_may_run_out_anywhere),
        WITH_RUN(what_is_no_run_is_refused),
        WITH_RUN(a_run_directory_has_one_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
