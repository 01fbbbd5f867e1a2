"""Real Keras 3 opens the .h5 files that Horn writes, and Horn reads those that Keras saves.

    python tests/interop/test_keras_files.py BUILD      (the build folder, for storage_test_keras_h5)

The C program fills weights and slots with values that follow from their names (pattern() of tests/storage/models.c), so both sides know
them. Keras 3's own load_model() restores the optimizer's counter from a .h5 but not its slots (it builds the optimizer for no variables), so
slots are checked as it would set them if it did: optimizer.build(), then set_weights() in the file's order.
"""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "daemon"), os.path.join(ROOT, "tests", "storage")]
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from harness import BUILD, Skip, run, test  # noqa: E402

try:
    import h5py
    import keras
    import numpy as np

    import make_data
    from keras.src.legacy.saving import legacy_h5_format
except ImportError as e:
    keras, missing = None, e

PROGRAM = os.path.join(ROOT, BUILD, "storage_test_keras_h5")
UPDATES, RATE = 321, 0.0375


def needed():
    if keras is None:
        raise Skip(f"real Keras 3 is needed: {missing}")


def c_program(**env):
    p = subprocess.run([PROGRAM], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr


def pattern(tag, shape):
    h = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in tag.encode():
            h = (h ^ np.uint32(byte)) * np.uint32(16777619)
        x = h ^ (np.arange(int(np.prod(shape, dtype=int)), dtype=np.uint32) * np.uint32(2654435761))
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x2C1B3C6D)
        x ^= x >> np.uint32(12)
    return ((x >> np.uint32(8)).astype(np.float32) / np.float32(16777216) - np.float32(0.5)).reshape(shape)


def check_slots(path, model):
    fresh = type(model.optimizer).from_config(model.optimizer.get_config())
    fresh.build(model.trainable_variables)
    with h5py.File(path) as f:
        values = [np.asarray(v) for v in legacy_h5_format.load_optimizer_weights_from_hdf5_group(f)]
    fresh.set_weights(values)
    assert len(values) == len(fresh.variables), (path, len(values), len(fresh.variables))
    paths = make_data.weight_paths(model)
    for name, lists in make_data.slot_lists(fresh).items():
        assert len(lists) == len(model.trainable_variables)
        for variable, value in zip(model.trainable_variables, lists):
            np.testing.assert_array_equal(np.asarray(value), pattern(f"{paths[id(variable)]}/{name}", value.shape), f"{path}: {paths[id(variable)]}/{name}")


def check_file(path):
    model = keras.models.load_model(path)
    with h5py.File(path) as f:
        stored = sum(len(g.attrs["weight_names"]) for g in f["model_weights"].values())
    assert len(model.weights) == stored, (path, len(model.weights), stored)
    for variable in model.weights:
        tag = make_data.weight_paths(model)[id(variable)]
        np.testing.assert_array_equal(np.asarray(variable), pattern(tag, variable.shape), f"{path}: {tag}")
    assert int(model.optimizer.iterations.value) == UPDATES, (path, model.optimizer.iterations)
    assert np.float32(model.optimizer.learning_rate) == np.float32(RATE), path
    check_slots(path, model)


@test
def keras_loads_every_file_with_weights_and_optimizer_state():
    needed()
    with tempfile.TemporaryDirectory(prefix="horn-h5.") as folder:
        c_program(HORN_H5_OUT=folder)
        names = sorted(n for n in os.listdir(folder) if n.endswith(".h5"))
        assert len(names) >= 20, names
        wrong = []
        for name in names:
            try:
                check_file(os.path.join(folder, name))
            except Exception as e:  # each file is looked at, then all that failed are named
                wrong.append(f"{name}: {type(e).__name__}: {str(e)[:600]}")
        assert not wrong, "\n".join(wrong)


@test
def horn_reads_what_keras_saves_for_every_kind_of_model_and_optimizer():
    needed()
    with tempfile.TemporaryDirectory(prefix="horn-h5.") as folder:
        make_data.keras3_files(folder)
        c_program(HORN_H5_IN=folder)


if __name__ == "__main__":
    run()
