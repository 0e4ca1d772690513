"""A text variational autoencoder that elbo has trained, in PyTorch.

    model = AutoModel.from_pretrained(DIR, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(DIR, trust_remote_code=True)
    batch = tokenizer(["a small bird"], return_tensors="pt", padding=True)
    mu, logvar = model.encode(batch.input_ids, batch.attention_mask)             # (B, Z) each
    ids = model.generate(mu)                                                     # (B, T), greedy
    model.sample(5, do_sample=True, temperature=0.8, top_p=0.9)                  # ids from z of the prior
    model.interpolate(mu[0], mu[0], steps=7)                                     # ids along a line
    model(batch.input_ids, batch.attention_mask).logits                  # teacher-forced, from the posterior's mean

Sizes: B sentences, T tokens, D width, Z latent, V vocabulary. A sentence is `start words end`, which the tokenizer
makes; padding may stand on either side for encode, on the right for the decoder."""
import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_elbo import ElboConfig


@dataclass
class ElboOutput(ModelOutput):
    """loss: mean nats of a sentence, reconstruction + KL, with labels; logits (B, T, V); mu, logvar, z (B, Z), none for
    a language model; reconstruction, kl (B) nats."""
    loss: Optional[torch.Tensor] = None
    logits: Optional[torch.Tensor] = None
    mu: Optional[torch.Tensor] = None
    logvar: Optional[torch.Tensor] = None
    z: Optional[torch.Tensor] = None
    reconstruction: Optional[torch.Tensor] = None
    kl: Optional[torch.Tensor] = None


