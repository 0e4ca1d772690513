#!/usr/bin/python3
"""Tests elbo export --format=onnx: onnx's full check, onnxruntime and, for Transformer decoders, onnxruntime-genai read
every kind of model and compute what elbo computes; weights of 8 and 4 bits give near values."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peers  # noqa: E402
import zoo  # noqa: E402
from runs import Scratch, elbo  # noqa: E402

NEAR = 1e-4
FEW = ("plain", "llama", "bag", "lstm-concat", "prefix-llama")  # also with weights of few bits
LOGITS_OFF = {8: 0.05, 4: 0.5}  # largest difference of the logits from those of 32 bits


def check_comparison(name, found):
    assert "error" not in found, found
    assert found["sentences"] == 200 and found["checked"], (name, found)
    assert max(found.get(key, 0) for key in ("mu", "logvar", "logits")) <= NEAR, (name, found)
    assert not found["other_greedy_ids"] and found["other_token_ids"] == 0, (name, found)


def check_further(name, found, folder):
    facts = json.loads((folder / "elbo.json").read_text(encoding="utf-8"))
    assert max(found.get(key, 0) for key in ("padding", "left", "one_by_one")) <= NEAR, (name, found)
    assert facts["latent"]["kind"] == "none" or found["moved"] > 1e-3, (name, found)
    assert (facts["decoder_stack"]["kind"] == "transformer") == ("genai" in found), (name, found)
    assert not found.get("genai"), f"{name}: onnxruntime-genai writes {found['genai']} sentences otherwise"
    if "weights" in found:
        assert abs(found["weights"] - 1) < 1e-6 and found["sizes"][0] == found["sizes"][1], (name, found)
    assert (facts["prior"] is None) == (facts["latent"]["kind"] == "none" or facts["latent"]["prior"] == "standard" and
                                        not facts["latent"]["fitted_components"]), name


def read(folders):
    answer = peers.run("onnx", pathlib.Path(__file__).with_name("onnx_reader.py"), *folders)
    assert answer.returncode == 0, answer.stderr[-3000:]
    lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 2 * len(folders), answer.stdout
    return lines[::2], lines[1::2]


def check_bits(scratch):
    folders = {}
    for name in FEW:
        run, corpus = scratch / f"run-{name}", scratch / "word"
        for bits in (8, 4):
            folders[name, bits] = scratch / f"onnx-{name}-{bits}"
            zoo.export(run, folders[name, bits], "--format=onnx", f"--bits={bits}", f"--check={corpus}")
        sizes = [(scratch / f"onnx-{name}{few}" / "weights.bin").stat().st_size for few in ("-4", "-8", "")]
        assert sizes == sorted(sizes) and sizes[0] < sizes[2], (name, sizes)
    for (name, bits), found in zip(folders, read(folders.values())[0]):
        assert 0 < found["logits"] < LOGITS_OFF[bits], (name, bits, found)


def main():
    peers.present("onnx")
    with Scratch() as scratch:
        zoo.corpora(scratch)
        folders = {}
        for name in zoo.KINDS:
            run, corpus = zoo.train(scratch, name)
            if name == "plain":
                elbo("fit-prior", run, "--prior.of=sample")
            folders[name] = scratch / f"onnx-{name}"
            zoo.export(run, folders[name], "--format=onnx", f"--check={corpus}")
        comparisons, others = read(folders.values())
        worst = 0
        for (name, folder), comparison, other in zip(folders.items(), comparisons, others):
            check_comparison(name, comparison)
            check_further(name, other, folder)
            worst = max([worst, *(comparison.get(key, 0) for key in ("mu", "logvar", "logits"))])
        check_bits(scratch)
        elbo("export", scratch / "run-plain", "--format=onnx", "--part=encoder", f"--out={scratch / 'x'}", code=2)
        elbo("export", scratch / "run-plain", "--format=hf", "--bits=8", f"--out={scratch / 'x'}", code=2)
    print(f"{len(folders)} kinds of models, mu, logvar and logits within {worst:.1e}, greedy ids the same in "
          f"{sum('genai' in other for other in others)} of them by onnxruntime-genai too")


if __name__ == "__main__":
    main()
