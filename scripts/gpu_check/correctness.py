"""Parts `tests` and `sanitizers`: checks that the device computes the right values, in bounds and in order."""
import functools
import importlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

from gpu_check.steps import ROOT, offers, program_environment

RERUNS, SECONDS = 1000, 10 # runs of one trial, and the most seconds for them
# Relative tolerance of the losses of 20 steps against the CPU's, from the tests' own table.
TOLERANCES = (ROOT / "tests" / "tolerances.h").read_text()
BF16_LOSS = float(re.search(r"X\(BACKENDS_BF16, ([0-9.e-]+),", TOLERANCES).group(1))


def sweep(check, name, *options, limit, out, **environment):
    words = [sys.executable, "scripts/kernel-sweep", f"--build={check.build}", f"--out={out}",
             f"--jobs={check.given.jobs}", *options]
    if not check.given.emulate:
        words.append("--cuda")
    return check.run(name, words, limit, **environment)


def reruns(check):
    """Runs one trial of every launcher and type RERUNS times and demands the same bits each time."""
    with tempfile.TemporaryDirectory() as out:
        if sweep(check, f"kernels, {RERUNS} runs each", "--short", limit=250, out=out, ELBO_TEST_RERUNS=RERUNS,
                 ELBO_TEST_SECONDS=SECONDS) is None:
            return
        rows = json.loads(next(pathlib.Path(out).glob("kernels-*.json")).read_text())["rows"]
    few = [f"{r['launcher']} {r['type']} {r['runs']}" for r in rows if r["runs"] < RERUNS]
    check.note("kernels, runs with the same bits", "short" if few else "ok", ("fewer than wanted: " + "; ".join(few))
               if few else "",
               launchers=len(rows), complete=len(rows) - len(few), rows=rows)


def train_in(check, precision):
    """Trains every variant for 20 steps in `precision` on the device and compares with f32 on the CPU."""
    os.environ.update({k: str(v) for k, v in program_environment(check).items()})
    sys.path[:0] = [str(ROOT / "tests" / "sim"), str(ROOT / "tests" / "train")]
    runs, training = importlib.import_module("runs"), importlib.import_module("test_training")
    with runs.Scratch() as scratch:
        corpus = runs.corpus(scratch)
        for name, changes in training.VARIANTS.items():
            began = time.monotonic()
            if check.left() < 10:
                check.note(f"training, {name}, {precision}", "no time")
                continue
            try:
                cpu = training.train(runs.ELBO, corpus, scratch / f"{name}-cpu", changes, "cpu")
                gpu = [training.train(training.SIM, corpus, scratch / f"{name}-{i}",
                                      {**changes, "precision": precision}, "cuda")
                       for i in range(2)]
            except SystemExit as error:
                check.note(f"training, {name}, {precision}", "failed", str(error), time.monotonic() - began)
                continue
            worst = max(abs(a["loss"] - b["loss"]) / max(abs(a["loss"]), 1e-6) for a, b in zip(cpu, gpu[0]))
            same = training.weights(scratch / f"{name}-0") == training.weights(scratch / f"{name}-1")
            good = len(gpu[0]) == len(cpu) and worst <= BF16_LOSS and same # false for NaN
            words = f"loss off by at most {worst:.2g} of {BF16_LOSS}, {'the same' if same else 'other'} bits again"
            check.note(f"training, {name}, {precision}", "ok" if good else "failed", words, time.monotonic() - began,
                       worst=worst, losses_cpu=[r["loss"] for r in cpu], losses_device=[r["loss"] for r in gpu[0]])


def tests(check):
    check.needs(check.elbo, check.device_elbo)
    check.run_all(functools.partial(check.run, f"ops, {program.name}", [program], 60, ELBO_TEST_DEVICE="cuda")
                  for program in sorted(check.build.glob("tests/sim_ops_*" if check.given.emulate
                                                         else "cuda/ops_test_*")))
    sweep(check, "kernels, long sweep", limit=150, out=check.out)
    check.run("training beside the CPU, f32", [sys.executable, "tests/sim/test_training.py"], 300,
              **program_environment(check))
    if check.given.dry_run:
        sweep(check, "", "--short", out="TEMPORARY", limit=0, ELBO_TEST_RERUNS=RERUNS, ELBO_TEST_SECONDS=SECONDS)
        return
    found = offers(check.device_elbo, "train", "precision")
    if found and "bf16" in found.group():
        train_in(check, "bf16")
    else:
        check.note("training, bf16", "missing", "elbo train offers no --precision=bf16")
    reruns(check)


def sanitizers(check):
    programs = sorted(check.build.glob(f"tests/kernels_test_{check.given.only}" if check.given.emulate
                                       else f"cuda/cuda_test_{check.given.only}"))
    tool = [sys.executable, "tests/cuda/sanitizer-stand-in"] if check.given.emulate \
        else [shutil.which("compute-sanitizer") or "compute-sanitizer"]
    check.needs(*(programs or [check.build / "cuda"]))
    if not check.given.emulate and not shutil.which(tool[0]) and not check.given.dry_run:
        check.note("compute-sanitizer", "missing", "it is not in PATH")
        return
    # The programs check refused launches themselves (one test asks for one), so API errors are not reported.
    kinds = {"memcheck": ["--leak-check=no", "--report-api-errors=no"], "racecheck": ["--racecheck-report=all"],
             "initcheck": [], "synccheck": []}
    total, begun = len(kinds) * len(programs), iter(range(len(kinds) * len(programs)))

    def one(kind, program):
        name = f"{kind}, {program.name}"
        # A slow program may use the time that quick ones leave.
        limit = max(20.0, 2 * check.given.jobs * check.left() / (total - next(begun)))
        out = check.run(name, [*tool, f"--tool={kind}", *kinds[kind], "--error-exitcode=99", program], limit,
                        quiet=True, ELBO_TEST_REPEATS=1, ELBO_TEST_FULL=0)
        if out is None:
            return
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) .*", out)
        if summary and all(n == "0" for n in summary):
            check.note(name, "ok", "no reports")
        else:
            check.note(name, "failed" if summary else "missing", out[-800:] if summary
                       else "no summary: was it run at all?")

    check.run_all(functools.partial(one, kind, program) for kind in kinds for program in programs)
