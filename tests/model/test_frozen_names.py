"""tests/model/frozen-names.txt holds: models of every kind have its tensors and scopes, and no others, and noise is
addressed by its purposes, which the test recomputes from the names alone. The program runs with a learning rate of 0,
so checkpoints hold the initial weights, and every tensor is drawn again from its name. PyTorch (reference.py) computes
the loss of a training step with the noise of the names: another purpose for a dropout, the latent or the words gives
another loss."""
import json
import math
import pathlib
import re
import sys

import numpy

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "train"))
import reference
from reference import Model, TOLERANCE, noise_key, normals, order, purpose, read_safetensors, torch, words
from runs import Scratch, checkpoints, elbo, grammar, options, rows

TABLE = SOURCE / "tests" / "model" / "frozen-names.txt"
STACKS = ("encoder", "decoder")
SEED, STEPS, UNKNOWN = 5, 3, 2
LABELS = ("a", "b", "c")
BASE = {
    "encoder.width": 8, "decoder.width": 8, "encoder.heads": 4, "decoder.heads": 4, "encoder.layers": 2,
    "decoder.layers": 2, "encoder.ff_width": 12, "decoder.ff_width": 20, "latent.width": 5, "latent.memory": 3,
    "data.max_length": 30, "train.slots": 1, "train.slot_sentences": 1, "train.slot_tokens": 40, "train.steps": STEPS,
    "optimizer.learning_rate": 0, "optimizer.warmup_steps": 0, "log.every": 1, "threads": 1, "seed": SEED,
    "encoder.dropout": 0.2, "decoder.dropout": 0.3, "objective.word_dropout": 0.5, "device": "cpu",
}
MODELS = {
    "everything": {"encoder.share_embedding": "false", "decoder.tie_output": "false", "encoder.pooling": "attention"},
    "llama": {**{f"{stack}.{key}": value for stack in STACKS for key, value in
                 {"norm": "rmsnorm", "positions": "rotary", "activation": "swiglu", "kv_heads": 2}.items()},
              "latent.injection": "memory"},
    "post": {"encoder.norm_position": "post", "decoder.norm_position": "post", "encoder.pooling": "last",
             "latent.injection": "embedding", "optimizer.kind": "sgd", "train.recompute": "block",
             "encoder.embedding_norm": "true", "decoder.embedding_norm": "true"},
    "mixed": {"encoder.norm": "rmsnorm", "decoder.activation": "swiglu", "encoder.width": 12,
              "encoder.norm_position": "post", "encoder.share_embedding": "false", "encoder.pooling": "first",
              "decoder.positions": "rotary"},
    "none": {"latent.kind": "none", "latent.width": 32},
}
KINDS = { # option -> its numbers in reference.py
    "kind": reference.STACK_KINDS,
    "norm": {"layernorm": reference.LAYERNORM, "rmsnorm": reference.RMSNORM},
    "norm_position": {"pre": reference.PRE, "post": reference.POST},
    "positions": {"learned": reference.LEARNED, "rotary": reference.ROTARY},
    "activation": {"gelu": reference.GELU, "swiglu": reference.SWIGLU},
    "pooling": {"mean": reference.MEAN, "first": reference.FIRST, "last": reference.LAST,
                "attention": reference.ATTENTION},
}
POSTERIOR = {"normal": reference.NORMAL, "none": reference.NO_LATENT, "delta": reference.DELTA,
             "slashed": reference.SLASHED}
PRIORS = {"standard": reference.STANDARD, "diagonal": reference.DIAGONAL, "mixture": reference.MIXTURE,
          "vamp": reference.VAMP}
INJECTION = {"memory": reference.MEMORY, "embedding": reference.EMBEDDING, "residual": reference.RESIDUAL,
             "prefix": reference.PREFIX,
             "init": reference.INIT, "concat": reference.CONCAT}


def table():
    """Returns section -> its rows, each a list of columns."""
    found, section = {}, None
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            section.append([column.strip() for column in line.split("|")])
    return found


FROZEN = table()
MODELS.update({name: dict(option.split("=") for option in given.split()) for name, given in FROZEN["models"]})


