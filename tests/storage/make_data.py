"""Files of Keras for tests/storage/test_keras_h5.c, each NAME.h5 with NAME.json, which says what must be read out of it.

    KERAS_BACKEND=jax python tests/storage/make_data.py tests/storage/data [all]

Real Keras 3 makes the files of version 3 (of those only `few` are kept in the repository, `all` makes the rest); Keras 1 and 2 no longer
run here, so theirs are laid out by hand as keras 1.2.2 engine/topology.py and keras 2.2.4 engine/saving.py write them. A sum of an array x is
[sum(x), sum((i + 1) x_i)]: the second notices every transposition.
"""
import json
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
import h5py
import numpy as np

FEW = ("keras3_shared_nested", "keras3_mlp")


def sums(x):
    x = np.asarray(x, dtype=np.float64).ravel()
    return [float(x.sum()), float((x * np.arange(1, x.size + 1)).sum())]


def expect(folder, name, **what):
    with open(os.path.join(folder, name + ".json"), "w") as f:
        json.dump(what, f, indent=1)
        f.write("\n")


# --- Keras 3 -------------------------------------------------------------------------------------------------------------------


def leaves(model, prefix=""):
    """(path as Horn names it, layer) of every layer that is no model; InputLayers too."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from leaves(layer, prefix + layer.name + "/")
        else:
            yield prefix + layer.name, layer


def weight_paths(model):
    return {id(v): f"{path}/{v.name}" for path, layer in leaves(model) for v in layer.weights}


def slot_lists(optimizer):
    """Horn's name of each slot -> Keras' list of it, in the order of the trainable variables; {} for none."""
    kind = type(optimizer).__name__
    if kind == "SGD":
        lists = {"momentum": optimizer.momentums}
    elif kind == "Adam":
        lists = {"momentum": optimizer._momentums, "velocity": optimizer._velocities, "velocity_hat": getattr(optimizer, "_velocity_hats", [])}
    elif kind == "RMSprop":
        lists = {"velocity": optimizer._velocities, "momentum": optimizer._momentums, "average_gradient": optimizer._average_gradients}
    else:
        lists = {"accumulator": optimizer._accumulators}
    return {k: [v for v in l if v is not None] for k, l in lists.items() if l and l[0] is not None}


def slots(model):
    paths = weight_paths(model)
    for name, values in slot_lists(model.optimizer).items():
        for variable, value in zip(model.trainable_variables, values):
            yield f"{paths[id(variable)]}/{name}", value


def save(folder, name, model, compact):
    path = os.path.join(folder, name + ".h5")
    if compact:
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w", libver="latest") as f:
            legacy_h5_format.save_model_to_hdf5(model, f)
    else:
        model.save(path)
    paths = weight_paths(model)
    what = {"weights": {paths[id(v)]: sums(v) for v in model.weights}}
    if model.compiled:
        what["iterations"] = int(model.optimizer.iterations.value)
        what["rate"] = float(np.asarray(model.optimizer.learning_rate))
        what["slots"] = {path: sums(v) for path, v in slots(model)}
    expect(folder, name, **what)


def keras3_models():
    import keras
    from keras import layers

    rng = np.random.default_rng(7)

    def fit(model, x, y, optimizer, loss, **k):
        model.compile(optimizer, loss, **k)
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
        return model

    def numbers(*shape):
        return rng.standard_normal(shape).astype("float32")

    keras.utils.set_random_seed(3)
    x = numbers(12, 6)
    mlp = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="relu"), layers.Dropout(0.2), layers.Dense(3, activation="softmax")])
    yield "keras3_mlp", fit(mlp, x, np.arange(12) % 3, keras.optimizers.Adam(0.01, amsgrad=True), "sparse_categorical_crossentropy", metrics=["accuracy"])

    cnn = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, (3, 2)), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(),
                            layers.Flatten(), layers.Dense(2, activation="softmax")])
    yield "keras3_cnn", fit(cnn, numbers(12, 6, 6, 2), np.eye(2, dtype="float32")[np.arange(12) % 2], keras.optimizers.RMSprop(0.003, momentum=0.5, centered=True),
                            keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["categorical_accuracy"])

    # "b" is deeper than "a", so Keras lists it first; the nested model holds weights that do not train.
    i, shared = keras.Input((4,), name="i"), layers.Dense(4, name="shared")
    inner_in = keras.Input((4,))
    inner = keras.Model(inner_in, layers.BatchNormalization(name="norm")(layers.Dense(4, name="d")(inner_in)), name="inner")
    a = layers.Dense(4, name="a")(i)
    b = layers.Dense(4, name="b")(shared(shared(i)))
    joined = layers.Concatenate(name="joined")([a, inner(layers.Add(name="sum")([b, inner(i)]))])
    nested = keras.Model(i, [layers.Dense(1, name="out_1")(joined), layers.Dense(2, name="out_2")(joined)])
    yield "keras3_shared_nested", fit(nested, numbers(12, 4), [numbers(12, 1), numbers(12, 2)],
                                      keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True, clipvalue=0.5), ["mean_squared_error", "mean_absolute_error"],
                                      loss_weights=[1.0, 0.5])

    lstm = keras.Sequential([keras.Input((5,)), layers.Embedding(9, 3, mask_zero=True), layers.LSTM(4, return_sequences=True), layers.LSTM(2),
                             layers.Dense(1, activation="sigmoid")])
    yield "keras3_lstm", fit(lstm, rng.integers(0, 9, (12, 5)), (np.arange(12) % 2).reshape(-1, 1), keras.optimizers.Adagrad(0.05), "binary_crossentropy",
                             metrics=[keras.metrics.BinaryAccuracy(name="hits", threshold=0.4)])

    frozen = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="still"), layers.BatchNormalization(name="norm"), layers.Dense(1, name="moving")])
    frozen.get_layer("still").trainable = False
    frozen.get_layer("norm").trainable = False
    yield "keras3_frozen", fit(frozen, x, numbers(12, 1), keras.optimizers.SGD(0.1), "mean_squared_error")

    yield "keras3_uncompiled", keras.Sequential([keras.Input((2,)), layers.Dense(2)])


def keras3_files(folder, only=None):
    for name, model in keras3_models():
        if only is None or name in only:
            save(folder, name, model, compact=only is not None and len(model.layers) > 5)


# --- Keras 1 and 2, by hand ---------------------------------------------------------------------------------------------------------


class Hand:
    """A file being laid out. `theano` and `tf` say how its convolutions are stored."""

    def __init__(self, folder, name, config, **attrs):
        self.folder, self.name, self.f, self.expected = folder, name, h5py.File(os.path.join(folder, name + ".h5"), "w", libver="latest"), {}
        for key, value in attrs.items():
            self.f.attrs[key] = value.encode()
        self.f.attrs["model_config"] = json.dumps(config).encode()
        self.w = self.f.create_group("model_weights")
        self.names, self.rng = [], np.random.default_rng(len(name))

    def draw(self, path, *shape):
        x = self.rng.standard_normal(shape).astype("float32")
        self.expected[path] = sums(x)
        return x

    def layer(self, name, arrays=()):
        g = self.w.create_group(name)
        self.names.append(name.encode())
        g.attrs["weight_names"] = [key.encode() for key, _ in arrays]
        for key, value in arrays:
            g[key] = value

    def dense(self, path, kernel, bias, n_in, n_out):
        return [(kernel, self.draw(path + "/kernel", n_in, n_out)), (bias, self.draw(path + "/bias", n_out))]

    def done(self, **what):
        self.w.attrs["layer_names"] = self.names
        self.f.close()
        expect(self.folder, self.name, weights=self.expected, **what)


def th(kernel):
    """(rows, columns, in, out) as Theano's backend stores it in dim_ordering th: transposed and turned by 180 degrees."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1])