class Named(nn.Module):
    """A module that holds parameters and modules by name, null ones left out."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            if part is not None:
                setattr(self, name, part)


def empty(*shape):
    return nn.Parameter(torch.zeros(*shape))


def gelu(x):
    return F.gelu(x, approximate="tanh")


def norm_of(c):
    return (nn.RMSNorm if c["norm"] == "rmsnorm" else nn.LayerNorm)(c["width"], eps=1e-5)


def rotate(x, positions):
    """x (B, heads, T, W): coordinate i turns with i + W / 2 by position / 10000^(2i / W); positions (B, T)."""
    half = x.shape[-1] // 2
    scale = 10000.0 ** (-2 * torch.arange(half, device=x.device, dtype=torch.float32) / x.shape[-1])
    angle = positions[:, None, :, None] * scale
    cos, sin, a, b = angle.cos().to(x.dtype), angle.sin().to(x.dtype), x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """A layer of a Transformer: attention and feed forward, each with its norm and residual."""

    def __init__(self, c, latent=None, layer=0):
        super().__init__()
        self.c, bias, width = c, c["norm"] == "layernorm", c["width"]
        self.head, ways = width // c["heads"], latent["injection"] if latent else ()
        self.memory, per_memory = (latent["memory"] if "memory" in ways else 0), 2 * c["kv_heads"] * self.head
        self.attention = Named(
            norm=norm_of(c), qkv=nn.Linear(width, (c["heads"] + 2 * c["kv_heads"]) * self.head, bias=bias),
            output=nn.Linear(width, width, bias=bias),
            memory=nn.Linear(latent["width"], self.memory * per_memory, bias=False) if self.memory else None)
        inner = c["ff_width"] * (2 if c["activation"] == "swiglu" else 1)
        self.feed_forward = Named(norm=norm_of(c), input=nn.Linear(width, inner, bias=bias),
                                  output=nn.Linear(c["ff_width"], width, bias=bias))
        self.skip = nn.Linear(latent["width"], width, bias=False) if latent and latent["skip"] else None
        self.residual = nn.Linear(latent["width"], width, bias=False) if "residual" in ways and layer else None
        self.drop = nn.Dropout(c["dropout"])

    def attend(self, x, positions, visible, past):
        (b, t, _), c = x.shape, self.c
        sizes = [c["heads"] * self.head, c["kv_heads"] * self.head, c["kv_heads"] * self.head]
        q, k, v = (part.view(b, t, -1, self.head).transpose(1, 2)
                   for part in self.attention.qkv(x).split(sizes, -1))
        if c["positions"] == "rotary":
            q, k = rotate(q, positions), rotate(k, positions)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        groups = c["heads"] // c["kv_heads"]
        y = F.scaled_dot_product_attention(q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1),
                                           attn_mask=visible)
        return self.attention.output(y.transpose(1, 2).reshape(b, t, -1)), (k, v)

    def feed(self, x):
        h = self.feed_forward.input(x)
        if self.c["activation"] == "swiglu":
            gate, up = h.chunk(2, -1)
        return self.feed_forward.output(F.silu(gate) * up if self.c["activation"] == "swiglu" else gelu(h))

    def first(self, z, b):
        """The keys and values that a sentence begins with: the latent memory (B, G, M, W) each, or none."""
        if not self.memory:
            return None
        return self.attention.memory(z).view(b, self.memory, 2, self.c["kv_heads"], self.head).transpose(1, 3).unbind(2)

    def forward(self, x, z, positions, visible, past):
        if self.skip is not None:
            x = x + self.skip(z)[:, None]
        pre = self.c["norm_position"] == "pre"
        for norm, attends in ((self.attention.norm, True), (self.feed_forward.norm, False)):
            y = norm(x) if pre else x
            y, past = self.attend(y, positions, visible, past) if attends else (self.feed(y), past)
            x = x + self.drop(y) if pre else norm(x + self.drop(y))
        return (x if self.residual is None else x + self.residual(z)[:, None]), past


class Layer(nn.Module):
    """A recurrent layer: LSTM (gates i, f, g, o) or GRU (r, z, n), of one direction or two."""

    def __init__(self, c, latent=None, layer=0):
        super().__init__()
        self.c, self.gru = c, c["kind"] == "gru"
        self.directions = 2 if c["bidirectional"] else 1
        self.units, gates = c["width"] // self.directions, 3 if self.gru else 4
        rows, ways = self.directions * gates * self.units, latent["injection"] if latent else ()
        wide = c["width"] if layer else c["embedding_width"]
        self.input = nn.Linear(wide, rows)
        self.hidden = Named(weight=empty(rows, self.units), bias=empty(rows) if self.gru else None)
        self.latent = nn.Linear(latent["width"], rows, bias=False) if "concat" in ways and not layer else None
        self.init = nn.Linear(latent["width"], c["width"] * (1 if self.gru else 2)) if "init" in ways else None
        self.skip = nn.Linear(latent["width"], wide, bias=False) if latent and latent["skip"] else None
        self.added, self.tanh = c["residual"] and layer > 0, bool(latent and latent["init_tanh"])
        self.drop = nn.Dropout(c["dropout"])

    def first(self, z, b):
        """h, and an LSTM's c, (B, U) each."""
        count, zeros = 1 if self.gru else 2, self.input.weight.new_zeros(b, self.units)
        y = zeros.repeat(1, count) if self.init is None else self.init(z)
        return (torch.tanh(y) if self.tanh else y).chunk(count, -1)

    def step(self, a, state, rows):
        s = F.linear(state[0], self.hidden.weight[rows], self.hidden.bias[rows] if self.gru else None)
        if self.gru:
            (ar, az, an), (sr, sz, sn) = a.chunk(3, -1), s.chunk(3, -1)
            n, z = torch.tanh(an + torch.sigmoid(ar + sr) * sn), torch.sigmoid(az + sz)
            return ((1 - z) * n + z * state[0],)
        i, f, g, o = (a + s).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def sweep(self, a, state, mask, direction):
        size, out, steps = len(self.hidden.weight) // self.directions, [], range(a.shape[1])
        rows = slice(direction * size, (direction + 1) * size)
        for t in reversed(steps) if direction else steps:
            new = self.step(a[:, t, rows], state, rows)
            if mask is not None:
                new = tuple(torch.where(mask[:, t, None], b, c) for b, c in zip(new, state))
            state = new
            out.append(state[0])
        return torch.stack(out[::-1] if direction else out, 1), state

    def forward(self, x, z, _positions, mask, past):
        if self.skip is not None:
            x = x + self.skip(z)[:, None]
        a = self.input(x)
        if self.latent is not None:
            a = a + self.latent(z)[:, None]
        sides = [self.sweep(a, past or self.first(z, len(x)), mask, d) for d in range(self.directions)]
        y = self.drop(torch.cat([side[0] for side in sides], -1))
        return (x + y if self.added else y), sides[0][1]


