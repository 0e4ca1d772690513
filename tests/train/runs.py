"""Small runs for the tests of the trainer: a scratch folder in memory, a corpus, a tiny model with every kind of noise,
and the comparison of two runs: the bytes of the weights and of the optimizer's state, and the rows of metrics.jsonl
without their object `wall`."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("ELBO_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
ELBO = os.environ.get("ELBO", str(SOURCE / "build" / "release" / "elbo"))

# Dropout, word dropout and posterior noise; three slots a step; a limit that cuts some sentences; intervals of
# evaluations and checkpoints that do not divide each other.
TINY = {
    "encoder.width": 8, "decoder.width": 8, "encoder.heads": 2, "decoder.heads": 2, "encoder.layers": 1,
    "decoder.layers": 2, "encoder.ff_width": 16, "decoder.ff_width": 16, "encoder.dropout": 0.1, "decoder.dropout": 0.1,
    "latent.width": 3, "train.slots": 3, "train.slot_tokens": 24, "data.max_length": 9, "train.steps": 60,
    "log.every": 1, "train.eval_every": 7, "checkpoint.every": 11, "optimizer.warmup_steps": 10, "threads": 1,
}


class Scratch:
    """A temporary folder, in memory if possible, because these tests write thousands of small files."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="elbo-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK)
                                                  else None))
        return self.path

    def __exit__(self, *unused):
        shutil.rmtree(self.path, ignore_errors=True)


def elbo(*words, code=0, stdin=None, **keywords):
    """Runs the program; its exit code must be `code` (None: any)."""
    answer = subprocess.run([ELBO, *map(str, words)], input=stdin, capture_output=True, text=True, check=False,
                            **keywords)
    if code is not None and answer.returncode != code:
        sys.exit(f"elbo {' '.join(map(str, words))}\nended with {answer.returncode}, not {code}:\n{answer.stderr}")
    return answer


MPIRUN = shutil.which("mpirun")
MPI = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def ranks_command(ranks, *words):
    """Returns the command of the program on `ranks` ranks, under mpirun if there are several."""
    words = [ELBO, *map(str, words)]
    return words if ranks == 1 else ["mpirun", "--oversubscribe", "-n", str(ranks), *words]


def on_ranks(ranks, *words):
    """Runs the program on `ranks` ranks; it must succeed."""
    words = ranks_command(ranks, *words)
    answer = subprocess.run(words, env=MPI, capture_output=True, text=True, check=False, timeout=300)
    if answer.returncode:
        sys.exit(f"{' '.join(words)}\nended with {answer.returncode}:\n{answer.stderr[-3000:]}")


def options(given):
    """Returns options without those of TINY that have no effect beside the others, because the program refuses them."""
    given = dict(given)
    if given.get("latent.kind") == "none":
        given = {key: value for key, value in given.items() if not key.startswith("encoder.") and key != "latent.width"}
    for stack in ("encoder", "decoder"):
        if given.get(f"{stack}.kind") in ("lstm", "gru"):
            given = {key: value for key, value in given.items()
                     if key not in (f"{stack}.heads", f"{stack}.ff_width") or value != TINY.get(key)}
    if given.get("optimizer.warmup_steps", 0) > given.get("train.steps", 1000):
        given["optimizer.warmup_steps"] = given["train.steps"]
    if "data.train" in given and "data.valid" not in given:
        given.pop("train.eval_every", None)
    return [f"--{key}={value}" for key, value in given.items()]


def grammar(out, sentences, seed, toy=False):
    """Writes text of the grammar, and its figures."""
    words = [SOURCE / "scripts" / "grammar-text", f"--sentences={sentences}", f"--seed={seed}", f"--out={out}",
             f"--entropy={out}.json"]
    subprocess.run(words + ["--toy"] * toy, check=True)
    return json.loads(pathlib.Path(f"{out}.json").read_text(encoding="ascii"))


