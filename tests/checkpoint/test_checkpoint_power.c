/* Power failures: records the system calls of saves, replays them up to each point, and drops, keeps, tears or reorders
 * the writes that were not synced by then (tests/crash_states.h). In each state the promises must hold: no committed
 * checkpoint is lost, no torn one is opened, `latest` does not dangle, and the work of each returned call is durable.
 *
 * Self-test: each fsync, rename and folder sync of the code is removed in turn, and some scene must then reach a state
 * that breaks a promise. This shows that each of them is needed. ELBO_TEST_FULL=1 looks at more states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "crash_proof.h"
#include "base/files.h"
#include "checkpoint/checkpoint_contents.h"

struct scene {
    const char *name;
    struct steps before; /* steps saved before, in this order; `latest` is then moved back */
    uint64_t latest;     /* 0: the last step of `before` */
    struct steps saves;  /* steps whose saves are recorded */
    size_t keep;
    struct contents shape;
    bool leftovers;  /* leftovers of a killed save of the first step, and of a move of `latest` */
    bool old_system; /* renameat2 refuses flags */
};

static const struct scene scenes[] = {
    {"the first save", .saves = {{1}, 1}, .keep = 2, .shape = {.tensors = 2, .files = 1, .state = true}},
    {"a save that deletes one",
     {{1, 2}, 2},
     .saves = {{3}, 1},
     .keep = 2,
     .shape = {.tensors = 1, .files = 2, .state = true}},
    {"only the newest is kept", {{1, 2}, 2}, .saves = {{3}, 1}, .keep = 1, .shape = {.tensors = 3, .state = true}},
    {"none is deleted", {{1, 2}, 2}, .saves = {{3}, 1}, .keep = 0, .shape = {.tensors = 1, .files = 3}},
    {"three are deleted", {{1, 2, 3, 4}, 4}, .saves = {{5}, 1}, .keep = 2, .shape = {.tensors = 1}},
    {"two saves", {{2}, 1}, .saves = {{4, 6}, 2}, .keep = 2, .shape = {.tensors = 2, .files = 1, .state = true}},
    {"the same step again", {{1, 2, 3}, 3}, 2, .saves = {{3}, 1}, .keep = 0, .shape = {.tensors = 2, .state = true}},
    {"the same step again, one kept", {{1, 3}, 2}, .saves = {{3}, 1}, .keep = 1, .shape = {.tensors = 1, .files = 1}},
    {"after a killed save",
     {{1, 2}, 2},
     .saves = {{3}, 1},
     .keep = 2,
     .shape = {.files = 1, .state = true},
     .leftovers = true},
    {"without flags of rename",
     {{1, 2}, 2},
     .saves = {{3}, 1},
     .keep = 2,
     .shape = {.tensors = 1, .state = true},
     .old_system = true},
    {"the same step again, without flags of rename",
     {{1, 2, 3}, 3},
     2,
     .saves = {{3}, 1},
     .keep = 0,
     .shape = {.tensors = 1},
     .old_system = true},
};
enum { SCENES = sizeof scenes / sizeof *scenes };

/* ---- saves ---- */

enum { MOST_MARKS = 8 };

struct expected {
    struct promise at[MOST_MARKS]; /* promises after this many marks */
};

static const char *save_fault(void *context, const char *scratch, size_t marks)
{
    const struct expected *expected = context;
    char run[320];
    snprintf(run, sizeof run, "%s/run", scratch);
    return promise_fault(&expected->at[marks], run);
}

static void must_save(const char *run, const struct scene *scene, uint64_t step, unsigned generation, size_t keep)
{
    elbo_error error = {0};
    struct contents c = scene->shape;
    c.step = step;
    c.generation = generation;
    if (contents_save(run, &c, keep, &error)) fail_msg("%s: %s", scene->name, error.message);
}

/* Leaves the leftovers of a save killed half-way, of a deletion stopped half-way, and of a move of `latest`. */
static void leave(const struct crash_fixture *f, uint64_t step)
{
    static const char *const folders[] = {"", "/state"}, *const files[] = {"/model.safetensors", "/state/words.txt"};
    char path[512];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/checkpoints/step-%08d.tmp%s", f->run, (int)step, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/checkpoints/step-%08d.tmp%s", f->run, (int)step, files[i]);
        temporary_write(path, "half", 4);
    }
    snprintf(path, sizeof path, "%s/checkpoints/latest.1.tmp", f->run);
    temporary_write(path, "step-", 5);
}

