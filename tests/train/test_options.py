"""Every option of the table, with another value than the run began with: the program follows the column "in a
resumed run" of docs/reference.md.

  must be the same       exit code 2, the option and the remedy are named, and nothing of the run is touched
  may change             reported in one line, written to config.yaml, and not reported again by the same command
  without effect         nothing is reported, and the run ends with the bits of the run that never stopped

Options without effect beside others are refused on the command line, and reported if a file has them."""
import pathlib
import re
import shutil
import sys

from runs import SOURCE, TINY, Scratch, bits, checkpoints, corpus, elbo, options, same, tensors, train

SHORT = {**TINY, "train.steps": 6, "checkpoint.every": 0, "train.eval_every": 2, "optimizer.warmup_steps": 2,
         "encoder.dropout": 0, "log.every": 1}
# The other value, if the type does not give one: for text, and where another rule holds.
OTHER = {
    "seed": 2, "device": "cpu:generic", "data.max_length": 8, "encoder.kv_heads": 1, "decoder.kv_heads": 1,
    "encoder.heads": 4, "decoder.heads": 4, "encoder.width": 16, "decoder.width": 16, "train.slot_sentences": 3,
    "train.slot_tokens": 30, "parallel.lanes": 1, "parallel.ranks": 1,
    "train.stop_after": 5, "optimizer.moments": "bf16", "train.skip": 5, "parallel.bucket": 1, "parallel.timeout": 30,
    "parallel.port": 0, "parallel.address": "localhost", "train.steps": 7, "threads": 2, "parallel.zero": 1,
    "objective.free_bits_groups": 1, "latent.injection": "embedding", "objective.target_kl": 9, "latent.kind": "delta",
}
CONTROLLED, RATED = {"objective.target_kl": 9}, {"objective.min_rate": 2, "objective.free_bits": 0}
EXACT = {"latent.kind": "slashed", "objective.rate": 8, "objective.free_bits": 0}
# Options of the run besides SHORT, so that the tested option has an effect.
LSTM = {"encoder.kind": "lstm", "decoder.kind": "lstm", "encoder.share_embedding": "false",
        "decoder.tie_output": "false"}
BESIDE = {
    **{f"{stack}.{option}": LSTM for stack in ("encoder", "decoder") for option in ("embedding_width", "residual")},
    "objective.autoencoder_steps": {"encoder.share_embedding": "false"},
    "objective.aggressive_most": {"objective.aggressive_steps": 4},
    "objective.aggressive_window": {"objective.aggressive_steps": 4},
    "objective.aggressive_information_window": {"objective.aggressive_until": "information"},
    "encoder.bidirectional": LSTM, "latent.init_tanh": LSTM,
    "objective.beta_cycles": {"objective.beta_schedule": "cyclical"},
    "objective.free_bits_groups": {"objective.free_bits_kind": "group", "objective.free_bits_groups": 3},
    "objective.beta_slope": {"objective.beta_schedule": "logistic"},
    "objective.beta_center": {"objective.beta_schedule": "logistic", "objective.beta_slope": 0.1},
    "objective.kp": CONTROLLED, "objective.ki": CONTROLLED, "objective.beta_min": CONTROLLED,
    "objective.beta_max": CONTROLLED, "objective.min_rate": {"objective.free_bits": 0},
    "objective.min_rate_step": RATED, "objective.denoise_blank": {"objective.word_dropout": 0.3},
    "latent.delta": {"latent.kind": "delta"}, "latent.gamma": {"latent.normalize": "batch"},
    "latent.alpha": {"latent.normalize": "du"}, "latent.variance_dropout": {"latent.normalize": "du"},
    "latent.statistics_share": {"latent.normalize": "batch"},
    "objective.rate": EXACT, "objective.rate_scope": EXACT,
    "optimizer.momentum": {"optimizer.kind": "sgd"},
    "latent.prior": {"objective.free_bits_kind": "total"},
    "latent.components": {"latent.prior": "mixture", "objective.free_bits_kind": "total"},
    "latent.pseudo_inputs": {"latent.prior": "vamp", "objective.free_bits_kind": "total"},
    "latent.pseudo_length": {"latent.prior": "vamp", "objective.free_bits_kind": "total"},
    "latent.prefix": {"latent.injection": "prefix", "train.slot_tokens": 40},
    "parallel.lanes": {"determinism": "world_invariant"},
    "train.patience": {"checkpoint.best": "neg_elbo", "train.patience": 9},
    "encoder.heads": {"encoder.share_embedding": "false"}, "encoder.width": {"encoder.share_embedding": "false"},
    "decoder.width": {"encoder.share_embedding": "false"},
}
# Options with only one value, on this machine or by construction, and the reason.
ALONE = {
    "encoder.kind": "another kind reads other options", "decoder.kind": "another kind reads other options",
    "precision": "a CPU computes in f32 only",
    "tf32": "a CPU has no TF32", "run.dir": "names the run", "resume": "has tests of its own below",
    "rewind": "has tests of its own below", "parallel.rank": "needs other ranks",
    "parallel.secret_file": "needs other ranks", "parallel.always": "needs MPI",
    "data.train": "has tests of its own below", "data.valid": "has tests of its own below",
    "init.from": "has tests of its own below", "init.parts": "has tests of its own below",
}


