"""Writes tests/golden/data/*.bin: what Keras 3 (JAX backend) computes for small models, to be compared by test_golden.c.

    KERAS_BACKEND=jax python tests/golden/make_golden.py [name ...]

Each file is one model. It begins with the eight bytes "HORNGOLD", then records up to the end of the file, all little-endian:

    u32 length of the name, the name, u8 type (0 text, 1 float32, 2 int32), u8 rank, u32 dimensions..., the elements

    model, compile           JSON: model.to_json(), and the optimizer, loss and metrics as a fit job has them
    x/0 .., y/0 .., s/0 ..   inputs, targets, sample weights by output
    w/LAYER/NAME             weights before training
    out/0 ..                 outputs in inference
    test_names, test         loss and metrics of evaluate(): a JSON list, and the values
    g/LAYER/NAME             gradients of the first step
    losses                   loss of each of ten steps, before its update
    t/LAYER/NAME             weights after ten steps
"""

import json
import os
import struct
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import keras
import numpy as np
from keras import layers as L

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 10


class Writer:
    def __init__(self, path):
        self.file = open(path, "wb")
        self.file.write(b"HORNGOLD")

    def text(self, name, text):
        data = text.encode()
        self.record(name, 0, (len(data),), data)

    def array(self, name, x):
        x = np.asarray(x)
        if x.dtype.kind in "iu":
            self.record(name, 2, x.shape, x.astype("<i4").tobytes())
        else:
            self.record(name, 1, x.shape, x.astype("<f4").tobytes())

    def record(self, name, kind, shape, data):
        name = name.encode()
        self.file.write(struct.pack("<I", len(name)) + name + struct.pack("<BB", kind, len(shape)))
        self.file.write(struct.pack("<%dI" % len(shape), *shape) + data)


def numbers(*shape, scale=1.0, seed=0):
    return np.random.RandomState(seed + sum(shape)).randn(*shape).astype("float32") * scale


def whole(*shape, below, seed=0):
    return np.random.RandomState(seed + sum(shape)).randint(0, below, shape).astype("int32")


def one_hot(*shape, below, seed=0):
    return np.eye(below, dtype="float32")[whole(*shape, below=below, seed=seed)]


def variables(model, which):
    """(layer/name, variable) for each leaf layer's weights; nested models give outer/inner/name."""

    def walk(layer, prefix):
        if isinstance(layer, keras.Model):
            for inner in layer.layers:
                yield from walk(inner, prefix + layer.name + "/" if prefix is not None else "")
            return
        for v in layer.weights:
            yield (prefix or "") + layer.name + "/" + v.name, v

    for name, v in walk(model, None):
        if which is None or any(v is t for t in which):
            yield name, v


def jsonable(x):
    return json.loads(json.dumps(x))


def compile_json(optimizer, loss, metrics):
    def plain(o):
        return o if isinstance(o, (str, list, type(None))) else {"class_name": type(o).__name__, "config": jsonable(o.get_config())}

    config = {k: v for k, v in jsonable(optimizer.get_config()).items()}
    losses = [plain(l) for l in loss] if isinstance(loss, list) else plain(loss)
    return {"optimizer": {"class_name": type(optimizer).__name__, "config": config}, "loss": losses,
            "metrics": [plain(m) for m in metrics] or None}


