"""Compares this folder with what elbo itself said of some sentences (reference.safetensors, reference.json).

    python check/check_onnx.py          prints a line of JSON; exit code 1 when anything differs by more than it may

Needs NumPy and onnxruntime; with onnx the graphs are checked, with tokenizers the text."""
import json
import pathlib
import sys

import numpy
import onnxruntime

from reference import load, parts

MAY_DIFFER = 1e-4  # absolute; with weights of few bits nothing is compared but shapes
CHECK = pathlib.Path(__file__).resolve().parent
FOLDER = CHECK.parent


def session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(FOLDER / name), options, providers=["CPUExecutionProvider"])


class Model:
    """The two graphs, by NumPy arrays."""

    def __init__(self):
        self.facts = json.loads((FOLDER / "elbo.json").read_text(encoding="utf-8"))
        self.decoder = session("decoder_model.onnx")
        self.encoder = session("encoder_model.onnx") if (FOLDER / "encoder_model.onnx").exists() else None
        self.wanted = {i.name: i.shape for i in self.decoder.get_inputs()}
        self.gives = [o.name for o in self.decoder.get_outputs()]
        self.label = None

    def encode(self, ids, mask):
        given = {"input_ids": ids, "attention_mask": mask}
        if any(i.name == "label" for i in self.encoder.get_inputs()):
            given["label"] = self.labels(len(ids))
        return self.encoder.run(["mu", "logvar"], {i.name: given[i.name] for i in self.encoder.get_inputs()})

    def labels(self, count):
        return numpy.full(count, self.label, numpy.int64)

    def empty(self, batch):
        """The state in front of the first call: a length of 0 where it grows."""
        sizes = {"batch": batch, "past": 0, "begun": 0}
        return {name: numpy.zeros([sizes.get(d, d) for d in shape], numpy.float32)
                for name, shape in self.wanted.items() if name.startswith("past")}

    def decode(self, ids, z, state, rows_before=0, output="logits"):
        """(B, T, V) behind each of ids (B, T), and the state for those that follow."""
        given = {**state, "input_ids": ids, "z": z,
                 "attention_mask": numpy.ones((len(ids), rows_before + ids.shape[1]), numpy.int64)}
        if "label" in self.wanted:
            given["label"] = self.labels(len(ids))
        kept = [name for name in self.gives if name.startswith("present")]
        found = self.decoder.run([output, *kept], {name: given[name] for name in self.wanted})
        return found[0], {name.replace("present", "past_key_values" if "key" in name or "value" in name else "past"): x
                          for name, x in zip(kept, found[1:])}

    def greedy(self, z, count):
        end, longest = self.facts["eos_token_id"], self.facts["max_positions"] - 2
        ids, state = numpy.full((count, 1), self.facts["bos_token_id"], numpy.int64), self.empty(count)
        out, done = [], numpy.zeros(count, bool)
        while len(out) < longest and not done.all():
            logits, state = self.decode(ids, z, state, len(out), "generation_logits")
            ids = numpy.where(done, end, logits[:, -1].argmax(-1))[:, None]
            done |= ids[:, 0] == end
            out.append(ids)
        return numpy.concatenate(out, 1)


def batch_of(facts, sentences):
    longest = max(map(len, sentences)) + 2
    ids = numpy.full((len(sentences), longest), facts["pad_token_id"], numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, words in enumerate(sentences):
        ids[row, :len(words) + 2] = [facts["bos_token_id"], *words, facts["eos_token_id"]]
        mask[row, :len(words) + 2] = 1
    return ids, mask


def gap(a, b):
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(numpy.abs(a.astype(float) - b).max())


def check_graphs():
    """onnx.checker's full check of both graphs."""
    try:
        import onnx
    except ImportError:
        return False
    for name in ("encoder_model.onnx", "decoder_model.onnx"):
        if (FOLDER / name).exists():
            onnx.checker.check_model(str(FOLDER / name), full_check=True)
    return True


def same_texts(model, words, sentences):
    """How many sentences the package tokenizers reads otherwise; none without the package."""
    try:
        import tokenizers
    except ImportError:
        return None
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # the words `<s>` and `</s>` of a text are words
    facts = model.facts
    return sum(tokenizer.encode(text).ids != [facts["bos_token_id"], *ids, facts["eos_token_id"]]
               for text, ids in zip(words["text"], sentences) if text is not None)


def main():
    reference = load(CHECK / "reference.safetensors")
    words = json.loads((CHECK / "reference.json").read_text(encoding="utf-8"))
    model, found = Model(), {"checked": check_graphs()}
    facts, model.label = model.facts, words["label"]
    few = "MatMulNBits" in (FOLDER / "decoder_model.onnx").read_bytes().decode("latin-1")
    sentences, greedy = (parts(reference[name], reference[f"{prefix}offsets"])
                         for name, prefix in (("ids", ""), ("greedy", "greedy_")))
    z, ids = None, numpy.zeros(0)
    if model.encoder:
        mu, logvar = model.encode(*batch_of(facts, sentences))
        found["mu"], found["logvar"] = gap(mu, reference["mu"]), gap(logvar, reference["logvar"])
        z = mu
    some = words["logits_of"]
    logits = []
    for row in range(some):  # in two calls, the second of which has several tokens and a past
        ids = numpy.array([[facts["bos_token_id"], *sentences[row]]], numpy.int64)
        own, half = None if z is None else z[row:row + 1], (ids.shape[1] + 1) // 2
        one, state = model.decode(ids[:, :half], own, model.empty(1))
        both = [one[0]]
        if ids.shape[1] > half:
            both.append(model.decode(ids[:, half:], own, state, half)[0][0])
        logits.append(numpy.concatenate(both))
    found["logits"] = gap(numpy.concatenate(logits), reference["logits"])
    written = model.greedy(z, len(sentences))
    found["sentences"] = len(sentences)
    found["other_greedy_ids"] = sum(row[:len(g)].tolist() != g or bool((row[len(g):] != facts["eos_token_id"]).any())
                                    for row, g in zip(written, greedy))
    found["other_token_ids"] = same_texts(model, words, sentences)
    print(json.dumps(found))
    if few:
        return
    wrong = [name for name in ("mu", "logvar", "logits") if not found.get(name, 0) <= MAY_DIFFER]
    wrong += [name for name in ("other_greedy_ids", "other_token_ids") if found[name]]
    if wrong:
        sys.exit(f"the export differs from the model: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
