"""The models of bench/train: data of the right shape, the model in Keras and in PyTorch, and what Horn aims at.

An aim is a ratio to the best peer in the same run, for one thread and for two."""
import gzip
import os

import numpy as np

ROWS = {}
CIFAR = os.path.join(os.environ.get("HORN_DATA", "data"), "cifar10/data_batch_1.bin.gz")


class Row:
    """samples: of an epoch, a multiple of the batch; half a second's work or more on a fast machine. rival: the peer to take if only one is.
    policy: Keras' dtype policy; mixed_bfloat16 is autocast in PyTorch."""

    def __init__(self, name, title, aims, batch, samples, x, classes, keras, torch, rival, loss="sparse_categorical_crossentropy", policy="float32"):
        self.name, self.title, self.aims, self.batch, self.samples, self.x, self.classes = name, title, aims, batch, samples, x, classes
        self.make_keras, self.torch, self.rival, self.loss, self.policy = keras, torch, rival, loss, policy
        ROWS[name] = self

    def keras(self, layers, keras):
        """The model, its layers computing by the row's policy."""
        keras.config.set_dtype_policy(self.policy)
        try:
            return self.make_keras(layers, keras)
        finally:
            keras.config.set_dtype_policy("float32")

    def data(self, samples=None):
        rng, n = np.random.default_rng(1), samples or self.samples
        y = rng.integers(0, self.classes, n).astype("int32")
        return self.x(rng, n), y

    def aim(self, threads):
        return self.aims[min(threads, 2) - 1]


def floats(*shape):
    return lambda rng, n: rng.random((n, *shape), dtype="float32")


def cifar(rng, n):
    """The first images of CIFAR-10's first batch where HORN_DATA has it, else random ones of that shape."""
    if not os.path.exists(CIFAR):
        return rng.random((n, 32, 32, 3), dtype="float32")
    with gzip.open(CIFAR) as f:
        records = np.frombuffer(f.read(3073 * n), "uint8").reshape(n, 3073)
    return np.ascontiguousarray(records[:, 1:].reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)).astype("float32") / 255


def words(vocabulary, length):
    return lambda rng, n: rng.integers(1, vocabulary, (n, length)).astype("int32")


def keras_mlp(L, K):
    return K.Sequential([K.Input((784,)), L.Dense(512, activation="relu"), L.Dropout(0.2), L.Dense(512, activation="relu"), L.Dropout(0.2),
                         L.Dense(10, activation="softmax")])


def torch_mlp(N):
    return N.Sequential(N.Linear(784, 512), N.ReLU(), N.Dropout(0.2), N.Linear(512, 512), N.ReLU(), N.Dropout(0.2), N.Linear(512, 10))


def keras_small(L, K):
    return K.Sequential([K.Input((20,)), L.Dense(64, activation="relu"), L.Dense(64, activation="relu"), L.Dense(2, activation="softmax")])


def torch_small(N):
    return N.Sequential(N.Linear(20, 64), N.ReLU(), N.Linear(64, 64), N.ReLU(), N.Linear(64, 2))


def keras_cnn(L, K):
    return K.Sequential([K.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.Conv2D(64, 3, activation="relu"), L.MaxPooling2D(2),
                         L.Dropout(0.25), L.Flatten(), L.Dense(128, activation="relu"), L.Dropout(0.5), L.Dense(10, activation="softmax")])


def torch_cnn(N):
    return N.Sequential(N.Conv2d(1, 32, 3), N.ReLU(), N.Conv2d(32, 64, 3), N.ReLU(), N.MaxPool2d(2), N.Dropout(0.25), N.Flatten(),
                        N.Linear(9216, 128), N.ReLU(), N.Dropout(0.5), N.Linear(128, 10))


def keras_resnet(L, K):
    """ResNet-20 for 32 x 32 images: He et al. 2015, section 4.2."""
    x = image = K.Input((32, 32, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = L.ReLU()(L.BatchNormalization()(L.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)))
            y = L.BatchNormalization()(L.Conv2D(width, 3, padding="same", use_bias=False)(y))
            if stride > 1:
                x = L.BatchNormalization()(L.Conv2D(width, 1, strides=2, use_bias=False)(x))
            x = L.ReLU()(L.Add()([x, y]))
    return K.Model(image, L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(x)))