def golden(name, model, x, y, loss="mse", optimizer=None, metrics=(), weights=None):
    optimizer = optimizer or keras.optimizers.SGD(0.05)
    xs, ys = (x if isinstance(x, list) else [x]), (y if isinstance(y, list) else [y])
    rng = np.random.RandomState(5)
    for v in model.weights:  # biases and gammas away from their plain first values
        value = np.asarray(v)
        if v.name in ("bias", "beta", "moving_mean"):
            v.assign(value + 0.1 * rng.randn(*value.shape))
        elif v.name in ("gamma", "moving_variance"):
            v.assign(value * (1 + 0.2 * rng.rand(*value.shape)))
    w = Writer(os.path.join(HERE, "data", name + ".bin"))
    w.text("model", model.to_json())
    w.text("compile", json.dumps(compile_json(optimizer, loss, metrics)))
    for i, a in enumerate(xs):
        w.array("x/%d" % i, a)
    for i, a in enumerate(ys):
        w.array("y/%d" % i, a)
    if weights is not None:
        w.array("s/0", weights)
    for key, v in variables(model, None):
        w.array("w/" + key, v)
    out = model.predict(x, verbose=0, batch_size=1000)
    for i, a in enumerate(out if isinstance(out, list) else [out]):
        w.array("out/%d" % i, a)
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics))
    test = model.evaluate(x, y, sample_weight=weights, verbose=0, batch_size=1000, return_dict=True)
    w.text("test_names", json.dumps(list(test)))
    w.array("test", np.array(list(test.values()), "float32"))
    train(w, model, xs if len(xs) > 1 else xs[0], ys if len(ys) > 1 else ys[0], weights)
    for key, v in variables(model, None):
        w.array("t/" + key, v)
    w.file.close()


def train(w, model, x, y, weights):
    """Ten steps by the functions that Keras' own JAX trainer is made of."""
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(x, y, weights)) if not model.built else None
    t = [v.value for v in model.trainable_variables]
    n = [v.value for v in model.non_trainable_variables]
    o = [v.value for v in model.optimizer.variables]
    m = [v.value for v in model.metrics_variables]
    grad = jax.jit(jax.value_and_grad(lambda t, n, m, o: model.compute_loss_and_updates(
        t, n, m, x, y, weights, training=True, optimizer_variables=o), has_aux=True))
    losses = []
    for step in range(STEPS):
        (loss, aux), g = grad(t, n, m, o)
        if step == 0:
            for key, v in variables(model, model.trainable_variables):
                i = [k for k, u in enumerate(model.trainable_variables) if u is v][0]
                w.array("g/" + key, g[i])
        n, m = aux[2], aux[3]
        losses.append(float(loss))
        t, o = model.optimizer.stateless_apply(o, g, t)
    w.array("losses", np.array(losses, "float32"))
    for v, value in zip(model.trainable_variables, t):
        v.assign(value)
    for v, value in zip(model.non_trainable_variables, n):
        v.assign(value)


def mlp(units=4, activation=None, last=None):
    return keras.Sequential([keras.Input((5,), name="in"), L.Dense(7, activation=activation or "tanh", name="hidden"),
                             L.Dense(units, activation=last, name="out")])


CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


def layer_case(name, layer, x, tail=True):
    """One layer between the data and a mean squared error; `tail` puts a Dense behind it, so that its gradient is not trivial."""

    def make():
        inputs = keras.Input(x.shape[1:], dtype=str(x.dtype), name="in")
        y = layer(inputs)
        if tail:
            y = L.Dense(3, name="tail")(y)
        model = keras.Model(inputs, y)
        target = numbers(*model.predict(x, verbose=0, batch_size=1000).shape, seed=9)
        golden(name, model, x, target)

    CASES[name] = make


reg = keras.regularizers
images, images_first = numbers(4, 7, 6, 4), numbers(4, 4, 7, 6)
steps = numbers(5, 6, 3)

layer_case("dense", L.Dense(6, activation="relu", name="d"), numbers(8, 5))
layer_case("dense_time", L.Dense(6, activation="elu", use_bias=False, name="d"), steps)
layer_case("dense_regularized", L.Dense(6, name="d", kernel_regularizer=reg.L1L2(0.01, 0.02), bias_regularizer=reg.L2(0.03),
                                        activity_regularizer=reg.L1(0.04)), numbers(8, 5))
for activation in ("gelu", "selu", "silu", "softplus", "softsign", "hard_sigmoid", "exponential", "leaky_relu", "mish", "relu6",
                   "log_softmax", "softmax", "sigmoid", "tanh", "hard_silu", "celu", "elu"):
    layer_case("activation_" + activation, L.Activation(activation, name="a"), numbers(8, 5))
