#!/usr/bin/python3
"""Labels: `elbo prepare` with a file or a column of them, through splits; data.labels in training, on any number of
ranks and when resumed; --label in generation; evaluation by label; and refusals, by name."""
import json
import pathlib
import random
import shutil
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import ELBO, Scratch, check_same_bits, checkpoints, elbo, options # noqa: E402

KINDS = ["blue", "green", "red"]
GIVEN = {"encoder.width": 32, "decoder.width": 32, "encoder.layers": 1, "decoder.layers": 1, "latent.width": 4,
         "train.steps": 300, "train.slots": 2, "train.slot_tokens": 300, "optimizer.warmup_steps": 1,
         "optimizer.learning_rate": 0.01, "objective.free_bits": 0, "data.max_length": 20, "log.every": 100}


def text(folder):
    """Writes sentences whose words begin with the first letter of their kind, with some blank lines."""
    rng, lines = random.Random(1), []
    for _ in range(2000):
        kind = rng.choice(KINDS)
        words = " ".join(f"{kind[0]}{rng.randrange(12)}" for _ in range(rng.randint(3, 7)))
        lines.append((kind, words) if rng.random() > 0.02 else ("", ""))
    for name, form in (("text", "{1}"), ("labels", "{0}"), ("first.tsv", "{0}\t{1}"), ("last.tsv", "{1}\t{0}")):
        (folder / name).write_text("".join(form.format(*line).strip("\t") + "\n" for line in lines), encoding="utf-8")
    return [line for line in lines if line[1]]


def classes(corpus):
    """Returns (word, label) of each sentence of a corpus on disk."""
    manifest = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))
    numbers = numpy.fromfile(corpus / manifest["labels"]["file"], "<u4")
    dumped = elbo("dump", corpus).stdout.splitlines()
    assert len(dumped) == len(numbers) == manifest["sentences"]
    return [(line, manifest["labels"]["classes"][k]) for line, k in zip(dumped, numbers)]


def check_prepare(scratch, lines):
    whole = scratch / "whole"
    elbo("prepare", scratch / "text", f"--labels={scratch / 'labels'}", f"--out={whole}")
    assert classes(whole) == [(words, kind) for kind, words in lines]
    info = json.loads(elbo("info", whole, "--json").stdout)["labels"]
    assert info == {kind: sum(line[0] == kind for line in lines) for kind in KINDS}, info
    for name, given in (("file", [scratch / "text", f"--labels={scratch / 'labels'}"]),
                        ("first", [scratch / "first.tsv", "--label_column=first"]),
                        ("last", [scratch / "last.tsv", "--label_column=last"])):
        elbo("prepare", *given, f"--out={scratch / name}", "--split=80/10/10")
        for part in ("train", "valid", "test"):
            for file in ("corpus.bin", "labels.bin"):
                assert (scratch / name / part / file).read_bytes() == (scratch / "file" / part / file).read_bytes()
    found = [pair for part in ("train", "valid", "test") for pair in classes(scratch / "file" / part)]
    assert sorted(found) == sorted((words, kind) for kind, words in lines)
    # two files of text and one of labels; the lines are in the order of the files
    every = (scratch / "text").read_text(encoding="utf-8").splitlines(True)
    (scratch / "a").write_text("".join(every[:700]), encoding="utf-8")
    (scratch / "b").write_text("".join(every[700:]), encoding="utf-8")
    elbo("prepare", scratch / "a", scratch / "b", f"--labels={scratch / 'labels'}", f"--out={scratch / 'two'}")
    assert (scratch / "two" / "labels.bin").read_bytes() == (whole / "labels.bin").read_bytes()
    # a split is replaced by one without labels, and vice versa
    elbo("prepare", scratch / "text", f"--out={scratch / 'two'}")
    elbo("prepare", scratch / "text", f"--labels={scratch / 'labels'}", f"--out={scratch / 'two'}")

    def refused(*given, code=3):
        return elbo("prepare", *given, f"--out={scratch / 'never'}", code=code).stderr

    labels = (scratch / "labels").read_text(encoding="utf-8").splitlines(True)
    for name, some, words in (("few", labels[:100], "100 lines"), ("many", labels + ["red\n"], "2000 lines"),
                              ("empty", ["\n"] + labels[1:], "label is empty")):
        (scratch / name).write_text("".join(some), encoding="utf-8")
        assert words in refused(scratch / "text", f"--labels={scratch / name}"), name
    assert "no TAB" in refused(scratch / "text", "--label_column=first")
    assert "--label_column" in refused(scratch / "first.tsv")
    assert "one of them" in refused(scratch / "first.tsv", "--label_column=first", f"--labels={scratch / 'labels'}",
                                    code=2)
    assert not (scratch / "never").exists()
    damaged = scratch / "damaged"
    shutil.copytree(whole, damaged)
    (damaged / "labels.bin").write_bytes((damaged / "labels.bin").read_bytes()[:-4] + b"\7\0\0\0")
    assert "labels.bin" in elbo("info", damaged, code=3).stderr


