"""Runs one fuzz target for a short time: every file of regressions/<reader>/ and some thousand mutations must pass, and
each planted fault (harness.h) must be found.

    tests/fuzz/run_short.py PROGRAM"""
import os
import pathlib
import re
import subprocess
import sys

EXECUTIONS = 1500
FAULTS = ("planted", "slow", "memory", "leak")


def run(program, files, executions, fault=""):
    environment = {**os.environ, "ELBO_FUZZ_FAULT": fault}
    return subprocess.run([program, f"--executions={executions}", *files], env=environment, capture_output=True,
                          text=True, errors="replace", check=False)


def main():
    program = sys.argv[1]
    reader = pathlib.Path(program).name.removeprefix("fuzz_")
    files = [str(path) for path in sorted((pathlib.Path(__file__).parent / "regressions" / reader).glob("*"))]
    answer = run(program, files, EXECUTIONS)
    print(answer.stdout)
    done = re.search(r"^figure executions (\d+)$", answer.stdout, re.M)
    if answer.returncode or not done or int(done.group(1)) < EXECUTIONS:
        sys.exit(f"{reader}: exit code {answer.returncode}\n{answer.stderr[-2000:]}")
    for fault in FAULTS:
        if run(program, [], 30 * EXECUTIONS if fault == "planted" else 1, fault).returncode == 0:
            sys.exit(f"{reader}: the fault `{fault}` was not found")
    # The seeds alone must not reach the planted fault.
    if run(program, [], 0, "planted").returncode:
        sys.exit(f"{reader}: the planted fault is reached without a mutation")


if __name__ == "__main__":
    main()
