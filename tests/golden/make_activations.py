"""Writes tests/golden/activations.inc: every activation of Keras 3 and its gradient, from real Keras on JAX.

    KERAS_BACKEND=jax python tests/golden/make_activations.py

Each row has the name, the values y of the function at x (ROWS x WIDTH numbers, last axis WIDTH), and the gradient of sum(r y)
with respect to x. Points are away from kinks, but for the smooth functions, which also get 0 and large numbers. Keras 1's
hard sigmoid, which Keras 3 no longer has, is written out here from its formula clip(0.2 x + 0.5, 0, 1); so is sparsemax, from
Martins & Astudillo 2016, algorithm 1, since the one of Keras 3.15 adds up all partial sums for its threshold, where the paper has
the last one, and its results do not sum to 1 (printed when this runs).
"""
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "jax")
import jax
import jax.numpy as jnp
import keras
import numpy as np

ROWS, WIDTH = 3, 8
KINKED = [
    -9.5, -5.25, -3.7, -2.75, -2.2, -1.7, -1.3, -0.75,
    -0.3, -0.1, 0.2, 0.35, 0.6, 0.9, 1.2, 1.6,
    2.1, 2.8, 3.3, 4.5, 5.75, 6.5, 8.0, 20.0,
]
SMOOTH = [
    0.0, -100.0, -30.0, -2.2, -1.7, -1.3, -0.75, -0.5,
    -0.3, -0.1, -0.001, 0.0, 0.001, 0.1, 0.2, 0.35,
    0.5, 1.0, 1.6, 2.8, 4.5, 9.0, 30.0, 80.0,
]
ROWWISE = [
    0.0, 1.0, -1.0, 0.4, 0.3, -2.0, 0.2, 0.6,
    3.0, 2.6, 2.3, -1.0, 2.2, 0.0, -0.5, 2.9,
    -20.0, 30.0, 0.5, 10.0, -3.0, 29.7, 1.0, 2.0,
]

a = keras.activations


def sparsemax(x):
    ordered = -jnp.sort(-x, axis=-1)
    sums = jnp.cumsum(ordered, axis=-1)
    k = jnp.sum(1 + jnp.arange(1, x.shape[-1] + 1) * ordered > sums, axis=-1, keepdims=True)
    tau = (jnp.take_along_axis(sums, k - 1, axis=-1) - 1) / k
    return jnp.maximum(x - tau, 0)


FUNCTIONS = [
    ("linear", a.linear, SMOOTH),
    ("softmax", a.softmax, ROWWISE),
    ("elu", a.elu, SMOOTH),
    ("selu", a.selu, KINKED),
    ("softplus", a.softplus, SMOOTH),
    ("softsign", a.softsign, SMOOTH),
    ("relu", a.relu, KINKED),
    ("relu6", a.relu6, KINKED),
    ("tanh", a.tanh, SMOOTH),
    ("sigmoid", a.sigmoid, SMOOTH),
    ("hard_sigmoid", a.hard_sigmoid, KINKED),
    ("keras1_hard_sigmoid", lambda x: jnp.clip(0.2 * x + 0.5, 0, 1), KINKED),
    ("exponential", a.exponential, SMOOTH),
    ("silu", a.silu, SMOOTH),
    ("swish", a.get("swish"), SMOOTH),
    ("gelu", a.gelu, SMOOTH),
    ("gelu_tanh", lambda x: a.gelu(x, approximate=True), SMOOTH),
    ("leaky_relu", a.leaky_relu, KINKED),
    ("mish", a.mish, SMOOTH),
    ("celu", a.celu, SMOOTH),
    ("glu", a.glu, SMOOTH),
    ("log_softmax", a.log_softmax, ROWWISE),
    ("log_sigmoid", a.log_sigmoid, SMOOTH),
    ("hard_silu", a.hard_silu, KINKED),
    ("hard_swish", a.get("hard_swish"), KINKED),
    ("hard_tanh", a.hard_tanh, KINKED),
    ("hard_shrink", a.hard_shrink, KINKED),
    ("soft_shrink", a.soft_shrink, KINKED),
    ("tanh_shrink", a.tanh_shrink, SMOOTH),
    ("threshold", lambda x: a.threshold(x, 0.0, 0.0), KINKED),
    ("squareplus", a.squareplus, SMOOTH),
    ("sparse_plus", a.sparse_plus, KINKED),
    ("sparse_sigmoid", a.sparse_sigmoid, KINKED),
    ("sparsemax", sparsemax, ROWWISE),
]


def numbers(values):
    def one(v):
        v = float(np.float32(v))
        return "NAN" if np.isnan(v) else f"{v!r}f" if np.isfinite(v) else ("-" if v < 0 else "") + "INFINITY"

    flat = [one(v) for v in np.asarray(values).reshape(-1)]
    lines = [", ".join(flat[i : i + 6]) for i in range(0, len(flat), 6)]
    return "{" + ",\n      ".join(lines) + "}"


def main():
    lines = [f"/* Written by tests/golden/make_activations.py from Keras {keras.__version__} on JAX. name, x, r, y, dx */"]
    for name, function, points in FUNCTIONS:
        x = jnp.asarray(points, dtype="float32").reshape(ROWS, WIDTH)
        y = function(x)
        r = 1 + 0.25 * (jnp.arange(y.size, dtype="float32") % 5).reshape(y.shape)
        dx = jax.grad(lambda x: jnp.sum(function(x) * r))(x)
        lines.append(f'{{"{name}", {y.size},\n     {numbers(x)},\n     {numbers(r)},\n     {numbers(y)},\n     {numbers(dx)}}},')
    path = pathlib.Path(__file__).with_name("activations.inc")
    path.write_text("\n".join(lines) + "\n")
    print(f"{path}: {len(FUNCTIONS)} activations")
    rows = jnp.asarray(ROWWISE, dtype="float32").reshape(ROWS, WIDTH)
    print("sums of sparsemax: Keras", a.sparsemax(rows).sum(-1), "here", sparsemax(rows).sum(-1))


if __name__ == "__main__":
    main()
