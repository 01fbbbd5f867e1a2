"""The contract that clients rely on, each reply held against the specification."""
import io
import json
import os
import socket
import subprocess
import time

import h5py
import numpy as np

import contract
from harness import BUILD, ROOT, Daemon, run, test
from parts import RNG, npy, put_set, small_job

Daemon.check = staticmethod(contract.check)


@test
def system_health_and_specification_answer():
    with Daemon() as d:
        assert d.get("/healthz").code == 200 and d.get("/readyz").code == 200
        r = d.get("/api/v1/system")
        version = open(os.path.join(ROOT, "VERSION")).read().strip()
        assert contract.SPEC["info"]["version"] == version
        assert r.json["version"] == version and r.headers["Server"] == f"horn/{version}", r.headers
        assert subprocess.run([os.path.join(ROOT, BUILD, "hornd"), "--version"], capture_output=True, text=True).stdout.strip().endswith(version)
        assert d.get("/openapi.yaml").body.decode() == open(os.path.join(ROOT, "api-spec/openapi.yaml")).read()
        text = d.get("/metrics").body.decode()
        for line in text.splitlines():
            assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0, line


@test
def no_route_is_404_and_no_method_is_405_as_a_problem():
    with Daemon() as d:
        for method, path, code in (("GET", "/nothing", 404), ("GET", "/api/v1/jobs/999", 404), ("GET", "/api/v1/jobs/x", 404), ("DELETE", "/api/v1/jobs", 405),
                                   ("PATCH", "/api/v1/jobs", 405), ("POST", "/healthz", 405)):
            r = d.request(method, path)
            assert r.code == code and r.headers["Content-Type"] == "application/problem+json" and r.json["status"] == code, (method, path, r)
            if code == 405:
                assert r.headers["Allow"], path


@test
def arrays_are_uploaded_listed_and_deleted():
    with Daemon() as d:
        r = d.put("/api/v1/datasets/mnist/x_train", npy(np.arange(24, dtype="uint8").reshape(2, 3, 4)))
        assert r.code == 201 and r.json["name"] == "mnist"
        a = r.json["arrays"][0]
        assert a["name"] == "x_train" and a["shape"] == [2, 3, 4] and a["dtype"] == "uint8"
        f = io.BytesIO()
        np.savez_compressed(f, x=np.ones((5, 2)), y=np.zeros(5, "int64"))
        assert d.put("/api/v1/datasets/both", f.getvalue()).code == 201
        assert {x["name"]: x["shape"] for x in d.get("/api/v1/datasets/both").json["arrays"]} == {"x": [5, 2], "y": [5]}
        assert d.put("/api/v1/datasets/csv/t", b"a,b\n1,2\n3,4.5\n").json["arrays"][0]["shape"] == [2, 2]
        assert len(d.get("/api/v1/datasets").json["datasets"]) == 3
        assert d.request("DELETE", "/api/v1/datasets/both").code in (200, 204)
        assert d.get("/api/v1/datasets/both").code == 404


