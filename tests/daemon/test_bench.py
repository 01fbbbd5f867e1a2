"""The benchmark programs' arithmetic, files and models; nothing here depends on how fast anything is."""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from harness import BUILD, ROOT, Daemon, Skip, run, test

BENCH = os.path.join(ROOT, "bench")
sys.path.insert(0, BENCH)
import common


def row(name, threads, horn, peer=None, **more):
    return {"bench": "train", "row": name, "title": name.upper(), "threads": threads, "unit": "samples/s", "horn": horn, "peer": peer,
            "peer_name": "torch" if peer else None, "ratio": horn / peer if peer else None, "aim": 1.5, "horn_samples": [horn, horn * 0.99, horn * 0.98],
            **more}


def result(*rows, cpu="A CPU"):
    machine = {"cpu": cpu, "family": "6", "model": "7", "simd": ["avx2"], "cores": 2}
    return {"machine": machine, "versions": {"horn": "9.9", "libx": "1", "device": "cpu: v3", "peers": {"torch": "2.0"}}, "date": "2026-01-02 03:04 UTC",
            "command": "bench/run", "rows": list(rows)}


class Files:
    """Result files in a folder of their own: files(name=result) gives their paths."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="horn-bench.")
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def put(self, name, content):
        with open(self.path(name), "w") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
        return self.path(name)


def bench(program, *arguments, code=0):
    done = subprocess.run([sys.executable, os.path.join(BENCH, program), *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


@test
def windows_join_epochs_until_half_a_second():
    assert common.windows(100, [1000, 1000, 1000, 1000, 1000, 500]) == [1000]
    assert common.windows(100, [100, 50]) == [100, 50]
    assert common.windows(100, [1000]) == [1000], "a short run is still a figure"
    assert common.windows(100, []) == []
    slow_and_fast = common.windows(100, [250, 1000])
    assert abs(slow_and_fast[0] - 200 / 0.5) < 1e-9, slow_and_fast


@test
def a_change_counts_when_it_is_larger_than_the_noise():
    assert common.judge([100, 101, 99], [90, 91, 89])[2] == "slower"
    assert common.judge([100, 120, 80], [95, 115, 75])[2] == "same"
    assert common.judge([100, 101, 99], [110, 111, 109])[2] == "faster"
    assert common.judge([1.0, 1.01], [2.0, 2.01], less_is_better=True)[2] == "slower"


@test
def a_machines_name_has_family_model_and_simd():
    m = {"cpu": "Intel(R) Xeon(R) Processor @ 2.00GHz", "family": "6", "model": "207", "simd": ["sse4_2", "avx2", "avx512_bf16"]}
    assert common.slug(m) == "intel-xeon-processor-f6m207-avx2-avx512_bf16", common.slug(m)
    assert common.slug(common.machine())


@test
def compare_says_what_got_slower_and_fails_then():
    with Files() as f:
        a = f.put("a.json", result(row("mlp", 1, 1000, 500), row("cnn", 1, 100), {"bench": "job", "row": "tiny", "horn": 1.0, "unit": "s"}))
        b = f.put("b.json", result(row("mlp", 1, 800, 400), row("cnn", 1, 100), {"bench": "job", "row": "tiny", "horn": 1.0, "unit": "s"}))
        c = f.put("c.json", result(row("new", 1, 5), {"bench": "job", "row": "tiny", "horn": 1.5, "unit": "s"}, cpu="B"))
        text = bench("compare", a, b, code=1)
        assert [line.split()[1] for line in text.splitlines() if "slower" in line and "train" in line] == ["mlp"], text
        assert "2.00 -> 2.00" in text and "1 slower" in text, text
        assert "nothing got slower" in bench("compare", a, a) and "faster" in bench("compare", b, a)
        text = bench("compare", a, c, code=1)
        assert "different machines" in text and "tiny" in text, text
        assert "neither" in bench("compare", a, f.folder.name, code=1)


@test
def report_writes_the_table_and_the_plot_and_dashes_for_what_is_missing():
    with Files() as f:
        one = f.put("one.json", result(row("mlp", 1, 2000.4, 1000), row("mlp", 2, 3000), row("cnn", 2, 12.34, 10), row("<odd>", 1, 1, 1),
                                       {"bench": "serve", "row": "batch 1", "horn": 0.1234, "peer": None, "ratio": None, "unit": "ms"},
                                       {"bench": "serve", "row": "loaded", "horn": 500, "peer": None, "ratio": None, "p99_ms": 0.5, "p99_alone": 0.4,
                                        "p99_factor": 1.25, "training_share": 0.75},
                                       {"bench": "growth", "row": "rows", "x": 1000, "seconds": 0.1}))
        two = f.put("two.json", result(row("mlp", 1, 1, 2, horn_peak_mib=50.0, peer_peak_mib=None), cpu="B CPU"))
        readme, plot = f.put("README.md", "above\n<!-- bench -->\nstale words\n<!-- /bench -->\nbelow\n"), f.path("rows.svg")
        bench("report", one, "--readme", readme, "--plot", plot)
        text = open(readme).read()
        assert text.startswith("above\n<!-- bench -->\n") and text.endswith("<!-- /bench -->\nbelow\n") and "stale" not in text, text
        assert "| MLP | 2,000 | 1,000 PyTorch | **2.00** (1.5) | 3,000 | – | – | – |" in text, text
        assert "| CNN | – | – | – | 12.3 | 10.0 PyTorch | 1.23 (1.5) | – |" in text, text
        assert "growth" not in text, text
        assert "| predict: loaded | p99 0.50 ms, unloaded 0.40 ms | – | p99 **1.25** (3), training 0.75 (0.8) | – | – | – | – |" in text, text
        assert "| predict: batch 1 | 0.123 ms | – | – | – | – | – | – |" in text, text
        assert "A CPU (family 6, model 7, avx2), 2 cores: 2026-01-02, `bench/run`; Horn 9.9" in text and "torch 2.0" in text, text
        xml.etree.ElementTree.parse(plot)
        bench("report", one, "--readme", readme, "--plot", plot)
        assert open(readme).read() == text, "a second run changes nothing"
        bench("report", one, two, "--readme", readme, "--plot", plot)
        text = open(readme).read()
        assert "**B CPU (family 6" in text and "50.0 / –" in text, text
        assert "B CPU f6m7, 1 thread" in open(plot).read()
        bad = f.put("bad.md", "no markers\n")
        assert "needs one line" in bench("report", one, "--readme", bad, "--plot", plot, code=1) and open(bad).read() == "no markers\n"


@test
def run_adds_rows_to_a_result_file_and_keeps_the_others():
    def grown(x):
        return {"bench": "growth", "row": "rows", "x": x, "seconds": 0.1}

    with Files() as f:
        out = f.path("cpu.json")
        bench("run", "--build", BUILD, "--out", out, "--add", f.put("a.json", [row("mlp", 1, 10), row("cnn", 1, 20, 10)]))
        bench("run", "--build", BUILD, "--out", out, "--add", f.put("b.json", [row("mlp", 1, 11, date="2026-01-01")]))
        j = json.load(open(out))
        assert [(r["row"], r["horn"]) for r in j["rows"]] == [("cnn", 20), ("mlp", 11)], j["rows"]
        assert j["rows"][1]["date"] == "2026-01-01" and all("--add" in r["command"] for r in j["rows"]), j["rows"]
        assert j["machine"]["cpu"] and j["versions"]["horn"] and j["versions"]["device"].startswith("cpu"), j
        assert "nothing was measured" in bench("run", "--build", BUILD, "--out", out, "--add", f.put("none.json", []), code=1)
        bench("run", "--build", BUILD, "--out", out, "--add", f.put("c.json", [grown(10), grown(100)]))
        bench("run", "--build", BUILD, "--out", out, "--add", f.put("d.json", [grown(100)]))
        assert [r["x"] for r in json.load(open(out))["rows"] if r["bench"] == "growth"] == [10, 100]


@test
def the_daemon_takes_every_row():
    os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    import keras
    from rows import ROWS
    from training import job

    with Daemon() as d:
        for name, r in ROWS.items():
            assert r.samples % r.batch == 0, name
            for array, part in zip("xy", r.data(r.batch)):
                d.upload(f"{name}/{array}", part)
            architecture = json.loads(r.keras(keras.layers, keras).to_json())
            reply = d.post("/api/v1/jobs?dry_run=true", job(r, architecture, 1, f"{name}/x", f"{name}/y"))
            assert reply.code == 200, (name, reply)


@test
def train_measures_horn_and_a_peer_and_writes_each_sample():
    if not os.path.exists(common.PYTHON):
        raise Skip("no peers are installed; bench/train installs them")
    with Files() as f:
        out = f.path("train.json")
        bench("train", "--build", BUILD, "--rows", "small", "--threads", "1", "--seconds", "0.2", "--peers", "torch", "--json", out)
        [r] = json.load(open(out))
        assert r["horn"] == max(r["horn_samples"]) and r["peer"] == max(r["peers"]["torch"]["samples"]), r
        assert abs(r["ratio"] - r["horn"] / r["peer"]) < 1e-9 and r["met"] == (r["ratio"] >= r["aim"]), r
        assert r["horn_peak_mib"] > 0 and r["peer_peak_mib"] > 0 and len(r["runs"]) == 2, r


run()
