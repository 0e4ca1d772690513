"""The VAE of docs/model.md in PyTorch and double precision, with its addressed noise. It is written from that page, one
sentence at a time, with PyTorch's own differentiation. The tests share only weights, sentences and noise with the
program."""
import json
import math
import pathlib
import re
import sys

import numpy

try:
    import torch
except ImportError:
    print("PyTorch is missing, so the comparison is left out")
    sys.exit(77)

TOLERANCE = {name: float(value) for name, value in
             re.findall(r"X\((\w+), ([0-9.e-]+),",
                        (pathlib.Path(__file__).resolve().parents[1] / "tolerances.h").read_text())}
LAYERNORM, RMSNORM = 0, 1
PRE, POST = 0, 1
LEARNED, ROTARY = 0, 1
GELU, SWIGLU = 0, 1
MEAN, FIRST, LAST, ATTENTION = range(4)
# encoder.kind -> the number that dump_step takes
STACK_KINDS = {"transformer": 0, "bow": 1, "lstm": 2, "gru": 3}
# Ways for z into the decoder; dump_step takes a sum of these.
BOTH, MEMORY, EMBEDDING, RESIDUAL, PREFIX, INIT, CONCAT = (1 << bit for bit in range(7))
RECURRENT_KINDS = (STACK_KINDS["lstm"], STACK_KINDS["gru"])
STANDARD, DIAGONAL, MIXTURE, VAMP = range(4)
PER_DIMENSION, TOTAL, PER_GROUP = range(3)
KEEP, CHEAP, BLOCK = range(3)
torch.set_num_threads(1)

NORMAL, NO_LATENT, DELTA, SLASHED = range(4)  # latent.kind


def read_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    kinds = {"F32": "<f4", "F64": "<f8", "I32": "<i4"}
    return {name: numpy.frombuffer(data, kinds[t["dtype"]], count=int(numpy.prod(t["shape"], dtype=int)),
                                   offset=8 + size + t["data_offsets"][0]).reshape(t["shape"])
            for name, t in json.loads(data[8:8 + size]).items() if name != "__metadata__"}


def slashed_root(x):
    """Returns the r with exp(r) - r - 1 = x^2 and the sign of x."""
    square = x.double() ** 2
    low = torch.where(x < 0, -square - 2, torch.zeros_like(square))
    high = torch.where(x < 0, torch.zeros_like(square), 2 + square)
    for _ in range(200):
        r = (low + high) / 2
        up = (torch.exp(r) - r - 1 < square) == (x > 0)
        low, high = torch.where(up, r, low), torch.where(up, high, r)
    return (low + high) / 2


