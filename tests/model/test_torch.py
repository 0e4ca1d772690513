#!/usr/bin/python3
"""The whole VAE against PyTorch in double precision: loss, its parts, every gradient, and the cached generation path.

The model below is written from the mathematics, one sentence at a time, with PyTorch's own differentiation; it shares nothing
with the program but the weights, the sentences and the noise. Tolerances: tests/tolerances.h.
"""
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import numpy

try:
    import torch
except ImportError:
    print("PyTorch is missing, so the comparison is left out")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
TOOL = pathlib.Path(os.environ.get("ELBO_TESTS", HERE.parents[1] / "build/c/tests")) / "model_dump_step"
TOLERANCE = {name: float(value) for name, value in
             re.findall(r"X\((\w+), ([0-9.e-]+),", (HERE.parent / "tolerances.h").read_text())}
LAYERNORM, RMSNORM = 0, 1
PRE, POST = 0, 1
LEARNED, ROTARY = 0, 1
GELU, SWIGLU = 0, 1
MEAN, FIRST, LAST, ATTENTION = range(4)
BOTH, MEMORY, EMBEDDING = range(3)
PER_DIMENSION, TOTAL, PER_GROUP = range(3)
KEEP, CHEAP, BLOCK = range(3)
torch.set_num_threads(1)
worst = {}


def read_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    kinds = {"F32": "<f4", "I32": "<i4"}
    return {name: numpy.frombuffer(data, kinds[t["dtype"]], count=int(numpy.prod(t["shape"], dtype=int)),
                                   offset=8 + size + t["data_offsets"][0]).reshape(t["shape"])
            for name, t in json.loads(data[8:8 + size]).items() if name != "__metadata__"}