layer_case("flatten", L.Flatten(name="f"), images)
layer_case("flatten_first", L.Flatten(data_format="channels_first", name="f"), images_first)
layer_case("reshape", L.Reshape((3, -1, 2), name="r"), numbers(4, 6, 4))
layer_case("dropout_off", L.Dropout(0.0, name="d"), numbers(8, 5))
layer_case("rescaling", L.Rescaling(0.5, offset=-1.0, name="r"), numbers(8, 5))
layer_case("rescaling_channels", L.Rescaling([0.5, 1, 2, 3], offset=[-1.0, 0, 1, 2], name="r"), images)
layer_case("conv_valid", L.Conv2D(5, (3, 2), activation="relu", name="c"), images)
layer_case("conv_same_stride", L.Conv2D(5, 3, strides=(2, 3), padding="same", name="c"), images)
layer_case("conv_even_same", L.Conv2D(3, 4, strides=2, padding="same", use_bias=False, name="c"), images)
layer_case("conv_dilated", L.Conv2D(5, (2, 3), dilation_rate=(3, 2), padding="same", name="c"), images)
layer_case("conv_groups", L.Conv2D(6, 3, groups=2, name="c", kernel_regularizer=reg.L2(0.01)), images)
layer_case("conv_first", L.Conv2D(5, 3, data_format="channels_first", padding="same", activation="tanh", name="c"), images_first)
layer_case("conv_softmax_first", L.Conv2D(5, 3, data_format="channels_first", activation="softmax", name="c"), images_first)
layer_case("pool_max", L.MaxPooling2D(name="p"), images)
layer_case("pool_max_same", L.MaxPooling2D((3, 2), strides=(2, 1), padding="same", name="p"), images)
layer_case("pool_average", L.AveragePooling2D((3, 2), name="p"), images)
layer_case("pool_average_same", L.AveragePooling2D(3, strides=2, padding="same", name="p"), images)
layer_case("pool_max_first", L.MaxPooling2D(2, data_format="channels_first", name="p"), images_first)
layer_case("pool_global", L.GlobalAveragePooling2D(name="p"), images)
layer_case("pool_global_keep", L.GlobalAveragePooling2D(keepdims=True, name="p"), images)
layer_case("pool_global_first", L.GlobalAveragePooling2D(data_format="channels_first", name="p"), images_first)
layer_case("padding", L.ZeroPadding2D(((1, 2), (0, 3)), name="p"), images)
layer_case("padding_first", L.ZeroPadding2D(2, data_format="channels_first", name="p"), images_first)
layer_case("norm", L.BatchNormalization(name="n"), numbers(8, 5))
layer_case("norm_images", L.BatchNormalization(momentum=0.7, epsilon=0.01, name="n"), images)
layer_case("norm_axis", L.BatchNormalization(axis=1, name="n"), images_first)
layer_case("norm_plain", L.BatchNormalization(center=False, scale=False, name="n"), steps)
layer_case("norm_frozen", L.BatchNormalization(trainable=False, name="n"), numbers(8, 5))
layer_case("softmax", L.Softmax(name="s"), numbers(8, 5))
layer_case("softmax_axis", L.Softmax(axis=1, name="s"), steps)
layer_case("relu", L.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2, name="r"), numbers(8, 5))
layer_case("leaky_relu", L.LeakyReLU(negative_slope=0.2, name="r"), numbers(8, 5))
layer_case("embedding", L.Embedding(7, 4, name="e", embeddings_regularizer=reg.L2(0.01)), whole(5, 6, below=7))
layer_case("lstm", L.LSTM(4, name="l"), steps)
layer_case("lstm_sequences", L.LSTM(4, return_sequences=True, name="l", kernel_regularizer=reg.L2(0.01),
                                    recurrent_regularizer=reg.L1(0.01), bias_regularizer=reg.L2(0.02),
                                    activity_regularizer=reg.L2(0.01)), steps)
