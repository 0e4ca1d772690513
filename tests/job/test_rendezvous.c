/* Tests the meeting of a job's ranks: every rank gets rank 0's bytes, whenever it comes and wherever its secret is
 * from; missing or unsafe inputs are refused with what, where and what to do. */
#include "job/rendezvous.h"
#include "base/clock.h"

#include "job/job.h"
#include "temporary.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void assert_says(const elbo_error *error, elbo_status code, const char *part)
{
    if (error->code != code || !strstr(error->message, part))
        fail_msg("code %d, '%s' is not in: %s", error->code, part, error->message);
}

static void assert_met(const struct job *job)
{
    const char *failure = job_failure(job);
    if (failure) fail_msg("%s", failure);
}

/* ---- meeting ---- */

static void every_rank_has_the_bytes(void **state)
{
    (void)state;
    static const size_t worlds[] = {1, 2, 4, 8, 16};
    struct job job;
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        make_job(&job, worlds[i], free_ports(1));
        run_job(&job);
        assert_met(&job);
        if (job.seconds > 1) fail_msg("%zu ranks took %.3f s", worlds[i], job.seconds);
    }
}

static void ranks_may_come_late_and_in_any_order(void **state)
{
    (void)state;
    struct job job;
    for (size_t late = 0; late < 4; late++) {
        make_job(&job, 4, free_ports(1));
        for (size_t r = 0; r < 4; r++) job.members[r].delay = 0.08 * (double)((r + late) % 4);
        run_job(&job);
        assert_met(&job);
        if (job.seconds > 1.2) fail_msg("order %zu: %.3f s, of which 0.24 s until all began", late, job.seconds);
    }
}

static void names_and_ipv6_are_addresses(void **state)
{
    (void)state;
    static const char *const addresses[] = {"localhost", "::1"};
    for (size_t i = 0; i < 2; i++) {
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        bool v6 = fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof at);
        if (fd >= 0) close(fd);
        if (i == 1 && !v6) continue; /* a machine without IPv6 */
        struct job job;
        make_job(&job, 3, free_ports(1));
        for (size_t r = 0; r < 3; r++) strcpy(job.members[r].ranks.address, addresses[i]);
        run_job(&job);
        assert_met(&job);
    }
}

