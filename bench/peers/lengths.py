#!/usr/bin/env python3
"""Times training steps of step.py's VAE on sentences of several lengths, padded to the longest of the batch: the peer
of `elbo bench step` on a corpus of the same lengths.

    bench/peers/lengths.py LENGTHS [--device=cuda] [--sentences=600] [--longest=100] [--precision=bf16|f32]
                           [--modes=eager,compile] [--batches=4] [--rounds=5] [--out=FILE]

LENGTHS: a JSON array whose entry n is the number of sentences of n words; sentences longer than --longest are cut.
Sentences come in random order. Useful tokens are words and end marks. The sizes are step.py's."""
import argparse
import contextlib
import json
import pathlib
import random
import time
import traceback
import types

import timing
import torch
import training_torch
from torch import nn


def batches_of(given):
    counts = json.loads(pathlib.Path(given.lengths).read_text(encoding="utf-8"))
    chosen = random.Random(1)
    lengths = chosen.choices(range(len(counts)), counts, k=given.batches * given.sentences)
    sentences = [[chosen.randrange(3, given.vocabulary) for _ in range(max(1, min(n, given.longest)))] for n in lengths]
    for i in range(0, len(sentences), given.sentences):
        batch = sentences[i:i + given.sentences]
        words, labels, there, lengths_, mask = training_torch.tensors(batch)
        yield sum(len(s) + 1 for s in batch), [None if x is None else x.to(given.device)
                                               for x in (words, labels, there, lengths_, mask)]


def measure(given, mode, batches, dynamic=True):
    """dynamic: the argument of torch.compile; None lets torch.compile find the sizes that change."""
    torch.manual_seed(1)
    model = training_torch.Vae(types.SimpleNamespace(width=given.width, layers=given.layers, heads=given.heads,
                                                     vocabulary=given.vocabulary, latent=given.latent,
                                                     words=given.longest, positions=given.longest + 2,
                                                     device=given.device, dense_mask=True)).to(given.device)
    fused = {"fused": True} if given.device.startswith("cuda") else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, **fused)
    run = torch.compile(model, dynamic=dynamic) if mode == "compile" else model
    clock = timing.Clock(given.device, flush=False)

    def one(batch):
        with torch.autocast(given.device.split(":")[0], torch.bfloat16) if given.precision == "bf16" \
            else contextlib.nullcontext():
            loss = run(*batch, 0.5)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    began = time.perf_counter()
    for _ in range(2):
        for _, batch in batches:
            one(batch)
    warm = time.perf_counter() - began
    seconds = [clock.once(lambda b=batch: one(b)) for _ in range(given.rounds) for _, batch in batches]
    useful = given.rounds * sum(tokens for tokens, _ in batches)
    padded = sum(batch[1].numel() for _, batch in batches) / sum(tokens for tokens, _ in batches)
    found = {"mode": mode, "precision": given.precision, "tokens_per_second": useful / sum(seconds),
             "tokens": useful // len(seconds), "padded": padded, "warm_up_seconds": warm, **timing.figures(seconds)}
    if clock.cuda:
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths")
    for name, default in (("sentences", 600), ("longest", 100), ("width", 768), ("layers", 12), ("heads", 12),
                          ("vocabulary", 50257), ("latent", 32), ("batches", 4), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--out")
    given = parser.parse_args()
    results = {**timing.machine(given.device), "sizes": {k: v for k, v in vars(given).items() if isinstance(v, int)},
               "rows": [], "missing": []}
    batches = list(batches_of(given))
    for mode in given.modes.split(","):
        if mode == "compile" and not timing.has("compile"):
            results["missing"].append("torch.compile")
            continue
        for dynamic in (True, None) if mode == "compile" else (None,): # the first way that works in this PyTorch
            try:
                results["rows"].append(measure(given, mode, batches, dynamic))
                break
            # A mode that fails is a result, whatever torch raises.
            except Exception as error: # pylint: disable=broad-except
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = (str(error).strip() or repr(error)).splitlines()[0]
                results["missing"].append(
                    f"{mode}, dynamic {dynamic}, {given.precision}: {said} ({where.filename}:{where.lineno})")
                if timing.has("compiler.reset"):
                    torch.compiler.reset()
    timing.show(results, given.out)


if __name__ == "__main__":
    main()
