"""The i-th allocation fails (preload_memory.c), alone or with all later ones, in every command, without a crash or a
hang. Either the command ends with exit code 5 and a message that names the purpose of the memory, or it manages
without, and its product is right. A run that ended so goes on, by the same command, to the same weights. As controls, a
product that differs is found, and another exit code is not accepted. In the address sanitizer's build, nothing may
leak.

ELBO_TEST_FULL=1 takes every i. Otherwise each place in the program that allocates, identified by its two innermost
calls, fails once in the first command that reaches it, and some more allocations fail in each command."""
import collections
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

from runs import ELBO, TINY, Scratch, checkpoints, corpus, options, train

FULL = bool(os.environ.get("ELBO_TEST_FULL"))
PRELOAD = pathlib.Path(os.environ.get("ELBO_TESTS", "build/release/tests")) / "train_preload_memory.so"
CHECKED = pathlib.Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")
SANITIZED = bool(os.environ.get("ELBO_SANITIZED"))
SOME, FEW = 8, 100
GIVEN = {"train.steps": 4, "checkpoint.every": 2, "checkpoint.keep": 2, "train.eval_every": 3, "threads": 2,
         "device": "cpu"}  # a search for a driver leaves blocks of the driver
MEMORY = 5  # the exit code that --help documents
LEAK = 77
TRAIN = ["train", "--data.train={data}", "--data.valid={data}", "--run.dir={out}", *options({**TINY, **GIVEN})]
SENTENCES = "the cat sat\non the mat\n"


def weights(out):
    last = [path for path in checkpoints(out) if path.suffix != ".tmp"][-1]
    config = (last / "config.yaml").read_bytes().replace(os.fsencode(out), b"OUT")
    return [config] + [(last / name).read_bytes() for name in ("model.safetensors", "state/optimizer.safetensors")]


def corpus_bytes(out):
    return [(out / name).read_bytes() for name in ("corpus.bin", "tokenizer.json", "manifest.json")]


# command: (words, the files that it starts from, its products beside its output)
COMMANDS = {
    "prepare words": (["prepare", "{text}", "--out={out}"], None, corpus_bytes),
    "prepare bpe": (["prepare", "{text}", "--out={out}", "--tokenizer.kind=bpe", "--tokenizer.size=270"], None,
                    corpus_bytes),
    "train": (TRAIN, None, weights),
    "resume": (TRAIN, "half", weights),
    "eval": (["eval", "{run}", "--data.test={data}", "--json"], None, None),
    "sample": (["sample", "{run}", "--count=3", "--seed=1"], None, None),
    "reconstruct": (["reconstruct", "{run}"], None, None),
    "encode": (["encode", "{run}"], None, None),
    "interpolate": (["interpolate", "{run}", "--from=the cat", "--to=a mat", "--steps=3"], None, None),
    "info": (["info", "{run}", "--json"], None, None),
    "tokenize": (["tokenize", "{data}"], None, None),
    "plan": (["plan", "--data.train={data}", "--device=cpu", "--json"], None, None),
    "prepare parts": (["prepare", "{text}", "--out={out}", "--split=50/25/25", "--tokenizer.size=30"], None,
                      lambda out: corpus_bytes(out / "valid")),
    "rewind": ([*TRAIN, "--rewind=2"], "run", weights),
    "warm start": ([*TRAIN, "--init.from={run}"], None, weights),
    "the best": ([*TRAIN, "--checkpoint.best=neg_elbo", "--train.recompute=block", "--optimizer.kind=sgd"], None,
                 weights),
    "eval all": (["eval", "{run}", "--data.test={data}", "--per-sentence", "--eval.baseline={data}",
                  "--eval.iwae_samples=2", "--data.too_long=skip"], None, None),
    "beam": (["sample", "{run}", "--count=3", "--beam=3"], None, None),
    "dump": (["dump", "{data}"], None, None),
}


class Bench:
    """One command, run in its own folder."""

    def __init__(self, scratch, name):
        self.scratch, self.name = scratch, name
        self.words, self.begins_with, self.makes = COMMANDS[name]

    def run(self, out, preload=PRELOAD, **memory):
        if out.exists():
            shutil.rmtree(out)
        if self.begins_with:
            shutil.copytree(self.scratch / self.begins_with, out)
        return self.again(out, preload, **memory)

    def again(self, out, preload=PRELOAD, **memory):
        places = {"text": self.scratch / "text", "data": self.scratch / "corpus", "run": self.scratch / "run",
                  "out": out}
        environment = {**os.environ, **{key if key.isupper() else f"MEMORY_{key.upper()}": str(value)
                                        for key, value in memory.items()},
                       "ASAN_OPTIONS": f"verify_asan_link_order=0:allocator_may_return_null=1:exitcode={LEAK}"
                                       # tracing calls loads a library that stays
                                       + ":detect_leaks=0" * ("log" in memory)}
        if memory:
            environment["LD_PRELOAD"] = str(preload)
        return subprocess.run([ELBO, *(word.format(**places) for word in self.words)], env=environment, input=SENTENCES,
                              capture_output=True, text=True, errors="backslashreplace", check=False,
                              timeout=120)

    def product(self, answer, out):
        return answer.stdout.replace(str(out), "OUT"), self.makes(out) if self.makes else None



