"""A small model, its data and its job, for the daemon tests."""
import io

import numpy as np

RNG = np.random.default_rng(1)


def dense(units, activation, **more):
    return {"class_name": "Dense", "config": {"units": units, "activation": activation, **more}}


def small_model(inputs=4, outputs=3):
    return {"class_name": "Sequential", "config": {"name": "small", "layers": [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, inputs], "name": "in"}}, dense(8, "relu", name="hidden"),
        dense(outputs, "softmax", name="out")]}}


def small_job(**fit):
    return {"type": "fit", "model": {"name": "small", "architecture": small_model()},
            "compile": {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
            "fit": {"x": "set/x", "y": "set/y", "batch_size": 16, "epochs": 2, **fit}, "seed": 5}


def put_set(d, rows=100):
    d.upload("set/x", RNG.random((rows, 4), dtype="float32"))
    d.upload("set/y", RNG.integers(0, 3, rows).astype("uint8"))


def npy(a):
    f = io.BytesIO()
    np.save(f, a)
    return f.getvalue()
