"""What the benchmark programs share: the peers' Python, hornd pinned to cores, a client, rates, the machine's name, and result files.

A result file is {"machine", "versions", "date", "command", "rows"}; a row is at least {"bench", "row", "horn", "peer", "ratio"}, where horn and
peer are the figures and ratio says how much better Horn is; a figure that was not measured is null. See README.md beside this."""
import datetime
import http.client
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
RESULTS = os.path.join(HERE, "results")
PEERS = os.environ.get("HORN_PEERS", os.path.join(ROOT, "build/peers"))
PYTHON = os.path.join(PEERS, "bin/python")
PACKAGES = "torch tensorflow keras jax h5py numpy fastapi uvicorn onnxruntime onnx".split()
SIMD = "sse4_2 avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 asimd sve".split()

sys.path.append(os.path.join(ROOT, "tests/daemon"))
from harness import Daemon


def use_peers():
    """Goes on in the peers' Python, which is made on its first use."""
    if os.path.realpath(sys.prefix) == os.path.realpath(PEERS):
        return
    if not os.path.exists(PYTHON):
        print(f"installing the peers into {PEERS}", file=sys.stderr)
        subprocess.check_call([sys.executable, "-m", "venv", PEERS])
        subprocess.check_call([PYTHON, "-m", "pip", "install", "-q", *PACKAGES])
    os.execv(PYTHON, [PYTHON, os.path.abspath(sys.argv[0]), *sys.argv[1:]])


# --- processes -----------------------------------------------------------------------------------------------------------------


def cores(n):
    """The first n cores that this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:n])


def peak_mib(pid="self", key="VmHWM"):
    """Peak resident memory, with key VmRSS what it is now. VmHWM and not ru_maxrss, which begins at the size of the process that forked."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key)) / 1024


class Hornd(Daemon):
    """hornd of one build folder, the whole process pinned to as many cores as its one lane has threads, or to the given cores."""

    def __init__(self, build, threads, *flags, lanes=1, on=None, start=True):
        self.build, self.cores = build, on or cores(threads)
        super().__init__(None, "--threads", str(threads), "--lanes", str(lanes), *flags, start=start)

    def command(self):
        return [os.path.join(ROOT, self.build, "hornd"), *super().command()[1:]]

    def start(self):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            return super().start()
        finally:
            os.sched_setaffinity(0, before)

    def peak_mib(self):
        return peak_mib(self.process.pid)


class Client:
    """One connection that stays open: a new one for every poll would cost more than a tiny job."""

    def __init__(self, d):
        self.c = http.client.HTTPConnection(d.host, int(d.port), timeout=600)

    def call(self, method, path, body=None):
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        self.c.request(method, path, text, {"Content-Type": "application/json"} if body else {})
        r = self.c.getresponse()
        j = json.loads(r.read())
        assert r.status < 300, j
        return j

    def post(self, job):
        return self.call("POST", "/api/v1/jobs", job)["id"]

    def wait(self, id, pause=0.005):
        while True:
            j = self.call("GET", f"/api/v1/jobs/{id}")
            if j["state"] not in ("queued", "running"):
                assert j["state"] == "done", j
                return j
            time.sleep(pause)


# --- figures -------------------------------------------------------------------------------------------------------------------


def windows(samples, rates, least=0.5):
    """Rates over groups of consecutive epochs that last at least `least` seconds together; an epoch has `samples` samples.

    A shorter stretch is no measurement: its clock and its luck weigh too much. What is left over at the end is dropped, unless it is all."""
    result, n, seconds = [], 0, 0.0
    for rate in rates:
        n, seconds = n + 1, seconds + samples / rate
        if seconds >= least:
            result.append(n * samples / seconds)
            n, seconds = 0, 0.0
    return result or ([n * samples / seconds] if n else [])


def spread(values):
    """The middle half's width, in parts of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)


def judge(a, b, less_is_better=False, least=0.02):
    """How b's median stands to a's: (change, noise, verdict). change is positive when b is better; noise is the larger spread of the two."""
    change = statistics.median(b) / statistics.median(a)
    change = (1 / change if less_is_better else change) - 1
    noise = max(least, spread(a), spread(b))
    return change, noise, "slower" if change < -noise else "faster" if change > noise else "same"


def is_number(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)


# --- the machine and result files ----------------------------------------------------------------------------------------------


def machine():
    """What /proc/cpuinfo says. Virtual machines disguise their processor's name, so family, model and SIMD flags belong to it."""
    about = {}
    with open("/proc/cpuinfo") as f:
        for line in f:
            key, _, value = line.partition(":")
            about.setdefault(key.strip(), value.strip())
    flags = (about.get("flags") or about.get("Features") or "").split()
    with open("/proc/meminfo") as f:
        memory = round(int(f.readline().split()[1]) / 1024)
    return {"cpu": about.get("model name", os.uname().machine), "family": about.get("cpu family", "?"), "model": about.get("model", "?"),
            "simd": [f for f in SIMD if f in flags], "cache": about.get("cache size", "?"), "cores": len(os.sched_getaffinity(0)), "memory_mib": memory}


def slug(m):
    """A file's name for a machine, for example intel-xeon-processor-f6m207-avx2-avx512f-avx512_bf16."""
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*", " ", m["cpu"], flags=re.I)
    parts = [*name.lower().split(), f"f{m['family']}m{m['model']}", *(f for f in m["simd"] if f != "sse4_2")]
    return re.sub(r"[^a-z0-9_-]+", "-", "-".join(parts)).strip("-")


def horn_versions(build):
    with Hornd(build, 1) as d:
        s = d.get("/api/v1/system").json
    return {"horn": s["version"], **s["libraries"], "device": s["lanes"][0]["description"]}


def peer_versions():
    """Of the packages in the peers' Python; of those that are not there, none."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    if not os.path.exists(PYTHON):
        return {}
    all = json.loads(subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout)
    return {p: all[p] for p in PACKAGES if p in all}


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def key(row):
    """What a row measures: x is the size at which a growth row stands."""
    return row["bench"], row["row"], row.get("threads"), row.get("x")


def finite(v):
    """The same with null for what JSON cannot say: a peer that failed has no figure."""
    if isinstance(v, dict):
        return {k: finite(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [finite(x) for x in v]
    return None if isinstance(v, float) and not math.isfinite(v) else v


def write_json(path, value):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".part", "w") as f:
        json.dump(finite(value), f, indent=1, allow_nan=False)
        f.write("\n")
    os.replace(path + ".part", path)


def read_json(path):
    with open(path) as f:
        return json.load(f)
