"""The packages that read exports: where scripts/setup has put them, and which of them are installed."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
PACKAGES = pathlib.Path(os.environ.get("ELBO_PACKAGES", ROOT / "build/packages"))
TORCH = ROOT / "bench/peers/venv/bin/python"
SETS = {"transformers-4": TORCH, "transformers-5": TORCH, "onnx": "/usr/bin/python3", "llama": "/usr/bin/python3"}


def python(name):
    """Returns the interpreter and the environment for a set of packages, or None without the set."""
    folder, interpreter = PACKAGES / name, SETS[name]
    if not folder.is_dir() or not os.access(interpreter, os.X_OK):
        return None
    path = f"{folder}:{PACKAGES / 'onnx'}" if name == "llama" else str(folder)
    return str(interpreter), {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1",
                              "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
                              "HF_MODULES_CACHE": os.environ.get("ELBO_HF_CACHE", "/tmp/elbo-hf-modules"),
                              "TOKENIZERS_PARALLELISM": "false"}


def present(*names):
    """Returns the installed sets; skips the test when none is installed."""
    found = [name for name in names if python(name)]
    if not found:
        print(f"none of {', '.join(names)} is in {PACKAGES} (scripts/setup --packages), so the comparison is left out")
        sys.exit(77)
    return found


def run(name, *words, **keywords):
    interpreter, environment = python(name)
    return subprocess.run([interpreter, *map(str, words)], env=environment, capture_output=True, text=True, check=False,
                          **keywords)
