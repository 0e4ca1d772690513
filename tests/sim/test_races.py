"""The thread sanitizer finds missing barriers: it reports each kernel that test_sim.cpp plants without one, and no
other kernel. Skipped in builds without the sanitizer."""
import os
import pathlib
import re
import subprocess
import sys

PROGRAM = pathlib.Path(os.environ["ELBO_TESTS"]) / "sim_test_sim"
# the last one is a copy done late, in copies_kernel
PLANTED = {"reverse_kernel", "trailing_kernel", "copies_kernel", "sim_copy_do"}


def main():
    if not PROGRAM.exists() or b"__tsan_init" not in PROGRAM.read_bytes():
        print("not a build for the thread sanitizer")
        sys.exit(77)
    suppressions = pathlib.Path(os.environ["ELBO_TESTS"]) / "races.supp"
    suppressions.write_text("race:past_kernel\n")
    environment = dict(os.environ, TSAN_OPTIONS=f"suppressions={suppressions} exitcode=66")
    answer = subprocess.run([PROGRAM], capture_output=True, text=True, check=False, env=environment)
    seen = set(re.findall(r"WARNING: ThreadSanitizer: data race.*\n.*\n\s+#0 (\w+)\(", answer.stderr))
    assert seen == PLANTED, f"reported {sorted(seen)}, planted {sorted(PLANTED)}:\n{answer.stderr[-4000:]}"
    assert answer.returncode == 66, answer.returncode
    assert re.search(r"test_sim\.cpp:\d+", answer.stderr), "the reports do not name the kernel's line"


main()
