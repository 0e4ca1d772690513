"""Parts `speed` and `warm`: times a step beside PyTorch's and beside its matrix products alone."""
import functools
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from gpu_check.inputs import bench_corpus, bench_options, counts_of_lengths, many_lengths, same_lengths
from gpu_check.steps import ROOT, offers, said_by


def our_step(check, name, options, **about):
    """Returns one row from `elbo bench step`. With determinism=fast elbo times its products and takes the fastest
    ones."""
    out = check.run(name, [check.device_elbo, "bench", "step", *options, "--json"], 120, quiet=True)
    if out is None:
        return None
    try:
        found = json.loads(out)
    except json.JSONDecodeError:
        check.note(name, "failed", f"no JSON: {out[:300]}")
        return None
    seconds, tokens = found["step_seconds"], found["tokens_per_second"] * statistics.fmean(found["step_seconds"])
    check.note(name, "ok", f"{found['step_seconds_median'] * 1e3:.2f} ms a step", sum(seconds), **found)
    return {"side": "elbo", "tokens": round(tokens), "seconds": seconds, **about}


def our_steps(check, corpus, sentences, precision, again=""):
    """Runs both levels of determinism in bf16, and only run_to_run in f32."""
    rows = []
    for level in ("run_to_run", "fast") if precision == "bf16" else ("run_to_run",):
        name = f"elbo, {precision}, {level}, {sentences * (check.sizes['words'] + 1)} tokens{again and ', ' + again}"
        options = [*bench_options(check, corpus, sentences, precision), f"--determinism={level}"]
        rows.append(our_step(check, name, options, precision=precision, mode=level + (again and ", " + again)))
    return rows


def peer(check, name, script, *options, limit=150):
    out = check.run(name, [sys.executable, f"bench/peers/{script}", *options], limit, quiet=True)
    if out is None:
        return None
    found = json.loads(out)
    check.note(name, "ok", "missing: " + "; ".join(found["missing"]) if found["missing"] else "",
               sum(sum(r["seconds"]) for r in found["rows"]), **found)
    return found


def lengths_peer(check, name, *options, limit=150):
    """Times PyTorch on sentences with WordNet's lengths, with about as many useful tokens a step as elbo's slot
    holds."""
    sizes, counts = check.sizes, counts_of_lengths(check)
    mean = sum(n * c for n, c in enumerate(counts)) / sum(counts)
    sentences = max(2, int(sizes["sentences"][0] * (sizes["words"] + 2) / (mean + 2)))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as numbers:
        json.dump(counts, numbers)
        numbers.flush()
        return peer(check, name, "lengths.py", numbers.name, f"--sentences={sentences}", f"--longest={len(counts) - 1}",
                    *options, *(f"--{key}={sizes[key]}"
                                for key in ("width", "layers", "heads", "latent", "vocabulary")), limit=limit)


def lengths_steps(check, folder):
    """Times sentences with WordNet's lengths: elbo packs them, PyTorch pads them."""
    sizes, corpus, rows = check.sizes, many_lengths(check, folder), []
    if not corpus:
        return rows
    options = [o for o in bench_options(check, corpus, sizes["sentences"][0], "bf16")
               if not o.startswith(("--data.max_length", "--train.slot_"))]
    options += [f"--data.max_length={len(counts_of_lengths(check)) - 1}", "--train.slot_sentences=0",
                f"--train.slot_tokens={sizes['sentences'][0] * (sizes['words'] + 2)}", "--determinism=fast"]
    rows.append(our_step(check, "elbo, bf16, WordNet's lengths", options, precision="bf16",
                         mode="WordNet's lengths, fast"))
    answer = lengths_peer(check, "PyTorch, bf16, WordNet's lengths")
    for r in answer["rows"] if answer else []:
        rows.append({"side": "PyTorch", "precision": "bf16",
                     "mode": f"WordNet's lengths, {r['mode']}, {r['padded']:.1f} times as many rows with padding",
                     "tokens": r["tokens"], "seconds": r["seconds"]})
    return rows


