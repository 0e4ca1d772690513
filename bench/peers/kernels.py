#!/usr/bin/env python3
"""Times PyTorch's kernels at the sizes of a training step: the peers of `elbo bench kernels`, and the machine's copy
bandwidth and product rate.

    bench/peers/kernels.py [--device=cuda] [--tokens=8448] [--width=768] [--vocabulary=50257] [--parameters=180000000]
                           [--repeats=30] [--out=FILE]

    copy             a device-to-device copy, bytes read and written
    product          every product of the step, forward, gradient of the input, gradient of the weight
    norm backward    layer norm, all three gradients
    adamw            the fused update
    linear + loss    the output layer and the cross entropy, forward and backward; eager and compiled
    attention        forward and backward at T = 32 .. 256, each backend that accepts it

Features that this PyTorch lacks are named under "missing". --tiny: sizes for a check on a CPU."""
import argparse

import timing
import torch
from torch.nn import functional as F

BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


class Bench:
    def __init__(self, given):
        self.given, self.clock = given, timing.Clock(given.device)
        self.rows, self.missing = [], []

    def new(self, *shape, dtype=torch.bfloat16, gradient=False):
        return torch.randn(*shape, device=self.given.device).to(dtype).requires_grad_(gradient)

    def time(self, kernel, variant, call, **work):
        try:
            seconds = self.clock.times(call, self.given.warm_up, self.given.repeats)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            self.missing.append(f"{kernel}, {variant}: {str(error).strip().splitlines()[0]}")
            return
        self.rows.append({"kernel": kernel, "variant": variant, **timing.figures(seconds, **work)})

    def copy(self):
        x = torch.empty(self.given.copy_bytes, dtype=torch.uint8, device=self.given.device).random_(0, 255)
        y = torch.empty_like(x)
        self.time("copy", f"{x.numel()} bytes", lambda: y.copy_(x), bytes=2 * x.numel())

    def products(self):
        n, d, v = self.given.tokens, self.given.width, self.given.vocabulary
        for name, rows, inner, columns in (("qkv", n, d, 3 * d), ("attention output", n, d, d),
                                           ("feed forward input", n, d, 4 * d), ("feed forward output", n, 4 * d, d),
                                           ("output layer", n, d, v)):
            for dtype in (torch.bfloat16, torch.float32):
                x, w = self.new(rows, inner, dtype=dtype), self.new(columns, inner, dtype=dtype)
                dy = self.new(rows, columns, dtype=dtype)
                label = f"{name}, {rows} x {inner} x {columns}, {str(dtype)[6:]}"
                work = {"flops": 2 * rows * inner * columns}
                self.time("product", f"{label}, forward", lambda x=x, w=w: x @ w.t(), **work)
                self.time("product", f"{label}, input gradient", lambda dy=dy, w=w: dy @ w, **work)
                self.time("product", f"{label}, weight gradient", lambda dy=dy, x=x: dy.t() @ x, **work)

    def norm_backward(self):
        n, d = self.given.tokens, self.given.width
        for dtype in (torch.bfloat16, torch.float32):
            x, dy = self.new(n, d, dtype=dtype), self.new(n, d, dtype=dtype)
            gamma, beta = self.new(d, dtype=dtype), self.new(d, dtype=dtype)
            _, mean, scale = torch.native_layer_norm(x, [d], gamma, beta, 1e-5)
            moved = 3 * n * d * x.element_size()
            self.time("norm backward", f"{n} x {d}, {str(dtype)[6:]}",
                      lambda x=x, dy=dy, mean=mean, scale=scale, gamma=gamma, beta=beta:
                      torch.ops.aten.native_layer_norm_backward(dy, x, [d], mean, scale, gamma, beta,
                                                                [True, True, True]), bytes=moved)

    def adamw(self):
        weights = torch.nn.Parameter(self.new(self.given.parameters, dtype=torch.float32))
        weights.grad = torch.randn_like(weights)
        fused = {"fused": True} if self.given.device.startswith("cuda") else {}
        optimizer = torch.optim.AdamW([weights], lr=1e-4, **fused)
        self.time("adamw", f"{self.given.parameters} elements{', fused' if fused else ''}", optimizer.step,
                  bytes=28 * self.given.parameters)

    def linear_loss(self):
        n, d, v = self.given.tokens, self.given.width, self.given.vocabulary
        labels = torch.randint(v, (n,), device=self.given.device)
        x, w = self.new(n, d, gradient=True), self.new(v, d, gradient=True)

        def loss(x, w):
            return F.cross_entropy((x @ w.t()).float(), labels)

        def both(run):
            x.grad = w.grad = None
            run(x, w).backward()

        label = f"{n} x {d} x {v}, bfloat16"
        self.time("linear + loss", f"{label}, eager", lambda: both(loss), flops=6 * n * d * v)
        if timing.has("compile"):
            compiled = torch.compile(loss)
            self.time("linear + loss", f"{label}, compiled", lambda: both(compiled), flops=6 * n * d * v)
        else:
            self.missing.append("linear + loss, compiled: torch.compile")

    def attention(self):
        n, d, heads = self.given.tokens, self.given.width, self.given.heads
        if not timing.has("nn.functional.scaled_dot_product_attention"):
            self.missing.append("attention: torch.nn.functional.scaled_dot_product_attention")
            return
        for length in self.given.lengths:
            q, k, v = (self.new(n // length, heads, length, d // heads, gradient=True) for _ in range(3))
            dy = self.new(n // length, heads, length, d // heads)

            def both(causal, q=q, k=k, v=v, dy=dy):
                q.grad = k.grad = v.grad = None
                F.scaled_dot_product_attention(q, k, v, is_causal=causal).backward(dy)

            for backend in BACKENDS:
                for causal in (False, True):
                    label = f"T {length}, {n // length} sentences, {heads} heads of {d // heads}, " \
                            f"{'causal, ' if causal else ''}{backend}"
                    # 7 products of 2 n T d operations: two forward, five backward with recomputed scores.
                    flops = 14 * n * length * d / (2 if causal else 1)
                    if not timing.has(f"nn.attention.SDPBackend.{backend}"):
                        self.missing.append(f"attention, {backend}: torch.nn.attention.SDPBackend.{backend}")
                        continue
                    with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, backend)):
                        self.time("attention", label, lambda causal=causal: both(causal), flops=flops)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 8448), ("width", 768), ("heads", 12), ("vocabulary", 50257),
                          ("parameters", 180000000), ("copy_bytes", 1 << 30), ("repeats", 30), ("warm_up", 5)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="copy,products,norm_backward,adamw,linear_loss,attention")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out")
    given = parser.parse_args()
    given.lengths = (32, 64, 128, 256)
    if given.tiny:
        given.tokens, given.width, given.heads, given.vocabulary, given.parameters, given.copy_bytes = \
            24, 16, 2, 50, 1000, 4096
        given.repeats, given.warm_up, given.lengths = 3, 1, (4, 8)
    torch.manual_seed(1)
    bench = Bench(given)
    for part in given.only.split(","):
        getattr(bench, part)()
    timing.show({**timing.machine(given.device), "rows": bench.rows, "missing": sorted(set(bench.missing))}, given.out)


if __name__ == "__main__":
    main()
