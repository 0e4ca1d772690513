/* The output path of a corpus: another corpus there is replaced whole, and anything else is kept and named. The parts
 * of a split belong together. A path without a corpus is described by what it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "prepared.h"
#include "base/sealed.h"
#include "text/corpus_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sys/wait.h>
#include <xxhash.h>

/* Every word is in every part. */
static const char text[] =
    "a a a\na a b\na b a\na b b\na c a\na c b\na d a\na d b\nb a a\nb a b\nb b a\nb b b\nb c a\nb c b\nb d a\nb d b\nc "
    "a a\nc a b\nc b a\nc b b\nc c a\nc c b\nc d a\nc d b\nd a a\nd a b\nd b a\nd b b\nd c a\nd c b\nd d a\nd d b\n";

static void at(char out[1024], const struct fixture *f, const char *name)
{
    snprintf(out, 1024, "%s/%s", f->out, name);
}

/* Returns a hash of a folder's names and bytes. */
static uint64_t listing(const char *folder)
{
    uint64_t sum = 0;
    DIR *list = opendir(folder);
    for (struct dirent *entry; list && (entry = readdir(list));) {
        char path[1300];
        struct stat about;
        size_t size = 0;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (lstat(path, &about)) abort();
        char *bytes = S_ISREG(about.st_mode) ? temporary_read(path, &size) : NULL;
        sum += XXH3_64bits_withSeed(entry->d_name, strlen(entry->d_name),
                                    XXH3_64bits(bytes ? bytes : "", size) + listing(path));
        free(bytes);
    }
    if (list) closedir(list);
    return sum;
}

static void what_is_not_of_a_corpus_is_kept(void **state)
{
    struct fixture *f = *state;
    static const char *const foreign[] = {"notes.txt",      "train/notes.txt", "config.yaml",
                                          "corpus.bin.bak", ".hidden",         "train/train"};
    char path[1024];
    struct elbo_prepare_options split = WORD, whole = WORD;
    split.split = "50/25/25";
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        for (int way = 0; way < 2; way++) {
            if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
            at(path, f, foreign[i]);
            if (i == 5)
                mkdir(path, 0777);
            else
                temporary_write(path, "mine", 4);
            uint64_t before = listing(f->out);
            assert_int_equal(prepare(f, text, sizeof text - 1, way ? whole : split), ELBO_USAGE);
            if (!strstr(f->error.message, path)) fail_msg("%s is not in: %s", path, f->error.message);
            assert_true(listing(f->out) == before);
            if (i == 5)
                rmdir(path);
            else
                unlink(path);
        }
    /* a folder without a manifest, a link in a file's place, and a single part */
    if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
    char part[1024], out[512];
    snprintf(out, sizeof out, "%s", f->out);
    at(part, f, "train");
    memcpy(f->out, part, sizeof f->out);
    assert_int_equal(prepare(f, text, sizeof text - 1, whole), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "is a part of the split"));
    strcpy(f->out, out);
    at(path, f, "train/corpus.bin");
    char kept[1024];
    temporary_path(kept, &f->folder, "kept");
    assert_int_equal(rename(path, kept), 0);
    assert_int_equal(symlink(kept, path), 0);
    assert_int_equal(prepare(f, text, sizeof text - 1, whole), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "train/corpus.bin"));
    unlink(path);
    if (prepare(f, text, sizeof text - 1, whole))
        fail_msg("%s", f->error.message); /* a corpus that lacks a file is still a corpus */
    assert_false(access(kept, F_OK));
}

/* Everything that a command can read belongs to the last corpus; files of an earlier version are replaced too. */
static void one_corpus_replaces_another(void **state)
{
    struct fixture *f = *state;
    static const char other[] = "z z z\n";
    char path[1024];
    struct elbo_prepare_options split = WORD, two = WORD;
    split.split = "50/25/25";
    two.split = "60/0/40";
    for (int old = 0; old < 2; old++)
        for (int way = 0; way < 4; way++) {
            struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
            struct elbo_tokenizer *tokenizer;
            size_t count;
            if (prepare(f, text, sizeof text - 1, way & 1 ? split : WORD)) fail_msg("%s", f->error.message);
            at(path, f, "manifest.json");
            if (old && way & 1) unlink(path); /* earlier splits had none */
            if (prepare(f, way & 2 ? text : other, (way & 2 ? sizeof text : sizeof other) - 1, way & 2 ? two : WORD))
                fail_msg("%s", f->error.message);
            if (elbo_corpus_open_parts(parts, &count, f->out, &f->error)) fail_msg("%s", f->error.message);
            assert_int_equal(count, way & 2 ? 2 : 1);
            at(path, f, "valid");
            assert_true(access(path, F_OK));
            at(path, f, "corpus.bin");
            assert_int_equal(access(path, F_OK) == 0, !(way & 2));
            if (elbo_tokenizer_find(&tokenizer, f->out, &f->error)) fail_msg("%s", f->error.message);
            assert_int_equal(elbo_tokenizer_vocabulary(tokenizer), f->report.vocabulary);
            elbo_tokenizer_close(tokenizer);
            if (way & 2) assert_string_equal(elbo_corpus_set(parts[0]), elbo_corpus_set(parts[1]));
            assert_int_equal(strlen(elbo_corpus_set(parts[0])), way & 2 ? 16 : 0);
            while (count) elbo_corpus_close(parts[--count]);
        }
}

