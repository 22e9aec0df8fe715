"""A trial of a made-up sweep: logs `steps` values of `score`, slowly where asked, into the folder that it is given."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main():
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    folder = Path(os.environ["WANDB_DIR"])
    with (folder / "calls.jsonl").open("a") as file:
        names = ("CUDA_VISIBLE_DEVICES", "WANDB_MODE", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_SWEEP_ID")
        kept = {key: os.environ.get(key) for key in names}
        file.write(json.dumps({"args": sys.argv[1:], "env": kept, "pid": os.getpid()}) + "\n")
    # what is said of one trial is said by its value of a
    deaf = given.get("a") == given.get("deaf")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: sys.exit(int(given.get("leave", 143))))
    if given.get("a") == given.get("broken") and not Path(given.get("mended", "nothing")).exists():
        raise RuntimeError("this trial is broken")
    if given.get("a") == given.get("ranks"):
        # as a first process does that leaves before its ranks
        rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "rank").write_text(str(rank.pid))
    for step in range(1, int(given.get("steps", 2)) + 1):
        if given.get("a") == given.get("killed"):
            os.kill(os.getpid(), int(given.get("number", signal.SIGKILL)))
        while Path(given.get("hold", "nothing")).exists() and given.get("a") != given.get("free"):
            time.sleep(0.02)
        with (folder / "metrics.jsonl").open("a") as file:
            # as a run of ours and as Python write what is not finite
            strange = (None, float("nan"))[step % 2]
            value = strange if given.get("a") == given.get("strange") else float(given.get("a", 0)) + step / 100
            file.write(json.dumps({"step": step, given.get("name", "val/psnr"): value}) + "\n")
        time.sleep(float(given.get("wait", 0)))


if __name__ == "__main__":
    main()
