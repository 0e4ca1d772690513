"""Two ranks of one training have the bits of one rank, also in the rows of validations, with whole moments and with
shared ones. Differences between the ranks are refused by name. Rows name the slowest rank. tests/job/test_trainings.py
has more ranks and takes minutes."""
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "job"))
SANITIZED = bool(os.environ.get("ELBO_SANITIZED"))
if SANITIZED:
    os.environ["ASAN_OPTIONS"] = "detect_leaks=0"  # Open MPI leaves memory behind
import test_trainings as trainings
from runs import Scratch, bits, checkpoints, corpus, elbo, grammar, same

GIVEN = {"decoder.ff_width": 600, "train.steps": 24, "train.eval_every": 10, "checkpoint.every": 9,
         "parallel.check_every": 5}


def differing(run, data, shell):
    """Runs two ranks; the second runs `shell`, in which "$@" is the command."""
    words = trainings.command(2, run, data, GIVEN)
    shell = f'[ "$OMPI_COMM_WORLD_RANK" = 1 ] || exec "$@"\n{shell}'
    return subprocess.run([*words[:4], "bash", "-c", shell, "bash", *words[4:]], env=trainings.MPI, capture_output=True,
                          text=True, check=False, timeout=100)


def check_same_bits(scratch, data, pool):
    """One bucket of gradients for each layer, and one for all; a rank's validation figures are those of all
    sentences."""
    cases = {"whole": {"parallel.lanes": trainings.GIVEN["train.slots"]}, "one bucket": {"parallel.bucket": 8},
             "shared": {"parallel.zero": 1}, "shared, one bucket": {"parallel.zero": 1, "parallel.bucket": 8}}
    trainings.train(1, scratch / "one", data, GIVEN)
    one = bits(scratch / "one")
    assert len([row for row in one["metrics"] if "valid" in row]) == 3 \
        and all(row["valid"]["ppl_word"] > 1 for row in one["metrics"] if "valid" in row)
    said = dict(zip(cases, pool.map(lambda name: trainings.train(2, scratch / name, data,
                                                                 {**GIVEN, **cases[name]}).stderr, cases)))
    for name in cases:
        same(one, bits(scratch / name), f"two ranks, {name}")
        line = next(line for line in said[name].splitlines() if "sums over 2 ranks: " in line)
        assert ("1 buckets" in line) == ("one bucket" in name), line
    # resumed from shared moments
    trainings.train(2, scratch / "shared", data, {**GIVEN, "parallel.zero": 1, "train.steps": 30})
    trainings.train(1, scratch / "one", data, {**GIVEN, "train.steps": 30})
    same(bits(scratch / "one"), bits(scratch / "shared"), "two ranks, on from shared moments")


def check_slowest(run):
    walls = [json.loads(line)["wall"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
             if '"loss"' in line]
    assert {wall["slowest_rank"] for wall in walls} <= {0, 1}, walls
    assert all(1 <= wall["slowest_over_middle"] < 1e4 for wall in walls), walls
    first = [wall["slowest_over_middle"] for wall in walls if wall["slowest_rank"] == 0]
    assert not first or max(first) > 1, walls  # of two ranks, the median is the faster one


def check_sums_at_the_end(scratch, data):
    """Without determinism there is no tree of lanes, and losses stay close."""
    trainings.train(2, scratch / "fast", data, {**GIVEN, "determinism": "fast"})
    far = [abs(a["loss"] - b["loss"]) / a["loss"]
           for a, b in zip(bits(scratch / "one")["metrics"], bits(scratch / "fast")["metrics"]) if "loss" in a]
    assert len(far) >= 24 and max(far) < 1e-4, max(far)


def check_refused(scratch, data, pool):
    elbo("prepare", scratch / "text", "--tokenizer.kind=byte", f"--out={scratch / 'other'}")
    grammar(scratch / "text-2", 50, 2)
    swapped = scratch / "swapped"
    swapped.mkdir()
    elbo("prepare", scratch / "text-2", f"--tokenizer.from={data}", f"--out={swapped / 'corpus'}")
    apart = f'exec unshare -m bash -c \'mount --bind "{swapped / "corpus"}" "{data}" && exec "$@"\' bash "$@"'
    cases = [('exec "$@" --seed=9', 2, "rank 1 was started with other options"),
             ('exec "$@" --objective.beta=0.5', 2, "rank 1 was started with other options"),
             ('exec "$@" --device=cpu:generic', 2, "rank 1's processor has other instructions"),
             ('exec "$@" --threads=3', 0, "")]  # a rank may have its own number of threads
    if not subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        cases.append((apart, 3, "rank 1 has another corpus than rank 0"))
    answers = pool.map(lambda case: differing(scratch / f"case-{cases.index(case)}", data, case[0]), cases)
    for (shell, code, words), answer in zip(cases, answers):
        assert answer.returncode == code and words in answer.stderr, \
            f"{shell}: {answer.returncode}\n{answer.stderr[-2000:]}"


def main():
    if not shutil.which("mpirun"):
        print("SKIP: no mpirun")
        sys.exit(77)
    with Scratch() as scratch, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        data = corpus(scratch)
        check_same_bits(scratch, data, pool)
        check_slowest(scratch / "whole")
        check_sums_at_the_end(scratch, data)
        check_refused(scratch, data, pool)
        if not SANITIZED:  # a sanitized process's memory is too large to search
            trainings.check_drift(scratch, data)
        assert checkpoints(scratch / "whole")


if __name__ == "__main__":
    main()
