"""Samples per second of one row of rows.py, by hornd and by a peer.

A daemon trains a few epochs of few rows first, then the row's epochs for the given time. Rates are those that the daemon reports for whole
epochs; what passes between epochs is in `sustained`, taken by this process's clock from the end of one epoch to the end of another."""
import json
import math
import os
import subprocess
import sys
import time

from common import HERE, PYTHON, Hornd, windows

sys.path.insert(0, HERE)
from rows import ROWS

POLL_SECONDS = 0.06  # an epoch's last progress stands for 0.1 s or longer


def architectures(names):
    """What model.to_json() gives for rows, by real Keras in a process of its own."""
    code = f"""import json, sys; sys.path.insert(0, {HERE!r}); from rows import ROWS; import keras
print(json.dumps({{n: json.loads(ROWS[n].keras(keras.layers, keras).to_json()) for n in {list(names)!r}}}))"""
    env = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"Keras did not print the models: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def job(row, architecture, epochs, x="bench/x", y="bench/y"):
    return {"type": "fit", "model": {"name": "bench", "architecture": architecture},
            "compile": {"optimizer": "adam", "loss": row.loss, "metrics": ["accuracy"]},
            "fit": {"x": x, "y": y, "batch_size": row.batch, "epochs": epochs}, "seed": 1}


def follow(d, id):
    """The reported rate of each epoch, and when its end was seen."""
    rates, seen = {}, {}
    while True:
        j = d.job(id)
        p = j.get("progress") or {}
        if p and p["step"] == p["steps_per_epoch"] and p["samples_per_second"]:
            rates[p["epoch"]] = p["samples_per_second"]
            seen.setdefault(p["epoch"], time.perf_counter())
        if j["state"] not in ("queued", "running"):
            assert j["state"] == "done", j
            return rates, seen
        time.sleep(POLL_SECONDS)


def horn(name, threads, build, seconds, architecture):
    """{"samples": rates over windows, "sustained", "peak_mib"} of a daemon of its own, pinned to as many cores as it has threads."""
    row = ROWS[name]
    x, y = row.data()
    few = min(row.samples, max(4 * row.batch, row.samples // 8 // row.batch * row.batch))
    with Hornd(build, threads) as d:
        for array, part in (("x", x), ("y", y)):
            d.upload("bench/" + array, part)
            d.upload("bench/few_" + array, part[:few])
        rates, _ = follow(d, d.submit(job(row, architecture, 2, "bench/few_x", "bench/few_y")))
        epochs = max(1, math.ceil(seconds * max(rates.values()) / row.samples))
        rates, seen = follow(d, d.submit(job(row, architecture, epochs)))
        first, last = min(seen), max(seen)
        sustained = (last - first) * row.samples / (seen[last] - seen[first]) if last > first else None
        return {"samples": windows(row.samples, [rates[e] for e in sorted(rates)]), "sustained": sustained, "peak_mib": d.peak_mib()}


def peer(which, name, threads, seconds, timeout=300):
    """The same of a peer; without samples, and with the reason on standard error, if it failed."""
    try:
        out = subprocess.run([PYTHON, os.path.join(HERE, "peer.py"), which, name, str(threads), str(seconds)], capture_output=True, text=True,
                             timeout=timeout)
        return json.loads(out.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        print(f"{which} took more than {timeout} s for {name}", file=sys.stderr)
    except (IndexError, ValueError):
        print(f"{which} failed on {name}:", out.stderr[-500:], file=sys.stderr)
    return {"samples": [], "peak_mib": None}
