#!/usr/bin/python3
"""The ways for z into a Transformer decoder that need more than a weight: `residual` and `prefix`.

  bits       the same when resumed, on 2 and 4 ranks, with other threads and with every policy of recomputation
  commands   plan, bench, info, sample, beam search, reconstruct, and interpolate between the sentences' own
  room       a prefix takes nothing from data.max_length: the longest sentence is read whole, trained on and written
  figures    tokens are counted without prefix rows, in metrics.jsonl and by eval
  lists      a run keeps its ways in one order, and goes on with the same list in another order; a way that a decoder
             lacks is refused"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import ELBO, Scratch, bits, checkpoints, elbo, grammar, options, rows, same, tensors # noqa: E402

WAYS = {
    "residual": {"latent.injection": "residual", "decoder.layers": 3},
    "prefix": {"latent.injection": "prefix", "latent.prefix": 3, "decoder.positions": "rotary"},
    "all": {"latent.injection": "prefix,residual,both", "objective.bow": 0.3, "objective.dropped_mark": "own"},
}
BASE = {"encoder.width": 16, "decoder.width": 16, "encoder.heads": 2, "decoder.heads": 2, "encoder.layers": 1,
        "latent.width": 3, "train.slots": 4, "train.steps": 12, "train.slot_sentences": 3, "train.slot_tokens": 90,
        "data.max_length": 20, "train.eval_every": 5, "checkpoint.every": 0, "optimizer.warmup_steps": 1,
        "encoder.dropout": 0.1, "decoder.dropout": 0.2, "determinism": "world_invariant", "device": "cpu",
        "threads": 1, "log.every": 1}


def train(run, data, given, ranks=1):
    words = [ELBO, "train", *options({**BASE, "data.train": data, "data.valid": data, "run.dir": run, **given})]
    if ranks > 1:
        words = ["mpirun", "--oversubscribe", "-n", str(ranks), *words, "--parallel.timeout=60"]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    subprocess.run(list(map(str, words)), env=environment, check=True, capture_output=True)


def check_bits(scratch, data, name):
    train(scratch / name, data, WAYS[name])
    whole = bits(scratch / name)
    for stop in (3, 8, 0):
        train(scratch / "parts", data, {**WAYS[name], "train.stop_after": stop})
    same(whole, bits(scratch / "parts"), f"{name}, resumed")
    shutil.rmtree(scratch / "parts")
    others = {"3 threads": {"threads": 3}, "cheap": {"train.recompute": "cheap"}, "block": {"train.recompute": "block"}}
    for what, given in others.items():
        train(scratch / "other", data, {**WAYS[name], **given})
        same(whole, bits(scratch / "other"), f"{name}, {what}")
        shutil.rmtree(scratch / "other")
    for ranks in (2, 4) if shutil.which("mpirun") else ():
        train(scratch / "ranks", data, WAYS[name], ranks)
        same(whole, bits(scratch / "ranks"), f"{name} on {ranks} ranks")
        shutil.rmtree(scratch / "ranks")


def check_commands(scratch, data, name):
    run, given = scratch / name, {**BASE, **WAYS[name], "data.train": data}
    assert json.loads(elbo("plan", *options(given), "--json").stdout)["parameters"] > 0
    for how in ("--greedy", "--beam=4", "--temperature=1"):
        assert len(elbo("sample", run, "--count=9", "--seed=3", how).stdout.splitlines()) == 9, how
    assert "prefix" in elbo("bench", "step", *options(given)).stdout or "prefix" not in given["latent.injection"]
    some = "".join((scratch / "text").read_text(encoding="utf-8").splitlines(True)[:7])
    assert len(elbo("reconstruct", run, "--beam=3", stdin=some).stdout.splitlines()) >= 7
    ends = some.splitlines()[:2]
    line = elbo("interpolate", run, f"--from={ends[0]}", f"--to={ends[1]}", "--steps=4").stdout.splitlines()
    own = elbo("reconstruct", run, stdin="\n".join(ends) + "\n").stdout.splitlines()
    assert [line[0], line[-1]] == own and len(line) == 4, (line, own)
    known = json.loads(elbo("info", run, "--json").stdout)["latent"]["injection"]
    assert known == {"all": "both,residual,prefix"}.get(name, name), known


def check_figures(scratch, data, ways):
    """The counts of a run without prefix equal those of the runs with prefix rows, because they saw the same
    sentences."""
    train(scratch / "bare", data, {"latent.injection": "embedding"})
    wanted = [row["tokens"] for row in rows(scratch / "bare") if "tokens" in row]
    assert wanted and min(wanted) > 0
    tokens = json.loads(elbo("eval", scratch / "bare", f"--data.test={data}", "--json").stdout)["tokens"]
    for name in ways:
        assert [row["tokens"] for row in rows(scratch / name) if "tokens" in row] == wanted, name
        found = json.loads(elbo("eval", scratch / name, f"--data.test={data}", "--json").stdout)
        assert found["tokens"] == tokens and found["iwae_nll"] < found["neg_elbo"], (name, found["tokens"], tokens)


def check_room(scratch):
    """Sentences of data.max_length words, in slots that hold one: learned positions have an extra row for each prefix
    row."""
    (scratch / "long").write_text("".join(" ".join(f"w{i * k % 7}" for i in range(8)) + "\n" for k in range(9)))
    data, run = scratch / "long-corpus", scratch / "long-run"
    elbo("prepare", scratch / "long", f"--out={data}")
    given = {"latent.injection": "prefix", "latent.prefix": 5, "data.max_length": 8, "train.slot_tokens": 14}
    train(run, data, given)
    assert all(row["tokens"] == 4 * 9 and not row["shortened"] for row in rows(run) if "tokens" in row)
    shapes = {name: about["shape"] for name, (about, _) in tensors(checkpoints(run)[-1] / "model.safetensors").items()}
    assert shapes["decoder.embedding.position.weight"] == [8 + 2 + 5, 16]
    assert shapes["encoder.embedding.position.weight"] == [8 + 2, 16]
    found = json.loads(elbo("eval", run, f"--data.test={data}", "--json").stdout)
    assert found["tokens"] == 9 * 9 and not found["shortened"], found
    written = elbo("sample", run, "--count=40", "--temperature=100", "--max_length=9").stdout.splitlines()
    assert max(len(line.split()) for line in written) == 9, "no sentence as long as may be"
    refused = elbo("sample", run, "--max_length=10", code=2).stderr
    assert "give at most 9" in refused, refused
    refused = elbo("train", *options({**BASE, **given, "data.train": data, "run.dir": scratch / "never",
                                      "train.slot_tokens": 13}), code=2).stderr
    assert "set train.slot_tokens to at least 14, or data.max_length to at most 7" in refused, refused


def check_lists(scratch, data):
    run = scratch / "list"
    train(run, data, {**WAYS["all"], "train.stop_after": 4})
    assert "  injection: both,residual,prefix\n" in (run / "config.yaml").read_text()
    train(run, data, {**WAYS["all"], "latent.injection": "both, prefix, residual"})
    same(bits(scratch / "all"), bits(run), "the same ways in another order")
    given = options({**BASE, "data.train": data, "run.dir": scratch / "never"})
    for words, said in ((["--latent.injection=residual", "--decoder.layers=1"], "decoder.layers of at least 2"),
                        (["--latent.injection=prefix", "--decoder.kind=lstm"], "choose both, or any of embedding,init"),
                        (["--latent.injection=prefix", "--latent.prefix=80"], "its mark and its prefix"),
                        (["--latent.prefix=2"], "rows in front")):
        kept = [word for word in given if "decoder.heads" not in word or "--decoder.kind=lstm" not in words]
        refused = elbo("train", *kept, *words, code=2).stderr
        assert said in refused and len(refused.splitlines()) == 1, refused
    assert not (scratch / "never").exists()


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 150, 1)
        data = scratch / "corpus"
        elbo("prepare", scratch / "text", f"--out={data}")
        for name in WAYS:
            check_bits(scratch, data, name)
            check_commands(scratch, data, name)
        check_figures(scratch, data, WAYS)
        check_room(scratch)
        check_lists(scratch, data)
    print(f"{len(WAYS)} sets of ways, with the same bits on every number of ranks")


if __name__ == "__main__":
    main()