def fault(bench, wanted, out, at, times):
    """Returns None, or the error found when `times` allocations from `at` on fail."""
    try:
        answer = bench.run(out, at=at, times=times)
    except subprocess.TimeoutExpired:
        return "it hangs"
    said = answer.stderr.strip().splitlines()
    if answer.returncode == 0:
        return None if bench.product(answer, out) == wanted else "it succeeds with another product"
    if "CHECK failed: sanitizer_" in answer.stderr:
        return None  # the sanitizer's own allocation at the start of a thread
    if answer.returncode != MEMORY:
        return f"exit {answer.returncode}: {answer.stderr[-1500:]}"
    if not said or "elbo: " not in said[-1] or not ("memory" in said[-1] or "thread" in said[-1]):
        return f"the message does not say what was wanted: {said[-1:]}"
    if bench.name in ("train", "resume") and (FULL or at % 3 == 0) and times == 1:
        following = bench.again(out)
        if following.returncode or bench.product(following, out)[1] != wanted[1]:
            return f"the same command does not go on to the same weights: {following.stderr[-300:]}"
    return None


def chosen(log, known):
    """Returns the allocations of a command that are to fail: some, and the first at each place that no earlier command
    has reached."""
    count, *places = log.read_text(encoding="ascii").split()
    count, first = int(count), {}
    for at, place in enumerate(places):
        first.setdefault(place, at)
    new = first if len(first) < FEW else {place: at for place, at in first.items() if place not in known}
    single = range(count) if FULL else sorted(set(new.values()) | {i * count // SOME for i in range(SOME)})
    known.update(first)
    many = range(0, count, 5) if FULL else [i * count // SOME for i in range(SOME)]
    return count, [(at, 1) for at in single] + [(at, 10 ** 9) for at in many]


def check(scratch, name, pool, known):
    bench, out = Bench(scratch, name), scratch / f"out-{name.replace(' ', '-')}"
    answer = bench.run(out, log=scratch / "log")
    assert answer.returncode == 0, f"{name}: {answer.stderr}"
    wanted = bench.product(answer, out)
    count, points = chosen(scratch / "log", known)
    assert wanted == bench.product(bench.run(out), out), f"{name}: the product is not reproducible"
    check_left(bench, wanted, out)

    def one(number_and_point):
        number, (at, times) = number_and_point
        folder = scratch / f"{out.name}-{number}"
        try:
            return fault(bench, wanted, folder, at, times)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    faults = [(point, found) for point, found in zip(points, pool.map(one, enumerate(points))) if found]
    kinds = collections.Counter(found[:60] for _, found in faults)
    for kind, times in kinds.most_common(8):
        example = next((point, found) for point, found in faults if found.startswith(kind))
        print(f"{name}: {times} of {len(points)}: at {example[0][0]} x {example[0][1]} of {count}: {example[1]}")
    return len(points), len(faults)


def check_left(bench, wanted, out):
    """Checks that a successful command releases every block and file, except the buffer of standard output, that its
    product does not depend on uninitialized memory, and that it does not write beyond a block (the C library's checks,
    if they can be loaded)."""
    left = bench.scratch / "left"
    answer = bench.run(out, left=left)
    assert answer.returncode == 0, answer.stderr
    if not SANITIZED:
        blocks, files = map(int, left.read_text(encoding="ascii").split())
        assert (blocks, files) == (bool(answer.stdout), 0), \
            f"{bench.name}: {blocks} blocks and {files} files are left open"
    if CHECKED.exists() and not SANITIZED:
        answer = bench.run(out, preload=CHECKED, GLIBC_TUNABLES="glibc.malloc.check=3:glibc.malloc.perturb=165")
        assert answer.returncode == 0, f"{bench.name}, checked: {answer.returncode} {answer.stderr}"
        assert bench.product(answer, out) == wanted, f"{bench.name}: the product depends on memory that was not written"


def check_planted(scratch):
    """Checks that a wrong product and a wrong exit code are found."""
    bench, out = Bench(scratch, "sample"), scratch / "planted"
    wanted = bench.product(bench.run(out, log=scratch / "log"), out)
    assert fault(bench, ("other words", None), out, 10 ** 8, 1)
    found = fault(bench, wanted, out, 10 ** 8, 1)
    assert not found, found
    if b"__asan_init" in pathlib.Path(ELBO).read_bytes():
        assert bench.run(out, leak=1).returncode == LEAK
    bench.words = ["sample", "{run}", "--count=none"]
    assert fault(bench, wanted, out, 10 ** 8, 1)


def main():
    """Arguments select one command, by name, and the points i to check."""
    names = sys.argv[1:2] or list(COMMANDS)
    with Scratch() as scratch, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        data = corpus(scratch, 20)
        train(scratch / "run", data, given=GIVEN)
        train(scratch / "half", data, given={**GIVEN, "train.stop_after": 2})
        check_planted(scratch)
        known = set()
        results = [check(scratch, name, pool, known) for name in names]
    points, bad = map(sum, zip(*results))
    print(f"figure memory.points {points}\nfigure memory.bad {bad}")
    assert not bad


if __name__ == "__main__":
    main()
