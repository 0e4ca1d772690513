"""Today's program opens files that an older program wrote (tests/fixtures/make), and finds the figures that were
printed then.

  corpus/       `elbo info` reports the same
  sgd/, adamw/  evaluating, generating and encoding give the same figures; a copy of the run goes on to the same rows,
                weights and moments
  config.yaml   a training from it that begins with the weights of sgd/, and drops words to the unknown mark as then,
                gives the same rows and weights (a model's first weights may change from commit to commit)

Every figure is compared in all its digits, and every file of tensors by its SHA-256. With another kind of C library or
processor than the figures were written on, exp and log may round differently: then figures are compared within 1e-4,
and hashes and texts are skipped.

If a figure changes on purpose, run tests/fixtures/make again, or put the figure into expected.json under the commit
that changed it, and give the reason in the commit. A file that no longer opens breaks the promise of
docs/formats.md."""
import hashlib
import json
import math
import os
import pathlib
import platform
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from runs import ELBO, SOURCE, Scratch, checkpoints, optimizer_state, rows

FIXTURES = SOURCE / "tests" / "fixtures"
DEVICE = ["--device=cpu:generic", "--threads=1"]


def has_fma():
    return " fma " in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")


def sha256(data):
    return "sha256 " + hashlib.sha256(data).hexdigest()


def trained(run, first=0):
    """Returns a finished run's rows from step `first` on, and hashes of its weights and of its optimizer's state."""
    last = checkpoints(run)[-1]
    kept = [row for row in rows(run) if row["step"] > first]
    active = [row.pop("active_units") for row in kept if "active_units" in row]
    state = dict(optimizer_state(last / "state"))
    variance = state.pop("posterior.variance", state.pop("posterior.moments", b"")) # their name until d6417e8
    moments = b"".join(name.encode() + data for name, data in sorted(state.items()))
    return {"rows": kept, "weights": sha256((last / "model.safetensors").read_bytes()), "moments": sha256(moments),
            "active units": active, "variance": sha256(variance)}


def measure(program, folder, begins=True):
    """Returns every figure, by name, of a copy of the fixtures, because a training writes to it. begins: the program
    knows --init.from."""
    found = {}
    with Scratch() as scratch:
        copy = scratch / "fixtures"
        shutil.copytree(folder, copy)
        lines = "".join((copy / "text").read_text(encoding="utf-8").splitlines(True)[:8]).encode()

        def call(*words, stdin=b""):
            answer = subprocess.run([program, *words], input=stdin, cwd=copy, capture_output=True, check=False)
            if answer.returncode:
                sys.exit(f"elbo {' '.join(words)}\nended with {answer.returncode}:\n{answer.stderr.decode()[-3000:]}")
            return answer.stdout

        for part in ("train", "valid"):
            found[f"corpus/{part} info"] = json.loads(call("info", f"corpus/{part}", "--json"))
        if begins:
            call("train", "config.yaml", "--run.dir=fresh", "--init.from=sgd", "--objective.dropped_mark=unknown")
            found.update({f"config.yaml {what}": value for what, value in trained(copy / "fresh").items()})
        for run in ("sgd", "adamw"):
            evaluation = call("eval", run, "--data.test=corpus/valid", "--eval.iwae_samples=3", "--json", *DEVICE)
            found[f"{run} eval"] = json.loads(evaluation)
            found[f"{run} sample"] = call("sample", run, "--seed=3", *DEVICE).decode()
            found[f"{run} beam"] = call("sample", run, "--beam=3", "--length_penalty=1", *DEVICE).decode()
            found[f"{run} reconstruct"] = call("reconstruct", run, *DEVICE, stdin=lines).decode()
            found[f"{run} encode"] = sha256(call("encode", run, "--format=jsonl", *DEVICE, stdin=lines))
            step = int(checkpoints(copy / run)[-1].name[5:])
            call("train", f"{run}/config.yaml", "--train.stop_after=0")
            found.update({f"{run} resumed {what}": value for what, value in trained(copy / run, step).items()})
    return found


def contained(expected, found, near=0.0):
    """Returns None if `found` holds all of `expected`, figures within a relative `near`; else the place of the
    difference."""
    if isinstance(expected, dict) and isinstance(found, dict):
        parts = [(key, value, found.get(key)) for key, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [(index, *pair) for index, pair in enumerate(zip(expected, found))]
    elif isinstance(expected, float) and isinstance(found, (int, float)):
        same = math.isclose(expected, found, rel_tol=near, abs_tol=near)
        return None if same else f": {expected!r}, and now {found!r}"
    else:
        hashes = near and isinstance(expected, str) and expected.startswith("sha256 ")
        return None if expected == found or hashes else f": {expected!r}, and now {found!r}"
    for key, one, other in parts:
        what = contained(one, other, near)
        if what is not None:
            return f"/{key}{what}"
    return None


def main():
    expected = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
    exact = expected["written_on"] == {"libc": " ".join(platform.libc_ver()), "fma": has_fma()}
    found, bad = measure(ELBO, FIXTURES), []
    if found.keys() != expected["figures"].keys():
        bad.append(f"expected.json has other figures: {sorted(found.keys() ^ expected['figures'].keys())}")
    for name, by in expected["figures"].items():
        for commit, value in by.items():
            alone = len(by) == 1 or commit != "0d095a6"
            if not exact and isinstance(value, str):
                continue
            what = contained(value, found[name], 0.0 if exact and alone else expected["near"])
            if what is not None:
                bad.append(f"{name}, as {commit} had it{what}")
    if bad:
        sys.exit("\n".join(bad))
    print(f"{len(found)} figures of older programs" + ("" if exact else "; this machine rounds otherwise: within 1e-4"))


if __name__ == "__main__":
    main()
