"""Tests that the entropy stated by scripts/grammar-text is that of its text: by enumeration for the toy grammar; for
the full grammar by the sample mean and by reading sentences with a separate parser, which shows that each sentence
has one derivation with the stated -log p. The seed alone must decide the text."""
import importlib.machinery
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
SCRIPT = SOURCE / "scripts" / "grammar-text"
loader = importlib.machinery.SourceFileLoader("grammar_text", str(SCRIPT))
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("grammar_text", loader))
loader.exec_module(module)


def cost(choice, outcome):
    return -math.log(choice.p[choice.outcomes.index(outcome)])


def where(choices, word):
    """Returns the index of the only row of `choices` that has `word`."""
    rows = [i for i, choice in enumerate(choices) if word in choice.outcomes]
    assert len(rows) == 1, word
    return rows[0]


def neg_log_p(grammar, words):
    """Computes -log p from the words alone, by recursive descent."""
    clauses = " ".join(words).split(" and ")
    total = cost(grammar.clauses, len(clauses))
    shared = set()
    for clause in clauses:
        rest = clause.split()
        assert rest.pop(0) == "the"
        adjectives = []
        while any(rest[0] in c.outcomes for c in grammar.adjective):
            adjectives.append(rest.pop(0))
        noun, verb, *tail = rest
        mood, topic = where(grammar.adjective, adjectives[0]), where(grammar.noun, noun)
        tense = 1 if verb.endswith("ed") else 0
        shared.add((topic, mood, tense))
        total += cost(grammar.adjectives, len(adjectives)) + sum(cost(grammar.adjective[mood], a) for a in adjectives)
        total += cost(grammar.noun[topic], noun) + cost(grammar.verb[tense][topic], verb)
        total += cost(grammar.object, bool(tail))
        if tail:
            assert len(tail) == 2 and tail[0] == "the"
            total += cost(grammar.noun[topic], tail[1])
    assert len(shared) == 1
    topic, mood, tense = shared.pop()
    return total + cost(grammar.topic, topic) + cost(grammar.mood, mood) + cost(grammar.tense, tense)


def check_toy():
    grammar = module.Toy()
    p = grammar.distribution()
    assert len(p) == 54 and abs(math.fsum(p.values()) - 1) < 1e-12
    assert abs(-math.fsum(q * math.log(q) for q in p.values()) - grammar.entropy()) < 1e-12
    texts, costs = module.generate(grammar, 2000, 3)
    assert all(abs(c + math.log(p[" ".join(t)])) < 1e-12 for t, c in zip(texts, costs))
    assert abs(math.fsum(q * len(x.split()) for x, q in p.items()) - grammar.mean_words()) < 1e-12
    assert len({w for x in p for w in x.split()}) == grammar.types()


def check_full():
    grammar = module.Grammar()
    texts, costs = module.generate(grammar, 50000, 11)
    for words, stated in zip(texts[:5000], costs):
        assert abs(neg_log_p(grammar, words) - stated) < 1e-9, words
    mean = math.fsum(costs) / len(costs)
    error = math.sqrt(math.fsum((c - mean) ** 2 for c in costs) / (len(costs) - 1) / len(costs))
    assert abs(mean - grammar.entropy()) < 4 * error, (mean, grammar.entropy(), error)
    assert len({w for words in texts for w in words}) == grammar.types()
    assert max(map(len, texts)) <= grammar.most_words
    assert abs(sum(map(len, texts)) / len(texts) - grammar.mean_words()) < 0.1
    assert 0 < grammar.shared() < grammar.entropy()


def check_program():
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            out = pathlib.Path(scratch, name)
            subprocess.run([SCRIPT, "--sentences=500", f"--seed={seed}", f"--out={out}", f"--entropy={out}.json"],
                           check=True)
            files.append(out.read_text())
        figures = json.loads(pathlib.Path(scratch, "a.json").read_text())
    assert files[0] == files[1] != files[2]
    assert files[0].count("\n") == figures["sentences"] == 500
    assert abs(figures["entropy"] - figures["mean_neg_log_p"]) < 4 * figures["standard_error"]


if __name__ == "__main__":
    check_toy()
    check_full()
    check_program()
    print("the stated entropy is the true one")
    sys.exit(0)