layer_case("lstm_backwards", L.LSTM(4, return_sequences=True, go_backwards=True, name="l"), steps)
layer_case("lstm_options", L.LSTM(4, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False,
                                  unit_forget_bias=False, name="l"), steps)


def masked_ids(seed=0):
    x = whole(6, 7, below=9, seed=seed)
    x[0, 4:] = 0
    x[1, :3] = 0
    x[2, 2] = 0
    x[3, :] = 0
    x[4:, 0] = 5
    return x


def mask_case(name, layers, target_rank):
    def make():
        model = keras.Sequential([keras.Input((7,), dtype="int32", name="in"), L.Embedding(9, 4, mask_zero=True, name="e"), *layers])
        golden(name, model, masked_ids(), numbers(*((6, 7, 3) if target_rank == 3 else (6, 3)), seed=3), metrics=["mae"])

    CASES[name] = make


mask_case("mask_loss", [L.Dense(3, name="d")], 3)
mask_case("mask_pass", [L.Dense(5, name="a"), L.Activation("tanh", name="b"), L.Dropout(0.0, name="c"), L.LeakyReLU(name="f"),
                        L.ReLU(name="g"), L.Rescaling(0.5, name="h"), L.Dense(3, name="d")], 3)
mask_case("mask_norm", [L.BatchNormalization(name="n"), L.Dense(3, name="d")], 3)
mask_case("mask_lstm", [L.LSTM(5, name="l"), L.Dense(3, name="d")], 2)
mask_case("mask_lstm_sequences", [L.LSTM(5, return_sequences=True, name="l"), L.Dense(3, name="d")], 3)
mask_case("mask_lstm_zero", [L.LSTM(5, return_sequences=True, zero_output_for_mask=True, name="l"), L.Dense(3, name="d")], 3)
mask_case("mask_lstm_backwards", [L.LSTM(5, return_sequences=True, go_backwards=True, name="l"), L.Dense(3, name="d")], 3)
mask_case("mask_dropped", [L.Flatten(name="f"), L.Dense(3, name="d")], 2)
mask_case("mask_two_lstms", [L.LSTM(5, return_sequences=True, name="l"), L.LSTM(3, name="k")], 2)


def merge_case(name, merge, shapes):
    def make():
        xs = [numbers(*s, seed=i) for i, s in enumerate(shapes)]
        inputs = [keras.Input(s[1:], name="in%d" % i) for i, s in enumerate(shapes)]
        model = keras.Model(inputs, L.Dense(3, name="d")(merge(inputs)))
        golden(name, model, xs, numbers(*model.predict(xs, verbose=0).shape, seed=2))

    CASES[name] = make


merge_case("add", L.Add(name="m"), [(8, 5)] * 3)
merge_case("add_broadcast", L.Add(name="m"), [(4, 6, 5), (4, 5)])
merge_case("multiply", L.Multiply(name="m"), [(8, 5)] * 2)
merge_case("concatenate", L.Concatenate(name="m"), [(8, 5), (8, 2), (8, 3)])
merge_case("concatenate_axis", L.Concatenate(axis=1, name="m"), [(4, 2, 5), (4, 3, 5)])


def masked_merge_case(name, merge, second_masked=True, after=None):
    def make():
        a, b = keras.Input((7,), dtype="int32", name="a"), keras.Input((7,), dtype="int32", name="b")
        p, q = L.Embedding(9, 4, mask_zero=True, name="ea")(a), L.Embedding(9, 4, mask_zero=second_masked, name="eb")(b)
        y = merge([p, q])
        y = L.Dense(3, name="d")(after(y) if after else y)
        model = keras.Model([a, b], y)
        x = [masked_ids(), np.roll(masked_ids(4), 1, 0)]
        golden(name, model, x, numbers(*model.predict(x, verbose=0).shape, seed=3))

    CASES[name] = make


