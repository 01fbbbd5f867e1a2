"""What a client can get wrong, and a full disk: each is answered with what, where, both sides and what to do; nothing is lost or half written, and
the daemon goes on."""
import copy
import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
import zipfile

import numpy as np

import contract
from harness import Daemon, Skip, run, test
from parts import npy, put_set, small_job, small_model

Daemon.check = staticmethod(contract.check)


def put(path, value):
    """small_job() with one member changed (or removed: value None stands for removal with the marker)."""
    job = small_job()
    at = job
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return job


def layer(job, i, **config):
    job = copy.deepcopy(job)
    job["model"]["architecture"]["config"]["layers"][i]["config"].update(config)
    return job


def without(*path):
    job = small_job()
    at = job
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return job


def functional(layers, inputs, outputs):
    return {"class_name": "Functional", "config": {"name": "f", "layers": layers, "input_layers": inputs, "output_layers": outputs}}


def node(name, config, inbound, cls="Dense"):
    return {"class_name": cls, "name": name, "config": {"name": name, **config}, "inbound_nodes": inbound}


def tensor(name, shape):
    return {"class_name": "__keras_tensor__", "config": {"shape": shape, "dtype": "float32", "keras_history": [name, 0, 0]}}


IN = {"class_name": "InputLayer", "name": "i", "config": {"batch_shape": [None, 4], "name": "i"}, "inbound_nodes": []}
CYCLE = functional([IN, node("a", {"units": 3}, [{"args": [tensor("b", [None, 3])], "kwargs": {}}]),
                    node("b", {"units": 3}, [{"args": [tensor("a", [None, 3])], "kwargs": {}}])], ["i", 0, 0], ["b", 0, 0])
