"""The curl lines of README.md, exactly as printed."""
import os
import re
import subprocess

from harness import ROOT, Daemon, Skip, run, test


@test
def the_lines_of_the_readme_do_what_it_says():
    text = open(os.path.join(ROOT, "README.md")).read()
    lines = re.search(r"<!-- run -->\n```sh\n(.*?)```", text, re.S)[1].strip().splitlines()
    assert len(lines) == 10, lines
    with Daemon(None, start=False) as d:
        d.command = lambda: [os.path.join(ROOT, "build/release/hornd"), "--data-dir", d.folder + "/data", "--listen", "127.0.0.1:8501"]
        try:
            d.start()
        except RuntimeError as e:
            if "8501" in str(e):
                raise Skip("another process has port 8501")
            raise
        for line in lines:
            line = line.replace("-o model.h5", f"-o {d.folder}/model.h5")
            done = subprocess.run(["bash", "-c", f"cd {ROOT} && {line.replace('curl ', 'curl -sS --fail-with-body ')}"], capture_output=True, text=True,
                                  timeout=300)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
        j = d.finish(2)
        assert j["metrics"]["accuracy"] > 0.8, j
        import keras

        model = keras.models.load_model(d.folder + "/model.h5")
        assert model.optimizer.iterations > 0


run()
