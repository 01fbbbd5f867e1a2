"""The client horn, as a person uses it."""
import json
import os
import subprocess

import numpy as np

from harness import BUILD, ROOT, Daemon, example, run, test
from parts import put_set, small_job

HORN = os.path.join(ROOT, BUILD, "horn")


def horn(d, *args, stdin=None, code=0):
    done = subprocess.run([HORN, *args], capture_output=True, text=True, input=stdin, timeout=120, env={**os.environ, "HORN_URL": d.url})
    assert done.returncode == code, (args, done)
    return done.stdout if code == 0 else done.stderr


@test
def every_command_does_what_its_help_says():
    with Daemon() as d:
        path = d.folder + "/a.npy"
        np.save(path, np.ones((3, 2), "float32"))
        assert horn(d, "upload", "s/a", path) == "s/a  float32 (3, 2)\n"
        put_set(d)
        job = json.dumps(small_job(validation_split=0.1))
        assert '"parameters":67' in horn(d, "submit", "-", "--dry-run", stdin=job)
        out = horn(d, "submit", "-", "--watch", stdin=job)
        assert "job 1 " in out and "Epoch 2/2" in out and "val_accuracy" in out and "job 1 is done: model small version 1" in out, out
        assert "job 1 is done" in horn(d, "watch", "1")
        assert "small" in horn(d, "jobs")
        table = horn(d, "profile", "1")
        assert table.startswith("job 1: fit of small\n") and "matmul.product" in table, table
        request = d.folder + "/r.json"
        with open(request, "w") as f:
            json.dump({"inputs": [[1, 2, 3, 4]]}, f)
        assert json.loads(horn(d, "predict", "small", request))["version"] == 1
        np.save(path, np.ones((1, 4), "float32"))
        assert len(json.loads(horn(d, "predict", "small", path))["outputs"]) == 1
        assert "seed 9223372036854775807\n" in horn(d, "submit", "-", stdin=json.dumps({**small_job(), "seed": 2**63 - 1}))
        id = d.submit(small_job(epochs=100000))
        assert f"job {id} is " in horn(d, "cancel", str(id))


@test
def what_the_daemon_refuses_is_printed_and_the_exit_code_says_so():
    with Daemon() as d:
        assert "no such" in horn(d, "watch", "77", code=1)
        assert "no such" in horn(d, "profile", "77", code=1)
        text = horn(d, "submit", "-", stdin='{"type": "fit"}', code=1)
        assert "422" in text or "400" in text, text
        assert "cannot be opened" in horn(d, "upload", "a/b", "/nowhere", code=1)
        assert "usage" in horn(d, "upload", code=2)
    assert "no answer" in horn(d, "jobs", code=1)


@test
def the_examples_are_accepted():
    """Dry runs of every example, with data of the right shape."""
    with Daemon() as d:
        for name in ("mnist", "fashion"):
            for part in ("train", "test"):
                d.upload(f"{name}/x_{part}", np.zeros((256, 28, 28), "uint8"))
                d.upload(f"{name}/y_{part}", np.zeros(256, "uint8"))
        d.upload("imdb/x_train", np.ones((64, 80), "int32"))
        d.upload("imdb/y_train", np.ones(64, "int32"))
        for name in ("fashion-mlp", "fashion-cnn", "mnist-mlp", "mnist-cnn", "mnist-mlp-keras1", "mnist-cnn-keras1", "imdb-lstm"):
            r = d.post("/api/v1/jobs?dry_run=true", example(name))
            assert r.code == 200 and r.json["parameters"] > 600000, (name, r)


run()
