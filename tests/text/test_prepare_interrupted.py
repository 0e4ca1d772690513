"""`elbo prepare` over an existing corpus, interrupted: by SIGKILL, SIGTERM, SIGHUP and SIGINT at any instant, at a
given call (tests/train/preload_calls.c), by calls that fail, by a full disk, and by limits on memory and on file size.

  afterwards   the folder holds the old corpus or the new one, whole: info verifies it, dump gives its sentences,
               tokenize its ids; the new corpus if prepare returned 0, the old one if it failed
  and then     the next prepare leaves nothing beside the corpus
  two at once  one is refused with exit code 6, or they follow each other; the corpus is whole
  seeded       a corpus with one exchanged part is recognized as neither

ELBO_TEST_FULL=1 takes 200 instants; otherwise 15."""
import errno
import hashlib
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FULL = bool(os.environ.get("ELBO_TEST_FULL"))
INSTANTS = 200 if FULL else 15
SOURCE = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
ELBO = os.environ.get("ELBO", str(SOURCE / "build" / "release" / "elbo"))
PRELOAD = pathlib.Path(os.environ.get("ELBO_TESTS", SOURCE / "build/release/tests")) / "train_preload_calls.so"
SANITIZED = "asan" in ELBO or "tsan" in ELBO
WAYS = (["--split=80/10/10", "--tokenizer.kind=bpe", "--tokenizer.size=400"], ["--tokenizer.kind=word"])


def text(path, sentences, seed):
    words = random.Random(seed)
    path.write_text("".join(" ".join(f"w{words.randrange(300)}" for _ in range(words.randrange(1, 12))) + "\n"
                            for _ in range(sentences)), encoding="ascii")
    return path


def elbo(*words, **keywords):
    return subprocess.run([ELBO, *map(str, words)], capture_output=True, check=False, timeout=60, **keywords)


def prepare(source, out, way):
    return [ELBO, "prepare", str(source), f"--out={out}", *way]


class Look:
    """The output of all commands on a corpus, as one hash; "" if any command refuses the corpus."""

    def __init__(self, out):
        info, dump = elbo("info", out, "--json"), elbo("dump", out)
        ids = elbo("tokenize", out, input=b"w1 w2 w299 x\n")
        self.said = (info.stderr + dump.stderr + ids.stderr).decode(errors="replace")
        good = not (info.returncode or dump.returncode or ids.returncode)
        self.hash = hashlib.sha256(info.stdout + dump.stdout + ids.stdout).hexdigest() if good else ""


class Scene:
    def __init__(self, folder):
        self.folder, self.out = folder, folder / "place" / "corpus"
        self.out.parent.mkdir()
        self.sources = [text(folder / "old.txt", 400, 1), text(folder / "new.txt", 6000, 2)]
        self.looks, self.seconds = [], []
        for source in self.sources:
            for way in WAYS:
                begin = time.monotonic()
                subprocess.run(prepare(source, self.out, way), check=True, stdout=subprocess.DEVNULL)
                self.seconds.append(time.monotonic() - begin)
                look = Look(self.out)
                assert look.hash, look.said
                self.looks.append(look.hash)
        assert len(set(self.looks)) == 4
        self.counts = [self.count(way) for way in range(len(WAYS))]

    def old(self, way):
        return self.looks[way]

    def new(self, way):
        return self.looks[2 + way]

    def reset(self, way):
        subprocess.run(prepare(self.sources[0], self.out, WAYS[way]), check=True, stdout=subprocess.DEVNULL)
        self.nothing_beside("a prepare")

    def nothing_beside(self, what):
        found = sorted(path.name for path in self.out.parent.iterdir())
        assert found == ["corpus"], f"after {what}: {found}"

    def environment(self, **watch):
        return {**os.environ, "LD_PRELOAD": str(PRELOAD), "WATCH_ROOT": str(self.out.parent),
                "ASAN_OPTIONS": "verify_asan_link_order=0", **{f"WATCH_{k.upper()}": str(v) for k, v in watch.items()}}

    def count(self, way):
        """Returns the number of calls of a prepare."""
        log = self.folder / "log"
        self.reset(way)
        subprocess.run(prepare(self.sources[1], self.out, WAYS[way]), env=self.environment(log=log), check=True,
                       stdout=subprocess.DEVNULL)
        return len(log.read_bytes().splitlines())

    def check(self, way, code, what):
        look = Look(self.out)
        assert look.hash, f"{what}: exit {code}: the corpus is not usable: {look.said}"
        assert look.hash in (self.old(way), self.new(way)), f"{what}: exit {code}: neither the old nor the new corpus"
        new = look.hash == self.new(way)
        assert code != 0 or new, f"{what}: prepare said that all is well, and the old corpus is there"
        return new


