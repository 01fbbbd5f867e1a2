"""One peer on one row. Usage: peer.py PEER ROW THREADS SECONDS. The last line is {"samples": rates, "peak_mib": ...}, with rates over windows of
epochs as common.windows() makes them. PEER is torch, torch-compiled, keras-jax or keras-tf.

After a few steps, in which everything is compiled, an epoch's length is chosen: all rows, or for who is slow as many as take about a second."""
import json
import os
import sys
import time

peer, name, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TF_CPP_MIN_LOG_LEVEL="3", JAX_PLATFORMS="cpu",
                  TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS="1", CUDA_VISIBLE_DEVICES="")

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import peak_mib, windows
from rows import ROWS

row = ROWS[name]
x, y = row.data()
clock = time.perf_counter


def start_torch():
    """Adam is the fused one, PyTorch's fastest on a CPU."""
    import torch

    global x, y
    torch.set_num_threads(threads)
    model = row.torch(torch.nn)
    binary = row.loss == "binary_crossentropy"
    loss_fn = torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss()
    tx = torch.from_numpy(x)
    ty = torch.tensor(y, dtype=torch.float32).reshape(-1, 1) if binary else torch.tensor(y, dtype=torch.int64)
    if x.ndim == 4:  # rows of (height, width, channels) are PyTorch's channels_last already
        model, tx = model.to(memory_format=torch.channels_last), tx.permute(0, 3, 1, 2)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    model.train()
    if peer == "torch-compiled":
        model = torch.compile(model)

    def epoch(n):
        order = torch.randperm(n)
        for i in range(0, n, row.batch):
            rows = order[i:i + row.batch]
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=row.policy == "mixed_bfloat16"):
                loss = loss_fn(model(tx[rows]), ty[rows])
            loss.backward()
            optimizer.step()

    def run(n, until):
        times = []
        while not times or not until(len(times)):
            t = clock()
            epoch(n)
            times.append(clock() - t)
        return times

    return run


def start_keras():
    os.environ["KERAS_BACKEND"] = {"keras-jax": "jax", "keras-tf": "tensorflow"}[peer]
    import keras

    if peer == "keras-tf":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = row.keras(keras.layers, keras)
    model.compile("adam", row.loss, metrics=["accuracy"])

    class Clock(keras.callbacks.Callback):
        def __init__(self, until):
            super().__init__()
            self.until, self.times = until, []

        def on_epoch_begin(self, epoch, logs=None):
            self.t = clock()

        def on_epoch_end(self, epoch, logs=None):
            self.times.append(clock() - self.t)
            self.model.stop_training = self.until(len(self.times))

    def run(n, until):
        c = Clock(until)
        model.fit(x[:n], y[:n], batch_size=row.batch, epochs=1 << 20, verbose=0, callbacks=[c])
        return c.times

    return run


run = start_torch() if peer.startswith("torch") else start_keras()
few = min(row.samples, 4 * row.batch)
pace = few / min(run(few, lambda done: done == 3))
n = min(row.samples, max(few, int(pace) // row.batch * row.batch))
began = clock()
times = run(n, lambda done: clock() - began >= seconds)
print(json.dumps({"samples": windows(n, [n / t for t in times]), "peak_mib": peak_mib()}))