/* A split belongs together: all readers refuse a part, a tokenizer or a manifest of another split. */
static void a_split_holds_together(void **state)
{
    struct fixture *f = *state;
    char *other = strdup(text);
    for (char *c = other; *c; c++) *c = *c == 'a' ? 'z' : *c;
    static const char *const pieces[] = {
        "manifest.json", "train/corpus.bin", "train/tokenizer.json", "train/manifest.json", "train", "test"};
    char first[512], path[1024], from[512], command[2300];
    struct elbo_prepare_options split = WORD;
    split.split = "50/25/25";
    strcpy(first, f->out);
    temporary_path(f->out, &f->folder, "second");
    if (prepare(f, other, strlen(other), split)) fail_msg("%s", f->error.message);
    free(other);
    strcpy(f->out, first);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
        struct elbo_tokenizer *tokenizer;
        size_t count;
        if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
        if (elbo_corpus_open_parts(parts, &count, f->out, &f->error)) fail_msg("%s", f->error.message);
        while (count) elbo_corpus_close(parts[--count]);
        at(path, f, pieces[i]);
        temporary_path(from, &f->folder, "second");
        snprintf(command, sizeof command, "rm -r '%.600s' && cp -r '%.500s/%s' '%.600s'", path, from, pieces[i], path);
        assert_int_equal(system(command), 0);
        assert_int_equal(elbo_corpus_open_parts(parts, &count, f->out, &f->error), ELBO_INPUT);
        assert_non_null(strstr(f->error.message, "prepare the corpus again"));
        if (i == 1 || i == 5) continue; /* the tokenizer is that of the first part */
        assert_int_equal(elbo_tokenizer_find(&tokenizer, f->out, &f->error), ELBO_INPUT);
    }
}

