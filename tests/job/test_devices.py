"""Trains on several emulated GPUs, a process each, with NCCL's stand-in between them; NCCL's id comes through the
meeting or through mpirun.

  world_invariant   f32 and bf16, with all noise: 5 steps have the same bits on one, two and three ranks (and on four
                    and eight with ELBO_TEST_FULL=1); also stopped on two ranks and resumed on one
  ways              z as prefix rows and as residuals after blocks: the same bits on one, two and three ranks
  fast, run_to_run  two ranks: the losses of one rank within 1e-4
  trace             in the captured graph of a step every bucket but the last is summed before the backward pass ends
  alone             one rank through NCCL (parallel.always): the bits of one rank without NCCL, in captured graphs too
  failures          a rank is killed: the other ends with exit code 10 and a message within 2 s, also when NCCL notices
                    nothing; a rank is stopped: within parallel.timeout

Arguments name the checks to run. ELBO_TEST_DEVICE=cuda:0: the ranks share a real GPU, which NCCL 2.30 allows with
NCCL_MULTI_RANK_GPU_ENABLE=1; traces of the emulated GPU are not checked then.
"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import ELBO, TINY, Scratch, bits, corpus, options, rows, same

SIM = os.environ.get("ELBO_CUDA", str(pathlib.Path(ELBO).with_name("elbo-sim")))
DEVICE = os.environ.get("ELBO_TEST_DEVICE", "cuda")
EMULATED = DEVICE == "cuda"
FULL = os.environ.get("ELBO_TEST_FULL") == "1"
PEER, TIMEOUT = 10, 30
GIVEN = {**TINY, "device": DEVICE, "train.slots": 8 if FULL else 3, "train.steps": 5, "train.eval_every": 0,
         "checkpoint.every": 0, "determinism": "world_invariant", "parallel.timeout": TIMEOUT,
         "parallel.check_every": 2, "parallel.bucket": 0.02, "encoder.width": 16,
         "decoder.width": 16}
ENVIRONMENT = {**os.environ, "ELBO_SIM_STREAMS": "lazy", "OMPI_ALLOW_RUN_AS_ROOT": "1",
               "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(ranks, run, data, given=None, environment=None):
    """Starts the ranks with torchrun's variables."""
    words = [SIM, "train", f"--data.train={data}", f"--run.dir={run}", *options({**GIVEN, **(given or {})})]
    port, jobs = str(free_port()), []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
               "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
               "TORCHELASTIC_RUN_ID": f"elbo-test-{port}", "ELBO_SECRET": f"a secret of {port}"}
        jobs.append(subprocess.Popen(list(map(str, words)),
                                     env={**ENVIRONMENT, **(environment or {}), **(own if ranks > 1 else {})},
                                     stderr=subprocess.PIPE, text=True))
    return jobs


def train(ranks, run, data, given=None):
    jobs = start(ranks, run, data, given)
    for rank, job in enumerate(jobs):
        try:
            said = job.communicate(timeout=100)[1]
        except subprocess.TimeoutExpired:
            for each in jobs:
                each.kill() # a rank that waits for its device ignores other signals
            sys.exit(f"rank {rank} of {ranks} did not end:\n{job.communicate()[1][-3000:]}")
        if job.returncode:
            sys.exit(f"rank {rank} of {ranks} ended with {job.returncode}:\n{said[-3000:]}")


def check_bits(scratch, data, precision):
    given = {"precision": precision, "optimizer.moments": precision}
    train(1, scratch / f"{precision}-1", data, given)
    whole = bits(scratch / f"{precision}-1")
    for ranks in (2, 3, 4, 8) if FULL else (2, 3):
        train(ranks, scratch / f"{precision}-{ranks}", data, given)
        same(whole, bits(scratch / f"{precision}-{ranks}"), f"{precision} on {ranks} ranks")
    for ranks in (2, 3): # with several slots per rank, and with one where the slots allow
        train(ranks, scratch / f"{precision}-zero-{ranks}", data, {**given, "parallel.zero": 1})
        same(whole, bits(scratch / f"{precision}-zero-{ranks}"), f"{precision}, ZeRO on {ranks} ranks")
    train(2, scratch / f"{precision}-moved", data, {**given, "train.stop_after": 2})
    train(1, scratch / f"{precision}-moved", data, given)
    same(whole, bits(scratch / f"{precision}-moved"), f"{precision}, stopped on two ranks and resumed on one")


def check_ways(scratch, data):
    """Injects prefix rows before sentences and residuals after blocks; the slots of the ranks have different
    padding."""
    given = {"latent.injection": "prefix,residual", "latent.prefix": 3, "train.slot_tokens": 40}
    train(1, scratch / "ways-1", data, given)
    for ranks in (2, 3):
        train(ranks, scratch / f"ways-{ranks}", data, given)
        same(bits(scratch / "ways-1"), bits(scratch / f"ways-{ranks}"), f"{given['latent.injection']}, {ranks} ranks")