def torch_resnet(N):
    class Block(N.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.body = N.Sequential(N.Conv2d(a, b, 3, stride, 1, bias=False), N.BatchNorm2d(b), N.ReLU(), N.Conv2d(b, b, 3, 1, 1, bias=False),
                                     N.BatchNorm2d(b))
            self.skip = N.Sequential(N.Conv2d(a, b, 1, stride, bias=False), N.BatchNorm2d(b)) if stride > 1 else N.Identity()

        def forward(self, x):
            return (self.body(x) + self.skip(x)).relu()

    blocks, a = [], 16
    for stage, b in enumerate((16, 32, 64)):
        for block in range(3):
            blocks.append(Block(a, b, 2 if stage and not block else 1))
            a = b
    return N.Sequential(N.Conv2d(3, 16, 3, 1, 1, bias=False), N.BatchNorm2d(16), N.ReLU(), *blocks, N.AdaptiveAvgPool2d(1), N.Flatten(), N.Linear(64, 10))


def keras_lstm(L, K):
    return K.Sequential([K.Input((80,), dtype="int32"), L.Embedding(20000, 128), L.LSTM(128), L.Dense(1, activation="sigmoid")])


def torch_lstm(N):
    class Net(N.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.lstm, self.out = N.Embedding(20000, 128), N.LSTM(128, 128, batch_first=True), N.Linear(128, 1)

        def forward(self, x):
            return self.out(self.lstm(self.embedding(x))[0][:, -1])

    return Net()


def keras_wide(L, K):
    return K.Sequential([K.Input((4096,)), L.Dense(4096, activation="relu"), L.Dense(4096, activation="relu"), L.Dense(10, activation="softmax")])


def torch_wide(N):
    return N.Sequential(N.Linear(4096, 4096), N.ReLU(), N.Linear(4096, 4096), N.ReLU(), N.Linear(4096, 10))


def keras_conv(L, K):
    return K.Sequential([K.Input((56, 56, 64)), L.Conv2D(64, 3, padding="same", activation="relu"), L.GlobalAveragePooling2D(),
                         L.Dense(10, activation="softmax")])


def torch_conv(N):
    return N.Sequential(N.Conv2d(64, 64, 3, padding=1), N.ReLU(), N.AdaptiveAvgPool2d(1), N.Flatten(), N.Linear(64, 10))


image = floats(28, 28, 1)
Row("mlp", "MLP 784-512-512-10, dropout, b128", (1.4, 1.6), 128, 25600, floats(784), 10, keras_mlp, torch_mlp, "keras-jax")
Row("small", "MLP 20-64-64-2, b32", (5, 5), 32, 256000, floats(20), 2, keras_small, torch_small, "keras-jax")
Row("cnn", "mnist_cnn, b128", (1.5, 1.7), 128, 2560, image, 10, keras_cnn, torch_cnn, "keras-tf")
Row("resnet20", f"ResNet-20 on {'CIFAR-10' if os.path.exists(CIFAR) else 'random 32x32 images'}, b128", (1.4, 1.4), 128, 1280, cifar, 10, keras_resnet, torch_resnet, "torch")
Row("lstm", "Embedding(20000) + LSTM(128), T80, b32", (1.3, 1.3), 32, 2560, words(20000, 80), 2, keras_lstm, torch_lstm, "torch",
    "binary_crossentropy")
Row("mlp-b32", "the MLP, b32", (1.3, 1.3), 32, 12800, floats(784), 10, keras_mlp, torch_mlp, "keras-jax")
Row("mlp-b1024", "the MLP, b1024", (1.3, 1.3), 1024, 25600, floats(784), 10, keras_mlp, torch_mlp, "keras-jax")
Row("cnn-b32", "mnist_cnn, b32", (1.3, 1.3), 32, 2560, image, 10, keras_cnn, torch_cnn, "keras-tf")
Row("wide", "MLP 4096-4096-4096-10, b256", (1.0, 1.0), 256, 1024, floats(4096), 10, keras_wide, torch_wide, "torch")
Row("conv", "Conv 64->64 3x3 at 56x56, b16", (1.0, 1.0), 16, 320, floats(56, 56, 64), 10, keras_conv, torch_conv, "torch")
Row("mlp-bf16", "the MLP, b128, mixed_bfloat16", (1.3, 1.3), 128, 12800, floats(784), 10, keras_mlp, torch_mlp, "torch", policy="mixed_bfloat16")
Row("cnn-bf16", "mnist_cnn, b128, mixed_bfloat16", (1.3, 1.3), 128, 2560, image, 10, keras_cnn, torch_cnn, "torch", policy="mixed_bfloat16")
