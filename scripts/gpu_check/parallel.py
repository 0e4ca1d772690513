"""Parts `parallel` and `sharing`: the cost of collectives for a single rank, and ranks that share the one GPU."""
import ctypes
import hashlib
import json
import pathlib
import shutil
import statistics
import sys
import tempfile

from gpu_check.inputs import bench_options, same_lengths
from gpu_check.steps import offers, program_environment


def alone_train(check, corpus, folder, precision, level, always, turn, steps):
    """Trains a single rank with gradients summed through NCCL, or not summed. Returns the seconds of each step after
    the first ten, and the hash of the final weights."""
    run, sentences = folder / f"alone-{precision}-{level}-{always}-{turn}", check.sizes["sentences"][0]
    options = [*bench_options(check, corpus, sentences, precision), f"--run.dir={run}", f"--train.steps={steps}",
               "--log.every=1", "--checkpoint.keep=1", f"--parallel.always={always}", f"--determinism={level}"]
    if check.run(f"one rank, {precision}, {level}, {'through NCCL' if always else 'without'}, {turn}",
                 [check.device_elbo, "train", *options], 60, quiet=True) is None:
        return None
    seconds = [json.loads(line)["wall"]["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()
               if "loss" in line]
    weights = hashlib.sha256(
        (next((run / "checkpoints").glob("step-*")) / "model.safetensors").read_bytes()).hexdigest()
    shutil.rmtree(run)
    return [b - a for a, b in zip(seconds[10:], seconds[11:])], weights


def alone(check, corpus, folder, precision, level, turns, steps):
    """Notes the cost of NCCL for a single rank within captured steps, as the ratio of the medians, and demands the same
    bits unless determinism is fast."""
    found = {0: [], 1: []}
    for turn in range(turns):
        for always in found:
            found[always].append(alone_train(check, corpus, folder, precision, level, always, turn, steps))
    if check.given.dry_run or not all(found[0] + found[1]):
        return
    medians = {always: statistics.median(s for seconds, _ in runs for s in seconds) for always, runs in found.items()}
    same = len({weights for runs in found.values() for _, weights in runs}) == 1
    check.note(f"one rank through NCCL, {precision}, {level}", "ok" if same or level == "fast" else "failed",
               f"{medians[1] / medians[0]:.4f} of the time without"
               + (f", {'the same' if same else 'other'} bits" if level != "fast" else ""), 0,
               steps={str(k): [seconds for seconds, _ in runs] for k, runs in found.items()})


def parallel(check):
    check.needs(check.elbo, check.device_elbo)
    out = check.run("elbo bench collectives", [check.device_elbo, "bench", "collectives", "--device=cuda",
                                               "--parallel.always=1", "--json"], 60,
                    quiet=True)
    if out is not None:
        found = json.loads(out)
        check.note("elbo bench collectives", "ok", "one rank, which sends nothing: what the calls themselves take", 0,
                   **found)
        check.tables.append(["| bytes | in order, us | any order, us |", "|---|---|---|",
                             *(f"| {r['bytes']} | {r['ordered_seconds'] * 1e6:.1f} | "
                               f"{r['any_order_seconds'] * 1e6:.1f} |" for r in found["sizes"])])
    with tempfile.TemporaryDirectory() as scratch:
        folder, few = pathlib.Path(scratch), min(14, check.sizes["alone"])
        corpus = same_lengths(check, folder) if not check.given.dry_run else pathlib.Path("CORPUS")
        if not corpus:
            return
        if offers(check.device_elbo, "bench", "precision"):
            alone(check, corpus, folder, "bf16", "run_to_run", 3, check.sizes["alone"])
            alone(check, corpus, folder, "bf16", "fast", 3, check.sizes["alone"])
        alone(check, corpus, folder, "f32", "world_invariant", 1, few)


def nccl_version():
    """Returns the version as an integer, such as 23007 for 2.30.7; zero without NCCL."""
    try:
        found = ctypes.c_int(0)
        ctypes.CDLL("libnccl.so.2").ncclGetVersion(ctypes.byref(found))
        return found.value
    except (OSError, AttributeError):
        return 0


def sharing(check):
    """Runs several ranks on the one GPU. NCCL carries their messages, and their kernels take turns."""
    version = nccl_version()
    if version < 23000 and not check.given.emulate and not check.given.dry_run:
        check.note("ranks that share the GPU", "missing",
                   f"NCCL is {version}, and 23000 lets them; put such a one into LD_LIBRARY_PATH")
        return
    environment = {**program_environment(check), "ELBO_TEST_DEVICE": "cuda" if check.given.emulate else "cuda:0",
                   "NCCL_MULTI_RANK_GPU_ENABLE": "1"}
    for name in ("killed", "stopped", "f32", "bf16", "levels"):
        check.run(f"ranks that share the GPU, NCCL {version}, {name}",
                  [sys.executable, "tests/job/test_devices.py", name], 70, **environment)
