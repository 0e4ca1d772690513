#!/usr/bin/python3
"""Tests elbo export --format=hf --part: decoders with GPT-2's and Llama's names, encoders with BERT's names and
sentence-transformers' modules, and the refusal of other parts with the reason."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peers  # noqa: E402
import zoo  # noqa: E402
from runs import Scratch, elbo  # noqa: E402
from zoo import both, of  # noqa: E402

BERT = of("encoder", norm_position="post", embedding_norm="true")
ADDED = {"latent.injection": "embedding"}
PARTS = {
    "gpt2": ("decoder", {"latent.injection": "embedding", **of("decoder", layers=3, ff_width=40)}),
    "gpt2-untied": ("decoder", {"latent.injection": "embedding", "decoder.tie_output": "false", "tokenizer": "bpe"}),
    "gpt2-prefix": ("decoder", {"latent.injection": "prefix,residual", **of("decoder", layers=3)}),
    "gpt2-alone": ("decoder", {"latent.kind": "none"}),
    "llama": ("decoder", {**both(**zoo.LLAMA), "latent.injection": "embedding"}),
    "llama-prefix": ("decoder", {**both(**zoo.LLAMA), "latent.injection": "embedding,prefix,residual"}),
    "llama-alone": ("decoder", {**of("decoder", **zoo.LLAMA), "latent.kind": "none", "decoder.tie_output": "false"}),
    "bert": ("encoder", BERT),
    "bert-first": ("encoder", {**BERT, **of("encoder", pooling="first", layers=3), "latent.normalize": "batch"}),
    "bert-last": ("encoder", {**BERT, **of("encoder", pooling="last"), "latent.normalize": "du", "tokenizer": "bpe",
                              "encoder.share_embedding": "true"}),
}
REFUSED = {
    "decoder": {"memory": (None, "memory"), "lstm": (None, "recurrent"), "language-model-gru": (None, "recurrent"),
                "after": ({**ADDED, **of("decoder", norm_position="post")}, "norm_position"),
                "normed": ({**ADDED, **of("decoder", embedding_norm="true")}, "embedding_norm"),
                "turned": ({**ADDED, **of("decoder", positions="rotary")}, "GPT2LMHeadModel"),
                "rms": ({**ADDED, **of("decoder", norm="rmsnorm")}, "LlamaForCausalLM")},
    "encoder": {"plain": (None, "BertModel"), "lstm": (None, "BertModel"), "language-model": (None, "no encoder"),
                "bert-attention": ({**BERT, "encoder.pooling": "attention"}, "pools"),
                "bert-labels": ({**BERT, "data.labels": "true"}, "label"),
                "bert-delta": ({**BERT, "latent.kind": "delta"}, "linear")},
}


def check_refusals(scratch):
    for part, kinds in REFUSED.items():
        for name, (kind, reason) in kinds.items():
            run, _ = zoo.train(scratch, name, kind)
            answer = elbo("export", run, "--format=hf", f"--part={part}", f"--out={scratch / 'refused'}", code=2)
            assert reason in answer.stderr and "leave --part out" in answer.stderr, answer.stderr
            assert not (scratch / "refused").exists()


def main():
    with Scratch() as scratch:
        zoo.corpora(scratch)
        check_refusals(scratch)
        versions, words = peers.present("transformers-4", "transformers-5"), []
        for name, (part, kind) in PARTS.items():
            run, corpus = zoo.train(scratch, f"p-{name}", kind)
            zoo.export(run, scratch / f"hf-{name}", "--format=hf", f"--check={corpus}")
            zoo.export(run, scratch / f"part-{name}", "--format=hf", f"--part={part}")
            words += [part, scratch / f"part-{name}", scratch / f"hf-{name}" / "check"]
        for version in versions:
            some = [w for i, w in enumerate(words) if version == "transformers-5" or words[i // 3 * 3] == "decoder"]
            answer = peers.run(version, pathlib.Path(__file__).with_name("hf_parts_reader.py"), *some)
            assert answer.returncode == 0, answer.stderr[-3000:]
            lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
            assert len(lines) == len(some) // 3
            for folder, found in zip(some[1::3], lines):
                assert not found.pop("heard"), (folder.name, found)
                assert all(value <= 1e-5 for value in found.values()), (version, folder.name, found)
            print(f"{version}: {len(lines)} parts within {max(max(found.values()) for found in lines):.1e}")


if __name__ == "__main__":
    main()
