"""Part `defaults`: checks that a model trained on the device learns as much as one trained on the CPU, and evaluates to
the same figures on the CPU."""
import json
import math
import pathlib
import tempfile
import time

from gpu_check.inputs import bench_options, same_lengths
from gpu_check.steps import offers

SEEDS = (1, 2, 3)
# Relative tolerance of neg_elbo between device and CPU with the same noise: sums in another order, or bf16.
NEAR = {"f32": 1e-4, "bf16": 5e-3}
FIGURES = ("neg_elbo", "iwae_nll", "kl", "active_units_0.1", "mutual_information", "own_z_gain")


def corpora(check, folder):
    """Returns WordNet's definitions, split as in bench/defaults and carried along, or a made-up corpus with
    --emulate."""
    if not check.given.emulate:
        return check.build / "cuda" / "wordnet"
    made = same_lengths(check, folder)
    for name in ("train", "valid", "test"):
        if made:
            (folder / name).symlink_to(made)
    return made and folder


def evaluate(check, name, run, corpus, device):
    out = check.run(name, [check.device_elbo, "eval", run, f"--data.test={corpus}", f"--device={device}", "--json"], 60,
                    quiet=True)
    return json.loads(out) if out is not None else None


def train_and_evaluate(check, folder, corpus, precision, seed):
    """Returns a row of the table, or None."""
    name, run = f"{precision}, seed {seed}", folder / f"{precision}-{seed}"
    options = [f"--data.train={corpus / 'train'}", f"--data.valid={corpus / 'valid'}", f"--run.dir={run}",
               f"--seed={seed}", "--device=cuda", f"--precision={precision}"]
    if check.given.emulate:
        options += [o for o in bench_options(check, corpus / "train", 3, precision)
                    if not o.startswith("--data.train=")] + ["--train.steps=3"]
    began = time.monotonic()
    if check.run(f"train, {name}", [check.device_elbo, "train", *options], 120, quiet=True) is None:
        return None
    seconds = time.monotonic() - began
    found = {device: evaluate(check, f"eval on {device}, {name}", run, corpus / "test", device)
             for device in ("cuda", "cpu")}
    if not all(found.values()):
        return None
    here, there = (found[device]["neg_elbo"] for device in ("cuda", "cpu"))
    off = abs(here - there) / there
    check.note(f"defaults, {name}", "ok" if math.isfinite(off) and off <= NEAR[precision] else "failed",
               f"neg_elbo {here:.3f} on the device, {there:.3f} on the CPU: off by {off:.1e} of {NEAR[precision]:g}",
               seconds, **found)
    figures = " | ".join(f"{found['cuda'].get(key, math.nan):.2f}" for key in FIGURES)
    return f"| {precision} | {seed} | {seconds:.1f} | {figures} | {there:.2f} |"


def defaults(check):
    check.needs(check.device_elbo)
    check.tables.append(["| precision | seed | train s | " + " | ".join(FIGURES) + " | neg_elbo on the CPU |",
                         "|" + "---|" * (len(FIGURES) + 4)])
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        corpus = corpora(check, folder)
        if not corpus:
            return
        for seed in SEEDS[:1] if check.given.emulate else SEEDS:
            for precision in NEAR if offers(check.device_elbo, "train", "precision") else ["f32"]:
                row = train_and_evaluate(check, folder, corpus, precision, seed)
                if row:
                    check.tables[0].append(row)
