"""Compares control vectors with the model that they belong to: `gguf_reader.py EXPORT VECTORS LATENTS.json` prints how
far the directions of each file are from W z, and how much two sentences differ."""
import json
import pathlib
import runpy
import sys

import numpy
from gguf import GGUFReader


def main():
    export, vectors, latents = map(pathlib.Path, sys.argv[1:])
    sys.path.insert(0, str(export / "check"))
    check = runpy.run_path(str(export / "check" / "check_gguf.py"))
    latent = check["Latent"](0)
    model = check["File"](latent)
    rows, worst = [], 0.0
    for path, z in zip(sorted(vectors.glob("*.gguf")), json.loads(latents.read_text())):
        reader = GGUFReader(path)
        keys = {name: field.contents() for name, field in reader.fields.items()}
        assert keys["general.architecture"] == "controlvector" and keys["controlvector.model_hint"] == model.arch
        layers = model.key("block_count")
        assert keys["controlvector.layer_count"] == layers - 1
        found = {t.name: numpy.array(t.data, dtype=float) for t in reader.tensors}
        assert sorted(found) == [f"direction.{i}" for i in range(1, layers)], sorted(found)
        for i in range(1, layers):
            worst = max(worst, float(numpy.abs(found[f"direction.{i}"] - latent.behind(numpy.array(z), i)).max()))
        rows.append(numpy.concatenate(list(found.values())))
    print(json.dumps({"files": len(rows), "worst": worst, "moved": float(numpy.abs(rows[0] - rows[1]).max())}))


if __name__ == "__main__":
    main()
