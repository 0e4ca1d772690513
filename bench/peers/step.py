#!/usr/bin/env python3
"""Times a training step of the VAE of docs/model.md in ordinary PyTorch code: the peer of `elbo bench step`.

    bench/peers/step.py [--device=cuda] [--sentences=256] [--words=32] [--width=768] [--layers=12] [--vocabulary=50257]
                        [--modes=eager,compile] [--precision=bf16|f32] [--steps=20] [--out=FILE]

Sentences have one length, so nothing is padded: S sentences of W words are S (W + 1) decoder tokens. bf16 is
autocast with f32 weights; attention is scaled_dot_product_attention; the update is the fused AdamW after clipping
the global norm. Features that this PyTorch lacks are named under "missing" and left out. --tiny: sizes for a check
on a CPU."""
import argparse
import contextlib
import math
import statistics
import time

import timing
import torch
from torch import nn
from torch.nn import functional as F


def causal_bias(queries, keys, device, dense):
    """Lets every query attend to the keys before the sentence and to its own past. Unless `dense`, the mask has the
    form that fast kernels accept."""
    if not dense:
        from torch.nn.attention.bias import causal_lower_right # PyTorch 2.3 and later
        return causal_lower_right(queries, keys)
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def attend(q, k, v, mask):
    if timing.has("nn.functional.scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v


class Block(nn.Module):
    def __init__(self, width, heads, latent, layers):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.memory = nn.Linear(latent, 2 * width, bias=False) if latent else None
        for layer in (self.output, self.down):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, x, z, mask):
        sentences, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(sentences, length, 3, self.heads,
                                               width // self.heads).permute(2, 0, 3, 1, 4)
        if self.memory is not None:
            first = self.memory(z).view(sentences, 1, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            k, v = torch.cat((first[0].to(k.dtype), k), 2), torch.cat((first[1].to(v.dtype), v), 2)
        y = attend(q, k, v, mask).transpose(1, 2).reshape(sentences, length, width)
        x = x + self.output(y)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Vae(nn.Module):
    def __init__(self, given):
        super().__init__()
        width, layers = given.width, given.layers
        self.token = nn.Embedding(given.vocabulary, width)
        self.encoder_position, self.decoder_position = (nn.Embedding(given.positions, width) for _ in range(2))
        self.encoder = nn.ModuleList(Block(width, given.heads, 0, layers) for _ in range(layers))
        self.decoder = nn.ModuleList(Block(width, given.heads, given.latent, layers) for _ in range(layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * given.latent)
        self.embed_z = nn.Linear(given.latent, width, bias=False)
        for table in (self.token, self.encoder_position, self.decoder_position):
            nn.init.normal_(table.weight, std=0.02)
        self.mask = causal_bias(given.words + 1, given.words + 2, given.device, given.dense_mask)

    def forward(self, words, beta):
        """words (S, W + 2) with marks. Returns the mean loss per sentence."""
        sentences = words.shape[0]
        x = self.token(words) + self.encoder_position.weight[:words.shape[1]]
        for block in self.encoder:
            x = block(x, None, None)
        mu, logvar = self.head(self.encoder_norm(x).mean(1)).float().chunk(2, -1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum()
        y = self.token(words[:, :-1]) + self.decoder_position.weight[:words.shape[1] - 1] + self.embed_z(z)[:, None]
        for block in self.decoder:
            y = block(y, z, self.mask)
        logits = F.linear(self.decoder_norm(y), self.token.weight)
        nll = F.cross_entropy(logits.flatten(0, 1).float(), words[:, 1:].flatten(), reduction="sum")
        return (nll + beta * kl) / sentences


def measure(given, mode):
    torch.manual_seed(1)
    model = Vae(given).to(given.device)
    fused = {"fused": True} if given.device.startswith("cuda") else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, **fused)
    run = torch.compile(model) if mode == "compile" else model
    half = given.precision == "bf16"
    batches = [torch.randint(3, given.vocabulary, (given.sentences, given.words + 2), device=given.device)
               for _ in range(4)]
    losses = []

    def step(i):
        with torch.autocast(given.device.split(":")[0], torch.bfloat16) if half else contextlib.nullcontext():
            loss = run(batches[i % len(batches)], 0.5)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())

    clock = timing.Clock(given.device, flush=False)
    began = time.perf_counter()
    for i in range(given.warm_up):
        step(i)
    if clock.cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    warm = time.perf_counter() - began
    seconds = [clock.once(lambda i=i: step(i)) for i in range(given.steps)]
    found = timing.figures(seconds)
    tokens = given.sentences * (given.words + 1)
    found.update(mode=mode, precision=given.precision, mask="dense" if given.dense_mask else "lower right",
                 tokens=tokens, tokens_per_second=tokens / statistics.median(seconds),
                 parameters=sum(p.numel() for p in model.parameters()), warm_up_seconds=warm,
                 losses=[float(losses[0]), float(losses[-1])])
    if clock.cuda:
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("sentences", 256), ("words", 32), ("width", 768), ("layers", 12), ("heads", 12),
                          ("vocabulary", 50257), ("latent", 32), ("steps", 20), ("warm_up", 5)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--positions", type=int, default=0, help="0: as many as the words and their marks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out")
    given = parser.parse_args()
    if given.tiny:
        given.sentences, given.words, given.width, given.layers, given.heads, given.vocabulary = 3, 5, 16, 2, 2, 50
        given.steps, given.warm_up = 4, 1
    given.positions = given.positions or given.words + 2
    results = {**timing.machine(given.device), "sizes": {k: v for k, v in vars(given).items() if isinstance(v, int)},
               "rows": [], "missing": []}
    for mode in given.modes.split(","):
        if mode == "compile" and not timing.has("compile"):
            results["missing"].append("torch.compile")
            continue
        for given.dense_mask in (False, True): # the first form that works in this PyTorch
            try:
                results["rows"].append(measure(given, mode))
                break
            # A mode that fails is a result, whatever torch raises.
            except Exception as error: # pylint: disable=broad-except
                mask = "dense" if given.dense_mask else "lower right"
                results["missing"].append(
                    f"{mode}, {given.precision}, {mask} mask: {(str(error).strip() or repr(error)).splitlines()[0]}")
    timing.show(results, given.out)


if __name__ == "__main__":
    main()
