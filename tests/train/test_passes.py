"""The encoder trained ahead of the decoder, and the decoder that begins again.

  aggressive    the pass of a step follows from the losses of the rows by the rule of src/train/passes.h, and the end of
                the phase from their information, which lies between the mutual information and the KL of an
                evaluation; a pass of the encoder leaves every tensor of the decoder unchanged, and vice versa
  autoencoder   no KL in the loss at first; then the encoder's bits stay, the decoder has first weights again, its
                moments are zero, and schedules run from their start
  resumed       stopped after any pass: the same bits, on one rank"""
import shutil
import sys

from runs import Scratch, bits, checkpoints, corpus, differ, rows, same, tensors, train

AGGRESSIVE = {"objective.aggressive_steps": 40, "objective.aggressive_most": 9, "objective.aggressive_window": 3,
              "encoder.share_embedding": "false", "train.steps": 50}
AUTOENCODER = {"objective.autoencoder_steps": 20, "encoder.share_embedding": "false", "train.steps": 50}
DECODER = "decoder."


def parts(checkpoint):
    """Returns the weights of encoder and latent head, and of the decoder."""
    found = tensors(checkpoint / "model.safetensors")
    decoder = {name: value for name, value in found.items() if name.startswith(DECODER)}
    return {name: value for name, value in found.items() if name not in decoder}, decoder


def over(information, size):
    """Returns how many steps are passes until `size` of them carry no more information than those before, known two
    steps later."""
    means = [sum(information[at:at + size]) / size for at in range(0, len(information) - size + 1, size)]
    return next(((number + 2) * size + 1 for number, (one, next_) in enumerate(zip(means, means[1:]))
                 if next_ <= one), len(information))


def expected(losses, steps=AGGRESSIVE["objective.aggressive_steps"]):
    """Returns the passes of the first steps by the rule, with a loss that is known two steps later."""
    given = AGGRESSIVE
    made, first, passes, window, before, enough = [], 0, 0, [], None, False
    for step in range(steps):
        if step >= 2 and step - 2 >= first and made[step - 2] == "encoder":
            window.append(losses[step - 2])
            if len(window) == given["objective.aggressive_window"]:
                mean = sum(window) / len(window)
                enough = enough or (before is not None and mean >= before)
                before, window = mean, []
        if passes and (enough or passes >= given["objective.aggressive_most"]):
            made.append("decoder")
            first, passes, window, before, enough = step + 1, 0, [], None, False
        else:
            made.append("encoder")
            passes += 1
    return made


def check_aggressive(scratch, data):
    every = {**AGGRESSIVE, "checkpoint.every": 1, "checkpoint.keep": 1000, "train.eval_every": 0}
    run = scratch / "aggressive"
    train(run, data, given=every)
    said = [row for row in rows(run) if "loss" in row]
    made = [row["pass"] for row in said]
    wanted = expected([row["loss"] * row["sentences"] / row["tokens"] for row in said])
    assert made == wanted + ["whole"] * 10, (made, wanted)
    assert {"encoder", "decoder"} == set(made[:40])
    loops = "".join(word[0] for word in made[:40]).split("d")
    assert len({len(loop) for loop in loops[:-1]}) > 1 or max(map(len, loops)) < 9, "the losses decided nothing"
    before = parts(checkpoints(run)[0])
    for checkpoint, kind in zip(checkpoints(run)[1:], made[1:]):
        after = parts(checkpoint)
        assert (after[0] == before[0]) == (kind == "decoder"), (checkpoint, kind)
        assert (after[1] == before[1]) == (kind == "encoder"), (checkpoint, kind)
        before = after
    plain = scratch / "plain"
    train(plain, data, given={**AGGRESSIVE, "train.eval_every": 0})
    same(bits(run), bits(plain), "checkpoints after every pass")
    for stop in range(1, 50):
        part = scratch / "part"
        train(part, data, given={**AGGRESSIVE, "train.eval_every": 0, "train.stop_after": stop})
        train(part, data, given={**AGGRESSIVE, "train.eval_every": 0})
        same(bits(plain), bits(part), f"stopped after pass {stop}")
        shutil.rmtree(part)
    other = scratch / "other"
    train(other, data, given={**AGGRESSIVE, "train.eval_every": 0, "objective.aggressive_window": 2})
    differ(bits(plain), bits(other), "another window")


