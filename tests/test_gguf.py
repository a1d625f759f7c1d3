#!/usr/bin/env python3
"""GGUF files that tsr_convert writes, read by the official gguf package: names, shapes, types and every value.

    test_gguf.py LIBRARY MODEL      skips (77) where the package is not there
"""
import ctypes
import os
import sys
import tempfile

try:
    import gguf
    import numpy as np
except ImportError:
    sys.exit(77)


class Params(ctypes.Structure):
    _fields_ = [("type", ctypes.c_char_p), ("overwrite", ctypes.c_bool)]


def convert(lib, model, out, kind):
    handle = ctypes.c_void_p()
    if lib.tsr_model_open(ctypes.byref(handle), model.encode()) or lib.tsr_convert(
            handle, out.encode(), ctypes.byref(Params(kind.encode(), False)), None):
        sys.exit(lib.tsr_last_error().decode())
    lib.tsr_model_close(ctypes.byref(handle))


def shape_of(reader, t, ints):
    """The true shape, as ComfyUI's loaders read it."""
    field = reader.get_field("comfy.gguf.orig_shape." + t.name)
    if field is None:
        return [int(d) for d in reversed(t.shape)]
    assert field.types == [gguf.GGUFValueType.ARRAY, ints], t.name
    return [int(field.parts[i][0]) for i in field.data]


def check(source, path, kind):
    reader = gguf.GGUFReader(path)
    assert len(reader.tensors) == len(source), (len(reader.tensors), len(source))
    assert str(bytes(reader.get_field("general.architecture").parts[-1]), "utf-8") == "seedvr2_vae"
    quantised = 0
    for t in reader.tensors:
        values, shape = source[t.name]
        found = shape_of(reader, t, gguf.GGUFValueType.INT32)
        assert found == shape, (t.name, found, shape)
        rows = values.reshape(shape[0], -1) if len(shape) == 5 else values.reshape(shape)
        if rows.ndim > 1:
            block = gguf.GGML_QUANT_SIZES[kind][0]
            want = kind if rows.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16
            quantised += want == kind
        else:
            want = gguf.GGMLQuantizationType.F32
        assert t.tensor_type == want, (t.name, t.tensor_type)
        packed = gguf.quants.quantize(rows, want)
        assert np.array_equal(np.ascontiguousarray(t.data).view(np.uint8).ravel(), packed.view(np.uint8).ravel()), t.name
    assert quantised > 10, quantised
    return quantised


def main():
    lib = ctypes.CDLL(sys.argv[1])
    lib.tsr_last_error.restype = ctypes.c_char_p
    original = gguf.GGUFReader(sys.argv[2])
    source = {t.name: (gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32), shape_of(original, t, gguf.GGUFValueType.INT64))
              for t in original.tensors}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"):
            path = os.path.join(folder, kind + ".gguf")
            convert(lib, sys.argv[2], path, kind.lower())
            n = check(source, path, gguf.GGMLQuantizationType[kind])
            print(f"{kind}: {n} tensors, {os.path.getsize(path)} bytes")


main()