/* A corpus that is replaced again and again can be opened at any time, and is one of the two. */
static void opening_while_it_is_replaced(void **state)
{
    struct fixture *f = *state;
    enum { OPENINGS = 300, MOST = 100000 };
    struct elbo_prepare_options split = WORD;
    split.split = "50/25/25";
    if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
    pid_t child = fork();
    if (!child)
        for (int i = 0;; i++)
            if (prepare(f, text, (sizeof text - 1) - (i % 2 ? 0 : 6), split)) _exit(1);
    char hashes[2][17] = {"", ""};
    for (int i = 0; i < OPENINGS || (!*hashes[1] && i < MOST); i++) { /* goes on until both were seen */
        struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
        struct elbo_tokenizer *tokenizer;
        size_t count;
        elbo_status status = elbo_corpus_open_parts(parts, &count, f->out, &f->error);
        if (status == ELBO_OK) {
            int which = *hashes[0] && strcmp(hashes[0], elbo_corpus_set(parts[0]));
            if (!*hashes[which]) strcpy(hashes[which], elbo_corpus_set(parts[0]));
            if (strcmp(hashes[which], elbo_corpus_set(parts[0]))) status = ELBO_INTERNAL;
            while (count) elbo_corpus_close(parts[--count]);
        }
        if (status == ELBO_OK) status = elbo_tokenizer_find(&tokenizer, f->out, &f->error);
        if (status == ELBO_OK) elbo_tokenizer_close(tokenizer);
        if (status == ELBO_OK) continue;
        kill(child, SIGKILL);
        fail_msg("opening %d: status %d: %s", i, status, f->error.message);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(*hashes[1]);
}

static void other_things_are_named(void **state)
{
    struct fixture *f = *state;
    char kept[512];
    static const struct {
        const char *name, *part;
    } things[] = {
        {"small.txt", "is a text file, not a corpus"},
        {"binary", "is a file, not a corpus"},
        {"run", "is a run, not a corpus"},
        {"step", "is a checkpoint, not a corpus"},
        {"x/corpus.bin", "give its folder"},
        {"lost", "rename it back"},
    };
    strcpy(kept, f->out);
    temporary_write(temporary_path(f->out, &f->folder, "small.txt"), "text\n", 5);
    temporary_write(temporary_path(f->out, &f->folder, "binary"), "\0\1\2\3\0\1\2\3\0\1\2\3\0\1\2\3", 16);
    mkdir(temporary_path(f->out, &f->folder, "x"), 0777);
    temporary_write(temporary_path(f->out, &f->folder, "x/corpus.bin"), "ELBOTEXT", 8);
    mkdir(temporary_path(f->out, &f->folder, "run"), 0777);
    temporary_write(temporary_path(f->out, &f->folder, "run/config.yaml"), "", 0);
    mkdir(temporary_path(f->out, &f->folder, "step"), 0777);
    temporary_write(temporary_path(f->out, &f->folder, "step/manifest.json"), "{\"elbo\": \"checkpoint\"}", 22);
    mkdir(temporary_path(f->out, &f->folder, ".lost.elbo-old"), 0777);
    for (size_t i = 0; i < sizeof things / sizeof *things; i++) {
        temporary_path(f->out, &f->folder, things[i].name);
        refused(f, i == 5 ? ELBO_IO : ELBO_INPUT, things[i].part);
        assert_non_null(strstr(f->error.message, things[i].name));
    }
    strcpy(f->out, kept);
}

/* Reads the string of a key that occurs once in a manifest. */
static void field(char out[17], const char *json, const char *key)
{
    const char *found = strstr(json, key);
    assert_non_null(found);
    found = strchr(strchr(found, ':'), '"') + 1;
    memcpy(out, found, 16);
    out[16] = 0;
}

/* `set` is the hash of the text that docs/formats.md defines, in the split's manifest and in each part's. */
static void a_set_is_named_by_its_parts(void **state)
{
    struct fixture *f = *state;
    static const char *const splits[] = {"50/25/25", "50/0/50"};
    for (size_t k = 0; k < 2; k++) {
        struct elbo_prepare_options split = WORD;
        split.split = splits[k];
        if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
        char path[1024], name[64], described[512], hash[17], set[17];
        size_t size, count = 0;
        for (size_t i = 0; i <= f->report.part_count; i++) { /* the last manifest is the split's own */
            if (i < f->report.part_count)
                snprintf(name, sizeof name, "%s/manifest.json", f->report.parts[i].name);
            else
                strcpy(name, "manifest.json");
            at(path, f, name);
            char *json = temporary_read(path, &size);
            field(i ? hash : set, json, "\"set\"");
            if (i) assert_string_equal(hash, set);
            free(json);
        }
        at(path, f, "train/tokenizer.json");
        char *bytes = temporary_read(path, &size);
        count += (size_t)sprintf(described, "elbo-split 1\ntokenizer %016llx\n",
                                 (unsigned long long)XXH3_64bits(bytes, size));
        free(bytes);
        for (size_t i = 0; i < f->report.part_count; i++) {
            snprintf(name, sizeof name, "%s/corpus.bin", f->report.parts[i].name);
            at(path, f, name);
            bytes = temporary_read(path, &size);
            count += (size_t)sprintf(described + count, "%s %016llx\n", f->report.parts[i].name,
                                     (unsigned long long)XXH3_64bits(bytes, size));
            free(bytes);
        }
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)XXH3_64bits(described, count));
        assert_string_equal(set, hash);
    }
}

/* Replaces `from` by `to` in a manifest, and corrects its checksum. */
static void forge(const char *path, const char *from, const char *to)
{
    size_t size;
    char out[4096], *json = temporary_read(path, &size), *tail = strstr(json, ",\n \"checksum\"");
    assert_non_null(tail);
    *tail = 0;
    char *found = strstr(json, from);
    assert_non_null(found);
    int length = snprintf(out, sizeof out, "%.*s%s%s", (int)(found - json), json, to, found + strlen(from));
    snprintf(out + length, sizeof out - (size_t)length, ",\n \"checksum\": \"%016llx\"\n}\n",
             (unsigned long long)XXH3_64bits(out, (size_t)length));
    temporary_write(path, out, strlen(out));
    free(json);
}

/* A split's own manifest is refused if it is damaged or of another version, and the parts beside it are not taken for
 * an older split. */
