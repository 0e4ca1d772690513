"""Compares this folder with what elbo itself said of some sentences (reference.safetensors, reference.json).

    python check/check_gguf.py          prints a line of JSON; exit code 1 when anything differs by more than it may

Needs NumPy and gguf: the file is read, and the logits of its weights are computed here. With llama_cpp the greedy text
is written by llama.cpp, z coming in as a control vector, as rows in front, or added to the rows of tokens."""
import json
import pathlib
import sys

import numpy
from gguf import GGUFReader

from reference import load, parts

MAY_DIFFER = 1e-5  # relative: ||a - b|| / ||b||
NEAR = 0.01        # of a gpt2's two best logits: llama.cpp's GELU on a CPU is a table of f16
CHECK = pathlib.Path(__file__).resolve().parent
FOLDER = CHECK.parent


class Latent:
    """How z comes into the rows and behind the blocks."""

    def __init__(self, label):
        self.w, self.label = load(FOLDER / "elbo-latent.safetensors"), label

    def front(self, z):
        """(M, D) rows in front, with what is added to every row."""
        w = self.w.get("decoder.latent.prefix.weight")
        if w is None:
            return None
        rows = (w.astype(float) @ z + self.w["decoder.latent.prefix.bias"])
        return rows.reshape(-1, self.width) + self.added(z)

    def added(self, z):
        """(D) of every row: z's own vector, and the label's."""
        added = numpy.zeros(self.width)
        if "decoder.latent.embedding.weight" in self.w:
            added += self.w["decoder.latent.embedding.weight"].astype(float) @ z
        if "decoder.embedding.label.weight" in self.w:
            added += self.w["decoder.embedding.label.weight"][self.label]
        return added

    def behind(self, z, block):
        """(D) behind a block, the control vector's; none behind the first."""
        w = self.w.get(f"decoder.{block}.residual.weight")
        return 0 if w is None else w.astype(float) @ z


