"""Real data through the daemon: accuracies that the Keras examples promise. MNIST and IMDB come from a folder named by HORN_DATA (the originals, by
their usual names: mnist/train-images-idx3-ubyte.gz ..., text/imdb_train.tsv.gz); by default data/ in the repository's root; without it these are skipped. --long takes three seeds."""
import gzip
import os
import re
from collections import Counter

import numpy as np

from harness import LONG, ROOT, Daemon, Skip, example, run, test

DATA = os.environ.get("HORN_DATA", os.path.join(ROOT, "data"))
SEEDS = (1, 2, 3)


def mnist(d):
    if not os.path.exists(os.path.join(DATA, "mnist")):
        raise Skip(f"no MNIST under {DATA}; set HORN_DATA")
    for array, name in (("x_train", "train-images-idx3"), ("y_train", "train-labels-idx1"), ("x_test", "t10k-images-idx3"), ("y_test", "t10k-labels-idx1")):
        with open(os.path.join(DATA, "mnist", name + "-ubyte.gz"), "rb") as f:
            assert d.put(f"/api/v1/datasets/mnist/{array}", f.read()).code == 201


def accuracy(d, name, epochs, seed, policy=None):
    job = example(name)
    for layer in job["model"]["architecture"]["config"]["layers"] if policy else []:
        if layer["class_name"] != "InputLayer":
            layer["config"]["dtype"] = policy
    job["fit"]["epochs"] = epochs
    job["seed"] = seed
    return d.finish(d.submit(job), seconds=3000)["metrics"]["val_accuracy"]


@test
def mnist_mlp_learns_from_all_sixty_thousand_images():
    """After two epochs; twenty of them over three seeds are part of --long."""
    with Daemon() as d:
        mnist(d)
        got = accuracy(d, "mnist-mlp", 2, 1)
        print(f"    val_accuracy {got:.4f} after 2 epochs")
        assert got > 0.96


@test
def mnist_mlp_learns_as_well_in_mixed_bfloat16():
    with Daemon() as d:
        mnist(d)
        got = accuracy(d, "mnist-mlp", 2, 1, "mixed_bfloat16")
        print(f"    val_accuracy {got:.4f} after 2 epochs")
        assert got > 0.96


@test
def mnist_mlp_reaches_98_2_percent_over_three_seeds_in_both_dialects():
    if not LONG:
        raise Skip("only with --long")
    with Daemon() as d:
        mnist(d)
        for name in ("mnist-mlp", "mnist-mlp-keras1"):
            got = [accuracy(d, name, 20, s) for s in SEEDS]
            print(f"    {name}: {got}")
            assert np.mean(got) >= 0.982, got


@test
def mnist_cnn_reaches_98_9_percent_after_three_epochs_in_both_dialects():
    if not LONG:
        raise Skip("only with --long")
    with Daemon() as d:
        mnist(d)
        for name in ("mnist-cnn", "mnist-cnn-keras1"):
            got = [accuracy(d, name, 3, s) for s in (SEEDS if name == "mnist-cnn" else (1,))]
            print(f"    {name}: {got}")
            assert np.mean(got) >= 0.989, got


@test
def an_lstm_learns_two_thousand_reviews():
    path = os.path.join(DATA, "text/imdb_train.tsv.gz")
    if not os.path.exists(path):
        raise Skip(f"no IMDB under {DATA}; set HORN_DATA")
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as f:
        rows = [f.readline().rstrip("\n").split("\t") for _ in range(2000)]
    texts = [re.findall(r"[a-z']+", r[3].lower().replace("<br />", " ")) for r in rows]
    rank = {w: i + 3 for i, (w, _) in enumerate(Counter(w for t in texts for w in t).most_common(19990))}
    x = np.zeros((2000, 80), "int32")
    for i, t in enumerate(texts):
        ids = [rank.get(w, 2) for w in t][-80:]
        x[i, 80 - len(ids):] = ids
    with Daemon() as d:
        d.upload("imdb/x_train", x)
        d.upload("imdb/y_train", np.array([int(r[0]) for r in rows], "int32"))
        j = d.finish(d.submit(example("imdb-lstm")))
        print(f"    training accuracy {j['metrics']['accuracy']:.4f} after 5 epochs")
        assert j["metrics"]["accuracy"] > 0.9


run()
