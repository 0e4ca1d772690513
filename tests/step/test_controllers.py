#!/usr/bin/python3
"""Controllers of beta: the KL reaches its target and stays there, and a minimum rate is kept. Two controllers of beta,
or one that has nothing to move, are refused by name.

  target_kl   beta of each row follows the PI rule of ControlVAE from the row before, and the mean KL of the last steps
              is within 2 % of the target
  min_rate    the KL does not end under its rate, where beta = 1 alone lets it collapse"""
import math
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import Scratch, checkpoints, elbo, grammar, optimizer_state, options, rows  # noqa: E402

STEPS = 1000


def state_of(run, name):
    raw = dict(optimizer_state(checkpoints(run)[-1] / "state"))[name]
    return numpy.frombuffer(raw, numpy.float32)


def check_rule(found, given):
    """Checks that each beta follows by the rule from the KL of the row before."""
    total, beta, target = 0.0, given["objective.beta_min"], given["objective.target_kl"]
    for row in found:
        assert abs(row["beta"] - beta) <= 2e-4 * max(beta, 1e-2), (row["step"], row["beta"], beta)
        e = target - row["kl"]
        rest = given["objective.kp"] / (1 + math.exp(e)) + given["objective.beta_min"]
        moved = total - given["objective.ki"] * e
        if e < 0:
            moved = min(moved, max(total, given["objective.beta_max"] - rest))
        if e > 0:
            moved = max(moved, min(total, given["objective.beta_min"] - rest))
        total = moved
        beta = min(max(rest + total, given["objective.beta_min"]), given["objective.beta_max"])


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 400, 1)
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        base = {"data.train": scratch / "corpus", "encoder.width": 16, "decoder.width": 16, "encoder.layers": 1,
                "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": 4, "train.steps": STEPS,
                "train.slots": 4, "train.slot_tokens": 200, "optimizer.warmup_steps": 1, "log.every": 1,
                "objective.free_bits": 0, "optimizer.learning_rate": 0.003}
        told = []
        for target in (4.0,):
            given = {**base, "run.dir": scratch / f"target{target}", "objective.target_kl": target,
                     "objective.kp": 0.01, "objective.ki": 0.02, "objective.beta_min": 0.001, "objective.beta_max": 8}
            elbo("train", *options(given))
            found = rows(given["run.dir"])
            check_rule(found, given)
            last = numpy.mean([row["kl"] for row in found[-100:]])
            assert abs(last - target) <= 0.02 * target, f"KL {last} instead of {target}"
            assert state_of(given["run.dir"], "objective.target_kl").shape == (3,)
            told.append(f"KL {last:.3f} of a target of {target:g}")
        free = {**base, "run.dir": scratch / "free", "objective.beta_schedule": "constant",
                "train.steps": 300}
        elbo("train", *options(free))
        rate = {**base, "run.dir": scratch / "rate", "objective.min_rate": 3, "objective.min_rate_step": 0.005}
        elbo("train", *options(rate))
        found = rows(rate["run.dir"])
        v = math.log(math.e - 1)
        for row in found:
            u = math.log1p(math.exp(v))
            assert abs(row["beta"] - (1 - u)) < 2e-4, (row["step"], row["beta"], 1 - u)
            v += 0.005 * (3 - row["kl"]) / (1 + math.exp(-v))
        kept, lost = (numpy.mean([row["kl"] for row in rows(run)[-100:]]) for run in (rate["run.dir"], free["run.dir"]))
        assert lost < 1 < 2.9 < kept, (lost, kept)
        told.append(f"a minimum rate of 3 keeps {kept:.3f} where beta = 1 leaves {lost:.3f}")

        for more, words in (
                ({"objective.target_kl": 3, "objective.min_rate": 2}, "both move beta"),
                ({"objective.target_kl": 3, "objective.beta": 2}, "objective.target_kl moves beta"),
                ({"objective.min_rate": 3, "objective.beta_schedule": "cyclical"}, "objective.min_rate moves beta"),
                ({"objective.target_kl": 3, "objective.free_bits": 1}, "objective.free_bits=0"),
                ({"objective.min_rate": 3, "objective.free_bits": 0.1}, "objective.free_bits=0"),
                ({"objective.target_kl": 3, "objective.beta_min": 2}, "exchange them"),
                ({"objective.kp": 3}, "it belongs to objective.target_kl"),
                ({"objective.target_kl": 3, "latent.kind": "none"}, "latent.kind=none has no KL")):
            refused = elbo("train", *options({**base, "run.dir": scratch / "none", **more}), code=2)
            assert words in refused.stderr, (more, refused.stderr)
        print("; ".join(told))


if __name__ == "__main__":
    main()
