"""`elbo eval` against NumPy and PyTorch in double: every figure, on a corpus with cut sentences and unknown words, on
all sentences and on the first ones, with long ones cut and left out; each sentence's own figures; the baselines by
counting in Python; figures that are not finite, and text without words. Also greedy sentences, which the program reads
row by row from its cache: each word is the likeliest by the reference, which reads the whole sentence at once."""
import json
import math
import pathlib
import sys

import numpy

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "train"))
from reference import (EMBEDDING, PREFIX, RESIDUAL, ROTARY, TOLERANCE, Model, noise_key, normals, order, purpose,
                       read_safetensors, torch)
from runs import Scratch, checkpoints, elbo, grammar, options

WIDTH, LIMIT, SEED, SAMPLES, SET = 6, 9, 3, 4, 25
GIVEN = {
    "encoder.width": 12, "decoder.width": 12, "encoder.heads": 2, "decoder.heads": 2, "encoder.layers": 1,
    "decoder.layers": 1, "encoder.ff_width": 20, "decoder.ff_width": 20, "latent.width": WIDTH,
    "data.max_length": LIMIT, "train.slots": 2, "train.slot_tokens": 60,
    "train.steps": 150, "optimizer.warmup_steps": 5, "objective.beta": 0.5, "optimizer.learning_rate": 0.01,
    "threads": 1, "seed": 4, "objective.free_bits": 0.01,
    "encoder.dropout": 0.1, "decoder.dropout": 0.1,  # for training alone: figures have no dropout
}


# Runs by name: their options, and the ways for z as the reference takes them. Two have prefix rows, which no figure may
# count.
INJECTIONS = {
    "run": ({}, {}),
    "prefix": ({"latent.injection": "embedding,prefix", "latent.prefix": 3}, {"latent.injection": EMBEDDING | PREFIX}),
    "residual": ({"latent.injection": "residual", "decoder.layers": 2}, {"latent.injection": RESIDUAL}),
    "rotary": ({"latent.injection": "prefix,residual", "latent.prefix": 2, "decoder.layers": 2,
                "decoder.positions": "rotary"}, {"latent.injection": PREFIX | RESIDUAL, "decoder.positions": ROTARY}),
}


def lines_of(path, data):
    """Returns a text's lines, and their ids without marks."""
    text = path.read_text(encoding="utf-8")
    return text.splitlines(), [[int(word) for word in line.split()]
                               for line in elbo("tokenize", data, stdin=text).stdout.splitlines()]


def log_normal(z, mu, logvar):
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu) ** 2 / numpy.exp(logvar)).sum(-1)


def reference(run):
    given, known = INJECTIONS[run.name]
    return Model({**GIVEN, "tie_output": 1, "share_embedding": 1, **given, **known},
                 read_safetensors(checkpoints(run)[-1] / "model.safetensors"))