def by_signal(scene, way, draw):
    number = draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
    after = draw.random() * 1.2 * scene.seconds[2 + way]
    process = subprocess.Popen(prepare(scene.sources[1], scene.out, WAYS[way]), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.send_signal(number)
    code = process.wait(timeout=60)
    assert code in (0, -number), code
    return code, f"{number.name} after {after:.3f} s"


def by_call(scene, way, draw):
    effect = draw.choice(("kill", "tear", "error", "full"))
    at = draw.randrange(scene.counts[way])
    number = draw.choice((errno.ENOSPC, errno.EIO, errno.EDQUOT))
    times = 1 if effect != "full" else 10 ** 6
    answer = subprocess.run(prepare(scene.sources[1], scene.out, WAYS[way]), capture_output=True, check=False,
                            timeout=60, env=scene.environment(effect=effect, at=at, number=number, times=times))
    what = f"{effect} {errno.errorcode[number]} at call {at} of {scene.counts[way]}"
    allowed = {"kill": (-signal.SIGKILL,), "tear": (-signal.SIGKILL,)}.get(effect, (0, 4))
    assert answer.returncode in allowed, f"{what}: exit {answer.returncode}: {answer.stderr}"
    return answer.returncode, what


def by_limit(scene, way, draw):
    which, limit = draw.choice(((resource.RLIMIT_AS, draw.randrange(12 << 20, 60 << 20)),
                                (resource.RLIMIT_FSIZE, draw.randrange(1, 200 << 10))))
    if SANITIZED:
        which, limit = resource.RLIMIT_FSIZE, draw.randrange(1, 200 << 10)  # sanitizers reserve terabytes

    def limited():
        resource.setrlimit(which, (limit, limit))
    answer = subprocess.run(prepare(scene.sources[1], scene.out, WAYS[way]), capture_output=True, check=False,
                            timeout=60, preexec_fn=limited)
    what = f"limit {which} of {limit}"
    # 127: the loader had no memory for the libraries. SIGSEGV without output: the kernel had none for the program's
    # file.
    allowed = (0, 4, 5, 127, -signal.SIGXFSZ)
    if which == resource.RLIMIT_AS and limit < os.path.getsize(ELBO) + (4 << 20) and not answer.stderr:
        allowed += (-signal.SIGSEGV,)
    assert answer.returncode in allowed, f"{what}: exit {answer.returncode}: {answer.stderr}"
    return answer.returncode, what


def check_interrupted(scene):
    draw = random.Random(11)
    ways, news, litter = (by_signal, by_call, by_signal, by_limit), 0, 0
    for i in range(INSTANTS):
        way = i // len(ways) % len(WAYS)
        scene.reset(way)
        code, what = ways[i % len(ways)](scene, way, draw)
        news += scene.check(way, code, what)
        litter += len(list(scene.out.parent.iterdir())) > 1
    scene.reset(0)
    print(f"figure prepare_interrupted.instants {INSTANTS}\nfigure prepare_interrupted.bad 0\n"
          f"figure prepare_interrupted.new {news}\nfigure prepare_interrupted.litter_swept {litter}")
    assert 0 < news < INSTANTS and litter, "no prepare was broken off, or all were: nothing was tested"


def check_two_at_once(scene):
    for _ in range(10 if FULL else 2):
        scene.reset(0)
        both = [subprocess.Popen(prepare(scene.sources[1], scene.out, WAYS[way]), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE) for way in (0, 1)]
        codes = [process.wait(timeout=60) for process in both]
        said = [process.stderr.read().decode() for process in both]
        for process in both:
            process.stderr.close()
        assert sorted(codes) in ([0, 0], [0, 6]), (codes, said)
        assert Look(scene.out).hash in (scene.new(0), scene.new(1))
        scene.nothing_beside("two at once")
        if 6 in codes:
            assert "another process" in said[codes.index(6)], said


def check_planted(scene):
    """Checks that a mix of two splits is refused, or recognized."""
    scene.reset(0)
    other = scene.folder / "other"
    subprocess.run(prepare(scene.sources[1], other, WAYS[0]), check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(scene.out / "test")
    shutil.copytree(other / "test", scene.out / "test")
    look = Look(scene.out)
    assert not look.hash and "another split" in look.said, look.said


def main():
    folder = tempfile.mkdtemp(prefix="elbo-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        scene = Scene(pathlib.Path(folder))
        check_interrupted(scene)
        check_two_at_once(scene)
        check_planted(scene)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
