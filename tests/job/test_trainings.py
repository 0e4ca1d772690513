"""Compares trainings on several CPU ranks under mpirun with those on one rank.

  world_invariant   1, 2, 3, 4 and 8 ranks, 100 steps, with all noise: weights, moments, counters and rows have the same
                    bits; also when stopped on one number of ranks and resumed on another
  statistics        a controller of beta, batch normalization and rates of a slot on 1, 2 and 4 ranks, and resumed: the
                    same bits
  ZeRO              the same bits as with whole moments; checkpoints move between both; the moments take a quarter of
                    the memory on four ranks, within 2 % of the plan
  run_to_run, fast  4 ranks: the losses of one rank within 1e-4; run_to_run twice: the same bits
  decisions         a NaN on one rank: every rank skips the step, like --train.skip; a signal to one rank stops all
                    after the same step, saved; different options and too few slots or lanes are refused with a message
  replicas          a weight that changes on one rank is found, and the rank and the tensor are named
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import ELBO, MPI, TINY, Scratch, bits, checkpoints, corpus, differ, options, ranks_command, rows, same

GIVEN = {**TINY, "train.slots": 8, "train.steps": 100, "determinism": "world_invariant", "parallel.timeout": 20,
         # Buckets of two blocks, so that there are several.
         "device": "cpu", "train.eval_every": 33, "checkpoint.every": 27, "parallel.check_every": 10,
         "parallel.bucket": 0.008}


def command(ranks, run, data, given=None):
    return ranks_command(ranks, "train", f"--data.train={data}", f"--data.valid={data}", f"--run.dir={run}",
                         *options({**GIVEN, **(given or {})}))


def train(ranks, run, data, given=None, code=0, env=None, prefix=()):
    words = command(ranks, run, data, given)
    answer = subprocess.run([*prefix, *words], env={**MPI, **(env or {})}, capture_output=True, text=True, check=False,
                            timeout=300)
    if code is not None and answer.returncode != code:
        sys.exit(f"{' '.join(map(str, words))}\nended with {answer.returncode}, not {code}:\n{answer.stderr[-3000:]}")
    return answer


def check_world_invariant(scratch, data):
    train(1, scratch / "one", data)
    whole = bits(scratch / "one")
    for ranks in (2, 3, 4, 8):
        train(ranks, scratch / f"on-{ranks}", data, {"parallel.bucket": 0.004 * 2 ** ranks}) # 8: one bucket
        same(whole, bits(scratch / f"on-{ranks}"), f"{ranks} ranks")
    train(1, scratch / "lanes", data, {"parallel.lanes": 4})
    differ(whole, bits(scratch / "lanes"), "another number of lanes")
    moved = scratch / "moved"
    for ranks, stop in ((4, 13), (1, 30), (3, 55), (8, 80), (2, 0)):
        train(ranks, moved, data, {"train.stop_after": stop})
    same(whole, bits(moved), "resumed on 4, 1, 3, 8 and 2 ranks")
    return whole


def check_zero(scratch, data, whole):
    """Each rank keeps its share of the moments. The bits are the same, whatever sharding wrote and read the
    checkpoints."""
    for ranks in (2, 3, 4):
        train(ranks, scratch / f"zero-{ranks}", data, {"parallel.zero": 1})
        same(whole, bits(scratch / f"zero-{ranks}"), f"ZeRO on {ranks} ranks")
    moved = scratch / "zero-moved"
    for ranks, zero, stop in ((4, 1, 13), (1, 1, 30), (3, 1, 55), (3, 0, 80), (2, 1, 0)):
        train(ranks, moved, data, {"train.stop_after": stop, "parallel.zero": zero})
    same(whole, bits(moved), "resumed with shared and whole moments on 4, 1, 3, 3 and 2 ranks")
    for given in ({"optimizer.kind": "sgd"}, {"optimizer.moments": "bf16"}, {"optimizer.encoder_factor": 0}):
        name = "-".join(map(str, next(iter(given.items()))))
        train(1, scratch / f"{name}-1", data, {**given, "train.steps": 30})
        train(3, scratch / f"{name}-3", data, {**given, "train.steps": 30, "parallel.zero": 1})
        same(bits(scratch / f"{name}-1"), bits(scratch / f"{name}-3"), f"ZeRO with {given}")


def check_statistics(scratch, data):
    """State that steps change on the device besides the weights: a controller's state and running statistics."""
    moved = {"train.steps": 40, "objective.free_bits": 0, "train.eval_every": 20, "objective.dropped_mark": "own",
             "objective.denoise_drop": 0.2, "objective.denoise_swap": 0.2}
    kinds = {"normalized": {**moved, "latent.normalize": "batch", "objective.target_kl": 2, "objective.ki": 0.05},
             "rated": {**moved, "latent.kind": "slashed", "objective.rate": 6, "objective.rate_scope": "slot",
                       "objective.bow": 0.5, "parallel.zero": 1}}
    kinds["rated"].pop("objective.free_bits")
    for name, given in kinds.items():
        train(1, scratch / f"{name}-1", data, {key: value for key, value in given.items() if key != "parallel.zero"})
        whole = bits(scratch / f"{name}-1")
        for ranks in (2, 4):
            train(ranks, scratch / f"{name}-{ranks}", data, given)
            same(whole, bits(scratch / f"{name}-{ranks}"), f"{name} on {ranks} ranks")
        for ranks, stop in ((4, 11), (1, 25), (2, 0)):
            train(ranks, scratch / f"{name}-moved", data, {**given, "train.stop_after": stop})
        same(whole, bits(scratch / f"{name}-moved"), f"{name} resumed on 4, 1 and 2 ranks")