class Figures:
    """The figures that `eval` should report, by their definitions in docs/model.md."""

    def __init__(self, run, sentences, chosen, mean=False):
        self.model = reference(run)
        self.chosen, self.cut, self.mean = chosen, {i: sentences[i][:LIMIT] for i in chosen}, mean
        with torch.no_grad():
            stats = [self.model.posterior(torch.tensor([0, *self.cut[i], 1])).numpy() for i in chosen]
        self.mu, self.logvar = numpy.array(stats)[:, :WIDTH], numpy.array(stats)[:, WIDTH:]

    def z(self, row, draw):
        if self.mean:
            return self.mu[row]
        eps = normals(noise_key(SEED, purpose("evaluate.posterior"), 0), self.chosen[row], draw, WIDTH)
        return self.mu[row] + numpy.exp(self.logvar[row] / 2) * eps

    def logits(self, row, z):
        with torch.no_grad():
            return self.model.logits(torch.tensor([0, *self.cut[self.chosen[row]]]), torch.tensor(z))

    def right(self, row, z):
        """Returns how many of the predicted tokens have the largest logit."""
        return int((self.logits(row, z).argmax(-1) == torch.tensor([*self.cut[self.chosen[row]], 1])).sum())

    def nll(self, row, z):
        """Returns -log p of each predicted token."""
        ids, logits = self.cut[self.chosen[row]], self.logits(row, z)
        with torch.no_grad():
            return (torch.logsumexp(logits, -1) - logits[range(len(ids) + 1), [*ids, 1]]).numpy()

    def all(self, texts):
        n, found = len(self.chosen), {}
        tokens = [self.nll(row, self.z(row, 0)) for row in range(n)]
        own = numpy.array([token.sum() for token in tokens])
        each = (self.mu ** 2 + numpy.exp(self.logvar) - 1 - self.logvar) / 2
        kl = each.sum(1)
        found.update(reconstruction=own.mean(), kl=kl.mean(), neg_elbo=(own + kl).mean(), kl_per_dim=list(each.mean(0)),
                     neg_elbo_standard_error=(own + kl).std(ddof=1) / math.sqrt(n))
        variance = self.mu.var(0)
        found.update({"active_units": int((variance >= 0.01).sum()), "active_units_0.1": int((variance >= 0.1).sum())})
        place = order(SEED ^ purpose("evaluate.own_z"), purpose("data.shuffle"), 0, n)
        other = {place[k]: place[(k + 1) % n] for k in range(n)}
        found["own_z_gain"] = numpy.mean([self.nll(row, self.z(other[row], 0)).sum() - own[row] for row in range(n)])
        some = min(SET, n)
        draws = numpy.array([self.mu[row] + numpy.exp(self.logvar[row] / 2) * normals(
            noise_key(SEED, purpose("evaluate.posterior"), 0),
          self.chosen[row], 0, WIDTH) for row in range(some)])
        table = numpy.array([log_normal(z, self.mu[:some], self.logvar[:some]) for z in draws])
        found["mutual_information"] = (numpy.diag(table) - numpy.logaddexp.reduce(table, 1) + math.log(some)).mean()
        found.update(mutual_information_bound=math.log(some), mutual_information_sentences=some)
        best = own + kl
        if not self.mean:
            weights = []
            for draw in range(SAMPLES):
                zs = numpy.array([self.z(row, draw) for row in range(n)])
                score = numpy.array([-self.nll(row, zs[row]).sum() for row in range(n)])
                weights.append(score + log_normal(zs, 0 * zs, 0 * zs) - log_normal(zs, self.mu, self.logvar))
            best = math.log(SAMPLES) - numpy.logaddexp.reduce(weights, 0)
            found["iwae_nll"], self.iwae = best.mean(), best
            found["iwae_standard_error"] = best.std(ddof=1) / math.sqrt(n)
        counts = {"tokens": sum(len(token) for token in tokens), "words": 0, "bytes": 0}
        self.likeliest = [self.right(row, self.z(row, 0)) for row in range(n)]
        found["token_accuracy"] = sum(self.likeliest) / counts["tokens"]
        unknown, unknown_nats, known_bytes = 0, 0.0, 0
        for row, i in enumerate(self.chosen):
            share = lambda whole: whole if len(self.cut[i]) == self.length[i] \
                else int(whole * len(self.cut[i]) / self.length[i] + 0.5)
            counts["words"] += share(len(texts[i].split())) + 1
            counts["bytes"] += share(len(texts[i].encode()) + 1)
            missing = [k for k, token in enumerate(self.cut[i]) if token == 2]
            unknown, unknown_nats = unknown + len(missing), unknown_nats + tokens[row][missing].sum()
            kept = [word for word, token in zip(texts[i].split(), self.cut[i]) if token != 2]
            known_bytes += len(" ".join(kept)) + 1 if missing else share(len(texts[i].encode()) + 1)
        found.update(counts, sentences=n, unknown_share=unknown / counts["tokens"],
                     ppl_token=math.exp(best.sum() / counts["tokens"]), ppl_word=math.exp(best.sum() / counts["words"]),
                     bits_per_byte=best.sum() / math.log(2) / counts["bytes"],
                     known_bits_per_byte=((own + kl).sum() - unknown_nats) / math.log(2) / known_bytes)
        self.own, self.kl, self.counted = own, kl, [len(token) for token in tokens]
        return found


