#!/usr/bin/python3
"""Tests the folder of `elbo export` and its model card.

  hostile    places that are no export are left alone: files, folders with other contents, links, places without
             permission; a failed comparison leaves the old export
  broken     SIGKILL in the place of a call, after half of a write, ENOSPC or EIO at a call, a full disk: the folder
             holds the old export or the new one, whole, and the new one when the command returned 0; the next export
             leaves nothing beside it
  card       README.md has the figures of the last `elbo eval` of exactly these weights, each with its estimator

ELBO_TEST_FULL=1 tries every call; otherwise about twelve calls per format are tried."""
import errno
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import zoo  # noqa: E402
from runs import ELBO, SOURCE, Scratch, elbo  # noqa: E402

FULL = bool(os.environ.get("ELBO_TEST_FULL"))
PRELOAD = pathlib.Path(os.environ.get("ELBO_TESTS", SOURCE / "build/release/tests")) / "train_preload_calls.so"
FORMATS = {"hf": ["--format=hf"], "onnx": ["--format=onnx"], "gguf": ["--format=gguf"],
           "q4": ["--format=q4"]}
GIVEN = {"latent.injection": "residual"}


def look(folder):
    """Hashes everything in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


def check_hostile(scratch, run, corpus):
    def refused(out, words, code):
        answer = elbo("export", run, "--format=hf", f"--out={out}", code=code)
        assert words in answer.stderr, answer.stderr

    full, target = scratch / "full", scratch / "target"
    full.mkdir()
    target.mkdir()
    (full / "thesis.tex").write_text("years")
    (target / "thesis.tex").write_text("years")
    (scratch / "file").write_text("text")
    (scratch / "link").symlink_to(target)
    (scratch / "dangling").symlink_to(scratch / "nowhere")
    before = look(scratch)
    refused(full, "no export", 2)
    refused(scratch / "file", "file", 4)
    refused(scratch / "link", "no export", 2)
    refused(scratch / "dangling", "link", 2)
    refused(scratch / "file" / "below", "file", 4)
    refused(run, "no export", 2)
    refused(corpus, "no export", 2)
    refused("x" * 5000, "4095", None)
    assert look(scratch) == before
    for mark in ("elbo-export.json/", "config.json"):  # a folder with the mark's name does not make an export
        place = scratch / "marked" / mark
        place.parent.mkdir(exist_ok=True)
        place.mkdir() if mark.endswith("/") else place.write_text("{}")
        refused(place.parent, "no export", 2)
    empty = scratch / "empty"
    empty.mkdir()
    zoo.export(run, empty, "--format=hf")
    kept = look(empty)
    answer = elbo("export", run, "--format=hf", f"--out={empty}", f"--check={corpus}", code=3,
                  env={**os.environ, "ELBO_PYTHON": "false"})
    assert "ELBO_PYTHON" in answer.stderr and look(empty) == kept, answer.stderr
    answer = elbo("export", run, "--format=hf", f"--out={empty}", f"--check={corpus}", "--json",
                  env={**os.environ, "ELBO_PYTHON": "echo"})
    assert json.loads(answer.stdout)["folder"] == str(empty) and "check_hf.py" in answer.stderr, answer
    kept = look(empty)
    answer = elbo("export", run, "--format=hf", f"--out={empty}", f"--check={corpus}", code=None,
                  env={**os.environ, "ELBO_PYTHON": "/no/python"})
    assert answer.returncode and "/no/python" in answer.stderr and look(empty) == kept, answer.stderr


def environment(out, **watch):
    return {**os.environ, "LD_PRELOAD": str(PRELOAD), "WATCH_ROOT": str(out.parent),
            "ASAN_OPTIONS": "verify_asan_link_order=0", **{f"WATCH_{k.upper()}": str(v) for k, v in watch.items()}}


def check_broken(scratch, name, given, old, new):
    out = scratch / f"place-{name}" / "export"
    out.parent.mkdir()

    def command(run):
        return [ELBO, "export", str(run), f"--out={out}", *given]

    looks = []
    for run in (new, old):
        subprocess.run(command(run), check=True, capture_output=True)
        looks.append(look(out))
    is_new, is_old = looks
    log = scratch / "log"
    subprocess.run(command(new), check=True, capture_output=True, env=environment(out, log=log))
    count, news = len(log.read_bytes().splitlines()), 0
    points = range(count) if FULL else range(0, count, max(1, count // 12))
    for at in points:
        for effect, number, times in (("kill", 0, 1), ("tear", 0, 1), ("error", errno.ENOSPC, 1),
                                      ("error", errno.EIO, 1), ("full", errno.ENOSPC, 10 ** 6)):
            what = f"{name}: {effect} {number} at call {at} of {count}"
            subprocess.run(command(old), check=True, capture_output=True)
            assert [path.name for path in out.parent.iterdir()] == ["export"], what
            answer = subprocess.run(command(new), capture_output=True, check=False, text=True,
                                    env=environment(out, effect=effect, at=at, number=number, times=times))
            allowed = (-signal.SIGKILL,) if effect in ("kill", "tear") else (0, 4)
            assert answer.returncode in allowed, (what, answer)
            found = look(out) if out.is_dir() else is_old if (out.parent / ".export.elbo-old").exists() else ""
            assert found in (is_old, is_new), f"{what}: exit {answer.returncode}: neither the old nor the new export"
            assert answer.returncode or found == is_new, f"{what}: it said that all is well: {answer.stderr}"
            assert answer.returncode <= 0 or "elbo: " in answer.stderr, (what, answer)
            news += found == is_new
    assert 0 < news < 5 * len(points)
    shutil.rmtree(out.parent)
    return 5 * len(points)


def check_card(scratch, run, corpus):
    out = scratch / "card"

    def card():
        zoo.export(run, out, "--format=hf")
        return (out / "README.md").read_text(encoding="utf-8")

    assert "Not evaluated" in card()
    elbo("eval", run, f"--data.test={corpus}", "--eval.posterior=mean")
    assert "no bound on -log p(x)" in card()
    figures = json.loads(elbo("eval", run, f"--data.test={corpus}", "--eval.iwae_samples=4", "--json").stdout)
    said = card()
    for key, words in (("neg_elbo", "upper bound on -log p(x) in expectation"), ("iwae_nll", "with 4 samples"),
                       ("kl", "closed form"), ("mutual_information", "next figure"), ("own_z_gain", "another")):
        line = next(line for line in said.splitlines() if line.startswith(f"| {key} |"))
        assert f"| {figures[key]:.3f} |" in line and words in line, line
    assert f"`{corpus.name}`" in said and "Not evaluated" not in said
    lines = run / "evaluations.jsonl"
    good = lines.read_bytes()
    assert len(good.splitlines()) == 2
    lines.write_bytes(b'{"figures": 3}\n' + good + b'not json\n[]\n{"weights": "0", "figures": {}}\n{"broken off')
    assert card() == said
    elbo("eval", run, f"--data.test={corpus}", "--eval.iwae_samples=2", "--per-sentence")
    assert "with 2 samples" in card()
    lines.write_bytes(good.replace(b'"weights":"', b'"weights":"f'))
    assert "Not evaluated" in card()
    lines.unlink()
    lines.mkdir()
    answer = elbo("eval", run, f"--data.test={corpus}")
    assert "not kept" in answer.stderr and "neg_elbo" in answer.stdout, answer.stderr
    assert "Not evaluated" in card()
    lines.rmdir()


def main():
    with Scratch() as scratch:
        zoo.corpora(scratch)
        old, corpus = zoo.train(scratch, "plain", GIVEN)
        new, _ = zoo.train(scratch, "other", {**GIVEN, "seed": 2})
        check_hostile(scratch, new, corpus)
        check_card(scratch, new, corpus)
        points = sum(check_broken(scratch, name, given, old, new) for name, given in FORMATS.items())
    print(f"figure export_broken.points {points}\nfigure export_broken.bad 0")


if __name__ == "__main__":
    main()