static void a_splits_manifest_is_checked(void **state)
{
    struct fixture *f = *state;
    struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
    size_t count;
    char path[1024];
    struct elbo_prepare_options split = WORD;
    split.split = "50/25/25";
    at(path, f, "manifest.json");
    static const struct {
        const char *from, *to;
    } forged[] = {{"\"version\": 1", "\"version\": 2"},
                  {"\"version\": 1", "\"version\": \"1\""},
                  {"\"name\": \"valid\"", "\"name\": \"vali\""},
                  {"\"set\": \"", "\"set\": \"g"}};
    for (size_t i = 0; i <= sizeof forged / sizeof *forged; i++) {
        temporary_remove(f->out);
        if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
        if (i)
            forge(path, forged[i - 1].from, forged[i - 1].to);
        else
            temporary_write(path, "{", 1);
        if (elbo_corpus_open_parts(parts, &count, f->out, &f->error) != ELBO_INPUT)
            fail_msg("%s is taken", i ? forged[i - 1].to : "{");
    }
}

/* A split owns only the parts that it names. A corpus that lost its manifest is recognized by its first bytes. */
static void what_belongs_to_a_corpus(void **state)
{
    struct fixture *f = *state;
    char path[1024];
    struct elbo_prepare_options split = WORD;
    split.split = "50/0/50";
    if (prepare(f, text, sizeof text - 1, split)) fail_msg("%s", f->error.message);
    at(path, f, "valid");
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(prepare(f, text, sizeof text - 1, split), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "valid"));
    assert_int_equal(rmdir(path), 0);
    /* a part has no parts, whatever file it lost */
    static const char *const lost[] = {"train/manifest.json", "train/corpus.bin", "train/tokenizer.json"};
    for (size_t i = 0; i < 3; i++) {
        at(path, f, lost[i]);
        assert_int_equal(unlink(path), 0);
    }
    at(path, f, "train/train");
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(prepare(f, text, sizeof text - 1, split), ELBO_USAGE);
    assert_non_null(strstr(f->error.message, "train/train"));
    assert_int_equal(rmdir(path), 0);
    for (int way = 0; way < 2; way++) {
        if (prepare(f, text, sizeof text - 1, WORD)) fail_msg("%s", f->error.message);
        at(path, f, "manifest.json");
        assert_int_equal(unlink(path), 0);
        at(path, f, "corpus.bin");
        if (way) temporary_write(path, "MY BYTES", 8);
        assert_int_equal(prepare(f, text, sizeof text - 1, WORD), way ? ELBO_USAGE : ELBO_OK);
    }
}

/* Another folder is another corpus, on any device, and so is the same folder after a change. */
static void a_place_is_known_again(void **state)
{
    struct fixture *f = *state;
    if (prepare(f, text, sizeof text - 1, WORD)) fail_msg("%s", f->error.message);
    struct stat about;
    assert_int_equal(stat(f->out, &about), 0);
    struct corpus_place place = corpus_look(f->out), other;
    assert_true(place.device == about.st_dev && place.node == about.st_ino);
    assert_true(place.changed == (int64_t)about.st_ctim.tv_sec * 1000000000 + about.st_ctim.tv_nsec);
    assert_false(corpus_was_replaced(&place, f->out));
    other = place, other.device++;
    assert_true(corpus_was_replaced(&other, f->out));
    other = place, other.node++;
    assert_true(corpus_was_replaced(&other, f->out));
    other = place, other.changed++;
    assert_true(corpus_was_replaced(&other, f->out));
}

/* The program's own lstat fails with `number` for a path that ends with `vanished`. Its own stat says that `changing`
 * is a file, and another one at each call. */
static const char *vanished, *changing;
static int number;
static size_t looks;

int lstat(const char *path, struct stat *about)
{
    size_t size = strlen(path), tail = vanished ? strlen(vanished) : 0;
    if (!tail || size < tail || strcmp(path + size - tail, vanished))
        return fstatat(AT_FDCWD, path, about, AT_SYMLINK_NOFOLLOW);
    errno = number;
    return -1;
}

int stat(const char *path, struct stat *about)
{
    if (!changing || strcmp(path, changing)) return fstatat(AT_FDCWD, path, about, 0);
    *about = (struct stat){.st_mode = S_IFREG | 0644, .st_ino = ++looks};
    return 0;
}

