#!/usr/bin/python3
"""elbo export --format=hf: transformers 4 and 5 read every kind of model, and find what elbo finds."""
import json
import pathlib
import sys

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


def check_further(name, found, folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert found["moved"] > 1e-3, (name, found["moved"])
    assert found["again"] and found["fresh"], (name, found)
    assert not found["without_gradient"], (name, found["without_gradient"])
    assert found["sampled"][0] == 3, (name, found)
    if config["latent"]["kind"] == "none":
        return
    assert found["sides"] < NEAR and found["alone"] < NEAR, (name, found["sides"], found["alone"])
    assert found["line"][0] == 4, (name, found)
    mean, deviation = found["draws"]
    if config["latent"]["prior"] == "standard" and not config["latent"]["fitted_components"]:
        assert max(map(abs, mean)) < 0.1 and max(abs(x - 1) for x in deviation) < 0.1, (name, found["draws"])


def main():
    versions = peers.present("transformers-4", "transformers-5")
    with Scratch() as scratch:
        zoo.corpora(scratch)
        folders = {}
        for name in zoo.KINDS:
            run, corpus = zoo.train(scratch, name)
            if name == "plain":
                elbo("fit-prior", run, "--prior.of=sample")
            folders[name] = scratch / f"hf-{name}"
            zoo.export(run, folders[name], "--format=hf", f"--check={corpus}")
        for version in versions:
            answer = peers.run(version, pathlib.Path(__file__).with_name("hf_reader.py"), *folders.values())
            assert answer.returncode == 0, answer.stderr[-3000:]
            lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
            assert len(lines) == 2 * len(folders), answer.stdout
            worst = 0
            for (name, folder), comparison, further in zip(folders.items(), lines[::2], lines[1::2]):
                check_comparison(name, comparison)
                check_further(name, further, folder)
                worst = max([worst, *(comparison.get(key, 0) for key in ("mu", "logvar", "logits"))])
            print(f"{version}: {len(folders)} kinds of models, mu, logvar and logits within {worst:.1e}")


if __name__ == "__main__":
    main()