def keras1_cnn_theano(folder):
    config = [
        {"class_name": "Convolution2D", "config": {"name": "conv", "nb_filter": 3, "nb_row": 3, "nb_col": 2, "border_mode": "valid", "activation": "relu",
                                                  "dim_ordering": "th", "subsample": [1, 1], "init": "glorot_uniform", "bias": True, "trainable": True,
                                                  "batch_input_shape": [None, 2, 6, 5], "input_dtype": "float32"}},
        {"class_name": "BatchNormalization", "config": {"name": "norm", "mode": 0, "axis": 1, "epsilon": 0.001, "momentum": 0.99, "trainable": True}},
        {"class_name": "Flatten", "config": {"name": "flat", "trainable": True}},
        {"class_name": "Dense", "config": {"name": "dense", "output_dim": 2, "input_dim": 48, "activation": "softmax", "bias": True, "trainable": True}},
    ]
    training = {"optimizer_config": {"class_name": "Adam", "config": {"lr": 0.0020000000949949026, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-08, "decay": 0.0}},
                "loss": "categorical_crossentropy", "metrics": ["accuracy"], "sample_weight_mode": None, "loss_weights": None}
    h = Hand(folder, "keras1_cnn_theano", {"class_name": "Sequential", "config": config}, keras_version="1.2.2", training_config=json.dumps(training))
    h.layer("conv", [("conv_W", th(h.draw("conv/kernel", 3, 2, 2, 3))), ("conv_b", h.draw("conv/bias", 3))])
    h.layer("norm", [(f"norm_{n}", h.draw(f"norm/{ours}", 3)) for n, ours in
                     (("gamma", "gamma"), ("beta", "beta"), ("running_mean", "moving_mean"), ("running_std", "moving_variance"))])
    h.layer("flat")
    h.layer("dense", h.dense("dense", "dense_W", "dense_b", 48, 2))
    o = h.f.create_group("optimizer_weights")
    o.attrs["weight_names"] = [b"iterations", b"param_0"]
    o["iterations"], o["param_0"] = np.float32(5), np.zeros((3, 2, 3, 2), "float32")
    h.done(note="Keras 1", dialect="Keras 1")


