"""One peer on one row: prints samples per second of its best epoch. Usage: peer.py PEER ROW THREADS"""
import os
import sys
import time

peer, name, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:threads]))
os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TF_CPP_MIN_LOG_LEVEL="3", JAX_PLATFORMS="cpu",
                  TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS="1", CUDA_VISIBLE_DEVICES="")
EPOCHS, BUDGET = 6, 30.0

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rows import ROWS

row = ROWS[name]
x, y = row.data()
best, began = float("inf"), time.time()

if peer.startswith("torch"):
    import torch

    torch.set_num_threads(threads)
    model = row.torch(torch.nn)
    if peer == "torch-compiled":
        model = torch.compile(model)
    optimizer = torch.optim.Adam(model.parameters())
    binary = row.loss == "binary_crossentropy"
    loss_fn = torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss()
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    tx = torch.tensor(x)
    ty = torch.tensor(y, dtype=torch.float32).reshape(-1, 1) if binary else torch.tensor(y, dtype=torch.int64)
    if x.ndim == 4:
        model, tx = model.to(memory_format=torch.channels_last), tx.contiguous(memory_format=torch.channels_last)
    model.train()
    for epoch in range(EPOCHS):
        t = time.perf_counter()
        order = torch.randperm(len(tx))
        for i in range(0, len(tx), row.batch):
            rows = order[i:i + row.batch]
            optimizer.zero_grad()
            loss_fn(model(tx[rows]), ty[rows]).backward()
            optimizer.step()
        best = min(best, time.perf_counter() - t)
        if epoch > 1 and time.time() - began > BUDGET:
            break
else:
    os.environ["KERAS_BACKEND"] = {"keras-jax": "jax", "keras-tf": "tensorflow"}[peer]
    import keras

    if peer == "keras-tf":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = row.keras(keras.layers, keras)
    model.compile("adam", row.loss, metrics=["accuracy"])

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.t = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            global best
            best = min(best, time.perf_counter() - self.t)
            if epoch > 1 and time.time() - began > BUDGET:
                self.model.stop_training = True

    model.fit(x, y, batch_size=row.batch, epochs=EPOCHS, verbose=0, callbacks=[Clock()])
print(len(x) / best)
