#!/usr/bin/python3
"""LSTM and GRU stacks: the whole VAE against PyTorch's own modules, for every encoder, decoder and injection."""
import json
import pathlib
import sys
import unittest

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from reference import (ATTENTION, BOTH, CONCAT, EMBEDDING, FIRST, INIT, LAST, MEAN, MEMORY, STACK_KINDS)  # noqa: E402
from runs import Scratch, elbo, grammar, options  # noqa: E402
from test_torch import Comparison  # noqa: E402

LSTM, GRU, TRANSFORMER, BOW = (STACK_KINDS[kind] for kind in ("lstm", "gru", "transformer", "bow"))


class Whole(Comparison):
    def test_encoders_decoders_injections(self):
        for encoder in (LSTM, GRU, TRANSFORMER, BOW):
            for decoder in (LSTM, GRU):
                for injection in (BOTH, INIT, CONCAT, EMBEDDING):
                    for tanh in (0, 1) if injection in (BOTH, INIT) else (0,):
                        with self.subTest(encoder=encoder, decoder=decoder, injection=injection, tanh=tanh):
                            self.compare(encoder__kind=encoder, decoder__kind=decoder, latent__injection=injection,
                                         latent__init_tanh=tanh)
            for injection in (BOTH, MEMORY, EMBEDDING):
                with self.subTest(encoder=encoder, decoder="transformer", injection=injection):
                    self.compare(encoder__kind=encoder, latent__injection=injection)

    def test_layers_and_directions(self):
        for kind in (LSTM, GRU):
            for layers in (1, 2, 3):
                for both in (0, 1):
                    for residual in (0, 1):
                        with self.subTest(kind=kind, layers=layers, both=both, residual=residual):
                            self.compare(encoder__kind=kind, decoder__kind=kind, encoder__layers=layers,
                                         decoder__layers=layers, encoder__bidirectional=both,
                                         encoder__residual=residual, decoder__residual=residual)

    def test_pooling(self):
        for kind in (LSTM, GRU):
            for pooling in (MEAN, FIRST, LAST, ATTENTION):
                for both in (0, 1):
                    with self.subTest(kind=kind, pooling=pooling, both=both):
                        self.compare(encoder__kind=kind, encoder__pooling=pooling, encoder__bidirectional=both)

    def test_widths(self):
        """Widths past a panel of units, and token vectors of another width."""
        for kind in (LSTM, GRU):
            self.compare(encoder__kind=kind, decoder__kind=kind, encoder__width=70, decoder__width=37,
                         encoder__embedding_width=9, decoder__embedding_width=20, encoder__bidirectional=1,
                         sentences=18, longest=4)
            self.compare(encoder__kind=kind, decoder__kind=kind, encoder__width=34, decoder__width=12,
                         encoder__embedding_width=12, share_embedding=1, tie_output=1, sentences=9)

    def test_without_latent(self):
        self.compare(latent__kind=1, decoder__kind=LSTM)
        self.compare(latent__kind=1, decoder__kind=GRU, tie_output=1)

    def test_recompute_and_threads_have_the_same_bits(self):
        config = dict(encoder__kind=LSTM, decoder__kind=GRU, encoder__dropout=0.2, decoder__dropout=0.2,
                      encoder__bidirectional=1, encoder__width=40, sentences=18, longest=4)
        kept = self.dump(**config)
        for other in (dict(recompute=1), dict(recompute=2), dict(threads=1), dict(threads=3), dict(threads=8)):
            again = self.dump(**config, **other)
            for name, g in self.gradients(kept).items():
                self.assertEqual(g.tobytes(), self.gradients(again)[name].tobytes(), (other, name))

    def test_dropout_is_for_training_alone(self):
        config = dict(encoder__kind=GRU, decoder__kind=LSTM)
        kept, dropped = self.dump(**config), self.dump(**config, encoder__dropout=0.2, decoder__dropout=0.2)
        for name in ("0.stats", "0.nll", "0.logits", "1.z"):
            self.assertEqual(kept[name].tobytes(), dropped[name].tobytes(), name)
        for name in ("0.parts", "g.decoder.1.hidden.weight", "g.encoder.embedding.token.weight"):
            self.assertNotEqual(kept[name].tobytes(), dropped[name].tobytes(), name)


class Program(unittest.TestCase):
    GIVEN = {"encoder.kind": "lstm", "decoder.kind": "gru", "encoder.width": 16, "decoder.width": 16,
             "decoder.layers": 1, "latent.width": 4, "train.steps": 6, "train.slot_tokens": 120,
             "optimizer.warmup_steps": 1}

    def test_every_command(self):
        with Scratch() as scratch:
            grammar(scratch / "text", 40, 1)
            elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
            run = scratch / "run"
            given = {"data.train": scratch / "corpus", "run.dir": run, **self.GIVEN}
            elbo("train", *options(given))
            lines = (scratch / "text").read_text(encoding="utf-8").splitlines()[:5]
            out = scratch / "z.npy"
            elbo("encode", run, f"--out={out}", stdin="\n".join(lines) + "\n")
            self.assertEqual(numpy.load(out).shape, (5, 4))
            for options_of in ((), ("--beam=3",)):
                back = elbo("reconstruct", run, *options_of, stdin="\n".join(lines) + "\n").stdout
                self.assertEqual(back.count("\n"), 5)
            self.assertEqual(elbo("sample", run, "--count=3").stdout.count("\n"), 3)
            self.assertIn("kind lstm", elbo("info", run).stdout)
            figures = json.loads(elbo("eval", run, f"--data.test={scratch / 'corpus'}", "--eval.iwae_samples=8",
                                      "--json").stdout)
            self.assertLess(figures["iwae_nll"], figures["neg_elbo"])
            without_dir = {key: value for key, value in given.items() if key != "run.dir"}
            planned = json.loads(elbo("plan", *options(without_dir), "--json").stdout)
            self.assertGreater(planned["parameters"], 0)
            self.assertIn("recurrent_backward", elbo("bench", "step", *options(without_dir)).stdout)

    def test_contradictions_are_refused(self):
        with Scratch() as scratch:
            grammar(scratch / "text", 20, 1)
            elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
            given = {"data.train": scratch / "corpus", "run.dir": scratch / "run", **self.GIVEN}
            for option, words in (("--encoder.heads=2", "encoder.kind=lstm has no heads"),
                                  ("--decoder.positions=rotary", "decoder.kind=gru has no positions"),
                                  ("--latent.injection=memory", "choose both, or any of embedding,init,concat"),
                                  ("--latent.memory=2", "latent memory"),
                                  ("--decoder.layers=0", "decoder.layers"),
                                  ("--decoder.embedding_width=8", "decoder.tie_output"),
                                  ("--encoder.embedding_width=8", "encoder.share_embedding")):
                other = {key: value for key, value in given.items() if not option.startswith("--" + key)}
                refused = elbo("train", *options(other), option, code=2)
                self.assertIn(words, refused.stderr)
            odd = {**given, "encoder.width": 17, "encoder.share_embedding": "false", "encoder.bidirectional": "true"}
            self.assertIn("choose an even width", elbo("train", *options(odd), code=2).stderr)
            plain = {key: value for key, value in given.items() if not key.endswith(".kind")}
            for option, words in (("--latent.injection=init", "decoder.kind = transformer"),
                                  ("--encoder.bidirectional=true", "encoder.kind=transformer has no bidirectional"),
                                  ("--latent.init_tanh=true", "first state")):
                self.assertIn(words, elbo("train", *options(plain), option, code=2).stderr)


if __name__ == "__main__":
    unittest.main()