def table():
    """Returns key -> (class, default, accepted values) of every option that a run keeps."""
    found = {}
    for line in (SOURCE / "docs" / "reference.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and cells[0].startswith("`") and cells[5]:
            found[cells[0].strip("`")] = (cells[5], cells[1].strip("`"), cells[2])
    return found


def other(key, now, takes):
    if key in OTHER:
        return OTHER[key]
    choices = re.match(r"one of (.*)$", re.sub(r" \(.*\)$", "", takes))
    if choices:
        return next(choice.strip() for choice in choices.group(1).split("|") if choice.strip() != now)
    if takes == "true or false":
        return "false" if now == "true" else "true"
    bounds = re.match(r"a (?:whole )?number from (\S+) to (\S+)", takes)
    low, high = (float(bound) for bound in bounds.groups())
    if takes.startswith("a whole"):
        return int(float(now)) + 1 if float(now) < high else int(float(now)) - 1
    return float(now) / 2 if float(now) / 2 > low else min(float(now) + 0.25, high)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("*"))
            if path.is_file() and path.name != "lock"}


class Begun:
    """Runs of 6 steps, whole and stopped after 3, made once for each set of options."""

    def __init__(self, scratch, data):
        self.scratch, self.data, self.made = scratch, data, {}

    def __call__(self, beside):
        key = tuple(sorted(beside.items()))
        if key not in self.made:
            folder = self.scratch / f"begun-{len(self.made)}"
            train(folder / "whole", self.data, given={**SHORT, **beside})
            train(folder / "stopped", self.data, given={**SHORT, **beside, "train.stop_after": 3})
            self.made[key] = folder / "stopped", bits(folder / "whole", metrics=False)
        return self.made[key]


def check_table(scratch, data):
    begun, counts = Begun(scratch, data), {}
    for key, (kind, default, takes) in table().items():
        if key in ALONE:
            counts["alone"] = counts.get("alone", 0) + 1
            continue
        beside = {**SHORT, **BESIDE.get(key, {})}
        stopped, whole = begun(BESIDE.get(key, {}))
        value = other(key, str(beside.get(key, default)), takes)
        run = scratch / "run"
        shutil.copytree(stopped, run)
        before = tree(run)
        given = {**beside, key: value}
        if kind == "must be the same":
            said = train(run, data, given=given, code=2).stderr
            assert f"{key} is " in said and "another --run.dir" in said, f"{key}: {said}"
            assert tree(run) == before, f"{key}: the run was touched"
        elif kind == "may change, and is reported":
            said = train(run, data, given=given).stderr
            line = [row for row in said.splitlines() if row.startswith("changed since the checkpoint: ")]
            assert len(line) == 1 and re.search(rf"(: |, ){re.escape(key)} \S+ -> \S+$", line[0]), \
                f"{key}={value}: {said}"
            name = key.rsplit(".", 1)[-1]
            held = re.findall(rf"^ *{name}: \"?([^\"\n]*)", (run / "config.yaml").read_text(), re.M)
            assert any(float(one) == value for one in held) if isinstance(value, float) else str(value) in held, \
                f"{key}={value}: {held}"
            assert "changed since" not in train(run, data, given=given).stderr, f"{key}: said twice"
        else:
            assert kind == "without effect", f"{key}: {kind}"
            said = train(run, data, given=given).stderr
            assert "changed since" not in said, f"{key}: {said}"
            train(run, data, given=beside)
            same(whole, bits(run, metrics=False), f"{key}={value}, which is declared without effect")
        shutil.rmtree(run)
        counts[kind] = counts.get(kind, 0) + 1
    print("options of a run:", ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    assert counts["alone"] == len(ALONE) and counts["must be the same"] >= 25 and \
        counts["may change, and is reported"] >= 35


def check_data(scratch, data):
    """Another corpus of the same tokenizer goes on, and is reported. A default never conflicts with a checkpoint of
    other defaults."""
    run = scratch / "data"
    train(run, data, given={**SHORT, "train.stop_after": 3})
    elbo("prepare", scratch / "text", f"--tokenizer.from={data}", f"--out={scratch / 'twin'}")
    said = elbo("train", f"--data.train={scratch / 'twin'}", f"--data.valid={data}", f"--run.dir={run}",
                *options(SHORT)).stderr
    assert f'data.train "{data}" -> "{scratch / "twin"}"' in said and "not the same bits" not in said, said


def check_paths(scratch, data):
    """A path begins a run once: the same command then goes on from the run's own newest checkpoint, however it is
    started."""
    train(scratch / "a", data, given={**SHORT, "train.stop_after": 2})
    words = {**SHORT, "resume": checkpoints(scratch / "a")[-1]}
    train(scratch / "b", data, given={**words, "train.stop_after": 4})
    said = train(scratch / "b", data, given=words).stderr
    assert "resuming from" in said and "b/checkpoints/step-00000004" in said and "--rewind=STEP" in said, said
    assert checkpoints(scratch / "b")[-1].name == "step-00000006"
    steps = [line for line in (scratch / "b" / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert [f'"step":{step},' in line for step, line in zip(range(3, 7), steps)] == [True] * 4, steps
    train(scratch / "c", data, given={**SHORT, "resume": scratch / "nowhere"}, code=4)
    train(scratch / "c", data, given={**SHORT, "resume": checkpoints(scratch / "a")[-1], "init.from": scratch / "a"},
          code=2)


def check_rewind(scratch, data):
    """A rewind is explicit, loses nothing, and is done once."""
    run, often = scratch / "back", {**SHORT, "checkpoint.every": 1, "checkpoint.keep": 9}
    train(run, data, given=often)
    whole = bits(run)
    more = [444444] + [10 ** 7 + step for step in range(22)]  # as many as fit are listed, in at most 256 bytes
    for step in more:
        (run / "checkpoints" / f"step-{step:08d}").mkdir()
    told = train(run, data, given={**often, "rewind": 9}, code=2).stderr.split("it has ")[1].strip()
    assert told == ", ".join(map(str, [1, 2, 3, 4, 5, 6, *more[:21]])) and len(told) == 224, told
    for step in more:
        (run / "checkpoints" / f"step-{step:08d}").rmdir()
    assert "has 1, 2, 3, 4, 5, 6" in train(run, data, given={**often, "rewind": 9}, code=2).stderr
    said = train(run, data, given={**often, "rewind": 2, "seed": 5, "train.stop_after": 4}).stderr
    assert "back to step 2: 4 later checkpoints are put aside" in said and "seed 1 -> 5" in said, said
    aside = sorted(path.name for path in (run / "checkpoints").glob("abandoned-*"))
    assert aside == [f"abandoned-step-{step:08d}" for step in (3, 4, 5, 6)], aside
    assert (run / "checkpoints" / "abandoned-step-00000006" / "model.safetensors").read_bytes() \
        == whole["model.safetensors"]
    assert '"step":6' in (run / "metrics.abandoned-00000006.jsonl").read_text()
    assert '"step":6' not in (run / "metrics.jsonl").read_text()
    said = train(run, data, given={**often, "rewind": 2, "seed": 5}).stderr
    assert "went back to step 2 before" in said and "step-00000004" in said, said
    assert checkpoints(run)[-1].name == "step-00000006" and bits(run)["model.safetensors"] != whole["model.safetensors"]
    # A damaged run does not fall back to the abandoned branch.
    (checkpoints(run)[-1] / "model.safetensors").write_bytes(b"")
    said = train(run, data, given={**often, "seed": 5}).stderr
    assert "checkpoints/step-00000005" in said.split("resuming from")[1] and "abandoned" not in said, said
    assert bits(run)["counters"]["draws"] == 6


def check_warm_start(scratch, data):
    """init.from takes weights by name and shape, and nothing else; a requested part must fit whole."""
    old, new = scratch / "old", scratch / "new"
    train(old, data, given=SHORT)
    said = train(new, data, given={**SHORT, "init.from": old, "train.steps": 1, "optimizer.learning_rate": 0,
                                   "optimizer.weight_decay": 0}).stderr
    assert "tensors begin with the weights of" in said and "begin anew" not in said, said
    assert bits(new)["model.safetensors"] == bits(old)["model.safetensors"] and bits(new)["counters"]["draws"] == 1
    still = {"train.steps": 1, "optimizer.learning_rate": 0, "optimizer.weight_decay": 0}
    weights = {name: content for name, (_, content) in tensors(checkpoints(old)[-1] / "model.safetensors").items()}
    train(scratch / "fresh", data, given={**SHORT, **still})
    fresh = {name: content for name, (_, content) in tensors(checkpoints(scratch / "fresh")[
        -1] / "model.safetensors").items()}
    train(scratch / "parts", data, given={**SHORT, **still, "init.from": checkpoints(old)[-1],
                                          "init.parts": "encoder,latent"})
    for name, (_, content) in tensors(checkpoints(scratch / "parts")[-1] / "model.safetensors").items():
        assert content == (fresh if name.startswith("decoder.") else weights)[name], name
    wide = {**SHORT, **still, "init.from": old, "decoder.ff_width": 24}
    said = train(scratch / "wide", data, given=wide).stderr
    assert "begin anew" in said and "decoder.0.feed_forward.input.weight" in said, said
    said = train(scratch / "refused", data, given={**wide, "init.parts": "decoder"}, code=3).stderr
    assert "init.parts asks for the whole decoder" in said and "(24, 8) is wanted" in said, said
    said = train(scratch / "refused", data, given={**SHORT, "init.from": old, "init.parts": "encoder,head"},
                 code=2).stderr
    assert "'head' is no part" in said, said
    elbo("prepare", scratch / "text", "--tokenizer.kind=byte", f"--out={scratch / 'bytes'}")
    said = elbo("train", f"--data.train={scratch / 'bytes'}", f"--run.dir={scratch / 'refused'}",
                *options({**SHORT, "init.from": old, "data.train": ""})[:-1],
                code=3).stderr
    assert "another tokenizer" in said and "--tokenizer.from=" in said, said


def check_best(scratch, data):
    """The best checkpoint by a named figure stays, and train.patience stops the run; also when stopped and resumed in
    between."""
    given = {**SHORT, "train.steps": 40, "train.eval_every": 2, "checkpoint.best": "neg_elbo", "checkpoint.keep": 1,
             "optimizer.learning_rate": 0.3, "train.patience": 3, "objective.dropped_mark": "unknown"}
    run = scratch / "best"
    said = train(run, data, given=given).stderr
    figures = {row["step"]: row["valid"] for row in bits(run)["metrics"] if "valid" in row}
    best = min(figures, key=lambda step: figures[step]["neg_elbo"])
    last = max(figures)
    assert f"stopped after step {last}: 3 evaluations in a row" in said and f"step {best}," in said, said
    assert last == best + 6 and [step for step in figures if figures[step].get("best")][-1] == best
    assert (run / "checkpoints" / "best").read_text() == f"step-{best:08d}\n"
    assert [path.name for path in checkpoints(run)] == [f"step-{best:08d}", f"step-{last:08d}"]
    assert "stopped after step" in train(run, data, given=given).stderr
    both = (run / "checkpoints" / "best", checkpoints(run)[0])
    named, first = (elbo("sample", one, "--count=1").stdout for one in both)
    assert named == first
    for stop in range(1, last):
        train(scratch / "parts-of-best", data, given={**given, "train.stop_after": stop})
    train(scratch / "parts-of-best", data, given=given)
    same(bits(run), bits(scratch / "parts-of-best"), "stopped after every step on the way to an early stop")
    (run / "checkpoints" / "best").unlink()  # as if the process had ended before writing it
    train(run, data, given=given)
    assert (run / "checkpoints" / "best").read_text() == f"step-{best:08d}\n"


def check_links(scratch, data):
    """Rows are not written through a dangling link, nor into anything but a file."""
    for what in ("link", "folder"):
        run = scratch / f"rows-{what}"
        run.mkdir()
        if what == "link":
            (run / "metrics.jsonl").symlink_to(scratch / "elsewhere.jsonl")
        else:
            (run / "metrics.jsonl").mkdir()
        said = train(run, data, given=SHORT, code=4).stderr
        assert "metrics.jsonl" in said and "open" in said, said
        assert not (scratch / "elsewhere.jsonl").exists() and not (run / "checkpoints").exists()


def check_limits(scratch):
    """The first sentence that is too long is named; a sentence of exactly the limit is not."""
    (scratch / "three").write_text("a b c\na b\nc b a\na b c d\na b c d e\n")
    elbo("prepare", scratch / "three", f"--out={scratch / 'three-words'}")
    words = [f"--data.train={scratch / 'three-words'}", f"--run.dir={scratch / 'three-run'}",
             *options({**SHORT, "data.max_length": 3, "train.eval_every": 0})]
    said = elbo("train", *words, "--data.too_long=refuse", code=3).stderr
    assert "sentence 4 of" in said and "has 4 tokens" in said, said
    said = elbo("train", *words, "--data.too_long=skip").stderr
    assert "2 of 5 sentences" in said, said
    short = [word for word in words if not word.startswith("--data.max_length")]
    said = elbo("train", *short, "--data.max_length=1", "--data.too_long=skip", code=3).stderr
    assert "all 5 sentences are longer than data.max_length = 1" in said, said


def check_effects(scratch, data):
    cases = [({"latent.kind": "none"}, "encoder.layers", 3), ({"latent.kind": "none"}, "objective.beta", 2),
             ({"latent.kind": "none"}, "latent.width", 5), ({}, "optimizer.momentum", 0.5),
             ({"optimizer.kind": "sgd"}, "optimizer.beta2", 0.9), ({}, "objective.beta_cycles", 3),
             ({"objective.beta_schedule": "constant"}, "objective.beta_warmup", 0.5),
             ({"latent.injection": "embedding"}, "latent.memory", 2),
             ({"latent.injection": "residual"}, "latent.prefix", 2),
             ({"optimizer.schedule": "constant"}, "optimizer.min_learning_rate_ratio", 0.5),
             ({}, "objective.free_bits_groups", 2), ({}, "train.patience", 2), ({}, "parallel.lanes", 2),
             ({}, "optimizer.warmup_steps", 7), ({}, "init.parts", "encoder"),
             ({"objective.free_bits": 0}, "objective.free_bits_kind", "total"),
             ({"objective.beta_schedule": "cyclical"}, "objective.beta_cycles", 7),
             ({"device": "cpu"}, "tf32", "true")]
    train(scratch / "edge", data, given={**SHORT, "objective.beta_schedule": "cyclical",
                                         # as many as steps
                                         "objective.beta_cycles": SHORT["train.steps"],
                                         "optimizer.warmup_steps": SHORT["train.steps"]})
    for number, (beside, key, value) in enumerate(cases):
        base = {name: setting for name, setting in {**SHORT, **beside}.items()
                if name not in ("latent.width", "optimizer.warmup_steps")
                and not (beside.get("latent.kind") == "none" and name.startswith("encoder."))}
        base["optimizer.warmup_steps"] = 2
        words = [f"--data.train={data}", f"--data.valid={data}"]
        words += [f"--{name}={setting}" for name, setting in {**base, key: value}.items()]
        refused = elbo("train", f"--run.dir={scratch / 'never'}", *words, code=2).stderr
        assert f"--{key} has no effect here" in refused and len(refused.splitlines()) == 1, refused
        assert not (scratch / "never").exists()
        section, name = key.rsplit(".", 1) if "." in key else ("", key)
        (scratch / "file.yaml").write_text(f"{section}:\n  {name}: {value}\n" if section else f"{name}: {value}\n")
        words = [f"--data.train={data}", f"--data.valid={data}"]
        words += [f"--{name}={setting}" for name, setting in base.items() if name != key]
        said = elbo("train", scratch / "file.yaml", f"--run.dir={scratch / f'effect-{number}'}", *words).stderr
        assert len([line for line in said.splitlines() if "these options do not do here what they say" in line
                    and key in line]) == 1, f"{key}: {said}"


def main():
    with Scratch() as scratch:
        data = corpus(scratch)
        check_table(scratch, data)
        check_data(scratch, data)
        check_paths(scratch, data)
        check_rewind(scratch, data)
        check_warm_start(scratch, data)
        check_best(scratch, data)
        check_effects(scratch, data)
        check_limits(scratch)
        check_links(scratch, data)
    sys.exit(0)


if __name__ == "__main__":
    main()
