#!/usr/bin/python3
"""elbo fit-prior: the fitted density against NumPy, its use by sample and eval, its file beside a checkpoint's files,
and training, which ignores it."""
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from reference import noise_key, normals, purpose, read_safetensors, words # noqa: E402
from runs import ELBO, Scratch, bits, checkpoints, elbo, options, same # noqa: E402

Z = 4
GIVEN = {"encoder.width": 32, "decoder.width": 32, "encoder.layers": 1, "decoder.layers": 1, "latent.width": Z,
         "train.steps": 300, "train.slots": 2, "train.slot_tokens": 300, "optimizer.warmup_steps": 1,
         "optimizer.learning_rate": 0.01, "objective.free_bits": 0, "objective.beta": 0.2, "data.max_length": 20,
         "log.every": 100}


def newest(run):
    """Returns the file of the last fit. The file before it stays until the next fit, for commands that are reading
    it."""
    found = sorted(checkpoints(run)[-1].glob("prior-*.safetensors"))
    assert 1 <= len(found) <= 2, found
    return found[-1]


def fitted(run):
    return Density(**read_safetensors(newest(run)))


class Density:
    """A mixture of Gaussians, read from prior-NNNNNN.safetensors."""

    def __init__(self, log_weight, mean, factor):
        self.log_weight, self.mean = log_weight, mean
        self.factor = factor if factor.ndim == 3 else numpy.array([numpy.diag(row) for row in factor])

    def parts(self, z):
        """Returns log (w_k N(z; k)) (N, K)."""
        each = []
        for log_weight, mean, factor in zip(self.log_weight, self.mean, self.factor):
            y = numpy.linalg.solve(factor, (z - mean).T)
            each.append(log_weight - 0.5 * (y ** 2).sum(0) - numpy.log(numpy.diag(factor)).sum())
        return numpy.array(each).T - 0.5 * z.shape[1] * math.log(2 * math.pi)

    def log_density(self, z):
        return numpy.logaddexp.reduce(self.parts(z), -1)

    def next_step(self, z):
        """Returns the mixture after one more step of expectation maximization."""
        share = numpy.exp(self.parts(z) - self.log_density(z)[:, None])
        held, n = share.sum(0), len(z)
        mean = share.T @ z / held[:, None]
        prior = numpy.diag(numpy.maximum(z.var(0), 1e-6))
        cov = [((share[:, k:k + 1] * (z - mean[k])).T @ (z - mean[k]) + prior) / (held[k] + 1)
               for k in range(len(held))]
        return Density(numpy.log((held + 1 / len(held)) / (n + 1)), mean, numpy.linalg.cholesky(numpy.array(cov)))

    def sample(self, seed, number):
        key = noise_key(seed, purpose("sample.prior"), 0)
        u = (words(key, number, 1, 1)[0] + 0.5) / 2 ** 32
        k = min(int(numpy.searchsorted(numpy.exp(self.log_weight).cumsum(), u)), len(self.mean) - 1)
        return self.mean[k] + self.factor[k] @ normals(key, number, 0, self.mean.shape[1])


def kinds(path, sentences=3000):
    """Writes text of six kinds, each with its own words."""
    rng = random.Random(1)
    path.write_text("\n".join(" ".join(f"{kind}{rng.randrange(12)}" for _ in range(rng.randint(3, 7)))
                              for kind in rng.choices("abcdef", k=sentences)) + "\n", encoding="utf-8")


def fit(run, *given):
    return json.loads(elbo("fit-prior", run, "--json", *given).stdout)


def evaluate(run, data, *given):
    return json.loads(elbo("eval", run, f"--data.test={data}", "--eval.sentences=400", "--json", *given).stdout)