def gates(x):
    """Columns i f c o as Keras 1's list of four."""
    return np.split(x, 4, axis=-1)


def keras1_lstm_tensorflow(folder):
    """Twelve arrays, names with :0, and a nested Sequential, whose layers are listed one by one."""
    inner = {"class_name": "Sequential", "config": [
        {"class_name": "Embedding", "config": {"name": "words", "input_dim": 7, "output_dim": 3, "init": "uniform", "mask_zero": False, "dropout": 0.0,
                                               "batch_input_shape": [None, 4], "input_dtype": "int32", "input_length": 4, "trainable": True}},
        {"class_name": "LSTM", "config": {"name": "memory", "output_dim": 2, "init": "glorot_uniform", "inner_init": "orthogonal", "forget_bias_init": "one",
                                          "activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": False, "go_backwards": False,
                                          "stateful": False, "unroll": False, "consume_less": "cpu", "dropout_W": 0.0, "dropout_U": 0.0, "input_dim": 3,
                                          "trainable": True}},
    ]}
    config = [inner, {"class_name": "Dense", "config": {"name": "out", "output_dim": 1, "activation": "sigmoid", "bias": True, "input_dim": 2, "trainable": True}}]
    h = Hand(folder, "keras1_lstm_tensorflow", {"class_name": "Sequential", "config": config}, keras_version="1.2.2")
    top = "sequential_2"
    h.layer("words", [("words_W:0", h.draw(f"{top}/words/embeddings", 7, 3))])
    w, u, b = (gates(h.draw(f"{top}/memory/{n}", *s)) for n, s in (("kernel", (3, 8)), ("recurrent_kernel", (2, 8)), ("bias", (8,))))
    h.layer("memory", [(f"memory_{letter}_{gate}:0", part[i]) for gate, i in (("i", 0), ("c", 2), ("f", 1), ("o", 3)) for letter, part in (("W", w), ("U", u), ("b", b))])
    h.layer("out", h.dense("out", "out_W:0", "out_b:0", 2, 1))
    h.done(dialect="Keras 1")


