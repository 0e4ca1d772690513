#!/usr/bin/python3
"""objective.bow: its value against NumPy's, from the z and the weights of a checkpoint, and its purpose: z must carry
the sentence's words, so the KL does not collapse where beta = 1 alone lets it."""
import json
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "model"))
from reference import read_safetensors  # noqa: E402
from runs import Scratch, checkpoints, elbo, grammar, options, rows  # noqa: E402


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 60, 1)
        lines = (scratch / "text").read_text(encoding="utf-8")
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        ids = [[int(word) for word in line.split()] + [1]
               for line in elbo("tokenize", scratch / "corpus", stdin=lines).stdout.splitlines()]
        base = {"data.train": scratch / "corpus", "encoder.width": 16, "decoder.width": 16, "encoder.layers": 1,
                "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": 4, "log.every": 1,
                "optimizer.warmup_steps": 0, "objective.free_bits": 0, "objective.beta_schedule": "constant"}

        # every sentence in one step, z = mu, and a last step that changes nothing
        whole = {**base, "train.slots": 1, "train.slot_tokens": 4000, "train.slot_sentences": len(ids),
                 "latent.sample": "false", "objective.bow": 0.7, "run.dir": scratch / "whole"}
        elbo("train", *options({**whole, "train.steps": 40}))
        elbo("train", *options({**whole, "train.steps": 41, "optimizer.learning_rate": 0}))
        weights = read_safetensors(checkpoints(whole["run.dir"])[-1] / "model.safetensors")
        encoded = elbo("encode", whole["run.dir"], "--format=jsonl", f"--out={scratch / 'z'}", stdin=lines)
        assert not encoded.stdout
        total = 0.0
        for line, words in zip((scratch / "z").read_text(encoding="utf-8").splitlines(), ids, strict=True):
            logits = weights["objective.bow.weight"].astype(numpy.float64) @ numpy.array(json.loads(line)["mu"]) \
                + weights["objective.bow.bias"]
            total += len(words) * numpy.logaddexp.reduce(logits) - logits[words].sum()
        row = rows(whole["run.dir"])[-1]
        assert row["sentences"] == len(ids) and row["bow_weight"] == 0.7, row
        assert abs(row["bow"] - total / len(ids)) < 1e-4 * row["bow"], (row["bow"], total / len(ids))
        loss = row["reconstruction"] + row["beta"] * row["kl_free"] + 0.7 * row["bow"]
        assert abs(row["loss"] - loss) < 1e-5 * loss, row

        kl = {}
        for weight in (0, 1):
            given = {**base, "run.dir": scratch / f"run{weight}", "train.steps": 300, "train.slots": 2,
                     "train.slot_tokens": 300, "objective.bow": weight}
            elbo("train", *options(given))
            kl[weight] = numpy.mean([row["kl"] for row in rows(given["run.dir"])[-50:]])
        assert kl[0] < 0.3 < 1 < kl[1], kl
        refused = elbo("train", f"--data.train={scratch / 'corpus'}", f"--run.dir={scratch / 'none'}",
                       "--latent.kind=none", "--objective.bow=1", code=2)
        assert "latent.kind=none has no z" in refused.stderr, refused.stderr
        print(f"bow {row['bow']:.4f} as in NumPy; KL {kl[0]:.3f} without, {kl[1]:.3f} with it")


if __name__ == "__main__":
    main()