def check_fits(run, mu, z):
    """Checks closed forms, and a mixture that another step does not improve."""
    found = fit(run)
    gaussian = fitted(run)
    covariance = ((mu - mu.mean(0)).T @ (mu - mu.mean(0)) + numpy.diag(mu.var(0))) / (len(mu) + 1)
    assert numpy.allclose(gaussian.mean[0], mu.mean(0), rtol=1e-6, atol=1e-7)
    assert numpy.allclose(gaussian.factor[0] @ gaussian.factor[0].T, covariance, rtol=1e-5, atol=1e-8)
    assert abs(found["cross_entropy"] + gaussian.log_density(mu).mean()) < 1e-6 and found["iterations"] == 1, found
    normal = 0.5 * (mu ** 2).sum(1).mean() + Z / 2 * math.log(2 * math.pi)
    assert abs(found["standard_cross_entropy"] - normal) < 1e-6 and found["cross_entropy"] < normal, found
    entropies = {}
    for covariance in ("full", "diagonal"):
        given = "--prior.kind=mixture", "--prior.components=6", f"--prior.covariance={covariance}"
        found = fit(run, *given, "--threads=1")
        first = newest(run).read_bytes()
        assert fit(run, *given, "--threads=2") == found
        assert newest(run).read_bytes() == first, "threads change bits"
        mixture = fitted(run)
        assert abs(found["cross_entropy"] + mixture.log_density(mu).mean()) < 1e-6, found
        assert abs(numpy.exp(mixture.log_weight).sum() - 1) < 1e-9
        if covariance == "full":
            again = mixture.next_step(mu)
            rise = again.log_density(mu).mean() - mixture.log_density(mu).mean()
            assert abs(rise) < 2e-5 and found["iterations"] < 200, (rise, found)
            one = fit(run, *given, "--prior.iterations=2")["cross_entropy"]
            assert one > found["cross_entropy"], "steps do not better it"
        entropies[covariance] = found["cross_entropy"]
    assert entropies["full"] < entropies["diagonal"], entropies
    fit(run, "--prior.of=sample", "--seed=4")
    assert numpy.allclose(read_safetensors(newest(run))["mean"][0], z.mean(0), rtol=1e-5, atol=1e-6)
    return entropies


def check_few(run, data, scratch):
    """Checks one sentence, and as many components as sentences."""
    copy = scratch / "few"
    shutil.copytree(run, copy)
    for given in (("--prior.sentences=1",), ("--prior.kind=mixture", "--prior.components=3", "--prior.sentences=3")):
        found = fit(copy, *given)
        assert math.isfinite(found["cross_entropy"]), found
        assert len(elbo("sample", copy, "--count=3").stdout.splitlines()) == 3
        assert math.isfinite(evaluate(copy, data)["fitted_cross_entropy"])


def check_evaluation(run, data, mu, logvar, before):
    after = evaluate(run, data, "--eval.iwae_samples=10")
    assert {key: value for key, value in after.items() if not key.startswith(("fitted", "prior_"))} == before, \
        "a usual figure has changed"
    eps = numpy.array([normals(noise_key(1, purpose("evaluate.posterior"), 0), i, 0, Z) for i in range(400)])
    z = mu[:400] + numpy.exp(logvar[:400] / 2) * eps
    density = fitted(run)
    log_q = -0.5 * (math.log(2 * math.pi) + logvar[:400] + eps ** 2).sum(1)
    wanted = {"fitted_cross_entropy": -density.log_density(z).mean(),
              "fitted_kl_mc": (log_q - density.log_density(z)).mean(),
              "prior_cross_entropy": 0.5 * (z ** 2).sum(1).mean() + Z / 2 * math.log(2 * math.pi)}
    wanted["fitted_neg_elbo"] = after["reconstruction"] + wanted["fitted_kl_mc"]
    for key, value in wanted.items():
        assert abs(after[key] - value) < 1e-4 * max(1, abs(value)), (key, after[key], value)
    one = evaluate(run, data, "--eval.iwae_samples=1")
    assert abs(one["fitted_iwae_nll"] - one["fitted_neg_elbo"]) < 1e-6, one
    assert after["fitted_iwae_nll"] < after["fitted_neg_elbo"] < after["neg_elbo"], after
    assert after["fitted_iwae_nll"] < after["iwae_nll"] - 0.3, "the fitted prior makes the text likelier"
    mean = evaluate(run, data, "--eval.posterior=mean")
    assert "fitted_cross_entropy" not in mean, "a mean is no draw"
    return after


