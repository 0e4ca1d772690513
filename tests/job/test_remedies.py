"""Tests all state that a step may carry to the next one, at once: an LSTM VAE with a KL controller, a VampPrior, mu
normalized over slots, word dropout with its own mark, and extra encoder passes before the decoder's.

  ranks     world_invariant on 1, 2 and 4 ranks, with whole and with sharded moments: the same bits
  resumed   stopped after each of 60 passes: the same bits; on another number of ranks: the same bits"""
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import MPIRUN, Scratch, bits, corpus, on_ranks, options, same  # noqa: E402

PASSES = 60
GIVEN = {"encoder.kind": "lstm", "decoder.kind": "lstm", "encoder.width": 12, "decoder.width": 12, "encoder.layers": 1,
         "decoder.layers": 2, "encoder.bidirectional": "true", "encoder.dropout": 0.1, "decoder.dropout": 0.1,
         "latent.width": 3, "latent.prior": "vamp", "latent.pseudo_inputs": 4, "latent.pseudo_length": 3,
         "latent.normalize": "batch", "objective.target_kl": 2, "objective.free_bits": 0,
         "objective.dropped_mark": "own", "objective.aggressive_steps": 40, "objective.aggressive_most": 6,
         "objective.aggressive_window": 2, "objective.aggressive_until": "information",
         "objective.aggressive_information_window": 9, "train.slots": 8, "train.slot_tokens": 24, "data.max_length": 9,
         "train.steps": PASSES, "log.every": 1, "train.eval_every": 0, "checkpoint.every": 0,
         "optimizer.warmup_steps": 10, "threads": 1, "determinism": "world_invariant", "parallel.timeout": 20,
         "parallel.bucket": 0.008, "device": "cpu"}


def train(ranks, run, data, **given):
    on_ranks(ranks, "train", f"--data.train={data}", f"--run.dir={run}", *options({**GIVEN, **given}))


def main():
    with Scratch() as scratch:
        data = corpus(scratch)
        train(1, scratch / "one", data)
        whole = bits(scratch / "one")
        passes = [row["pass"] for row in whole["metrics"] if "loss" in row]
        assert {"encoder", "decoder", "whole"} == set(passes) and len(passes) == PASSES
        assert "whole" in passes[:40], "the information ends no phase"
        assert len({row["beta"] for row in whole["metrics"] if "loss" in row}) > PASSES / 2, "the controller rests"
        for ranks in (2, 4) if MPIRUN else ():
            train(ranks, scratch / f"on-{ranks}", data)
            same(whole, bits(scratch / f"on-{ranks}"), f"{ranks} ranks")
            train(ranks, scratch / f"zero-{ranks}", data, **{"parallel.zero": 1})
            same(whole, bits(scratch / f"zero-{ranks}"), f"ZeRO on {ranks} ranks")
        for stop in range(1, PASSES):
            run = scratch / "stopped"
            train(1, run, data, **{"train.stop_after": stop})
            train(1, run, data)
            same(whole, bits(run), f"stopped after pass {stop}")
            shutil.rmtree(run)
        if not MPIRUN:
            print("no mpirun: one rank alone was tried")
            return
        moved = scratch / "moved"
        for ranks, stop in ((2, 7), (4, 8), (1, 39), (4, 41), (2, 0)):
            train(ranks, moved, data, **{"train.stop_after": stop})
        same(whole, bits(moved), "resumed on 2, 4, 1, 4 and 2 ranks")
    print(f"the same bits on 1, 2 and 4 ranks, and stopped after each of {PASSES - 1} passes")


if __name__ == "__main__":
    main()
