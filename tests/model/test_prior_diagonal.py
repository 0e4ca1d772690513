#!/usr/bin/python3
"""latent.prior=diagonal: the loss of a step by hand, what evaluation says of its KL, samples of what it has learned,
and free bits by dimension, which it has not."""
import json
import math
import pathlib
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from reference import noise_key, normals, purpose, read_safetensors  # noqa: E402
from runs import ELBO, Scratch, checkpoints, elbo, grammar, options, rows  # noqa: E402

PRIOR, Z = "latent.prior.stats", 3


def weights(run):
    return read_safetensors(checkpoints(run)[-1] / "model.safetensors")


def decoded(run, path):
    with open(path, "rb") as file:
        return subprocess.run([ELBO, "decode", run], stdin=file, capture_output=True, text=True, check=True).stdout


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 80, 1)
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        given = {"data.train": scratch / "corpus", "run.dir": scratch / "run", "encoder.width": 16, "decoder.width": 16,
                 "encoder.layers": 1, "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": Z,
                 "train.steps": 120, "train.slots": 2, "train.slot_tokens": 300, "optimizer.warmup_steps": 1,
                 "optimizer.learning_rate": 0.01, "log.every": 1, "objective.beta": 0.2,
                 "objective.free_bits_kind": "total", "latent.prior": "diagonal"}
        run = given["run.dir"]
        refused = elbo("train", *options({**given, "objective.free_bits_kind": "dimension"}), code=2)
        assert "objective.free_bits_kind=total" in refused.stderr, refused.stderr
        elbo("train", *options(given))
        for row in rows(run):
            assert row["kl_per_dim"] is None, row
            whole = row["lambda"] * row["reconstruction"] + row["beta"] * row["kl_free"]
            assert abs(row["loss"] - whole) < 1e-5 * abs(whole), row
        learned = weights(run)[PRIOR].astype(numpy.float64)
        mean, logvar = learned[:Z], learned[Z:]
        assert abs(mean).max() > 0.05 and abs(logvar).max() > 0.05, learned

        # evaluation: the KL of each sentence by its draw is the closed form's in the mean
        evaluation = json.loads(elbo("eval", run, f"--data.test={scratch / 'corpus'}", "--eval.iwae_samples=200",
                                     "--json").stdout)
        assert evaluation["kl_per_dim"] is None, evaluation
        out = scratch / "stats.jsonl"
        elbo("encode", run, "--format=jsonl", f"--out={out}", stdin=(scratch / "text").read_text(encoding="utf-8"))
        closed = []
        for line in map(json.loads, out.read_text(encoding="utf-8").splitlines()):
            mu, lv = numpy.array(line["mu"]), numpy.array(line["logvar"])
            closed.append(0.5 * (logvar - lv + (numpy.exp(lv) + (mu - mean) ** 2) / numpy.exp(logvar) - 1).sum())
        draws = [json.loads(elbo("eval", run, f"--data.test={scratch / 'corpus'}", f"--seed={seed}", "--json",
                                 "--eval.iwae_samples=0").stdout)["kl"] for seed in range(12)]
        error = numpy.std(draws, ddof=1) / math.sqrt(len(draws))
        assert abs(numpy.mean(draws) - numpy.mean(closed)) < 4 * error < 0.2, (draws, numpy.mean(closed))
        mean_too = json.loads(elbo("eval", run, f"--data.test={scratch / 'corpus'}", "--seed=0", "--json",
                                   "--eval.posterior=mean").stdout)["kl"]
        assert mean_too == draws[0] != 0, "what is decoded from the mean has its KL of a draw all the same"
        assert evaluation["iwae_nll"] < evaluation["neg_elbo"], evaluation

        # samples: what the prior has learned, of the noise of sample.prior, decoded
        eps = numpy.array([normals(noise_key(7, purpose("sample.prior"), 0), row, 0, Z) for row in range(40)])
        numpy.save(scratch / "z.npy", (mean + numpy.exp(logvar / 2) * eps).astype(numpy.float32))
        drawn = elbo("sample", run, "--count=40", "--seed=7", "--greedy").stdout
        wanted = decoded(run, scratch / "z.npy")
        assert drawn == wanted and len(set(drawn.splitlines())) > 1
        numpy.save(scratch / "z.npy", eps.astype(numpy.float32))
        assert drawn != decoded(run, scratch / "z.npy"), "N(0, 1) would have given the same"
        # a run goes on with what it has learned
        elbo("train", *options({**given, "train.steps": 121}))
        assert numpy.abs(weights(run)[PRIOR] - learned).max() < 0.1
        print(f"prior: mean {numpy.round(mean, 2)}, logvar {numpy.round(logvar, 2)}; "
              f"KL {numpy.mean(draws):.3f} by draws, {numpy.mean(closed):.3f} in closed form")


if __name__ == "__main__":
    main()