class Model:
    """The VAE of docs/model.md for one configuration."""

    def __init__(self, config, weights):
        self.c = config
        self.w = {name: torch.tensor(w.astype(numpy.float64), requires_grad=True) for name, w in weights.items()}
        self.used = set()

    def get(self, name):
        self.used.add(name)
        return self.w[name]

    def opt(self, stack, key, default=0):
        return self.c.get(f"{stack}.{key}", default)

    def linear(self, stack, x, name):
        y = x @ self.get(name + ".weight").T
        return y + self.get(name + ".bias") if self.opt(stack, "norm") == LAYERNORM else y

    def norm(self, stack, x, name):
        if self.opt(stack, "norm") == RMSNORM:
            return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.get(name + ".weight")
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.get(name + ".weight") + self.get(name + ".bias")

    @staticmethod
    def rotate(x):
        """x (T, heads, W): coordinate i is turned with coordinate i + W / 2 by position / 10000^(2i / W)."""
        length, _, width = x.shape
        i = torch.arange(width // 2, dtype=torch.float64)
        angle = torch.arange(length, dtype=torch.float64)[:, None, None] * 10000.0 ** (-2 * i / width)
        a, b = x[..., :width // 2], x[..., width // 2:]
        return torch.cat([a * torch.cos(angle) - b * torch.sin(angle), a * torch.sin(angle) + b * torch.cos(angle)], -1)

    def attention(self, stack, layer, x, z, causal):
        heads = self.opt(stack, "heads", 2)
        kv = self.opt(stack, "kv_heads") or heads
        length, width = x.shape[0], self.opt(stack, "width", 12) // heads
        q, k, v = self.linear(stack, x, f"{stack}.{layer}.attention.qkv").split([heads * width, kv * width, kv * width], -1)
        q, k, v = q.view(length, heads, width), k.view(length, kv, width), v.view(length, kv, width)
        if self.opt(stack, "positions") == ROTARY:
            q, k = self.rotate(q), self.rotate(k)
        memory = 0
        if z is not None:
            memory = self.c.get("latent.memory", 1)
            m = (self.get(f"{stack}.{layer}.attention.memory.weight") @ z).view(memory, 2, kv, width)
            k, v = torch.cat([m[:, 0], k]), torch.cat([m[:, 1], v])
        out = []
        for h in range(heads):
            group = h // (heads // kv)
            scores = q[:, h] @ k[:, group].T / math.sqrt(width)
            if causal:
                visible = torch.arange(memory + length)[None] <= memory + torch.arange(length)[:, None]
                scores = scores.masked_fill(~visible, -math.inf)
            out.append(torch.softmax(scores, -1) @ v[:, group])
        return self.linear(stack, torch.cat(out, -1), f"{stack}.{layer}.attention.output")

    def feed_forward(self, stack, layer, x):
        h = self.linear(stack, x, f"{stack}.{layer}.feed_forward.input")
        if self.opt(stack, "activation") == SWIGLU:
            gate, up = h.chunk(2, -1)
            h = gate * torch.sigmoid(gate) * up
        else:
            h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h ** 3)))
        return self.linear(stack, h, f"{stack}.{layer}.feed_forward.output")

    def stack(self, stack, ids, added, z, causal):
        shared = stack == "encoder" and self.c.get("share_embedding", 0)
        x = self.get(("decoder" if shared else stack) + ".embedding.token.weight")[ids]
        if self.opt(stack, "positions") == LEARNED:
            x = x + self.get(stack + ".embedding.position.weight")[:len(ids)]
        if added is not None:
            x = x + added
        for layer in range(self.opt(stack, "layers", 2)):
            for kind in ("attention", "feed_forward"):
                name = f"{stack}.{layer}.{kind}.norm"
                branch = (lambda y: self.attention(stack, layer, y, z, causal)) if kind == "attention" else \
                         (lambda y: self.feed_forward(stack, layer, y))
                if self.opt(stack, "norm_position") == PRE:
                    x = x + branch(self.norm(stack, x, name))
                else:
                    x = self.norm(stack, x + branch(x), name)
        return self.norm(stack, x, stack + ".norm") if self.opt(stack, "norm_position") == PRE else x

    def posterior(self, ids):
        """mu | logvar of one sentence."""
        x = self.stack("encoder", ids, None, None, False)
        pooling = self.opt("encoder", "pooling")
        if pooling == ATTENTION:
            h = torch.softmax(x @ self.get("encoder.pool.query"), 0) @ x
        else:
            h = {MEAN: x.mean(0), FIRST: x[0], LAST: x[-1]}[pooling]
        return self.get("latent.head.weight") @ h + self.get("latent.head.bias")

    def logits(self, ids, z):
        """(T, V) of one sentence."""
        injection = self.c.get("latent.injection", BOTH)
        added = self.get("decoder.latent.embedding.weight") @ z if z is not None and injection != MEMORY else None
        y = self.stack("decoder", ids, added, z if injection != EMBEDDING else None, True)
        return y @ self.get("decoder.embedding.token.weight" if self.c.get("tie_output", 0) else "decoder.output.weight").T

    def slot(self, t, weights):
        """The loss of one slot and all that is compared, from its arrays."""
        variational = self.c.get("latent.kind", 0) == 0
        width, out = self.c.get("latent.width", 6), {"stats": [], "nll": [], "logits": [], "z": []}
        for s in range(len(t["decoder.offsets"]) - 1):
            z = None
            if variational:
                a, b = t["encoder.offsets"][s:s + 2]
                stats = self.posterior(torch.tensor(t["encoder.ids"][a:b].astype(numpy.int64)))
                eps = torch.tensor(t["eps"][s, :width].astype(numpy.float64))
                z = stats[:width] + torch.exp(stats[width:] / 2) * eps
                out["stats"].append(stats)
                out["z"].append(z)
            a, b = t["decoder.offsets"][s:s + 2]
            logits = self.logits(torch.tensor(t["decoder.ids"][a:b].astype(numpy.int64)), z)
            labels = torch.tensor(t["decoder.labels"][a:b].astype(numpy.int64))
            out["nll"].append((torch.logsumexp(logits, -1) - logits[torch.arange(len(labels)), labels]).sum())
            out["logits"].append(logits)
        nll = torch.stack(out["nll"]).sum()
        kl = free = torch.zeros((), dtype=torch.float64)
        if variational:
            stats = torch.stack(out["stats"])
            mu, logvar = stats[:, :width], stats[:, width:]
            each = (mu ** 2 + torch.exp(logvar) - 1 - logvar) / 2
            groups = {PER_DIMENSION: width, TOTAL: 1, PER_GROUP: self.c.get("free.groups", 1)}[self.c.get("free.kind", 0)]
            parts = each.mean(0).view(groups, -1).sum(-1)
            free = len(each) * torch.clamp(parts, min=self.c.get("free.nats", 0.3)).sum()
            kl = each.sum()
            out["kl_dim"] = each.sum(0)
            out["moments"] = torch.stack([stats.sum(0), (stats ** 2).sum(0)], -1)
        loss = weights[0] * nll + weights[1] * free
        out["parts"] = torch.stack([loss, nll, kl, free])
        return loss, out


def flat(values):
    values = torch.stack(values) if isinstance(values, list) else values
    return values.detach().numpy()


class WholeModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()
        print("worst errors:", ", ".join(f"{what} {error:.1e}" for what, error in sorted(worst.items())), file=sys.stderr)

    def dump(self, **config):
        path = pathlib.Path(self.folder.name) / "step.safetensors"
        settings = [f"{key.replace('__', '.')}={value}" for key, value in config.items()]
        done = subprocess.run([TOOL, path, *settings], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        tensors = read_safetensors(path)
        tensors["plan"] = int(done.stdout)
        return tensors

    def close(self, what, a, b, tolerance, floor=0.0):
        difference, norm = numpy.linalg.norm(a.astype(numpy.float64) - b), max(numpy.linalg.norm(b), floor)
        error = difference / norm if norm else difference
        kind = what.split()[0]
        worst[kind] = max(worst.get(kind, 0), error if numpy.isfinite(error) else math.inf)
        self.assertLessEqual(error, tolerance, what)

    def gradients(self, tensors):
        return {name[2:]: t for name, t in tensors.items() if name.startswith("g.")}

    def compare(self, **config):
        t = self.dump(**config)
        model = Model({key.replace("__", "."): value for key, value in config.items()},
                      {name[2:]: w for name, w in t.items() if name.startswith("w.")})
        total, model_tolerance = 0, TOLERANCE["MODEL"]
        for slot in ("0", "1"):
            arrays = {name[2:]: a for name, a in t.items() if name.startswith(slot + ".")}
            loss, out = model.slot(arrays, t["weights"].astype(numpy.float64))
            total = total + loss
            for what in ("parts", "nll", "kl_dim", "moments", "stats", "z"):
                if what in arrays:
                    self.close(what, arrays[what], flat(out[what]), model_tolerance)
            for s, logits in enumerate(out["logits"]):
                self.close("logits", arrays["logits"][s, :len(logits)], flat(logits), TOLERANCE["CACHED"])
            # and the two paths of the program against each other
            for s, logits in enumerate(out["logits"]):
                row = arrays["logits"][s, :len(logits)].astype(numpy.float64)
                a, b = arrays["decoder.offsets"][s:s + 2]
                nll = (numpy.log(numpy.exp(row).sum(-1)) - row[numpy.arange(b - a), arrays["decoder.labels"][a:b]]).sum()
                self.close("cached", arrays["nll"][s], nll, TOLERANCE["CACHED"])
        total.backward()
        gradients = self.gradients(t)
        self.assertEqual(model.used, set(gradients), "every parameter is in both models")
        wanted = {name: w.grad.numpy() if w.grad is not None else numpy.zeros(w.shape) for name, w in model.w.items()}
        whole = math.sqrt(sum(numpy.linalg.norm(g) ** 2 for g in wanted.values()))
        floor = 1e-3 * whole / math.sqrt(len(wanted))
        for name, g in gradients.items():
            self.close(f"gradient of {name}", g, wanted[name], model_tolerance, floor)
        return t, wanted, whole

    # ---- what may be chosen ----

    def test_defaults(self):
        self.compare()

    def test_injection(self):
        for injection in (BOTH, MEMORY, EMBEDDING):
            for memory in (1, 2):
                with self.subTest(injection=injection, memory=memory):
                    self.compare(latent__injection=injection, latent__memory=memory)

    def test_without_latent(self):
        for tie in (0, 1):
            self.compare(latent__kind=1, tie_output=tie)

    def test_norms(self):
        for norm in (LAYERNORM, RMSNORM):
            for position in (PRE, POST):
                for layers in (0, 1, 3):
                    with self.subTest(norm=norm, position=position, layers=layers):
                        self.compare(encoder__norm=norm, decoder__norm=norm, encoder__norm_position=position,
                                     decoder__norm_position=position, encoder__layers=layers, decoder__layers=layers)

    def test_positions_and_activations(self):
        for positions in (LEARNED, ROTARY):
            for activation in (GELU, SWIGLU):
                with self.subTest(positions=positions, activation=activation):
                    self.compare(encoder__positions=positions, decoder__positions=positions, encoder__activation=activation,
                                 decoder__activation=activation, encoder__ff_width=20, decoder__ff_width=33)

    def test_heads(self):
        for heads, kv in ((1, 0), (4, 1), (4, 2), (3, 3), (6, 2)):
            with self.subTest(heads=heads, kv=kv):
                self.compare(encoder__width=24, decoder__width=24, encoder__heads=heads, decoder__heads=heads,
                             encoder__kv_heads=kv, decoder__kv_heads=kv, latent__memory=2)

    def test_pooling(self):
        for pooling in (MEAN, FIRST, LAST, ATTENTION):
            with self.subTest(pooling=pooling):
                self.compare(encoder__pooling=pooling)

    def test_tables(self):
        for tie in (0, 1):
            for share in (0, 1):
                with self.subTest(tie=tie, share=share):
                    self.compare(tie_output=tie, share_embedding=share)

    def test_free_bits(self):
        for kind, nats, groups in ((PER_DIMENSION, 0.0, 1), (PER_DIMENSION, 1.2, 1), (TOTAL, 2.0, 1), (TOTAL, 500.0, 1),
                                   (PER_GROUP, 2.5, 3), (PER_GROUP, 3.5, 2)):
            with self.subTest(kind=kind, nats=nats):
                self.compare(free__kind=kind, free__nats=nats, free__groups=groups)

    def test_plain_autoencoder(self):
        self.compare(latent__sample=0)
        self.compare(latent__sample=0, weight__kl=0)

    def test_unequal_stacks(self):
        self.compare(encoder__width=10, encoder__heads=5, encoder__layers=1, decoder__width=21, decoder__heads=3,
                     encoder__norm=RMSNORM, encoder__positions=ROTARY, encoder__activation=SWIGLU, latent__width=5,
                     vocabulary=131, tie_output=1)
        self.compare(encoder__width=64, decoder__width=48, encoder__heads=4, decoder__heads=4, decoder__norm=RMSNORM,
                     decoder__positions=ROTARY, decoder__activation=SWIGLU, decoder__kv_heads=2, latent__width=33,
                     vocabulary=500, longest=17, encoder__pooling=ATTENTION, decoder__norm_position=POST)

    # ---- what must hold besides ----

    def test_dropout_is_for_training_alone(self):
        """Masks change the gradients of a training step, and nothing in the recordings of evaluation and generation."""
        kept, dropped = self.dump(), self.dump(encoder__dropout=0.2, decoder__dropout=0.2)
        for name in ("0.stats", "0.nll", "0.logits", "1.z"):
            self.assertEqual(kept[name].tobytes(), dropped[name].tobytes(), name)
        for name in ("0.parts", "g.decoder.1.feed_forward.input.weight", "g.encoder.embedding.token.weight"):
            self.assertNotEqual(kept[name].tobytes(), dropped[name].tobytes(), name)

    def test_gradients_that_are_zero(self):
        """A bias on all keys shifts all scores of a query: no gradient, unless latent keys stand beside or rotation turns it."""
        t, wanted, whole = self.compare()
        for layer in (0, 1):
            key = self.gradients(t)[f"encoder.{layer}.attention.qkv.bias"][12:24]
            self.assertLess(numpy.linalg.norm(wanted[f"encoder.{layer}.attention.qkv.bias"][12:24]), 1e-12 * whole)
            self.assertLess(numpy.linalg.norm(key), TOLERANCE["ZERO"] * whole)
            self.assertGreater(numpy.linalg.norm(wanted[f"decoder.{layer}.attention.qkv.bias"][12:24]), 1e-6 * whole)

    def test_recompute_has_the_same_bits(self):
        for config in ({}, dict(encoder__norm_position=POST, decoder__norm_position=POST),
                       dict(encoder__activation=SWIGLU, decoder__positions=ROTARY, tie_output=1, share_embedding=1),
                       dict(encoder__layers=4, decoder__layers=4, encoder__pooling=ATTENTION),
                       dict(encoder__dropout=0.2, decoder__dropout=0.3, encoder__layers=4)):
            kept = self.dump(**config)
            for policy in (CHEAP, BLOCK):
                with self.subTest(policy=policy, **config):
                    again = self.dump(recompute=policy, **config)
                    for name, g in self.gradients(kept).items():
                        self.assertEqual(g.tobytes(), self.gradients(again)[name].tobytes(), name)
                    self.assertEqual(kept["1.parts"].tobytes(), again["1.parts"].tobytes())
                    if config.get("encoder__layers") == 4:
                        self.assertLess(again["plan"], kept["plan"])

    def test_threads_have_the_same_bits(self):
        kept = self.dump(threads=1)
        for threads in (2, 3, 8):
            again = self.dump(threads=threads)
            for name in kept:
                if name != "plan":
                    self.assertEqual(kept[name].tobytes(), again[name].tobytes(), name)

    def test_unwanted_groups(self):
        """Bits are encoder, latent, decoder x decay, no decay. What is not wanted is not written; the rest keeps its bits."""
        parts = {"encoder": 0, "latent": 1, "decoder": 2}
        kept = self.gradients(self.dump())
        for wanted in (0b000011, 0b001100, 0b110000, 0b101010, 0b001111, 0b010000):
            for recompute in (KEEP, BLOCK):
                some = self.gradients(self.dump(wanted=wanted, recompute=recompute))
                for name, g in some.items():
                    bit = 2 * parts[name.split(".")[0]] + (0 if g.ndim > 1 else 1)
                    with self.subTest(wanted=bin(wanted), name=name):
                        if wanted >> bit & 1:
                            self.assertEqual(g.tobytes(), kept[name].tobytes())
                        else:
                            self.assertTrue((numpy.frombuffer(g.tobytes(), numpy.uint32) == 0xFFFFFFFF).all())


if __name__ == "__main__":
    unittest.main()
