/* Interrupts saves, rotations, deletions and resumes at each of their system calls, in random scenes: existing steps,
 * number of kept steps, files, tensors, leftovers of earlier saves, and the same step again.
 *
 *   killed    SIGKILL in the place of the call, or after half of it: no committed checkpoint is lost, no torn one is
 *             accepted, and the next save works and clears the leftovers
 *   failing   ENOSPC, EDQUOT, EIO, EINTR, once or from there on, a short write or read, a full disk: as above; also, a
 *             save that reports success is saved, the message names the file, no descriptor stays open, nothing hangs
 *
 * Self-test: a save that writes in place and a save that ignores the result of write must be found. ELBO_TEST_FULL=1
 * tries more scenes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/files.h"
#include "temporary.h"
#include "checkpoint/checkpoint_contents.h"
#include "watched_calls.h"

#include <sys/wait.h>

/* ---- scenes ---- */

enum action { ACTION_SAVE, ACTION_SAVE_TWICE, ACTION_RESUME, ACTIONS };

struct scene {
    struct steps before;
    uint64_t latest, step;
    size_t keep;
    struct contents shape;
    enum action action;
    size_t killed_before; /* an earlier save of another step was killed at this call; SIZE_MAX: no such save */
};

struct fixture {
    struct temporary folder;
    char run[128], template[128];
    uint64_t random;
};

static uint32_t draw(struct fixture *f, uint32_t below)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f->random >> 33) % below;
}

static struct scene draw_scene(struct fixture *f)
{
    struct scene s = {.keep = draw(f, 4), .killed_before = SIZE_MAX};
    s.shape = (struct contents){.tensors = draw(f, MOST_TENSORS), .files = draw(f, 8), .state = draw(f, 3) > 0};
    uint64_t step = 0;
    for (size_t n = draw(f, 5); n > 0; n--) s.before.step[s.before.count++] = step += 1 + draw(f, 3);
    s.step = step + 1 + draw(f, 5);
    s.latest = step;
    if (s.before.count > 1 && draw(f, 3) == 0) { /* resumed from an earlier step and computed again */
        s.latest = s.before.step[draw(f, (uint32_t)s.before.count - 1)];
        s.step = step;
    }
    if (draw(f, 3) == 0) s.killed_before = draw(f, 60);
    s.action = s.before.count ? (enum action)draw(f, ACTIONS) : ACTION_SAVE;
    return s;
}

typedef elbo_status (*saver)(const char *run, const struct contents *c, size_t keep, elbo_error *error);

/* The action of the process that is killed or fails. It saves generation 2, then 3. */
static elbo_status act(const struct fixture *f, const struct scene *s, saver save, elbo_error *error)
{
    struct contents c = s->shape;
    c.step = s->step;
    c.generation = 2;
    if (s->action == ACTION_RESUME) {
        struct checkpoint *checkpoint;
        ELBO_TRY(checkpoint_open(&checkpoint, f->run, NULL, NULL, error));
        checkpoint_close(checkpoint);
    }
    ELBO_TRY(save(f->run, &c, s->keep, error));
    if (s->action != ACTION_SAVE_TWICE) return ELBO_OK;
    c.step++;
    c.generation = 3;
    return save(f->run, &c, s->keep, error);
}

static void copy_tree(const char *from, const char *to)
{
    assert_int_equal(mkdir(to, 0700), 0);
    DIR *list = opendir(from);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        char a[600], b[600];
        struct stat about;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(a, sizeof a, "%.300s/%.255s", from, entry->d_name);
        snprintf(b, sizeof b, "%.300s/%.255s", to, entry->d_name);
        assert_int_equal(lstat(a, &about), 0);
        if (S_ISDIR(about.st_mode)) {
            copy_tree(a, b);
            continue;
        }
        size_t size;
        char *bytes = temporary_read(a, &size);
        temporary_write(b, bytes, size);
        free(bytes);
    }
    closedir(list);
}

static void must_save(const char *run, const struct scene *s, uint64_t step, size_t keep)
{
    struct contents c = s->shape;
    elbo_error error;
    c.step = step;
    c.generation = 1;
    if (contents_save(run, &c, keep, &error)) fail_msg("%s", error.message);
}

