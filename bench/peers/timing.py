"""Shared by the PyTorch peers: timing by events (on a CPU by the clock), medians with quartiles, and checks for
features of this PyTorch."""
import json
import statistics
import sys
import time

import torch


def has(path):
    """Returns whether this PyTorch has torch.<path>."""
    at = torch
    for name in path.split("."):
        if not hasattr(at, name):
            return False
        at = getattr(at, name)
    return True


class Clock:
    """Times calls on `device`. On a GPU, each call follows an untimed write to a buffer larger than the GPU's cache."""

    def __init__(self, device, flush=True):
        self.cuda = device.startswith("cuda")
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device=device) if self.cuda and flush else None

    def once(self, call):
        if not self.cuda:
            began = time.perf_counter()
            call()
            return time.perf_counter() - began
        if self.flush is not None:
            self.flush.zero_()
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1e3

    def times(self, call, warm_up, repeats):
        for _ in range(warm_up):
            self.once(call)
        return [self.once(call) for _ in range(repeats)]


def figures(seconds, **work):
    """Returns the raw numbers with median and quartiles. work: flops= or bytes= of one call become rates."""
    low, median, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    found = {"seconds_median": median, "seconds_quartiles": [low, high], "seconds": seconds}
    if "flops" in work:
        found["tflops"] = work["flops"] / median / 1e12
    if "bytes" in work:
        found["gbytes_per_second"] = work["bytes"] / median / 1e9
    return found


def machine(device):
    found = {"torch": torch.__version__, "device": "cpu", "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        found.update(device=torch.cuda.get_device_name(), cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    return found


def show(results, out):
    text = json.dumps(results, indent=1)
    if out:
        with open(out, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        sys.stdout.write(text + "\n")