/* 127.0.0.2 belongs to this host too, so a socket that listens on all addresses accepts connections there. */
static bool is_open_at_another_address(unsigned port)
{
    struct sockaddr_in at = at_port(port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool open = !connect(fd, (struct sockaddr *)&at, sizeof at);
    close(fd);
    return open;
}

static void one_host_listens_on_the_loopback_only(void **state)
{
    (void)state;
    for (int several = 0; several < 2; several++) {
        struct job job;
        make_job(&job, 2, free_ports(1));
        for (size_t r = 0; r < 2; r++) job.members[r].ranks.one_host = !several;
        job.members[1].delay = 0.2;
        begin_job(&job);
        close(dial(job.members[0].ranks.port)); /* rank 0 listens */
        bool open = is_open_at_another_address(job.members[0].ranks.port);
        end_job(&job);
        assert_met(&job);
        assert_int_equal(open, several);
    }
}

/* As on several hosts, rank 0 listens on more than the loopback. */
static void several_hosts_meet_with_a_secret(void **state)
{
    (void)state;
    char host[RANKS_ADDRESS];
    if (gethostname(host, sizeof host)) strcpy(host, "localhost");
    const char *const addresses[] = {"127.0.0.1", "localhost", host};
    for (size_t i = 0; i < 3; i++) {
        struct job job;
        make_job(&job, 3, free_ports(1));
        for (size_t r = 0; r < 3; r++) {
            strcpy(job.members[r].ranks.address, addresses[i]);
            job.members[r].ranks.one_host = false;
        }
        run_job(&job);
        assert_met(&job);
    }
}

static void a_taken_port_gives_way_to_the_next(void **state)
{
    (void)state;
    struct job job;
    unsigned port = free_ports(4);
    int taken = listen_on_port(port), also = listen_on_port(port + 1); /* accept connections and stay silent */
    make_job(&job, 4, port);
    for (size_t r = 0; r < 4; r++) job.members[r].ranks.ports = 4;
    run_job(&job);
    close(taken);
    close(also);
    assert_met(&job);
    if (job.seconds > 1) fail_msg("%.3f s", job.seconds);
}

static void one_meeting_follows_another_at_the_same_port(void **state)
{
    (void)state;
    unsigned port = free_ports(1);
    for (unsigned k = 0; k < 5; k++) {
        struct job job;
        make_job(&job, 3, port);
        for (size_t r = 0; r < 3; r++) job.members[r].ranks.restart = k;
        run_job(&job);
        assert_met(&job);
    }
}

/* ---- secrets ---- */

struct files {
    struct temporary folder;
    char path[512];
};

static const char *secret_file(struct files *f, const char *content, mode_t mode)
{
    temporary_path(f->path, &f->folder, "secret");
    unlink(f->path);
    temporary_write(f->path, content, strlen(content));
    if (chmod(f->path, mode)) abort();
    return f->path;
}

static void a_file_holds_the_secret(void **state)
{
    (void)state;
    struct files f = {.folder = temporary_open()};
    static const char *const contents[] = {SECRET, SECRET "\n", SECRET "\r\n"};
    static const mode_t modes[] = {0600, 0400, 0600};
    for (size_t i = 0; i < 3; i++) {
        struct job job;
        make_job(&job, 2, free_ports(1));
        job.members[0].options.secret = NULL;
        job.members[0].options.secret_file = secret_file(&f, contents[i], modes[i]);
        run_job(&job); /* rank 1 has the same secret from the variable */
        assert_met(&job);
    }
    temporary_remove(f.folder.path);
}

static void refuse_file(const char *path, elbo_status code, const char *part)
{
    for (size_t rank = 0; rank < 2; rank++) {
        struct ranks ranks = rank_of(rank, 2, free_ports(1));
        struct rendezvous_options options = {.secret_file = path, .secret = SECRET, .timeout = 5};
        unsigned char bytes[ID] = {0};
        elbo_error error = {0};
        double before = clock_seconds();
        assert_int_equal(rendezvous_share(&ranks, &options, bytes, ID, NULL, &error), code);
        assert_says(&error, code, part);
        assert_true(clock_seconds() - before < 1);
    }
}

static void files_that_others_can_read_are_refused(void **state)
{
    (void)state;
    struct files f = {.folder = temporary_open()};
    char link[512], pipe[512], longer[4100];
    static const mode_t modes[] = {0644, 0640, 0660, 0601, 0666, 0700, 04600};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        refuse_file(secret_file(&f, SECRET, modes[i]), ELBO_USAGE, "0600");
    refuse_file(secret_file(&f, "short", 0600), ELBO_USAGE, "a secret of 5 bytes");
    refuse_file(secret_file(&f, "", 0600), ELBO_USAGE, "a secret of 0 bytes");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    refuse_file(secret_file(&f, longer, 0600), ELBO_USAGE, "more than 4096 bytes");
    const char *file = secret_file(&f, SECRET, 0600);
    if (symlink(file, temporary_path(link, &f.folder, "link")) || mkfifo(temporary_path(pipe, &f.folder, "pipe"), 0600))
        abort();
    refuse_file(link, ELBO_USAGE, "symbolic link");
    refuse_file(pipe, ELBO_USAGE, "no regular file");
    refuse_file(f.folder.path, ELBO_USAGE, "no regular file");
    refuse_file("/nowhere/secret", ELBO_IO, "/nowhere/secret: No such file");
    if (geteuid() == 0 && !chown(file, 1, 1)) refuse_file(file, ELBO_USAGE, "belongs to another user");
    temporary_remove(f.folder.path);
}

static void what_is_no_secret_is_refused(void **state)
{
    (void)state;
    static const char *const secrets[] = {"", "fifteen letters"};
    for (size_t i = 0; i < 2; i++) {
        struct ranks ranks = rank_of(i, 2, 29000);
        struct rendezvous_options options = {.secret_file = "", .secret = secrets[i], .timeout = 5};
        elbo_error error = {0};
        unsigned char bytes[ID] = {0};
        rendezvous_share(&ranks, &options, bytes, ID, NULL, &error);
        assert_says(&error, ELBO_USAGE, "ELBO_SECRET holds a secret of");
        options.secret = NULL;
        ranks.one_host = false;
        rendezvous_share(&ranks, &options, bytes, ID, NULL, &error);
        assert_says(&error, ELBO_USAGE, "set the variable ELBO_SECRET");
        ranks.address[0] = 0;
        rendezvous_share(&ranks, &options, bytes, ID, NULL, &error);
        assert_says(&error, ELBO_USAGE, "say --parallel.address");
    }
}

/* ---- one host without a secret: rank 0 makes one ---- */

static void without_secret(struct job *job, size_t world, unsigned port, const char *runtime)
{
    make_job(job, world, port);
    for (size_t r = 0; r < world; r++) {
        job->members[r].options.secret = NULL;
        job->members[r].options.runtime_folder = runtime;
    }
}

static size_t entries(const char *path)
{
    size_t count = 0;
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));) count += e->d_name[0] != '.';
    if (folder) closedir(folder);
    return count;
}