static void record_saves(struct crash_fixture *f, const struct scene *scene, struct expected *expected)
{
    temporary_remove(f->live);
    assert_int_equal(mkdir(f->live, 0700), 0);
    struct steps there = scene->before;
    uint64_t latest = there.count ? there.step[there.count - 1] : 0;
    for (size_t i = 0; i < there.count; i++) must_save(f->run, scene, there.step[i], 1, 0);
    if (scene->latest) must_save(f->run, scene, latest = scene->latest, 1, 0); /* as after a resume from that step */
    if (scene->leftovers) leave(f, scene->saves.step[0]);
    crash_begin(&f->log, f->live);
    for (size_t i = 0; i < scene->saves.count; i++) {
        uint64_t step = scene->saves.step[i];
        struct promise during, after;
        promise_of_save(&during, &after, &there, latest, step, 2, scene->keep);
        if (scene->old_system) { /* without an exchange, the old checkpoint of that step may be gone already */
            size_t left = 0;
            for (size_t k = 0; k < during.must_stay.count; k++)
                if (during.must_stay.step[k] != step) during.must_stay.step[left++] = during.must_stay.step[k];
            during.must_stay.count = left;
        }
        expected->at[2 * i] = during;
        expected->at[2 * i + 1] = after;
        if (scene->old_system) {
            watch.kinds = 1u << CALL_RENAME; /* each save's first rename, which has a flag */
            watch.at = atomic_load(&watch.count);
            watch.effect = EFFECT_ERROR;
            watch.number = EINVAL;
        }
        must_save(f->run, scene, step, 2, scene->keep);
        crash_mark(&f->log);
        crash_mark(&f->log);
        there = after.must_stay;
        latest = step;
    }
    crash_end(&f->log);
    expected->at[2 * scene->saves.count] = expected->at[2 * scene->saves.count - 1];
    if (scene->old_system) assert_int_equal(watch.hits, 1);
}

/* ---- additions to a checkpoint ---- */

enum { ADDITIONS = 3 };

static const char *addition_name(char out[16], size_t number)
{
    snprintf(out, 16, "fit %zu", number);
    return out;
}

/* After `marks` additions the checkpoint must open with the last addition or with the next one. */
static const char *addition_fault(void *context, const char *scratch, size_t marks)
{
    (void)context;
    static char text[1100];
    char run[320], wanted[16];
    struct checkpoint *c = NULL;
    elbo_error error = {0};
    const void *bytes = NULL;
    size_t size = 0;
    snprintf(run, sizeof run, "%s/run", scratch);
    if (checkpoint_open(&c, run, NULL, NULL, &error)) {
        snprintf(text, sizeof text, "%s", error.message);
        return text;
    }
    const char *name = checkpoint_named(c, "prior-");
    bool good = !name && !marks;
    if (name && !checkpoint_bytes(&bytes, &size, c, name, &error))
        for (size_t k = marks ? marks : 1; k <= marks + 1; k++)
            good = good || (size == strlen(addition_name(wanted, k)) && !memcmp(bytes, wanted, size));
    snprintf(text, sizeof text, "after %zu additions it holds '%.*s'", marks, (int)size,
             bytes ? (const char *)bytes : "");
    checkpoint_close(c);
    return good ? NULL : text;
}

static void record_additions(struct crash_fixture *f)
{
    elbo_error error = {0};
    temporary_remove(f->live);
    assert_int_equal(mkdir(f->live, 0700), 0);
    struct contents shape = {.step = 1, .generation = 1, .tensors = 2, .files = 1, .state = true};
    assert_int_equal(contents_save(f->run, &shape, 2, &error), ELBO_OK);
    crash_begin(&f->log, f->live);
    for (size_t k = 1; k <= ADDITIONS; k++) {
        struct checkpoint *c;
        char bytes[16];
        addition_name(bytes, k);
        assert_int_equal(checkpoint_open(&c, f->run, NULL, NULL, &error), ELBO_OK);
        struct checkpoint_file file = {.bytes = bytes, .size = strlen(bytes)};
        if (checkpoint_attach(c, "prior", "bin", &file, &error)) fail_msg("%s", error.message);
        checkpoint_close(c);
        crash_mark(&f->log);
    }
    crash_end(&f->log);
}