def corpus(scratch, sentences=50):
    """Makes a corpus that sixty steps of TINY pass more than twice; labels follow from the number of words."""
    grammar(scratch / "text", sentences, 1)
    lines = (scratch / "text").read_text(encoding="utf-8").splitlines()
    (scratch / "labels").write_text("".join(f"{('none', 'one', 'two')[len(line.split()) % 3]}\n"
                                            for line in lines), encoding="utf-8")
    elbo("prepare", scratch / "text", f"--labels={scratch / 'labels'}", f"--out={scratch / 'corpus'}")
    return scratch / "corpus"


def train(run, data, code=0, given=None, **keywords):
    return elbo("train", f"--data.train={data}", f"--data.valid={data}", f"--run.dir={run}",
                *options({**TINY, **(given or {})}), code=code, **keywords)


def checkpoints(run):
    return sorted((pathlib.Path(run) / "checkpoints").glob("step-*"))


def tensors(path):
    """Returns name -> (header, bytes)."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    begin = 8 + size
    return {name: (about, raw[begin + about["data_offsets"][0]:begin + about["data_offsets"][1]])
            for name, about in header.items()}


def optimizer_state(folder):
    """Returns the state's tensors as bytes, and joins the pieces "NAME@FIRST" that ranks have written."""
    whole = {name: data for name, (_, data) in tensors(folder / "optimizer.safetensors").items()}
    pieces = {}
    for path in folder.glob("optimizer-*-of-*.safetensors"):
        for name, (_, data) in tensors(path).items():
            of, first = name.rsplit("@", 1)
            pieces.setdefault(of, []).append((int(first), data))
    for of, parts in pieces.items():
        joined = bytearray()
        for first, data in sorted(parts):
            assert first * 4 == len(joined), f"{of}: element {first} follows {len(joined) // 4}"
            joined += data
        assert of not in whole, of
        whole[of] = bytes(joined)
    return sorted(whole.items())


def bits(run, metrics=True, step=None):
    """Returns all data of a run that must not depend on interruptions or ranks."""
    last = pathlib.Path(run) / "checkpoints" / f"step-{step:08d}" if step else checkpoints(run)[-1]
    found = {"model.safetensors": (last / "model.safetensors").read_bytes(),
             "state/optimizer.safetensors": optimizer_state(last / "state")}
    counters = json.loads((last / "manifest.json").read_text(encoding="utf-8"))
    found["counters"] = counters.get("counters")
    if metrics:
        found["metrics"] = rows(run)
    return found


def rows(run):
    lines = (pathlib.Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "wall"} for line in lines]


def same(a, b, what):
    for key, value in ((key, a[key]) for key in a if key in b):
        if value == b[key]:
            continue
        if key == "metrics":
            for left, right in zip(value, b[key]):
                if left != right:
                    sys.exit(f"{what}: rows of metrics differ:\n{left}\n{right}")
            sys.exit(f"{what}: {len(value)} rows of metrics and {len(b[key])}")
        sys.exit(f"{what}: {key} differs" + (f": {value} {b[key]}" if key == "counters" else ""))


def differ(a, b, what):
    if a["model.safetensors"] == b["model.safetensors"]:
        sys.exit(f"{what}: the weights are the same")


def check_same_bits(run, what, given):
    """Checks that a training with these options, stopped after steps 3 and 8, and on 2 and 4 ranks, has the same bits.
    The first run is `run`; the other runs' names begin with its name."""
    elbo("train", *options({**given, "run.dir": run}))
    for stop in (3, 8, 0):
        elbo("train", *options({**given, "run.dir": f"{run}-parts", "train.stop_after": stop}))
    same(bits(run), bits(f"{run}-parts"), f"{what}, resumed")
    for ranks in (2, 4) if MPIRUN else ():
        on_ranks(ranks, "train", *options({**given, "run.dir": f"{run}-{ranks}", "parallel.timeout": 60}))
        same(bits(run), bits(f"{run}-{ranks}"), f"{what} on {ranks} ranks")
