#!/usr/bin/python3
"""Tests elbo export --format=q8 and q4: the file, read here by the description in src/infer/file.h, must hold the
model; the program accepts the file as weights (--weights), finds every damage, and refuses another model's file."""
import json
import pathlib
import struct
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "base"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "infer"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "model"))
import zoo  # noqa: E402
from reference import read_safetensors  # noqa: E402
from runs import Scratch, checkpoints, elbo  # noqa: E402
from seal import seal  # noqa: E402
from test_blocks import SIZES, by_formula  # noqa: E402

CONFIG, TENSORS, TOKENIZER, BANNED, LABELS, PRIOR = range(1, 7)
TYPES = ("F32", "Q8_0", "Q4_0", "Q4_K", "Q6_K")
WIDE = {"encoder.width": 256, "decoder.width": 256, "encoder.ff_width": 256, "decoder.ff_width": 256, "train.steps": 3}
KINDS = ("plain", "llama", "lstm-concat", "gru", "bag", "vamp", "labels", "language-model", "prefix-llama", "bpe",
         "byte")


class File:
    def __init__(self, path):
        self.raw = path.read_bytes()
        magic, version, count, size, self.head, _, _ = struct.unpack_from("<8sIIQQQQ", self.raw)
        assert (magic, version, size) == (b"elbo-inf", 1, len(self.raw)) and self.head % 64 == 0
        self.sections = {}
        for i in range(count):
            kind, _, at, size = struct.unpack_from("<IIQQ", self.raw, 48 + 24 * i)
            self.sections[kind] = self.raw[at:at + size]
        self.config = dict(line.split("=") for line in self.sections[CONFIG].decode().splitlines())
        self.tensors = {}
        for at in range(0, len(self.sections[TENSORS]), 136):
            name, kind, rank, rows, columns, place = struct.unpack_from("<104sIIQQQ", self.sections[TENSORS], at)
            assert place % 64 == 0 and place >= self.head
            self.tensors[name.rstrip(b"\0").decode()] = (TYPES[kind], (rows, columns)[:rank], place)

    def values(self, name):
        kind, shape, place = self.tensors[name]
        count = int(numpy.prod(shape))
        if kind == "F32":
            return numpy.frombuffer(self.raw, numpy.float32, count, place).reshape(shape)
        per, size = SIZES[kind]
        blocks = numpy.frombuffer(self.raw, numpy.uint8, count // per * size, place).reshape(-1, size)
        return by_formula(kind, blocks).reshape(shape)

    def words(self):
        s = self.sections[TOKENIZER]
        kind, split, start, end, unknown, count = struct.unpack_from("<6I", s)
        if kind == 1:
            at = struct.unpack_from(f"<{count + 1}I", s, 24)
            table = s[24 + 4 * (count + 1):]
            return [table[a:b].decode() for a, b in zip(at, at[1:])], (start, end, unknown), split
        pieces = [bytes([i]) for i in range(256)]
        for i in range(count):
            left, right, whole = struct.unpack_from("<3I", s, 24 + 12 * i)
            if whole == 3 + len(pieces):
                pieces.append(pieces[left - 3] + pieces[right - 3])
            assert pieces[whole - 3] == pieces[left - 3] + pieces[right - 3]
        return pieces, (start, end, unknown), split


def wanted_type(name, shape, bits):
    """Returns the type of a tensor by the rules of docs/formats.md."""
    table = name.endswith(("embedding.token.weight", "output.weight")) and ".attention." not in name \
        and ".feed_forward." not in name
    product = name.endswith((".qkv.weight", ".attention.output.weight", ".feed_forward.input.weight",
                             ".feed_forward.output.weight", ".hidden.weight", ".input.weight"))
    if len(shape) < 2 or shape[1] % 32 or not (table or product):
        return "F32"
    if bits == 8:
        return "Q8_0"
    wide = shape[1] % 256 == 0
    return ("Q6_K" if wide else "Q8_0") if table else "Q4_K" if wide else "Q4_0"


def check_content(run, file, bits):
    weights = read_safetensors(checkpoints(run)[-1] / "model.safetensors")
    weights = {name: numpy.asarray(w, dtype=float) for name, w in weights.items()
               if ".embedding.mark." not in name and not name.startswith("objective.")}
    assert sorted(weights) == list(file.tensors), set(weights) ^ set(file.tensors)
    worst = {}
    for name, w in weights.items():
        kind, shape, _ = file.tensors[name]
        assert shape == w.shape and kind == wanted_type(name, w.shape, bits), (name, kind, shape)
        gap = numpy.linalg.norm(file.values(name) - w) / max(numpy.linalg.norm(w), 1e-30)
        worst[kind] = max(worst.get(kind, 0), gap)
    most = {"F32": 0, "Q8_0": 0.01, "Q4_0": 0.15, "Q4_K": 0.12, "Q6_K": 0.03}
    assert all(gap <= most[kind] for kind, gap in worst.items()), worst
    return set(worst)


def check_words(run, file):
    tokenizer = json.loads((run / "tokenizer.json").read_text(encoding="utf-8"))
    words, marks, split = file.words()
    assert marks == (0, 1, 2) and int(file.config["vocabulary"]) == 3 + len(words)
    if tokenizer["kind"] == "word":
        assert words == tokenizer["words"]
    else:
        assert split == (1 if tokenizer.get("merges") else 0)
        for text in ("w1 w22 naïve", "дом 鳥 😀"):
            ids = json.loads(elbo("tokenize", run, stdin=text + "\n").stdout.join("[]").replace(" ", ","))
            assert b"".join(words[i - 3] for i in ids).decode() == text, (text, ids)


def without_last_tensor(raw):
    raw = bytearray(raw)
    entry = next(at for at in range(48, 48 + 24 * 6, 24) if struct.unpack_from("<I", raw, at)[0] == TENSORS)
    struct.pack_into("<Q", raw, entry + 16, struct.unpack_from("<Q", raw, entry + 16)[0] - 136)
    return seal(bytes(raw))


def check_damage(scratch, run, path, corpus):
    raw, bad = path.read_bytes(), scratch / "bad.elbo"
    head = File(path).head

    def refused(changed, words, code=3):
        bad.write_bytes(changed)
        answer = elbo("eval", run, f"--weights={bad}", f"--data.test={corpus}", code=code)
        assert words in answer.stderr and str(bad) in answer.stderr, answer.stderr
    for at in (*range(0, 48, 5), *range(48, head, max(1, head // 40)), head + 5, len(raw) - 100):
        refused(raw[:at] + bytes([raw[at] ^ 64]) + raw[at + 1:], "")
    for size in (1, 47, head - 1, head, len(raw) - 1):
        refused(raw[:size], "")
    refused(raw + b"\0", "should have")
    refused(b"", "empty", 4)
    refused(b"GGUF" + raw[4:], "elbo-inf")
    refused(raw[:8] + b"\2" + raw[9:], "version 2")
    refused(without_last_tensor(raw), "lacks")
    other, _ = zoo.train(scratch, "narrow", {"encoder.width": 16, "decoder.width": 16})
    answer = elbo("eval", other, f"--weights={path}", f"--data.test={corpus}", code=3)
    assert "shape" in answer.stderr, answer.stderr


def check_many_rows(scratch):
    """Exports a table that is rounded in several pieces, with blocks of 210 bytes."""
    (scratch / "words").write_text("".join(f"w{i} w{i + 1} w{i + 2}\n" for i in range(0, 3000, 3)), encoding="ascii")
    elbo("prepare", scratch / "words", f"--out={scratch / 'many'}")
    run = scratch / "run-many"
    elbo("train", f"--data.train={scratch / 'many'}", f"--run.dir={run}", "--train.steps=1", "--encoder.layers=1",
         "--decoder.layers=1", "--encoder.width=768", "--decoder.width=768", "--data.max_length=4",
         "--train.slot_tokens=64", "--train.slots=1", "--optimizer.warmup_steps=0")
    for bits in (8, 4):
        elbo("export", run, f"--format=q{bits}", f"--out={scratch / f'q{bits}-many'}")
        file = scratch / f"q{bits}-many" / "model.elbo"
        check_content(run, File(file), bits)
        figures(run, scratch / "many", f"--weights={file}", "--eval.sentences=5")


def figures(run, corpus, *words):
    return json.loads(elbo("eval", run, f"--data.test={corpus}", "--json", *words).stdout)


def main():
    with Scratch() as scratch:
        zoo.corpora(scratch)
        seen = set()
        for name in (*KINDS, "wide"):
            run, corpus = zoo.train(scratch, name, WIDE if name == "wide" else None)
            if name == "plain":
                elbo("fit-prior", run, "--prior.of=sample")
            exact = figures(run, corpus)["neg_elbo"]
            for bits, most in ((8, 0.001), (4, 0.03)):
                out = scratch / f"q{bits}-{name}"
                elbo("export", run, f"--format=q{bits}", f"--out={out}")
                file = File(out / "model.elbo")
                seen |= check_content(run, file, bits)
                check_words(run, file)
                rounded = figures(run, corpus, f"--weights={out / 'model.elbo'}")["neg_elbo"]
                assert rounded != exact and abs(rounded / exact - 1) < most, (name, bits, rounded, exact)
                assert len(file.sections.get(LABELS, b"").split(b"\0")) - 1 == int(file.config["labels"])
                assert (PRIOR in file.sections) == (name in ("plain", "vamp")), name
        assert seen == set(TYPES), seen
        check_many_rows(scratch)
        check_damage(scratch, scratch / "run-plain", scratch / "q8-plain" / "model.elbo", scratch / "word")
        elbo("export", scratch / "run-plain", "--format=q8", f"--out={scratch / 'x'}", "--part=encoder", code=2)
        elbo("export", scratch / "run-plain", "--format=q8", f"--out={scratch / 'x'}", f"--check={scratch / 'word'}",
             code=2)
    print(f"{len(KINDS) + 1} kinds of models in 8 and 4 bits, {', '.join(sorted(seen))}")


if __name__ == "__main__":
    main()
