"""AdamW's updates as a run makes them, against torch.optim.AdamW: 20 updates at beta1 0 .. 0.999 and beta2 0.9 ..
0.9999999. The median movement of the weights is within 1e-6 of PyTorch's in double, or as near to it as PyTorch's own
in f32."""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy

try:
    import torch
except ImportError:
    print("PyTorch is missing, so the comparison is left out")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "train"))
from runs import SOURCE  # noqa: E402

TOOL = pathlib.Path(os.environ.get("ELBO_TESTS", SOURCE / "build/release/tests")) / "step_dump_optimizer"
UPDATES, COUNT, MEDIAN = 20, 4096, 1e-6


def torch_movement(gradients, beta1, beta2, epsilon, dtype):
    w = torch.nn.Parameter(torch.zeros(COUNT, dtype=dtype))
    optimizer = torch.optim.AdamW([w], lr=0.01, betas=(beta1, beta2), eps=epsilon, weight_decay=0)
    for gradient in gradients:
        w.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
    return w.detach().numpy().astype(numpy.float64)


def error(movement, wanted):
    return float(numpy.median(numpy.abs(movement - wanted) / numpy.abs(wanted)))


def main():
    worst = []
    with tempfile.TemporaryDirectory() as folder:
        for isa in ([], ["generic"]):
            for beta1 in (0, 0.5, 0.9, 0.99, 0.999):
                for beta2 in (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999):
                    out = pathlib.Path(folder) / "out"
                    subprocess.run([TOOL, out, str(beta1), f"{beta2:.7f}", "1e-12", str(UPDATES), *isa], check=True)
                    data = numpy.fromfile(out, "<f4").reshape(2, UPDATES, COUNT)
                    wanted = torch_movement(data[0], beta1, beta2, 1e-12, torch.float64)
                    own = error(data[1][-1].astype(numpy.float64), wanted)
                    theirs = error(torch_movement(data[0], beta1, beta2, 1e-12, torch.float32), wanted)
                    assert own <= max(MEDIAN, theirs), f"beta1 {beta1}, beta2 {beta2} {isa}: off by {own:.1e} at the " \
                                                       f"median, PyTorch's f32 by {theirs:.1e}"
                    worst.append((own, beta1, beta2, theirs))
    print("worst median: {0:.1e} at beta1 {1}, beta2 {2}, where PyTorch's f32 has {3:.1e}".format(*max(worst)))
    sys.exit(0)


if __name__ == "__main__":
    main()
