"""A run that stops and goes on ends with the bits of the run that never stopped, for any step.

  every step    stopped after k = 1 .. 59 of 60 steps with --train.stop_after=k, then the same command without it; also
                with a controller, batch normalization and a bag of words
  many stops    stopped again and again in one run
  damaged       the newest checkpoint is damaged: the run says so, goes on from the one before, and ends with the same
                bits
  the same      same seed twice; threads 1, 2, 3; recompute none, cheap, block; sgd too;  another seed: other bits

The bits are weights, moments, running statistics, counters, and the rows of metrics.jsonl without `wall`. The run has
dropout, word dropout, three slots a step and sentences that are cut, and passes its corpus more than twice."""
import shutil
import sys

from runs import TINY, Scratch, bits, checkpoints, corpus, differ, rows, same, train


# All state that a step moves on the device beside weights and moments, and all noise of the words.
MOVED = {"latent.normalize": "batch", "objective.target_kl": 2, "objective.ki": 0.05, "objective.free_bits": 0,
         "objective.bow": 0.5, "objective.dropped_mark": "own", "objective.denoise_drop": 0.1,
         "objective.denoise_blank": 0.1, "objective.denoise_swap": 0.2}


def check_every_step(scratch, data, whole, given=None):
    for k in range(1, 60):
        run = scratch / "stopped"
        train(run, data, given={**(given or {}), "train.stop_after": k})
        assert checkpoints(run)[-1].name == f"step-{k:08d}"
        train(run, data, given=given)
        same(whole, bits(run), f"stopped after step {k}")
        shutil.rmtree(run)


def check_many_stops(scratch, data, whole):
    for k in (3, 4, 11, 12, 30, 33, 59):
        train(scratch / "often", data, given={"train.stop_after": k})
    train(scratch / "often", data)
    same(whole, bits(scratch / "often"), "stopped seven times")
    before = (scratch / "often" / "metrics.jsonl").read_bytes()
    assert "nothing to do" in train(scratch / "often", data).stderr
    same(whole, bits(scratch / "often"), "asked to go on after its end")
    assert before == (scratch / "often" / "metrics.jsonl").read_bytes()


def check_damaged(scratch, data, whole):
    for name in ("model.safetensors", "state/optimizer.safetensors", "manifest.json"):
        run = scratch / f"damaged-{name.split('/')[0]}"
        train(run, data, given={"train.stop_after": 37})
        path = checkpoints(run)[-1] / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
        said = train(run, data).stderr
        assert "step-00000037" in said and "resuming from" in said and "step-00000033" in said, said
        same(whole, bits(run), f"{name} of the newest checkpoint damaged")
        for old in checkpoints(run):
            (old / "model.safetensors").write_bytes(b"")
        refused = train(run, data, code=3).stderr
        assert "no checkpoint" in refused or "none" in refused, refused


def check_path(scratch, data, whole):
    """Resumes from a checkpoint's path into another folder."""
    train(scratch / "first", data, given={"train.stop_after": 22})
    train(scratch / "second", data, given={"resume": checkpoints(scratch / "first")[-1]})
    same(whole, bits(scratch / "second", metrics=False), "resumed by path")
    assert rows(scratch / "second") == [row for row in whole["metrics"] if row["step"] > 22]
    assert (scratch / "second" / "config.yaml").is_file() and (scratch / "second" / "tokenizer.json").is_file()
    assert "already holds checkpoints" in train(scratch / "first", data, code=2, given={"resume": "none"}).stderr


def check_the_same(scratch, data, whole):
    variants = {"again": {}, "two threads": {"threads": 2}, "three threads": {"threads": 3},
                "recompute cheap": {"train.recompute": "cheap"}, "recompute block": {"train.recompute": "block"},
                "no evaluation": {"train.eval_every": 0},
                "other checkpoints": {"checkpoint.every": 5, "checkpoint.keep": 1}}
    for number, (what, given) in enumerate(variants.items()):
        run = scratch / f"variant-{number}"
        train(run, data, given=given)
        wanted, found = dict(whole), bits(run)
        if what == "no evaluation":  # checkpoints lack the watch's observations too
            wanted.pop("metrics")
            wanted["counters"] = {key: value for key, value in wanted["counters"].items() if key != "watch"}
        same(wanted, found, what)
    train(scratch / "seed", data, given={"seed": 2})
    differ(whole, bits(scratch / "seed"), "another seed")
    for name in ("encoder.dropout", "decoder.dropout", "objective.word_dropout"):  # each is part of the comparison
        train(scratch / name, data, given={name: 0})
        differ(whole, bits(scratch / name), f"without {name}")


def check_others(scratch, data):
    """Checks that other optimizers, schedules and models keep the rule."""
    kinds = [{"optimizer.kind": "sgd", "objective.beta_schedule": "cyclical"}, {"latent.kind": "none"},
             {"latent.sample": "false", "objective.free_bits_kind": "total"}, {"encoder.share_embedding": "false"},
             {"optimizer.encoder_factor": 0, "optimizer.schedule": "linear"},
             {"optimizer.moments": "bf16", "decoder.ff_width": 1040},
             {"optimizer.moments": "bf16", "optimizer.kind": "sgd", "threads": 3},
             {"objective.target_kl": 2, "objective.ki": 0.05, "objective.free_bits_scope": "sentence"},
             {"latent.normalize": "batch", "objective.target_kl": 2, "objective.ki": 0.05, "objective.free_bits": 0},
             {"latent.normalize": "du", "latent.variance_dropout": 0.2, "objective.beta_schedule": "constant"},
             {"latent.kind": "slashed", "objective.rate": 8, "objective.rate_scope": "dimension"},
             {"latent.kind": "slashed", "objective.rate": 8, "objective.rate_scope": "slot", "objective.bow": 0.5},
             {"latent.kind": "delta", "objective.free_bits_form": "mask"},
             {"objective.dropped_mark": "own", "objective.denoise_drop": 0.2, "objective.denoise_swap": 0.3},
             {"objective.min_rate": 6, "objective.min_rate_step": 0.1, "objective.free_bits": 0}]
    for number, kind in enumerate(kinds):
        one, two = scratch / f"one-{number}", scratch / f"two-{number}"
        train(one, data, given=kind)
        train(two, data, given={**kind, "train.stop_after": 26})
        train(two, data, given=kind)
        same(bits(one), bits(two), f"{kind}")


def main():
    with Scratch() as scratch:
        data = corpus(scratch)
        train(scratch / "whole", data)
        whole = bits(scratch / "whole")
        used = [row for row in whole["metrics"] if "loss" in row]
        assert [row["step"] for row in used] == list(range(1, 61))
        assert sum(row["sentences"] for row in used) > 2 * 50, "the run does not pass its corpus twice"
        assert used[-1]["shortened"] > 0, "no sentence is cut"
        assert len([row for row in whole["metrics"] if "valid" in row]) == 60 // TINY["train.eval_every"] + 1
        check_every_step(scratch, data, whole)
        train(scratch / "moved", data, given=MOVED)
        check_every_step(scratch, data, bits(scratch / "moved"), MOVED)
        check_many_stops(scratch, data, whole)
        check_damaged(scratch, data, whole)
        check_path(scratch, data, whole)
        check_the_same(scratch, data, whole)
        check_others(scratch, data)
    print("stopped after each of 59 steps: the same bits")
    sys.exit(0)


if __name__ == "__main__":
    main()
