#!/usr/bin/python3
"""The learned priors, `latent.prior`: the loss of a step by hand, the KL that evaluation reports, free bits by
dimension, samples from the learned priors, the same bits when a run is resumed and on any number of ranks, and their
gain on text of several kinds."""
import json
import math
import pathlib
import random
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from reference import (DIAGONAL, MIXTURE, VAMP, Model, noise_key, normals, purpose, read_safetensors, # noqa: E402
                       torch, words)
from runs import ELBO, Scratch, check_same_bits, checkpoints, elbo, grammar, options, rows # noqa: E402

Z, TOTAL = 3, {"objective.free_bits_kind": "total"}
PRIORS = {
    "diagonal": {"latent.prior": "diagonal"},
    "mixture": {"latent.prior": "mixture", "latent.components": 4, **TOTAL},
    "vamp": {"latent.prior": "vamp", "latent.pseudo_inputs": 5, "latent.pseudo_length": 3, **TOTAL},
}
NUMBERS = {"diagonal": DIAGONAL, "mixture": MIXTURE, "vamp": VAMP}
BASE = {"encoder.width": 16, "decoder.width": 16, "encoder.layers": 1, "decoder.layers": 1, "encoder.heads": 2,
        "decoder.heads": 2, "latent.width": Z, "train.steps": 120, "train.slots": 2, "train.slot_tokens": 300,
        "optimizer.warmup_steps": 1, "optimizer.learning_rate": 0.01, "log.every": 1, "objective.beta": 0.2}


class Prior:
    """A run's prior, from its checkpoint: weights (K), means and logvars (K, Z)."""

    def __init__(self, name, run):
        weights = read_safetensors(checkpoints(run)[-1] / "model.safetensors")
        if name == "diagonal":
            self.weights, stats = numpy.ones(1), weights["latent.prior.stats"][None]
        else:
            model = Model({"latent.prior": NUMBERS[name], "latent.width": Z, "encoder.width": 16, "encoder.layers": 1,
                           "share_embedding": 1, "latent.pseudo_inputs": 5}, weights)
            with torch.no_grad():
                stats, logs = (x.numpy() for x in model.components())
            self.weights = numpy.exp(logs)
        self.mean, self.logvar = (x.astype(numpy.float64) for x in (stats[:, :Z], stats[:, Z:]))

    def log_density(self, z):
        """Returns the log density (N) of z (N, Z)."""
        each = -0.5 * (math.log(2 * math.pi) + self.logvar + (z[:, None] - self.mean) ** 2 / numpy.exp(self.logvar))
        return numpy.logaddexp.reduce(numpy.log(self.weights) + each.sum(-1), -1)

    def sample(self, seed, number):
        """Returns z of sentence `number`: the component by the first word of draw 1, the noise by draw 0."""
        key = noise_key(seed, purpose("sample.prior"), 0)
        u = (words(key, number, 1, 1)[0] + 0.5) / 2 ** 32
        k = int(numpy.searchsorted(self.weights.cumsum(), u)) if len(self.weights) > 1 else 0
        return self.mean[k] + numpy.exp(self.logvar[k] / 2) * normals(key, number, 0, Z)


def decoded(run, path):
    with open(path, "rb") as file:
        return subprocess.run([ELBO, "decode", run], stdin=file, capture_output=True, text=True, check=True).stdout


