"""Starting hornd on a scratch folder, talking to it, and counting results.

    @test
    def a_queued_job_can_be_cancelled(): ...
    run()            # prints "N passed, N failed, N skipped"; exit code 1 if any failed
"""
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

os.environ.setdefault("KERAS_BACKEND", "jax")
BUILD = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "build/release"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LONG = os.environ.get("HORN_LONG") == "yes"
_tests = []


class Skip(Exception):
    """Raised with the reason when a test cannot run here."""


def test(fn):
    _tests.append(fn)
    return fn


class Reply:
    def __init__(self, code, headers, body):
        self.code, self.headers, self.body = code, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.code} {self.body[:600]!r}"


class Daemon:
    """hornd on a folder; `with Daemon() as d:` stops it and removes the folder."""

    check = None  # called with (method, path, reply) for each reply: contract.check

    def __init__(self, folder=None, *flags, env=None, start=True):
        self.own = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="horn-test.")
        self.flags, self.env, self.process = list(flags), env or {}, None
        if start:
            self.start()

    def command(self):
        return [os.path.join(ROOT, BUILD, "hornd"), "--data-dir", os.path.join(self.folder, "data"), "--listen", "127.0.0.1:0", *self.flags]

    def start(self):
        log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, env={**os.environ, **self.env})
        line = self.process.stdout.readline().decode()
        if not line.startswith("horn: ready on http://"):
            raise RuntimeError(f"hornd did not start: {line!r} {self.log()[-2000:]}")
        self.url = line.split()[-1]
        self.host, self.port = self.url.removeprefix("http://").rsplit(":", 1)
        return self

    def log(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            return f.read()

    def request(self, method, path, body=None, headers=None, timeout=120):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=timeout)
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body=body, headers=headers)
            r = connection.getresponse()
            reply = Reply(r.status, r.headers, r.read())
        finally:
            connection.close()
        if self.check:
            self.check(method, path, reply)
        return reply

    def get(self, path, **k):
        return self.request("GET", path, **k)

    def post(self, path, body=None, **k):
        return self.request("POST", path, body, **k)

    def put(self, path, body=b"", **k):
        return self.request("PUT", path, body, **k)

    def upload(self, name, array):
        import io

        import numpy as np

        f = io.BytesIO()
        np.save(f, array)
        r = self.put(f"/api/v1/datasets/{name}", f.getvalue())
        assert r.code == 201, r
        return r.json

    def submit(self, job):
        r = self.post("/api/v1/jobs", job)
        assert r.code == 202, r
        return r.json["id"]

    def job(self, id):
        return self.get(f"/api/v1/jobs/{id}").json

    def wait(self, id, states=("done", "failed", "cancelled"), seconds=600):
        end = time.time() + seconds
        while time.time() < end:
            j = self.job(id)
            if j["state"] in states:
                return j
            time.sleep(0.05)
        raise TimeoutError(f"job {id} is still {j}")

    def finish(self, id, seconds=600):
        j = self.wait(id, seconds=seconds)
        assert j["state"] == "done", j
        return j

    def model_file(self, name, version=1):
        r = self.get(f"/api/v1/models/{name}/versions/{version}/files/model.h5")
        assert r.code == 200, r
        path = os.path.join(self.folder, f"{name}-{version}.h5")
        with open(path, "wb") as f:
            f.write(r.body)
        return path

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self, seconds=60):
        self.process.terminate()
        code = self.process.wait(seconds)
        self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.own:
            shutil.rmtree(self.folder, ignore_errors=True)


def example(name):
    with open(os.path.join(ROOT, "api-spec/examples", name + ".json")) as f:
        return json.load(f)


def run():
    passed = failed = skipped = 0
    only = [a for a in sys.argv[2:] if not a.startswith("-")]
    for fn in _tests:
        if only and not any(o in fn.__name__ for o in only):
            continue
        begin = time.time()
        try:
            fn()
            passed += 1
            print(f"ok       {fn.__name__} ({time.time() - begin:.1f} s)")
        except Skip as reason:
            skipped += 1
            print(f"skipped: {fn.__name__}: {reason}")
        except Exception:
            failed += 1
            print(f"FAILED   {fn.__name__}")
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
