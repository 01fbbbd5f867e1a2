"""Makes the files beside it: what h5py and numpy write, for the tests in C. Run with an interpreter that has both."""
import gzip
import os

import h5py
import numpy as np

os.chdir(os.path.dirname(os.path.abspath(__file__)))

with h5py.File("texts.h5", "w") as f:
    f.attrs["str"] = "na\u00efve"
    f.attrs["bytes"] = b"plain"
    f.attrs["fixed"] = np.bytes_("exactly8")
    f.attrs["long"] = "x" * 100000
    f.attrs["empty"] = ""
    f.attrs["list"] = ["a", "bcd", ""]
    f.attrs.create("fixed_list", np.asarray([b"conv", b"dense_1"]))
    f.attrs["none"] = []
    f.attrs["number"] = 7
    for i, part in enumerate(np.array_split(np.asarray([b"layer_%04d" % n for n in range(7)]), 3)):
        f.attrs["split%d" % i] = part
    f.create_group("b/inner")
    f.create_group("a")

with h5py.File("numbers.h5", "w") as f:
    for t in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 >f4 >i2".split():
        f.create_dataset(t.replace(">", "big_"), data=np.asarray([[0, 1, 2], [3, 4, 100]], t))
    f.create_dataset("bool", data=np.asarray([True, False, True]))
    f.create_dataset("scalar", data=np.float32(2.5))
    f.create_dataset("none", shape=(0, 3), dtype="f4")
    f.create_dataset("packed", data=np.arange(1000, dtype="f4").reshape(10, 100), chunks=(3, 7), compression="gzip",
                     shuffle=True, fletcher32=True)
    f.create_dataset("text", data="words")
    f.create_dataset("pair", data=np.zeros(2, [("a", "f4"), ("b", "i4")]))

for name, make in {
    "external_link": lambda f: f.__setitem__("x", h5py.ExternalLink("numbers.h5", "/f4")),
    "soft_link": lambda f: f.__setitem__("x", h5py.SoftLink("/y")),
    "external_data": lambda f: f.create_dataset("g/x", (4,), "u1", external=[("/etc/passwd", 0, 4)]),
    "filter": lambda f: f.create_dataset("x", data=np.arange(100), compression="lzf"),
    "named_type": lambda f: f.__setitem__("x", np.dtype("f4")),
}.items():
    with h5py.File(name + ".h5", "w") as f:
        make(f)

with h5py.File("virtual.h5", "w") as f:
    layout = h5py.VirtualLayout(shape=(2, 3), dtype="f4")
    layout[:] = h5py.VirtualSource("numbers.h5", "f4", shape=(2, 3))
    f.create_virtual_dataset("x", layout)

with h5py.File("cycle.h5", "w") as f:
    g = f.create_group("g")
    g["again"] = g

np.savez("two.npz", x=np.arange(12, dtype="f4").reshape(3, 4), y=np.asarray([2, 0, 1], "u1"))
np.savez_compressed("packed.npz", x=np.zeros((100, 100)), y=np.arange(100, dtype=">i8"))
np.savez("one.npz", x=np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)))
np.savez("words.npz", x=np.asarray(["a", "b"]))
np.savez("objects.npz", ok=np.zeros(2), x=np.asarray([{}], dtype=object))
with gzip.GzipFile("two.npz.gz", "w", mtime=0) as f:
    f.write(open("two.npz", "rb").read())
np.save("fortran.npy", np.asfortranarray(np.arange(24, dtype=">f8").reshape(2, 3, 4)))

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras  # noqa: E402  (only for the last two)

for name, layers in {
    "any_length": [keras.Input((None, 3)), keras.layers.LSTM(2), keras.layers.Dense(1)],
    "any_size": [keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()],
}.items():
    keras.Sequential(layers).save(name + ".h5")
