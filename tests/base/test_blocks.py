#!/usr/bin/python3
"""Tests blocks of few bits (base/blocks.h). Compares binary16 with NumPy, and every code of the layouts with the
formulas of the header, written again here, and with the reader of the package gguf if it is installed. Compares the
quantization error with that of rounding by the largest value and, if llama_cpp is installed, with that of ggml's own
search."""
import os
import pathlib
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "export"))
import peers  # noqa: E402

TOOL = pathlib.Path(os.environ.get("ELBO_TESTS", "build/release/tests")) / "base_dump_blocks"
SIZES = {"Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_K": (256, 144), "Q6_K": (256, 210)}


def call(kind, way, data):
    return subprocess.run([TOOL, kind, way], input=data.tobytes(), stdout=subprocess.PIPE, check=True).stdout


def quantize(kind, x):
    return numpy.frombuffer(call(kind, "quantize", x.astype(numpy.float32)), numpy.uint8)


def dequantize(kind, blocks):
    return numpy.frombuffer(call(kind, "dequantize", blocks), numpy.float32)


def half(raw):
    return raw.copy().view(numpy.float16).astype(numpy.float64)


def by_formula(kind, blocks):
    """Decodes blocks (n, bytes) to (n, values)."""
    b = blocks.astype(int)
    if kind == "Q8_0":
        return half(blocks[:, :2]) * blocks[:, 2:].copy().view(numpy.int8)
    if kind == "Q4_0":
        q = numpy.concatenate([b[:, 2:] & 15, b[:, 2:] >> 4], 1)
        return half(blocks[:, :2]) * (q - 8)
    if kind == "Q4_K":
        s = b[:, 4:16]
        scale = numpy.concatenate([s[:, :4] & 63, (s[:, 8:] & 15) | (s[:, :4] >> 6) << 4], 1)
        offset = numpy.concatenate([s[:, 4:8] & 63, (s[:, 8:] >> 4) | (s[:, 4:8] >> 6) << 4], 1)
        q = b[:, 16:].reshape(-1, 4, 1, 32) >> numpy.array([0, 4]).reshape(1, 1, 2, 1) & 15
        q = q.reshape(-1, 8, 32)
        return (half(blocks[:, :2])[:, :, None] * scale[:, :, None] * q
                - half(blocks[:, 2:4])[:, :, None] * offset[:, :, None]).reshape(-1, 256)
    low = b[:, :128].reshape(-1, 2, 1, 64) >> numpy.array([0, 4]).reshape(1, 1, 2, 1) & 15
    high = b[:, 128:192].reshape(-1, 2, 1, 32) >> numpy.array([0, 2, 4, 6]).reshape(1, 1, 4, 1) & 3
    q = (low.reshape(-1, 256) | high.reshape(-1, 256) << 4) - 32
    return half(blocks[:, 208:]) * numpy.repeat(blocks[:, 192:208].copy().view(numpy.int8).astype(int), 16, 1) * q


def check_half():
    codes = numpy.arange(65536, dtype=numpy.uint16)
    back = numpy.frombuffer(call("half", "dequantize", codes), numpy.float32)
    numpy.testing.assert_array_equal(back, codes.view(numpy.float16).astype(numpy.float32))
    rng = numpy.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 1 << 20, dtype=numpy.uint64).astype(numpy.uint32)
    finite = codes.view(numpy.float16)[:0x7c00].astype(numpy.float32)
    between = (finite[1:].astype(float) + finite[:-1]).astype(numpy.float32) / 2
    x = numpy.concatenate([bits.view(numpy.float32), finite, between, numpy.nextafter(between, 0, dtype=numpy.float32),
                           numpy.float32([0, -0.0, 65519, 65520, 65535, 1e30, numpy.inf, -numpy.inf])])
    x = x[~numpy.isnan(x)]
    with numpy.errstate(over="ignore"):
        numpy.testing.assert_array_equal(numpy.frombuffer(call("half", "quantize", x), numpy.uint16),
                                         x.astype(numpy.float16).view(numpy.uint16))


def check_layouts():
    rng = numpy.random.default_rng(2)
    for kind, (values, size) in SIZES.items():
        blocks = rng.integers(0, 256, (300, size), dtype=numpy.uint8)
        at = {"Q4_K": (0, 2), "Q6_K": (208,)}.get(kind, (0,))
        for first in at:  # finite scales
            blocks[:, first:first + 2] = rng.normal(size=300).astype(numpy.float16).view(numpy.uint8).reshape(300, 2)
        expected = by_formula(kind, blocks)
        assert expected.shape == (300, values)
        numpy.testing.assert_allclose(dequantize(kind, blocks).reshape(300, values), expected, rtol=1e-5, atol=1e-6)
        if peers.python("onnx"):
            answer = peers.run("onnx", "-c", "import sys, numpy, gguf.quants as q, gguf; b = numpy.frombuffer("
                               f"bytes.fromhex(sys.stdin.read()), numpy.uint8).reshape(300, {size}); sys.stdout.write("
                               f"q.dequantize(b, gguf.GGMLQuantizationType.{kind}).astype('f4').tobytes().hex())",
                               input=blocks.tobytes().hex())
            assert answer.returncode == 0, answer.stderr
            theirs = numpy.frombuffer(bytes.fromhex(answer.stdout), numpy.float32).reshape(300, values)
            numpy.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-6)


