"""Reads exported graphs with onnx and onnxruntime: `onnx_reader.py FOLDER ...` prints two lines of JSON for each."""
import json
import pathlib
import runpy
import sys

import numpy


def further(folder, check):
    """Checks beyond the comparison: padding, batches, tokens one by one, the prior."""
    model, found = check["Model"](), {}
    facts = model.facts
    words = json.loads((folder / "check" / "reference.json").read_text(encoding="utf-8"))
    model.label = words["label"]
    rng = numpy.random.default_rng(1)
    sentences = [rng.integers(3, facts["vocab_size"], size).tolist() for size in (2, 5, 9)]
    z = None
    if model.encoder:
        ids, mask = check["batch_of"](facts, sentences)
        together = model.encode(ids, mask)
        alone = [model.encode(ids[i:i + 1, :len(s) + 2], mask[i:i + 1, :len(s) + 2]) for i, s in enumerate(sentences)]
        found["padding"] = max(check["gap"](together[k], numpy.concatenate([a[k] for a in alone])) for k in (0, 1))
        z = together[0]
    ids = numpy.array([[facts["bos_token_id"], *sentences[0], *sentences[1]]] * 3, numpy.int64)
    whole, _ = model.decode(ids, z, model.empty(3))
    state, rows = model.empty(3), []
    for t in range(ids.shape[1]):
        row, state = model.decode(ids[:, t:t + 1], z, state, t)
        rows.append(row)
    found["one_by_one"] = check["gap"](whole, numpy.concatenate(rows, 1))
    if z is not None:
        found["moved"] = float(numpy.abs(whole - model.decode(ids, z + 1, model.empty(3))[0]).max())
    if "attention_mask" in model.wanted:  # a sentence after padding, as in runtimes that batch prompts
        short = numpy.array([[facts["bos_token_id"], *sentences[0]]], numpy.int64)
        behind = numpy.concatenate([numpy.full((1, 4), facts["pad_token_id"], numpy.int64), short], 1)
        given = {**model.empty(1), "input_ids": behind, "z": None if z is None else z[:1],
                 "attention_mask": numpy.array([[0] * 4 + [1] * short.shape[1]], numpy.int64),
                 "label": model.labels(1) if "label" in model.wanted else None}
        padded = model.decoder.run(["logits"], {name: given[name] for name in model.wanted})[0]
        found["left"] = check["gap"](padded[:, 4:], model.decode(short, given["z"], model.empty(1))[0])
    prior = facts["prior"]
    if prior:
        found["weights"] = float(numpy.exp(prior["log_weight"]).sum())
        found["sizes"] = [len(prior["log_weight"]) * facts["latent"]["width"], len(prior["mean"])]
    return found


def genai(folder, check):
    """Counts the sentences that onnxruntime-genai decodes differently, greedily, in batches of 32."""
    import onnxruntime_genai as og
    reference = check["load"](folder / "check" / "reference.safetensors")
    words = json.loads((folder / "check" / "reference.json").read_text(encoding="utf-8"))
    facts = json.loads((folder / "elbo.json").read_text(encoding="utf-8"))
    greedy = check["parts"](reference["greedy"], reference["greedy_offsets"])
    model, other, held = og.Model(str(folder)), 0, []
    for first in range(0, len(greedy), 32):
        count = min(32, len(greedy) - first)
        params = og.GeneratorParams(model)
        params.set_search_options(do_sample=False, batch_size=count, max_length=facts["max_positions"] - 1)
        generator = og.Generator(model, params)
        if "mu" in reference:
            held.append(reference["mu"][first:first + count].copy())
            generator.set_model_input("z", held[-1])
        if facts["label_names"]:
            held.append(numpy.full(count, words["label"], numpy.int64))
            generator.set_model_input("label", held[-1])
        generator.append_tokens(numpy.full((count, 1), facts["bos_token_id"], numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
        for row in range(count):
            found, wanted = generator.get_sequence(row).tolist()[1:], greedy[first + row]
            other += found[:len(wanted)] != wanted or any(i != facts["eos_token_id"] for i in found[len(wanted):])
        del generator
    return other


def main():
    for name in sys.argv[1:]:
        folder = pathlib.Path(name)
        sys.path.insert(0, str(folder / "check"))
        check = runpy.run_path(str(folder / "check" / "check_onnx.py"))
        try:
            check["main"]()
        except SystemExit as end:
            print(json.dumps({"error": f"{folder.name}: {end}"}))
        found = further(folder, check)
        if (folder / "genai_config.json").exists():
            found["genai"] = genai(folder, check)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
