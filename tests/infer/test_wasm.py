#!/usr/bin/python3
"""elbo-infer as WebAssembly, by the page's own WASI: under node the same text as elbo-infer's with plain C for every kind
of model; in a headless Chromium the page does what it offers and asks nobody for anything. Left out where node, clang's
WebAssembly or Chromium is missing."""
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))
import zoo  # noqa: E402
from runs import ELBO, Scratch, elbo  # noqa: E402

SOURCE = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
INFER, SHIM = pathlib.Path(ELBO).with_name("elbo-infer"), SOURCE / "examples/web/elbo.js"
KINDS = ("plain", "llama", "lstm-concat", "gru", "vamp", "bpe")
SENTENCES = 200
NEEDED = ("node", "clang-14", "wasm-ld")
DRIVER = """<script>
const doing = async () => {
  const wait = (test) => new Promise((done) => { const look = () => test() ? done() : setTimeout(look, 20); look(); });
  await wait(() => !document.querySelector("button").disabled || $("state").textContent.includes("cannot"));
  const fill = { encode: { text: FIRST }, walk: { from: FIRST, to: SECOND, steps: "3" },
                 sample: { count: "4" }, edit: { text: FIRST, plus: SECOND, minus: FIRST } };
  for (const [id, values] of Object.entries(fill)) {
    for (const [name, value] of Object.entries(values)) $(id)[name].value = value;
    $(id).requestSubmit();
    await wait(() => !$(id).querySelector("button").disabled);
  }
  let blocked = "";
  try { await fetch("http://127.0.0.1:9/"); blocked = "a request went out"; } catch (e) { blocked = "blocked"; }
  const found = { state: $("state").textContent, blocked, bars: document.querySelectorAll(".bars i").length };
  for (const id of Object.keys(fill)) {
    const section = $(id).closest("section");
    found[id] = [...section.querySelectorAll("li")].map((l) => l.textContent);
    if (section.querySelector(".said").textContent) found[id] = section.querySelector(".said").textContent;
  }
  document.body.innerHTML = "";
  document.body.append(Object.assign(document.createElement("pre"), { id: "found", textContent: JSON.stringify(found) }));
};
doing();
</script>"""


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
    calls = [(["reconstruct"], text), (["encode"], text[:text.index("\n") + 1]), (["sample", "--count=20", "--seed=3"], ""),
             (["interpolate", sentences[0], sentences[1]], ""), (["reconstruct", "--beam=3"], text[:200]),
             (["score"], text[:400]), (["encode", "--nothing"], "")]
    answer = subprocess.run(["node", pathlib.Path(__file__).with_name("run_wasm.js"), SHIM, program, file],
                            input="\n".join(json.dumps(c) for c in calls), stdout=subprocess.PIPE, check=True, text=True)
    for (words, given), line in zip(calls, answer.stdout.splitlines(), strict=True):
        found, (wanted, code) = json.loads(line), native(file, words, given)
        assert found["code"] == code, (name, words, found)
        if words[0] in ("score", "encode"): # numbers: the C libraries' last digits differ
            numbers = [[float(x) for x in t.split() if re.fullmatch(r"-?[\d.]+(e-?\d+)?", x)]
                       for t in (found["output"], wanted)]
            assert len(numbers[0]) == len(numbers[1]), (name, words)
            assert all(abs(a - b) <= 1e-4 * max(1, abs(b)) for a, b in zip(*numbers)), (name, words)
        else:
            assert found["output"] == wanted, (name, words, found["output"][:300], wanted[:300])
    return len(wanted)


def check_page(scratch, program, file, sentences):
    chromium = shutil.which("chromium")
    if not chromium:
        return "no Chromium"
    page = scratch / "page.html"
    subprocess.run([SOURCE / "examples/web/build", page, file, f"--program={program}"], check=True,
                   stdout=subprocess.DEVNULL)
    driver = DRIVER.replace("FIRST", json.dumps(sentences[0])).replace("SECOND", json.dumps(sentences[1]))
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", driver + "</body>"), encoding="utf-8")
    log = scratch / "net.json"
    answer = subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={scratch / 'chromium'}",
                             "--virtual-time-budget=60000", f"--log-net-log={log}", "--host-resolver-rules=MAP * ~NOTFOUND",
                             "--dump-dom", page.as_uri()], capture_output=True, check=True, timeout=300, text=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', answer.stdout, re.S)
    assert found, answer.stdout[-2000:]
    found = json.loads(html.unescape(found.group(1)))
    assert "Nothing leaves this page" in found["state"] and found["blocked"] == "blocked", found
    for id_, count in (("encode", 1), ("walk", 3), ("sample", 4), ("edit", 5)):
        assert isinstance(found[id_], list) and len(found[id_]) == count, found
    assert found["bars"] > 1, found
    wanted = native(file, ["interpolate", sentences[0], sentences[1], "--steps=3"], "")[0].splitlines()
    assert found["walk"] == [w.strip() or "∅" for w in wanted] or found["walk"] == [w or "∅" for w in wanted], (found, wanted)
    outside = re.findall(r'"url":"(https?://[^"]*)"', log.read_text(encoding="utf-8", errors="replace"))
    ours = [u for u in outside if "127.0.0.1:9" in u]
    assert not ours, ours # the browser's own questions about its updates are no requests of the page
    return "the page works"


def main():
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    if missing or not pathlib.Path("/usr/include/wasm32-wasi").is_dir():
        print(f"{', '.join(missing) or 'wasi-libc'} missing (scripts/setup --full)")
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