/* A file that has gone at the time of the check is no obstacle; a file that cannot be checked is one. */
static void what_vanishes_is_in_no_way(void **state)
{
    struct fixture *f = *state;
    char path[1024];
    static const int numbers[] = {ENOENT, EACCES};
    for (size_t i = 0; i < 2; i++) {
        if (prepare(f, text, sizeof text - 1, WORD)) fail_msg("%s", f->error.message);
        at(path, f, "foreign");
        temporary_write(path, "mine", 4);
        number = numbers[i];
        vanished = "/foreign";
        elbo_status status = corpus_may_replace(f->out, &f->error);
        vanished = NULL;
        assert_int_equal(status, i ? ELBO_IO : ELBO_OK);
        assert_int_equal(unlink(path), 0);
    }
    assert_non_null(strstr(f->error.message, "inspect"));
}

/* Opening a corpus that changes at each check gives up after a fixed number of attempts. */
static void what_never_stands_still_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
    size_t count;
    looks = 0;
    changing = f->out;
    elbo_status status = elbo_corpus_open_parts(parts, &count, f->out, &f->error);
    changing = NULL;
    assert_true(status != ELBO_OK);
    assert_true(looks >= (size_t)2 * CORPUS_TRIES);
    assert_int_equal(looks % CORPUS_TRIES, 0);
}

static size_t allocations, failing;

static void *starving_malloc(size_t size)
{
    return ++allocations == failing ? NULL : malloc(size);
}

/* If an allocation fails, sums are refused as a whole. */
static void sums_are_whole_or_refused(void **state)
{
    struct fixture *f = *state;
    enum { SIZE = 3 * SEALED_CHUNK - 5 };
    char *bytes = calloc(1, SIZE);
    json_malloc_t old_malloc;
    json_free_t old_free;
    temporary_write(f->text, bytes, SIZE);
    free(bytes);
    int file = open(f->text, O_RDONLY);
    json_get_alloc_funcs(&old_malloc, &old_free);
    for (failing = 1;; failing++) {
        uint64_t sum;
        json_t *chunks = NULL;
        allocations = 0;
        json_set_alloc_funcs(starving_malloc, free);
        elbo_status status = corpus_sums(&sum, &chunks, file, SIZE, f->text, &f->error);
        json_set_alloc_funcs(old_malloc, old_free);
        assert_int_equal(status, allocations < failing ? ELBO_OK : ELBO_MEMORY);
        if (status) continue;
        assert_int_equal(json_array_size(chunks), 3);
        json_decref(chunks);
        uint64_t alone = ~sum; /* the whole sum can be computed alone */
        assert_int_equal(corpus_sums(&alone, NULL, file, SIZE, f->text, &f->error), ELBO_OK);
        assert_true(alone == sum);
        break;
    }
    assert_true(failing > 4);
    close(file);
}

/* If an allocation fails, a split is either whole or refused. */
static void a_split_is_whole_or_refused(void **state)
{
    struct fixture *f = *state;
    struct elbo_prepare_options split = WORD;
    split.split = "50/25/25";
    size_t refusals = 0;
    json_malloc_t old_malloc;
    json_free_t old_free;
    json_get_alloc_funcs(&old_malloc, &old_free);
    for (failing = 1;; failing++) {
        struct elbo_corpus *parts[ELBO_PREPARE_PARTS];
        size_t count;
        allocations = 0;
        json_set_alloc_funcs(starving_malloc, free);
        elbo_status status = prepare(f, text, sizeof text - 1, split);
        json_set_alloc_funcs(old_malloc, old_free);
        if (status) {
            assert_int_equal(status, ELBO_MEMORY);
            assert_true(access(f->out, F_OK));
            refusals++;
            continue;
        }
        if (elbo_corpus_open_parts(parts, &count, f->out, &f->error)) fail_msg("%s", f->error.message);
        assert_int_equal(count, 3);
        while (count) elbo_corpus_close(parts[--count]);
        temporary_remove(f->out);
        if (allocations < failing) break;
    }
    assert_true(refusals > 50);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_of_a_corpus_is_kept), TEST(one_corpus_replaces_another),
        TEST(a_split_holds_together),          TEST(a_set_is_named_by_its_parts),
        TEST(a_splits_manifest_is_checked),    TEST(what_belongs_to_a_corpus),
        TEST(other_things_are_named),          TEST(opening_while_it_is_replaced),
        TEST(what_vanishes_is_in_no_way),      TEST(what_never_stands_still_is_given_up),
        TEST(a_place_is_known_again),          TEST(sums_are_whole_or_refused),
        TEST(a_split_is_whole_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
