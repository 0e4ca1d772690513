#!/usr/bin/python3
"""objective.mu_forcing: a term of the objective, with its own figure, that keeps the posteriors' means apart."""
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import Scratch, elbo, grammar, options, rows  # noqa: E402

MARGIN = 3.0


def half_spread(run, lines, scratch):
    """Returns half the mean squared distance of the sentences' mu from their mean."""
    out = scratch / "mu.npy"
    elbo("encode", run, f"--out={out}", stdin=lines)
    mu = numpy.load(out).astype(numpy.float64)
    return 0.5 * ((mu - mu.mean(0)) ** 2).sum(1).mean()


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 60, 1)
        lines = (scratch / "text").read_text(encoding="utf-8")
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        given = {"data.train": scratch / "corpus", "encoder.width": 16, "decoder.width": 16, "encoder.layers": 1,
                 "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": 4, "train.steps": 150,
                 "train.slots": 2, "train.slot_tokens": 300, "optimizer.warmup_steps": 1, "log.every": 1,
                 "objective.beta": 0.5, "objective.beta_schedule": "constant", "objective.free_bits": 0}
        spread = {}
        for margin in (0, MARGIN):
            run = scratch / f"run{margin}"
            elbo("train", *options({**given, "run.dir": run, "objective.mu_forcing": margin}))
            for row in rows(run):
                assert ("mu_forcing" in row) == (margin > 0), sorted(row)
                forced = row.get("mu_forcing", 0)
                assert 0 <= forced <= margin, row
                whole = row["lambda"] * row["reconstruction"] + row["beta"] * row["kl_free"] + forced
                assert abs(row["loss"] - whole) < 1e-5 * whole, row
            spread[margin] = half_spread(run, lines, scratch)
        assert spread[0] < 0.5 < 0.8 * MARGIN < spread[MARGIN], spread
        refused = elbo("train", f"--data.train={scratch / 'corpus'}", f"--run.dir={scratch / 'none'}",
                       "--latent.kind=none", "--objective.mu_forcing=2", code=2)
        assert "latent.kind=none has no mu" in refused.stderr, refused.stderr
        print(f"half the spread of mu: {spread[0]:.3f} nats without, {spread[MARGIN]:.3f} with a margin of {MARGIN:g}")


if __name__ == "__main__":
    main()
