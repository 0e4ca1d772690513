#!/usr/bin/python3
"""Runs every line of wrong-invocations.txt and compares the answer.

    wrong_invocations.py ELBO FOLDER [TABLE]      FOLDER holds the files that usage.bats makes

A row is a command line for bash (elbo is the program), the exit code, and a regular expression, separated by " | ".
The answer must have that exit code, nothing on standard output, and one line on standard error that matches the
expression."""
import collections
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys


def answer(elbo, folder, command):
    environment = dict(os.environ, PATH=f"{pathlib.Path(elbo).parent}:{os.environ['PATH']}", NO_COLOR="1")
    try:
        return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=20)
    except subprocess.TimeoutExpired:
        return None


def fault(row, elbo, folder):
    """Returns (exit code, the fault of the answer or None)."""
    command, code, expression = row
    got = answer(elbo, folder, command)
    if got is None:
        return -1, "does not end"
    said = got.stderr.decode("utf-8", "replace")
    if got.returncode != code:
        return got.returncode, f"exit code {got.returncode} instead of {code}: {said.strip()}"
    if got.stdout:
        return code, f"on standard output: {got.stdout[:80]}"
    if said.count("\n") != 1 or len(said) > 400:
        return code, f"not one line of at most 400 characters: {said.strip()}"
    if not re.search(expression, said):
        return code, f"does not say /{expression}/: {said.strip()}"
    return code, None


def main():
    elbo, folder = sys.argv[1:3]
    table = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 \
        else pathlib.Path(__file__).with_name("wrong-invocations.txt")
    lines = [line for line in table.read_text().splitlines() if line.strip() and not line.startswith("#")]
    rows = [(command, int(code), expression) for command, code, expression in (line.rsplit(" | ", 2) for line in lines)]
    assert len(set(rows)) == len(rows), "a row stands twice"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda row: fault(row, elbo, folder), rows))
    bad = [f"{row[0]}\n    {what}" for row, (_, what) in zip(rows, answers) if what]
    print(*bad, sep="\n")
    codes = collections.Counter(code for code, _ in answers)
    print(f"{len(rows)} wrong invocations; by exit code:",
          ", ".join(f"{code}: {codes[code]}" for code in sorted(codes)))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