TWICE = small_model()
TWICE["config"]["layers"][2]["config"]["name"] = "hidden"
LAMBDA = small_model()
LAMBDA["config"]["layers"].insert(1, {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAAA=", None, None], "function_type": "lambda"}})
UNKNOWN = small_model()
UNKNOWN["config"]["layers"].insert(1, {"class_name": "Frobnicate", "config": {"name": "frob"}})


def architecture(a):
    return put(("model", "architecture"), a)


# name, job, HTTP status, words that the answer must hold
CASES = [
    ("an unknown key in the job", put(("colour",), 1), 422, ["colour", "/colour"]),
    ("an unknown key in compile", put(("compile", "optimiser"), "adam"), 422, ["optimiser", "/compile/optimiser"]),
    ("an unknown key in the optimizer", put(("compile", "optimizer"), {"class_name": "Adam", "config": {"learning_rat": 0.1}}), 422, ["learning_rat"]),
    ("an unknown key in fit", put(("fit", "batchsize"), 1), 422, ["batchsize", "batch_size"]),
    ("an unknown key in a callback", put(("fit", "callbacks"), [{"class_name": "EarlyStopping", "config": {"patienc": 1}}]), 422, ["patienc"]),
    ("no type", without("type"), 422, ["type"]),
    ("no model name", without("model", "name"), 422, ["name"]),
    ("no y", without("fit", "y"), 422, ["y"]),
    ("a bad name", put(("model", "name"), "../../etc/passwd"), 422, ["name"]),
    ("epochs 0", put(("fit", "epochs"), 0), 422, ["epochs", "1"]),
    ("initial_epoch as large as epochs", put(("fit", "initial_epoch"), 2), 422, ["initial_epoch"]),
    ("batch_size 0", put(("fit", "batch_size"), 0), 422, ["batch_size", "1048576"]),
    ("a batch_size that is a text", put(("fit", "batch_size"), "16"), 422, ["/fit/batch_size"]),
    ("a seed below 0", put(("seed",), -1), 422, ["seed"]),
    ("a priority of 1001", put(("priority",), 1001), 422, ["priority", "1000"]),
    ("a missing data set", put(("fit", "x"), "nothing/x"), 422, ["nothing"]),
    ("a missing array", put(("fit", "x"), "set/z"), 422, ["z", "x"]),
    ("a loss that is unknown", put(("compile", "loss"), "msee"), (422, 501), ["msee"]),
    ("units 0", layer(small_job(), 1, units=0), 422, ["units", "hidden"]),
    ("negative units", layer(small_job(), 1, units=-3), 422, ["units"]),
    ("units beyond counting", layer(small_job(), 1, units=10**30), 422, ["units"]),
    ("a negative dimension", layer(small_job(), 0, batch_shape=[None, -4]), 422, ["-4"]),
    ("an overflowing shape", layer(small_job(), 0, batch_shape=[None, 2**40, 2**40]), (413, 422), []),
    ("a layer named twice", architecture(TWICE), 422, ["hidden"]),
    ("a cycle", architecture(CYCLE), 422, ["a"]),
    ("a Lambda", architecture(LAMBDA), 501, ["Lambda"]),
    ("an unknown layer", architecture(UNKNOWN), 501, ["Frobnicate"]),
    ("shapes that do not fit", layer(small_job(), 0, batch_shape=[None, 5]), 422, ["4", "5"]),
    ("integer labels for categorical_crossentropy", put(("compile", "loss"), "categorical_crossentropy"), 422, ["sparse_categorical_crossentropy", "one-hot"]),
    ("a model as a number", architecture(7), 422, ["architecture"]),
    ("layers as a text", architecture({"class_name": "Sequential", "config": {"layers": "x"}}), 422, ["layers"]),
]


@test
def each_wrong_job_is_answered_with_what_and_where():
    with Daemon() as d:
        put_set(d)
        for name, job, code, words in CASES:
            r = d.post("/api/v1/jobs", job)
            assert r.code in (code if isinstance(code, tuple) else (code,)), (name, r)
            assert r.headers["Content-Type"] == "application/problem+json", (name, r)
            text = r.body.decode()
            for word in words:
                assert word in text, (name, word, text)
            assert len(r.json["detail"]) > 10, (name, r)
        assert d.get("/api/v1/jobs").json["jobs"] == []
        d.finish(d.submit(small_job()))


@test
def text_that_is_no_json_is_answered_quickly():
    with Daemon() as d:
        put_set(d)
        good = json.dumps(small_job())
        for name, body in (("a lone [", b"["), ("1 MB of [", b"[" * 1000000), ("1 MB of {\"a\":", b'{"a":' * 200000), ("nothing", b""), ("cut", good[:-20].encode()),
                           ("NaN", good.replace('"seed": 5', '"seed": NaN').encode()), ("a key twice", good.replace('"seed": 5', '"seed": 5, "seed": 6').encode()),
                           ("bad UTF-8", good.replace("set/x", "set/\udcff").encode("utf-8", "surrogateescape")), ("behind the end", good.encode() + b"x"),
                           ("a number", b"3"), ("nul", b"\0" * 100)):
            began = time.time()
            r = d.post("/api/v1/jobs", body, headers={"Content-Type": "application/json"})
            assert r.code in (400, 413, 422) and r.headers["Content-Type"] == "application/problem+json", (name, r)
            assert time.time() - began < 2, name
        r = d.post("/api/v1/jobs", b'{"a":"' + b"x" * (17 << 20) + b'"}', headers={"Content-Type": "application/json"})
        assert r.code == 413, r
        d.finish(d.submit(small_job()))


def zipped(name, body):
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(name, body)
    return f.getvalue()


@test
def broken_files_are_refused_and_leave_nothing():
    huge = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }".ljust(117) + b"\n" + bytes(80)
    whole = io.BytesIO()
    np.savez(whole, x=np.ones(1000), y=np.ones(5))
    files = {"a truncated npy": npy(np.ones(1000, "float32"))[:-7], "a 10^9 element header": huge, "a truncated npz": whole.getvalue()[:-300],
             "an object array": npy(np.array([{}], dtype=object)), "nothing": b"", "noise": os.urandom(5000), "a text in a csv": b"1,2\n3,x\n",
             "ragged csv": b"1,2\n3\n", "a truncated idx": struct.pack(">IIII", 0x803, 10, 28, 28) + bytes(100), "a truncated gzip": gzip.compress(os.urandom(1000))[:-50],
             "a bomb": gzip.compress(bytes(300 << 20)), "a path in a zip": zipped("../../x.npy", npy(np.ones(3)))}
    with Daemon() as d:
        for name, body in files.items():
            for path in ("/api/v1/datasets/bad/x", "/api/v1/datasets/bad"):
                r = d.put(path, body)
                assert r.code in (400, 413, 415, 422), (name, path, r.code, r.body[:200])
                assert len(r.json["detail"]) > 10, (name, r)
        assert d.get("/api/v1/datasets").json["datasets"] == []
        assert os.listdir(os.path.join(d.folder, "data", "tmp")) == []
        for body in (b"", b"\x89HDF\r\n\x1a\n" + os.urandom(4000), os.urandom(1000)):
            assert d.put("/api/v1/models/bad", body).code in (400, 415, 422)
        assert d.put("/api/v1/datasets/a%2Fb/x", npy(np.ones(3))).code in (404, 422)
        assert d.put("/api/v1/datasets/..%2f..%2fetc/x", npy(np.ones(3))).code in (404, 422)


@test
def predictions_of_another_shape_name_both():
    with Daemon() as d:
        put_set(d)
        d.finish(d.submit(small_job()))
        url = "/api/v1/models/small/predict"
        for body, words in (({"inputs": [[1, 2, 3]]}, ["3", "4"]), ({"inputs": [1, 2, 3, 4]}, ["4"]), ({"inputs": [[1, 2], [3]]}, []), ({"inputs": "x"}, []),
                            ({}, ["inputs"]), ({"inputs": []}, []), ({"inputs": [[1, 2, 3, 4]], "more": 1}, ["more"]), ({"inputs": {"nobody": [[1, 2, 3, 4]]}}, ["nobody"])):
            r = d.post(url, body)
            assert r.code in (400, 422), (body, r)
            for w in words:
                assert w in r.json["detail"] + r.json.get("pointer", ""), (body, r)
        for text in (b'{"inputs": [[1, 2, 3, NaN]]}', b'{"inputs": [[1, 2, 3, 1e999]]}', b'{"inputs": [[01, 2, 3, 4]]}', b'{"inputs": [[1, 2, 3, 4]]', b'{"inputs": ' + b"[" * 1000000):
            r = d.post(url, text, headers={"Content-Type": "application/json"})
            assert r.code in (400, 422), (text[:50], r)
        assert d.post("/api/v1/models/nobody/predict", {"inputs": [[1]]}).code == 404
        assert d.post(url, npy(np.ones((2, 5), "float32")), headers={"Content-Type": "application/x-npy"}).code == 422
        assert d.post(url, {"inputs": [[1, 2, 3, 4]]}).code == 200


@test
def divergence_ends_the_job_with_epoch_step_and_layer():
    with Daemon() as d:
        put_set(d)
        x = np.ones((100, 4), "float32")
        x[70] = np.nan
        d.upload("nan/x", x)
        job = small_job(shuffle=False)
        job["fit"]["x"] = "nan/x"
        j = d.wait(d.submit(job))
        assert j["state"] == "failed", j
        text = j["problem"]["detail"]
        assert "epoch 1" in text and "step 5" in text and "hidden" in text, text
        job["fit"]["callbacks"] = [{"class_name": "TerminateOnNaN"}]
        assert d.wait(d.submit(job))["state"] == "done"


def on_small_disk(megabytes):
    """A Daemon whose data folder is a tmpfs of that size."""
    folder = tempfile.mkdtemp(prefix="horn-full.")
    os.mkdir(folder + "/data")
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder + "/data"], capture_output=True).returncode:
        shutil.rmtree(folder)
        raise Skip("mounting a tmpfs needs root")
    return Daemon(folder, "--checkpoint-seconds", "0.05")