def check_mpirun(scratch, data):
    if not shutil.which("mpirun"):
        return
    run = scratch / "mpirun"
    words = ["mpirun", "--oversubscribe", "-n", "2", SIM, "train", f"--data.train={data}", f"--run.dir={run}",
             *options({**GIVEN, "precision": "f32", "optimizer.moments": "f32"})]
    answer = subprocess.run(list(map(str, words)), env=ENVIRONMENT, capture_output=True, text=True, check=False,
                            timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "through NCCL" in answer.stderr, answer.stderr
    same(bits(scratch / "f32-1"), bits(run), "two ranks under mpirun")


def check_levels(scratch, data):
    train(1, scratch / "alone", data, {"determinism": "run_to_run"})
    alone = [row["loss"] for row in rows(scratch / "alone") if "loss" in row]
    for level in ("fast", "run_to_run"):
        train(2, scratch / level, data, {"determinism": level})
        losses = [row["loss"] for row in rows(scratch / level) if "loss" in row]
        worst = max(abs(a - b) / abs(a) for a, b in zip(alone, losses))
        assert len(losses) == len(alone) == 5 and worst <= 1e-4, f"{level}: losses are off by {worst:.1e}"


def check_trace(scratch, data):
    environment = {"ELBO_SIM_STREAMS": "", "ELBO_SIM_TRACE": str(scratch / "trace")}
    jobs = start(2, scratch / "traced", data, {"train.steps": 12}, environment)
    said = [job.communicate(timeout=300)[1] for job in jobs]
    assert all(job.returncode == 0 for job in jobs), said
    buckets, replayed = int(re.search(r"sums over 2 ranks: (\d+) buckets", said[0]).group(1)), 0
    assert buckets > 5, buckets
    for path in scratch.glob("trace.*"):
        for step in re.split(r"(?:adamw_kernel replayed\n)+", path.read_text())[1:-1]:
            lines = step.splitlines()
            ends = [i for i, line in enumerate(lines) if line == "embedding_backward_kernel replayed"]
            sums = [i < ends[-1] for i, line in enumerate(lines) if line == "nccl replayed" and ends]
            if not sums: # not replayed: the first or second slot of its size
                continue
            replayed += 1
            # The last kernel gives the gradients of the token table and of the mark beside it.
            assert sums == [True] * 2 * (buckets - 2) + [False] * 4, \
                f"{buckets} buckets, of whose sums {sums.count(False)} were left"
    assert replayed > 2, replayed


def check_alone(scratch, data):
    for level in ("fast", "run_to_run", "world_invariant"):
        given = {"determinism": level, "train.steps": 12}
        train(1, scratch / f"without-{level}", data, given)
        trace = scratch / f"alone-{level}.trace"
        job, = start(1, scratch / f"with-{level}", data, {**given, "parallel.always": 1},
                     {"ELBO_SIM_TRACE": str(trace)})
        said = job.communicate(timeout=300)[1]
        assert job.returncode == 0 and "through NCCL" in said, said[-2000:]
        same(bits(scratch / f"without-{level}"), bits(scratch / f"with-{level}"), f"one rank through NCCL, {level}")
        if EMULATED:
            text = next(scratch.glob(f"{trace.name}.*")).read_text()
            assert text.count("nccl replayed") > 20, text[-1000:]


def check_failure(scratch, data, number, seconds, environment=None):
    """Sends a signal to rank 1 in the middle of a long run; rank 0 must report the loss and end."""
    timeout = 5
    run = pathlib.Path(tempfile.mkdtemp(dir=scratch)) / "run"
    jobs = start(2, run, data, {"train.steps": 100000, "parallel.timeout": timeout}, environment)
    for line in jobs[0].stderr:
        if line.startswith("step 3/"):
            break
    os.kill(jobs[1].pid, number)
    if number == signal.SIGKILL:
        jobs[1].wait()
    began = time.monotonic()
    try:
        said = jobs[0].communicate(timeout=60)[1]
        took = time.monotonic() - began
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    assert jobs[0].returncode == PEER, f"exit code {jobs[0].returncode}: {said[-2000:]}"
    # A busy machine is slower.
    limit = (seconds + timeout * (number == signal.SIGSTOP)) * max(1, os.getloadavg()[0] / os.cpu_count())
    assert took <= limit, f"{took:.1f} s, at most {limit:.1f}"
    assert "start again to go on from the last checkpoint" in said.lower(), said[-2000:]


def main():
    if not pathlib.Path(SIM).exists():
        print(f"SKIP: no {SIM}")
        sys.exit(77)
    named = sys.argv[1:] or ["f32", "bf16", "ways", "mpirun", "levels", "trace", "alone", "killed", "deaf", "stopped"]
    with Scratch() as scratch:
        data = corpus(scratch)
        checks = {"f32": lambda: check_bits(scratch, data, "f32"), "bf16": lambda: check_bits(scratch, data, "bf16"),
                  "ways": lambda: check_ways(scratch, data),
                  "mpirun": lambda: check_mpirun(scratch, data), "levels": lambda: check_levels(scratch, data),
                  "trace": lambda: check_trace(scratch, data), "alone": lambda: check_alone(scratch, data),
                  "killed": lambda: check_failure(scratch, data, signal.SIGKILL, 2),
                  "deaf": lambda: check_failure(scratch, data, signal.SIGKILL, 2, {"ELBO_SIM_DEAF": "1"}),
                  "stopped": lambda: check_failure(scratch, data, signal.SIGSTOP, 2)}
        for name in named:
            checks[name]()
    print(f"ranks of {'emulated GPUs' if EMULATED else 'one GPU'}: {', '.join(named)}: as wanted")
    sys.exit(0)


if __name__ == "__main__":
    main()
