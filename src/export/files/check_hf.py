"""Compares this folder with what elbo itself said of some sentences (reference.safetensors, reference.json).

    python check/check_hf.py          prints a line of JSON; exit code 1 when anything differs by more than it may

Needs PyTorch, transformers and safetensors."""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from reference import parts

MAY_DIFFER = 1e-5  # relative: ||a - b|| / ||b||
CHECK = pathlib.Path(__file__).resolve().parent
torch.set_num_threads(2)


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()


def batch_of(config, sentences):
    longest = max(map(len, sentences)) + 2
    ids = torch.full((len(sentences), longest), config.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, words in enumerate(sentences):
        ids[row, :len(words) + 2] = torch.tensor([config.bos_token_id, *words, config.eos_token_id])
        mask[row, :len(words) + 2] = 1
    return ids, mask


def main():
    reference = load_file(CHECK / "reference.safetensors")
    words = json.loads((CHECK / "reference.json").read_text(encoding="utf-8"))
    model = AutoModel.from_pretrained(CHECK.parent, trust_remote_code=True).eval()
    config, found = model.config, {}
    sentences, greedy = (parts(reference[name], reference[f"{prefix}offsets"])
                         for name, prefix in (("ids", ""), ("greedy", "greedy_")))
    label = words["label"] if config.label_names else None
    tokenizer = AutoTokenizer.from_pretrained(CHECK.parent, trust_remote_code=True)
    texts = [(text, ids) for text, ids in zip(words["text"], sentences) if text is not None]
    own = tokenizer([text for text, _ in texts])["input_ids"]
    found["other_token_ids"] = sum(a != [config.bos_token_id, *b, config.eos_token_id] for a, (_, b) in zip(own, texts))
    with torch.no_grad():
        ids, mask = batch_of(config, sentences)
        z = None
        if "mu" in reference:
            mu, logvar = model.encode(ids, mask, label)
            found["mu"], found["logvar"] = relative(mu, reference["mu"]), relative(logvar, reference["logvar"])
            z = mu
        some = words["logits_of"]
        logits = model(ids[:some], mask[:some], label=label).logits
        logits = torch.cat([logits[row, :len(sentences[row]) + 1] for row in range(some)])
        found["logits"] = relative(logits, reference["logits"])
        written = model.generate(z, count=len(sentences), label=label)
    found["sentences"] = len(sentences)
    found["other_greedy_ids"] = sum(row[:len(g)].tolist() != g or bool((row[len(g):] != config.eos_token_id).any())
                                    for row, g in zip(written, greedy))
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    found["other_greedy_texts"] = sum(a != b for a, b in zip(texts, words["greedy"]))
    print(json.dumps(found))
    wrong = [name for name, value in found.items()
             if name != "sentences" and not value <= (0 if name.startswith("other") else MAY_DIFFER)]
    if wrong:
        sys.exit(f"the export differs from the model: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