class Model:
    """The VAE of docs/model.md for one configuration."""

    def __init__(self, config, weights):
        self.c = config
        self.w = {name: torch.tensor(w.astype(numpy.float64), requires_grad=True) for name, w in weights.items()}
        self.used = set()
        self.z = None
        self.label = None # class of the current sentence, of a model with labels

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
        return self.layer_norm(x, name)

    def layer_norm(self, x, name):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.get(name + ".weight") + self.get(name + ".bias")

    @staticmethod
    def rotate(x):
        """Rotates x (T, heads, W): coordinate i turns with coordinate i + W / 2 by position / 10000^(2i / W)."""
        length, _, width = x.shape
        i = torch.arange(width // 2, dtype=torch.float64)
        angle = torch.arange(length, dtype=torch.float64)[:, None, None] * 10000.0 ** (-2 * i / width)
        a, b = x[..., :width // 2], x[..., width // 2:]
        return torch.cat([a * torch.cos(angle) - b * torch.sin(angle), a * torch.sin(angle) + b * torch.cos(angle)], -1)

    def attention(self, stack, layer, x, z, causal):
        heads = self.opt(stack, "heads", 2)
        kv = self.opt(stack, "kv_heads") or heads
        length, width = x.shape[0], self.opt(stack, "width", 12) // heads
        qkv = self.linear(stack, x, f"{stack}.{layer}.attention.qkv")
        q, k, v = qkv.split([heads * width, kv * width, kv * width], -1)
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

    @staticmethod
    def gelu(h):
        return 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h ** 3)))

    def feed_forward(self, stack, layer, x):
        h = self.linear(stack, x, f"{stack}.{layer}.feed_forward.input")
        if self.opt(stack, "activation") == SWIGLU:
            gate, up = h.chunk(2, -1)
            h = gate * torch.sigmoid(gate) * up
        else:
            h = self.gelu(h)
        return self.linear(stack, h, f"{stack}.{layer}.feed_forward.output")

    def drop(self, stack, where, x):
        """Dropout, for training only; tests/model/test_frozen_names.py overrides it."""
        return x

    def drop_variances(self, variances):
        """Dropout of variances above their floor."""
        return variances

    def stack(self, stack, ids, added, z, causal):
        """Returns the rows (T, D) of one sentence."""
        kind = next(name for name, number in STACK_KINDS.items() if number == self.opt(stack, "kind"))
        return getattr(self, kind)(stack, ids, added, z, causal)

    def embedded(self, stack, ids):
        if ids.is_floating_point(): # ids are rows already
            return ids
        shared = stack == "encoder" and self.c.get("share_embedding", 0)
        table = self.get(("decoder" if shared else stack) + ".embedding.token.weight")
        mark = ("decoder" if shared else stack) + ".embedding.mark.weight"
        if mark in self.w:
            table = torch.cat([table, self.get(mark)])
        return table[ids]

    def skipped(self, x, name):
        """Returns x, with z added if the decoder has the weight of that name."""
        weight = f"{name}.skip.weight"
        return x + self.get(weight) @ self.z if self.z is not None and weight in self.w else x

    def residual(self, x, name):
        """Returns x, with z added behind a block if the decoder has the weight of that name."""
        weight = f"{name}.residual.weight"
        return x + self.get(weight) @ self.z if self.z is not None and weight in self.w else x

    def transformer(self, stack, ids, added, z, causal):
        remembered = z if self.ways() & MEMORY else None
        x = self.embedded(stack, ids)
        if z is not None and self.ways() & PREFIX:
            rows = self.get("decoder.latent.prefix.weight") @ z + self.get("decoder.latent.prefix.bias")
            x = torch.cat([rows.view(-1, x.shape[1]), x])
        if self.opt(stack, "positions") == LEARNED:
            x = x + self.get(stack + ".embedding.position.weight")[:len(x)]
        if added is not None:
            x = x + added
        x = self.norm(stack, x, f"{stack}.embedding.norm") if self.opt(stack, "embedding_norm") else x
        x = self.drop(stack, f"{stack}.embedding", x)
        for layer in range(self.opt(stack, "layers", 2)):
            x = self.skipped(x, f"{stack}.{layer}")
            for kind in ("attention", "feed_forward"):
                name = f"{stack}.{layer}.{kind}.norm"
                pre = self.opt(stack, "norm_position") == PRE
                y = self.norm(stack, x, name) if pre else x
                y = self.attention(stack, layer, y, remembered, causal) if kind == "attention" \
                    else self.feed_forward(stack, layer, y)
                x = x + self.drop(stack, f"{stack}.{layer}.{kind}", y)
                x = x if pre else self.norm(stack, x, name)
            x = self.residual(x, f"{stack}.{layer}")
        return self.norm(stack, x, stack + ".norm") if self.opt(stack, "norm_position") == PRE else x

    def bow(self, stack, ids, added, _z, _causal):
        x = self.embedded(stack, ids)
        x = self.drop(stack, f"{stack}.embedding", x if added is None else x + added)
        hidden = self.get(f"{stack}.hidden.weight"), self.get(f"{stack}.hidden.bias")
        return self.layer_norm(self.gelu(x @ hidden[0].T + hidden[1]), f"{stack}.norm")

    def lstm(self, stack, ids, added, z, causal):
        return self.recurrent(stack, ids, added, z, causal, 4)

    def gru(self, stack, ids, added, z, causal):
        return self.recurrent(stack, ids, added, z, causal, 3)

    def cell(self, gates, name, x, state, own):
        """Runs one layer on one sentence with PyTorch's own kernel; z's addend is the weight of an input that is always
        1."""
        hidden = self.get(f"{name}.hidden.weight")
        units, flat = hidden.shape[1], []
        both = len(hidden) // gates // units
        zeros = torch.zeros(both, 1, units, dtype=torch.float64)
        if own is not None:
            x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], -1)
        for d in range(both):
            rows = slice(d * gates * units, (d + 1) * gates * units)
            w = self.get(f"{name}.input.weight")[rows]
            flat += [w if own is None else torch.cat([w, own[rows, None]], -1), hidden[rows],
                     self.get(f"{name}.input.bias")[rows],
                     self.get(f"{name}.hidden.bias")[rows] if gates == 3
                     else torch.zeros(gates * units, dtype=torch.float64)]
        if state is None: # only a decoder has a state, in one direction
            first = (zeros, zeros) if gates == 4 else zeros
        else:
            first = tuple(state.view(2, 1, 1, units)) if gates == 4 else state.view(1, 1, units)
        run = torch._VF.lstm if gates == 4 else torch._VF.gru
        return run(x[:, None], first, flat, True, 1, 0.0, False, both == 2, False)[0][:, 0]

    def recurrent(self, stack, ids, added, z, _causal, gates):
        ways = self.ways()
        x = self.embedded(stack, ids)
        x = self.drop(stack, f"{stack}.embedding", x if added is None else x + added)
        for layer in range(self.opt(stack, "layers", 2)):
            name, state, own = f"{stack}.{layer}", None, None
            x = self.skipped(x, name)
            if z is not None and ways & INIT:
                first = self.get(f"{name}.init.weight") @ z + self.get(f"{name}.init.bias")
                state = torch.tanh(first) if self.c.get("latent.init_tanh", 0) else first
            if z is not None and ways & CONCAT and layer == 0:
                own = self.get(f"{name}.latent.weight") @ z
            y = self.drop(stack, f"{name}.recurrent", self.cell(gates, name, x, state, own))
            x = x + y if self.opt(stack, "residual") and layer else y
        return x

    def ways(self):
        """Returns the ways for z into the decoder, with the two that `both` stands for."""
        given = self.c.get("latent.injection", BOTH)
        recurrent = self.opt("decoder", "kind") in RECURRENT_KINDS
        return given | (INIT | CONCAT if recurrent else MEMORY | EMBEDDING) if given & BOTH else given

    def labelled(self, stack, added):
        """Returns the addend of every input, with the row of the sentence's label."""
        if self.label is None:
            return added
        row = self.get(f"{stack}.embedding.label.weight")[self.label]
        return row if added is None else added + row

    def posterior(self, ids):
        """Returns mu | logvar of one sentence."""
        return self.statistics(self.head(ids)[None])[0]

    def statistics(self, heads):
        """Returns mu | logvar of a slot's sentences from the head's output; a single sentence uses the running
        statistics."""
        kind, width = self.c.get("latent.kind", 0), heads.shape[1] // 2
        a, b = heads[:, :width], heads[:, width:]
        if kind == DELTA:
            delta = self.c.get("latent.delta", 0.15)
            low, high = (math.exp(slashed_root(torch.tensor(sign * math.sqrt(2 * delta))).item() / 2)
                         for sign in (-1, 1))
            sigma = low + (high - low) * torch.sigmoid(b)
            mu = torch.sqrt(2 * delta + 1 + 2 * torch.log(sigma) - sigma ** 2 + torch.clamp(a, min=0))
            return torch.cat([mu, 2 * torch.log(sigma)], 1)
        if kind == SLASHED:
            heads = self.rated(heads)
            x = math.sqrt(2) * heads[:, width:]
            root = slashed_root(x.detach())
            logvar = root - (torch.exp(root) - root - 1 - x ** 2) / (torch.exp(root) - 1)  # this step gives the slope
            return torch.cat([math.sqrt(2) * heads[:, :width], logvar], 1)
        return torch.cat(self.normalized(a, b), 1) if self.c.get("latent.normalize", 0) else heads

    def normalized(self, mu, logvar):
        du, gamma = self.c["latent.normalize"] == 2, self.c.get("latent.gamma", 0.5)
        mean, variance = self.get("latent.normalize.running").detach()
        if len(mu) > 1:
            mean, variance = mu.mean(0), mu.var(0, unbiased=False)
        gain = torch.tensor(gamma)
        if du:
            weight = self.get("latent.normalize.weight")[0]
            gain = gamma * math.sqrt(len(weight)) * weight / weight.norm()
            variances = self.drop_variances(torch.exp(logvar))
            logvar = torch.log(self.c.get("latent.alpha", 1) / (2 * math.pi * math.e) + variances)
        return (mu - mean) / torch.sqrt(variance + 1e-5) * gain + self.get("latent.normalize.bias"), logvar

    def rated(self, heads):
        rate, scope, width = self.c.get("objective.rate", 0), self.c.get("objective.rate_scope", 0), heads.shape[1] // 2
        if not rate:
            return heads
        if scope == 0:
            return heads * math.sqrt(rate) / heads.norm(dim=1, keepdim=True)
        square = self.get("latent.rate.running").detach()[1]
        pairs = heads.reshape(len(heads), 2, width)
        if len(heads) > 1:
            square = (pairs ** 2).sum(1).mean(0) if scope == 2 else (heads ** 2).sum(1).mean().reshape(1)
        return (pairs * torch.sqrt((rate / width if scope == 2 else rate) / square)).reshape(heads.shape)

    def head(self, ids):
        """Returns the output of the latent head for one sentence."""
        x = self.stack("encoder", ids, self.labelled("encoder", None), None, False)
        pooling = self.opt("encoder", "pooling")
        if pooling == ATTENTION:
            h = torch.softmax(x @ self.get("encoder.pool.query"), 0) @ x
        else:
            h = {MEAN: x.mean(0), FIRST: x[0], LAST: x[-1]}[pooling]
            if pooling == LAST and self.c.get("encoder.bidirectional", 0):
                h = torch.cat([x[-1].chunk(2)[0], x[0].chunk(2)[1]])
        return self.get("latent.head.weight") @ h + self.get("latent.head.bias")

    def front(self):
        """Returns the number of prefix rows in front of a sentence."""
        latent = self.c.get("latent.kind", NORMAL) != NO_LATENT
        return self.c.get("latent.prefix", 4) if latent and self.ways() & PREFIX else 0

    def logits(self, ids, z):
        """Returns the logits (T, V) of one sentence, without prefix rows."""
        added = self.get("decoder.latent.embedding.weight") @ z if z is not None and self.ways() & EMBEDDING else None
        self.z = z
        y = self.stack("decoder", ids, self.labelled("decoder", added), z, True)
        y = self.skipped(y, "decoder.output")[self.front():]
        return y @ self.get("decoder.embedding.token.weight" if self.c.get("tie_output", 0)
                            else "decoder.output.weight").T

    @staticmethod
    def log_normal(z, stats):
        """Returns log N(z; mu, exp(logvar)), stats (..., 2Z)."""
        mu, logvar = stats.chunk(2, -1)
        return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu) ** 2 / torch.exp(logvar)).sum(-1)

    def components(self):
        """Returns the components (K, 2Z) and log weights (K) of a mixture prior."""
        if self.c["latent.prior"] == MIXTURE:
            means, logvars = self.get("latent.prior.components").chunk(2, 0)
            return torch.cat([means, logvars], -1), torch.log_softmax(self.get("latent.prior.logits"), 0)
        count = self.c.get("latent.pseudo_inputs", 4)
        inputs, own, self.label = self.get("latent.prior.inputs"), self.label, None # pseudo-inputs have no label
        inputs = inputs.reshape(count, -1, inputs.shape[1])
        stats, self.label = torch.stack([self.posterior(rows) for rows in inputs]), own
        return stats, torch.full((count,), -math.log(count))

    def log_prior(self, z):
        stats, weights = self.components()
        return torch.logsumexp(weights + self.log_normal(z, stats), -1)

    def kl(self, stats, z):
        """Returns the KL (S, Z) by dimension, or (S, 1) at the draw."""
        prior, (mu, logvar) = self.c.get("latent.prior", STANDARD), stats.chunk(2, -1)
        if prior == STANDARD:
            return (mu ** 2 + torch.exp(logvar) - 1 - logvar) / 2
        if prior == DIAGONAL:
            mean, own = self.get("latent.prior.stats").chunk(2)
            return torch.distributions.kl_divergence(torch.distributions.Normal(mu, torch.exp(logvar / 2)),
                                                     torch.distributions.Normal(mean, torch.exp(own / 2)))
        return torch.stack([self.log_normal(z[s], stats[s]) - self.log_prior(z[s]) for s in range(len(z))])[:, None]

    def slot(self, t, weights):
        """Returns the loss of one slot and all compared values, from the slot's arrays."""
        variational = self.c.get("latent.kind", 0) != NO_LATENT
        width, out = self.c.get("latent.width", 6), {"stats": [], "nll": [], "logits": [], "z": []}
        count = len(t["decoder.offsets"]) - 1
        if variational:
            heads = []
            for s, (a, b) in enumerate(zip(t["encoder.offsets"], t["encoder.offsets"][1:])):
                self.label = int(t["label"][s]) if self.c.get("labels", 0) else None
                heads.append(self.head(torch.tensor(t["encoder.ids"][a:b].astype(numpy.int64))))
            posteriors = self.statistics(torch.stack(heads))
        for s in range(count):
            z = None
            self.label = int(t["label"][s]) if self.c.get("labels", 0) else None
            if variational:
                stats = posteriors[s]
                eps = torch.tensor(t["eps"][s, :width].astype(numpy.float64))
                z = stats[:width] + torch.exp(stats[width:] / 2) * eps
                out["stats"].append(stats)
                out["z"].append(z)
            a, b = t["decoder.offsets"][s:s + 2] + [self.front(), 0]
            logits = self.logits(torch.tensor(t["decoder.ids"][a:b].astype(numpy.int64)), z)
            labels = torch.tensor(t["decoder.labels"][a:b].astype(numpy.int64))
            out["nll"].append((torch.logsumexp(logits, -1) - logits[torch.arange(len(labels)), labels]).sum())
            out["logits"].append(logits)
        nll = torch.stack(out["nll"]).sum()
        kl = free = under = torch.zeros((), dtype=torch.float64)
        if variational:
            stats = torch.stack(out["stats"])
            each = self.kl(stats, torch.stack(out["z"]))
            groups = {PER_DIMENSION: each.shape[1], TOTAL: 1,
                      PER_GROUP: self.c.get("free.groups", 1)}[self.c.get("free.kind", 0)]
            own, nats = self.c.get("free.scope", 0), self.c.get("free.nats", 0.3)
            parts = (each if own else each.mean(0, keepdim=True)).reshape(-1, groups, each.shape[1] // groups).sum(-1)
            floor = 0 * parts if self.c.get("free.form", 0) else 0 * parts + nats
            free = len(each) / len(parts) * torch.where(parts > nats, parts, floor).sum()
            under = len(each) * (parts <= nats).double().mean()
            kl = each.sum()
            out["kl_dim"] = each.sum(0)
            out["moments"] = torch.stack([stats.sum(0), (stats ** 2).sum(0)], -1)
        loss = weights[0] * nll + weights[1] * free
        out["parts"] = torch.stack([loss, nll, kl, free, under])
        return loss, out

# ---- noise by address (src/base/philox.h) ----

MASK = (1 << 64) - 1


def mix(x):
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9 & MASK
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb & MASK
    return x ^ (x >> 31)


def purpose(name):
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001b3 & MASK
    return h


def noise_key(seed, what, step):
    k = mix(mix(mix(seed) ^ what) ^ step)
    return k & 0xffffffff, k >> 32


def philox(key, counter):
    """Returns the four words of Philox4x32-10 (Salmon et al. 2011)."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xd2511f53 * c0, 0xcd9e8d57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xffffffff, (p0 >> 32) ^ c3 ^ k1, p0 & 0xffffffff
        k0, k1 = (k0 + 0x9e3779b9) & 0xffffffff, (k1 + 0xbb67ae85) & 0xffffffff
    return c0, c1, c2, c3


def words(key, sample, draw, count):
    """Returns the first `count` words of a sample's draw."""
    return [word for block in range((count + 3) // 4)
            for word in philox(key, (block, draw, sample & 0xffffffff, sample >> 32))][:count]


def normals(key, sample, draw, count):
    """Returns normals by Box-Muller on pairs of words: r sin first, then r cos."""
    out, bits = [], words(key, sample, draw, (count + 3) // 4 * 4)
    for a, b in zip(bits[::2], bits[1::2]):
        radius = math.sqrt(-2 * math.log(a * 2.0 ** -32 + 2.0 ** -33))
        angle = 2 * math.pi * (b * 2.0 ** -32 + 2.0 ** -33)
        out += [radius * math.sin(angle), radius * math.cos(angle)]
    return numpy.array(out[:count])


def order(seed, what, epoch, count):
    """Returns the data order: a Feistel network of six rounds over the numbers, repeated until it gives a number in
    range."""
    key, half = noise_key(seed, what, epoch), 1
    while half < 32 and 1 << 2 * half < count:
        half += 1
    mask, out = (1 << half) - 1, []
    for x in range(count):
        while True:
            left, right = x >> half, x & mask
            for turn in range(6):
                left, right = right, left ^ words(key, right, turn, 1)[0] & mask
            x = left << half | right
            if x < count:
                break
        out.append(x)
    return out
