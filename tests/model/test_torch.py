#!/usr/bin/python3
"""The whole VAE against PyTorch in double precision: loss, its parts, every gradient, and the cached generation path.

The model is that of reference.py. Tolerances: tests/tolerances.h.
"""
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy

from reference import (ATTENTION, BLOCK, BOTH, CHEAP, DELTA, DIAGONAL, EMBEDDING, FIRST, GELU, KEEP, LAST, LAYERNORM,
                       LEARNED, MEAN, MEMORY, MIXTURE, PER_DIMENSION, PER_GROUP, POST, PRE, PREFIX, RESIDUAL, RMSNORM,
                       ROTARY, SLASHED, SWIGLU, TOLERANCE, TOTAL, VAMP, Model, read_safetensors, torch)

HERE = pathlib.Path(__file__).resolve().parent
TOOL = pathlib.Path(os.environ.get("ELBO_TESTS", HERE.parents[1] / "build/c/tests")) / "model_dump_step"
worst = {}


def flat(values):
    values = torch.stack(values) if isinstance(values, list) else values
    return values.detach().numpy()


class Comparison(unittest.TestCase):
    """Dumps a step of the program and compares it with the reference."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()
        print("worst errors:", ", ".join(f"{what} {error:.1e}" for what, error in sorted(worst.items())),
              file=sys.stderr)

    def dump(self, **config):
        path = pathlib.Path(self.folder.name) / "step.safetensors"
        settings = [f"{key.replace('__', '.')}={value}" for key, value in config.items()]
        done = subprocess.run([TOOL, path, *settings], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        tensors = read_safetensors(path)
        tensors["plan"] = int(done.stdout)
        return tensors

    def close(self, what, a, b, tolerance, floor=0.0):
        difference, norm = numpy.linalg.norm(a.astype(numpy.float64) - b), max(numpy.linalg.norm(b), floor)
        error = difference / norm if norm else difference
        kind = what.split()[0]
        worst[kind] = max(worst.get(kind, 0), error if numpy.isfinite(error) else math.inf)
        self.assertLessEqual(error, tolerance, what)

    def gradients(self, tensors):
        return {name[2:]: t for name, t in tensors.items() if name.startswith("g.")}

    def compare(self, alone=True, **config):
        """With `alone`, a sentence has the same posterior alone as in a slot, so the evaluation paths are compared
        too."""
        t = self.dump(**config)
        model = Model({key.replace("__", "."): value for key, value in config.items()},
                      {name[2:]: w for name, w in t.items() if name.startswith("w.")})
        total, model_tolerance = 0, TOLERANCE["MODEL"]
        for slot in ("0", "1"):
            arrays = {name[2:]: a for name, a in t.items() if name.startswith(slot + ".")}
            loss, out = model.slot(arrays, t["weights"].astype(numpy.float64))
            total = total + loss
            for what in ("parts", "nll", "kl_dim", "moments", "stats", "z"):
                if what in arrays and (alone or what in ("parts", "kl_dim", "moments")):
                    self.close(what, arrays[what], flat(out[what]), model_tolerance)
            for s, logits in enumerate(out["logits"] if alone else ()):
                read = arrays["logits"][s, model.front():][:len(logits)]
                self.close("logits", read, flat(logits), TOLERANCE["CACHED"])
            # compares the two paths of the program with each other
            for s, logits in enumerate(out["logits"]):
                row = arrays["logits"][s, model.front():][:len(logits)].astype(numpy.float64)
                a, b = arrays["decoder.offsets"][s:s + 2] + [model.front(), 0]
                labels = arrays["decoder.labels"][a:b]
                nll = (numpy.log(numpy.exp(row).sum(-1)) - row[numpy.arange(b - a), labels]).sum()
                self.close("cached", arrays["nll"][s], nll, TOLERANCE["CACHED"])
        total.backward()
        gradients = self.gradients(t)
        self.assertEqual(model.used, set(gradients), "every parameter is in both models")
        wanted = {name: w.grad.numpy() if w.grad is not None else numpy.zeros(w.shape) for name, w in model.w.items()}
        whole = math.sqrt(sum(numpy.linalg.norm(g) ** 2 for g in wanted.values()))
        floor = 1e-3 * whole / math.sqrt(len(wanted))
        for name, g in gradients.items():
            if name.endswith(".running"):  # the update writes these, and they have no gradient
                self.assertTrue(numpy.isnan(g).all() and not wanted[name].any(), name)
                continue
            self.close(f"gradient of {name}", g, wanted[name], model_tolerance, floor)
        return t, wanted, whole

    def recomputed(self, **config):
        """Checks that gradients keep their bits under every policy of recomputation."""
        kept = self.dump(**config)
        for recompute in (CHEAP, BLOCK):
            again = self.dump(**config, recompute=recompute)
            for name, g in self.gradients(kept).items():
                self.assertEqual(g.tobytes(), self.gradients(again)[name].tobytes(), name)


class WholeModel(Comparison):
    # ---- options ----

    def test_defaults(self):
        self.compare()

    def test_injection(self):
        for injection in (BOTH, MEMORY, EMBEDDING):
            for memory in (1, 2):
                with self.subTest(injection=injection, memory=memory):
                    self.compare(latent__injection=injection, latent__memory=memory)

    def test_without_latent(self):
        for tie in (0, 1):
            self.compare(latent__kind=1, tie_output=tie)

    def test_posteriors(self):
        for delta in (0.15, 0.05, 1.0):
            self.compare(latent__kind=2, latent__delta=delta)
        self.compare(latent__kind=3)
        for rate in (8, 0.5):
            self.compare(latent__kind=3, objective__rate=rate, free__nats=0)
            for scope in (1, 2):
                with self.subTest(rate=rate, scope=scope):
                    self.compare(alone=False, latent__kind=3, objective__rate=rate, objective__rate_scope=scope,
                                 free__nats=0)
        for normalize in (1, 2):
            with self.subTest(normalize=normalize):
                self.compare(alone=False, latent__normalize=normalize, latent__gamma=0.6, latent__alpha=1)

    def test_skip(self):
        for position in (PRE, POST):
            for injection in (BOTH, EMBEDDING):
                self.compare(latent__skip=1, latent__injection=injection, decoder__norm_position=position)
        self.compare(latent__skip=1, encoder__kind=2, decoder__kind=2)
        self.compare(latent__skip=1, decoder__kind=3, decoder__residual=1)
        self.recomputed(latent__skip=1)

    def test_residual(self):
        for position in (PRE, POST):
            for layers in (2, 3):
                self.compare(latent__injection=RESIDUAL, decoder__norm_position=position, decoder__layers=layers)
            self.compare(latent__injection=RESIDUAL | BOTH, decoder__norm_position=position, latent__skip=1)
            self.recomputed(latent__injection=RESIDUAL, decoder__norm_position=position, decoder__layers=3)

    def test_prefix(self):
        for rows in (1, 4):
            for position in (PRE, POST):
                for positions in (LEARNED, ROTARY):
                    with self.subTest(rows=rows, position=position, positions=positions):
                        self.compare(latent__injection=PREFIX, latent__prefix=rows, decoder__norm_position=position,
                                     decoder__positions=positions)
            self.compare(latent__injection=PREFIX | RESIDUAL | BOTH, latent__prefix=rows, latent__skip=1, tie_output=1,
                         share_embedding=1)
            self.compare(latent__injection=PREFIX, latent__prefix=rows, encoder__kind=2, labels=3)
            self.recomputed(latent__injection=PREFIX, latent__prefix=rows)

    def test_norms(self):
        for norm in (LAYERNORM, RMSNORM):
            for position in (PRE, POST):
                for layers in (0, 1, 3):
                    with self.subTest(norm=norm, position=position, layers=layers):
                        self.compare(encoder__norm=norm, decoder__norm=norm, encoder__norm_position=position,
                                     decoder__norm_position=position, encoder__layers=layers, decoder__layers=layers)

    def test_norms_behind_embeddings(self):
        for norm in (LAYERNORM, RMSNORM):
            for position in (PRE, POST):
                with self.subTest(norm=norm, position=position):
                    self.compare(encoder__norm=norm, decoder__norm=norm, encoder__norm_position=position,
                                 decoder__norm_position=position, encoder__embedding_norm=1, decoder__embedding_norm=1)

    def test_positions_and_activations(self):
        for positions in (LEARNED, ROTARY):
            for activation in (GELU, SWIGLU):
                with self.subTest(positions=positions, activation=activation):
                    self.compare(encoder__positions=positions, decoder__positions=positions,
                                 encoder__activation=activation, decoder__activation=activation, encoder__ff_width=20,
                                 decoder__ff_width=33)

    def test_heads(self):
        for heads, kv in ((1, 0), (4, 1), (4, 2), (3, 3), (6, 2)):
            with self.subTest(heads=heads, kv=kv):
                self.compare(encoder__width=24, decoder__width=24, encoder__heads=heads, decoder__heads=heads,
                             encoder__kv_heads=kv, decoder__kv_heads=kv, latent__memory=2)

    def test_pooling(self):
        for pooling in (MEAN, FIRST, LAST, ATTENTION):
            with self.subTest(pooling=pooling):
                self.compare(encoder__pooling=pooling)

    def test_tables(self):
        for tie in (0, 1):
            for share in (0, 1):
                with self.subTest(tie=tie, share=share):
                    self.compare(tie_output=tie, share_embedding=share)

    def test_free_bits(self):
        for kind, nats, groups in ((PER_DIMENSION, 0.0, 1), (PER_DIMENSION, 1.2, 1), (TOTAL, 2.0, 1), (TOTAL, 500.0, 1),
                                   (PER_GROUP, 2.5, 3), (PER_GROUP, 3.5, 2)):
            with self.subTest(kind=kind, nats=nats):
                self.compare(free__kind=kind, free__nats=nats, free__groups=groups)
            for form, scope in ((0, 1), (1, 0), (1, 1)):
                with self.subTest(kind=kind, nats=nats, form=form, scope=scope):
                    self.compare(free__kind=kind, free__nats=nats, free__groups=groups, free__form=form,
                                 free__scope=scope)

    def test_priors(self):
        for nats in (0, 0.4):
            self.compare(latent__prior=DIAGONAL, free__nats=nats)
        for components in (1, 5):
            self.compare(latent__prior=MIXTURE, latent__components=components, free__kind=TOTAL)
        self.compare(latent__prior=DIAGONAL, latent__kind=SLASHED)
        for config in ({}, dict(encoder__positions=ROTARY, encoder__norm=RMSNORM, encoder__pooling=ATTENTION),
                       dict(encoder__norm_position=POST, share_embedding=1, tie_output=1, encoder__pooling=LAST),
                       dict(encoder__kind=1, encoder__pooling=FIRST), dict(latent__pseudo_inputs=7),
                       dict(encoder__kind=2, encoder__bidirectional=1, encoder__pooling=LAST,
                            encoder__embedding_width=7),
                       dict(encoder__kind=3, encoder__pooling=MEAN), dict(latent__kind=DELTA),
                       dict(latent__kind=SLASHED), dict(latent__normalize=1), dict(latent__normalize=2)):
            with self.subTest(**config):
                self.compare(alone="latent__normalize" not in config, latent__prior=VAMP, free__kind=TOTAL,
                             free__nats=0, **config)
        self.compare(latent__prior=VAMP, free__kind=TOTAL, free__nats=500.0)

    def test_labels(self):
        for config in ({}, dict(latent__injection=MEMORY), dict(latent__injection=EMBEDDING, encoder__kind=1),
                       dict(encoder__kind=2, decoder__kind=2), dict(decoder__kind=3, decoder__embedding_width=7),
                       dict(latent__prior=VAMP, free__kind=TOTAL), dict(latent__kind=1), dict(share_embedding=1)):
            for labels in (1, 4):
                with self.subTest(labels=labels, **config):
                    self.compare(labels=labels, **config)

    def test_plain_autoencoder(self):
        self.compare(latent__sample=0)
        self.compare(latent__sample=0, weight__kl=0)

    def test_unequal_stacks(self):
        self.compare(encoder__width=10, encoder__heads=5, encoder__layers=1, decoder__width=21, decoder__heads=3,
                     encoder__norm=RMSNORM, encoder__positions=ROTARY, encoder__activation=SWIGLU, latent__width=5,
                     vocabulary=131, tie_output=1)
        self.compare(encoder__width=64, decoder__width=48, encoder__heads=4, decoder__heads=4, decoder__norm=RMSNORM,
                     decoder__positions=ROTARY, decoder__activation=SWIGLU, decoder__kv_heads=2, latent__width=33,
                     vocabulary=500, longest=17, encoder__pooling=ATTENTION, decoder__norm_position=POST)

    # ---- properties ----

    def test_dropout_is_for_training_alone(self):
        """Dropout changes the gradients of a training step, and nothing in the recordings of evaluation and
        generation."""
        kept, dropped = self.dump(), self.dump(encoder__dropout=0.2, decoder__dropout=0.2)
        for name in ("0.stats", "0.nll", "0.logits", "1.z"):
            self.assertEqual(kept[name].tobytes(), dropped[name].tobytes(), name)
        for name in ("0.parts", "g.decoder.1.feed_forward.input.weight", "g.encoder.embedding.token.weight"):
            self.assertNotEqual(kept[name].tobytes(), dropped[name].tobytes(), name)

    def test_gradients_that_are_zero(self):
        """A bias on all keys shifts all scores of a query, so it has no gradient, unless there are latent keys or
        rotation turns the bias."""
        t, wanted, whole = self.compare()
        for layer in (0, 1):
            key = self.gradients(t)[f"encoder.{layer}.attention.qkv.bias"][12:24]
            self.assertLess(numpy.linalg.norm(wanted[f"encoder.{layer}.attention.qkv.bias"][12:24]), 1e-12 * whole)
            self.assertLess(numpy.linalg.norm(key), TOLERANCE["ZERO"] * whole)
            self.assertGreater(numpy.linalg.norm(wanted[f"decoder.{layer}.attention.qkv.bias"][12:24]), 1e-6 * whole)

    def test_recompute_has_the_same_bits(self):
        for config in ({}, dict(encoder__norm_position=POST, decoder__norm_position=POST),
                       dict(encoder__activation=SWIGLU, decoder__positions=ROTARY, tie_output=1, share_embedding=1),
                       dict(encoder__layers=4, decoder__layers=4, encoder__pooling=ATTENTION),
                       dict(encoder__dropout=0.2, decoder__dropout=0.3, encoder__layers=4),
                       dict(latent__prior=VAMP, free__kind=TOTAL, encoder__layers=1),
                       dict(latent__prior=MIXTURE, free__kind=TOTAL, encoder__dropout=0.1)):
            kept = self.dump(**config)
            for policy in (CHEAP, BLOCK):
                with self.subTest(policy=policy, **config):
                    again = self.dump(recompute=policy, **config)
                    for name, g in self.gradients(kept).items():
                        self.assertEqual(g.tobytes(), self.gradients(again)[name].tobytes(), name)
                    self.assertEqual(kept["1.parts"].tobytes(), again["1.parts"].tobytes())
                    if config.get("encoder__layers") == 4:
                        self.assertLess(again["plan"], kept["plan"])

    def test_threads_have_the_same_bits(self):
        kept = self.dump(threads=1)
        for threads in (2, 3, 8):
            again = self.dump(threads=threads)
            for name in kept:
                if name != "plan":
                    self.assertEqual(kept[name].tobytes(), again[name].tobytes(), name)

    def test_unwanted_groups(self):
        """Bits are encoder, latent, decoder x decay, no decay. Unwanted gradients are not written, and the others keep
        their bits."""
        parts = {"encoder": 0, "latent": 1, "decoder": 2}
        kept = self.gradients(self.dump())
        for wanted in (0b000011, 0b001100, 0b110000, 0b101010, 0b001111, 0b010000):
            for recompute in (KEEP, BLOCK):
                some = self.gradients(self.dump(wanted=wanted, recompute=recompute))
                for name, g in some.items():
                    bit = 2 * parts[name.split(".")[0]] + (0 if g.ndim > 1 else 1)
                    with self.subTest(wanted=bin(wanted), name=name):
                        if wanted >> bit & 1:
                            self.assertEqual(g.tobytes(), kept[name].tobytes())
                        else:
                            self.assertTrue((numpy.frombuffer(g.tobytes(), numpy.uint32) == 0xFFFFFFFF).all())


if __name__ == "__main__":
    unittest.main()