def unmount(d):
    subprocess.run(["umount", "-l", d.folder + "/data"])
    shutil.rmtree(d.folder, ignore_errors=True)


@test
def a_disk_that_is_full_while_uploading_says_so_and_keeps_what_there_is():
    d = on_small_disk(12)
    try:
        with d:
            put_set(d)
            r = d.put("/api/v1/datasets/big/x", npy(np.random.default_rng(1).random(4 << 20, dtype="float32")))
            assert r.code == 507, r
            assert d.get("/api/v1/datasets/big").code == 404 and os.listdir(d.folder + "/data/tmp") == []
            d.finish(d.submit(small_job()))
    finally:
        unmount(d)


@test
def a_disk_that_is_full_while_training_fails_the_job_or_is_waited_out_and_the_daemon_goes_on():
    d = on_small_disk(16)
    try:
        with d:
            put_set(d, 4000)
            job = small_job(epochs=400)
            id = d.submit(job)
            d.wait(id, ("running",))
            with open(d.folder + "/data/filler", "wb") as f:
                try:
                    while True:
                        f.write(bytes(1 << 16))
                        f.flush()
                except OSError:
                    pass
            time.sleep(1)
            assert d.get("/healthz").code == 200
            r = d.post("/api/v1/jobs", small_job())
            assert r.code in (202, 507), r
            os.unlink(d.folder + "/data/filler")
            j = d.wait(id, seconds=120)
            assert j["state"] in ("done", "failed") and (j["state"] == "done" or "space" in json.dumps(j["problem"])), j
            d.finish(d.submit(small_job()))
    finally:
        unmount(d)


run()
