"""The steps of one part of scripts/gpu-check, and helpers for all parts."""
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The timed step: 8,448 and 16,896 decoder tokens in sentences of 32 words, which have 33 decoder tokens each.
SIZES = {"width": 768, "layers": 12, "heads": 12, "latent": 32, "vocabulary": 50257, "words": 32,
         "sentences": (256, 512), "text": 4000, "alone": 60}
TINY_SIZES = {"width": 16, "layers": 2, "heads": 2, "latent": 4, "vocabulary": 60, "words": 5, "sentences": (3,),
              "text": 100, "alone": 14}


def said_by(*words):
    try:
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


class Check:
    """The steps of one part. The results are written after each step."""

    def __init__(self, given):
        self.given, self.steps, self.tables = given, [], []
        self.writing = threading.Lock()
        self.end = time.monotonic() + 60 * given.minutes
        out = given.out or os.environ.get("OUT")
        self.out = pathlib.Path(out) if out else ROOT / "bench" / "results" / "gpu"
        if given.emulate and not out:
            self.out = ROOT / "build" / "gpu-check"
        self.build = ROOT / ("build/release" if given.emulate else given.build)
        self.sizes = TINY_SIZES if given.emulate else SIZES
        self.elbo = self.build / "elbo"
        self.device_elbo = self.build / ("elbo-sim" if given.emulate else "elbo")
        gpu = said_by("nvidia-smi", "--query-gpu=name,driver_version,memory.total",
                      "--format=csv,noheader").splitlines()
        named = gpu[0].split(", ") if gpu else ["none", "none", "0"]
        carried = self.build / "cuda" / "built.txt"
        self.head = {
            "part": given.part, "device": "emulated" if given.emulate else named[0], "driver": named[1],
            "memory": named[2], "cuda": next(iter(re.findall(r"CUDA Version: ([\d.]+)", said_by("nvidia-smi"))),
                                             "none"),
            "commit": carried.read_text().splitlines()[0] if carried.exists() and not given.emulate else commit(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "host": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"}
        if not given.dry_run:
            self.out.mkdir(parents=True, exist_ok=True)

    def left(self):
        return self.end - time.monotonic()

    def note(self, name, outcome, words="", seconds=0.0, **figures):
        with self.writing:
            self.steps.append({"step": name, "outcome": outcome, "seconds": round(seconds, 1), "words": words,
                               **figures})
            print(f"{outcome:8} {name} ({seconds:.0f} s) {words.splitlines()[0] if words else ''}", flush=True)
            self.write()

    def run(self, name, words, limit=600.0, quiet=False, given=None, **environment):
        """Runs one command. Returns its standard output, or None when the command failed, had no time, or was only
        printed."""
        words = [str(word) for word in words]
        if self.given.dry_run:
            print(" ".join([*(f"{k}={v}" for k, v in environment.items()), *words]))
            return None
        limit = min(limit, self.left())
        if limit < 5:
            self.note(name, "no time")
            return None
        began = time.monotonic()
        with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE if given else subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                              env={**os.environ, **{k: str(v) for k, v in environment.items()}}) as process:
            try:
                out, err = process.communicate(given, timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                self.note(name, "no time", f"stopped after {limit:.0f} s", time.monotonic() - began)
                return None
        seconds = time.monotonic() - began
        if process.returncode == 77: # with a named device, a test that finds none has failed
            self.note(name, "skipped" if self.given.emulate else "failed", out.strip()[-300:], seconds)
            return None
        if process.returncode:
            self.note(name, "failed", f"exit {process.returncode}: {err.strip()[-1000:]}\n{out.strip()[-1500:]}",
                      seconds)
            return None
        if not quiet:
            self.note(name, "ok", out.strip().splitlines()[-1][:200] if out.strip() else "", seconds)
        return out

    def run_all(self, calls):
        """Runs functions without arguments, --jobs at once."""
        with concurrent.futures.ThreadPoolExecutor(1 if self.given.dry_run else self.given.jobs) as pool:
            for future in [pool.submit(call) for call in calls]:
                future.result()

    def write(self):
        failed = [s for s in self.steps if s["outcome"] == "failed"]
        stem = self.out / f"gpu-{self.given.part}"
        stem.with_suffix(".json").write_text(json.dumps({**self.head, "failed": len(failed), "steps": self.steps},
                                                        indent=1) + "\n")
        lines = [f"Made by scripts/gpu-check {self.given.part} at {self.head['commit']}, {self.head['date']}: "
                 f"{self.head['device']}, driver {self.head['driver']}, CUDA {self.head['cuda']}, {self.head['host']}.",
                 "", "| step | outcome | seconds | |", "|---|---|---|---|"]
        for s in self.steps:
            words = s["words"].replace("|", "/").replace("\n", " ")[:300]
            lines.append(f"| {s['step']} | {s['outcome']} | {s['seconds']} | {words} |")
        for table in self.tables:
            lines += ["", *table]
        stem.with_suffix(".md").write_text("\n".join(lines) + "\n")

    def needs(self, *paths):
        missing = [str(p) for p in paths if not p.exists()]
        if missing and not self.given.dry_run:
            sys.exit(f"scripts/gpu-check: {', '.join(missing)}: not there; scripts/gpu-check prepare builds them")


def commit():
    return (said_by("git", "rev-parse", "--short", "HEAD")
            or "unknown") + ("+" if said_by("git", "status", "--porcelain") else "")


def offers(program, command, option):
    return re.search(rf"^\s+--{option}\b.*", said_by(str(program), command, "--help=all"), re.M)


def program_environment(check):
    """The environment in which the tests find the programs."""
    return {"ELBO": check.elbo, "ELBO_CUDA": check.device_elbo, "ELBO_SOURCE": ROOT, "PYTHONDONTWRITEBYTECODE": "1"}