static void rank_0_leaves_a_secret_for_its_user(void **state)
{
    (void)state;
    struct temporary folder = temporary_open(); /* mode 0700 */
    char inside[512], name[128];
    struct job job;
    for (int late = 0; late < 2; late++) {
        without_secret(&job, 4, free_ports(1), folder.path);
        job.members[late].delay = 0.2;
        run_job(&job);
        assert_met(&job);
        assert_int_equal(entries(temporary_path(inside, &folder, "elbo")), 0); /* rank 0 removes the secret */
    }
    /* A leftover of an earlier job does not matter. */
    without_secret(&job, 4, free_ports(1), folder.path);
    job.members[0].delay = 0.2;
    snprintf(name, sizeof name, "elbo/%s-0", job.members[0].ranks.job);
    temporary_write(temporary_path(inside, &folder, name),
                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef, longer", 72);
    if (chmod(inside, 0600)) abort();
    run_job(&job);
    assert_met(&job);
    temporary_remove(folder.path);
    /* /tmp is used when the folder is not this user's, or is open to others. */
    without_secret(&job, 2, free_ports(1), "/");
    run_job(&job);
    assert_met(&job);
}

static void folders_and_files_of_others_are_refused(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    char inside[512], file[600];
    struct job job;
    temporary_path(inside, &folder, "elbo");
    mkdir(inside, 0700);
    for (int what = 0; what < 4; what++) {
        without_secret(&job, 2, free_ports(1), folder.path);
        for (size_t r = 0; r < 2; r++) job.members[r].options.timeout = 0.2;
        snprintf(file, sizeof file, "%s/%s-0", inside, job.members[0].ranks.job);
        if (what == 0) chmod(inside, 0755);
        if (what == 1) temporary_write(file, "0123", 4); /* mode 0644 */
        if (what == 2 && symlink("/etc/passwd", file)) abort();
        if (what == 3 && mkdir(file, 0700)) abort();
        run_job(&job);
        assert_says(&job.members[0].error, ELBO_USAGE, "cannot hold the job's secret");
        assert_true(job.members[1].status == ELBO_USAGE || job.members[1].status == ELBO_PEER);
        chmod(inside, 0700);
    }
    temporary_remove(folder.path);
}

static void two_jobs_of_one_name_do_not_mix(void **state)
{
    (void)state;
    struct temporary folder = temporary_open();
    struct job one, other;
    unsigned port = free_ports(2);
    without_secret(&one, 2, port, folder.path);
    without_secret(&other, 2, port + 1, folder.path);
    one.members[1].delay = 0.6;
    other.members[0].delay = other.members[1].delay = 0.2;
    for (size_t r = 0; r < 2; r++) strcpy(other.members[r].ranks.job, one.members[0].ranks.job);
    other.members[1].options.timeout = 0.3;
    begin_job(&one);
    run_job(&other);
    end_job(&one);
    assert_says(&other.members[0].error, ELBO_BUSY, "--parallel.port");
    assert_int_equal(other.members[1].status, ELBO_PEER);
    assert_met(&one);
    temporary_remove(folder.path);
}

/* ---- ranks that do not come ---- */

static void the_missing_are_named(void **state)
{
    (void)state;
    struct job job;
    char part[160];
    unsigned port = free_ports(1);
    make_job(&job, 8, port);
    for (size_t r = 0; r < 8; r++) job.members[r].options.timeout = 0.8;
    for (size_t r = 0; r < 8; r++) job.members[r].delay = r == 3 || r == 6 ? 1.2 : 0;
    run_job(&job);
    snprintf(part, sizeof part, "at 127.0.0.1:%u, but of 8 ranks 2 did not come: 3, 6.", port);
    assert_says(&job.members[0].error, ELBO_PEER, part);
    snprintf(part, sizeof part, "rank 3 did not meet rank 0 at 127.0.0.1:%u within 0.8 s: Connection refused", port);
    assert_says(&job.members[3].error, ELBO_PEER, part);
    assert_true(job.members[0].seconds > 0.7 && job.members[0].seconds < 2);
    for (size_t r = 1; r < 8; r++) assert_int_equal(job.members[r].status, r == 3 || r == 6 ? ELBO_PEER : ELBO_OK);
    assert_int_equal(job.members[3].bytes[0], 0);
}

static void a_taken_port_is_named_with_its_option(void **state)
{
    (void)state;
    unsigned port = free_ports(1);
    int taken = listen_on_port(port);
    char part[160];
    struct ranks ranks = rank_of(0, 2, port);
    struct rendezvous_options options = {.secret_file = "", .secret = SECRET, .timeout = 5};
    elbo_error error = {0};
    unsigned char bytes[ID] = {0};
    rendezvous_share(&ranks, &options, bytes, ID, NULL, &error);
    close(taken);
    snprintf(part, sizeof part, "127.0.0.1:%u: another process does; choose another --parallel.port", port);
    assert_says(&error, ELBO_IO, part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_has_the_bytes),
        cmocka_unit_test(ranks_may_come_late_and_in_any_order),
        cmocka_unit_test(names_and_ipv6_are_addresses),
        cmocka_unit_test(one_host_listens_on_the_loopback_only),
        cmocka_unit_test(several_hosts_meet_with_a_secret),
        cmocka_unit_test(a_taken_port_gives_way_to_the_next),
        cmocka_unit_test(one_meeting_follows_another_at_the_same_port),
        cmocka_unit_test(a_file_holds_the_secret),
        cmocka_unit_test(files_that_others_can_read_are_refused),
        cmocka_unit_test(what_is_no_secret_is_refused),
        cmocka_unit_test(rank_0_leaves_a_secret_for_its_user),
        cmocka_unit_test(folders_and_files_of_others_are_refused),
        cmocka_unit_test(two_jobs_of_one_name_do_not_mix),
        cmocka_unit_test(the_missing_are_named),
        cmocka_unit_test(a_taken_port_is_named_with_its_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
