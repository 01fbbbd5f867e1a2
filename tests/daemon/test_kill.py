"""SIGKILL at random moments of a training and of uploads: every acknowledged job and array is there, and each training ends with the bits
of the undisturbed one. Five kills, or fifty with --long."""
import hashlib
import os
import random
import shutil
import socket
import tempfile
import time

import numpy as np

from harness import LONG, ROOT, Daemon, example, run, test

KILLS = 50 if LONG else 5
FLAGS = ("--checkpoint-seconds", "0.3", "--threads", "1", "--lanes", "1")
IMAGES = os.path.join(ROOT, "examples/fashion-mnist")


def read(name):
    with open(os.path.join(IMAGES, name), "rb") as f:
        return f.read()


def put_fashion(d):
    for array, name in (("x_train", "train-20000-images-idx3-ubyte.gz"), ("y_train", "train-20000-labels-idx1-ubyte.gz"),
                        ("x_test", "t10k-images-idx3-ubyte.gz"), ("y_test", "t10k-labels-idx1-ubyte.gz")):
        r = d.put(f"/api/v1/datasets/fashion/{array}", read(name))
        assert r.code == 201, r


def training(epochs=3):
    job = example("fashion-mlp")
    job["fit"]["epochs"] = epochs
    job["fit"]["callbacks"] = [{"class_name": "ReduceLROnPlateau", "config": {"patience": 1, "factor": 0.5}},
                               {"class_name": "EarlyStopping", "config": {"patience": 5, "restore_best_weights": True}}]
    return job


def weights_digest(d, version=1):
    import h5py

    digest = hashlib.sha256()
    with h5py.File(d.model_file("fashion-mlp", version)) as f:
        def add(name, item):
            if isinstance(item, h5py.Dataset):
                digest.update(name.encode() + item[()].tobytes())

        f.visititems(add)
    return digest.hexdigest()


@test
def a_training_killed_at_random_moments_ends_with_the_bits_of_an_undisturbed_one():
    random.seed(1)
    with Daemon(None, *FLAGS) as d:
        put_fashion(d)
        began = time.time()
        d.finish(d.submit(training()))
        seconds = time.time() - began
        want, history = weights_digest(d), d.get("/api/v1/jobs/1/history").json
        # the same seed twice: the same bits
        again = d.finish(d.submit(training()))
        assert again["result"]["version"] == 2
        assert weights_digest(d, 2) == want
    with Daemon(None, *FLAGS) as d:
        put_fashion(d)
        kills, trainings = 0, 0
        while kills < KILLS:
            id = d.submit(training())
            trainings += 1
            while kills < KILLS and d.job(id)["state"] != "done":
                time.sleep(random.uniform(0.05, max(0.5, seconds * 0.6)))
                if d.job(id)["state"] == "done":
                    break
                d.kill()
                kills += 1
                d.start()
                assert d.job(id)["state"] in ("queued", "running"), d.job(id)
            j = d.finish(id)
            assert weights_digest(d, j["result"]["version"]) == want, f"training {trainings}: other bits after kills"
            assert d.get(f"/api/v1/jobs/{id}/history").json == history
        resumed = d.log().count("goes on at epoch")
        print(f"    {kills} kills in {trainings} trainings of {seconds:.1f} s, {resumed} resumes from a checkpoint, bits equal")
        assert resumed >= KILLS // 5, resumed


@test
def an_upload_cut_by_a_kill_leaves_nothing_and_acknowledged_ones_are_there():
    random.seed(2)
    rng = np.random.default_rng(1)
    body = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2000000,), }".ljust(117) + b"\n"
    body += rng.random(2000000, dtype="float32").tobytes()
    with Daemon(None, *FLAGS) as d:
        acknowledged = []
        for i in range(KILLS):
            r = d.put(f"/api/v1/datasets/good/a{i}", body)
            assert r.code == 201, r
            acknowledged.append(f"a{i}")
            s = socket.create_connection((d.host, int(d.port)))
            s.sendall(f"PUT /api/v1/datasets/cut/a{i} HTTP/1.1\r\nHost: {d.host}:{d.port}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            s.sendall(body[: random.randrange(len(body))])
            time.sleep(random.uniform(0, 0.1))
            d.kill()
            s.close()
            d.start()
            names = [a["name"] for a in d.get("/api/v1/datasets/good").json["arrays"]]
            assert sorted(names) == sorted(acknowledged), (names, acknowledged)
            assert d.get("/api/v1/datasets/cut").code == 404
            assert os.listdir(os.path.join(d.folder, "data", "tmp")) == []


@test
def sigterm_checkpoints_and_the_next_start_goes_on_from_there():
    with Daemon(None, "--checkpoint-seconds", "3600", "--threads", "1") as d:
        put_fashion(d)
        d.finish(d.submit(training(2)))
        want = weights_digest(d)
        id = d.submit(training(2))
        end = time.time() + 60
        while d.job(id)["state"] != "running" or not (d.job(id)["progress"] or {}).get("step"):
            assert time.time() < end
            time.sleep(0.02)
        assert d.stop() == 0
        d.start()
        j = d.finish(id)
        assert j["attempt"] == 2, j
        assert weights_digest(d, 2) == want


run()