def product_lines(check, sentences):
    """Returns the products of a step in the format of bench/products.c. The head's products are whole here; the library
    gets them in chunks of rows."""
    width, vocabulary, words, layers = (check.sizes[key] for key in ("width", "vocabulary", "words", "layers"))
    padded, lines = -(-vocabulary // 128) * 128, []
    for stack, rows in (("encoder", sentences * (words + 2)), ("decoder", sentences * (words + 1))):
        for part, inner, outer in (("qkv", width, 3 * width), ("output", width, width), ("up", width, 4 * width),
                                   ("down", 4 * width, width)):
            lines += [f"{stack}.{part}.forward {layers} {rows} {outer} {inner} n t 0 0 0 bf16 bf16 0",
                      f"{stack}.{part}.input {layers} {rows} {inner} {outer} n n 0 0 0 bf16 bf16 0",
                      f"{stack}.{part}.weight {layers} {outer} {inner} {rows} t n 0 0 0 bf16 f32 1"]
    rows = sentences * (words + 1)
    lines += [f"head.forward 1 {rows} {padded} {width} n t 0 0 0 bf16 bf16 0",
              f"head.input 1 {rows} {width} {padded} n n 0 0 0 bf16 bf16 0",
              f"head.weight 1 {padded} {width} {rows} t n 0 0 0 bf16 f32 0"]
    return "\n".join(lines) + "\n"


def products(check, sentences):
    """G: the time of the step's products with their best algorithms, back to back."""
    name = f"products alone, bf16, {sentences * (check.sizes['words'] + 1)} tokens"
    program = check.build / "cuda" / "bench_products"
    if check.given.emulate or check.given.dry_run:
        return
    out = check.run(name, [program], 60, quiet=True, given=product_lines(check, sentences))
    if out is None:
        return
    rows = [json.loads(line) for line in out.splitlines()]
    best, first = (sum(r["calls"] * r[key] for r in rows) for key in ("best", "first"))
    head = sum(r["best"] for r in rows if r["product"].startswith("head"))
    check.note(name, "ok", f"G = {best * 1e3:.2f} ms, {head * 1e3:.2f} of it the head's; {first * 1e3:.2f} ms by the "
                           "library's first choices", 0, rows=rows)


def attention_of(check, folder, length):
    """Times elbo's attention, forward and backward, where every sentence has `length` rows in the encoder. Notes the
    rows of `elbo bench kernels`."""
    sizes = check.sizes
    sentences = max(2, sizes["sentences"][0] * (sizes["words"] + 2) // length)
    corpus = bench_corpus(check, folder, f"sentences of {length}", itertools.repeat(length - 2), sentences * length)
    if not corpus:
        return
    options = [f"--{stack}.{key}={value}" for stack in ("encoder", "decoder") for key, value in
               (("width", sizes["width"]), ("heads", sizes["heads"]), ("layers", 1))]
    options += [f"--data.train={corpus}", f"--data.max_length={length - 2}", "--train.slots=1",
                f"--train.slot_sentences={sentences}", f"--train.slot_tokens={sentences * length}", "--device=cuda",
                "--precision=bf16", "--latent.injection=embedding", "--json"]
    out = check.run(f"elbo's attention, sentences of {length}", [check.device_elbo, "bench", "kernels", *options], 60,
                    quiet=True)
    if out is None:
        return
    rows = [k for k in json.loads(out)["kernels"] if k["op"].startswith("attention")]
    words = "; ".join(f"{k['op']} {k['shape']} {k['seconds'] * 1e6:.1f} us" for k in rows)
    check.note(f"elbo's attention, {sentences} sentences of {length}", "ok", words, 0, rows=rows)


def device_memory():
    return int(said_by("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits").split()[0])


def memory_of(check, corpus, layers):
    """Returns the MiB of the plan, and the most MiB that the device held while `layers` + `layers` layers trained."""
    sizes = check.sizes
    options = [o for o in bench_options(check, corpus, sizes["sentences"][0], "bf16") if ".layers=" not in o]
    options += [f"--encoder.layers={layers}", f"--decoder.layers={layers}"]
    out = check.run(f"plan, {layers} + {layers} layers", [check.device_elbo, "plan", *options, "--json"], 60,
                    quiet=True)
    if out is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        words = [str(w) for w in (check.device_elbo, "train", *options, f"--run.dir={folder}/run", "--train.steps=40",
                                  "--checkpoint.every=0")]
        most, deadline = 0, time.monotonic() + min(60, max(5, check.left()))
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while run.poll() is None and time.monotonic() < deadline:
                most = max(most, device_memory())
            run.kill()
    return json.loads(out)["bytes"]["total"] / 2**20, most


def memory(check, corpus):
    """Compares the planned and the measured difference between two depths. The difference cancels the memory of the
    context and of the libraries."""
    if check.given.emulate or check.given.dry_run:
        return
    before, layers = device_memory(), (2, check.sizes["layers"])
    found = [memory_of(check, corpus, n) for n in layers]
    if not all(found):
        return
    planned, held = (b - a for a, b in zip(*found))
    check.note("memory beside the plan", "ok",
               f"{layers[0]} to {layers[1]} layers: {held} MiB more were held, {planned:.0f} planned: "
               f"{held / planned:.4f}; {before} MiB were held before", 0, layers=layers, planned_and_held=found)


def quartiles(seconds):
    ordered = sorted(seconds)
    return [ordered[round(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75)]


def step_table(rows):
    lines = ["| side | precision | mode | tokens a step | median ms | quartiles ms | tokens/s |",
             "|---|---|---|---|---|---|---|"]
    for r in rows:
        low, median, high = quartiles(r["seconds"])
        lines.append(f"| {r['side']} | {r['precision']} | {r['mode']} | {r['tokens']} | {median * 1e3:.2f} | "
                     f"{low * 1e3:.2f} .. {high * 1e3:.2f} | {r['tokens'] / median:.0f} |")
    return lines


def kernel_table(rows):
    lines = ["| kernel | variant | median us | quartiles us | TFLOP/s | GB/s |", "|---|---|---|---|---|---|"]
    for r in rows:
        low, median, high = quartiles(r["seconds"])
        lines.append(f"| {r['kernel']} | {r['variant']} | {median * 1e6:.1f} | {low * 1e6:.1f} .. {high * 1e6:.1f} | "
                     f"{r.get('tflops', 0):.1f} | {r.get('gbytes_per_second', 0):.0f} |")
    return lines


def speed(check):
    check.needs(check.elbo)
    precisions = ["f32"]
    found = check.elbo.exists() and offers(check.device_elbo, "bench", "precision")
    if found and "bf16" in found.group():
        precisions.append("bf16")
    rows, sizes = [], check.sizes
    small, large = sizes["sentences"][0], sizes["sentences"][-1]
    same = [f"--{key}={sizes[key]}" for key in ("width", "layers", "heads", "latent", "vocabulary", "words")]

    def theirs(precision, sentences, modes):
        answer = peer(check, f"PyTorch, {precision}, {sentences * (sizes['words'] + 1)} tokens", "step.py",
                      f"--precision={precision}", f"--modes={modes}", f"--sentences={sentences}", *same)
        return [{"side": "PyTorch", "precision": precision, "mode": r["mode"], "tokens": r["tokens"],
                 "seconds": r["seconds"]}
                for r in (answer["rows"] if answer else [])]

    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        corpus = same_lengths(check, folder) if not check.given.dry_run else pathlib.Path("CORPUS")
        if corpus:
            half = precisions[-1]
            products(check, small)
            rows += our_steps(check, corpus, small, half)
            rows += theirs("bf16", small, "eager,compile")
            # Before and after the peer, to show how much the machine itself varies.
            rows += our_steps(check, corpus, small, half, "again")
            for precision in reversed(precisions):
                name = f"elbo bench kernels, {precision}"
                out = check.run(name, [check.device_elbo, "bench", "kernels",
                                       *bench_options(check, corpus, small, precision), "--json"], 100, quiet=True)
                if out is not None:
                    check.note(name, "ok", "", 0, result=json.loads(out))
            answer = peer(check, "PyTorch's kernels", "kernels.py", *(["--tiny"] if check.given.emulate else []),
                          limit=180)
            if half == "bf16" and not check.given.dry_run:
                memory(check, corpus)
                for length in (9,) if check.given.emulate else (32, 64, 128):
                    attention_of(check, folder, length)
            rows += our_steps(check, corpus, small, "f32")
            rows += theirs("f32", small, "eager")
            if large != small:
                products(check, large)
                rows += our_steps(check, corpus, large, half)
                rows += theirs("bf16", large, "eager,compile")
                rows += our_steps(check, corpus, large, half, "again")
            if half == "bf16" and not check.given.dry_run: # last, because the peer may compile until the time is up
                rows += lengths_steps(check, folder)
    if not check.given.dry_run:
        check.tables.append(step_table([r for r in rows if r]))
        if corpus and answer:
            check.tables.append(kernel_table(answer["rows"]))


def warm(check):
    sizes = check.sizes
    same = [f"--{key}={sizes[key]}" for key in ("width", "layers", "heads", "latent", "vocabulary", "words")]
    calls = [functools.partial(peer, check, f"PyTorch's compilation, {sentences * (sizes['words'] + 1)} tokens",
                               "step.py", "--modes=compile", "--steps=1", "--warm-up=2", f"--sentences={sentences}",
                               *same, limit=200) for sentences in sizes["sentences"]]
    calls.append(functools.partial(lengths_peer, check, "PyTorch's compilation, WordNet's lengths", "--modes=compile",
                                   "--rounds=1", limit=200))
    check.run_all(calls)
