#!/usr/bin/python3
"""Posteriors that cannot collapse, in short runs where beta = 1 lets a normal posterior collapse.

  delta      every dimension's KL is at least latent.delta
  rate       the KL of each sentence is the rate, to 1e-6 of it; so is the KL of a slot, or of each dimension, in
             training, and nearly so in evaluation, which uses running statistics and says so
  batch, du  the mean KL is at least the sum of (gamma^2 + bias^2) / 2, and every unit is active; a slot of one sentence
             uses the running statistics, and does not move them"""
import json
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "model"))
from reference import read_safetensors  # noqa: E402
from runs import Scratch, checkpoints, elbo, grammar, options, rows  # noqa: E402

Z, RATE, DELTA, GAMMA = 4, 8.0, 0.15, 0.6
SLOWLY = {"optimizer.learning_rate": 0.002}  # running statistics lag behind weights that move


class Runs:
    def __init__(self, scratch):
        self.scratch = scratch
        grammar(scratch / "text", 300, 1)
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        self.base = {"data.train": scratch / "corpus", "encoder.width": 16, "decoder.width": 16, "encoder.layers": 1,
                     "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": Z,
                     "train.steps": 150, "train.slots": 2, "train.slot_tokens": 200, "optimizer.warmup_steps": 1,
                     "log.every": 1, "optimizer.learning_rate": 0.005, "objective.beta_schedule": "constant"}

    def __call__(self, name, given, code=0):
        run = self.scratch / name
        given = {**self.base, "run.dir": run, **given}
        if "objective.rate" in given or "objective.target_kl" in given or "objective.min_rate" in given:
            given.pop("objective.beta_schedule")
        if not given.get("objective.rate"):
            given.setdefault("objective.free_bits", 0)
        done = elbo("train", *options(given), code=code)
        return done.stderr if code else run

    def evaluation(self, run):
        said = elbo("eval", run, f"--data.test={self.scratch / 'corpus'}", "--json", "--eval.iwae_samples=5")
        per = elbo("eval", run, f"--data.test={self.scratch / 'corpus'}", "--per-sentence", "--eval.iwae_samples=0")
        return json.loads(said.stdout), said.stderr, [json.loads(line)["kl"] for line in per.stdout.splitlines()]


def check_delta(runs):
    run = runs("delta", {"latent.kind": "delta"})
    found, _, each = runs.evaluation(run)
    assert min(each) >= Z * DELTA * (1 - 1e-5), min(each)
    assert all(kl >= DELTA * (1 - 1e-5) for kl in found["kl_per_dim"]), found["kl_per_dim"]
    assert all(min(row["kl_per_dim"]) >= DELTA * (1 - 1e-5) for row in rows(run))
    return found["kl"]


def check_rate(runs):
    told = []
    for scope in ("sentence", "slot", "dimension"):
        run = runs(scope, {"latent.kind": "slashed", "objective.rate": RATE, "objective.rate_scope": scope, **SLOWLY})
        for row in rows(run):
            assert abs(row["kl"] - RATE) < 1e-5 * RATE, (scope, row)
            if scope == "dimension":
                assert numpy.allclose(row["kl_per_dim"], RATE / Z, rtol=1e-5), row
        found, said, each = runs.evaluation(run)
        running = scope != "sentence"
        assert found.get("statistics") == ("running" if running else None), found
        assert ("running statistics" in said) == running, said
        if running:
            assert abs(found["kl"] - RATE) < 0.02 * RATE, (scope, found["kl"])
            assert numpy.std(each) > 0.1, "sentences differ"
        else:
            assert numpy.allclose(each, RATE, rtol=1e-6), (min(each), max(each))
        told.append(f"{scope} {found['kl']:.6f}")
    return told


def check_normalize(runs):
    told = []
    for how in ("batch", "du"):
        run = runs(how, {"latent.normalize": how, "latent.gamma": GAMMA, **SLOWLY})
        found, said, _ = runs.evaluation(run)
        bias = read_safetensors(checkpoints(run)[-1] / "model.safetensors")["latent.normalize.bias"]
        least = 0.5 * float((GAMMA ** 2 + bias.astype(numpy.float64) ** 2).sum())
        assert found["active_units"] == Z and found["statistics"] == "running" and "running statistics" in said, found
        assert found["kl"] > 0.97 * least, (found["kl"], least)  # by running statistics; a bound in training
        last = rows(run)[-1]
        assert last["kl"] > 0.97 * 0.5 * Z * GAMMA ** 2, last
        told.append(f"{how} {found['kl']:.3f} of at least {least:.3f}")
    kept = {}
    for steps in (150, 153):
        more = {"latent.normalize": "batch", "latent.gamma": GAMMA, "train.steps": steps, "run.dir": run.parent / "one"}
        if steps > 150:
            more.update({"train.slots": 1, "train.slot_sentences": 1})
        one = runs("one", more)
        kept[steps] = read_safetensors(checkpoints(one)[-1] / "model.safetensors")
    name = "latent.normalize.running"
    assert kept[150][name].tobytes() == kept[153][name].tobytes() != numpy.zeros(2 * Z, numpy.float32).tobytes()
    assert kept[150]["latent.head.bias"].tobytes() != kept[153]["latent.head.bias"].tobytes()
    return told


def check_refusals(runs):
    slashed = {"latent.kind": "slashed", "objective.rate": RATE}
    for given, words in (
            ({"objective.rate": RATE}, "latent.kind=slashed, or objective.rate=0"),
            ({"latent.kind": "delta", "latent.normalize": "batch"}, "set latent.normalize=none"),
            ({"latent.kind": "slashed", "latent.normalize": "du"}, "objective.rate_scope=dimension"),
            ({**slashed, "objective.target_kl": 3, "objective.free_bits": 0}, "objective.rate = 8 fixes"),
            ({**slashed, "objective.min_rate": 3}, "objective.rate = 8 fixes"),
            ({**slashed, "objective.free_bits": 0.5}, "objective.rate fixes the KL"),
            ({**slashed, "objective.beta": 0.5}, "objective.rate fixes the KL"),
            ({**slashed, "latent.prior": "diagonal"}, "latent.prior=standard"),
            ({"latent.kind": "slashed", "objective.rate_scope": "slot"}, "it belongs to objective.rate"),
            ({"latent.delta": 0.2}, "it belongs to latent.kind=delta"),
            ({"latent.gamma": 0.2}, "latent.normalize=none scales nothing"),
            ({"latent.normalize": "batch", "latent.variance_dropout": 0.2}, "it belongs to latent.normalize=du")):
        said = runs("none", given, code=2)
        assert words in said, (given, said)


def main():
    with Scratch() as scratch:
        runs = Runs(scratch)
        run = runs("normal", {})
        lost = runs.evaluation(run)[0]["kl"]
        assert lost < 0.05, lost
        kept, rates, normalized = check_delta(runs), check_rate(runs), check_normalize(runs)
        check_refusals(runs)
        print(f"KL {lost:.3f} of a normal posterior; delta {kept:.4f}; rate {RATE:g}: {', '.join(rates)}; "
              f"{', '.join(normalized)}")


if __name__ == "__main__":
    main()