/* ---- promises of base/files.h ---- */

/* Checks the promise of each call of files.h that has returned; marks count the calls. */
static const char *files_fault(void *context, const char *scratch, size_t marks)
{
    (void)context;
    static const struct {
        const char *path, *bytes; /* NULL bytes: a folder */
        size_t from;              /* number of marks after which the file is there */
        const char *before;       /* contents before that; NULL: nothing, or the bytes above */
    } wanted[] = {
        {"a", NULL, 1, NULL},       {"a/b/c", NULL, 1, NULL},          {"a/new", "new", 2, NULL},
        {"old", "newer", 3, "old"}, {"a/b/c/other", "other", 4, NULL},
    };
    static char text[256];
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", scratch, wanted[i].path);
        bool there = wanted[i].bytes ? file_is_regular(path) : file_is_folder(path), good = there;
        if (there && wanted[i].bytes) {
            size_t size;
            char *bytes = temporary_read(path, &size);
            good = !strcmp(bytes, wanted[i].bytes);
            if (marks < wanted[i].from && wanted[i].before) good = good || !strcmp(bytes, wanted[i].before);
            /* A created file, unlike a replaced one, has its bytes only after the commit. */
            if (marks < wanted[i].from && !strcmp(wanted[i].path, "a/new")) good = true;
            free(bytes);
        }
        if (marks < wanted[i].from && !wanted[i].before && !there) good = true;
        if (good) continue;
        snprintf(text, sizeof text, "%s is not as promised", wanted[i].path);
        return text;
    }
    return NULL;
}

static void record_files(struct crash_fixture *f)
{
    char path[512];
    elbo_error error;
    temporary_remove(f->live);
    assert_int_equal(mkdir(f->live, 0700), 0);
    snprintf(path, sizeof path, "%s/old", f->live);
    temporary_write(path, "old", 3);
    crash_begin(&f->log, f->live);
    snprintf(path, sizeof path, "%s/a/b/c", f->live);
    assert_int_equal(file_make_folder(path, &error), ELBO_OK);
    crash_mark(&f->log);
    snprintf(path, sizeof path, "%s/a/new", f->live);
    assert_int_equal(file_write_new(path, "new", 3, &error), ELBO_OK);
    crash_mark(&f->log);
    snprintf(path, sizeof path, "%s/old", f->live);
    assert_int_equal(file_write(path, "newer", 5, &error), ELBO_OK);
    crash_mark(&f->log);
    snprintf(path, sizeof path, "%s/a/b/c/other", f->live);
    assert_int_equal(file_write(path, "other", 5, &error), ELBO_OK);
    crash_mark(&f->log);
    crash_end(&f->log);
}

static void what_is_not_synced_may_go(void **state)
{
    struct crash_fixture *f = *state;
    static struct crash_total total;
    size_t rounds = crash_full(1, 5);
    for (size_t round = 0; round < rounds; round++)
        for (size_t i = 0; i < SCENES; i++) {
            struct scene scene = scenes[i];
            struct expected expected;
            scene.shape.tensors = (scene.shape.tensors + (unsigned)round * 5) % MOST_TENSORS;
            scene.shape.files = (scene.shape.files + (unsigned)round * 7) % MOST_FILES;
            record_saves(f, &scene, &expected);
            crash_prove(f, scene.name, save_fault, &expected, &total);
        }
    record_additions(f);
    crash_prove(f, "additions", addition_fault, NULL, &total);
    record_files(f);
    crash_prove(f, "files", files_fault, NULL, &total);
    size_t unnoticed = crash_report(&total, "power", NULL);
    assert_int_equal(total.bad, 0);
    assert_int_equal(unnoticed, 0);
    assert_true(total.distinct >= crash_full(900, 20000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_not_synced_may_go, crash_setup, crash_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