def baselines(train, test, vocabulary):
    """Returns nats per sentence from word counts (add one) and from word pairs (Witten and Bell 1991), with end
    marks."""
    word, before, pair, types = {}, {}, {}, {}
    for ids in train:
        for v, w in zip([0, *ids], [*ids, 1]):
            word[w] = word.get(w, 0) + 1
            before[v] = before.get(v, 0) + 1
            pair[v, w] = pair.get((v, w), 0) + 1
    for v, _ in pair:
        types[v] = types.get(v, 0) + 1
    total, unigram, bigram = sum(word.values()), 0.0, 0.0
    for ids in test:
        for v, w in zip([0, *ids], [*ids, 1]):
            p = (word.get(w, 0) + 1) / (total + vocabulary)
            unigram -= math.log(p)
            seen = before.get(v, 0)
            bigram -= math.log((pair.get((v, w), 0) + types[v] * p) / (seen + types[v]) if seen else p)
    return unigram / len(test), bigram / len(test)


def compare(found, wanted, what):
    for name, figure in wanted.items():
        pairs = zip(found[name], figure) if isinstance(figure, list) else [(found[name], figure)]
        for got, want in pairs:
            bad = got != want if isinstance(want, int) else abs(got - want) > TOLERANCE["MODEL"] * max(abs(want), 1)
            assert not bad, f"{what}: {name} is {got}, not {want}"


def check(run, train, test, train_ids, texts, ids, vocabulary, sentences, skip, mean):
    """Checks one combination of options."""
    what = f"sentences={sentences} skip={skip} mean={mean}"
    may = [i for i in range(len(ids)) if not skip or len(ids[i]) <= LIMIT]
    chosen = may[:sentences] if sentences else may
    figures = Figures(run, ids, chosen, mean)
    figures.length = [len(sentence) for sentence in ids]
    wanted = figures.all(texts)
    wanted["unigram_nll"], wanted["bigram_nll"] = baselines(train_ids, [ids[i][:LIMIT] for i in chosen], vocabulary)
    words = ["eval", run, f"--data.test={test}", f"--eval.baseline={train}", f"--seed={SEED}",
             f"--eval.mi_sentences={SET}", f"--eval.sentences={sentences}"]
    words += ["--data.too_long=skip"] * skip + (["--eval.posterior=mean"] if mean
                                                else [f"--eval.iwae_samples={SAMPLES}"])
    answer = elbo(*words, "--json")
    found = json.loads(answer.stdout)
    compare(found, wanted, what)
    assert found["shortened"] == sum(len(ids[i]) > LIMIT for i in range(chosen[-1] + 1)), what
    assert ("left out" if skip else "were cut") in answer.stderr, answer.stderr
    assert (found["posterior"], found["bound"]) == (("mean", False) if mean else ("sample", True))
    assert (found["iwae_nll"] is None) == mean and ("iwae_nll" in found.get("null_because", {})) == mean
    rows = [json.loads(line) for line in elbo(*words, "--per-sentence").stdout.splitlines()]
    assert [row["sentence"] for row in rows] == chosen and [row["tokens"] for row in rows] == figures.counted, what
    assert [row["right"] for row in rows] == figures.likeliest, what
    for row, own, kl in zip(rows, figures.own, figures.kl):
        compare(row, {"reconstruction": own, "kl": kl, "neg_elbo": own + kl}, f"{what}: sentence {row['sentence']}")
    if not mean:
        for row, best in zip(rows, figures.iwae):
            compare(row, {"iwae_nll": best}, f"{what}: sentence {row['sentence']}")
    text = elbo(*words).stdout
    assert ("not a bound" in text) == mean, text
    for kind, nats in (("word counts", wanted["unigram_nll"]), ("word pairs", wanted["bigram_nll"])):
        line = next(line for line in text.splitlines() if kind in line)
        share = 100 * (1 - wanted["neg_elbo"] / nats)
        assert f"{abs(share):.1f} % {'above' if share < 0 else 'below'}" in line, line
    return figures


def check_active_units(figures):
    """The set must distinguish variance from deviation, and 0.01 from 0.1, for the figures above to prove anything."""
    variance = figures.mu.var(0)
    assert any(v < 0.01 <= math.sqrt(v) for v in variance) and any(v >= 0.01 for v in variance), variance