def naive(kind, x):
    """Rounds by the largest value of each block, and for Q4_K by the minimum and maximum of each sub-block."""
    if kind == "Q4_K":
        rows = x.reshape(-1, 32)
        low = numpy.minimum(rows.min(1, keepdims=True), 0)
        d = (rows.max(1, keepdims=True) - low) / 15
        return (numpy.rint((rows - low) / d) * d + low).reshape(x.shape)
    most, count = {"Q8_0": (127, 32), "Q4_0": (7, 32), "Q6_K": (31, 16)}[kind]
    rows = x.reshape(-1, count)
    d = abs(rows).max(1, keepdims=True) / most
    return (numpy.rint(rows / d) * d).reshape(x.shape)


def by_ggml(kind, x):
    """Quantizes the rows with ggml's library from llama_cpp; returns None without it."""
    if not peers.python("llama"):
        return None
    number = {"Q8_0": 8, "Q4_0": 2, "Q4_K": 12, "Q6_K": 14}[kind]
    code = ("import ctypes, glob, os, sys, numpy, llama_cpp\n"
            "lib = ctypes.CDLL(glob.glob(os.path.dirname(llama_cpp.__file__) + '/lib/libggml-base*.so*')[0])\n"
            "x = numpy.frombuffer(bytes.fromhex(sys.stdin.read()), numpy.float32).copy()\n"
            "lib.ggml_quantize_chunk.restype = ctypes.c_size_t\n"
            "out = ctypes.create_string_buffer(x.nbytes)\n"
            f"n = lib.ggml_quantize_chunk({number}, x.ctypes.data_as(ctypes.c_void_p), out, ctypes.c_int64(0), "
            "ctypes.c_int64(x.size // 256), ctypes.c_int64(256), None)\n"
            "sys.stdout.write(out.raw[:n].hex())")
    answer = peers.run("llama", "-c", code, input=x.astype(numpy.float32).tobytes().hex())
    assert answer.returncode == 0, answer.stderr[-1000:]
    return numpy.frombuffer(bytes.fromhex(answer.stdout), numpy.uint8).reshape(-1, SIZES[kind][1])


def check_errors():
    rng = numpy.random.default_rng(3)
    x = (rng.standard_t(6, size=256 * 400) * 0.02).astype(numpy.float32)
    for kind, (values, size) in SIZES.items():
        blocks = quantize(kind, x).reshape(-1, size)
        error = numpy.linalg.norm(by_formula(kind, blocks).reshape(-1) - x) / numpy.linalg.norm(x)
        plain = numpy.linalg.norm(naive(kind, x) - x) / numpy.linalg.norm(x)
        theirs = by_ggml(kind, x)
        said = ""
        if theirs is not None:
            ggml = numpy.linalg.norm(by_formula(kind, theirs).reshape(-1) - x) / numpy.linalg.norm(x)
            said = f", by ggml {ggml:.5f}"
            assert error <= 1.02 * ggml, (kind, error, ggml)
        print(f"{kind}: relative error {error:.5f}, by the largest value {plain:.5f}{said}")
        assert error <= (1.01 if kind == "Q8_0" else 0.99) * plain, (kind, error, plain)
        again = quantize(kind, by_formula(kind, blocks).reshape(-1)).reshape(-1, size)
        gap = numpy.linalg.norm(by_formula(kind, again) - by_formula(kind, blocks)) / numpy.linalg.norm(x)
        assert gap < error, (kind, gap)


def check_edges():
    for kind, (values, _) in SIZES.items():
        for row in (numpy.zeros(values), numpy.full(values, 0.5), numpy.full(values, -3.0), numpy.full(values, 1e-9),
                    numpy.full(values, 1e9), numpy.eye(1, values)[0] * -2, numpy.full(values, numpy.nan)):
            back = dequantize(kind, quantize(kind, row))
            assert numpy.isfinite(back).all(), (kind, row[:3])
            largest = abs(row[numpy.isfinite(row)]).max(initial=0)
            if 1e-5 < largest < 1e5 or largest == 0:
                numpy.testing.assert_allclose(back, numpy.nan_to_num(row), atol=0.02 * largest + 1e-12, err_msg=kind)


def main():
    check_half()
    check_layouts()
    check_edges()
    check_errors()


if __name__ == "__main__":
    main()
