"""Reads exported folders with transformers: `hf_reader.py FOLDER ...` prints lines of JSON for each. Runs in its own
environment (peers.py)."""
import json
import pathlib
import runpy
import sys

import torch
from transformers import AutoConfig, AutoModel


def moved(model):
    """Returns the least distance of a bias or a norm from its initial value."""
    found = []
    for name, p in model.named_parameters():
        if "norm" in name and name.endswith("weight") and "normalize" not in name:
            found.append((p - 1).abs().max().item())
        elif name.endswith("bias"):
            found.append(p.abs().max().item())
    return min(found, default=1)


def further(folder):
    """Draws from the priors, encodes a batch padded on either side, interpolates, trains, and saves again."""
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    c, found = model.config, {"moved": moved(model), "torch": torch.__version__}
    label = 0 if c.label_names else None
    ids = torch.tensor([[0, 5, 6, 7, 1], [0, 8, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        torch.manual_seed(1)
        found["sampled"] = list(model.sample(3, do_sample=True, temperature=0.8, top_p=0.9, label=label).shape)
        if c.latent["kind"] != "none":
            z = model.draw(4000)
            found["draws"] = [z.mean(0).tolist(), z.std(0).tolist()]
            right = model.encode(ids, mask, label)
            rolled = model.encode(torch.stack([ids[0], ids[1].roll(2)]), torch.stack([mask[0], mask[1].roll(2)]), label)
            found["sides"] = max((a - b).abs().max().item() for a, b in zip(right, rolled))
            alone = model.encode(ids[1:, :3], None, label)
            found["alone"] = max((a[1:] - b).abs().max().item() for a, b in zip(right, alone))
            found["line"] = list(model.interpolate(right[0][0], right[0][1], steps=4, label=label).shape)
            found["log_prior"] = model.log_prior(right[0]).tolist()
            found["mu"] = right[0].tolist()
    model.train()
    out = model(ids, mask, labels=ids, label=label, sample=True)
    out.loss.backward()
    found["loss"] = out.loss.item()
    found["without_gradient"] = [name for name, p in model.named_parameters()
                                 if p.grad is None and not name.startswith(("latent.fitted", "latent.prior"))
                                 and not name.endswith(".running")]
    again = pathlib.Path(f"{folder}-again")
    model.save_pretrained(again)
    for file in folder.glob("*.py"):
        (again / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    twin = AutoModel.from_pretrained(again, trust_remote_code=True).eval()
    found["again"] = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values()))
    fresh = AutoModel.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=True), trust_remote_code=True)
    found["fresh"] = sorted(fresh.state_dict()) == sorted(model.state_dict())
    return found


def main():
    for name in sys.argv[1:]:
        folder = pathlib.Path(name)
        sys.path.insert(0, str(folder / "check"))
        check = runpy.run_path(str(folder / "check" / "check_hf.py"))
        try:
            check["main"]()
        except SystemExit as end:
            print(json.dumps({"error": f"{folder.name}: {end}"}))
        print(json.dumps(further(folder)))


if __name__ == "__main__":
    main()
