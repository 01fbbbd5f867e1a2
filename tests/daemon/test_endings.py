"""What ends early: clients that leave, stops in the middle of things, files that are damaged or gone."""
import glob
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import numpy as np

import contract
from harness import Daemon, run, test
from parts import dense, npy, put_set, small_job

Daemon.check = staticmethod(contract.check)
STOP_SECONDS = 3  # 2 are the aim; a busy machine gets some more


def temporary(d):
    return os.listdir(os.path.join(d.folder, "data", "tmp"))


def descriptors(d):
    return len(os.listdir(f"/proc/{d.process.pid}/fd"))


def connect(d):
    return socket.create_connection((d.host, int(d.port)), timeout=20)


def wide_model():
    """Slow enough to be met by a stop."""
    layers = [{"class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "in"}}]
    return {"class_name": "Sequential", "config": {"name": "wide", "layers": layers + [dense(1024, "relu") for _ in range(3)] + [dense(3, "softmax")]}}


def stop_in_time(d):
    began = time.time()
    assert d.stop() == 0
    assert time.time() - began < STOP_SECONDS, f"the stop took {time.time() - began:.1f} s"
    assert temporary(d) == []


def upload_head(length):
    return f"PUT /api/v1/datasets/z/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


@test
def a_client_that_leaves_amid_its_upload_leaves_nothing():
    with Daemon() as d:
        before = descriptors(d)
        for _ in range(40):
            s = connect(d)
            s.sendall(upload_head(100000) + b"a" * 5000)
            s.close()
        slow = connect(d)
        slow.sendall(upload_head(9) + b"aaaa")
        end = time.time() + 15
        while len(temporary(d)) > 1 or descriptors(d) > before + 6:  # the slow one, and connections to the database
            assert time.time() < end, (temporary(d), descriptors(d), before)
            time.sleep(0.1)
        slow.sendall(b"aaaaa")
        assert slow.recv(100).startswith(b"HTTP/1.1 422")
        slow.close()


@test
def a_client_that_only_stops_sending_gets_its_answer():
    with Daemon() as d:
        s = connect(d)
        s.sendall(b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        s.shutdown(socket.SHUT_WR)
        assert s.recv(100).startswith(b"HTTP/1.1 422")


@test
def a_repeated_post_is_answered_by_its_key_though_the_data_is_gone():
    key = {"Idempotency-Key": "once"}
    with Daemon() as d:
        put_set(d)
        first = d.post("/api/v1/jobs", small_job(), headers=key)
        d.finish(first.json["id"])
        assert d.request("DELETE", "/api/v1/datasets/set").code == 204
        again = d.post("/api/v1/jobs", small_job(), headers=key)
        assert again.code == 202 and again.json["id"] == first.json["id"], again
        assert again.headers["Location"] == f"/api/v1/jobs/{first.json['id']}"
        assert d.post("/api/v1/jobs", small_job(), headers={"Idempotency-Key": "another"}).code == 422


@test
def evaluate_and_bulk_predict_jobs_that_a_stop_meets_are_queued_again():
    rows = 100000
    with Daemon() as d:
        put_set(d)
        job = small_job(epochs=1)
        job["model"] = {"name": "wide", "architecture": wide_model()}
        d.finish(d.submit(job))
        d.upload("many/x", np.zeros((rows, 4), "float32"))
        d.upload("many/y", np.zeros(rows, "uint8"))
        for type, arguments in (("evaluate", {"x": "many/x", "y": "many/y"}), ("predict", {"x": "many/x"})):
            id = d.submit({"type": type, "model": {"name": "wide"}, type: {**arguments, "batch_size": 16}})
            d.wait(id, ("running",))
            stop_in_time(d)
            d.start()
            j = d.job(id)
            assert j["state"] in ("queued", "running"), j
            assert d.post(f"/api/v1/jobs/{id}/cancel").json["state"] == "cancelled"


@test
def a_stop_does_not_wait_for_long_predictions_or_uploads():
    answers = []

    def later(*request, **more):
        thread = threading.Thread(target=lambda: answers.append(d.request(*request, **more)))
        thread.start()
        return thread

    with Daemon() as d:
        put_set(d)
        job = small_job(epochs=1)
        job["model"] = {"name": "wide", "architecture": wide_model()}
        d.finish(d.submit(job))
        idle, half, cut = connect(d), connect(d), connect(d)
        half.sendall(b"GET /heal")
        cut.sendall(upload_head(10**7) + b"a" * 5000)
        csv = (",".join(["0.123456789"] * 50) + "\n").encode() * 300000
        threads = [later("POST", "/api/v1/models/wide/predict", json.dumps({"inputs": [[0.5] * 4] * 100000}).encode()),
                   later("PUT", "/api/v1/datasets/long/x", csv, headers={"Content-Type": "text/csv"})]
        end = time.time() + 20
        while not subprocess.run(["ps", "--no-headers", "--ppid", str(d.process.pid)], capture_output=True).stdout:
            assert time.time() < end
            time.sleep(0.01)
        stop_in_time(d)
        for thread in threads:
            thread.join()
        assert [r.code for r in answers] == [503, 503], answers
        assert all("stopping" in r.json["detail"] and r.headers["Retry-After"] for r in answers), answers
        for s in (idle, half, cut):
            s.close()


@test
def a_damaged_or_missing_file_is_storage_s_fault_and_ends_the_job():
    with Daemon(None, "--checkpoint-seconds", "0.05") as d:
        put_set(d)
        d.finish(d.submit(small_job()))
        for damage in (lambda path: os.truncate(path, os.path.getsize(path) // 2), os.unlink):
            id = d.submit(small_job(epochs=1000000))
            end = time.time() + 20
            # the second file is there: the first one's row is stored
            while not any(int(os.path.basename(p).split(".")[0]) > 1 for p in glob.glob(d.folder + f"/data/jobs/{id}/*.ckpt.h5")):
                assert time.time() < end
                time.sleep(0.02)
            os.kill(d.process.pid, signal.SIGSTOP)  # no newer checkpoint between the look and the kill
            time.sleep(0.1)
            d.kill()
            for path in glob.glob(d.folder + f"/data/jobs/{id}/*.ckpt.h5"):
                damage(path)
            d.start()
            j = d.wait(id, seconds=20)
            assert j["state"] == "failed" and j["problem"]["status"] == 500, j
            assert f"jobs/{id}/" in j["problem"]["where"] and "stored file" in j["problem"]["detail"], j
        (path,) = glob.glob(d.folder + "/data/models/*/1/model.h5")
        os.unlink(path)
        d.stop()
        d.start()
        r = d.post("/api/v1/models/small/predict", {"inputs": [[0] * 4]})
        assert r.code == 500 and "No such file" in r.json["detail"], r
        go_on = small_job()
        go_on["model"] = {"name": "small", "version": 1}
        j = d.wait(d.submit(go_on))
        assert j["state"] == "failed" and j["problem"]["status"] == 500 and "No such file" in j["problem"]["detail"], j
        assert d.get("/healthz").code == 200
        assert "HDF5" not in d.log().replace("as an HDF5 file", ""), d.log()


@test
def a_folder_of_a_newer_version_is_refused():
    with Daemon() as d:
        d.stop()
        with sqlite3.connect(d.folder + "/data/horn.db") as db:
            db.execute("PRAGMA user_version = 99")
        p = subprocess.run(d.command(), capture_output=True, text=True, timeout=20)
        assert p.returncode == 1 and "newer Horn (schema 99" in p.stderr, p


@test
def the_greatest_seed_is_kept_exactly():
    with Daemon() as d:
        put_set(d)
        r = d.post("/api/v1/jobs", {**small_job(), "seed": 2**63 - 1})
        assert r.code == 202 and b'"seed":9223372036854775807' in r.body, r
        assert d.finish(r.json["id"])["seed"] == 2**63 - 1
        assert d.post("/api/v1/jobs", {**small_job(), "seed": 2**63}).code == 422


@test
def a_model_that_no_machine_holds_can_be_asked_about():
    job = small_job()
    layers = job["model"]["architecture"]["config"]["layers"]
    layers[1:1] = [dense(2**20, "relu", name="one"), dense(2**20, "relu", name="two")]
    with Daemon() as d:
        put_set(d)
        r = d.post("/api/v1/jobs?dry_run=true", job)
        assert r.code == 200 and r.json["fits"] is False and "cannot hold" in r.json["note"] and r.json["parameters"] > 2**40, r
        assert d.post("/api/v1/jobs", job).code == 422
        assert d.get("/api/v1/jobs").json["jobs"] == []


@test
def a_deleted_model_does_not_answer_for_the_next_of_its_name():
    with Daemon() as d:
        put_set(d)
        d.finish(d.submit(small_job()))
        d.finish(d.submit({**small_job(epochs=20), "model": {**small_job()["model"], "name": "other"}}))
        files = [open(d.model_file(name), "rb").read() for name in ("small", "other")]
        want = [d.post(f"/api/v1/models/{name}/predict", {"inputs": [[0.1, 0.2, 0.3, 0.4]]}).json["outputs"] for name in ("small", "other")]
        assert want[0] != want[1]
        going, codes = True, set()

        def ask():
            while going:
                codes.add(d.post("/api/v1/models/small/predict", {"inputs": [[0.1, 0.2, 0.3, 0.4]]}).code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(30):
            assert d.request("DELETE", "/api/v1/models/small").code == 204
            assert d.put("/api/v1/models/small", files[i % 2]).json["version"] == 1
            for path in ("predict", "versions/1/predict"):
                r = d.post(f"/api/v1/models/small/{path}", {"inputs": [[0.1, 0.2, 0.3, 0.4]]})
                assert r.json["outputs"] == want[i % 2], (i, r, want)
        going = False
        for thread in threads:
            thread.join()
        assert codes <= {200, 404}, codes  # the file that goes while it is being opened is nobody's fault


@test
def a_file_that_is_cut_under_a_training_ends_the_job_and_not_the_daemon():
    """Large enough to be mapped: reading behind the end of the file is a signal."""
    rows = 600000
    with Daemon() as d:
        put_set(d)
        d.upload("large/x", np.zeros((rows, 4), "float32"))
        d.upload("large/y", np.zeros(rows, "uint8"))
        job = small_job(epochs=1000)
        job["fit"] |= {"x": "large/x", "y": "large/y", "batch_size": 64}
        id = d.submit(job)
        end = time.time() + 60
        while not (d.job(id).get("progress") or {}).get("step"):
            assert time.time() < end, d.job(id)
            time.sleep(0.05)
        files = [f for f in glob.glob(os.path.join(d.folder, "data", "datasets", "**"), recursive=True) if os.path.isfile(f)]
        os.truncate(max(files, key=os.path.getsize), 1 << 20)
        j = d.wait(id, seconds=60)
        assert j["state"] == "failed" and "large/x" in json.dumps(j["problem"]) and "ends too early" in j["problem"]["detail"], j
        d.finish(d.submit(small_job(epochs=1)))


run()
