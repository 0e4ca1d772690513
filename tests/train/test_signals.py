"""Runs that are interrupted from outside end with the bits of a run that was not.

  SIGTERM, SIGINT, SIGUSR1, SIGHUP   the step is finished, all is saved, the exit code is 9, and the same command
                                     completes the run
  SIGHUP under nohup                 ignored
  SIGKILL                            the run goes on from the last checkpoint; rows of metrics after it are written
                                     again
  busy                               a second process on the same run is refused with exit code 6 and the first one's id
  readers                            a run can be read at any moment while checkpoints come and go
  a corpus cut short                 the run is saved before it ends with the error"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from runs import ELBO, Scratch, bits, checkpoints, corpus, options, rows, same, train, TINY

# Long enough for signals to arrive inside.
LONG = {"train.steps": 1500, "checkpoint.every": 250, "train.eval_every": 400}


def start(run, data, given=None):
    words = [ELBO, "train", f"--data.train={data}", f"--data.valid={data}", f"--run.dir={run}",
             *options({**TINY, **(given or LONG)})]
    said = open(run.with_suffix(".said"), "w+", encoding="utf-8")  # not a pipe, because nobody reads meanwhile
    process = subprocess.Popen(words, stderr=said)
    process.said = said
    return process


def end(process):
    """Returns the output after the process has ended."""
    process.wait(timeout=30)
    process.said.seek(0)
    with process.said as said:
        return said.read()


def wait_for(process, run, step):
    """Waits until the run has logged that step."""
    metrics, late = run / "metrics.jsonl", time.monotonic() + 30
    while time.monotonic() < late:
        if process.poll() is not None:
            sys.exit(f"the run ended too early, with {process.returncode}: {end(process)}")
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.002)
    sys.exit(f"step {step} never came")


def check_signal(scratch, data, whole, number, at):
    run = scratch / number.name
    process = start(run, data)
    wait_for(process, run, at)
    process.send_signal(number)
    said = end(process)
    assert process.returncode == 9, (number, process.returncode, said)
    last = checkpoints(run)[-1]
    step = int(last.name[5:])
    assert at <= step < LONG["train.steps"] and step == rows(run)[-1]["step"], (at, step)
    message = said.splitlines()[-1]
    assert f"after step {step}" in message and "the same command goes on" in message, message
    train(run, data, given=LONG)
    same(whole, bits(run), f"stopped by {number.name} after step {step}")


def check_twice(scratch, data, whole):
    """Two signals in one run, the second in the resumed part."""
    run = scratch / "twice"
    for number, at in ((signal.SIGTERM, 60), (signal.SIGINT, 700)):
        process = start(run, data)
        wait_for(process, run, at)
        process.send_signal(number)
        end(process)
        assert process.returncode == 9
    train(run, data, given=LONG)
    same(whole, bits(run), "stopped twice")


def check_killed(scratch, data, whole):
    for at in (20, 300, 800):  # before the first checkpoint, and after it
        run = scratch / f"killed-{at}"
        process = start(run, data)
        wait_for(process, run, at)
        process.kill()
        end(process)
        assert process.returncode == -signal.SIGKILL
        saved = [int(path.name[5:]) for path in checkpoints(run) if path.suffix != ".tmp"]
        assert bool(saved) == (at > 250), (at, saved)
        said = train(run, data, given=LONG).stderr
        assert ("resuming from" in said) == bool(saved)
        same(whole, bits(run), f"killed at step {at}")


def check_nohup(scratch, data, whole):
    """A SIGHUP that was ignored before the program began stays ignored."""
    run = scratch / "nohup"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = start(run, data)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    wait_for(process, run, 40)
    process.send_signal(signal.SIGHUP)
    said = end(process)
    assert process.returncode == 0, said
    same(whole, bits(run), "under nohup")


def check_readers(scratch, data):
    run = scratch / "read"
    often = {**TINY, **LONG, "train.steps": 500, "checkpoint.every": 1, "checkpoint.keep": 1, "train.eval_every": 0,
             "log.every": 500}
    with open(scratch / "read.said", "w", encoding="utf-8") as said:
        process = subprocess.Popen([ELBO, "train", f"--data.train={data}", f"--run.dir={run}", *options(often)],
                                   stderr=said)
    while process.poll() is None and not (run / "checkpoints" / "latest").exists():
        time.sleep(0.002)
    used = 0
    while process.poll() is None:
        answer = subprocess.run([ELBO, "sample", run, "--count=1", "--max_length=2"], capture_output=True, text=True,
                                check=False)
        assert answer.returncode == 0 and not answer.stderr, f"after {used} readers: {answer.stderr}"
        used += 1
    assert process.returncode == 0 and used >= 5, used
    print(f"{used} readers beside a run that replaced its checkpoint 500 times")


def check_cut_corpus(scratch, data):
    """The file shrinks during the run: an error names it, and no step is lost."""
    copy, run = scratch / "shrinks", scratch / "cut"
    shutil.copytree(data, copy)
    process = start(run, copy, {**LONG, "train.steps": 10 ** 7, "train.eval_every": 0, "checkpoint.every": 0,
                                "log.every": 20})
    wait_for(process, run, 3)
    os.truncate(copy / "corpus.bin", 100)
    said = end(process)
    last = checkpoints(run)[-1]
    step = int(last.name[5:])
    assert process.returncode in (3, 4) and "corpus.bin" in said and f"step {step} is saved in {run}" in said, said
    assert step == json.loads((last / "manifest.json").read_text())["counters"]["draws"] and step >= 60


def check_busy(scratch, data):
    run = scratch / "busy"
    process = start(run, data)
    wait_for(process, run, 10)
    process.send_signal(signal.SIGSTOP)
    try:
        said = train(run, data, code=6, given=LONG).stderr
        assert f"process {process.pid}" in said and "in use" in said and "--run.dir" in said, said
    finally:
        process.kill()
        end(process)


def main():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the caller of the tests may ignore SIGHUP
    with Scratch() as scratch:
        data = corpus(scratch)
        train(scratch / "whole", data, given=LONG)
        whole = bits(scratch / "whole")
        for number, at in ((signal.SIGTERM, 40), (signal.SIGINT, 200), (signal.SIGUSR1, 600), (signal.SIGHUP, 500)):
            check_signal(scratch, data, whole, number, at)
        check_twice(scratch, data, whole)
        check_killed(scratch, data, whole)
        check_busy(scratch, data)
        check_nohup(scratch, data, whole)
        check_readers(scratch, data)
        check_cut_corpus(scratch, data)
    print("interrupted runs end with the same bits")
    sys.exit(0)


if __name__ == "__main__":
    main()
