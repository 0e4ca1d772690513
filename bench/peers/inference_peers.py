"""The other sides of bench/peers/inference: elbo's exported graphs in onnxruntime, and the decoder in PyTorch. Answers
the commands of inference.c with their seconds.

    inference_peers.py onnx FOLDER THREADS SPINNING     the graphs in FOLDER, f32 or quantized
    inference_peers.py torch FOLDER THREADS compiled|eager
"""
import json
import pathlib
import sys
import time

import numpy


# ---- onnxruntime ----

class Onnx:
    def __init__(self, folder, threads, spinning):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        options.log_severity_level = 3
        self.ort, self.folder = onnxruntime, folder
        self.decoder = onnxruntime.InferenceSession(str(folder / "decoder_model.onnx"), options,
                                                    providers=["CPUExecutionProvider"])
        self.encoder = onnxruntime.InferenceSession(str(folder / "encoder_model.onnx"), options,
                                                    providers=["CPUExecutionProvider"])
        self.ids = word_ids(folder)

    def write(self, batch, length):
        """Decodes greedily. Each step's output cache stays in place as the next step's input."""
        session, value = self.decoder, self.ort.OrtValue.ortvalue_from_numpy
        past = [i for i in session.get_inputs() if i.name.startswith("past")]
        names = [o.name for o in session.get_outputs()]
        shape = [batch if d == "batch" else 0 if d == "past" else d for d in past[0].shape]
        z = value(numpy.zeros((batch, session.get_inputs()[2].shape[1]), numpy.float32))
        ids, cache = numpy.zeros((batch, 1), numpy.int64), [value(numpy.zeros(shape, numpy.float32)) for _ in past]
        began = time.perf_counter()
        for at in range(length):
            binding = session.io_binding()
            binding.bind_ortvalue_input("input_ids", value(ids))
            binding.bind_ortvalue_input("attention_mask", value(numpy.ones((batch, at + 1), numpy.int64)))
            binding.bind_ortvalue_input("z", z)
            for i, v in zip(past, cache):
                binding.bind_ortvalue_input(i.name, v)
            for name in names:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
            found = dict(zip(names, binding.get_outputs()))
            cache = [found[i.name.replace("past_key_values", "present")] for i in past]
            ids = found["logits"].numpy()[:, -1].argmax(-1)[:, None].astype(numpy.int64)
        return time.perf_counter() - began

    def encode(self, path, each=64):
        """Encodes sentences sorted by length, `each` at a time, padded to the longest."""
        sentences = [[0, *(self.ids[w] for w in line.split()), 1] for line in open(path, encoding="utf-8")]
        began = time.perf_counter()
        sentences.sort(key=len)
        for at in range(0, len(sentences), each):
            some = sentences[at:at + each]
            width = max(map(len, some))
            ids = numpy.zeros((len(some), width), numpy.int64)
            mask = numpy.zeros_like(ids)
            for i, s in enumerate(some):
                ids[i, :len(s)] = s
                mask[i, :len(s)] = 1
            self.encoder.run(["mu"], {"input_ids": ids, "attention_mask": mask})
        return time.perf_counter() - began


def word_ids(folder):
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return vocabulary


# ---- PyTorch ----

class Torch:
    """The decoder of a GPT-2 with 12 layers of width 768: random weights, keys and values in place."""

    def __init__(self, threads, compiled):
        import torch
        self.torch = torch
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        torch.set_grad_enabled(False)
        d, self.heads, layers, self.vocabulary, self.longest = 768, 12, 12, 50257, 128

        def linear(rows, columns):
            return torch.randn(rows, columns) * 0.02, torch.zeros(rows)
        self.table, self.positions = torch.randn(self.vocabulary, d) * 0.02, torch.randn(self.longest, d) * 0.02
        self.layers = [(torch.ones(d), torch.zeros(d), *linear(3 * d, d), *linear(d, d), torch.ones(d), torch.zeros(d),
                        *linear(4 * d, d), *linear(d, 4 * d)) for _ in range(layers)]
        self.step = torch.compile(self.one, dynamic=False) if compiled else self.one

    def one(self, ids, at, mask, cache):
        f, (b, d) = self.torch.nn.functional, (ids.shape[0], self.table.shape[1])
        x = self.table[ids] + self.positions[at]
        for (g1, b1, wq, bq, wo, bo, g2, b2, wi, bi, wd, bd), (keys, values) in zip(self.layers, cache):
            q, k, v = f.linear(f.layer_norm(x, (d,), g1, b1), wq, bq).view(b, 3, self.heads, 1, -1).unbind(1)
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            y = f.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            x = x + f.linear(y.reshape(b, d), wo, bo)
            x = x + f.linear(f.gelu(f.linear(f.layer_norm(x, (d,), g2, b2), wi, bi), approximate="tanh"), wd, bd)
        return f.linear(f.layer_norm(x, (d,)), self.table).argmax(-1)

    def write(self, batch, length):
        torch = self.torch
        cache = [(torch.zeros(batch, self.heads, length, 64), torch.zeros(batch, self.heads, length, 64))
                 for _ in self.layers]
        ids = torch.zeros(batch, dtype=torch.long)
        began = time.perf_counter()
        for at in range(length):
            mask = (torch.arange(length) <= at).view(1, 1, 1, -1)
            ids = self.step(ids, torch.tensor([at]), mask, cache)
        return time.perf_counter() - began


def main():
    kind, folder, threads, how = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    side = Onnx(folder, threads, how) if kind == "onnx" else Torch(threads, how == "compiled")
    for line in sys.stdin:
        words = line.split()
        if words[0] == "write":
            answer = side.write(int(words[1]), int(words[2]))
        else:
            answer = side.encode(words[1])
        print(f"{answer:.9f}", flush=True)


if __name__ == "__main__":
    main()
