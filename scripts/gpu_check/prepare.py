"""Builds the programs and data that the other parts carry."""
import json
import re
import shutil
import subprocess
import sys
import tempfile

from gpu_check.steps import ROOT, commit, said_by


def prepare_wordnet(text):
    """Prepares the corpus with the split of bench/defaults."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        shutil.rmtree(ROOT / "build/portable/cuda/wordnet", ignore_errors=True)
        subprocess.run([ROOT / "build/portable/elbo", "prepare", file.name,
                        f"--out={ROOT / 'build/portable/cuda/wordnet'}", "--split=95/2.5/2.5"],
                       check=True, capture_output=True)


def prepare():
    """Builds the programs and data that the other parts carry."""
    for words in (["cmake", "--preset", "portable", "-DBUILD_TESTING=ON"],
                  ["cmake", "--build", "--preset", "portable", "--", "-j2"],
                  [sys.executable, "scripts/check-portable"]):
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if answer.returncode:
            sys.exit(f"{' '.join(words)} failed:\n{answer.stdout[-3000:]}{answer.stderr[-3000:]}")
    for program in (ROOT / "build/portable/tests").glob("ops_test_*"): # strip: the archive would be too large
        subprocess.run(["strip", "-o", str(ROOT / "build/portable/cuda" / program.name), str(program)], check=True)
    nvcc = re.findall(r"^ELBO_NVCC:\w+=(.*)$", (ROOT / "build/portable/CMakeCache.txt").read_text(), re.M)
    compiler = [line for line in said_by(nvcc[0] if nvcc else "nvcc", "--version").splitlines() if "release" in line]
    # kernel-sweep reports these lines on the other machine.
    (ROOT / "build/portable/cuda/built.txt").write_text("\n".join([commit(), *compiler]) + "\n")
    text = subprocess.run([ROOT / "scripts/wordnet"], capture_output=True, text=True, check=True).stdout
    prepare_wordnet(text)
    lengths = [min(100, len(line.split())) for line in text.splitlines() if line.split()]
    (ROOT / "build/portable/cuda/lengths.json").write_text(
        json.dumps([lengths.count(n) for n in range(max(lengths) + 1)]) + "\n")
    carried = ROOT / "build/portable.tar.xz" # the programs are much alike and compress well together
    subprocess.run(["tar", "-C", ROOT, "-cf", carried, "-I", "xz -T2 -3 --lzma2=dict=64MiB", "build/portable/elbo",
                    "build/portable/cuda"], check=True)
    print(f"carry with the sources, and unpack there: {carried.relative_to(ROOT)} "
          f"({carried.stat().st_size / 2**20:.1f} MiB)")