class File:
    """model.gguf in NumPy."""

    def __init__(self, latent):
        reader = GGUFReader(FOLDER / "model.gguf")
        self.keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        self.w = {t.name: numpy.array(t.data, dtype=float).reshape(t.shape[::-1]) for t in reader.tensors}
        self.arch, self.latent = self.keys["general.architecture"], latent
        latent.width = self.key("embedding_length")

    def key(self, name, otherwise=None):
        return self.keys.get(f"{self.arch}.{name}", otherwise)

    def norm(self, x, name):
        if self.arch == "llama":
            return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self.w[f"{name}.weight"]
        x = x - x.mean(-1, keepdims=True)
        x = x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def product(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def turn(self, x):
        """(T, heads, W): neighbours turn by their row's position."""
        width = x.shape[-1]
        angle = numpy.arange(len(x))[:, None, None] * self.key("rope.freq_base") ** (-numpy.arange(0, width, 2) / width)
        a, b = x[..., ::2], x[..., 1::2]
        return numpy.stack([a * numpy.cos(angle) - b * numpy.sin(angle),
                            a * numpy.sin(angle) + b * numpy.cos(angle)], -1).reshape(x.shape)

    def attention(self, x, block):
        heads, t = self.key("attention.head_count"), len(x)
        kv = self.key("attention.head_count_kv", heads)
        if self.arch == "llama":
            q, k, v = (self.product(x, f"{block}.attn_{part}").reshape(t, count, -1)
                       for part, count in (("q", heads), ("k", kv), ("v", kv)))
            q, k = self.turn(q), self.turn(k)
        else:
            q, k, v = self.product(x, f"{block}.attn_qkv").reshape(t, 3, heads, -1).transpose(1, 0, 2, 3)
        k, v = (numpy.repeat(part, heads // kv, 1) for part in (k, v))
        scores = numpy.einsum("qhw,khw->hqk", q, k) / numpy.sqrt(q.shape[-1])
        scores[:, numpy.triu(numpy.ones((t, t), bool), 1)] = -numpy.inf
        share = numpy.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        return self.product(numpy.einsum("hqk,khw->qhw", share, v).reshape(t, -1), f"{block}.attn_output")

    def feed_forward(self, x, block):
        h = self.product(x, f"{block}.ffn_up")
        if self.arch == "llama":
            gate = self.product(x, f"{block}.ffn_gate")
            return self.product(gate / (1 + numpy.exp(-gate)) * h, f"{block}.ffn_down")
        h = h * 0.5 * (1 + numpy.tanh(0.7978845608028654 * (h + 0.044715 * h ** 3)))
        return self.product(h, f"{block}.ffn_down")

    def rows(self, ids, z):
        """(M + T, D) rows of the first block, and M."""
        x = self.w["token_embd.weight"][ids]
        if z is None:
            return x, 0
        front = self.latent.front(z)
        x = x + self.latent.added(z)
        return (x, 0) if front is None else (numpy.concatenate([front, x]), len(front))

    def logits(self, ids, z):
        """(T, V) behind each of ids."""
        x, skipped = self.rows(ids, z)
        if "position_embd.weight" in self.w:
            x = x + self.w["position_embd.weight"][:len(x)]
        for layer in range(self.key("block_count")):
            block = f"blk.{layer}"
            x = x + self.attention(self.norm(x, f"{block}.attn_norm"), block)
            x = x + self.feed_forward(self.norm(x, f"{block}.ffn_norm"), block)
            x = x + (0 if z is None else self.latent.behind(z, layer))
        out = self.w.get("output.weight", self.w["token_embd.weight"])
        return self.norm(x, "output_norm")[skipped:] @ out.T


class Llama:
    """model.gguf in llama.cpp, through llama_cpp's own functions: keys and values in f32, no flash attention."""

    def __init__(self, file, path, longest):
        import ctypes
        import llama_cpp
        self.c, self.api, self.file, self.longest = ctypes, llama_cpp, file, longest
        quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        self.kept = [quiet]
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads, params.n_threads_batch = 512, 512, 512, 2, 2
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)

    def set_vector(self, z):
        """The control vector of z, from the first block that has one."""
        layers, width = self.file.key("block_count"), self.file.latent.width
        data = numpy.zeros((layers - 1, width), numpy.float32)
        for layer in range(1, layers):
            data[layer - 1] = self.file.latent.behind(z, layer)
        pointer = data.ctypes.data_as(self.c.POINTER(self.c.c_float))
        call = getattr(self.api, "llama_set_adapter_cvec", None) or self.api.llama_apply_adapter_cvec
        assert not call(self.context, pointer, data.size, width, 1, layers - 1)

    def run(self, ids, rows, at):
        """Decodes tokens, or rows (n, D) in their place, from position `at` on; the logits behind the last."""
        n, width = len(ids if rows is None else rows), self.file.latent.width
        batch = self.api.llama_batch_init(n, 0 if rows is None else width, 1)
        batch.n_tokens = n
        for i in range(n):
            if rows is None:
                batch.token[i] = ids[i]
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = at + i, 1, 0, i == n - 1
        if rows is not None:
            flat = numpy.ascontiguousarray(rows, numpy.float32)
            self.c.memmove(batch.embd, flat.ctypes.data, flat.nbytes)
        code = self.api.llama_decode(self.context, batch)
        self.api.llama_batch_free(batch)
        assert code == 0, code
        count = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        return numpy.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1), (count,)).copy()

    def begin(self, z):
        """Forgets what was; the rows in front of the first token. Returns how many."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        if z is None:
            return 0
        latent = self.file.latent
        if any("residual" in name for name in latent.w):
            self.set_vector(z)
        front = latent.front(z)
        if front is not None:
            self.run(None, front, 0)
        return 0 if front is None else len(front)

    def next(self, token, z, at):
        """Logits behind one more token."""
        added = None if z is None else self.file.latent.added(z)
        if added is None or not added.any():
            return self.run([token], None, at)
        return self.run(None, (self.file.w["token_embd.weight"][token] + added)[None], at)

    def greedy(self, z, facts):
        """Ids of a sentence with its end mark, where there is one, and for each the gap between the two best."""
        at, token, out, gaps = self.begin(z), facts["bos_token_id"], [], []
        while len(out) < self.longest:
            logits = self.next(token, z, at)
            logits[facts["banned_ids"]] = -numpy.inf
            token = int(logits.argmax())
            two = numpy.partition(logits, -2)[-2:]
            gaps.append(float(two[1] - two[0]))
            out.append(token)
            at += 1
            if token == facts["eos_token_id"]:
                break
        return out, gaps


def write_greedily(llama, latents, greedy, facts):
    """Sentences that llama.cpp writes otherwise, and of these such whose first other step was between near logits."""
    other = near = 0
    for z, wanted in zip(latents, greedy):
        found, gaps = llama.greedy(z, facts)
        ended = [facts["eos_token_id"]] if len(wanted) < llama.longest else []
        wanted = wanted + ended if wanted[-1:] != [facts["eos_token_id"]] else wanted
        if found != wanted:
            step = next(i for i, (a, b) in enumerate(zip(found + [-1], wanted + [-1])) if a != b)
            other += 1
            near += step < len(gaps) and gaps[step] < NEAR
    return other, near


def main():
    reference = load(CHECK / "reference.safetensors")
    words = json.loads((CHECK / "reference.json").read_text(encoding="utf-8"))
    facts = json.loads((FOLDER / "elbo.json").read_text(encoding="utf-8"))
    sentences, greedy = (parts(reference[name], reference[f"{prefix}offsets"])
                         for name, prefix in (("ids", ""), ("greedy", "greedy_")))
    file, found = File(Latent(words["label"])), {"sentences": len(sentences)}
    latents = reference["mu"].astype(float) if "mu" in reference else [None] * len(sentences)
    logits = numpy.concatenate([file.logits([facts["bos_token_id"], *s], z)
                                for s, z in zip(sentences[:words["logits_of"]], latents)])
    found["logits"] = float(numpy.linalg.norm(logits - reference["logits"]) / numpy.linalg.norm(reference["logits"]))
    wrong = [] if found["logits"] <= MAY_DIFFER else ["logits"]
    try:
        llama = Llama(file, FOLDER / "model.gguf", facts["max_positions"] - 2)
    except ImportError:
        llama = None
    if llama:
        found["other_greedy_ids"], found["of_these_near"] = write_greedily(llama, latents, greedy, facts)
        near = found["of_these_near"] if file.arch == "gpt2" else 0
        wrong += ["greedy ids"] if found["other_greedy_ids"] > near else []
    print(json.dumps(found))
    if wrong:
        sys.exit(f"the export differs from the model: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
