#!/usr/bin/python3
"""Compares elbo-infer with elbo on the same rounded weights: the same text, latents and nats for every kind of model,
and the same ids for every character and for mixed scripts. Errors must be reported."""
import json
import os
import pathlib
import random
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "text"))
import zoo  # noqa: E402
from mixed_scripts import mixed_lines  # noqa: E402
from runs import ELBO, Scratch, elbo  # noqa: E402

INFER = pathlib.Path(ELBO).with_name("elbo-infer")
TOOL = pathlib.Path(os.environ.get("ELBO_TESTS", "build/release/tests")) / "infer_dump_words"
READELF = "/usr/bin/readelf"
LOOSE = {"encoding": "utf-8", "errors": "surrogateescape"}  # a model may write bytes that are not UTF-8


def infer(*words, code=0, **keywords):
    answer = subprocess.run([INFER, *map(str, words)], capture_output=True, check=False, timeout=120, **keywords)
    said = answer.stderr.decode()
    assert answer.returncode == code, (words, answer.returncode, said)
    assert code or not said, said
    return answer.stdout.decode("utf-8", "surrogateescape") if not code else said


def check_kind(name, run, file, sentences, labels):
    """Compares with elbo's output; models with labels, or without a latent, have their own checks."""
    given = [f"--label={labels[0]}"] if labels else []
    text = "".join(line + "\n" for line in sentences)
    raw = text.encode()
    weights = f"--weights={file}"
    drawing = ["--temperature=0.8", "--top_p=0.9", "--seed=7"]
    packed = infer(file, "sample", "--count=20", *drawing, *given)
    assert infer(file, "sample", "--count=20", *drawing, "--frugal", *given) == packed, f"{name}: other samples, frugal"
    assert packed == \
        elbo("sample", run, weights, "--count=20", *drawing, *given, **LOOSE).stdout, f"{name}: other samples"
    assert infer(file, "sample", "--count=5", *given) == \
        elbo("sample", run, weights, "--count=5", *given, **LOOSE).stdout, f"{name}: other samples by default"
    if name.startswith("language-model"):
        assert "language model" in infer(file, "encode", code=2, input=raw)
        assert "language model" in infer(file, "decode", code=2, input=raw)
    else:
        for more in ([], ["--beam=3"], ["--temperature=1.1", "--top_k=5", "--seed=3"]):
            wanted = elbo("reconstruct", run, weights, *more, *given, stdin=text, **LOOSE).stdout
            assert infer(file, "reconstruct", *more, *given, input=raw) == wanted, f"{name} {more}: other text"
        mu = numpy.array([line.split() for line in infer(file, "encode", *given, input=raw).splitlines()], float)
        rows = elbo("encode", run, weights, "--format=jsonl", *given, stdin=text).stdout.splitlines()
        assert numpy.array_equal(mu.astype("f4"), numpy.array([json.loads(row)["mu"] for row in rows], "f4")), name
        assert infer(file, "decode", *given, input=infer(file, "encode", *given, input=raw).encode()) == \
            infer(file, "reconstruct", *given, input=raw), f"{name}: decode does not read what encode writes"
        assert "numbers" in infer(file, "decode", *given, code=2, input=b"1 2 x\n")
        ends = sentences[0], sentences[3]
        walk = elbo("interpolate", run, weights, f"--from={ends[0]}", f"--to={ends[1]}", "--steps=5", *given, **LOOSE)
        assert infer(file, "interpolate", *ends, "--steps=5", *given) == walk.stdout, name
        assert infer(file, "analogy", sentences[0], sentences[1], sentences[1], *given) == \
            infer(file, "reconstruct", *given, input=(sentences[0] + "\n").encode()), name
    scores = [line.split(" ")[:3] for line in infer(file, "score", *given, input=raw).splitlines()]
    assert len(scores) == len(sentences) and all(float(row[0]) > 0 for row in scores), name
    assert infer(file, "info").startswith("latent width"), name


