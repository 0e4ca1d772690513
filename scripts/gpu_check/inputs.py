"""Corpora of made-up words, and the options of the timed step."""
import itertools
import json
import random


def write_text(path, sizes, lengths, tokens):
    """Writes sentences over exactly the vocabulary, with these lengths in turn, of at least `tokens` tokens."""
    vocabulary, seed = sizes["vocabulary"], random.Random(1)
    every, lines = [f"w{i}" for i in range(vocabulary - 3)], [] # the vocabulary has three marks too
    every += seed.choices(every, k=max(0, tokens - len(every)))
    seed.shuffle(every)
    at = 0
    while at < len(every):
        length = max(1, min(next(lengths), len(every) - at))
        lines.append(" ".join(every[at:at + length]))
        at += length
    path.write_text("\n".join(lines) + "\n")


def bench_corpus(check, folder, name, lengths, tokens=0):
    text = folder / f"{name}.txt"
    write_text(text, check.sizes, lengths, tokens or check.sizes["text"] * check.sizes["words"])
    made = check.run(f"a corpus, {name}", [check.elbo, "prepare", text, f"--out={folder / name}",
                                           "--tokenizer.kind=word", f"--tokenizer.size={check.sizes['vocabulary']}"],
                     60, quiet=True)
    return folder / name if made is not None else None


def same_lengths(check, folder):
    """Makes a corpus where S sentences have S (words + 1) decoder tokens; the first sentence takes the remainder."""
    sizes = check.sizes
    rest = max(sizes["vocabulary"] - 3, sizes["text"] * sizes["words"]) % sizes["words"]
    return bench_corpus(check, folder, "equal", itertools.chain([rest] * (rest > 0), itertools.repeat(sizes["words"])))


def counts_of_lengths(check):
    """Entry n: the number of WordNet's definitions of n words, cut at `longest`."""
    carried = check.build / "cuda" / "lengths.json"
    return json.loads(carried.read_text()) if carried.exists() and not check.given.emulate else [0, 2, 5, 9, 7, 4, 2]


def many_lengths(check, folder):
    counts, seed = counts_of_lengths(check), random.Random(2)
    return bench_corpus(check, folder, "lengths", (seed.choices(range(len(counts)), counts)[0]
                                                   for _ in itertools.count()))


def bench_options(check, corpus, sentences, precision):
    words, stacks = check.sizes["words"], ("encoder", "decoder")
    options = {f"{stack}.{key}": check.sizes[key] for stack in stacks for key in ("width", "layers", "heads")}
    options.update({"latent.width": check.sizes["latent"], "objective.word_dropout": 0, "data.max_length": words,
                    "data.train": corpus, "train.slots": 1, "train.slot_sentences": sentences,
                    "train.slot_tokens": sentences * (words + 2), "device": "cuda"})
    return [f"--{k}={v}" for k, v in options.items()] + ([f"--precision={precision}"] if precision != "f32" else [])
