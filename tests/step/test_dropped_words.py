#!/usr/bin/python3
"""Dropped words: the share in the log is the share that the slots drop. With objective.dropped_mark=own, dropped words
become a mark that nothing else reads, so the unknown mark keeps its meaning. A new run that drops words has the mark,
and a resumed run keeps its setting. train/test_fixtures.py tests checkpoints from before the key."""
import pathlib
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "model"))
from reference import read_safetensors  # noqa: E402
from runs import Scratch, bits, checkpoints, elbo, grammar, options, rows, same  # noqa: E402

UNKNOWN, SHARE = 2, 0.4


def goes_on(scratch, base):
    name = "decoder.embedding.mark.weight"

    def held(run):
        last = checkpoints(scratch / run)[-1]
        said = (last / "config.yaml").read_text(encoding="utf-8")
        mark = "own" if "dropped_mark: own" in said else "unknown"
        assert f"dropped_mark: {mark}" in said
        assert (name in read_safetensors(last / "model.safetensors")) == (mark == "own")
        return mark

    def train(run, **changes):
        elbo("train", *options({**base, "run.dir": scratch / run, "optimizer.learning_rate": 0.01,
                                **{f"objective.{key}": value for key, value in changes.items()}}))
        return held(run)

    base = {**base, "train.stop_after": 30}
    assert train("new") == "own" and train("none", word_dropout=0) == "unknown"
    assert train("blank", word_dropout=0, denoise_blank=0.1) == "own"
    assert train("old", dropped_mark="unknown") == "unknown"
    base = {**base, "train.stop_after": 0}
    assert train("new", word_dropout=0) == "own" and train("none") == "unknown" and train("old") == "unknown"
    same(bits(scratch / "old"), bits(scratch / "unknown"), "a run that is not told its mark again")
    refused = elbo("train", *options({**base, "run.dir": scratch / "old", "objective.dropped_mark": "own"}), code=2)
    assert "objective.dropped_mark is unknown there and own here" in refused.stderr, refused.stderr
    refused = elbo("train", *options({**base, "run.dir": scratch / "never", "objective.word_dropout": 0,
                                      "objective.dropped_mark": "own"}), code=2)
    assert "no word becomes a mark" in refused.stderr, refused.stderr
    elbo("init", scratch / "all.yaml")
    elbo("train", scratch / "all.yaml", *options({**base, "run.dir": scratch / "all", "objective.word_dropout": 0}))
    assert held("all") == "unknown"
    elbo("train", scratch / "all" / "config.yaml", "--train.steps=61")


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 200, 1)
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        base = {"data.train": scratch / "corpus", "encoder.width": 16, "decoder.width": 16, "encoder.layers": 1,
                "decoder.layers": 1, "encoder.heads": 2, "decoder.heads": 2, "latent.width": 4, "train.steps": 60,
                "train.slots": 3, "train.slot_tokens": 200, "optimizer.warmup_steps": 1, "log.every": 1,
                "objective.word_dropout": SHARE, "decoder.tie_output": "false", "encoder.share_embedding": "false",
                "optimizer.weight_decay": 0, "train.slot_sentences": 20}
        moved = {}
        for mark in ("unknown", "own"):
            run = scratch / mark
            first = {**base, "run.dir": run, "objective.dropped_mark": mark, "optimizer.learning_rate": 0.01}
            elbo("train", *options({**first, "train.stop_after": 1}))
            before = read_safetensors(checkpoints(run)[-1] / "model.safetensors")
            elbo("train", *options(first))
            after = read_safetensors(checkpoints(run)[-1] / "model.safetensors")
            table = "decoder.embedding.token.weight"
            moved[mark] = numpy.abs(after[table][UNKNOWN] - before[table][UNKNOWN]).max()
            name = "decoder.embedding.mark.weight"
            assert (name in after) == (mark == "own"), sorted(after)
            if mark == "own":
                assert numpy.abs(after[name] - before[name]).max() > 0.01
            shares = [row["effective"]["words_dropped"] for row in rows(run)]
            words = sum(row["tokens"] - row["sentences"] for row in rows(run))
            sigma = (SHARE * (1 - SHARE) / words) ** 0.5
            assert abs(numpy.average(shares, weights=[row["tokens"] - row["sentences"] for row in rows(run)]) - SHARE) \
                < 5 * sigma, shares
            elbo("eval", run, f"--data.test={scratch / 'corpus'}")
            elbo("sample", run, "--count=2")
        assert moved["own"] == 0 < 0.01 < moved["unknown"], moved

        goes_on(scratch, base)
        print(f"{SHARE} of the words dropped; the unknown mark's row moves by {moved['unknown']:.3f}, and by "
              f"{moved['own']:g} where dropped words have a mark of their own")


if __name__ == "__main__":
    main()