def check_lines(file):
    """Checks that each line is answered as it comes, and that many, long and unended lines are read."""
    program = subprocess.Popen([INFER, file, "encode"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    rows = []
    for line in (b"w1 w2\n", b"w3\r\n"):
        program.stdin.write(line)
        program.stdin.flush()
        rows.append(program.stdout.readline())
    assert program.communicate(b"w1 w2")[0] == rows[0] and program.returncode == 0
    assert rows[1] == infer(file, "encode", input=b"w3").encode() != rows[0]
    lines = [f"w{i % 50} w{i % 7}" for i in range(20000)]
    lines[9] = "w5 " * 90000
    lines[10] = ""
    found = infer(file, "encode", input="\n".join(lines).encode()).splitlines()
    assert len(found) == len(lines)
    for at in (0, 9, 10, 63, 64, 8191, len(lines) - 1):
        assert infer(file, "encode", input=(lines[at] + "\n").encode()).splitlines() == [found[at]], at


def check_scores(scratch, run, file, sentences):
    (scratch / "few").write_text("".join(line + "\n" for line in sentences), encoding="utf-8")
    elbo("prepare", scratch / "few", f"--tokenizer.from={scratch / 'word'}", f"--out={scratch / 'few-corpus'}")
    rows = elbo("eval", run, f"--weights={file}", f"--data.test={scratch / 'few-corpus'}", "--per-sentence",
                "--eval.posterior=mean").stdout.splitlines()
    expected = [[json.loads(row)[key] for key in ("reconstruction", "kl", "neg_elbo")] for row in rows]
    found = [line.split(" ", 3) for line in
             infer(file, "score", input=(scratch / "few").read_bytes()).splitlines()]
    assert [row[3] for row in found] == sentences
    numpy.testing.assert_allclose(numpy.array([row[:3] for row in found], float), expected, rtol=1e-5, atol=1e-5)


def check_words(run, file, texts):
    raw = b"".join(text + b"\n" for text in texts)
    answer = subprocess.run([TOOL, file], input=raw, stdout=subprocess.PIPE, check=True)
    ours = subprocess.run([ELBO, "tokenize", run], input=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True)
    found, wanted = answer.stdout.splitlines(), ours.stdout.splitlines()
    assert len(found) == len(wanted) == len(texts)
    other = [i for i, (a, b) in enumerate(zip(found, wanted)) if a != b]
    assert not other, f"{len(other)} lines have other ids, the first {texts[other[0]]!r}: {found[other[0]]}"
    back = subprocess.run([TOOL, file, "text"], input=raw, stdout=subprocess.PIPE, check=True).stdout
    again = subprocess.run([ELBO, "tokenize", run, "--decode"], input=ours.stdout, stdout=subprocess.PIPE, check=True)
    assert back == again.stdout


def texts():
    """Returns every character between letters, digits, blanks and signs, and mixtures of them."""
    rng = random.Random(4)
    codes = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and c not in (10, 13, 0xFEFF)]
    found = ["".join(rng.choice(["a", " ", "  ", "'s", "1", "!", ""]) + chr(c) for c in codes[at:at + 64])
             for at in range(0, len(codes), 64)]
    words = ["'s", "'T", "'re", "'", "''", " ", "   ", "\t", "\u00a0", "\u3000", "don't", "we'll", "x", "é", "7", "½",
             "字", "!?", "\u0301", "😀", "<s>", "\u180e"]
    found += ["".join(rng.choice(words) for _ in range(rng.randrange(1, 30))) for _ in range(3000)]
    return [line.encode() for line in found] + [b"", b" ", b"\xff\xfe broken \xc3", b"a" * 5000]


def check_refused(scratch, file, labelled):
    for words, said in (((file,), "COMMAND"), ((file, "dance"), "no command"),
                        ((file, "interpolate", "a"), "2 sentences"),
                        ((file, "sample", "--count=x"), "--count"), ((file, "sample", "--nothing"), "--nothing"),
                        ((file, "sample", "--temperature=nan"), "--temperature"),
                        ((file, "sample", "--top_p=2"), "top_p"),
                        ((file, "sample", "--max_length=400"), "at most"), ((file, "sample", "--label=x"), "no labels"),
                        ((labelled, "sample"), "such as"), ((labelled, "sample", "--label=green"), "green")):
        assert said in infer(*words, code=2), words
    assert "no/such" in infer(scratch / "no/such", "info", code=4)
    broken = scratch / "broken.elbo"
    raw = file.read_bytes()
    broken.write_bytes(raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:])
    assert infer(broken, "info").startswith("latent")
    assert "checksum" in infer(broken, "info", "--verify", code=3)
    broken.write_bytes(raw[:500] + bytes([raw[500] ^ 1]) + raw[501:])
    assert str(broken) in infer(broken, "info", code=3)
    assert "--label" in infer("--help")
    full = subprocess.run(f"'{INFER}' '{file}' sample --count=3000 > /dev/full", shell=True, capture_output=True,
                          check=False)
    assert full.returncode == 4 and b"standard output" in full.stderr, full
    if os.access(READELF, os.X_OK):
        needs = subprocess.run([READELF, "-d", INFER], capture_output=True, text=True, check=True).stdout
        names = [line.split("[")[1].rstrip("]") for line in needs.splitlines() if "(NEEDED)" in line]
        allowed = ("libc.so", "libm.so", "ld-linux", "libpthread.so") + (("lib",) if "san" in ELBO else ())
        assert all(name.startswith(allowed) for name in names), names


def main():
    with Scratch() as scratch:
        zoo.corpora(scratch)
        sentences = [line for _, line in zoo.text(seed=9)][:200]
        files = {}
        for name, kind in zoo.KINDS.items():
            run, _ = zoo.train(scratch, name)
            elbo("export", run, "--format=q8", f"--out={scratch / f'q8-{name}'}")
            files[name] = scratch / f"q8-{name}" / "model.elbo"
            labels = ["red", "blue"] if kind.get("data.labels") else []
            many = 200 if name in ("plain", "lstm", "bpe") else 12
            check_kind(name, run, files[name], sentences[:many], labels)
        check_lines(files["plain"])
        check_scores(scratch, scratch / "run-plain", files["plain"], sentences[:70])
        for name in ("plain", "bpe", "byte"):
            lines = [line.rstrip(b"\n") for line in mixed_lines(200000)]
            check_words(scratch / f"run-{name}", files[name], texts() + lines)
        check_refused(scratch, files["plain"], files["labels"])
    print(f"{len(files)} kinds of models: the same text, latents and samples; the same ids for {len(texts())} lines")


if __name__ == "__main__":
    main()
