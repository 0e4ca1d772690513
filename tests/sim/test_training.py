"""Whole trainings on the emulated GPU against the CPU: the CUDA backend's host code, its kernels and its products. 20
steps of a tiny VAE with every injection, both block families, both recurrent families, dropout and noise. Losses agree
(tests/tolerances.h) in f32, in bf16 and with moments in bf16. In three warp orders the checkpoints are identical bytes,
and a run resumes on the other backend."""
import json
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
import runs  # noqa: E402

TOLERANCE = {name: float(value) for name, value in
             re.findall(r"X\((\w+), ([0-9.e-]+),",
                        (pathlib.Path(__file__).resolve().parents[1] / "tolerances.h").read_text())}
SIM = os.environ.get("ELBO_CUDA", str(pathlib.Path(runs.ELBO).with_name("elbo-sim"))) # scripts/gpu-check: a real device
DIVERGED = 7
WIDE = {"encoder.width": 16, "decoder.width": 16, "train.steps": 20, "train.eval_every": 0, "checkpoint.every": 0}
# With two sentences, deviations would amplify the last digit.
MORE = {"train.slot_tokens": 80, "train.slots": 2}
VARIANTS = {
    "both": {},
    "memory": {"latent.injection": "memory", "latent.memory": 2, "decoder.tie_output": "false"},
    "embedding": {"latent.injection": "embedding", "encoder.pooling": "attention", "train.recompute": "block"},
    "residual": {"latent.injection": "residual", "decoder.layers": 3, "train.recompute": "block"},
    "prefix": {"latent.injection": "embedding,prefix", "latent.prefix": 3, "objective.bow": 0.3,
               "train.slot_tokens": 40},
    "llama": {"encoder.norm": "rmsnorm", "decoder.norm": "rmsnorm", "decoder.positions": "rotary",
              "encoder.positions": "rotary", "decoder.activation": "swiglu", "encoder.activation": "swiglu",
              "decoder.kv_heads": 1},
    "post": {"decoder.norm_position": "post", "encoder.norm_position": "post", "encoder.share_embedding": "false",
             "encoder.pooling": "last", "optimizer.kind": "sgd", "optimizer.learning_rate": 0.05,
             "objective.denoise_blank": 0.1},
    "none": {"latent.kind": "none"},
    "lstm": {"encoder.kind": "lstm", "decoder.kind": "lstm", "encoder.bidirectional": "true", "encoder.pooling": "last",
             "latent.init_tanh": "true", "train.recompute": "cheap"},
    "gru": {"encoder.kind": "gru", "decoder.kind": "gru", "encoder.residual": "true", "decoder.residual": "true",
            "encoder.layers": 2, "decoder.layers": 2, "decoder.embedding_width": 8, "encoder.share_embedding": "false",
            "decoder.tie_output": "false", "latent.injection": "concat"},
    "normalized": {"latent.normalize": "du", "latent.variance_dropout": 0.2, "objective.beta_schedule": "constant",
                   "objective.free_bits_form": "mask", "objective.bow": 0.3, **MORE},
    "rated": {"latent.kind": "slashed", "objective.rate": 6, "objective.rate_scope": "dimension",
              "objective.bow": 0.3, "objective.dropped_mark": "own", "objective.denoise_blank": 0.2, **MORE},
    "held": {"latent.normalize": "batch", "objective.target_kl": 3, "objective.ki": 0.05, "objective.free_bits": 0,
             "latent.skip": "true", **MORE},
    "kept": {"latent.kind": "delta", "objective.min_rate": 4, "objective.min_rate_step": 0.1,
             "objective.free_bits": 0},
    "diagonal": {"latent.prior": "diagonal"},
    "mixture": {"latent.prior": "mixture", "latent.components": 3, "objective.free_bits_kind": "total"},
    "labels": {"data.labels": "true"},
    "vamp": {"latent.prior": "vamp", "latent.pseudo_inputs": 5, "latent.pseudo_length": 3,
             "objective.free_bits_kind": "total", "train.recompute": "block"},
}
MOMENTS = {"optimizer.moments": "bf16"}


