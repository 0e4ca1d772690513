"""Computes the nats of a corpus's first sentences with llama.cpp, each at the mean of its posterior: `llama_reader.py
FOLDER` prints those of model.gguf, those of llama.cpp's own Q8_0 of it, and those of NumPy's logits."""
import json
import pathlib
import runpy
import sys

import numpy


def nats_of(logits, token):
    logits = logits.astype(float)
    return float(numpy.logaddexp.reduce(logits) - logits[token])


def main():
    import llama_cpp
    folder = pathlib.Path(sys.argv[1])
    sys.path.insert(0, str(folder / "check"))
    check = runpy.run_path(str(folder / "check" / "check_gguf.py"))
    reference = check["load"](folder / "check" / "reference.safetensors")
    words = json.loads((folder / "check" / "reference.json").read_text(encoding="utf-8"))
    facts = json.loads((folder / "elbo.json").read_text(encoding="utf-8"))
    file = check["File"](check["Latent"](words["label"]))
    sentences = check["parts"](reference["ids"], reference["offsets"])
    latents = reference["mu"].astype(float) if "mu" in reference else [None] * len(sentences)
    small = folder.with_name(f"{folder.name}-q8.gguf")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = 7, 2  # 7: mostly Q8_0
    code = llama_cpp.llama_model_quantize(str(folder / "model.gguf").encode(), str(small).encode(), params)
    assert code == 0, code
    sums = {}
    for name, path in (("f32", folder / "model.gguf"), ("q8", small)):
        llama, nats = check["Llama"](file, path, facts["max_positions"] - 2), 0.0
        for s, z in zip(sentences, latents):
            at, token = llama.begin(z), facts["bos_token_id"]
            for wanted in [*s, facts["eos_token_id"]]:
                nats += nats_of(llama.next(token, z, at), wanted)
                at, token = at + 1, wanted
        sums[name] = nats
    sums["numpy"] = sum(nats_of(row, wanted) for s, z in zip(sentences, latents) for row, wanted in zip(
        file.logits([facts["bos_token_id"], *s], z), [*s, facts["eos_token_id"]]))
    print(json.dumps({**sums, "sizes": [(folder / "model.gguf").stat().st_size, small.stat().st_size]}))


if __name__ == "__main__":
    main()
