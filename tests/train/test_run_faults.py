"""`elbo train` itself, killed and with failing system calls (preload_calls.c), on a run of 12 steps that saves every 3.

  killed    SIGKILL instead of a call below the run's folder, or after half of a write: the same command goes on and
            ends with the bits of the run that was never killed; so does a run that is killed when it resumes
  failing   ENOSPC, EDQUOT, EIO, EINTR or a short write at a call, or a disk full from there on: a failed save on the
            way is reported and repeated when the next is due, lost rows of metrics are reported, and training ends with
            the same weights; a failure at the beginning or of the last save ends with exit code 4 and names the file,
            and the same command then goes on to the same bits
  seeded    the comparison of bits finds a weight that is changed after a kill

ELBO_TEST_FULL=1 takes every call; otherwise every few."""
import errno
import os
import pathlib
import shutil
import signal
import subprocess

from runs import ELBO, TINY, Scratch, bits, checkpoints, corpus, elbo, options, rows, same, train

FULL = bool(os.environ.get("ELBO_TEST_FULL"))
PRELOAD = pathlib.Path(os.environ.get("ELBO_TESTS", "build/release/tests")) / "train_preload_calls.so"
STEPS = 12
GIVEN = {"train.steps": STEPS, "checkpoint.every": 3, "checkpoint.keep": 2, "train.eval_every": 5}
ROW_LOST = "metrics of step"


def watched(run, data, **watch):
    """Runs with calls counted or affected; returns the exit code and the output."""
    environment = {**os.environ, "LD_PRELOAD": str(PRELOAD), "WATCH_ROOT": str(run),
                   "ASAN_OPTIONS": "verify_asan_link_order=0",
                   **{f"WATCH_{k.upper()}": str(v) for k, v in watch.items()}}
    words = [ELBO, "train", f"--data.train={data}", f"--data.valid={data}", f"--run.dir={run}",
             *options({**TINY, **GIVEN})]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return answer.returncode, answer.stderr


def calls_of(scratch, run, data):
    """Returns number: (kind, path) of each call that succeeds."""
    log = scratch / "log"
    code, said = watched(run, data, log=log)
    assert code == 0, said
    lines = [line.split(" ", 2) for line in log.read_text(encoding="utf-8").splitlines()]
    return {int(number): (kind, path) for number, kind, path in lines}


def fresh(run, template=None):
    shutil.rmtree(run, ignore_errors=True)
    if template:
        shutil.copytree(template, run)


def some(of, few):
    """Returns all of them, or a few spread over the range."""
    of = list(of)
    return of if FULL else [of[i * len(of) // few] for i in range(few)]


def check_killed(scratch, data, whole, template, few):
    run = scratch / "killed"
    fresh(run, template)
    count = max(calls_of(scratch, run, data)) + 1
    points = [(at, effect) for at in some(range(count), few) for effect in ("kill", "tear")]
    for at, effect in points:
        fresh(run, template)
        code, said = watched(run, data, effect=effect, at=at)
        assert code == -signal.SIGKILL, f"{effect} at {at} of {count}: exit {code}: {said}"
        said = train(run, data, given=GIVEN).stderr
        for path in (run / "checkpoints").glob("step-*.tmp"):  # removed by the next save, if there is one
            assert "nothing to do" in said, f"{effect} at call {at}: {path.name} stays"
            shutil.rmtree(path)
        same(whole, bits(run), f"{effect} at call {at} of {count}")
    return len(points)


def weights(found):
    return {key: value for key, value in found.items() if key != "metrics"}


def check_failing(scratch, data, whole, few):
    run = scratch / "failing"
    fresh(run)
    calls = calls_of(scratch, run, data)
    first_step = next(at for at, (kind, path) in calls.items() if kind == "write" and path.endswith("metrics.jsonl"))
    last_save = next(at for at, (kind, path) in calls.items() if f"step-{STEPS:08d}.tmp" in path)
    ways = [("error", errno.ENOSPC, 1), ("error", errno.ENOSPC, 10 ** 6), ("error", errno.EDQUOT, 1),
            ("error", errno.EIO, 1), ("error", errno.EINTR, 1), ("short", 0, 1), ("full", errno.ENOSPC, 2),
            ("full", errno.ENOSPC, 10 ** 6)]
    points, told, lost, ended = 0, 0, 0, 0
    for at in some(calls, few):
        for effect, number, times in ways:
            kind, path = calls[at]
            if effect in ("short", "full") and kind != "write":
                continue
            what = f"{effect} {errno.errorcode.get(number, '')} x {times} at call {at} of {len(calls)}, {kind} {path}"
            fresh(run)
            code, said = watched(run, data, effect=effect, at=at, number=number, times=times)
            assert code in (0, 4), f"{what}: exit {code}: {said}"
            if first_step <= at < last_save or effect == "short":
                assert f"step {STEPS}/{STEPS}" in said, f"{what}: training did not go on: {said}"
            if (first_step <= at < last_save - 1 and times < 3) or effect == "short":
                assert code == 0, f"{what}: exit {code}: {said}"
            if code:
                ended += 1
                assert str(run) in said and "elbo: " in said, f"{what}: the message does not name the file: {said}"
                for step in checkpoints(run):
                    if step.suffix != ".tmp":
                        elbo("info", step)
            told += "was not saved" in said or "not durable" in said or "old ones stay" in said
            lost += ROW_LOST in said
            if (run / "metrics.jsonl").exists():
                rows(run)  # no line is torn
            if effect == "short" or (number == errno.EINTR and kind == "write"):
                same(whole, bits(run), what)  # the interrupted call was carried on with
            train(run, data, given=GIVEN)
            same(weights(whole), weights(bits(run)), what)
            points += 1
    assert told and lost and ended, "no save, no row or no run failed: nothing was tested"
    return points


def check_planted(scratch, data, whole):
    run = scratch / "planted"
    code, _ = watched(run, data, effect="kill", at=120)
    assert code == -signal.SIGKILL
    train(run, data, given={**GIVEN, "seed": 2, "resume": "auto"})
    try:
        same(whole, bits(run), "planted")
    except SystemExit:
        return
    raise AssertionError("a run that went on otherwise was not told from the whole one")


def main():
    with Scratch() as scratch:
        data = corpus(scratch)
        train(scratch / "whole", data, given=GIVEN)
        whole = bits(scratch / "whole")
        half = scratch / "half"
        train(half, data, given={**GIVEN, "train.stop_after": 6})
        check_planted(scratch, data, whole)
        killed = check_killed(scratch, data, whole, None, 14)
        killed += check_killed(scratch, data, whole, half, 8)
        failing = check_failing(scratch, data, whole, 16)
    print(f"figure run_kill.points {killed}\nfigure run_kill.bad 0")
    print(f"figure run_fail.points {failing}\nfigure run_fail.bad 0")


if __name__ == "__main__":
    main()