def check_samples(scratch, run, before):
    density, count = fitted(run), 200
    numpy.save(scratch / "z.npy", numpy.array([density.sample(1, i) for i in range(count)]).astype(numpy.float32))
    drawn = elbo("sample", run, f"--count={count}", "--greedy").stdout
    with open(scratch / "z.npy", "rb") as file:
        wanted = subprocess.run([ELBO, "decode", run], stdin=file, capture_output=True, text=True, check=True).stdout
    assert drawn == wanted
    assert elbo("sample", run, f"--count={count}", "--greedy", "--fitted=false").stdout == before != drawn
    # A sentence is good if all its words are of one kind, because the text never mixes kinds.
    return [numpy.mean([len({word[0] for word in line.split()}) == 1 for line in text.splitlines()])
            for text in (before, drawn)]


def check_training(scratch, run, given):
    """A run that goes on ignores the fitted prior, and its next checkpoint has none."""
    plain = scratch / "plain"
    shutil.copytree(run, plain)
    for path in checkpoints(plain)[-1].glob("prior-*"):
        path.unlink()
    shutil.copy(scratch / "manifest.json", checkpoints(plain)[-1])
    for folder in (run, plain):
        elbo("train", *options({**given, "run.dir": folder, "train.steps": 310}))
    same(bits(run), bits(plain), "after a fit")
    assert not list(checkpoints(run)[-1].glob("prior-*"))
    assert "fitted_prior" not in json.loads(elbo("info", run, "--json").stdout)


def check_damage(scratch, run):
    copy = scratch / "damaged"
    shutil.copytree(checkpoints(run)[-1], copy)
    path = max(copy.glob("prior-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    said = elbo("sample", copy, code=None)
    assert said.returncode and path.name in said.stderr and "damaged" in said.stderr, said.stderr


def main():
    with Scratch() as scratch:
        kinds(scratch / "text")
        data = scratch / "corpus"
        elbo("prepare", scratch / "text", f"--out={data}")
        run = scratch / "run"
        given = {**GIVEN, "data.train": data, "run.dir": run}
        elbo("train", *options(given))
        shutil.copy(checkpoints(run)[-1] / "manifest.json", scratch)
        out = elbo("encode", run, "--format=jsonl", stdin=(scratch / "text").read_text()).stdout
        lines = [json.loads(line) for line in out.splitlines()]
        mu, logvar = numpy.array([line["mu"] for line in lines]), numpy.array([line["logvar"] for line in lines])
        before = evaluate(run, data, "--eval.iwae_samples=10")
        drawn = elbo("sample", run, "--count=200", "--greedy").stdout
        eps = numpy.array([normals(noise_key(4, purpose("fit_prior.posterior"), 0), i, 0, Z) for i in range(len(mu))])
        entropies = check_fits(run, mu, mu + numpy.exp(logvar / 2) * eps)
        fit(run, "--prior.kind=mixture", "--prior.components=6", "--prior.of=sample")
        info = json.loads(elbo("info", run, "--json").stdout)["fitted_prior"]
        assert info == {"components": 6, "covariance": "full", "sentences": len(mu)}, info
        after = check_evaluation(run, data, mu, logvar, before)
        pure = check_samples(scratch, run, drawn)
        assert pure[1] > 0.95, f"samples of one kind: {pure}"
        check_few(run, data, scratch)
        check_damage(scratch, run)
        check_training(scratch, run, given)
        said = elbo("fit-prior", run, "--prior.components=3", code=2).stderr
        assert "prior.kind=mixture" in said, said
        assert "elbo fit-prior" in elbo("sample", run, "--fitted", code=2).stderr, "it is gone with the checkpoint"
        said = elbo("fit-prior", run, "--prior.iterations=3", code=2).stderr
        assert "prior.kind=mixture" in said, said
        said = elbo("fit-prior", run, "--prior.kind=mixture", "--prior.components=9", "--prior.sentences=8",
                    code=2).stderr
        assert "9" in said and "8 sentences" in said, said
        elbo("prepare", scratch / "text", f"--out={scratch / 'other'}", "--tokenizer.kind=byte")
        assert "--tokenizer.from" in elbo("fit-prior", run, f"--data.train={scratch / 'other'}", code=3).stderr
        print(f"cross entropies of the means {entropies}; of draws: fitted {after['fitted_cross_entropy']:.2f}, "
              f"N(0, 1) {after['prior_cross_entropy']:.2f}; IWAE_10 {after['fitted_iwae_nll']:.2f}, "
              f"{after['iwae_nll']:.2f}; samples of one kind: {pure[1]:.2f}, {pure[0]:.2f}")


if __name__ == "__main__":
    main()