class Stack(nn.Module):
    """An encoder or a decoder: rows (B, T, D) of token ids, or of rows in their place."""

    def __init__(self, config, name):
        super().__init__()
        c = self.c = config.encoder_stack if name == "encoder" else config.decoder_stack
        latent = config.latent if name == "decoder" and config.latent["kind"] != "none" else None
        self.causal, self.prefix = name == "decoder", latent["prefix"] if latent else 0
        wide = c["embedding_width"] if c["kind"] in ("lstm", "gru") else c["width"]
        self.transformer, ways = c["kind"] == "transformer", latent["injection"] if latent else ()
        self.embedding = Named(
            token=nn.Embedding(config.vocab_size, wide) if name == "decoder" or not config.share_embedding else None,
            position=nn.Embedding(config.max_positions + self.prefix, c["width"])
            if self.transformer and c["positions"] == "learned" else None,
            label=nn.Embedding(len(config.label_names), wide) if config.label_names else None,
            norm=norm_of(c) if self.transformer and c["embedding_norm"] else None)
        if "embedding" in ways or "prefix" in ways:
            self.latent = Named(
                embedding=nn.Linear(latent["width"], wide, bias=False) if "embedding" in ways else None,
                prefix=nn.Linear(latent["width"], self.prefix * wide) if "prefix" in ways else None)
        if c["kind"] == "bow":
            self.hidden, self.norm = nn.Linear(c["width"], c["width"]), nn.LayerNorm(c["width"], eps=1e-5)
        else:
            kind = Block if self.transformer else Layer
            for layer in range(c["layers"]):
                self.add_module(str(layer), kind(c, latent, layer))
            if self.transformer and c["norm_position"] == "pre":
                self.norm = norm_of(c)
        if name == "encoder" and c["pooling"] == "attention":
            self.pool = Named(query=empty(c["width"]))
        if name == "decoder":
            self.output = Named() if config.tie_output else nn.Linear(c["width"], config.vocab_size, bias=False)
            if latent and latent["skip"]:
                self.output.skip = nn.Linear(latent["width"], c["width"], bias=False)
        self.drop = nn.Dropout(c["dropout"])

    def layers(self):
        return [getattr(self, str(layer)) for layer in range(self.c["layers"])] if self.c["kind"] != "bow" else []

    def visible(self, mask, rows, before, device):
        """Which keys a row sees: (B or 1, 1, T, keys), or the mask itself where no row attends."""
        if not self.transformer or not self.causal:
            return mask[:, None, None, :] if self.transformer and mask is not None else mask
        at = torch.arange(before + rows, device=device)
        return (at <= at[before:, None])[None, None]

    def start(self, z, b):
        """Returns the state before a sentence's first row, one for each layer."""
        return [layer.first(z, b) for layer in self.layers()]

    def forward(self, x, z=None, label=None, mask=None, past=None, at=0):
        """x (B, T, width of token vectors) embedded rows, of which the first is the sentence's row `at`. Returns rows
        (B, T, D) and what later rows need of these."""
        b, t, _ = x.shape
        positions = torch.arange(at, at + t, device=x.device).expand(b, t)
        if mask is not None:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        if hasattr(self.embedding, "position"):
            x = x + self.embedding.position(positions)
        if label is not None:
            x = x + self.embedding.label(label)[:, None]
        if hasattr(self.embedding, "norm"):
            x = self.embedding.norm(x)
        x, past = self.drop(x), past or self.start(z, b)
        if self.c["kind"] == "bow":
            return self.norm(gelu(self.hidden(x))), past
        before = past[0][0].shape[2] if self.transformer and past and past[0] is not None else 0
        visible, kept = self.visible(mask, t, before, x.device), []
        for layer, state in zip(self.layers(), past):
            x, state = layer(x, z, positions, visible, state)
            kept.append(state)
        return (self.norm(x) if hasattr(self, "norm") else x), kept

    def pooled(self, x, mask):
        """(B, D) of rows (B, T, D)."""
        how, rows = self.c["pooling"], torch.arange(len(x), device=x.device)
        if how == "attention":
            return torch.softmax((x @ self.pool.query).masked_fill(~mask, -math.inf), 1)[:, None].matmul(x)[:, 0]
        if how == "mean":
            return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        first, last = mask.int().argmax(1), mask.shape[1] - 1 - mask.int().flip(1).argmax(1)
        if how == "last" and self.c["bidirectional"]:
            return torch.cat([x[rows, last].chunk(2, -1)[0], x[rows, first].chunk(2, -1)[1]], -1)
        return x[rows, first if how == "first" else last]


