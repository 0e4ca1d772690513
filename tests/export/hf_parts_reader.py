"""Reads exported parts with transformers and sentence-transformers: `hf_parts_reader.py KIND FOLDER REFERENCE ...`
prints a line of JSON for each triple. REFERENCE: the check/ folder of the whole model's export. Warnings are
errors."""
import json
import logging
import pathlib
import sys
import warnings

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

HEARD = []


class Ear(logging.Handler):
    def emit(self, record):
        HEARD.append(record.getMessage())


def listen():
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in ("transformers", "sentence_transformers"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.addHandler(Ear(logging.WARNING))


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def sentences(reference, words):
    ids, offsets = reference["ids"], reference["offsets"].tolist()
    return [ids[a:b].tolist() for a, b in list(zip(offsets, offsets[1:]))[:words["logits_of"]]]


def decoder(folder, reference, words):
    """Computes the logits of a decoder with z's additions to its rows: through inputs_embeds, and through hooks behind
    its blocks."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    added = load_file(folder / "elbo-latent.safetensors") if (folder / "elbo-latent.safetensors").exists() else {}
    table, got = model.get_input_embeddings().weight, []
    blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    start = model.config.bos_token_id
    with torch.no_grad():
        for row, s in enumerate(sentences(reference, words)):
            x, hooks, skipped = table[[start, *s]][None], [], 0
            if "decoder.latent.prefix.weight" in added:
                rows = reference["mu"][row] @ added["decoder.latent.prefix.weight"].T
                rows = (rows + added["decoder.latent.prefix.bias"]).view(1, -1, x.shape[-1])
                x, skipped = torch.cat([rows, x], 1), rows.shape[1]
            if "decoder.latent.embedding.weight" in added:
                x = x + reference["mu"][row] @ added["decoder.latent.embedding.weight"].T
            for k, block in enumerate(blocks):
                w = added.get(f"decoder.{k}.residual.weight")
                if w is not None:
                    z = reference["mu"][row] @ w.T
                    hooks.append(block.register_forward_hook(
                        lambda m, i, o, z=z: (o[0] + z, *o[1:]) if isinstance(o, tuple) else o + z))
            got.append(model(inputs_embeds=x).logits[0, skipped:])
            for hook in hooks:
                hook.remove()
    return {"logits": relative(torch.cat(got), reference["logits"])}


def encoder(folder, reference, words):
    """Computes mu with sentence-transformers, and compares the hidden rows of BertModel with those of the whole
    model."""
    from sentence_transformers import SentenceTransformer
    texts = [(i, text) for i, text in enumerate(words["text"]) if text is not None]
    mu = torch.tensor(SentenceTransformer(str(folder), device="cpu").encode([text for _, text in texts],
                                                                            show_progress_bar=False))
    found = {"mu": relative(mu, reference["mu"][[i for i, _ in texts]])}
    whole = AutoModel.from_pretrained(folder.parent / folder.name.replace("part", "hf"), trust_remote_code=True).eval()
    bert, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([text for _, text in texts[:9]], padding=True, return_tensors="pt")
    with torch.no_grad():
        mask = batch.attention_mask.bool()
        ours = whole.encoder(whole.embed(batch.input_ids, True), mask=mask)[0]
        theirs = bert(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    found["hidden"] = relative(theirs[mask], ours[mask])
    return found


def main():
    listen()
    torch.set_num_threads(2)
    for kind, folder, check in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
        check = pathlib.Path(check)
        reference = load_file(check / "reference.safetensors")
        words = json.loads((check / "reference.json").read_text(encoding="utf-8"))
        HEARD.clear()
        found = {"encoder": encoder, "decoder": decoder}[kind](pathlib.Path(folder), reference, words)
        print(json.dumps({**found, "heard": HEARD}))


if __name__ == "__main__":
    main()
