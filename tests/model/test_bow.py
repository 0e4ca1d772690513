#!/usr/bin/python3
"""The bag-of-words encoder: the whole model against PyTorch, words in any order, and options that it lacks."""
import pathlib
import sys
import unittest

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from reference import ATTENTION, FIRST, LAST, MEAN, STACK_KINDS  # noqa: E402
from runs import Scratch, elbo, grammar, options  # noqa: E402
from test_torch import Comparison  # noqa: E402

BOW = STACK_KINDS["bow"]


class Whole(Comparison):
    def test_pooling(self):
        for pooling in (MEAN, FIRST, LAST, ATTENTION):
            with self.subTest(pooling=pooling):
                self.compare(encoder__kind=BOW, encoder__pooling=pooling)

    def test_tables(self):
        for share in (0, 1):
            with self.subTest(share=share):
                self.compare(encoder__kind=BOW, share_embedding=share, tie_output=share, encoder__width=20,
                             decoder__width=20)

    def test_recompute_has_the_same_bits(self):
        kept = self.dump(encoder__kind=BOW, encoder__dropout=0.2)
        for policy in (1, 2):
            again = self.dump(encoder__kind=BOW, encoder__dropout=0.2, recompute=policy)
            for name, g in self.gradients(kept).items():
                self.assertEqual(g.tobytes(), self.gradients(again)[name].tobytes(), name)


class Program(unittest.TestCase):
    def test_order_does_not_count_and_options_are_held(self):
        with Scratch() as scratch:
            grammar(scratch / "text", 40, 1)
            elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
            run = scratch / "run"
            given = {"data.train": scratch / "corpus", "run.dir": run, "encoder.kind": "bow", "encoder.width": 16,
                     "decoder.width": 16, "decoder.layers": 1, "latent.width": 4, "train.steps": 6,
                     "train.slot_tokens": 120, "optimizer.warmup_steps": 1}
            elbo("train", *options(given))
            line = (scratch / "text").read_text(encoding="utf-8").splitlines()[0].split()
            lines = "\n".join(" ".join(words) for words in (line, line[::-1], line[1:] + line[:1])) + "\n"
            out = scratch / "z.npy"
            elbo("encode", run, f"--out={out}", stdin=lines)
            z = numpy.load(out)
            self.assertLess(abs(z - z[0]).max(), 1e-5 * abs(z).max())
            said = elbo("info", run).stdout
            self.assertIn("kind bow", said)
            for option, words in (("--encoder.heads=2", "encoder.kind=bow has no heads"),
                                  ("--encoder.layers=1", "encoder.kind=bow has no layers"),
                                  ("--decoder.kind=bow", "no order to write words in")):
                other = {key: value for key, value in given.items() if not key.startswith("decoder.")}
                refused = elbo("train", *options(other), option, f"--run.dir={scratch / 'other'}", code=2)
                self.assertIn(words, refused.stderr)


if __name__ == "__main__":
    unittest.main()