def train(program, corpus, run, changes, device, order=None, environment=None):
    given = {**runs.TINY, **WIDE, "data.train": corpus, "run.dir": run, "device": device, **changes}
    environment = {**os.environ, **(environment or {}), **({"ELBO_SIM_ORDER": order} if order else {})}
    answer = subprocess.run([program, "train", *runs.options(given)], capture_output=True, text=True, check=False,
                            env=environment)
    if answer.returncode:
        sys.exit(f"{program} train ended with {answer.returncode}:\n{answer.stderr}")
    return [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    return max(pathlib.Path(run).glob("checkpoints/step-*")).joinpath("model.safetensors").read_bytes()


def moments(run):
    return max(pathlib.Path(run).glob("checkpoints/step-*")).joinpath("state", "optimizer.safetensors").read_bytes()


def moments_by_name(run):
    """Returns the bytes of each array of moments in a checkpoint, all F32."""
    data = moments(run)
    length = int.from_bytes(data[:8], "little")
    return {name: data[8 + length + about["data_offsets"][0]:8 + length + about["data_offsets"][1]]
            for name, about in json.loads(data[8:8 + length]).items() if name.startswith("moment")}


def rounded_moments(scratch, corpus):
    """Compares moments in bf16 with f32 moments, and the CPU with the emulated GPU, for AdamW and SGD. Returns the
    worst error of a loss."""
    worst = 0.0
    for name in ("both", "post"):
        changes = {**VARIANTS[name], **MOMENTS}
        cpu = train(runs.ELBO, corpus, scratch / f"{name}-moments-cpu", changes, "cpu")
        sim = train(SIM, corpus, scratch / f"{name}-moments-sim", changes, "cuda")
        wide = [json.loads(line) for line in (scratch / f"{name}-cpu" / "metrics.jsonl").read_text().splitlines()]
        for a, b, c in zip(cpu, sim, wide, strict=True):
            for key in ("loss", "reconstruction", "gradient_norm"):
                assert abs(a[key] - b[key]) <= TOLERANCE["BACKENDS"] * max(abs(a[key]), 1e-6), \
                    f"{name}, moments in bf16, step {a['step']}: {key} {a[key]} on the CPU, {b[key]} emulated"
            worst = max(worst, abs(a["loss"] - c["loss"]) / abs(c["loss"]))
            assert worst <= TOLERANCE["MOMENTS_BF16"], \
                f"{name}, step {a['step']}: loss {c['loss']} with f32 moments, {a['loss']} with bf16"
        assert weights(scratch / f"{name}-moments-cpu") != weights(scratch / f"{name}-cpu"), \
            f"{name}: the moments are still f32"
        for kind in ("cpu", "sim"):
            for array, data in moments_by_name(scratch / f"{name}-moments-{kind}").items():
                assert not any(data[0::4]) and not any(data[1::4]) and any(data), \
                    f"{name} {kind}: {array} does not hold bf16"
        one, other = (moments_by_name(scratch / f"{name}-moments-{kind}") for kind in ("cpu", "sim"))
        same = sum(x == y for array in one for x, y in zip(words(one[array]), words(other[array])))
        total = sum(len(data) // 4 for data in one.values())
        assert same >= 0.9 * total, f"{name}: {same} of {total} moments are the same on both backends"
    return worst


def words(data):
    return [data[i:i + 4] for i in range(0, len(data), 4)]


def algorithms_are_kept(scratch, corpus):
    """Checks that a library that chooses other algorithms on resuming changes no bits, and does in a fresh run."""
    whole, half = scratch / "both-bf16", scratch / "kept"
    changes = {**VARIANTS["both"], "precision": "bf16"}
    train(SIM, corpus, half, {**changes, "train.stop_after": 9}, "cuda")
    other = {"ELBO_SIM_BACKWARDS": "1"}
    fresh = train(SIM, corpus, scratch / "backwards", changes, "cuda", environment=other)
    assert len(fresh) == 20 and weights(scratch / "backwards") != weights(whole), \
        "the stand-in's algorithms have the same bits"
    train(SIM, corpus, half, changes, "cuda", environment=other)
    assert weights(half) == weights(whole), "a resumed run chose its algorithms anew"


def main():
    worst = worst_narrow = 0.0
    if not pathlib.Path(SIM).exists():
        print(f"{SIM} was not built")
        sys.exit(77)
    with runs.Scratch() as scratch:
        corpus = runs.corpus(scratch)
        for name, changes in VARIANTS.items():
            cpu = train(runs.ELBO, corpus, scratch / f"{name}-cpu", changes, "cpu")
            sim = train(SIM, corpus, scratch / f"{name}-sim", changes, "cuda")
            assert len(cpu) == len(sim) == 20, name
            for a, b in zip(cpu, sim):
                for key in ("loss", "reconstruction", "gradient_norm"):
                    error = abs(a[key] - b[key]) / max(abs(a[key]), 1e-6)
                    worst = max(worst, error)
                    assert error <= TOLERANCE["BACKENDS"], \
                        f"{name}, step {a['step']}: {key} {a[key]} on the CPU, {b[key]} emulated"
            narrow = train(SIM, corpus, scratch / f"{name}-bf16", {**changes, "precision": "bf16"}, "cuda")
            for a, b in zip(cpu, narrow):
                error = abs(a["loss"] - b["loss"]) / abs(a["loss"])
                worst_narrow = max(worst_narrow, error)
                assert error <= TOLERANCE["BACKENDS_BF16"], \
                    f"{name}, step {a['step']}: loss {a['loss']} in f32, {b['loss']} in bf16"
        worst_moments = rounded_moments(scratch, corpus)
        for order in ("reversed", "random"):
            for kind, changes in (("sim", {}), ("bf16", {"precision": "bf16"}), ("moments-sim", MOMENTS)):
                train(SIM, corpus, scratch / f"both-{kind}-{order}", {**VARIANTS["both"], **changes}, "cuda", order)
                assert weights(scratch / f"both-{kind}-{order}") == weights(scratch / f"both-{kind}"), \
                    f"other bits in {order} order"
        # stopped and resumed with bf16 activations, and with bf16 moments: the same bits
        for program, device, changes, whole in ((SIM, "cuda", {"precision": "bf16"}, "both-bf16"),
                                                (SIM, "cuda", MOMENTS, "both-moments-sim"),
                                                (runs.ELBO, "cpu", MOMENTS, "both-moments-cpu")):
            half = {**VARIANTS["both"], **changes}
            train(program, corpus, scratch / f"half-{whole}", {**half, "train.stop_after": 9}, device)
            train(program, corpus, scratch / f"half-{whole}", half, device)
            for read in (weights, moments):
                assert read(scratch / f"half-{whole}") == read(scratch / whole), \
                    f"{whole}: a resumed run has other {read.__name__}"
        if "ELBO_CUDA" not in os.environ: # only the stand-in can be made to choose other algorithms
            algorithms_are_kept(scratch, corpus)
        # a skipped step, which the host knows one step late: the same rows as on the CPU, and the same counters
        skip = {**VARIANTS["both"], "train.skip": 7, "train.steps": 12}
        cpu, sim = (train(program, corpus, scratch / f"skip-{device}", skip, device)
                    for program, device in ((runs.ELBO, "cpu"), (SIM, "cuda")))
        assert [row["skipped"] for row in sim] == [row["step"] == 7 for row in sim], "another step was left out"
        for a, b in zip(cpu, sim):
            for key in ("loss", "beta", "learning_rate", "gradient_norm"):
                assert abs(a[key] - b[key]) <= TOLERANCE["BACKENDS"] * max(abs(a[key]), 1e-6), \
                    f"after a step left out: {key}, step {a['step']}"
        # a real divergence ends the run with its own code and leaves finite weights
        absurd = {**runs.TINY, **WIDE, "data.train": corpus, "run.dir": scratch / "absurd", "device": "cuda",
                  "optimizer.kind": "sgd", "optimizer.learning_rate": 1000, "optimizer.clip": 0,
                  "optimizer.warmup_steps": 0, "train.steps": 200}
        answer = subprocess.run([SIM, "train", *runs.options(absurd)], capture_output=True, text=True, check=False)
        assert answer.returncode == DIVERGED and "optimizer.learning_rate" in answer.stderr, \
            (answer.returncode, answer.stderr[-500:])
        assert subprocess.run([runs.ELBO, "sample", str(scratch / "absurd"), "--count=1", "--device=cpu"],
                              check=False).returncode == 0
        # one backend's checkpoint is resumed and evaluated by the other
        moved = {**VARIANTS["both"], "train.steps": 25, "resume": scratch / "both-sim"}
        rows = train(runs.ELBO, corpus, scratch / "moved", moved, "cpu")
        assert rows[0]["step"] == 21
        for run in ("moved", "vamp-sim", "prefix-sim", "residual-sim"):
            figures = {}
            for program, device in ((runs.ELBO, "cpu"), (SIM, "cuda")):
                answer = subprocess.run([program, "eval", str(scratch / run), f"--data.test={corpus}",
                                         f"--device={device}", "--eval.iwae_samples=3", "--json"], capture_output=True,
                                        text=True, check=True)
                figures[device] = json.loads(answer.stdout)
            for key in ("neg_elbo", "iwae_nll", "own_z_gain", "kl", "token_accuracy"):
                assert abs(figures["cpu"][key] - figures["cuda"][key]) <= 1e-4 * abs(figures["cpu"][key]) + 1e-5, key
        for run in ("moved", "lstm-sim", "gru-sim", "prefix-sim", "residual-sim"):
            for how in ("--seed=1", "--beam=3"):
                lines = {}
                for program, device in ((runs.ELBO, "cpu"), (SIM, "cuda")):
                    lines[device] = subprocess.run([program, "sample", str(scratch / run), "--count=3", how,
                                                    f"--device={device}"],
                                                   capture_output=True, text=True, check=True).stdout
                assert lines["cpu"] == lines["cuda"], f"{run}: generation differs, {how}"
    print(f"worst relative difference of a loss or norm: {worst:.1e}; of a loss in bf16: {worst_narrow:.1e}; "
          f"with moments in bf16: {worst_moments:.1e}")


if __name__ == "__main__":
    main()
