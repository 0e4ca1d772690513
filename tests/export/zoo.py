"""Small trained models of every kind, for the tests of exports. They are trained with a large learning rate, so that no
bias is zero and no norm is one."""
import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import elbo, options  # noqa: E402

GIVEN = {"encoder.width": 32, "decoder.width": 32, "latent.width": 6,
         "train.steps": 25, "train.slots": 2, "train.slot_tokens": 300, "optimizer.warmup_steps": 1,
         "optimizer.learning_rate": 0.02, "optimizer.weight_decay": 0, "objective.free_bits": 0, "data.max_length": 20,
         "log.every": 100, "train.on_collapse": "ignore", "encoder.share_embedding": "false"}
LLAMA = {"norm": "rmsnorm", "positions": "rotary", "activation": "swiglu", "kv_heads": 2}


def both(**keys):
    return {f"{stack}.{key}": value for stack in ("encoder", "decoder") for key, value in keys.items()}


def of(stack, **keys):
    return {f"{stack}.{key}": value for key, value in keys.items()}


LSTM, GRU = both(kind="lstm"), both(kind="gru")
KINDS = {
    "plain": {},
    "memory": {"latent.injection": "memory", "latent.memory": 3},
    "embedding": {"latent.injection": "embedding", "encoder.share_embedding": "true"},
    "residual": {"latent.injection": "residual", **of("decoder", layers=3)},
    "residual-post": {"latent.injection": "residual,embedding", **both(norm_position="post")},
    "prefix": {"latent.injection": "prefix", "latent.prefix": 3},
    "prefix-llama": {**both(**LLAMA), "latent.injection": "memory,prefix,residual,embedding"},
    "shared": {"encoder.share_embedding": "true", "decoder.tie_output": "false", "objective.dropped_mark": "own"},
    "post": both(norm_position="post"),
    "post-rms": {**both(norm_position="post", norm="rmsnorm"), **of("encoder", pooling="attention")},
    "llama": {**both(**LLAMA), **of("encoder", pooling="last")},
    "llama-embedding": {**both(**LLAMA), "latent.injection": "embedding", "decoder.tie_output": "false"},
    "first": {**of("encoder", pooling="first", heads=8, ff_width=40), **of("decoder", heads=2, layers=3)},
    "skip": {"latent.skip": "true"},
    "bag": {**of("encoder", kind="bow", pooling="attention"), "objective.bow": 0.5},
    "lstm": LSTM,
    "lstm-init": {**LSTM, "latent.injection": "init", "latent.init_tanh": "true", "encoder.bidirectional": "true",
                  "encoder.pooling": "last"},
    "lstm-concat": {**LSTM, "latent.injection": "concat", "decoder.tie_output": "false",
                    **both(layers=3, residual="true", embedding_width=20)},
    "lstm-skip": {**LSTM, "latent.injection": "embedding", "latent.skip": "true", "decoder.embedding_width": 24,
                  "decoder.tie_output": "false", "encoder.pooling": "attention"},
    "gru": {**GRU, "encoder.bidirectional": "true"},
    "gru-init": {**GRU, "latent.injection": "init", "encoder.pooling": "first", "latent.init_tanh": "true"},
    "gru-concat": {**GRU, "latent.injection": "concat", **both(layers=3, residual="true"), "encoder.pooling": "last"},
    "gru-transformer": of("encoder", kind="gru", bidirectional="true", pooling="last"),
    "transformer-lstm": of("decoder", kind="lstm"),
    "bag-gru": {**of("encoder", kind="bow"), **of("decoder", kind="gru")},
    "delta": {"latent.kind": "delta"},
    "slashed": {"latent.kind": "slashed"},
    "rate": {"latent.kind": "slashed", "objective.rate": 5},
    "rate-slot": {"latent.kind": "slashed", "objective.rate": 5, "objective.rate_scope": "slot"},
    "rate-dimension": {"latent.kind": "slashed", "objective.rate": 5, "objective.rate_scope": "dimension"},
    "batch": {"latent.normalize": "batch"},
    "du": {"latent.normalize": "du", "latent.alpha": 0.7},
    "diagonal": {"latent.prior": "diagonal"},
    "mixture": {"latent.prior": "mixture", "latent.components": 4},
    "vamp": {"latent.prior": "vamp", "latent.pseudo_inputs": 5, "latent.pseudo_length": 4},
    "vamp-lstm": {**LSTM, "latent.prior": "vamp", "latent.pseudo_inputs": 5, "latent.pseudo_length": 4,
                  "encoder.embedding_width": 12},
    "labels": {"data.labels": "true"},
    "labels-lstm": {**LSTM, "data.labels": "true"},
    "language-model": {"latent.kind": "none"},
    "language-model-gru": {"latent.kind": "none", **of("decoder", kind="gru")},
    "bert": {**of("encoder", norm_position="post", embedding_norm="true"), "decoder.embedding_norm": "true"},
    "bpe": {"tokenizer": "bpe"},
    "byte": {"tokenizer": "byte", **LSTM},
}


def text(lines=400, seed=1):
    """Makes sentences of words of several scripts, including the words `<s>` and `<unk>`, and a label for each."""
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(60)] + ["naïve", "дом", "鳥", "<s>", "<unk>", "don't", "3.14", "x</s>y", "😀"]
    return [(rng.choice(["red", "blue"]), " ".join(rng.choice(words) for _ in range(rng.randint(1, 14))))
            for _ in range(lines)]


def corpora(folder):
    """Prepares a corpus with each tokenizer."""
    rows = text()
    (folder / "text").write_text("".join(line + "\n" for _, line in rows), encoding="utf-8")
    (folder / "labels").write_text("".join(label + "\n" for label, _ in rows), encoding="utf-8")
    for kind, size in (("word", ["--tokenizer.size=50"]), ("bpe", ["--tokenizer.size=300"]), ("byte", [])):
        elbo("prepare", folder / "text", f"--labels={folder / 'labels'}", f"--out={folder / kind}",
             f"--tokenizer.kind={kind}", *size)


def train(folder, name, kind=None):
    """Trains a model of a kind, or with the given options."""
    given = {**GIVEN, **(KINDS[name] if kind is None else kind)}
    tokenizer = given.pop("tokenizer", "word")
    if given.get("latent.kind") == "none":
        given = {key: value for key, value in given.items()
                 if not key.startswith(("encoder.", "latent.width", "objective.", "train.on_collapse"))}
    run = folder / f"run-{name}"
    elbo("train", f"--data.train={folder / tokenizer}", f"--run.dir={run}", *options(given))
    return run, folder / tokenizer


def export(run, out, *given, python="true", **environment):
    """Exports without running the comparison, unless a Python is given."""
    return elbo("export", run, f"--out={out}", *given, env={**os.environ, "ELBO_PYTHON": python, **environment})