def keras2_nested_theano(folder):
    """A functional model around a nested one: all of its trainable weights first. Kernels (rows, columns, in, out), turned."""
    def node(*sources):
        return [[[s, n, 0, {}] for s, n in sources]]

    def conv(name):
        return {"name": name, "trainable": True, "filters": 2, "kernel_size": [2, 3], "strides": [1, 1], "padding": "same", "data_format": "channels_last",
                "dilation_rate": [1, 1], "activation": "linear", "use_bias": True, "kernel_initializer": {"class_name": "VarianceScaling", "config": {
                    "scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}}, "bias_initializer": {"class_name": "Zeros", "config": {}},
                "kernel_regularizer": None, "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None, "bias_constraint": None}

    def input_layer(name):
        return {"name": name, "class_name": "InputLayer", "config": {"batch_input_shape": [None, 4, 4, 2], "dtype": "float32", "sparse": False, "name": name}, "inbound_nodes": []}

    norm = {"name": "norm", "trainable": True, "axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True}
    inner = {"name": "inner", "class_name": "Model", "config": {"name": "inner", "layers": [
        input_layer("inner_in"),
        {"name": "norm", "class_name": "BatchNormalization", "config": norm, "inbound_nodes": node(("inner_in", 0))},
        {"name": "conv", "class_name": "Conv2D", "config": conv("conv"), "inbound_nodes": node(("norm", 0))},
    ], "input_layers": [["inner_in", 0, 0]], "output_layers": [["conv", 0, 0]]}, "inbound_nodes": node(("in", 0))}
    config = {"name": "model_1", "layers": [
        input_layer("in"), inner,
        {"name": "gap", "class_name": "GlobalAveragePooling2D", "config": {"name": "gap", "trainable": True, "data_format": "channels_last"}, "inbound_nodes": node(("inner", 1))},
        {"name": "dense", "class_name": "Dense", "config": {"name": "dense", "trainable": True, "units": 3, "activation": "linear", "use_bias": True}, "inbound_nodes": node(("gap", 0))},
    ], "input_layers": [["in", 0, 0]], "output_layers": [["dense", 0, 0]]}
    training = {"optimizer_config": {"class_name": "SGD", "config": {"lr": 0.01, "momentum": 0.0, "decay": 0.001, "nesterov": False}}, "loss": "mse", "metrics": [],
                "sample_weight_mode": None, "loss_weights": None}
    h = Hand(folder, "keras2_nested_theano", {"class_name": "Model", "config": config}, keras_version="2.2.4", backend="theano", training_config=json.dumps(training))
    h.w.attrs["keras_version"], h.w.attrs["backend"] = b"2.2.4", b"theano"
    h.layer("in")
    gamma, beta, mean, variance = (h.draw(f"inner/norm/{n}", 2) for n in ("gamma", "beta", "moving_mean", "moving_variance"))
    kernel, bias = h.draw("inner/conv/kernel", 2, 3, 2, 2), h.draw("inner/conv/bias", 2)
    h.layer("inner", [("norm/gamma", gamma), ("norm/beta", beta), ("conv/kernel", np.ascontiguousarray(kernel[::-1, ::-1])), ("conv/bias", bias),
                      ("norm/moving_mean", mean), ("norm/moving_variance", variance)])
    h.layer("gap")
    h.layer("dense", h.dense("dense", "dense/kernel", "dense/bias", 2, 3))
    h.done(dialect="Keras 2")


def hand_files(folder):
    keras1_cnn_theano(folder)
    keras1_lstm_tensorflow(folder)
    keras2_nested_theano(folder)


if __name__ == "__main__":
    to = sys.argv[1]
    os.makedirs(to, exist_ok=True)
    keras3_files(to, None if "all" in sys.argv[2:] else FEW)
    hand_files(to)
