#!/usr/bin/python3
"""Free bits in short runs, as hinge and as mask, for the slot's mean and for each sentence, for dimensions, groups and
the whole.

  below    a KL under its free bits has no gradient: with more free bits than KL, the weights have the same bits for any
           beta, and the log says that all parts are under their free bits
  above    about the free part of the KL stays, where beta = 1 alone lets the KL collapse
  loss     each row's loss is the reconstruction and beta times the KL that is not free"""
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import Scratch, bits, elbo, grammar, options, rows, same  # noqa: E402

KINDS = {"dimension": 1.0, "group": 2.0, "total": 4.0}  # nats that make four in all


class Runs:
    def __init__(self, scratch):
        self.scratch, self.made = scratch, 0
        grammar(scratch / "text", 200, 1)
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        self.base = {"data.train": scratch / "corpus", "encoder.width": 16, "decoder.width": 16, "encoder.layers": 1,
                     "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": 4,
                     "train.slots": 2, "train.slot_tokens": 200, "optimizer.warmup_steps": 1, "log.every": 1,
                     "optimizer.learning_rate": 0.005, "objective.beta_schedule": "constant"}

    def __call__(self, given):
        self.made += 1
        run = self.scratch / f"run{self.made}"
        elbo("train", *options({**self.base, "run.dir": run, **given}))
        for row in rows(run):
            whole = row["reconstruction"] + row["beta"] * row["kl_free"]
            assert abs(row["loss"] - whole) < 1e-5 * whole, row
        return run


def main():
    with Scratch() as scratch:
        runs, told = Runs(scratch), []
        lost = numpy.mean([row["kl"] for row in rows(runs({"train.steps": 150, "objective.free_bits": 0}))[-30:]])
        assert lost < 0.1, lost
        without = bits(runs({"train.steps": 12, "objective.free_bits": 0, "objective.beta": 0}), metrics=False)
        for form in ("hinge", "mask"):
            for scope in ("slot", "sentence"):
                given = {"objective.free_bits_form": form, "objective.free_bits_scope": scope}
                for kind, nats in KINDS.items():
                    here = {**given, "objective.free_bits_kind": kind}
                    if kind == "group":
                        here["objective.free_bits_groups"] = 2
                    run = runs({**here, "train.steps": 12, "objective.free_bits": 500, "objective.beta": 3})
                    same(without, bits(run, metrics=False), f"{form} of the {scope}'s {kind}, all free")
                    assert all(row["effective"]["under_free_bits"] == 1 for row in rows(run))
                    free = 500 * 4 / nats if form == "hinge" else 0
                    assert all(abs(row["kl_free"] - free) <= 1e-5 * free for row in rows(run)), rows(run)[-1]
                run = runs({**given, "train.steps": 150, "objective.free_bits": 1.0})
                kept = numpy.mean([row["kl"] for row in rows(run)[-30:]])
                assert 3 < kept < 6, (form, scope, kept)
                told.append(f"{form} of the {scope} {kept:.2f}")
        print(f"KL with 4 nats free: {', '.join(told)}; with none {lost:.3f}")


if __name__ == "__main__":
    main()
