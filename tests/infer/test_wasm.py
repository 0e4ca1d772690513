#!/usr/bin/python3
"""Tests elbo-infer as WebAssembly, with the page's own WASI. Under node it must write the same text as elbo-infer in
plain C for every kind of model; in a headless Chromium the page must do what it offers without network requests.
Skipped without node or clang's WebAssembly; the page is skipped without Chromium."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))
import zoo  # noqa: E402
from chromium import Page  # noqa: E402
from runs import ELBO, Scratch, elbo  # noqa: E402

SOURCE = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
INFER, SHIM = pathlib.Path(ELBO).with_name("elbo-infer"), SOURCE / "examples/web/elbo.js"
KINDS = ("plain", "llama", "lstm-concat", "gru", "vamp", "bpe")
SENTENCES = 200
PICTURES = pathlib.Path(os.environ["ELBO_PICTURES"]) if "ELBO_PICTURES" in os.environ else None # to look at
NEEDED = ("node", "clang-14", "wasm-ld")
READY = """new Promise((done) => { const look = () => document.readyState === "complete" &&
  !document.querySelector("button").disabled ? done($("state").textContent) : setTimeout(look, 20); look(); })"""
SUBMIT = """new Promise((done) => {
  const form = $(ID), button = form.querySelector("button"), section = form.closest("section");
  for (const [name, value] of Object.entries(VALUES)) form[name].value = value;
  form.requestSubmit();
  const look = () => button.disabled ? setTimeout(look, 20) : done(
    [section.querySelector(".said").textContent, ...[...section.querySelectorAll("li")].map((l) => l.textContent)]);
  look();
})"""


def build(scratch):
    folder = scratch / "wasm"
    options = json.loads((SOURCE / "CMakePresets.json").read_text(encoding="utf-8"))["configurePresets"]
    values = {}
    for name in ("release", "embedded", "wasm"):
        values.update(next(p for p in options if p["name"] == name)["cacheVariables"])
    subprocess.run(["cmake", "-G", "Ninja", "-S", SOURCE, "-B", folder, *(f"-D{k}={v}" for k, v in values.items())],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", folder, "elbo-infer"], check=True, stdout=subprocess.DEVNULL)
    return folder / "elbo-infer.wasm"


def native(file, words, text):
    answer = subprocess.run([INFER, file, *words, "--instructions=generic", "--threads=1"], input=text.encode(),
                            capture_output=True, check=False)
    return answer.stdout.decode("utf-8", "replace"), answer.returncode


def check_kind(program, file, name, sentences):
    text = "".join(line + "\n" for line in sentences)
    calls = [(["reconstruct"], text), (["reconstruct", "--temperature=1", "--seed=5"], text),
             (["encode"], text[:text.index("\n") + 1]), (["sample", "--count=20", "--seed=3"], ""),
             (["interpolate", sentences[0], sentences[1]], ""), (["reconstruct", "--beam=3"], text[:200]),
             (["score"], text[:400]), (["encode", "--nothing"], "")]
    answer = subprocess.run(["node", pathlib.Path(__file__).with_name("run_wasm.js"), SHIM, program, file],
                            input="\n".join(map(json.dumps, calls)), stdout=subprocess.PIPE, check=True, text=True)
    for (words, given), line in zip(calls, answer.stdout.splitlines(), strict=True):
        found, (wanted, code) = json.loads(line), native(file, words, given)
        assert found["code"] == code, (name, words, found)
        if words[0] in ("score", "encode"): # numbers: the last digits depend on the C library
            numbers = [[float(x) for x in t.split() if re.fullmatch(r"-?[\d.]+(e-?\d+)?", x)]
                       for t in (found["output"], wanted)]
            assert len(numbers[0]) == len(numbers[1]), (name, words)
            assert all(abs(a - b) <= 1e-4 * max(1, abs(b)) for a, b in zip(*numbers)), (name, words)
        else:
            assert found["output"] == wanted, (name, words, found["output"][:300], wanted[:300])
        if "--temperature=1" in words:
            assert sum(len(line) > 5 for line in wanted.splitlines()) > SENTENCES / 3, f"{name} writes too little"


def check_page(scratch, program, file, sentences):
    chromium = shutil.which("chromium")
    if not chromium:
        return "no Chromium, so the page was not tried"
    path, (first, second) = scratch / "page.html", sentences[:2]
    subprocess.run([SOURCE / "examples/web/build", path, file, f"--program={program}"], check=True,
                   stdout=subprocess.DEVNULL)
    page = Page(chromium, scratch / "chromium", path.as_uri())
    try:
        assert "Nothing leaves this page" in page.value(READY)

        def submit(form, **values):
            said, *found = page.value(SUBMIT.replace("ID", json.dumps(form)).replace("VALUES", json.dumps(values)))
            assert not said, (form, said)
            return found

        def wanted(*words, text=""):
            return [line.strip() or "∅" for line in native(file, words, text)[0].splitlines()]
        assert [x.strip() for x in submit("encode", text=first)] == wanted("reconstruct", text=first + "\n")
        assert page.value('document.querySelectorAll(".bars i").length') > 1
        assert [x.strip() for x in submit("walk", **{"from": first, "to": second, "steps": "3"})] == \
            wanted("interpolate", first, second, "--steps=3")
        assert len(submit("sample", count="4")) == 4
        moved = [x.strip() for x in submit("edit", text=first, plus=second, minus=first, far="1")]
        assert len(moved) == 5 and moved[0] == wanted("reconstruct", text=first + "\n")[0]
        assert moved[4] == wanted("reconstruct", text=second + "\n")[0], moved
        assert page.value('fetch("http://127.0.0.1:9/").then(() => "went out", () => "blocked")') == "blocked"
        own = ("file:", "blob:", "data:", "http://127.0.0.1:9/")
        outside = [url for url in page.requests if not url.startswith(own)]
        assert not outside, outside
        for scheme in ("light", "dark"):
            page.picture(PICTURES / f"page-{scheme}.png" if PICTURES else scratch / f"{scheme}.png", scheme)
    finally:
        page.close()
    return "the page does what it offers, and asks nobody"


def main():
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    if missing or not pathlib.Path("/usr/include/wasm32-wasi").is_dir():
        print(f"{', '.join(missing) or 'wasi-libc'} missing (scripts/setup --tests)")
        return 77
    with Scratch() as scratch:
        zoo.corpora(scratch)
        program = build(scratch)
        lines = [line for line in (scratch / "text").read_text(encoding="utf-8").splitlines() if line][:SENTENCES]
        for name in KINDS:
            run, corpus = zoo.train(scratch, name)
            elbo("export", run, "--format=q8", f"--out={scratch / f'q8-{name}'}")
            check_kind(program, scratch / f"q8-{name}" / "model.elbo", name, lines)
        said = check_page(scratch, program, scratch / "q8-plain" / "model.elbo", lines)
    print(f"{len(KINDS)} kinds, {SENTENCES} sentences each; {said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
