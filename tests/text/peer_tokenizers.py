"""The two byte pair encoders, elbo's and the package `tokenizers` of PyPI, with one vocabulary. A vocabulary is a list
of merges in GPT-2's alphabet. Both files are written from it with the ids of elbo (3 marks, 256 bytes, then the merges'
results), so ids are compared directly."""
import json
import os
import pathlib
import resource
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
VENV = SOURCE / "build/peers-venv" # made by bench/peers/tokenizers --setup
ELBO = os.environ.get("ELBO", str(SOURCE / "build/release/elbo"))
MARKS = 3
MOST_RATIO = 12 # ten times the text: n log n takes 11.7 times as long, n^2 a hundred times


def need_tokenizers():
    """Returns whether `tokenizers` can be imported, also from scripts/setup's readers of exports. Else restarts under
    the interpreter that has it, or returns False if there is none."""
    sys.path.append(str(SOURCE / "build/packages/onnx"))
    try:
        import tokenizers # pylint: disable=import-outside-toplevel,unused-import
        return True
    except ImportError:
        python = VENV / "bin/python"
        if os.path.realpath(sys.prefix) == os.path.realpath(VENV) or not python.exists():
            return False
        os.execv(python, [str(python), *sys.argv])


def alphabet():
    """Returns GPT-2's character of each byte."""
    spare, characters = 0x100, []
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD):
            characters.append(chr(byte))
        else:
            characters.append(chr(spare))
            spare += 1
    return characters


def pieces_of(merges):
    pieces = {character: MARKS + byte for byte, character in enumerate(alphabet())}
    for left, right in merges:
        pieces.setdefault(left + right, MARKS + len(pieces))
    return pieces


def write_elbo(path, merges):
    document = {"format": "elbo-tokenizer", "version": 1, "kind": "bpe", "vocabulary": MARKS + len(pieces_of(merges)),
                "marks": {"start": 0, "end": 1, "unknown": 2}, "merges": [list(pair) for pair in merges]}
    path.write_text(json.dumps(document), encoding="utf-8")


def read_merges(path):
    """Reads the merges of either program's file; old versions of `tokenizers` wrote a merge as one string."""
    document = json.loads(path.read_text(encoding="utf-8"))
    merges = document["merges"] if "merges" in document else document["model"]["merges"]
    return [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]


def peer(merges):
    import tokenizers # pylint: disable=import-outside-toplevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=pieces_of(merges), merges=list(merges)))
    tokenizer.normalizer = tokenizers.normalizers.Replace("\ufeff", "") # not text (docs/formats.md)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return tokenizer


def train_peer(lines, size):
    """Returns the merges that `tokenizers` learns."""
    import tokenizers # pylint: disable=import-outside-toplevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator((line.decode("utf-8", "replace") for line in lines), trainer)
    return tokenizer


def train_elbo(folder, lines, size):
    (folder / "text").write_bytes(b"\n".join(lines) + b"\n")
    subprocess.run([ELBO, "prepare", str(folder / "text"), f"--out={folder / 'corpus'}", "--tokenizer.kind=bpe",
                    f"--tokenizer.size={size}"], check=True, capture_output=True)
    return folder / "corpus/tokenizer.json"


def elbo_ids(tokenizer, lines):
    """Returns a line of ids per line, as bytes."""
    answer = subprocess.run([ELBO, "tokenize", str(tokenizer)], input=b"\n".join(lines) + b"\n", capture_output=True,
                            check=True)
    return answer.stdout.split(b"\n")[:-1]


def peer_ids(tokenizer, lines, batch=20000):
    found = []
    for begin in range(0, len(lines), batch):
        texts = [line.decode("utf-8", "replace") for line in lines[begin:begin + batch]]
        found += [" ".join(map(str, encoding.ids)).encode() for encoding in tokenizer.encode_batch(texts)]
    return found


def compare(ours, theirs):
    """Returns (ids of the peer, number of lines that differ, the first of them)."""
    if len(ours) != len(theirs):
        return 0, max(len(ours), len(theirs)), min(len(ours), len(theirs))
    different = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    return sum(len(line.split()) for line in theirs), len(different), different[0] if different else None


def swapped(merges):
    """A planted fault that the comparison must find: the first two merges with the same left half are swapped."""
    first = {}
    for i, (left, _) in enumerate(merges):
        if left in first:
            merges = list(merges)
            merges[i], merges[first[left]] = merges[first[left]], merges[i]
            return merges
        first[left] = i
    raise ValueError("no two merges begin alike")


# ---- time ----

ADVERSARIES = {
    "one letter": b"a", "spaces": b" ", "combining marks": "\u0301".encode(), "not UTF-8": b"\xff",
    "truncated UTF-8": b"\xe2\x82", "letters without a rule": "\u4e00".encode(), "apostrophes": b"'",
    "odd spaces": "\u2003".encode(), "digits": b"1", "spaces and letters": b"  a", "two letters": b"ab",
    "emoji joined": "\U0001F468\u200d".encode(),
}


def adversary(name, size):
    unit = ADVERSARIES[name]
    return (unit * (size // len(unit) + 1))[:size // len(unit) * len(unit)] + b"\n"


def seconds(tokenizer, text):
    """Returns the processor time of `elbo tokenize`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([ELBO, "tokenize", str(tokenizer)], input=text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def growth(run, small, large, times=3):
    """Returns (seconds of small, of large, their ratio), each the minimum of several runs, less the start-up time."""
    start = min(run(0) for _ in range(times))
    few, many = (max(min(run(size) for _ in range(times)) - start, 1e-6) for size in (small, large))
    return few, many, many / few


def quadratic(size):
    """A planted fault that `growth` must find: searches for the lowest rank again after every merge."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    symbols = ["a"] * size
    while len(symbols) > 1:
        at = min(range(len(symbols) - 1), key=lambda i: len(symbols[i]) + len(symbols[i + 1]))
        symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