class Kind:
    """One of MODELS: its options, and the names and shapes that the table gives it."""

    def __init__(self, name, vocabulary):
        self.sized = {**BASE, **MODELS[name]}
        self.sized = {key: BASE[key] if value == "-" else value for key, value in self.sized.items()}
        self.given = {key: self.sized[key] for key in self.sized if MODELS[name].get(key) != "-"}
        self.latent = self.given.get("latent.kind") != "none"
        if not self.latent:
            self.given.pop("latent.memory")
        if "memory" not in self.ways():
            self.given.pop("latent.memory", None)
        self.vocabulary = vocabulary

    def get(self, key, default):
        return self.given.get(key, default)

    def ways(self):
        """Returns the ways for z into the decoder, with the two that `both` stands for."""
        given = set(self.get("latent.injection", "both").split(","))
        recurrent = self.get("decoder.kind", "transformer") in ("lstm", "gru")
        both = {"init", "concat"} if recurrent else {"memory", "embedding"}
        return given - {"both"} | both if "both" in given else given

    def label(self, number):
        """Returns the number of a sentence's label, which follows from its place in the corpus; None without labels."""
        return number % len(LABELS) if self.get("data.labels", "false") == "true" else None

    def sizes(self, stack):
        width, heads = self.sized[f"{stack}.width"], self.sized[f"{stack}.heads"]
        front = int(self.get("latent.prefix", 4)) if "prefix" in self.ways() else 0
        return {"V": self.vocabulary, "P": self.given["data.max_length"] + 2 + front * (stack == "decoder"), "D": width,
                "F": self.sized[f"{stack}.ff_width"], "H": heads, "K": self.get(f"{stack}.kv_heads", heads),
                "W": width // heads, "L": int(self.sized[f"{stack}.layers"]), "E": self.given["encoder.width"],
                "Z": self.given["latent.width"], "M": self.get("latent.memory", 1), "J": front,
                "N": int(self.get("latent.components", 10)),
                "U": int(self.get("latent.pseudo_inputs", 50)) * int(self.get("latent.pseudo_length", 8)),
                "C": 3 if self.get(f"{stack}.kind", "") == "gru" else 4,
                "X": 1 if self.get(f"{stack}.kind", "") == "gru" else 2,
                "B": 2 if stack == "encoder" and self.get("encoder.bidirectional", "false") == "true" else 1,
                "Y": len(LABELS), "G": 2 if self.get(f"{stack}.activation", "gelu") == "swiglu" else 1}

    def holds(self, when, stack):
        recurrent = self.get(f"{stack}.kind", "transformer") in ("lstm", "gru")
        facts = {
            "encoder": self.latent, "unshared": self.get("encoder.share_embedding", "true") == "false",
            "learned": self.get(f"{stack}.positions", "learned") == "learned",
            "layernorm": self.get(f"{stack}.norm", "layernorm") == "layernorm",
            "pre": self.get(f"{stack}.norm_position", "pre") == "pre",
            "embedding-norm": self.get(f"{stack}.embedding_norm", "false") == "true",
            **{way: self.latent and way in self.ways() for way in INJECTION},
            "recurrent": recurrent, "not-recurrent": not recurrent,
            "attention": self.get("encoder.pooling", "mean") == "attention",
            "untied": self.get("decoder.tie_output", "true") == "false",
            "normalized": self.get("latent.normalize", "none") != "none",
            "normalized-du": self.get("latent.normalize", "none") == "du",
            "rate-of-dimensions": self.get("objective.rate_scope", "sentence") == "dimension",
            "skip": self.get("latent.skip", "false") == "true",
            "own-mark": self.get("objective.dropped_mark", "own") == "own",
            "labels": self.label(0) is not None,
            "adamw": self.get("optimizer.kind", "adamw") == "adamw",
        }
        for fact in when.split(","):
            if fact.strip().endswith("-kind"):
                facts[fact.strip()] = self.get(f"{stack}.kind", "transformer") == fact.strip().removesuffix("-kind")
            if fact.strip().endswith("-posterior"):
                facts[fact.strip()] = self.get("latent.kind", "normal") == fact.strip().removesuffix("-posterior")
            if fact.strip().endswith("-term"):
                facts[fact.strip()] = float(self.get("objective." + fact.strip().removesuffix("-term"), 0)) > 0
            if fact.strip().endswith("-prior"):
                facts[fact.strip()] = self.get("latent.prior", "standard") == fact.strip().removesuffix("-prior")
        return all(facts[fact.strip()] for fact in when.split(",") if fact.strip())

    def expanded(self, section, when):
        """Yields (name, stack, row) for each name of a section that this model has; column `when` holds the
        condition."""
        for row in FROZEN[section]:
            stacks = [s for s in STACKS if s in row[0].split(".")[:1]] or (STACKS if "<s>" in row[0] else ["decoder"])
            for stack in stacks:
                if stack == "encoder" and not self.latent or not self.holds(row[when], stack):
                    continue
                layers = int(self.sized[f"{stack}.layers"]) if "<l>" in row[0] or "<k>" in row[0] else 1
                for layer in range("<k>" in row[0], layers):
                    yield row[0].replace("<s>", stack).replace("<l>", str(layer)).replace("<k>", str(layer)), stack, row

    def tensors(self):
        """Returns name -> shape."""
        return {name: [eval(size, {}, self.sizes(stack)) for size in row[1].split()] # pylint: disable=eval-used
                for name, stack, row in self.expanded("tensors", 3)}

    def state(self):
        found, tensors = {}, self.tensors()
        for name, stack, row in self.expanded("state", 2):
            if "<tensor>" in name:
                found.update({name.replace("<tensor>", tensor): shape for tensor, shape in tensors.items()})
            else:
                found[name] = [eval(row[1], {}, self.sizes(stack))] # pylint: disable=eval-used
        return found

    def initial(self, name, stack, row, shape):
        """Returns a tensor's first values, drawn by its name."""
        sizes, count = self.sizes(stack), int(numpy.prod(shape))
        kind, *parameters = row[2].split()
        values = [eval(p, {}, sizes) for p in parameters] # pylint: disable=eval-used
        scale = numpy.repeat(values, count // len(values))
        if kind == "constant":
            return scale.reshape(shape)
        assert kind == "normal", row
        drawn = normals(noise_key(SEED, purpose(name) ^ purpose(noise("initialize")), 0), 0, 0, count)
        return (scale * drawn).reshape(shape)

    def model(self, weights, dropouts=None):
        config = {f"{stack}.{key}": int(self.get(f"{stack}.{key}", 0)) for stack in STACKS
                  for key in ("width", "layers", "heads", "kv_heads", "ff_width")}
        config.update({f"{stack}.{key}": numbers[self.get(f"{stack}.{key}", next(iter(numbers)))]
                       for stack in STACKS for key, numbers in KINDS.items()})
        config.update({f"{stack}.embedding_norm": self.get(f"{stack}.embedding_norm", "false") == "true"
                       for stack in STACKS})
        config.update({"latent.width": self.given["latent.width"], "latent.memory": self.get("latent.memory", 1),
                       "latent.prefix": int(self.get("latent.prefix", 4)),
                       "encoder.bidirectional": self.get("encoder.bidirectional", "false") == "true",
                       "latent.prior": PRIORS[self.get("latent.prior", "standard")],
                       "latent.pseudo_inputs": int(self.get("latent.pseudo_inputs", 50)),
                       "latent.injection": sum(INJECTION[way] for way in self.ways()),
                       "latent.skip": self.get("latent.skip", "false") == "true",
                       "latent.kind": POSTERIOR[self.get("latent.kind", "normal")],
                       "latent.normalize": ("none", "batch", "du").index(self.get("latent.normalize", "none")),
                       "objective.rate": float(self.get("objective.rate", 0)),
                       "objective.rate_scope": ("sentence", "slot", "dimension").index(
                           self.get("objective.rate_scope", "sentence")),
                       "share_embedding": self.get("encoder.share_embedding", "true") == "true",
                       "tie_output": self.get("decoder.tie_output", "true") == "true"})
        return Dropping(config, weights, self, dropouts)


class Dropping(Model):
    """The reference with dropout, at training step `step` of the sentence with the number `sample`."""

    def __init__(self, config, weights, kind, at):
        super().__init__(config, weights)
        self.kind, self.at = kind, at

    def drop_variances(self, variances):
        p = float(self.kind.get("latent.variance_dropout", 0))
        if self.at is None or not p:
            return variances
        step, sample = self.at
        key = noise_key(SEED, purpose(noise("latent.normalize.dropout")), step)
        bits = numpy.array(words(key, sample, 0, variances.shape[1]))
        return variances * torch.tensor((bits >= int(p * 2 ** 32)) / (1 - p))

    def drop(self, stack, where, x):
        if self.at is None:
            return x
        step, sample = self.at
        p, count = self.kind.given[f"{stack}.dropout"], x.numel()
        bits = numpy.array(words(noise_key(SEED, purpose(noise(f"{where}.dropout")), step), sample, 0, count))
        return x * torch.tensor((bits >= int(p * 2 ** 32)) / (1 - p)).reshape(x.shape)


def noise(name):
    """Returns the name if the table has it; no noise here may have another name."""
    pattern = re.sub(r"\.\d+\.", ".<l>.", re.sub("^(encoder|decoder)", "<s>", name))
    assert any(pattern in (row[0], re.sub("^(encoder|decoder)", "<s>", row[0])) for row in FROZEN["noise"]), \
        f"{name} is not among the purposes of noise in {TABLE}"
    return name


def demand(found, frozen, what):
    """Exits with instructions unless both sets of names are equal."""
    lost, new = sorted(set(frozen) - set(found)), sorted(set(found) - set(frozen))
    if lost:
        sys.exit(f"{what}: {', '.join(lost)} in {TABLE.name}, but the program has no such name. A name may not change "
                 "or go: older checkpoints and runs are found by it. Give it back; the table stays.")
    if new:
        sys.exit(f"{what}: the program has {', '.join(new)}, which {TABLE.name} lacks. If the name is new and not "
                 f"another name for an old thing, add it to {TABLE.relative_to(SOURCE)}; from then on it may not "
                 "change.")


def near(found, wanted, what):
    if not abs(found - wanted) <= TOLERANCE["MODEL"] * max(abs(wanted), 1):
        sys.exit(f"{what}: {found} was computed, and {wanted} from the names. The noise is addressed by another name, "
                 "or by another step, sample or coordinate than docs/model.md says.")


def check_names(name, kind, run):
    last = checkpoints(run)[-1]
    weights = read_safetensors(last / "model.safetensors")
    state = read_safetensors(last / "state" / "optimizer.safetensors")
    for found, frozen, what in ((weights, kind.tensors(), "tensors"), (state, kind.state(), "optimizer's state")):
        demand(found, frozen, f"{name}, {what}")
        for tensor, shape in frozen.items():
            assert list(found[tensor].shape) == shape, f"{name}: {tensor} has shape {found[tensor].shape}, not {shape}"
    lines = elbo("info", run, "--graph").stdout.splitlines()
    scopes = {line.split()[0] for line in lines if re.match(r"\S+ .*MFLOP", line)}
    demand(scopes, [scope for scope, _, _ in kind.expanded("scopes", 1)], f"{name}, scopes of the training graph")
    for tensor, stack, row in kind.expanded("tensors", 3):
        wanted = kind.initial(tensor, stack, row, weights[tensor].shape)
        worst = numpy.abs(weights[tensor] - wanted).max()
        assert worst <= 1e-6, f"{name}: the initial {tensor} is off by {worst}: its noise is not addressed by its name"
    return weights


def denoised(kind, sentence, step, mark):
    """Returns the words that the encoder reads of sentence number `step` in the step of that number."""
    def hits(what):
        limit = int(float(kind.get(f"objective.denoise_{what}", 0)) * 2 ** 32)
        key = noise_key(SEED, purpose(noise(f"data.denoise.{what}")), step)
        return [word < limit for word in words(key, step, 0, len(sentence))]

    read, i = list(sentence), 0
    swap, blank, drop = hits("swap"), hits("blank"), hits("drop")
    while i + 1 < len(read):
        if swap[i]:
            read[i], read[i + 1] = read[i + 1], read[i]
            i += 1
        i += 1
    return [mark if blank[i] else word for i, word in enumerate(read) if not drop[i]]


def check_steps(name, kind, run, weights, ids):
    """Checks three training steps of one sentence each: the data order, word dropout, latent noise and every
    dropout."""
    place = order(SEED, purpose(noise("data.shuffle")), 0, len(ids))
    for step, row in enumerate(rows(run)[:STEPS]):
        sentence = ids[place[step]]
        assert row["tokens"] == len(sentence) + 1, \
            f"{name}: step {row['step']} is of another sentence than data.shuffle gives"
        bits = words(noise_key(SEED, purpose(noise("data.word_dropout")), step), step, 0, len(sentence) + 1)
        limit = int(kind.given["objective.word_dropout"] * 2 ** 32)
        mark = kind.vocabulary if kind.get("objective.dropped_mark", "own") == "own" else UNKNOWN
        read = [0] + [mark if bits[t] < limit else word for t, word in enumerate(sentence, 1)]
        model, z = kind.model(weights, (step, step)), None
        model.label = kind.label(place[step])
        with torch.no_grad():
            if kind.latent:
                width = kind.given["latent.width"]
                stats = model.posterior(torch.tensor([0, *denoised(kind, sentence, step, mark), 1]))
                eps = normals(noise_key(SEED, purpose(noise("latent.noise")), step), step, 0, width)
                z = stats[:width] + torch.exp(stats[width:] / 2) * torch.tensor(eps)
            near(row["reconstruction"], nll(model, read, sentence, z), f"{name}: the loss of step {row['step']}")


def nll(model, read, sentence, z):
    with torch.no_grad():
        logits = model.logits(torch.tensor(read), z)
        return (torch.logsumexp(logits, -1) - logits[range(len(read)), [*sentence, 1]]).sum().item()


def check_evaluation(name, kind, run, weights, data, ids):
    said = elbo("eval", run, f"--data.test={data}", "--eval.iwae_samples=0", "--json", f"--seed={SEED}",
                "--threads=1").stdout
    each = elbo("eval", run, f"--data.test={data}", "--eval.iwae_samples=0", "--per-sentence", f"--seed={SEED}").stdout
    width, model, n, z = kind.given["latent.width"], kind.model(weights), len(ids), []
    for number, sentence in enumerate(ids):
        model.label = kind.label(number)
        stats = model.posterior(torch.tensor([0, *sentence, 1])).detach()
        eps = normals(noise_key(SEED, purpose(noise("evaluate.posterior")), 0), number, 0, width)
        z.append(stats[:width] + torch.exp(stats[width:] / 2) * torch.tensor(eps))
    def scored(i, whose):
        model.label = kind.label(i)
        return nll(model, [0, *ids[i]], ids[i], z[whose])

    own = [scored(i, i) for i in range(n)]
    for line, wanted in zip(each.splitlines(), own, strict=True):
        near(json.loads(line)["reconstruction"], wanted, f"{name}: evaluate.posterior")
    place = order(SEED ^ purpose(noise("evaluate.own_z")), purpose("data.shuffle"), 0, n)
    other = {place[k]: place[(k + 1) % n] for k in range(n)}
    gain = numpy.mean([scored(i, other[i]) - own[i] for i in range(n)])
    near(json.loads(said)["own_z_gain"], gain, f"{name}: evaluate.own_z")


def check_encoding(name, kind, run, texts):
    label = [f"--label={LABELS[0]}"] if kind.label(0) is not None else []
    said = elbo("encode", run, "--format=jsonl", "--posterior_mean=false", f"--seed={SEED}", *label,
                stdin="\n".join(texts) + "\n").stdout
    for number, line in enumerate(map(json.loads, said.splitlines())):
        eps = normals(noise_key(SEED, purpose(noise("encode.posterior")), 0), number, 0, kind.given["latent.width"])
        wanted = numpy.array(line["mu"]) + numpy.exp(numpy.array(line["logvar"]) / 2) * eps
        for found, want in zip(line["z"], wanted, strict=True):
            near(found, want, f"{name}: encode.posterior")


def drawn_z(kind, model, number):
    """Returns z of a sentence to write; with a mixture, the first word of the next draw selects the component."""
    key = noise_key(SEED, purpose(noise("sample.prior")), 0)
    z = normals(key, number, 0, kind.given["latent.width"])
    if kind.get("latent.prior", "standard") not in ("mixture", "vamp"):
        return z # a diagonal prior begins as N(0, 1)
    with torch.no_grad():
        stats, weights = (x.numpy() for x in model.components())
    at = (words(key, number, 1, 1)[0] + 0.5) / 2 ** 32
    mean, logvar = numpy.split(stats[numpy.searchsorted(numpy.exp(weights).cumsum(), at)], 2)
    return mean + numpy.exp(logvar / 2) * z


def check_drawing(name, kind, run, weights, count=4, longest=8):
    """Checks sentences drawn at temperature 1 from all tokens: z by sample.prior, tokens by generate.token."""
    label = [f"--label={LABELS[2]}"] if kind.label(0) is not None else []
    said = elbo("sample", run, f"--count={count}", f"--max_length={longest}", "--temperature=1", "--top_p=1",
                f"--seed={SEED}", *label).stdout
    model, lines = kind.model(weights), []
    model.label = 2 if label else None
    for number in range(count):
        z = drawn_z(kind, model, number)
        ids, key = [0], noise_key(SEED, purpose(noise("generate.token")), 0)
        while len(ids) <= longest:
            with torch.no_grad():
                logits = model.logits(torch.tensor(ids), torch.tensor(z))[-1].numpy()
            logits[[0, UNKNOWN]] = -math.inf
            p = numpy.exp(logits - logits.max()).cumsum()
            u = (words(key, number, 0, len(ids))[len(ids) - 1] + 0.5) / 2 ** 32
            token = int(numpy.searchsorted(p, p[-1] * u, side="right"))
            if token == 1:
                break
            ids.append(token)
        lines.append(" ".join(map(str, ids[1:])))
    wanted = elbo("tokenize", run, "--decode", stdin="\n".join(lines) + "\n").stdout
    assert said == wanted, f"{name}: sample wrote\n{said}and by sample.prior and generate.token it is\n{wanted}"


def check_moments(scratch, data):
    """Checks that moments of a first step in bf16 are those in f32, rounded by words at consecutive elements of the
    arena."""
    state = {}
    for moments in ("f32", "bf16"):
        run = scratch / f"moments-{moments}"
        given = {**BASE, "train.steps": 1, "optimizer.kind": "sgd", "optimizer.moments": moments, "data.train": data,
                 "run.dir": run}
        elbo("train", *options(given))
        state[moments] = read_safetensors(checkpoints(run)[-1] / "state" / "optimizer.safetensors")
    alignment, names = 1024, [name for name in state["f32"] if name.startswith("moment1.")]
    noisy = numpy.array(words(noise_key(SEED, purpose(noise("optimizer.moments")), 1), 0, 0,
                              (len(names) + 8) * alignment), numpy.uint32)
    taken = {}
    for name in names:
        exact, rounded = (state[kind][name].ravel() for kind in ("f32", "bf16"))
        bits = exact.astype(numpy.float32).view(numpy.uint32)
        if (bits & 0xffff != 0).sum() < 64: # a few agree by chance
            continue
        offsets = [at for at in range(0, len(noisy) - len(bits) + 1, alignment)
                   if numpy.array_equal((bits + (noisy[at:at + len(bits)] & 0xffff)) & 0xffff0000,
                                        rounded.view(numpy.uint32))]
        assert len(offsets) == 1, \
            f"{name} in bf16 is not the f32 one rounded by optimizer.moments at one place: {offsets}"
        taken[offsets[0]] = name
    assert len(taken) > 10, taken


def check_source():
    """Checks that every literal that names noise in src/ is a purpose of the table, or the end of one."""
    literals, purposes = {}, {row[0] for row in FROZEN["noise"]}
    for path in sorted((SOURCE / "src").rglob("*.[ch]")):
        text = path.read_text(encoding="utf-8")
        for call, literal in re.findall(r'\b(noise_purpose|graph_purpose|op_dropping)\([^;]*?"([^"]+)"', text):
            literals.setdefault((call, literal), path.relative_to(SOURCE))
    whole = {literal for call, literal in literals if call == "noise_purpose"}
    ends = {literal for call, literal in literals if call != "noise_purpose"}
    if not whole or not ends:
        sys.exit("no literal of noise_purpose, or of graph_purpose and op_dropping, was found in src/: if these "
                 "functions have other names now, change the pattern in check_source")
    scoped = {name for name in purposes if name.rsplit(".", 1)[-1] in ends and name not in whole}
    demand(whole | scoped, purposes, "purposes of noise in src/")
    for end in ends:
        assert any(name.endswith(f".{end}") for name in scoped), f'"{end}" ends no purpose in {TABLE.name}'


def main():
    check_source()
    with Scratch() as scratch:
        grammar(scratch / "text", 12, 1)
        data = scratch / "corpus"
        (scratch / "labels").write_text("".join(f"{LABELS[i % len(LABELS)]}\n" for i in range(12)), encoding="utf-8")
        elbo("prepare", scratch / "text", f"--labels={scratch / 'labels'}", f"--out={data}")
        texts = (scratch / "text").read_text(encoding="utf-8").splitlines()
        ids = [[int(word) for word in line.split()]
               for line in elbo("tokenize", data, stdin="\n".join(texts) + "\n").stdout.splitlines()]
        vocabulary = json.loads(elbo("info", data, "--json").stdout)["vocabulary"]
        for name in MODELS:
            run, kind = scratch / name, Kind(name, vocabulary)
            elbo("train", *options({**kind.given, "data.train": data, "run.dir": run}))
            weights = check_names(name, kind, run)
            check_steps(name, kind, run, weights, ids)
            if kind.latent:
                check_evaluation(name, kind, run, weights, data, ids)
                check_encoding(name, kind, run, texts)
                check_drawing(name, kind, run, weights)
        check_moments(scratch, data)
    rows = sum(len(rows) for section, rows in FROZEN.items() if section != "models")
    print(f"{rows} rows of frozen names hold in {len(MODELS)} kinds of models")


if __name__ == "__main__":
    main()
