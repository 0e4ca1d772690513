"""The results that `elbo train` writes, against independent figures, from the options to the weights.

  steps       from each checkpoint to the next: the loss row, active units and every weight, against PyTorch in double
              (the model of reference.py, its own differentiation, torch.optim.AdamW and SGD); slots, cut sentences,
              word dropout, free bits, clipping, frozen parts
  schedules   every row's beta and learning rate against closed forms, also after an update that was not applied"""
import math
import pathlib
import sys

import numpy

from runs import SOURCE, Scratch, checkpoints, corpus, elbo, grammar, options, rows

sys.path.insert(0, str(SOURCE / "tests" / "model"))
from reference import TOLERANCE, Model, noise_key, normals, order, purpose, read_safetensors, torch, words

CHOICES = {"norm": ("layernorm", "rmsnorm"), "norm_position": ("pre", "post"), "positions": ("learned", "rotary"),
           "activation": ("gelu", "swiglu"), "pooling": ("mean", "first", "last", "attention")}
SMALL = {
    "encoder.width": 12, "decoder.width": 12, "encoder.heads": 2, "decoder.heads": 2, "encoder.layers": 1,
    "decoder.layers": 1, "encoder.ff_width": 20, "decoder.ff_width": 20, "latent.width": 6, "data.max_length": 9,
    "train.slots": 2, "train.slot_tokens": 40, "optimizer.warmup_steps": 0, "log.every": 1, "threads": 1, "seed": 11,
}


def sentences_of(data):
    """Returns ids without marks, as the program tokenizes the corpus's own text."""
    text = elbo("dump", data).stdout
    return [[int(word) for word in line.split()] for line in elbo("tokenize", data, stdin=text).stdout.splitlines()]


def pack(sentences, given, step, cursor):
    """Returns the slots of one step, as global sample indices in data order, and the cursor behind the step."""
    count, limit, slots = len(sentences), given["data.max_length"], []
    for _ in range(given["train.slots"]):
        used = {"encoder": 0, "decoder": 0}
        slot = []
        while True:
            epoch, index = divmod(cursor, count)
            ids = sentences[order(given["seed"], purpose("data.shuffle"), epoch, count)[index]][:limit]
            if used["encoder"] + len(ids) + 2 > given["train.slot_tokens"] \
                or used["decoder"] + len(ids) + 1 > given["train.slot_tokens"]:
                break
            used["encoder"] += len(ids) + 2
            used["decoder"] += len(ids) + 1
            slot.append((cursor, ids))
            cursor += 1
        slots.append(slot)
    return slots, cursor


def slot_arrays(slot, given, step, vocabulary):
    """Returns a slot's arrays: marks 0, 1, 2; dropped words become the id behind the vocabulary; the posterior's
    noise."""
    t = {"encoder.offsets": [0], "encoder.ids": [], "decoder.offsets": [0], "decoder.ids": [], "decoder.labels": [],
         "eps": []}
    drop, limit = noise_key(given["seed"], purpose("data.word_dropout"),
                            step), int(given["objective.word_dropout"] * 2 ** 32)
    for sample, ids in slot:
        read = [0, *ids]
        bits = words(drop, sample, 0, len(read))
        t["encoder.ids"] += [0, *ids, 1]
        t["decoder.ids"] += [vocabulary if place and bit < limit else token
                             for place, (token, bit) in enumerate(zip(read, bits))]
        t["decoder.labels"] += [*ids, 1]
        t["encoder.offsets"].append(len(t["encoder.ids"]))
        t["decoder.offsets"].append(len(t["decoder.ids"]))
        t["eps"].append(normals(noise_key(given["seed"], purpose("latent.noise"), step), sample, 0,
                                given["latent.width"]))
    return {name: numpy.array(value) for name, value in t.items()}


def model_of(given, weights):
    config = {"free.kind": 0, "free.nats": given["objective.free_bits"], "tie_output": 1, "share_embedding": 1}
    for key, value in given.items():
        name = key.split(".")[-1]
        config[key] = CHOICES[name].index(value) if name in CHOICES and isinstance(value, str) else value
    return Model(config, weights)


def optimizer_of(given, model, state, updates):
    """Returns torch.optim's optimizer, in double, with the moments of the checkpoint."""
    factor = {"encoder": given.get("optimizer.encoder_factor", 1), "latent": 1, "decoder": 1}
    groups = [{"params": [w], "name": name, "lr": factor[name.split(".")[0]],
               "weight_decay": given["optimizer.weight_decay"] if w.ndim > 1 else 0}
              for name, w in model.w.items()]
    sgd = given["optimizer.kind"] == "sgd"
    if sgd:
        made = torch.optim.SGD(groups, lr=1, momentum=given["optimizer.momentum"])
    else:
        made = torch.optim.AdamW(groups, lr=1, betas=(given["optimizer.beta1"], given["optimizer.beta2"]),
                                 eps=given["optimizer.epsilon"])
    for name, w in model.w.items():
        moments = [torch.tensor(state[f"{which}.{name}"].astype(numpy.float64)) for which in ("moment1", "moment2")
                   if f"{which}.{name}" in state]
        if updates and sgd:
            made.state[w]["momentum_buffer"] = moments[0]
        elif updates:
            made.state[w] = {"step": torch.tensor(float(updates)), "exp_avg": moments[0], "exp_avg_sq": moments[1]}
    return made


