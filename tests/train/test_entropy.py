"""Text of exactly known entropy: 200 steps on sentences of a grammar, then fresh sentences of the same grammar.

  no bound below the truth   neg_elbo and iwae_nll stay above the mean of the exact -log p over that very text, less
                             three standard errors; neg_elbo >= iwae_nll; the importance-weighted figure falls with
                             its samples
  something was learned      well below the unigram cross-entropy, with a latent that is used
  a false bound is caught    the posterior's mean instead of a sample is no bound: without noise the figure may fall
                             lower, and eval then reports no importance-weighted figure"""
import json
import math
import sys
from collections import Counter

from runs import Scratch, elbo, grammar, options

SAMPLES = (1, 5, 50)
SMALL = {
    "train.steps": 200, "encoder.width": 48, "decoder.width": 48, "encoder.layers": 1, "decoder.layers": 1,
    "latent.width": 8, "encoder.ff_width": 96, "decoder.ff_width": 96, "train.slots": 2, "train.slot_tokens": 700,
    "data.max_length": 30, "objective.word_dropout": 0.1, "objective.free_bits": 0.1, "optimizer.learning_rate": 0.005,
    "optimizer.warmup_steps": 20, "checkpoint.every": 0, "threads": 2,
}


def unigram(train, test):
    """Returns the cross-entropy of test sentences under counts of the training text, with end marks, in nats per
    sentence."""
    def count(path):
        lines = path.read_text(encoding="ascii").splitlines()
        return Counter(word for line in lines for word in line.split() + ["</s>"]), len(lines)
    known, _ = count(train)
    fresh, sentences = count(test)
    total = sum(known.values())
    return -sum(n * math.log(known[word] / total) for word, n in fresh.items()) / sentences


def check(scratch, toy, sentences, ceiling, kl):
    where = scratch / ("toy" if toy else "full")
    where.mkdir()
    grammar(where / "train.txt", 15000, 1, toy)
    truth = grammar(where / "test.txt", sentences, 2, toy)
    elbo("prepare", where / "train.txt", f"--out={where / 'train'}")
    elbo("prepare", where / "test.txt", f"--out={where / 'test'}", f"--tokenizer.from={where / 'train'}")
    elbo("train", f"--data.train={where / 'train'}", f"--run.dir={where / 'run'}", *options(SMALL))

    def measure(*more):
        return json.loads(elbo("eval", where / "run", f"--data.test={where / 'test'}", "--json", *more).stdout)

    figures = [measure(f"--eval.iwae_samples={k}") for k in SAMPLES]
    first = figures[0]
    assert first["sentences"] == sentences and first["unknown_share"] == 0 and first["words"] \
        == truth["words"] + sentences
    assert abs(first["neg_elbo"] - first["reconstruction"] - first["kl"]) < 1e-6
    bound, error = truth["mean_neg_log_p"], truth["standard_error"]
    for k, figure in zip(SAMPLES, figures):
        assert figure["neg_elbo"] == first["neg_elbo"] and figure["iwae_samples"] == k
        assert figure["iwae_nll"] >= bound - 3 * error, (toy, k, figure["iwae_nll"], bound, error)
        if k > 1:
            assert figure["iwae_nll"] <= figure["neg_elbo"], (toy, k, figure["iwae_nll"], figure["neg_elbo"])
    assert first["neg_elbo"] >= bound - 3 * error
    # One sample has the expectation of neg_elbo, with log p(z) - log q(z) drawn instead of integrated.
    spread = 3 * math.hypot(first["neg_elbo_standard_error"], first["iwae_standard_error"])
    assert abs(first["iwae_nll"] - first["neg_elbo"]) < spread
    falling = [figure["iwae_nll"] for figure in figures]
    assert falling == sorted(falling, reverse=True) and falling[0] > falling[-1], falling  # the draws are nested
    plain = unigram(where / "train.txt", where / "test.txt")
    assert first["neg_elbo"] < ceiling * plain, (toy, first["neg_elbo"], plain)
    assert first["kl"] > kl and first["own_z_gain"] > kl and first["mutual_information"] > kl, first
    assert first["mutual_information"] <= first["mutual_information_bound"]
    assert 0 < first["active_units"] <= 8 and abs(sum(first["kl_per_dim"]) - first["kl"]) < 1e-6
    mean = measure("--eval.posterior=mean")
    assert mean["iwae_nll"] is None and mean["reconstruction"] < first["reconstruction"]
    print(f"{truth['variant']}: -log p {bound:.3f} +- {error:.3f}, importance-weighted "
          + ", ".join(f"{x:.3f}" for x in reversed(falling))
          + f", neg_elbo {first['neg_elbo']:.3f} (kl {first['kl']:.2f}), unigram {plain:.3f}")


def main():
    with Scratch() as scratch:
        check(scratch, toy=True, sentences=3000, ceiling=0.65, kl=0.5)
        check(scratch, toy=False, sentences=1500, ceiling=0.62, kl=1.0)
    sys.exit(0)


if __name__ == "__main__":
    main()
