"""Reads the results of elbo itself on some sentences: reference.safetensors, read with NumPy alone."""
import json
import struct

import numpy


def load(path):
    """The tensors of a safetensors file; none where there is no file."""
    if not path.exists():
        return {}
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    kinds = {"F32": numpy.float32, "I32": numpy.int32}
    return {name: numpy.frombuffer(raw[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]],
                                   kinds[e["dtype"]]).reshape(e["shape"])
            for name, e in header.items() if name != "__metadata__"}


def parts(flat, offsets):
    """Lists of ids, sentence by sentence."""
    return [flat[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:])]