def one_step(given, sentences, before, step, cursor):
    """Returns the weights after step `step` (from 0), its figures and the cursor, from the checkpoint before it."""
    model = model_of(given, read_safetensors(before / "model.safetensors"))
    slots, cursor = pack(sentences, given, step, cursor)
    count = sum(map(len, slots))
    vocabulary = len(model.w["decoder.embedding.token.weight"])
    beta, rate = given["objective.beta"], given["optimizer.learning_rate"]
    parts = torch.zeros(5, dtype=torch.float64)
    total, mu = 0, []
    for slot in slots:
        arrays = slot_arrays(slot, given, step, vocabulary)
        loss, out = model.slot(arrays, (given["objective.lambda"] / count, beta / count))
        total = total + loss
        parts = parts + out["parts"].detach()
        mu += [stats.detach().numpy()[:given["latent.width"]] for stats in out["stats"]]
    total.backward()
    optimizer = optimizer_of(given, model, read_safetensors(before / "state" / "optimizer.safetensors"), step)
    norm = math.sqrt(sum(float((w.grad ** 2).sum()) for name, w in model.w.items()
                         if given.get("optimizer.encoder_factor", 1) or not name.startswith("encoder.")))
    scale = given["optimizer.clip"] / norm if given["optimizer.clip"] and norm > given["optimizer.clip"] else 1
    for group in optimizer.param_groups:
        group["lr"] *= rate
        w = group["params"][0]
        w.grad *= scale
        if given["optimizer.kind"] == "sgd":  # decoupled here, but part of the gradient in torch.optim.SGD
            decay, group["weight_decay"] = group["weight_decay"], 0
            with torch.no_grad():
                group["decayed"] = group["lr"] * decay * w.detach().clone()
    optimizer.step()
    for group in optimizer.param_groups:
        if "decayed" in group:
            with torch.no_grad():
                group["params"][0] -= group["decayed"]
    figures = {"loss": float(parts[0]), "reconstruction": float(parts[1]) / count, "kl": float(parts[2]) / count,
               "kl_free": float(parts[3]) / count, "gradient_norm": norm, "sentences": count}
    return {name: w.detach().numpy() for name, w in model.w.items()}, figures, numpy.array(mu).var(0, ddof=1), cursor


def check_steps(scratch, data, sentences, changes):
    given = {"objective.beta_schedule": "constant", "objective.beta": 0.7, "objective.lambda": 1.3,
             "objective.free_bits": 0.3, "objective.word_dropout": 0.25, "optimizer.kind": "adamw",
             "optimizer.schedule": "constant", "optimizer.learning_rate": 0.01,
             "optimizer.beta1": 0.8, "optimizer.beta2": 0.95, "optimizer.epsilon": 1e-6, "optimizer.weight_decay": 0.2,
             "optimizer.momentum": 0.7, "optimizer.clip": 0, **SMALL, **changes}
    idle = ("optimizer.beta1", "optimizer.beta2", "optimizer.epsilon") if given["optimizer.kind"] == "sgd" \
        else ("optimizer.momentum",)
    run = scratch / "steps"
    passed = {key: value for key, value in given.items() if key not in idle}
    elbo("train", f"--data.train={data}", f"--run.dir={run}", *options({**passed, "train.steps": 0}))
    elbo("train", f"--data.train={data}", f"--run.dir={run}", "--checkpoint.every=1", "--checkpoint.keep=9",
         *options({**passed, "train.steps": 3}))
    all_of, cursor, worst, variance = checkpoints(run), 0, 0, numpy.zeros(given["latent.width"])
    assert [path.name for path in all_of] == [f"step-{step:08d}" for step in range(4)]
    for step, row in enumerate(rows(run)):
        wanted, figures, spread, cursor = one_step(given, sentences, all_of[step], step, cursor)
        variance = 0.98 * variance + 0.02 * spread  # running mean of the variance of mu over a step's sentences
        kept = read_safetensors(all_of[step + 1] / "state" / "optimizer.safetensors")["posterior.variance"]
        assert numpy.allclose(kept, [*variance, 1 - 0.98 ** (step + 1)], rtol=1e-4, atol=1e-9), f"{kept} {variance}"
        figures["active_units"] = int((variance / kept[-1] >= 0.01).sum())
        for name, figure in figures.items():
            assert abs(row[name] - figure) <= TOLERANCE["MODEL"] * abs(figure), \
                f"{changes} step {step + 1}: {name} is {row[name]}, not {figure}"
        before = read_safetensors(all_of[step] / "model.safetensors")
        after = read_safetensors(all_of[step + 1] / "model.safetensors")
        assert set(wanted) == set(after)
        for name in after:
            moved, want = after[name].astype(float) - before[name], wanted[name] - before[name]
            norm = numpy.linalg.norm(want)
            error = numpy.linalg.norm(moved - want) / (norm if norm else 1)
            # an f32 weight holds its movement to half a unit in its last place
            floor = 2 ** -24 * numpy.linalg.norm(before[name]) / norm if norm else 0
            worst = max(worst, error - floor)
            assert error <= TOLERANCE["STEP"] + floor, f"{changes} step {step + 1}: {name} moved otherwise: {error:.1e}"
    return worst


