#!/usr/bin/python3
"""Tests elbo export --format=gguf and elbo encode --format=cvec. gguf's reader must find every tensor and key; the
logits, computed in NumPy from the file, must be elbo's; with llama_cpp, llama.cpp must write the same greedy text;
models that llama.cpp cannot represent must be refused with the reason."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peers  # noqa: E402
import zoo  # noqa: E402
from runs import Scratch, elbo  # noqa: E402
from zoo import both, of  # noqa: E402

LLAMA = both(**zoo.LLAMA)


def ways(injection, **further):
    return {"latent.injection": injection, **further}


KINDS = {
    "residual": {**ways("residual"), **of("decoder", layers=3)},
    "prefix": ways("prefix", **{"latent.prefix": 3}),
    "embedding": {**ways("embedding"), "decoder.tie_output": "false"},
    "all": {**ways("embedding,prefix,residual"), **of("decoder", layers=4, ff_width=40)},
    "llama-residual": {**LLAMA, **ways("residual"), **of("decoder", layers=3), "decoder.tie_output": "false"},
    "llama-prefix": {**LLAMA, **ways("prefix")},
    "llama-all": {**LLAMA, **ways("embedding,prefix,residual"), **of("decoder", heads=8)},
    "bpe": {**ways("residual"), "tokenizer": "bpe"},
    "byte": {**LLAMA, **ways("residual"), "tokenizer": "byte"},
    "labels": {**ways("residual"), "data.labels": "true"},
    "language-model": {**LLAMA, "latent.kind": "none", **{key: v for key, v in LLAMA.items() if "decoder" in key}},
}
REFUSED = {
    "memory": ({}, "memory"), "lstm": (zoo.LSTM, "recurrent"), "skip": ({**ways("residual"), "latent.skip": "true"},
                                                                      "latent.skip"),
    "post": ({**ways("residual"), **of("decoder", norm_position="post")}, "norm_position"),
}


def check_refusals(scratch):
    for name, (kind, reason) in REFUSED.items():
        run, _ = zoo.train(scratch, f"refused-{name}", kind)
        answer = elbo("export", run, "--format=gguf", f"--out={scratch / 'refused'}", code=2)
        assert reason in answer.stderr and not (scratch / "refused").exists(), answer.stderr
    for name, words in (("memory", "memory,embedding"), ("lstm", "init,concat"), ("skip", "latent.skip")):
        answer = elbo("encode", scratch / f"run-refused-{name}", "--format=cvec", f"--out={scratch / 'v'}", code=2,
                      stdin="w1 w2\n")
        assert words in answer.stderr and "residual" in answer.stderr, answer.stderr


def check_vectors(scratch):
    """Writes one file per sentence into a folder that is an export; a second call replaces the folder whole."""
    out, run = scratch / "vectors", scratch / "run-residual"
    lines = "w1 w2 w3\nw4\n\nw5 w6\n"
    for text, count in ((lines, 4), ("w1\n", 1)):
        elbo("encode", run, "--format=cvec", f"--out={out}", stdin=text)
        files = sorted(path.name for path in out.glob("*.gguf"))
        assert files == [f"sentence-{i + 1:06d}.gguf" for i in range(count)], files
    elbo("encode", run, "--format=cvec", f"--out={out}", stdin=lines)
    foreign = scratch / "foreign"
    foreign.mkdir()
    (foreign / "notes").write_text("mine")
    elbo("encode", run, "--format=cvec", f"--out={foreign}", stdin=lines, code=2)
    assert [path.name for path in foreign.iterdir()] == ["notes"]
    latents = [json.loads(line)["z"] for line in elbo("encode", run, "--format=jsonl", stdin=lines).stdout.splitlines()]
    (scratch / "latents.json").write_text(json.dumps(latents))
    answer = peers.run("onnx", pathlib.Path(__file__).with_name("gguf_reader.py"), scratch / "gguf-residual", out,
                       scratch / "latents.json")
    assert answer.returncode == 0, answer.stderr[-2000:]
    found = json.loads(answer.stdout)
    assert found["files"] == len(latents) == 4 and found["worst"] < 1e-6 and found["moved"] > 1e-3, found


def check_quantized(scratch):
    """Quantizes two decoders to Q8_0 with llama.cpp; the nats of the sentences must be within 0.5 % of those of elbo's
    weights."""
    for name in ("all", "llama-all"):
        answer = peers.run("llama", pathlib.Path(__file__).with_name("llama_reader.py"), scratch / f"gguf-{name}")
        assert answer.returncode == 0, answer.stderr[-3000:]
        found = json.loads(answer.stdout)
        print(f"{name}: nats by NumPy {found['numpy']:.3f}, by llama.cpp {found['f32']:.3f}, "
              f"of its Q8_0 {found['q8']:.3f}")
        assert abs(found["f32"] / found["numpy"] - 1) < 1e-3 and abs(found["q8"] / found["numpy"] - 1) < 0.005, found
        assert found["sizes"][1] < found["sizes"][0], found


def main():
    with Scratch() as scratch:
        zoo.corpora(scratch)
        check_refusals(scratch)
        peers.present("onnx")
        worst, by_llama = 0, []
        for name, kind in KINDS.items():
            run, corpus = zoo.train(scratch, name, kind)
            folder = scratch / f"gguf-{name}"
            zoo.export(run, folder, "--format=gguf", f"--check={corpus}")
            answer = peers.run("llama" if peers.python("llama") else "onnx", folder / "check" / "check_gguf.py")
            assert answer.returncode == 0, (name, answer.stdout, answer.stderr[-3000:])
            found = json.loads(answer.stdout)
            assert found["sentences"] == 200 and found["logits"] < 1e-5, (name, found)
            worst = max(worst, found["logits"])
            if "other_greedy_ids" in found:
                by_llama.append(found)
                llama = "llama" in name or name == "byte"
                assert found["other_greedy_ids"] == (0 if llama else found["of_these_near"]), (name, found)
        check_vectors(scratch)
        if by_llama:
            check_quantized(scratch)
    print(f"{len(KINDS)} kinds of decoders, logits within {worst:.1e}; by llama.cpp: {len(by_llama)} kinds, "
          f"{sum(f['other_greedy_ids'] for f in by_llama)} sentences otherwise, all of them between near logits")


if __name__ == "__main__":
    main()