@test
def a_job_runs_from_post_to_prediction():
    import keras

    with Daemon() as d:
        put_set(d)
        r = d.post("/api/v1/jobs", small_job(validation_split=0.2))
        assert r.code == 202 and r.headers["Location"] == "/api/v1/jobs/1" and r.json["state"] in ("queued", "running")
        j = d.finish(1)
        assert j["type"] == "fit" and j["model"] == "small" and j["device"] == "cpu:0" and j["attempt"] == 1 and j["seed"] == 5
        assert j["result"] == {"model": "small", "version": 1} and j["problem"] is None and j["queue_position"] is None
        assert set(j["metrics"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        h = d.get("/api/v1/jobs/1/history").json
        assert h["epoch"] == [0, 1] and len(h["val_accuracy"]) == 2 and h["loss"][1] == j["metrics"]["loss"]
        for r in (d.get("/api/v1/jobs/1/history", headers={"Accept": "application/x-hdf5"}), d.get("/api/v1/models/small/versions/1/files/history.h5")):
            assert r.code == 200 and r.headers["Content-Type"] == "application/x-hdf5", r
            with h5py.File(io.BytesIO(r.body)) as f:
                assert {k: v[()].tolist() for k, v in f["epoch"].items()} == h
        assert os.listdir(os.path.join(d.folder, "data", "tmp")) == []
        x = RNG.random((5, 4), dtype="float32")
        p = d.post("/api/v1/models/small/predict", {"inputs": x.astype(float).tolist()})
        assert p.code == 200 and p.json["model"] == "small" and p.json["version"] == 1
        model = keras.models.load_model(d.model_file("small"))
        want = model.predict(x, verbose=0)
        assert np.allclose(p.json["outputs"], want, rtol=1e-5, atol=1e-6)
        assert int(model.optimizer.iterations) == 2 * 5
        q = d.post("/api/v1/models/small/predict", npy(x), headers={"Content-Type": "application/x-npy"})
        assert q.code == 200 and np.allclose(q.json["outputs"], want, rtol=1e-5, atol=1e-6)
        assert d.get("/api/v1/models").json["models"][0]["model"] == "small"
        assert d.get("/api/v1/models/small").code == 200 and d.get("/api/v1/models/small/versions/1").json["job"] == 1
        again = d.post("/api/v1/models/small/versions/1/predict", {"inputs": x.astype(float).tolist()})
        assert again.json["outputs"] == p.json["outputs"]
        assert d.request("DELETE", "/api/v1/models/small").code == 204
        assert d.post("/api/v1/models/small/predict", {"inputs": [[1, 2, 3, 4]]}).code == 404


@test
def training_goes_on_from_a_version_and_from_a_file_that_keras_saved():
    import keras

    with Daemon() as d:
        put_set(d)
        keras.utils.set_random_seed(3)
        m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")])
        m.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        x, y = RNG.random((64, 4), dtype="float32"), RNG.integers(0, 3, 64).astype("int32")
        m.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
        path = d.folder + "/k.h5"
        m.save(path)
        d.upload("go/x", x)
        d.upload("go/y", y)
        r = d.put("/api/v1/models/imported", open(path, "rb").read())
        assert r.code == 201 and r.json == {"model": "imported", "version": 1}, r
        assert np.allclose(d.post("/api/v1/models/imported/predict", {"inputs": x[:3].astype(float).tolist()}).json["outputs"], m.predict(x[:3], verbose=0),
                           rtol=1e-5, atol=1e-6)
        d.finish(d.submit({"type": "fit", "model": {"name": "imported", "version": 1}, "fit": {"x": "go/x", "y": "go/y", "batch_size": 16, "epochs": 2,
                                                                                             "shuffle": False}}))
        m.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
        got = keras.models.load_model(d.model_file("imported", 2))
        for a, b in zip(got.get_weights(), m.get_weights()):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-5), np.abs(a - b).max()
        assert int(got.optimizer.iterations) == int(m.optimizer.iterations)


@test
def a_mixed_bfloat16_model_of_keras_is_served_trained_and_given_back():
    import keras

    with Daemon() as d:
        keras.utils.set_random_seed(4)
        keras.config.set_dtype_policy("mixed_bfloat16")
        L = keras.layers
        m = keras.Sequential([keras.Input((4,)), L.Dense(8, activation="relu"), L.Dropout(0.0), L.Dense(3, activation="softmax", dtype="float32")])
        keras.config.set_dtype_policy("float32")
        m.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        x, y = RNG.random((64, 4), dtype="float32"), RNG.integers(0, 3, 64).astype("int32")
        m.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
        path = d.folder + "/mixed.h5"
        m.save(path)
        d.upload("go/x", x)
        d.upload("go/y", y)
        assert d.put("/api/v1/models/mixed", open(path, "rb").read()).code == 201
        got = d.post("/api/v1/models/mixed/predict", {"inputs": x.astype(float).tolist()}).json["outputs"]
        assert np.allclose(got, m.predict(x, verbose=0), atol=0.01)
        d.finish(d.submit({"type": "fit", "model": {"name": "mixed", "version": 1}, "fit": {"x": "go/x", "y": "go/y", "batch_size": 16, "epochs": 3,
                                                                                          "shuffle": False}}))
        m.fit(x, y, batch_size=16, epochs=3, verbose=0, shuffle=False)
        back = keras.models.load_model(d.model_file("mixed", 2))
        assert [l.dtype_policy.name for l in back.layers] == ["mixed_bfloat16", "mixed_bfloat16", "float32"], [l.dtype_policy for l in back.layers]
        assert all(w.dtype == "float32" for w in back.weights)
        for a, b in zip(back.get_weights(), m.get_weights()):
            assert np.allclose(a, b, atol=0.01), np.abs(a - b).max()


@test
def evaluate_and_bulk_predict_jobs_answer():
    with Daemon() as d:
        put_set(d)
        d.finish(d.submit(small_job()))
        e = d.finish(d.submit({"type": "evaluate", "model": {"name": "small"}, "evaluate": {"x": "set/x", "y": "set/y", "batch_size": 32}}))
        assert set(e["metrics"]) >= {"loss", "accuracy"}, e
        p = d.finish(d.submit({"type": "predict", "model": {"name": "small"}, "predict": {"x": "set/x", "batch_size": 32}}))
        assert p["result"] and d.get("/api/v1/datasets/" + p["result"]["dataset"]).json["arrays"][0]["shape"] == [100, 3], p


@test
def several_inputs_and_outputs_go_by_name():
    import keras

    L = keras.layers
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    shared = L.Dense(4, activation="tanh", name="shared")
    h = L.Concatenate(name="cat")([shared(a), L.Dense(4, name="other")(b)])
    model = keras.Model([a, b], [L.Dense(1, name="first")(h), L.Dense(2, activation="softmax", name="second")(h)])
    with Daemon() as d:
        for name, array in (("a", RNG.random((50, 3))), ("b", RNG.random((50, 2))), ("f", RNG.random((50, 1))), ("s", RNG.integers(0, 2, 50))):
            d.upload("m/" + name, array.astype("float32") if array.dtype.kind == "f" else array)
        job = {"type": "fit", "model": {"name": "multi", "architecture": json.loads(model.to_json())},
               "compile": {"optimizer": "sgd", "loss": {"first": "mse", "second": "sparse_categorical_crossentropy"}, "metrics": {"second": ["accuracy"]},
                           "loss_weights": [1.0, 0.5]},
               "fit": {"x": {"b": "m/b", "a": "m/a"}, "y": ["m/f", "m/s"], "epochs": 2, "validation_split": 0.1}}
        j = d.finish(d.submit(job))
        assert {"loss", "first_loss", "second_loss", "second_accuracy", "val_second_accuracy"} <= set(j["metrics"]), j
        r = d.post("/api/v1/models/multi/predict", {"inputs": {"a": [[0.1, 0.2, 0.3]], "b": [[1, 2]]}})
        assert list(r.json["outputs"]) == ["first", "second"], r
        got = keras.models.load_model(d.model_file("multi")).predict([np.array([[0.1, 0.2, 0.3]], "float32"), np.array([[1, 2]], "float32")], verbose=0)
        assert np.allclose(r.json["outputs"]["first"], got[0], rtol=1e-5, atol=1e-6)


@test
def a_queued_and_a_running_job_can_be_cancelled_twice():
    with Daemon(None, "--lanes", "1") as d:
        put_set(d, 5000)
        first = d.submit(small_job(epochs=100000))
        d.wait(first, ("running",))
        second = d.submit(small_job())
        assert d.job(second)["queue_position"] == 1
        for id in (second, first):
            for _ in range(2):
                assert d.post(f"/api/v1/jobs/{id}/cancel").code == 200
            assert d.wait(id)["state"] == "cancelled"
        third = d.submit(small_job())
        d.finish(third)
        assert d.post(f"/api/v1/jobs/{third}/cancel").code == 409


@test
def priority_goes_before_age():
    with Daemon(None, "--lanes", "1") as d:
        put_set(d, 2000)
        running = d.submit(small_job(epochs=100000))
        d.wait(running, ("running",))
        low = d.submit({**small_job(), "priority": -1})
        high = d.submit({**small_job(), "priority": 5})
        assert d.job(high)["queue_position"] == 1 and d.job(low)["queue_position"] == 2
        d.post(f"/api/v1/jobs/{running}/cancel")
        assert d.finish(high)["started_at"] <= d.finish(low)["started_at"]


@test
def a_dry_run_says_what_a_model_needs_and_queues_nothing():
    with Daemon() as d:
        put_set(d)
        r = d.post("/api/v1/jobs?dry_run=true", small_job())
        assert r.code == 200 and r.json["parameters"] == 4 * 8 + 8 + 8 * 3 + 3 and len(r.json["layers"]) >= 2, r
        assert d.get("/api/v1/jobs").json["jobs"] == []


@test
def a_job_keeps_the_data_it_saw_when_it_was_posted():
    with Daemon(None, "--lanes", "1") as d:
        put_set(d, 1000)
        running = d.submit(small_job(epochs=100000))
        d.wait(running, ("running",))
        waiting = d.submit(small_job())
        d.upload("set/x", RNG.random((10, 7), dtype="float32"))
        assert d.request("DELETE", "/api/v1/datasets/set").code == 409
        d.post(f"/api/v1/jobs/{running}/cancel")
        d.finish(waiting)
        assert d.post("/api/v1/jobs", small_job()).code == 422


@test
def model_checkpoints_can_be_fetched():
    import keras

    with Daemon() as d:
        put_set(d)
        id = d.submit(small_job(callbacks=[{"class_name": "ModelCheckpoint", "config": {"filepath": "best-{epoch:02d}.h5", "monitor": "loss"}}]))
        d.finish(id)
        r = d.get(f"/api/v1/jobs/{id}/files/best-02.h5")
        assert r.code == 200, r
        with open(d.folder + "/best.h5", "wb") as f:
            f.write(r.body)
        keras.models.load_model(d.folder + "/best.h5")


@test
def a_running_and_a_finished_job_show_where_the_time_of_their_step_goes():
    with Daemon(None, "--lanes", "1") as d:
        put_set(d, 2000)
        done = d.submit(small_job())
        d.finish(done)
        for r in (d.get(f"/api/v1/jobs/{done}/profile?format=table"), d.get(f"/api/v1/jobs/{done}/profile", headers={"Accept": "text/plain"})):
            assert r.code == 200 and r.headers["Content-Type"].startswith("text/plain") and b"matmul.product" in r.body, r
        running = d.submit(small_job(epochs=100000))
        replies = [d.get(f"/api/v1/jobs/{done}/profile")]
        d.wait(running, ("running",))
        replies.append(d.get(f"/api/v1/jobs/{running}/profile"))
        for id, r in zip((done, running), replies):
            assert r.code == 200 and r.json["job"] == id and r.json["batch_size"] == 16, r
            nodes = [n for layer in r.json["layers"] for n in layer["nodes"]]
            assert {"hidden", "out", "optimizer"} <= {layer["layer"] for layer in r.json["layers"]}, r
            assert abs(sum(n["share"] for n in nodes) - 1) < 0.01 and len({n["node"] for n in nodes}) == len(nodes)
            for n in nodes:
                file, row = (n["kernel"].split(".") + [""])[:2]
                assert file == "reference" or row and os.path.exists(os.path.join(ROOT, "engine/cpu", file + ".c")), n
        assert d.job(running)["state"] == "running"
        assert d.get("/api/v1/jobs/999/profile").code == 404
        d.post(f"/api/v1/jobs/{running}/cancel")


@test
def a_job_in_a_file_is_profiled_without_a_daemon():
    def profile(*args):
        return subprocess.run([os.path.join(ROOT, BUILD, "hornd"), "--data-dir", d.folder + "/data", *args], capture_output=True, text=True, timeout=60)

    with Daemon() as d:
        put_set(d)
        path = d.folder + "/job.json"
        with open(path, "w") as f:
            json.dump(small_job(), f)
        p = profile("--profile", path)
        assert p.returncode == 1 and "uses this folder" in p.stderr and "horn profile ID" in p.stderr, p
        d.stop()
        p = profile("--threads=1", "--profile", path)
        assert p.returncode == 0 and p.stdout.startswith("fit of small\n") and "1 thread," in p.stdout and "pointwise.update" in p.stdout, p
        with open(path, "w") as f:
            json.dump(small_job(x="set/nothing"), f)
        p = profile("--profile", path)
        assert p.returncode == 1 and "/fit/x" in p.stderr, p
        assert "/nowhere" in profile("--profile=/nowhere").stderr


@test
def a_foreign_host_or_origin_is_forbidden():
    with Daemon() as d:
        assert d.get("/api/v1/system", headers={"Host": "evil.example"}).code == 403
        assert d.get("/api/v1/system", headers={"Origin": "http://evil.example"}).code == 403
        assert d.get("/api/v1/system", headers={"Host": f"localhost:{d.port}"}).code == 200


@test
def a_second_daemon_on_the_same_port_or_folder_is_refused():
    with Daemon() as d:
        for folder, listen, word in ((d.folder + "/other", f"127.0.0.1:{d.port}", d.port), (d.folder + "/data", "127.0.0.1:0", "use")):
            p = subprocess.run([os.path.join(ROOT, BUILD, "hornd"), "--data-dir", folder, "--listen", listen], capture_output=True, text=True, timeout=20)
            assert p.returncode == 1 and word in p.stderr, p
        assert d.get("/healthz").code == 200


@test
def another_address_needs_to_be_allowed():
    p = subprocess.run([os.path.join(ROOT, BUILD, "hornd"), "--data-dir", "/tmp/horn-none", "--listen", "0.0.0.0:0"], capture_output=True, text=True, timeout=20)
    assert p.returncode != 0 and "allow-anyone" in p.stderr, p


@test
def a_slow_client_does_not_hold_up_others():
    with Daemon() as d:
        slow = [socket.create_connection((d.host, int(d.port))) for _ in range(20)]
        for s in slow:
            s.sendall(b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        began = time.time()
        assert d.get("/healthz").code == 200 and time.time() - began < 1
        for s in slow:
            s.close()


@test
def every_operation_of_the_specification_was_seen():
    missing = contract.operations() - contract.seen
    assert not missing, f"described but never answered in these tests: {sorted(missing)}"


run()