/* Runs the action in a child that is killed at call `at`; returns false when the action makes fewer calls. */
static bool killed_at(const struct fixture *f, const struct scene *s, saver save, enum call_effect effect, size_t at)
{
    pid_t child = fork();
    if (child == 0) {
        elbo_error error = {0};
        watch_begin(f->run, WATCH_OPENS);
        watch.at = at;
        watch.effect = effect;
        _exit((int)act(f, s, save, &error));
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    if (WIFSIGNALED(result)) {
        assert_int_equal(WTERMSIG(result), SIGKILL);
        return true;
    }
    assert_int_equal(WEXITSTATUS(result), 0);
    return false;
}

static void make_template(const struct fixture *f, const struct scene *s)
{
    temporary_remove(f->run);
    assert_int_equal(mkdir(f->run, 0700), 0);
    for (size_t i = 0; i < s->before.count; i++) must_save(f->run, s, s->before.step[i], 0);
    if (s->before.count && s->latest != s->before.step[s->before.count - 1]) must_save(f->run, s, s->latest, 0);
    if (s->killed_before != SIZE_MAX && s->before.count) {
        struct scene killed = *s;
        killed.keep = 0; /* deletes nothing, so that the scene's steps stay */
        killed.action = ACTION_SAVE;
        killed.step = s->step + 7;
        killed_at(f, &killed, contents_save, EFFECT_TEAR, s->killed_before % 12); /* before its rename */
    }
    temporary_remove(f->template);
    copy_tree(f->run, f->template);
}

static void from_template(const struct fixture *f)
{
    temporary_remove(f->run);
    copy_tree(f->template, f->run);
}

/* ---- promises afterwards ---- */

/* Checks the promises after an interrupted action of one or two saves. `done`: number of saves that reported
 * success. */
static const char *outcome_fault(const struct fixture *f, const struct scene *s, size_t done)
{
    struct promise during, after, second_during, second_after;
    promise_of_save(&during, &after, &s->before, s->latest, s->step, 2, s->keep);
    if (s->action != ACTION_SAVE_TWICE) return promise_fault(done ? &after : &during, f->run);
    promise_of_save(&second_during, &second_after, &after.must_stay, s->step, s->step + 1, 3, s->keep);
    if (done == 2) return promise_fault(&second_after, f->run);
    if (done == 1) return promise_fault(&second_during, f->run);
    const char *fault = promise_fault(&during, f->run);
    if (!fault || !promise_fault(&second_during, f->run) || !promise_fault(&second_after, f->run)) return NULL;
    return fault;
}

/* Returns NULL when the next save works and opens, and no leftovers remain. */
static const char *next_fault(const struct fixture *f, const struct scene *s)
{
    static char text[1200];
    struct contents c = s->shape;
    struct warned warned;
    elbo_error error = {0};
    char folder[200];
    c.step = s->step + 100;
    c.generation = 4;
    if (contents_save(f->run, &c, 2, &error)) {
        snprintf(text, sizeof text, "the next save fails: %s", error.message);
        return text;
    }
    const char *fault = open_fault(&c, f->run, &warned);
    if (fault) return fault;
    if (c.step != s->step + 100) return "the next save does not open";
    snprintf(folder, sizeof folder, "%s/checkpoints", f->run);
    DIR *list = opendir(folder);
    for (struct dirent *entry; (entry = readdir(list));)
        if (strstr(entry->d_name, ".tmp")) {
            snprintf(text, sizeof text, "%s stays", entry->d_name);
            fault = text;
        }
    closedir(list);
    return fault;
}

struct found {
    size_t points, bad;
    char first[600];
};

static void note(struct found *found, const char *fault, const char *effect, size_t at)
{
    found->points++;
    if (fault && !found->bad++)
        snprintf(found->first, sizeof found->first, "%s at call %zu (%d): %.400s", effect, at, (int)watch.hit, fault);
}

/* ---- killed ---- */

static void kill_everywhere(struct found *found, const struct fixture *f, const struct scene *s, saver save)
{
    static const struct {
        enum call_effect effect;
        const char *name;
    } ways[] = {{EFFECT_KILL, "killed before"}, {EFFECT_TEAR, "killed in the middle of"}};
    for (size_t w = 0; w < 2; w++)
        for (size_t at = 0;; at++) {
            from_template(f);
            if (!killed_at(f, s, save, ways[w].effect, at)) break;
            const char *fault = outcome_fault(f, s, 0);
            note(found, fault ? fault : next_fault(f, s), ways[w].name, at);
        }
}

static size_t full(size_t quick, size_t many)
{
    return getenv("ELBO_TEST_FULL") ? many : quick;
}

static void killed_at_any_call_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    struct found found = {0};
    while (found.points < full(200, 4000)) {
        struct scene s = draw_scene(f);
        make_template(f, &s);
        kill_everywhere(&found, f, &s, contents_save);
        if (found.bad) fail_msg("%zu of %zu: %s", found.bad, found.points, found.first);
    }
    print_message("figure kill.points %zu\nfigure kill.bad %zu\n", found.points, found.bad);
}

/* ---- failing ---- */

static size_t descriptors(void)
{
    size_t count = 0;
    DIR *list = opendir("/proc/self/fd");
    while (readdir(list)) count++;
    closedir(list);
    return count;
}

/* Returns whether a call of this kind can give this answer. */
static bool possible(enum call_kind kind, enum call_effect effect, int number)
{
    bool bytes = kind == CALL_WRITE || kind == CALL_READ;
    if (effect == EFFECT_SHORT) return bytes;
    if (number == ENOSPC || number == EDQUOT) return kind <= CALL_TRUNCATE;
    if (number == EINTR)
        return bytes || kind == CALL_FSYNC || kind == CALL_CLOSE || kind == CALL_CREATE || kind == CALL_OPEN;
    return true;
}

