"""PyTorch's side of bench/peers/training: the VAE of step.py on sentences of several lengths, padded to the longest of
the batch.

    training_torch.py BATCHES WIDTH LAYERS HEADS VOCABULARY THREADS WEIGHTS MODE

Arguments, input and output lines are those of training.c. MODE is eager, compile, or medium: eager with products
that round their operands to bf16. The second output line also has the version. Batches become tensors, with their
masks, before the first step."""
import json
import re
import struct
import sys
import time
import types

import numpy
import step
import torch
from torch.nn import functional as F

START, END, PAD, NO_LABEL = 0, 1, 2, -100
NAMES = {"attention.norm": "norm1", "attention.qkv": "qkv", "attention.output": "output", "attention.memory": "memory",
         "feed_forward.norm": "norm2", "feed_forward.input": "up", "feed_forward.output": "down"}
TABLES = {"decoder.embedding.token.weight": "token.weight",
          "encoder.embedding.position.weight": "encoder_position.weight",
          "decoder.embedding.position.weight": "decoder_position.weight",
          "decoder.latent.embedding.weight": "embed_z.weight", "latent.head.weight": "head.weight",
          "latent.head.bias": "head.bias"}


def read_batches(path):
    with open(path, "rb") as file:
        data = file.read()
    numbers = iter(struct.unpack(f"<{len(data) // 4}I", data))
    return [[[next(numbers) for _ in range(next(numbers))] for _ in range(next(numbers))] for _ in range(next(numbers))]


def safetensors(path):
    """Returns name -> tensor."""
    with open(path, "rb") as file:
        data = file.read()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in about["data_offsets"])
            found[name] = torch.from_numpy(numpy.frombuffer(data[begin:end], "<f4").reshape(about["shape"]).copy())
    return found


def read_weights(path):
    """Returns name in this model -> tensor."""
    found = {}
    for name, tensor in safetensors(path).items():
        stack, _, rest = name.partition(".")
        layer, _, rest = rest.partition(".")
        if name in TABLES:
            own = TABLES[name]
        elif layer == "norm":
            own = f"{stack}_norm.{rest}"
        else:
            part, _, kind = rest.rpartition(".")
            own = f"{stack}.{layer}.{NAMES[part]}.{kind}"
        found[own] = tensor
    return found


class Vae(step.Vae):
    """The VAE for sentences of several lengths."""

    def forward(self, words, labels, there, lengths, mask, beta): # pylint: disable=arguments-differ
        """words (S, T + 2) with marks and padding; labels (S, T + 1); there (S, 1, 1, T + 2): the encoder's attention
        mask; lengths (S, 1) with marks; `there` and `lengths` are None when nothing is padded; mask (T + 1, T + 2).
        Returns the mean loss per sentence."""
        sentences = words.shape[0]
        x = self.token(words) + self.encoder_position.weight[:words.shape[1]]
        for block in self.encoder:
            x = block(x, None, there)
        x = self.encoder_norm(x)
        h = x.mean(1) if there is None else (x * there[:, 0, 0, :, None]).sum(1) / lengths
        mu, logvar = self.head(h).chunk(2, -1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum()
        y = self.token(words[:, :-1]) + self.decoder_position.weight[:words.shape[1] - 1] + self.embed_z(z)[:, None]
        for block in self.decoder:
            y = block(y, z, mask)
        logits = F.linear(self.decoder_norm(y), self.token.weight)
        nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=NO_LABEL)
        return (nll + beta * kl) / sentences


def tensors(sentences):
    longest = max(map(len, sentences))
    words = torch.tensor([[START, *s, END] + [PAD] * (longest - len(s)) for s in sentences])
    labels = torch.tensor([[*s, END] + [NO_LABEL] * (longest - len(s)) for s in sentences])
    lengths = torch.tensor([[len(s) + 2] for s in sentences])
    even = bool((lengths == longest + 2).all())
    there = None if even else (torch.arange(longest + 2)[None] < lengths)[:, None, None]
    mask = step.causal_bias(longest + 1, longest + 2, "cpu", True) # the form that the CPU's attention accepts
    return words, labels, there, None if even else lengths.float(), mask


def main():
    path, width, layers, heads, vocabulary, threads, weights, mode = sys.argv[1:]
    with open("/proc/self/status", encoding="ascii") as file:
        print(int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    sentences = read_batches(path)
    batches = [tensors(batch) for batch in sentences]
    longest = max(len(s) for batch in sentences for s in batch)
    del sentences
    model = Vae(types.SimpleNamespace(width=int(width), layers=int(layers), heads=int(heads),
                                      vocabulary=int(vocabulary), latent=32, words=longest, positions=longest + 2,
                                      device="cpu", dense_mask=True))
    if mode == "medium":
        torch.set_float32_matmul_precision("medium")
    model.load_state_dict({**read_weights(weights)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    uneven = len({batch[0].shape for batch in batches}) > 1
    run = torch.compile(model, dynamic=uneven) if mode == "compile" else model
    print(sum(p.numel() for p in model.parameters()), torch.__version__, flush=True)
    for line in sys.stdin:
        batch = batches[int(line) % len(batches)]
        began = time.perf_counter()
        loss = run(*batch, 0.5)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        del loss
        print(f"{time.perf_counter() - began:.9f} {value:.9g}", flush=True)


if __name__ == "__main__":
    main()
