"""Kills or stops a rank, or cuts its connections, at a random instant of a training on four ranks. The job must restart
from its last checkpoint, end by itself, and have the bits of the undisturbed run.

  mpirun     CPU ranks over TCP, `elbo launch --max-restarts -- mpirun -n 4 elbo train`
  emulated   GPUs, `elbo launch -n 4 --max-restarts -- train`

6 instants; 50 with ELBO_TEST_FULL=1. A dead rank must be noticed within 2 s, a stopped one within parallel.timeout
plus 2 s; at most one interval of checkpoints is trained again."""
import ctypes
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import ELBO, TINY, Scratch, bits, corpus, options, same

SIM = str(pathlib.Path(ELBO).with_name("elbo-sim"))
FULL = os.environ.get("ELBO_TEST_FULL") == "1"
ATTEMPTS = 8 # Open MPI repairs some cuts by itself, more of them on a busy machine
RANKS, TIMEOUT, EVERY = 4, 3, 4
STEPS = {"mpirun": 200, "emulated": 16}
GIVEN = {**TINY, "train.slots": 4, "determinism": "world_invariant", "parallel.timeout": TIMEOUT,
         "checkpoint.every": EVERY, "train.eval_every": 0}
ENVIRONMENT = {**os.environ, "ELBO_SIM_STREAMS": "lazy", "OMPI_ALLOW_RUN_AS_ROOT": "1",
               "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
PIDFD_GETFD = 438
MPIRUN_ENDS = 4  # seconds in which mpirun may end a job that lost a rank
NOTICED = re.compile(r"ending the other|in vain|lost its connection|unexpectedly disconnected|Primary job|mpirun "
                     r"noticed|has been stopped|; restart \d+ of ")


def command(kind, run, data):
    given = options({**GIVEN, "train.steps": STEPS[kind], "device": "cpu" if kind == "mpirun" else "cuda"})
    words = ["train", f"--data.train={data}", f"--run.dir={run}", *given]
    if kind == "mpirun":
        return [ELBO, "launch", "--max-restarts=3", f"--hang-timeout={TIMEOUT}", "--", "mpirun", "--oversubscribe",
                "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo", "-n", str(RANKS), ELBO, *words]
    return [SIM, "launch", "-n", str(RANKS), "--max-restarts=3", "--", *words]


def ranks_of(run):
    """Returns the ranks' processes, by rank."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
            environment = pathlib.Path("/proc", pid, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--run.dir={run}".encode() not in words or not words[1:2] == [b"train"]:
            continue
        for word in environment:
            match = re.fullmatch(rb"(?:OMPI_COMM_WORLD_RANK|ELBO_RANK)=(\d+)", word)
            if match:
                found[int(match.group(1))] = int(pid)
    return found


def cut_connections(pid):
    """Shuts down the process's TCP connections, like a network that fails; returns their number."""
    libc, handle, cut = ctypes.CDLL(None, use_errno=True), os.pidfd_open(pid), 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        own = libc.syscall(PIDFD_GETFD, handle, int(fd), 0)
        if own < 0:
            continue
        try:
            taken = socket.socket(fileno=own)
        except OSError: # not a socket; an open duplicate could keep a lock
            os.close(own)
            continue
        try:
            with taken:
                if taken.family in (socket.AF_INET, socket.AF_INET6) and taken.getpeername():
                    taken.shutdown(socket.SHUT_RDWR)
                    cut += 1
        except OSError:
            pass
    os.close(handle)
    return cut


def disturb(kind, scratch, data, undisturbed, number, how, rng):
    run, began, hit, noticed, restarted, resumed, seen = scratch / f"{kind}-{number}", None, None, None, None, None, 0
    step = rng.randrange(2, STEPS[kind] - 3)
    with subprocess.Popen(list(map(str, command(kind, run, data))), env=ENVIRONMENT, stderr=subprocess.PIPE,
                          text=True) as job:
        said = []
        for line in job.stderr:
            said.append(line)
            match = re.search(r"step (\d+)/", line)
            if match and began is None:
                seen = int(match.group(1))
            if began is None and seen >= step:
                time.sleep(rng.random() * 0.01)
                hit = rng.randrange(RANKS)
                processes = ranks_of(run)
                if hit not in processes: # the run is already over
                    break
                began = time.monotonic()
                if how == "cut":
                    if not cut_connections(processes[hit]):
                        sys.exit(f"{kind}: rank {hit} has no connection to cut")
                else:
                    os.kill(processes[hit], signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            if began and noticed is None and NOTICED.search(line):
                noticed = time.monotonic() - began
            if began and restarted is None and re.search(r"; restart \d+ of ", line):
                restarted = time.monotonic() - began
            match = re.search(r"resuming from .*step-(\d+)", line)
            if match:
                resumed = int(match.group(1))
        rest = job.stderr.read()
        code = job.wait(timeout=60)
    said = "".join(said) + rest
    what = f"{kind}: rank {hit}, {how}, at step {seen} of {STEPS[kind]}"
    if began is None:
        sys.exit(f"{what}: nothing was disturbed:\n{said[-2000:]}")
    if code:
        sys.exit(f"{what}: exit code {code}:\n{said[-3000:]}")
    finished = how == "cut" and "sums over" in said.split("; restart ")[0]
    if finished: # MPI reconnected, and no rank noticed anything before the end
        same(undisturbed, bits(run, metrics=False), what)
        print(f"{what}: mended by itself, the same bits", flush=True)
        return False
    if noticed is None or restarted is None:
        sys.exit(f"{what}: nobody noticed:\n" + "\n".join(line for line in said.splitlines()
                                                          if not line.startswith("step"))[-3000:])
    busy = max(1, os.getloadavg()[0] / os.cpu_count())
    limit = (2 + (TIMEOUT if how != "kill" else 0)) * busy
    if noticed > limit or restarted > limit + MPIRUN_ENDS * busy:
        sys.exit(f"{what}: noticed after {noticed:.1f} s, ended after {restarted:.1f} s:\n{said[-3000:]}")
    if (resumed or 0) < seen - EVERY - 1:  # None: before the first checkpoint
        sys.exit(f"{what}: resumed from {resumed}:\n{said[-3000:]}")
    if ranks_of(run):
        sys.exit(f"{what}: ranks are left: {ranks_of(run)}")
    same(undisturbed, bits(run, metrics=False), what)
    print(f"{what}: noticed after {noticed:.2f} s, all ended after {restarted:.2f} s, resumed from {resumed}, the "
          "same bits", flush=True)
    shutil.rmtree(run)
    return True


def main():
    if not shutil.which("mpirun") or not pathlib.Path(SIM).exists():
        print("SKIP: no mpirun, or no elbo-sim")
        sys.exit(77)
    rng = random.Random(int(os.environ.get("ELBO_TEST_SEED", "1")))
    instants = [(kind, how) for how in ("kill", "stop", "cut") for kind in ("mpirun", "emulated")
                if (kind, how) != ("emulated", "cut")]
    plan = (instants * 10)[:50] if FULL else [*instants, ("mpirun", "kill")]
    with Scratch() as scratch:
        data = corpus(scratch)
        undisturbed = {}
        for kind in STEPS:
            run = scratch / f"{kind}-undisturbed"
            answer = subprocess.run(list(map(str, command(kind, run, data))), env=ENVIRONMENT, capture_output=True,
                                    text=True, check=False)
            assert answer.returncode == 0, answer.stderr
            undisturbed[kind] = bits(run, metrics=False)
        for number, (kind, how) in enumerate(plan):
            if not any(disturb(kind, scratch, data, undisturbed[kind], f"{number}-{attempt}", how, rng)
                       for attempt in range(ATTEMPTS)):
                sys.exit(f"{kind}, {how}: mended by itself {ATTEMPTS} times, so nobody was seen to notice")
    print(f"{len(plan)} ranks were lost: every run ended with the bits of the undisturbed one")
    sys.exit(0)


if __name__ == "__main__":
    main()
