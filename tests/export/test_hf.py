#!/usr/bin/python3
"""Tests elbo export --format=hf: transformers 4 and 5 read every kind of model and compute what elbo computes."""
import json
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peers  # noqa: E402
import zoo  # noqa: E402
from runs import Scratch, elbo  # noqa: E402

NEAR = 1e-5


def check_comparison(name, found):
    assert "error" not in found, found
    assert found["sentences"] == 200, (name, found)
    for key in ("mu", "logvar", "logits"):
        assert found.get(key, 0) <= NEAR, (name, key, found)


def check_further(name, found, folder, run):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert found["moved"] > 1e-3, (name, found["moved"])
    assert found["again"] and found["fresh"], (name, found)
    assert not found["without_gradient"], (name, found["without_gradient"])
    assert found["sampled"][0] == 3, (name, found)
    if config["latent"]["kind"] == "none":
        return
    assert found["sides"] < NEAR and found["alone"] < NEAR, (name, found["sides"], found["alone"])
    assert found["line"][0] == 4, (name, found)
    prior = prior_of(run, folder)
    weight, mean, factor = prior
    spread = (factor ** 2).sum(-1)
    center = weight @ mean
    deviation = (weight @ (mean ** 2 + spread) - center ** 2) ** 0.5
    drawn = numpy.array(found["draws"])
    assert (abs(drawn[0] - center) < 6 * deviation / 4000 ** 0.5).all(), (name, drawn[0], center)
    assert (abs(drawn[1] / deviation - 1) < 0.15).all(), (name, drawn[1], deviation)
    if config["latent"]["fitted_components"]:
        prior = standard(config["latent"]["width"])
    own = log_density(prior, numpy.array(found["mu"]))
    assert (abs(own - found["log_prior"]) < 1e-3).all(), (name, own, found["log_prior"])


def standard(width):
    return numpy.ones(1), numpy.zeros((1, width)), numpy.eye(width)[None]


def prior_of(run, folder):
    """Returns weights (K), means (K, Z) and factors (K, Z, Z) of the prior that elbo itself draws from."""
    out = folder.with_name(f"{folder.name}-facts")
    zoo.export(run, out, "--format=onnx")
    facts = json.loads((out / "elbo.json").read_text(encoding="utf-8"))
    prior, width = facts["prior"], facts["latent"]["width"]
    if not prior:
        return standard(width)
    factor = numpy.array(prior["factor"])
    factor = factor.reshape(-1, width, width) if prior["full"] else \
        factor.reshape(-1, width, 1) * numpy.eye(width)
    return numpy.exp(prior["log_weight"]), numpy.array(prior["mean"]).reshape(-1, width), factor


def log_density(prior, z):
    """Returns the log density, in nats, of a mixture of Gaussians at each row of z."""
    parts = []
    for weight, mean, factor in zip(*prior):
        e = numpy.linalg.solve(factor, (z - mean).T)
        parts.append(numpy.log(weight) - 0.5 * (e ** 2).sum(0) - numpy.log(numpy.diag(factor)).sum()
                     - 0.5 * len(mean) * numpy.log(2 * numpy.pi))
    return numpy.logaddexp.reduce(parts)


def main():
    versions = peers.present("transformers-4", "transformers-5")
    with Scratch() as scratch:
        zoo.corpora(scratch)
        folders, runs = {}, {}
        for name in zoo.KINDS:
            run, corpus = zoo.train(scratch, name)
            if name == "plain":
                elbo("fit-prior", run, "--prior.of=sample")
            folders[name], runs[name] = scratch / f"hf-{name}", run
            zoo.export(run, folders[name], "--format=hf", f"--check={corpus}")
        for version in versions:
            answer = peers.run(version, pathlib.Path(__file__).with_name("hf_reader.py"), *folders.values())
            assert answer.returncode == 0, answer.stderr[-3000:]
            lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
            assert len(lines) == 2 * len(folders), answer.stdout
            worst = 0
            for (name, folder), comparison, further in zip(folders.items(), lines[::2], lines[1::2]):
                check_comparison(name, comparison)
                check_further(name, further, folder, runs[name])
                worst = max([worst, *(comparison.get(key, 0) for key in ("mu", "logvar", "logits"))])
            print(f"{version}: {len(folders)} kinds of models, mu, logvar and logits within {worst:.1e}")


if __name__ == "__main__":
    main()