def check_without_words(scratch):
    """Text without blanks, and a likelihood that no double holds: the figure is null and named, and the row of metrics
    is kept."""
    path = scratch / "chains"
    path.write_text("\n".join("".join("ACDEFGHIKLMNPQRSTVWY"[(7 * i * i + 3 * k * k + i * k) % 20] for k in range(300))
                              for i in range(12)) + "\n")
    elbo("prepare", path, "--tokenizer.kind=byte", f"--out={scratch / 'bytes'}")
    given = {**GIVEN, "data.max_length": 600, "train.slot_tokens": 602, "train.steps": 2, "optimizer.warmup_steps": 1}
    elbo("train", f"--data.train={scratch / 'bytes'}", f"--data.valid={scratch / 'bytes'}",
         f"--run.dir={scratch / 'chain'}", *options(given))
    valid = [json.loads(line)["valid"] for line in (scratch / "chain" / "metrics.jsonl").read_text().splitlines()
             if '"valid"' in line]
    assert len(valid) == 1 and valid[0]["ppl_word"] is None and valid[0]["neg_elbo"] > 0, valid
    found = json.loads(elbo("eval", scratch / "chain", f"--data.test={scratch / 'bytes'}", "--json").stdout)
    assert found["ppl_word"] is None and "no blanks" in found["null_because"]["ppl_word"] and found["ppl_token"] > 1
    assert "none per word" in elbo("eval", scratch / "chain", f"--data.test={scratch / 'bytes'}").stdout
    # two words a sentence, so that the figure per word is more than exp can hold
    path.write_text("\n".join("A " + "CD" * 299 for _ in range(4)) + "\n")
    elbo("prepare", path, f"--tokenizer.from={scratch / 'bytes'}", f"--out={scratch / 'two'}")
    found = json.loads(elbo("eval", scratch / "chain", f"--data.test={scratch / 'two'}", "--json").stdout)
    assert found["neg_elbo"] / 3 > 710, "the text is too easy to prove anything"
    assert found["ppl_word"] is None and "infinite" in found["null_because"]["ppl_word"], found


def check_greedy(run, count):
    model = reference(run)
    # large, so that z has an effect
    latents = numpy.random.default_rng(1).normal(0, 30, (count, WIDTH)).round(3).tolist()
    said = elbo("decode", run, "--greedy", stdin="".join(f"{z}\n" for z in latents)).stdout
    written = [[int(word) for word in line.split()] for line in elbo("tokenize", run, stdin=said).stdout.splitlines()]
    assert len({tuple(ids) for ids in written}) > 3, f"{run.name}: z is not heard, so little is proved"
    for z, ids in zip(latents, written, strict=True):
        with torch.no_grad():
            logits = model.logits(torch.tensor([0, *ids]), torch.tensor(z, dtype=torch.float64))
        logits[:, [0, 2]] = -math.inf # the start and unknown marks are never written
        best = logits.argmax(1).tolist()
        assert best[:len(ids)] == ids and (best[-1] == 1 or len(ids) == LIMIT), (run.name, ids, best)


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 80, 1)
        grammar(scratch / "fresh", 40, 2)
        elbo("prepare", scratch / "text", f"--out={scratch / 'train'}", "--tokenizer.size=40")
        elbo("prepare", scratch / "fresh", f"--out={scratch / 'test'}", f"--tokenizer.from={scratch / 'train'}")
        elbo("train", f"--data.train={scratch / 'train'}", f"--run.dir={scratch / 'run'}", *options(GIVEN))
        texts, ids = lines_of(scratch / "fresh", scratch / "train")
        train_ids = lines_of(scratch / "text", scratch / "train")[1]
        vocabulary = json.loads(elbo("info", scratch / "train", "--json").stdout)["vocabulary"]
        assert any(2 in sentence for sentence in ids) and 5 < sum(len(sentence) > LIMIT for sentence in ids) < 35
        figures = None
        for sentences, skip, mean in ((0, False, False), (16, False, False), (0, True, False), (11, True, True),
                                      (0, False, True)):
            figures = check(scratch / "run", scratch / "train", scratch / "test", train_ids, texts, ids, vocabulary,
                            sentences, skip, mean)
        check_active_units(figures)
        for name, (given, _) in INJECTIONS.items():
            if name != "run":
                elbo("train", f"--data.train={scratch / 'train'}", f"--run.dir={scratch / name}",
                     *options({**GIVEN, **given}))
                check(scratch / name, scratch / "train", scratch / "test", train_ids, texts, ids, vocabulary, 0, False,
                      False)
            check_greedy(scratch / name, 20)
        check_without_words(scratch)
    sys.exit(0)


if __name__ == "__main__":
    main()
