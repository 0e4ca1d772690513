"""The watch over the latent, in a setting in which the decoder stops reading z.

  warn        a line names the option to try, once; nothing else changes
  rollback    weights and moments are those of the last evaluation that was alive, the rate is raised, the row says so;
              the run ends alive; that checkpoint outlives checkpoint.keep
  broken      that checkpoint is damaged: the run says so, and goes on with its current weights
  begun anew  if no evaluation was alive, first weights come again, at most three times
  resumed     stopped before, at and after the rollback: the same bits; another number of threads: the same bits"""
import re
import sys

from runs import Scratch, bits, elbo, grammar, options, rows, same

GIVEN = {"encoder.width": 32, "decoder.width": 32, "encoder.layers": 1, "decoder.layers": 1, "encoder.heads": 2,
         "decoder.heads": 2, "latent.width": 8, "train.slots": 1, "train.slot_tokens": 512, "train.steps": 500,
         "optimizer.warmup_steps": 10, "optimizer.learning_rate": 0.005, "objective.word_dropout": 0,
         "objective.free_bits": 0.02, "objective.beta_warmup": 0.5, "train.eval_every": 50, "log.every": 50,
         "checkpoint.every": 0, "checkpoint.keep": 1, "train.collapse_gain": 2, "threads": 1}


def train(run, data, given):
    return elbo("train", f"--data.train={data}", f"--data.valid={data}", f"--run.dir={run}",
                *options({**GIVEN, **given})).stderr


def gains(run):
    return [row["valid"]["own_z_gain"] for row in rows(run) if "valid" in row]


def check_warn(scratch, data):
    said = train(scratch / "warn", data, {})
    ignored = train(scratch / "ignore", data, {"train.on_collapse": "ignore"})
    gained = gains(scratch / "warn")
    assert gained[-1] < 2 < max(gained), f"the setting does not die: {gained}"
    assert said.count("does not read z") == 1 and "objective.word_dropout=0.3" in said, said
    assert "does not read z" not in ignored
    one, other = (bits(scratch / name)["model.safetensors"] for name in ("warn", "ignore"))
    assert one == other, "a warning changed weights"
    trends = [row["valid"]["trend"]["own_z_gain"] for row in rows(scratch / "warn") if "trend" in row.get("valid", {})]
    differences = [b - a for a, b in zip(gains(scratch / "warn"), gains(scratch / "warn")[1:])]
    assert len(trends) == len(differences) and all(abs(a - b) < 1e-6 for a, b in zip(trends, differences))


def check_rollback(scratch, data):
    rolls = {"train.on_collapse": "rollback"}
    run = scratch / "rolled"
    said = train(run, data, rolls)
    events = [row for row in rows(run) if "event" in row]
    assert len(events) == 1 and "objective.free_bits is 0.1" in said, said
    event = events[0]["event"]
    kept = event["to"]
    died = events[0]["step"]
    assert event["kind"] == "rollback" and kept < died and kept == died - 50, event
    # first dead after being alive, and alive at the end
    by_step = {row["step"]: row["valid"]["own_z_gain"] for row in rows(run) if "valid" in row}
    assert by_step[kept] >= 2 > by_step[died] and list(by_step.values())[-1] >= 2, by_step
    assert max(step for step in by_step if by_step[step] >= 2) == 500
    # the rollback restores the state: a learning rate of 0 after it gives the same evaluation
    names = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    assert names[-1] == "step-00000500", names
    for stop in (died - 1, died, 490):
        again = scratch / f"again-{stop}"
        train(again, data, {**rolls, "train.stop_after": stop})
        if died <= stop < died + 50:
            assert f"step-{kept:08d}" in [path.name for path in (again / "checkpoints").glob("step-*")], "kept"
        train(again, data, {**rolls, "threads": 2})
        same(bits(run), bits(again), f"stopped after {stop}")
    broken = scratch / "broken"
    train(broken, data, {**rolls, "train.stop_after": died - 1})
    (broken / "checkpoints" / f"step-{kept:08d}" / "model.safetensors").write_bytes(b"")
    lost = train(broken, data, rolls)
    assert "cannot roll back" in lost and "model.safetensors" in lost, lost
    assert [row["step"] for row in rows(broken) if "loss" in row][-1] == 500
    return re.search(r"does not read z.*", said).group()


def check_begun_anew(scratch, data):
    run = scratch / "anew"
    said = train(run, data, {"train.on_collapse": "rollback", "train.collapse_gain": 1000})
    assert said.count("first ones again") == 3, said
    assert "as often as it may be" in said, said
    raised = re.findall(r"free_bits is ([0-9.]+)", said)
    assert raised == ["0.1", "0.4", "1.6"], raised
    elbo("sample", run, "--count=1")


def main():
    with Scratch() as scratch:
        grammar(scratch / "text", 1500, 1)
        elbo("prepare", scratch / "text", f"--out={scratch / 'corpus'}")
        check_warn(scratch, scratch / "corpus")
        said = check_rollback(scratch, scratch / "corpus")
        check_begun_anew(scratch, scratch / "corpus")
    print(said)
    sys.exit(0)


if __name__ == "__main__":
    main()