def closed_beta(kind, start, end, warmup, cycles, update, steps):
    if kind == "constant":
        return end
    period = steps / cycles if kind == "cyclical" else steps
    at = math.fmod(update, period) if kind == "cyclical" else update
    share = min(1, at / (warmup * period)) if warmup else 1
    if kind == "logistic":
        curve = [1 / (1 + math.exp(-12 * (place - 0.5))) for place in (share, 0, 1)]
        share = (curve[0] - curve[1]) / (curve[2] - curve[1])
    return start + (end - start) * share


def closed_rate(kind, highest, least, warmup, update, steps):
    if update < warmup:
        return highest * (update + 1) / warmup
    if kind == "inverse_sqrt":
        return highest * max(least, (max(warmup, 1) / (update + 1)) ** 0.5)
    t = min(1, (update - warmup) / (steps - warmup))
    if kind == "constant":
        return highest
    return highest * (least + (1 - least) * (1 - t if kind == "linear" else (1 + math.cos(math.pi * t)) / 2))


# beta's schedule with its start, warm-up and cycles; the learning rate's with its least share. None: the option has no
# effect.
SCHEDULES = [("linear", 0.5, 0.8, None, "cosine", 0.1), ("constant", None, None, None, "linear", 0.25),
             ("cyclical", 0.5, 0.5, 3, "constant", None), ("logistic", 0.5, 0.5, None, "cosine", 0),
             ("linear", 0, 1, None, "linear", 1), ("cyclical", 0, 1, 5, "cosine", 0.5),
             ("logistic", 0, 0, None, "linear", 0), ("linear", 1, 0, None, "cosine", 0.1),
             ("linear", 0, 0.5, None, "inverse_sqrt", 0.5), ("linear", 0, 0.5, None, "inverse_sqrt", 0)]


def check_schedules(scratch, data):
    steps, rises = 24, 5
    base = {**SMALL, "train.slots": 1, "train.steps": steps, "objective.beta": 2, "optimizer.learning_rate": 0.003,
            "optimizer.warmup_steps": rises}
    for number, (kind, start, warmup, cycles, after, least) in enumerate(SCHEDULES):
        for skip in (0, 7):
            given = {**base, "objective.beta_schedule": kind, "optimizer.schedule": after, "train.skip": skip}
            some = {"objective.beta_start": start, "objective.beta_warmup": warmup, "objective.beta_cycles": cycles,
                    "optimizer.min_learning_rate_ratio": least}
            given.update({key: value for key, value in some.items() if value is not None})
            run = scratch / f"schedule-{number}-{skip}"
            elbo("train", f"--data.train={data}", f"--run.dir={run}", *options(given))
            found = rows(run)
            assert [row["step"] for row in found] == list(range(1, steps + 1))
            for row in found:
                update = row["step"] - 1 - (0 < skip < row["step"])  # skipped updates do not move the schedules
                beta, rate = closed_beta(kind, start, 2, warmup, cycles, update,
                                         steps), closed_rate(after, 0.003, least, rises, update, steps)
                assert abs(row["beta"] - beta) < 1e-8 and abs(row["learning_rate"] - rate) < 1e-10, \
                    f"{given}: step {row['step']}: beta {row['beta']} and rate {row['learning_rate']}, not {beta} " \
                    f"and {rate}"
            if kind == "logistic" and warmup and not skip:
                assert (found[0]["beta"], found[12]["beta"]) == (start, 2), \
                    "a logistic beta misses its start or its end"


def main():
    with Scratch() as scratch:
        data = corpus(scratch)
        sentences = sentences_of(data)
        cases = [{}, {"optimizer.kind": "sgd", "optimizer.clip": 0.05},
                 {"optimizer.clip": 0.5, "encoder.norm": "rmsnorm", "decoder.positions": "rotary"},
                 {"optimizer.encoder_factor": 0.5, "encoder.pooling": "attention", "decoder.norm_position": "post"}]
        worst = [check_steps(pathlib.Path(scratch, f"case-{number}"), data, sentences, changes)
                 for number, changes in enumerate(cases)]
        print("worst movement of a tensor beside PyTorch's, by case:", ", ".join(f"{error:.1e}" for error in worst))
        check_schedules(scratch, data)
    sys.exit(0)


if __name__ == "__main__":
    main()