def posteriors(scratch, run):
    out = scratch / "stats.jsonl"
    elbo("encode", run, "--format=jsonl", f"--out={out}", stdin=(scratch / "text").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return numpy.array([line["mu"] for line in lines]), numpy.array([line["logvar"] for line in lines])


def evaluate(scratch, run, *words_):
    return json.loads(elbo("eval", run, f"--data.test={scratch / 'corpus'}", "--json", *words_).stdout)


def check_steps(name, run):
    for row in rows(run):
        whole = row["lambda"] * row["reconstruction"] + row["beta"] * row["kl_free"]
        assert abs(row["loss"] - whole) < 1e-5 * abs(whole), row
        if name == "diagonal":
            assert abs(sum(row["kl_per_dim"]) - row["kl"]) < 1e-4 * max(1, row["kl"]) and "kl_mc" not in row, row
            assert row["kl_free"] >= max(row["kl"], 0.25 * Z) - 1e-4, "free bits by dimension"
        else:
            assert row["kl_per_dim"] is None and row["kl_mc"] == row["kl"], row


def check_evaluation(scratch, name, run, prior):
    """Checks that the KL that evaluation reports is the closed form, or the expectation in the mean over draws."""
    mu, logvar = posteriors(scratch, run)
    found = evaluate(scratch, run, "--eval.iwae_samples=200")
    assert found["iwae_nll"] < found["neg_elbo"], found
    if name == "diagonal":
        mean, own = prior.mean[0], prior.logvar[0]
        closed = 0.5 * (own - logvar + (numpy.exp(logvar) + (mu - mean) ** 2) / numpy.exp(own) - 1)
        assert numpy.allclose(found["kl_per_dim"], closed.mean(0), rtol=1e-5, atol=1e-6) and "kl_mc" not in found
        assert abs(found["kl"] - closed.sum(-1).mean()) < 1e-5, found
        return found["kl"]
    generator, draws = numpy.random.default_rng(1), []
    for _ in range(4000):
        eps = generator.standard_normal(mu.shape)
        z = mu + numpy.exp(logvar / 2) * eps
        own = (-0.5 * (math.log(2 * math.pi) + logvar + eps ** 2)).sum(-1)
        draws.append((own - prior.log_density(z)).mean())
    told = [evaluate(scratch, run, f"--seed={seed}", "--eval.iwae_samples=0") for seed in range(12)]
    assert all(t["kl_per_dim"] is None and t["kl_mc"] == t["kl"] for t in told)
    kl = [t["kl"] for t in told]
    error = math.sqrt(numpy.var(kl, ddof=1) / len(kl) + numpy.var(draws, ddof=1) / len(draws))
    assert abs(numpy.mean(kl) - numpy.mean(draws)) < 4 * error < 0.2, (kl, numpy.mean(draws), error)
    mean_too = evaluate(scratch, run, "--seed=0", "--eval.posterior=mean")["kl"]
    assert mean_too == kl[0] != 0, "what is decoded from the mean has its KL of a draw all the same"
    assert "kl_mc" in elbo("eval", run, f"--data.test={scratch / 'corpus'}").stdout
    each = elbo("eval", run, f"--data.test={scratch / 'corpus'}", "--per-sentence").stdout.splitlines()
    assert all(json.loads(line)["kl_mc"] == json.loads(line)["kl"] for line in each)
    return numpy.mean(kl)


def check_samples(scratch, run, prior, count=40):
    z = numpy.array([prior.sample(7, number) for number in range(count)])
    numpy.save(scratch / "z.npy", z.astype(numpy.float32))
    drawn = elbo("sample", run, f"--count={count}", "--seed=7", "--greedy").stdout
    assert drawn == decoded(run, scratch / "z.npy") and len(set(drawn.splitlines())) > 1
    eps = numpy.array([normals(noise_key(7, purpose("sample.prior"), 0), number, 0, Z) for number in range(count)])
    numpy.save(scratch / "z.npy", eps.astype(numpy.float32))
    assert drawn != decoded(run, scratch / "z.npy"), "N(0, 1) would have given the same"
    line = elbo("interpolate", run, "--from=a", "--to=b", "--steps=3").stdout.splitlines()
    assert len(line) == 3


def check_bits(scratch, name, data):
    """Checks the bits of runs that are resumed, and of 2 and 4 ranks."""
    given = {**BASE, **PRIORS[name], "data.train": data, "data.valid": data, "train.slots": 4, "train.steps": 12,
             "train.slot_tokens": 60, "data.max_length": 20, "train.eval_every": 5, "checkpoint.every": 0,
             "encoder.dropout": 0.1, "determinism": "world_invariant", "device": "cpu", "threads": 1}
    check_same_bits(scratch / f"{name}-bits", name, given)


def check_worth(scratch):
    """Text of six kinds, each with its own words, more than a model can memorize: a prior of several Gaussians pays
    less for the kind than N(0, 1) does."""
    rng, found = random.Random(1), {}
    lines = [" ".join(f"{kind}{rng.randrange(12)}" for _ in range(rng.randint(3, 7)))
             for kind in rng.choices("abcdef", k=5000)]
    (scratch / "kinds").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = scratch / "kinds-corpus"
    elbo("prepare", scratch / "kinds", f"--out={data}")
    given = {**BASE, "encoder.width": 32, "decoder.width": 32, "latent.width": 4, "train.steps": 400, "log.every": 100,
             "objective.free_bits": 0, "objective.beta": 1, "objective.beta_warmup": 0.3, "data.max_length": 20,
             "objective.word_dropout": 0.5, "data.train": data, "seed": 3}
    for name, prior in {"standard": {}, **PRIORS}.items():
        if name == "diagonal":
            continue
        prior = {key: 10 if key in ("latent.components", "latent.pseudo_inputs") else value
                 for key, value in prior.items() if not key.startswith("objective.")}
        elbo("train", *options({**given, **prior, "run.dir": scratch / f"worth-{name}"}))
        each = elbo("eval", scratch / f"worth-{name}", f"--data.test={data}", "--eval.sentences=1000",
                    "--per-sentence").stdout
        found[name] = numpy.array([json.loads(line)["neg_elbo"] for line in each.splitlines()])
    for name in ("mixture", "vamp"):
        gain = found["standard"] - found[name]
        error = gain.std(ddof=1) / math.sqrt(len(gain))
        assert gain.mean() > max(0.05, 3 * error), f"{name}: {gain.mean():.3f} nats less, error {error:.3f}"
    return {name: round(float(x.mean()), 3) for name, x in found.items()}


def check_refusals(data):
    def refused(*given):
        return elbo("train", f"--data.train={data}", "--run.dir=/nowhere/run", *given, code=2).stderr

    for name in ("mixture", "vamp"):
        said = refused(f"--latent.prior={name}")
        assert "objective.free_bits_kind=total" in said and name in said, said
    assert "latent.prior=mixture" in refused("--latent.components=3")
    said = refused("--latent.pseudo_inputs=3", "--latent.prior=mixture", "--objective.free_bits=0")
    assert "latent.prior=vamp" in said, said
    said = refused("--latent.prior=vamp", "--objective.free_bits=0", "--data.max_length=5", "--latent.pseudo_length=8")
    assert "latent.pseudo_length = 8" in said and "at most 7" in said, said


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 80, 1)
        data = scratch / "corpus"
        elbo("prepare", scratch / "text", f"--out={data}")
        check_refusals(data)
        for name, given in PRIORS.items():
            run = scratch / name
            everything = {**BASE, **given, "data.train": data, "run.dir": run}
            elbo("train", *options(everything))
            check_steps(name, run)
            prior = Prior(name, run)
            kl = check_evaluation(scratch, name, run, prior)
            check_samples(scratch, run, prior)
            info = json.loads(elbo("info", run, "--json").stdout)["latent"]
            assert info["prior"] == name and info.get("components", 1) == len(prior.weights), info
            plan = json.loads(elbo("plan", *options({key: value for key, value in everything.items()
                                                     if key not in ("run.dir", "log.every")}), "--json").stdout)
            assert plan["parameters"] == json.loads(elbo("info", run, "--json").stdout)["parameters"], plan
            elbo("train", *options({**everything, "train.steps": 121}))
            assert numpy.abs(Prior(name, run).mean - prior.mean).max() < 0.5, "a run goes on with what it has learned"
            check_bits(scratch, name, data)
            print(f"{name}: weights {numpy.round(prior.weights, 2)}, means {numpy.round(prior.mean, 2).tolist()}, "
                  f"KL {kl:.3f}")
        print(f"neg_elbo on text of six kinds: {check_worth(scratch)}")


if __name__ == "__main__":
    main()
