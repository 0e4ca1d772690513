#!/usr/bin/python3
"""Runs elbo-infer on hostile files: the bytes of the head are changed and the checksums corrected. The program must end
with an exit code, never by a signal, within ten seconds and 2 GiB.

ELBO_TEST_FULL=1 tries 6,000 files of each model; otherwise 150."""
import os
import pathlib
import random
import resource
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))
import zoo  # noqa: E402
from runs import ELBO, Scratch, elbo  # noqa: E402
from seal import MASK, seal  # noqa: E402

INFER = pathlib.Path(ELBO).with_name("elbo-infer")
COUNT = 6000 if os.environ.get("ELBO_TEST_FULL") else 150
SANITIZED = bool(os.environ.get("ELBO_SANITIZED")) or "asan" in ELBO  # sanitizers reserve terabytes
COMMANDS = (["sample", "--count=2", "--max_length=3"], ["reconstruct", "--max_length=3"], ["score"])
KINDS = {"plain": {}, "lstm": zoo.LSTM, "vamp": zoo.KINDS["vamp"], "llama": zoo.KINDS["prefix-llama"],
         "bpe": {"tokenizer": "bpe"}, "labels": {"data.labels": "true"}}


def changed(rng, raw):
    """Makes a few changes in the head: bits, numbers of 4 and 8 bytes, digits and letters of the configuration."""
    raw, head = bytearray(raw), struct.unpack_from("<Q", raw, 24)[0]
    numbers = (0, 1, 2, 3, 31, 33, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1,
               MASK)
    config = struct.unpack_from("<QQ", raw, 48 + 8)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        way, at = rng.randrange(5), rng.randrange(12, head - 8)
        if way == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            struct.pack_into("<I", raw, at & ~3, rng.choice(numbers) & 0xFFFFFFFF)
        elif way == 2:
            struct.pack_into("<Q", raw, at & ~7, rng.choice(numbers))
        else:
            place = rng.randrange(config[0], config[0] + config[1])
            raw[place] = rng.choice(b"0123456789abdefglmnorstu.=,\n")
    return seal(bytes(raw))


def limited():
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def main():
    rng, codes = random.Random(5), {}
    with Scratch() as scratch:
        zoo.corpora(scratch)
        for name, kind in KINDS.items():
            run, _ = zoo.train(scratch, name, {**kind, "train.steps": 2})
            elbo("export", run, "--format=q4", f"--out={scratch / f'q4-{name}'}")
            good, bad = (scratch / f"q4-{name}" / "model.elbo").read_bytes(), scratch / "bad.elbo"
            assert seal(good) == good
            label = ["--label=red"] if name == "labels" else []
            for number in range(COUNT):
                raw = changed(rng, good)
                bad.write_bytes(raw)
                command = COMMANDS[number % len(COMMANDS)]
                answer = subprocess.run([INFER, bad, *command, *label, "--threads=1"], input=b"w1 w2\n", check=False,
                                        capture_output=True, preexec_fn=limited, timeout=60)
                if answer.returncode not in (0, 2, 3, 5):
                    kept = pathlib.Path("/tmp") / f"hostile-{name}-{number}.elbo"
                    kept.write_bytes(raw)
                    said = answer.stderr.decode(errors="replace")[-2000:]
                    sys.exit(f"{kept} {command}: exit {answer.returncode}: {said}")
                codes[answer.returncode] = codes.get(answer.returncode, 0) + 1
    assert codes.get(3, 0) > COUNT and codes.get(0, 0), codes
    print(f"{len(KINDS) * COUNT} files: exit codes {dict(sorted(codes.items()))}")


if __name__ == "__main__":
    main()