def check_information(scratch, data):
    size = 8
    given = {**AGGRESSIVE, "objective.aggressive_until": "information", "objective.aggressive_information_window": size,
             "train.eval_every": 50, "train.steps": 150, "optimizer.learning_rate": 0.01, "objective.beta": 0.3,
             "objective.beta_schedule": "constant", "objective.free_bits": 0}
    del given["objective.aggressive_steps"]
    run = scratch / "information"
    said = train(run, data, given=given).stderr
    steps = [row for row in rows(run) if "loss" in row]
    information, made = [row["information"] for row in steps], [row["pass"] for row in steps]
    end = over(information, size)
    assert 2 * size < end < 150, f"the phase ended behind {end} steps"
    assert made == expected([row["loss"] * row["sentences"] / row["tokens"] for row in steps], end) \
        + ["whole"] * (150 - end), (end, made)
    assert f"step {end} ended the encoder's passes" in said, said
    limit = scratch / "limit"
    train(limit, data, given={**given, "objective.aggressive_steps": end - 5})
    assert [row["pass"] for row in rows(limit) if "loss" in row].index("whole") == end - 5
    for stop in (end - 3, end - 2, end - 1, end, end + 1):
        part = scratch / "part-of-information"
        train(part, data, given={**given, "train.stop_after": stop})
        train(part, data, given=given)
        same(bits(run), bits(part), f"stopped after pass {stop}, at the end of the phase")
        shutil.rmtree(part)


def check_bounds(scratch, data):
    """Gives the KL a small weight, so that z carries information."""
    run = scratch / "bounds"
    train(run, data, given={**AGGRESSIVE, "objective.aggressive_until": "information",
                            "objective.aggressive_information_window": 1000, "train.eval_every": 50,
                            "train.steps": 200, "optimizer.learning_rate": 0.01, "objective.beta": 0.02,
                            "objective.beta_schedule": "constant", "objective.free_bits": 0})
    information, measured = [row["information"] for row in rows(run) if "loss" in row], []
    for row in rows(run):
        if "valid" in row:
            near = information[row["step"] - 20:row["step"]]
            measured.append((row["valid"]["mutual_information"], sum(near) / len(near), row["valid"]["kl"]))
    print("mutual information, information, KL:", *(f"{a:.3f} {b:.3f} {c:.3f};" for a, b, c in measured))
    assert len(measured) == 4 and measured[-1][0] > 0.5, measured
    assert all(low <= between <= high for low, between, high in measured), measured


def check_autoencoder(scratch, data):
    given = {**AUTOENCODER, "checkpoint.every": 1, "checkpoint.keep": 1000, "train.eval_every": 0,
             "optimizer.warmup_steps": 3, "objective.free_bits": 0}
    run = scratch / "autoencoder"
    said = train(run, data, given=given).stderr
    assert "the decoder begins anew" in said, said
    made = [row for row in rows(run) if "loss" in row]
    for row in made[:20]:
        assert row["beta"] == 0 and abs(row["loss"] - row["reconstruction"]) < 1e-4 * row["loss"], row
    assert made[20]["beta"] == 0 and 0 < made[21]["beta"] < made[40]["beta"], "beta rises anew"
    assert made[20]["learning_rate"] == made[0]["learning_rate"] < made[19]["learning_rate"] + made[2]["learning_rate"]
    # A run that ends here and a run that goes on: a learning rate of 0 keeps the state with which step 21 began.
    still = scratch / "still"
    train(still, data, given={**given, "train.stop_after": 20})
    before = parts(checkpoints(still)[-1])
    train(still, data, given={**given, "optimizer.learning_rate": 0, "train.stop_after": 21})
    after = parts(checkpoints(still)[-1])
    assert after[0] == before[0], "the encoder's bits stay"
    assert set(after[1]) == set(before[1]) and all(after[1][name] != before[1][name] for name in after[1]
                                                   if name.endswith("qkv.weight")), "the decoder is the old one"
    resumed = scratch / "resumed"
    for stop in (19, 20, 21, 33, 50):
        train(resumed, data, given={**AUTOENCODER, "train.stop_after": stop})
    whole = scratch / "whole"
    train(whole, data, given=AUTOENCODER)
    same(bits(whole), bits(resumed), "resumed around the decoder's new beginning")


def check_refused(scratch, data):
    for given, words in (({"objective.autoencoder_steps": 20}, "encoder.share_embedding=false"),
                         ({"objective.autoencoder_steps": 60, "encoder.share_embedding": "false"}, "train.steps"),
                         ({"objective.aggressive_most": 5}, "objective.aggressive_steps"),
                         ({"objective.aggressive_information_window": 5}, "objective.aggressive_until=information"),
                         ({"objective.aggressive_until": "information", "latent.kind": "none"}, "latent.kind=none"),
                         ({"objective.aggressive_steps": 5, "latent.kind": "none"}, "latent.kind=none")):
        said = train(scratch / "refused", data, given=given, code=2).stderr
        assert words in said, said


def main():
    with Scratch() as scratch:
        data = corpus(scratch)
        check_aggressive(scratch, data)
        check_information(scratch, data)
        check_bounds(scratch, data)
        check_autoencoder(scratch, data)
        check_refused(scratch, data)
    print("stopped after each of 49 passes: the same bits")
    sys.exit(0)


if __name__ == "__main__":
    main()