masked_merge_case("mask_add", L.Add(name="m"))
masked_merge_case("mask_add_one", L.Add(name="m"), second_masked=False)
masked_merge_case("mask_multiply", L.Multiply(name="m"))
masked_merge_case("mask_multiply_one", L.Multiply(name="m"), second_masked=False)
masked_merge_case("mask_concatenate", L.Concatenate(name="m"))
masked_merge_case("mask_concatenate_one", L.Concatenate(name="m"), second_masked=False)
masked_merge_case("mask_concatenate_time", L.Concatenate(axis=1, name="m"), second_masked=False, after=L.LSTM(4, name="l"))


@case
def lstm_states():
    a, b = keras.Input((6, 3), name="a"), keras.Input((5, 3), name="b")
    _, h, c = L.LSTM(4, return_state=True, name="encoder")(a)
    y = L.LSTM(4, return_sequences=True, name="decoder")(b, initial_state=[h, c])
    model = keras.Model([a, b], [L.Dense(3, name="d")(y), c])
    golden("lstm_states", model, [steps, numbers(5, 5, 3, seed=1)], [numbers(5, 5, 3, seed=2), numbers(5, 4, seed=4)],
           loss=["mse", "mse"])


@case
def shared_layer():
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    tower = L.Dense(4, activation="tanh", name="tower", kernel_regularizer=reg.L2(0.1))
    norm = L.BatchNormalization(name="norm")
    y = L.Concatenate(name="m")([norm(tower(a)), norm(tower(b))])
    golden("shared_layer", keras.Model([a, b], L.Dense(2, name="d")(y)), [numbers(8, 5), numbers(8, 5, seed=1)],
           numbers(8, 2, seed=2))


@case
def nested_model():
    inner = keras.Sequential([keras.Input((5,), name="i"), L.Dense(4, activation="relu", name="one"), L.Dense(3, name="two")],
                             name="inner")
    a = keras.Input((5,), name="a")
    golden("nested_model", keras.Model(a, L.Dense(2, name="d")(inner(a))), numbers(8, 5), numbers(8, 2, seed=2))