def check_zero_memory(scratch, data):
    wide = {"encoder.width": 768, "decoder.width": 768, "encoder.ff_width": 3072, "decoder.ff_width": 3072,
            "train.slots": 4, "train.steps": 3, "train.eval_every": 0, "checkpoint.every": 0, "parallel.check_every": 0,
            "parallel.bucket": 8}
    planned, measured = [], []
    for zero in (0, 1):
        given = {**wide, "parallel.zero": zero}
        words = [ELBO, "plan", "--json", "--parallel.ranks=4", f"--data.train={data}",
                 *options({k: v for k, v in {**GIVEN, **given}.items()
                           if k not in ("parallel.timeout", "parallel.check_every")})]
        planned.append(json.loads(subprocess.run(list(map(str, words)), capture_output=True, check=True).stdout)[
            "bytes"]["optimizer"] / 2 ** 20)
        train(4, scratch / f"wide-{zero}", data, given)
        lines = (scratch / f"wide-{zero}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        measured.append([row["wall"]["memory_mib"] for row in map(json.loads, lines) if "loss" in row][-1])
    saved, expected = measured[0] - measured[1], planned[0] - planned[1]
    print(f"moments of {planned[0]:.1f} MiB, of a quarter {planned[1]:.1f} MiB as planned; a rank has {saved:.1f} MiB "
          f"less, {expected:.1f} planned")
    assert planned[0] > 100 and abs(planned[1] / planned[0] * 4 - 1) <= 0.02, planned
    assert abs(saved - expected) <= 0.02 * planned[1], (measured, planned)


def check_levels(scratch, data):
    level = {"determinism": "run_to_run"}
    train(1, scratch / "alone", data, level)
    alone = [row["loss"] for row in rows(scratch / "alone") if "loss" in row]
    for name in ("run_to_run", "again", "fast"):
        train(4, scratch / name, data, {"determinism": "fast" if name == "fast" else "run_to_run"})
        losses = [row["loss"] for row in rows(scratch / name) if "loss" in row]
        worst = max(abs(a - b) / abs(a) for a, b in zip(alone, losses))
        assert len(losses) == len(alone) == 100 and worst <= 1e-4, f"{name}: losses are off by {worst:.1e}"
        print(f"{name}, 4 ranks: losses within {worst:.1e} of one rank's")
    same(bits(scratch / "run_to_run"), bits(scratch / "again"), "run_to_run twice")


def check_not_finite(scratch, data):
    """Rank 1 sends a NaN among the gradients of step 7; the result must be that of skipping the update."""
    preload = {"LD_PRELOAD": str(
        pathlib.Path(os.environ.get("ELBO_TESTS", pathlib.Path(ELBO).parent / "tests")) / "job_preload_nan.so")}
    shell = 'LD_PRELOAD="$ELBO_TEST_PRELOAD" exec "$@"' # preloads into the ranks only, not into mpirun
    run, step, steps = scratch / "nan", 7, 20

    def preloaded(to, nan):
        words = command(2, to, data, {"train.steps": steps})
        environment = {**MPI, "ASAN_OPTIONS": MPI.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
                       "ELBO_TEST_NAN": str(nan), "ELBO_TEST_PRELOAD": preload["LD_PRELOAD"],
                       "ELBO_TEST_SENT": str(scratch / "sent")}
        answer = subprocess.run([*words[:4], "sh", "-c", shell, "sh", *words[4:]], env=environment, capture_output=True,
                                text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return int((scratch / "sent").read_text())

    sent = preloaded(scratch / "counted", 0)
    assert sent % steps == 0, sent
    preloaded(run, 1 + (step - 1) * sent // steps)
    skipped = [row["step"] for row in rows(run) if row.get("skipped")]
    assert skipped == [step], f"skipped {skipped}"
    train(1, scratch / "left-out", data, {"train.steps": 20, "train.skip": step})
    same(bits(scratch / "left-out", metrics=False), bits(run, metrics=False), "a NaN on one rank")


def check_refused(scratch, data):
    few = train(4, scratch / "few", data, {"train.slots": 3, "parallel.lanes": 3}, code=2).stderr
    assert "train.slots = 3 are fewer than the 4 ranks" in few, few
    lanes = train(4, scratch / "few", data, {"parallel.lanes": 2}, code=2).stderr
    assert "2 lanes are fewer than the 4 ranks" in lanes, lanes
    shell = 'exec "$@" --seed=$((1 + OMPI_COMM_WORLD_RANK))'
    words = command(2, scratch / "other", data)
    answer = subprocess.run([*words[:4], "sh", "-c", shell, "sh", *words[4:]], env=MPI, capture_output=True, text=True,
                            check=False)
    assert answer.returncode == 2 and "rank 1 was started with other options" in answer.stderr, answer.stderr
    absent = train(2, scratch / "absent", scratch / "nowhere", code=4).stderr
    assert "nowhere is not there" in absent, absent


def check_signal(scratch, data, whole):
    """SIGUSR1 reaches only one rank; both must stop after the same step, saved."""
    run = scratch / "signalled"
    with subprocess.Popen(command(2, run, data, {"train.steps": 100}), env=MPI, stderr=subprocess.PIPE,
                          text=True) as job:
        for line in job.stderr:
            if "step 5/" in line:
                break
        ranks = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_rank(pid, run, "1")]
        os.kill(int(ranks[0]), signal.SIGUSR1)
        job.stderr.read()
        code = job.wait(timeout=60)
    assert code == 9, f"exit code {code}"
    stopped = int(checkpoints(run)[-1].name[5:])
    assert 5 <= stopped < 100, stopped
    train(2, run, data)
    same(whole, bits(run), f"stopped by a signal to rank 1 after step {stopped}")


def tensor_of(path, prefix):
    """Returns name and bytes of the largest tensor of a safetensors file whose name begins with `prefix`."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    found = {name: about["data_offsets"] for name, about in json.loads(data[8:8 + length]).items()
             if name.startswith(prefix)}
    name = max(found, key=lambda n: found[n][1] - found[n][0])
    return name, data[8 + length + found[name][0]:8 + length + found[name][1]]


def flip_in_memory(pid, pattern):
    """Flips a bit of the first copy of the pattern in each area of a process's memory; returns the number of flips."""
    flipped = 0
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            area, rights = line.split()[:2]
            begin, end = (int(part, 16) for part in area.split("-"))
            if not rights.startswith("rw"):
                continue
            try:
                memory.seek(begin)
                at = memory.read(end - begin).find(pattern)
            except (OSError, OverflowError):
                continue
            if at >= 0:
                memory.seek(begin + at)
                memory.write(bytes([pattern[0] ^ 1]))
                flipped += 1
    return flipped


def check_drift(scratch, data):
    """Flips a bit of a frozen weight on rank 1; the next comparison must name the rank and the tensor."""
    run = scratch / "drift"
    given = {"train.steps": 1000000, "optimizer.encoder_factor": 0, "encoder.share_embedding": "false",
             "checkpoint.every": 20}
    with subprocess.Popen(command(2, run, data, given), env=MPI, stderr=subprocess.PIPE, text=True) as job:
        for line in job.stderr:
            if "step 25/" in line:
                break
        name, content = tensor_of(checkpoints(run)[-1] / "model.safetensors", "encoder.")
        ranks = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_rank(pid, run, "1")]
        flipped = flip_in_memory(ranks[0], content)
        said = job.stderr.read()
        code = job.wait(timeout=60)
    assert flipped, f"{name} is not in the memory of rank 1"
    assert code == 10 and f"rank 1 no longer has rank 0's weights: {name} differs" in said, \
        f"exit code {code}: {said[-3000:]}"


def is_rank(pid, run, rank):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read().split(b"\0")
    except OSError:
        return False
    return f"--run.dir={run}".encode() in words and words[0].endswith(b"elbo") \
        and f"OMPI_COMM_WORLD_RANK={rank}".encode() in environ


def main():
    if not shutil.which("mpirun"):
        print("SKIP: no mpirun")
        sys.exit(77)
    began = time.monotonic()
    with Scratch() as scratch:
        data = corpus(scratch)
        whole = check_world_invariant(scratch, data)
        check_zero(scratch, data, whole)
        check_statistics(scratch, data)
        check_zero_memory(scratch, data)
        check_levels(scratch, data)
        check_not_finite(scratch, data)
        check_refused(scratch, data)
        check_signal(scratch, data, whole)
        check_drift(scratch, data)
    print(f"trainings on 1, 2, 3, 4 and 8 ranks: the same bits ({time.monotonic() - began:.0f} s)")
    sys.exit(0)


if __name__ == "__main__":
    main()