def evaluate(run, data, *given):
    return json.loads(elbo("eval", run, f"--data.test={data}", "--json", *given).stdout)


def kinds_of(written):
    """Returns, for each kind, the share of words that begin like the kind, over all lines."""
    words = written.split()
    return {kind: sum(word[0] == kind[0] for word in words) / len(words) for kind in KINDS}


def check_training(scratch):
    found = {}
    for labels in ("false", "true"):
        run = scratch / f"labels-{labels}"
        elbo("train", *options({**GIVEN, "data.train": scratch / "file" / "train", "data.labels": labels,
                                "data.valid": scratch / "file" / "valid", "run.dir": run}))
        found[labels] = evaluate(run, scratch / "file" / "test")
        by = found[labels]["by_label"]
        assert sorted(by) == KINDS and sum(one["sentences"] for one in by.values()) == found[labels]["sentences"]
        for key in ("neg_elbo", "reconstruction", "kl", "iwae_nll"):
            mean = sum(one[key] * one["sentences"] for one in by.values()) / found[labels]["sentences"]
            assert abs(mean - found[labels][key]) < 1e-6 * abs(mean), key
        for one in by.values():
            whole = one["reconstruction"] * one["sentences"]
            assert abs(one["reconstruction_per_token"] * one["tokens"] - whole) < 1e-3
    gain = found["false"]["neg_elbo"] - found["true"]["neg_elbo"]
    assert gain > 0.7, f"a label of three is worth {gain} nats, at most 1.1"
    each = elbo("eval", run, f"--data.test={scratch / 'file' / 'test'}", "--per-sentence").stdout.splitlines()
    each = [json.loads(line) for line in each]
    for kind, one in found["true"]["by_label"].items():
        right, tokens = (sum(row[key] for row in each if row["label"] == kind) for key in ("right", "tokens"))
        assert tokens == one["tokens"] and abs(right / tokens - one["token_accuracy"]) < 1e-8, (kind, right, one)
    assert json.loads(elbo("info", run, "--json").stdout)["labels"] == KINDS
    return run, gain


def check_generation(scratch, run):
    for kind in KINDS:
        for given in ((), ("--beam=3",)):
            share = kinds_of(elbo("sample", run, "--count=20", f"--label={kind}", *given).stdout)
            assert share[kind] > 0.98, (kind, share)
    lines = "r1 r2 r3\nb1 b2 b3 b4\n"
    assert kinds_of(elbo("reconstruct", run, "--label=green", stdin=lines).stdout)["green"] > 0.98
    assert kinds_of(elbo("interpolate", run, "--from=r1", "--to=b2", "--label=blue").stdout)["blue"] > 0.98
    encoded = {kind: elbo("encode", run, "--format=jsonl", f"--label={kind}", stdin=lines).stdout for kind in KINDS}
    assert len(set(encoded.values())) == 3, "the encoder reads the label"
    numpy.save(scratch / "z.npy", numpy.zeros((5, 4), numpy.float32))
    with open(scratch / "z.npy", "rb") as file:
        written = subprocess.run([ELBO, "decode", run, "--label=red"], stdin=file, capture_output=True, text=True,
                                 check=True).stdout
    assert kinds_of(written)["red"] > 0.98
    elbo("fit-prior", run)
    assert len(elbo("sample", run, "--count=3", "--label=red").stdout.splitlines()) == 3
    for command in ("sample", "reconstruct", "encode", "decode"):
        given = ["--format=jsonl"] if command == "encode" else []
        said = elbo(command, run, *given, stdin="r1\n", code=2).stderr
        assert "--label=NAME" in said and "blue, green, red" in said, said
        said = elbo(command, run, *given, "--label=pink", stdin="r1\n", code=2).stderr
        assert "'pink'" in said and "blue, green, red" in said, said
    assert "data.labels" in elbo("sample", scratch / "labels-false", "--label=red", code=2).stderr