def slashed_root(x):
    """The r with exp(r) - r - 1 = x^2 and the sign of x."""
    square = x.double().square()
    low = torch.where(x < 0, -square - 2, torch.zeros_like(square))
    high = torch.where(x < 0, torch.zeros_like(square), 2 + square)
    for _ in range(80):
        r = (low + high) / 2
        up = (torch.expm1(r) - r < square) == (x > 0)
        low, high = torch.where(up, r, low), torch.where(up, high, r)
    return ((low + high) / 2).to(x.dtype)


def log_normal(z, mu, logvar):
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() / logvar.exp()).sum(-1)


class ElboModel(PreTrainedModel):
    config_class, base_model_prefix, _no_split_modules = ElboConfig, "", ["Block", "Layer"]

    def __init__(self, config):
        super().__init__(config)
        c, k = config.latent, config.latent["width"]
        self.decoder = Stack(config, "decoder")
        if c["kind"] != "none":
            self.encoder = Stack(config, "encoder")
            rows, fitted, scope = c["pseudo_inputs"] * c["pseudo_length"], c["fitted_components"], c["rate_scope"]
            priors = {"diagonal": {"stats": (2 * k,)}, "vamp": {"inputs": (rows, self.encoder.c["embedding_width"])},
                      "mixture": {"components": (2 * c["components"], k), "logits": (c["components"],)}}
            self.latent = Named(
                head=nn.Linear(self.encoder.c["width"], 2 * k),
                normalize=None if c["normalize"] == "none" else Named(
                    running=empty(2, k), bias=empty(k), weight=empty(1, k) if c["normalize"] == "du" else None),
                rate=None if not c["rate"] or scope == "sentence" else Named(
                    running=empty(2, k if scope == "dimension" else 1)),
                prior=Named(**{name: empty(*shape) for name, shape in priors.get(c["prior"], {}).items()}),
                fitted=Named(log_weight=empty(fitted), mean=empty(fitted, k),
                             factor=empty(fitted, k, *([k] if c["fitted_full"] else []))) if fitted else None)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0, 0.02)

    def get_input_embeddings(self):
        return self.decoder.embedding.token

    def embed(self, ids, encoder=False):
        return (self.encoder if encoder and not self.config.share_embedding else self.decoder).embedding.token(ids)

    def class_of(self, label, b):
        """label: a name, a number, or numbers (B)."""
        if not self.config.label_names:
            return None
        if label is None:
            raise ValueError(f"this model is told each sentence's label: give one of {self.config.label_names}")
        label = self.config.label_names.index(label) if isinstance(label, str) else label
        return torch.as_tensor(label, device=self.device).expand(b)

    # ---- the encoder ----

    def encode_rows(self, rows, mask, label=None):
        c, (x, _) = self.config.latent, self.encoder(rows, label=label, mask=mask)
        a, b = self.latent.head(self.encoder.pooled(x, mask)).chunk(2, -1)
        if c["kind"] == "delta":
            ends = torch.tensor([-1, 1], dtype=torch.double) * math.sqrt(2 * c["delta"])
            low, high = (slashed_root(ends) / 2).exp().tolist()
            sigma = low + (high - low) * torch.sigmoid(b)
            square = 2 * c["delta"] + 1 + 2 * sigma.log() - sigma.square() + a.clamp(min=0)
            return square.clamp(min=0).sqrt(), 2 * sigma.log()
        if c["kind"] == "slashed":
            a, b = self.rated(torch.cat([a, b], -1)).chunk(2, -1)
            return math.sqrt(2) * a, slashed_root(math.sqrt(2) * b)
        if c["normalize"] == "none":
            return a, b
        mean, variance = self.latent.normalize.running
        gain = c["gamma"] * torch.rsqrt(variance + 1e-5)
        if c["normalize"] == "du":
            weight, b = self.latent.normalize.weight[0], torch.log(c["alpha"] / (2 * math.pi * math.e) + b.exp())
            gain = gain * math.sqrt(len(weight)) * weight / weight.norm()
        return (a - mean) * gain + self.latent.normalize.bias, b

    def rated(self, heads):
        c, k = self.config.latent, self.config.latent["width"]
        if not c["rate"] or c["rate_scope"] == "sentence":
            return heads * math.sqrt(c["rate"]) / heads.norm(dim=-1, keepdim=True) if c["rate"] else heads
        rate = c["rate"] / k if c["rate_scope"] == "dimension" else c["rate"]
        return (heads.view(-1, 2, k) * (rate / self.latent.rate.running[1]).sqrt()).view(heads.shape)

    def encode(self, input_ids, attention_mask=None, label=None):
        """mu, logvar (B, Z) of the posterior of each sentence; input_ids (B, T), attention_mask (B, T)."""
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        return self.encode_rows(self.embed(input_ids, True), mask, self.class_of(label, len(input_ids)))

    # ---- the prior ----

    def components(self):
        """(K) log weights, (K, Z) means and logs of variances of the model's own prior."""
        c = self.config.latent
        mean = logvar = self.latent.head.weight.new_zeros(1, c["width"])
        one = mean.new_zeros(1)
        if c["prior"] == "diagonal":
            mean, logvar = self.latent.prior.stats[None].chunk(2, -1)
        if c["prior"] == "mixture":
            (mean, logvar), one = self.latent.prior.components.chunk(2), self.latent.prior.logits.log_softmax(0)
        if c["prior"] == "vamp":
            rows = self.latent.prior.inputs.view(c["pseudo_inputs"], c["pseudo_length"], -1)
            mean, logvar = self.encode_rows(rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device))
            one = mean.new_full((len(rows),), -math.log(len(rows)))
        return one, mean, logvar

    def log_prior(self, z):
        """(B) nats, log p(z) of the model's own prior."""
        weight, mean, logvar = self.components()
        return torch.logsumexp(weight + log_normal(z[:, None], mean, logvar), -1)

    @torch.no_grad()
    def draw(self, count, fitted=True):
        """(count, Z) from the prior: from the fitted one where elbo fit-prior has added one."""
        if fitted and self.config.latent["fitted_components"]:
            weight, mean, factor = self.latent.fitted.log_weight, self.latent.fitted.mean, self.latent.fitted.factor
        else:
            weight, mean, logvar = self.components()
            factor = (logvar / 2).exp()
        k = torch.multinomial(weight.exp(), count, replacement=True)
        eps, own = torch.randn_like(mean[k]), factor[k]
        return mean[k] + (own.matmul(eps[..., None])[..., 0] if own.dim() == 3 else own * eps)

    # ---- the decoder ----

    def decode(self, input_ids, z=None, label=None, past=None):
        """(B, T, V) logits behind each of input_ids (B, T), `start words`, and (state, rows so far), the past of
        those that follow."""
        d, m, x, (state, at) = self.decoder, self.decoder.prefix, self.embed(input_ids), past or (None, 0)
        if m and not at:
            x = torch.cat([d.latent.prefix(z).view(len(x), m, -1), x], 1)
        if hasattr(getattr(d, "latent", None), "embedding"):
            x = x + d.latent.embedding(z)[:, None]
        y, state = d(x, z, self.class_of(label, len(x)), past=state, at=at)
        at, y = at + x.shape[1], y[:, m:] if m and not at else y
        if hasattr(d.output, "skip"):
            y = y + d.output.skip(z)[:, None]
        return F.linear(y, (d.embedding.token if self.config.tie_output else d.output).weight), (state, at)

    def forward(self, input_ids, attention_mask=None, labels=None, z=None, label=None, sample=False, return_dict=True):
        """The decoder's logits for input_ids (B, T), `start words end`, without its last token: row t predicts token
        t + 1. z: the posterior's mean, or a sample, unless given. labels: input_ids, -100: nothing is predicted."""
        out, mask = ElboOutput(z=z), None if attention_mask is None else attention_mask.bool()
        if self.config.latent["kind"] != "none":
            out.mu, out.logvar = self.encode(input_ids, mask, label)
            if z is None:
                out.z = out.mu + (out.logvar / 2).exp() * torch.randn_like(out.mu) if sample else out.mu
        out.logits = self.decode(input_ids[:, :-1], out.z, label)[0]
        if labels is not None:
            wanted = labels[:, 1:] if mask is None else labels[:, 1:].masked_fill(~mask[:, 1:], -100)
            nll = F.cross_entropy(out.logits.transpose(1, 2), wanted, reduction="none", ignore_index=-100)
            out.reconstruction, out.kl = nll.sum(1), nll.new_zeros(len(nll))
            if out.mu is not None and self.config.latent["prior"] == "standard":
                out.kl = (out.mu.square() + out.logvar.exp() - 1 - out.logvar).sum(-1) / 2
            elif out.mu is not None:
                out.kl = log_normal(out.z, out.mu, out.logvar) - self.log_prior(out.z)
            out.loss = (out.reconstruction + out.kl).mean()
        return out if return_dict else out.to_tuple()

    # ---- generation ----

    def choose(self, logits, do_sample, temperature, top_p, top_k):
        if not do_sample:
            return logits.argmax(-1)
        p, ids = torch.softmax(logits / temperature, -1).sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(p.shape[-1], device=p.device)
        drop = (p.cumsum(-1) - p >= top_p) if 0 < top_p < 1 else torch.zeros_like(p, dtype=torch.bool)
        p = p.masked_fill((drop | (rank >= top_k) if top_k else drop) & (rank > 0), 0)
        return ids.gather(-1, torch.multinomial(p, 1))[:, 0]

    @torch.no_grad()
    def generate(self, z=None, count=1, max_length=None, do_sample=False, temperature=1.0, top_p=1.0, top_k=0,
                 allow_unknown=False, label=None):
        """ids (B, T) of a sentence for each z (B, Z), without a start mark, filled up with end marks; or of `count`
        sentences of a language model. Greedy unless do_sample. max_length: tokens, at most as many as in training."""
        b, c = count if z is None else len(z), self.config
        longest = min(max_length or c.max_positions - 2, c.max_positions - 1)
        banned = [i for i in c.banned_ids if not (allow_unknown and i == c.unk_token_id)]
        ids = torch.full((b, 1), c.bos_token_id, device=self.device)
        out, done, past = [], torch.zeros(b, dtype=torch.bool, device=self.device), None
        while len(out) < longest and not done.all():
            logits, past = self.decode(ids, z, label, past)
            logits = logits[:, -1].float()
            logits[:, banned] = -math.inf
            ids = self.choose(logits, do_sample, temperature, top_p, top_k).masked_fill(done, c.eos_token_id)[:, None]
            done = done | (ids[:, 0] == c.eos_token_id)
            out.append(ids)
        return torch.cat(out, 1)

    def sample(self, count=1, fitted=True, **how):
        """ids (count, T) of new sentences: z from the prior, words by generate."""
        return self.generate(self.draw(count, fitted) if hasattr(self, "latent") else None, count, **how)

    def interpolate(self, z0, z1, steps=7, **how):
        """ids (steps, T) of sentences along the line from z0 (Z) to z1 (Z)."""
        share = torch.linspace(0, 1, steps, device=z0.device)[:, None]
        return self.generate((1 - share) * z0 + share * z1, **how)