@case
def small_cnn():
    model = keras.Sequential([keras.Input((10, 10, 1), name="in"), L.Conv2D(4, 3, activation="relu", name="c1"),
                              L.BatchNormalization(name="n"), L.MaxPooling2D(name="p"), L.Conv2D(6, 3, padding="same", name="c2"),
                              L.Activation("relu", name="a"), L.Flatten(name="f"), L.Dense(5, activation="softmax", name="d")])
    golden("small_cnn", model, numbers(6, 10, 10, 1), one_hot(6, below=5), loss="categorical_crossentropy",
           optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"])


K = keras.losses


def loss_case(name, loss, y, last, units=4, metrics=("accuracy",), weights=None):
    def make():
        golden("loss_" + name, mlp(units, last=last), numbers(8, 5), y, loss=loss, metrics=metrics, weights=weights)

    CASES["loss_" + name] = make


classes, hot, bits = whole(8, below=4), one_hot(8, below=4), whole(8, 4, below=2).astype("float32")
sample = np.array([1, 2, 0, 0.5, 1, 0, 3, 1], "float32")

loss_case("mse", "mse", numbers(8, 4, seed=3), None, metrics=("mse", "mae"))
loss_case("mae", "mae", numbers(8, 4, seed=3), None, metrics=("mae",))
loss_case("mse_weighted", "mse", numbers(8, 4, seed=3), None, metrics=("mse",), weights=sample)
loss_case("bce", "binary_crossentropy", bits, "sigmoid")
loss_case("bce_one", "binary_crossentropy", bits[:, 0], "sigmoid", units=1)
loss_case("bce_smooth", K.BinaryCrossentropy(label_smoothing=0.2), bits, "sigmoid", metrics=("binary_accuracy",))
loss_case("bce_logits", K.BinaryCrossentropy(from_logits=True), bits, None, metrics=())
loss_case("bce_no_sigmoid", "binary_crossentropy", bits, "softmax")
loss_case("cce", "categorical_crossentropy", hot, "softmax", metrics=("accuracy", "categorical_crossentropy"))
loss_case("cce_smooth", K.CategoricalCrossentropy(label_smoothing=0.3), hot, "softmax")
loss_case("cce_logits", K.CategoricalCrossentropy(from_logits=True), hot, None)
loss_case("cce_no_softmax", "categorical_crossentropy", hot, "sigmoid")
loss_case("scce", "sparse_categorical_crossentropy", classes, "softmax")
loss_case("scce_column", "sparse_categorical_crossentropy", classes[:, None], "softmax",
          metrics=("sparse_categorical_accuracy", "sparse_categorical_crossentropy"))
loss_case("scce_logits", K.SparseCategoricalCrossentropy(from_logits=True), classes, None)
loss_case("scce_no_softmax", "sparse_categorical_crossentropy", classes, "sigmoid")
loss_case("scce_weighted", "sparse_categorical_crossentropy", classes, "softmax", weights=sample)


@case
def loss_scce_time():
    model = keras.Sequential([keras.Input((6, 3), name="in"), L.Dense(4, activation="softmax", name="d")])
    golden("loss_scce_time", model, steps, whole(5, 6, below=4), loss="sparse_categorical_crossentropy", metrics=["accuracy"])


@case
def loss_scce_mask():
    model = keras.Sequential([keras.Input((7,), dtype="int32", name="in"), L.Embedding(9, 4, mask_zero=True, name="e"),
                              L.Dense(5, activation="softmax", name="d")])
    golden("loss_scce_mask", model, masked_ids(), whole(6, 7, below=5), loss="sparse_categorical_crossentropy",
           metrics=["accuracy"])


O = keras.optimizers


def optimizer_case(name, make_optimizer):
    def make():
        golden("optimizer_" + name, mlp(), numbers(8, 5), 3 * numbers(8, 4, seed=3), optimizer=make_optimizer())

    CASES["optimizer_" + name] = make


optimizer_case("sgd", lambda: O.SGD(0.1))
optimizer_case("sgd_momentum", lambda: O.SGD(0.05, momentum=0.8))
optimizer_case("sgd_nesterov", lambda: O.SGD(0.05, momentum=0.8, nesterov=True))
optimizer_case("rmsprop", lambda: O.RMSprop(0.01))
optimizer_case("rmsprop_all", lambda: O.RMSprop(0.01, rho=0.8, momentum=0.5, centered=True, epsilon=1e-4))
optimizer_case("adam", lambda: O.Adam(0.01))
optimizer_case("adam_amsgrad", lambda: O.Adam(0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-4, amsgrad=True))
optimizer_case("adagrad", lambda: O.Adagrad(0.1))
optimizer_case("clipnorm", lambda: O.SGD(0.1, clipnorm=0.3))
optimizer_case("global_clipnorm", lambda: O.Adam(0.01, global_clipnorm=0.5))
optimizer_case("clipvalue", lambda: O.SGD(0.1, momentum=0.9, clipvalue=0.1))
optimizer_case("weight_decay", lambda: O.Adam(0.01, weight_decay=0.1))


def mixed_case(name, make_layers, x, loss="mse", y=None, make_optimizer=lambda: O.SGD(0.05), **more):
    """A model whose layers, made by make_layers() in order, compute in bfloat16."""

    def make():
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = keras.Sequential([keras.Input(x.shape[1:], dtype=str(x.dtype), name="in"), *make_layers()])
        keras.config.set_dtype_policy("float32")
        target = numbers(*model.predict(x, verbose=0, batch_size=1000).shape, seed=9) if y is None else y
        golden("mixed_" + name, model, x, target, loss=loss, optimizer=make_optimizer(), **more)

    CASES["mixed_" + name] = make


mixed_case("dense", lambda: [L.Dense(6, activation="relu", name="a"), L.Dense(3, name="d")], numbers(8, 5))
mixed_case("dense_regularized", lambda: [L.Dense(6, activation="tanh", name="a", kernel_regularizer=reg.L1L2(0.01, 0.02), bias_regularizer=reg.L2(0.03),
                                                 activity_regularizer=reg.L1(0.04)), L.Dense(3, use_bias=False, name="d")], numbers(8, 5))
mixed_case("time", lambda: [L.Dense(6, activation="elu", name="a"), L.Activation("sigmoid", name="b"), L.Dense(3, activation="gelu", name="d")], steps)
mixed_case("moves", lambda: [L.Reshape((4, 6), name="r"), L.Dense(4, name="a"), L.Rescaling(0.5, offset=-1.0, name="s"), L.LeakyReLU(name="k"),
                             L.ReLU(max_value=1.5, name="m"), L.Dropout(0.0, name="o"), L.Flatten(name="f"), L.Dense(3, name="d")], numbers(4, 6, 4))
mixed_case("conv", lambda: [L.Conv2D(5, 3, strides=(2, 3), padding="same", activation="relu", name="c"), L.ZeroPadding2D(1, name="p"),
                            L.Conv2D(6, 2, name="e", use_bias=False), L.GlobalAveragePooling2D(name="g"), L.Dense(3, name="d")], images)
mixed_case("pool", lambda: [L.MaxPooling2D((3, 2), strides=(2, 1), padding="same", name="p"), L.AveragePooling2D(2, name="q"), L.Flatten(name="f"),
                            L.Dense(3, name="d")], images)
mixed_case("norm", lambda: [L.Conv2D(5, 3, use_bias=False, name="c"), L.BatchNormalization(momentum=0.7, name="n"), L.Flatten(name="f"), L.Dense(3, name="d")], images)
mixed_case("embedding", lambda: [L.Embedding(7, 4, name="e"), L.Flatten(name="f"), L.Dense(3, name="d")], whole(5, 6, below=7))
mixed_case("lstm", lambda: [L.LSTM(4, return_sequences=True, name="l"), L.Dense(3, name="d")], steps)
mixed_case("softmax", lambda: [L.Dense(7, activation="relu", name="a"), L.Dense(4, activation="softmax", name="d")], numbers(8, 5),
           loss="categorical_crossentropy", y=hot, metrics=("accuracy",), make_optimizer=lambda: O.Adam(0.01))
mixed_case("sigmoid", lambda: [L.Dense(7, activation="tanh", name="a"), L.Dense(4, activation="sigmoid", name="d")], numbers(8, 5),
           loss="binary_crossentropy", y=bits, metrics=("mae",))
mixed_case("float_end", lambda: [L.Dense(7, activation="relu", name="a"), L.Dense(4, activation="softmax", dtype="float32", name="d")], numbers(8, 5),
           loss="sparse_categorical_crossentropy", y=classes, metrics=("accuracy",), make_optimizer=lambda: O.Adam(0.01))


@case
def mixed_shared():
    keras.config.set_dtype_policy("mixed_bfloat16")
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    tower = L.Dense(4, activation="tanh", name="tower", kernel_regularizer=reg.L2(0.1))
    y = L.Add(name="p")([tower(a), tower(b)])
    y = L.Concatenate(name="m")([y, L.Multiply(name="t")([tower(a), y])])
    model = keras.Model([a, b], L.Dense(2, name="d")(y))
    keras.config.set_dtype_policy("float32")
    golden("mixed_shared", model, [numbers(8, 5), numbers(8, 5, seed=1)], numbers(8, 2, seed=2))


def main():
    for name in sys.argv[1:] or CASES:
        keras.utils.set_random_seed(11)
        CASES[name]()
        print(name, os.path.getsize(os.path.join(HERE, "data", name + ".bin")))


if __name__ == "__main__":
    main()