def check_refusals(scratch, run):
    plain, other = scratch / "plain", scratch / "other"
    elbo("prepare", scratch / "text", f"--tokenizer.from={run}", f"--out={plain}")
    assert "--labels=FILE" in elbo("eval", run, f"--data.test={plain}", code=2).stderr
    assert "data.labels" in elbo("train", f"--data.train={plain}", f"--run.dir={scratch / 'no'}", "--data.labels=true",
                                 code=2).stderr
    assert "labels" in elbo("plan", "--data.labels=true", code=2).stderr
    (scratch / "pink").write_text((scratch / "labels").read_text().replace("red", "pink"), encoding="utf-8")
    elbo("prepare", scratch / "text", f"--labels={scratch / 'pink'}", f"--tokenizer.from={run}", f"--out={other}")
    said = elbo("eval", run, f"--data.test={other}", code=2).stderr
    assert "'pink'" in said and "blue, green, red" in said, said
    said = elbo("train", *options({**GIVEN, "data.train": other, "data.labels": "true", "run.dir": run,
                                   "train.steps": 310}), code=3).stderr
    assert "'red'" in said and "'pink'" in said, said
    said = elbo("train", *options({**GIVEN, "data.train": other, "data.labels": "true", "run.dir": scratch / "warm",
                                   "init.from": run}), code=3).stderr
    assert "other labels" in said, said
    elbo("train", *options({**GIVEN, "data.train": plain, "run.dir": scratch / "warm", "init.from": run,
                            "train.steps": 1}))
    # a corpus of some of the classes, with other numbers for them
    some = [line.split("\t") for line in (scratch / "first.tsv").read_text().splitlines() if line]
    (scratch / "some.tsv").write_text("".join(f"{kind}\t{words}\n" for kind, words in some if kind != "blue"))
    elbo("prepare", scratch / "some.tsv", "--label_column=first", f"--tokenizer.from={run}",
         f"--out={scratch / 'some'}")
    by = evaluate(run, scratch / "some", "--eval.iwae_samples=0")["by_label"]
    elbo("prepare", scratch / "text", f"--labels={scratch / 'labels'}", f"--tokenizer.from={run}",
         f"--out={scratch / 'again'}")
    whole = evaluate(run, scratch / "again", "--eval.iwae_samples=0")["by_label"]
    for kind in ("green", "red"):
        assert abs(by[kind]["reconstruction"] - whole[kind]["reconstruction"]) < 0.2, (by, whole)


def check_bits(scratch):
    given = {**GIVEN, "data.train": scratch / "file" / "train", "data.valid": scratch / "file" / "valid",
             "data.labels": "true", "train.slots": 4, "train.steps": 12, "train.slot_tokens": 60, "train.eval_every": 5,
             "checkpoint.every": 0, "encoder.dropout": 0.1, "determinism": "world_invariant", "device": "cpu",
             "threads": 1, "log.every": 1}
    check_same_bits(scratch / "bits", "labels", given)
    manifest = json.loads((checkpoints(scratch / "bits")[-1] / "manifest.json").read_text())
    assert manifest["counters"]["labels"] == KINDS


def main():
    with Scratch() as scratch:
        check_prepare(scratch, text(scratch))
        run, gain = check_training(scratch)
        check_generation(scratch, run)
        check_refusals(scratch, run)
        check_bits(scratch)
        # a language model gets the label too
        elbo("train", *options({**GIVEN, "data.train": scratch / "file" / "train", "data.labels": "true",
                                "latent.kind": "none", "run.dir": scratch / "lm", "train.steps": 100}))
        assert kinds_of(elbo("sample", scratch / "lm", "--count=20", "--label=green").stdout)["green"] > 0.9
        print(f"a label of three is worth {gain:.2f} nats of neg_elbo")


if __name__ == "__main__":
    main()