static void fail_everywhere(struct found *found, const struct fixture *f, const struct scene *s, saver save)
{
    static const struct {
        enum call_effect effect;
        int number;
        size_t times;
    } ways[] = {{EFFECT_ERROR, ENOSPC, 1},     {EFFECT_ERROR, ENOSPC, SIZE_MAX},
                {EFFECT_ERROR, EDQUOT, 1},     {EFFECT_ERROR, EIO, 1},
                {EFFECT_ERROR, EIO, SIZE_MAX}, {EFFECT_ERROR, EINTR, 1},
                {EFFECT_SHORT, 0, 1},          {EFFECT_SHORT, 0, 5},
                {EFFECT_FULL, ENOSPC, 2},      {EFFECT_FULL, ENOSPC, SIZE_MAX}};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
        for (size_t at = 0;; at++) {
            elbo_error error = {0};
            from_template(f);
            size_t open_before = descriptors();
            alarm(20); /* a hang ends the test */
            watch_begin(f->run, WATCH_ALL);
            watch.at = at;
            watch.effect = ways[w].effect;
            watch.number = ways[w].number;
            watch.times = ways[w].times;
            elbo_status status = act(f, s, save, &error);
            watch_end();
            alarm(0);
            if (!watch.hits) break;
            if (!possible(watch.hit, ways[w].effect, ways[w].number)) continue;
            const char *fault = NULL;
            if (descriptors() != open_before) fault = "a descriptor stays open";
            if (!fault && status && (status != ELBO_IO && status != ELBO_INPUT)) fault = "another exit code";
            if (!fault && status && !strstr(error.message, "checkpoint") && !strstr(error.message, f->run))
                fault = "the message names nothing";
            if (!fault && status && ways[w].effect == EFFECT_SHORT) fault = "a short call is not carried on";
            if (!fault && status && ways[w].number == EINTR && (watch.hit == CALL_WRITE || watch.hit == CALL_READ))
                fault = "an interrupted call is not carried on";
            if (!fault) fault = outcome_fault(f, s, status ? 0 : s->action == ACTION_SAVE_TWICE ? 2 : 1);
            note(found, fault ? fault : next_fault(f, s),
                 ways[w].effect == EFFECT_SHORT ? "short" : strerror(ways[w].number), at);
            if (found->bad) return;
        }
}

static void failing_at_any_call_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    struct found found = {0};
    while (found.points < full(800, 15000)) {
        struct scene s = draw_scene(f);
        make_template(f, &s);
        fail_everywhere(&found, f, &s, contents_save);
        if (found.bad)
            fail_msg("%zu of %zu: %s (step %d, latest %d, keep %zu, %zu before, action %d)", found.bad, found.points,
                     found.first, (int)s.step, (int)s.latest, s.keep, s.before.count, (int)s.action);
    }
    print_message("figure fail.points %zu\nfigure fail.bad %zu\n", found.points, found.bad);
}

/* ---- self-test ---- */

/* Removes the committed checkpoint's manifest for a moment. */
static elbo_status save_in_place(const char *run, const struct contents *c, size_t keep, elbo_error *error)
{
    char path[300];
    snprintf(path, sizeof path, "%.200s/checkpoints/step-%08d/manifest.json", run, (int)c->step);
    size_t size;
    char *bytes = temporary_read(path, &size);
    elbo_status status = file_remove(path, error);
    if (!status) status = file_write_new(path, bytes, size, error);
    free(bytes);
    return status ? status : contents_save(run, c, keep, error);
}

/* Writes into the committed checkpoint and ignores the result of write. */
static elbo_status save_blindly(const char *run, const struct contents *c, size_t keep, elbo_error *error)
{
    char path[300];
    elbo_status status = contents_save(run, c, keep, error);
    snprintf(path, sizeof path, "%.200s/checkpoints/step-%08d/file-0.bin", run, (int)c->step);
    unsigned char bytes[MOST_FILE];
    contents_fill(bytes, c, 100, contents_bytes(0));
    int fd = open(path, O_WRONLY);
    if (fd < 0) return status;
    (void)!write(fd, "", 1);
    (void)!pwrite(fd, bytes, contents_bytes(0), 0);
    close(fd);
    return status;
}

static void planted_faults_are_found(void **state)
{
    struct fixture *f = *state;
    struct scene s = {{{1, 2}, 2}, 1, 2, 2, {.tensors = 1, .files = 1}, ACTION_SAVE, SIZE_MAX};
    struct found found = {0};
    make_template(f, &s);
    kill_everywhere(&found, f, &s, contents_save);
    fail_everywhere(&found, f, &s, contents_save);
    if (found.bad) fail_msg("%s", found.first);
    kill_everywhere(&found, f, &s, save_in_place);
    assert_true(found.bad > 0);
    found = (struct found){0};
    make_template(f, &s);
    fail_everywhere(&found, f, &s, save_blindly);
    assert_true(found.bad > 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    snprintf(f->folder.path, sizeof f->folder.path, "%s/elbo-faults-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(f->folder.path)) return -1;
    snprintf(f->run, sizeof f->run, "%s/run", f->folder.path);
    snprintf(f->template, sizeof f->template, "%s/template", f->folder.path);
    f->random = 11;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    temporary_remove(f->folder.path);
    free(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(planted_faults_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_at_any_call_nothing_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_at_any_call_nothing_is_lost, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
