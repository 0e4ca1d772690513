"""Tests scripts/gpu-check with the emulated GPU: its parts run, its results hold the raw numbers, a sanitizer's report
and a failing step count as failures, and a part that the program lacks is named."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ["ELBO_SOURCE"])
BUILD = pathlib.Path(os.environ["ELBO"]).parent


def check(part, *options, code=0, **environment):
    """Returns gpu-check's standard output and its results."""
    with tempfile.TemporaryDirectory() as out:
        answer = subprocess.run([sys.executable, str(SOURCE / "scripts" / "gpu-check"), part, f"--out={out}", *options],
                                capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert answer.returncode == code, \
            f"gpu-check {part} ended with {answer.returncode}:\n{answer.stdout}{answer.stderr}"
        found = pathlib.Path(out) / f"gpu-{part}.json"
        if "--dry-run" in options:
            assert not list(pathlib.Path(out).iterdir()), "a dry run wrote results"
            return answer.stdout, None
        assert (pathlib.Path(out) / f"gpu-{part}.md").read_text().startswith(f"Made by scripts/gpu-check {part}")
        return answer.stdout, json.loads(found.read_text())


def outcomes(found):
    return {step["step"]: step["outcome"] for step in found["steps"]}


def main():
    if BUILD != SOURCE / "build" / "release" or not (BUILD / "elbo-sim").exists():
        print("only the release build is looked at")
        sys.exit(77)
    for part, words in (("tests", "cuda"), ("sanitizers", "--tool=racecheck"), ("parallel", "--parallel.always=1"),
                        ("sharing", "tests/job/test_devices.py"),
                        ("speed", "bench/peers/step.py")):
        if part == "sanitizers" and not (BUILD / "cuda").exists():
            continue # without nvcc there are no programs to name
        said, _ = check(part, "--dry-run", f"--build={BUILD}")
        assert words in said, said

    _, found = check("sanitizers", "--emulate", "--only=latent")
    assert list(outcomes(found).values()) == ["ok"] * 4, outcomes(found)
    assert all(found[key] for key in ("commit", "driver", "device", "cuda", "date", "host")), found
    _, found = check("sanitizers", "--emulate", "--only=latent", code=1, SANITIZER_PLANT="racecheck")
    assert outcomes(found)["racecheck, kernels_test_latent"] == "failed" and found["failed"] == 1, outcomes(found)

    _, found = check("parallel", "--emulate")
    steps = {step["step"]: step for step in found["steps"]}
    assert len(steps["elbo bench collectives"]["sizes"]) == 8, found
    for name in ("bf16, run_to_run", "f32, world_invariant"):
        step = steps[f"one rank through NCCL, {name}"]
        assert step["outcome"] == "ok" and "the same bits" in step["words"] and all(map(len, step["steps"].values())), \
            step

    _, found = check("sharing", "--emulate")
    assert set(outcomes(found).values()) == {"ok"} and len(outcomes(found)) == 5, outcomes(found)

    _, found = check("speed", "--emulate")
    steps = {step["step"]: step for step in found["steps"]}
    ours, theirs = steps["elbo, f32, run_to_run, 18 tokens"], steps["PyTorch, f32, 18 tokens"]
    assert len(ours["step_seconds"]) == 20 and min(ours["step_seconds"]) > 0
    assert [row["mode"] for row in theirs["rows"]] == ["eager"] and min(theirs["rows"][0]["seconds"]) > 0
    assert len(steps["elbo, bf16, WordNet's lengths"]["step_seconds"]) == 20 and steps[
        "PyTorch, bf16, WordNet's lengths"]["rows"]
    for precision in ("f32", "bf16"):
        step = steps[f"elbo bench kernels, {precision}"]
        assert step["outcome"] == "ok" and step["result"]["left_out"] == 0 and len(step["result"]["kernels"]) > 30, step
    kernels = {row["kernel"] for row in steps["PyTorch's kernels"]["rows"]}
    assert {"copy", "product", "norm backward", "adamw", "linear + loss"} <= kernels, kernels

    _, found = check("speed", "--emulate", "--minutes=0.01")
    assert set(outcomes(found).values()) == {"no time"}, outcomes(found)


main()
