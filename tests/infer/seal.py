"""Computes the checksums of a model's file of few bits (src/infer/file.h), written again from the format."""
import struct

MASK = (1 << 64) - 1


def add(total, raw):
    for (word,) in struct.iter_unpack("<Q", raw + bytes(-len(raw) % 8)):
        total = (total ^ word) * 0x9E3779B97F4A7C15 & MASK
        total ^= total >> 32
    return total


def seal(raw):
    """Returns the file with its size and the checksum of its head corrected."""
    head = struct.unpack_from("<Q", raw, 24)[0]
    if not 48 <= head <= len(raw) or head % 64:
        return raw
    raw = bytearray(raw)
    struct.pack_into("<Q", raw, 16, len(raw))
    total = add(len(raw[:head]), bytes(raw[:32]))
    struct.pack_into("<Q", raw, 32, add(add(total, bytes(8)), bytes(raw[40:head])))
    return bytes(raw)
