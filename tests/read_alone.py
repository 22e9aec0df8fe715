"""The commands of README and docs/ that no test runs, and why not; `test_docs_run` holds the pages against it."""

FETCHED = "its model has to be fetched"
GPUS = "needs GPUs"
MACHINES = "needs several machines"
WANDB = "asks W&B's server; tests/test_wandb.py has a stand-in for it"
TORCHRUN = "tests/test_ddp.py starts a small run by torchrun"
PROCESSES = "tests/test_ddp.py and test_stop.py start, stop and resume small runs of two processes"
TRACED = "traces for minutes; tests/test_export.py exports small networks"
HOURS = "trains for hours; tests/test_bench_training.py trains small rows"
MINUTES = (
    "measures for minutes; tests/test_bench_speed.py, test_bench_photos.py, test_bench_data.py and test_ddp.py measure small"
)
RUNS = "needs the benchmark's run folders or a set of others; tests/test_bench_looks.py, _turning.py and _real.py have small ones"
LLVM = "renders by LLVM, which a machine may lack"
TRIALS = "trains on the quickstart's set for minutes; tests/test_sweep.py trains and tests the trials of a small sweep"
MENTIONED = "names the command alone"

READ_ALONE = {
    "README.md": {
        "relight photo.jpg --direction E --depth estimate": FETCHED,
        "bench quality --tier screen --add": HOURS,
        "export ltnet_pl/relight/ltnet.safetensors ltnet.onnx": TRACED,
        "export runs/mine mine.onnx": TRACED,
    },
    "docs/cluster.md": {
        "fit --config experiments/base.yaml --data.root data/train": PROCESSES,
        "torchrun --standalone": TORCHRUN,
        "torchrun --nnodes=2": MACHINES,
        "srun": MACHINES,
        "bench ddp data/train": GPUS,
    },
    "docs/howto/demo.md": {"demo --depth_model": FETCHED},
    "docs/howto/export.md": {
        "export ltnet_pl/relight/ltnet.safetensors ltnet.onnx": TRACED,
        "export ltnet_pl/relight/ltnet.safetensors ltnet.pt2": TRACED,
        "export runs/mine mine.onnx": TRACED,
        "export runs/mine mine_guide.onnx": TRACED,
    },
    "docs/howto/own_network.md": {"bench quality --tier screen --add": HOURS},
    "docs/howto/sweeps.md": {
        "fit --config experiments/base.yaml --config experiments/wandb.yaml": WANDB,
        "sweep sweeps/architecture.yaml --slots 0,1;2,3": GPUS,
        "sweep sweeps/paper_claim_small.yaml --test": TRIALS,
        "bench quality --tier screen --jobs 2": HOURS,
        "bench speed --engines eager,onnx": MINUTES,
    },
    "docs/model_card.md": {"relight": MENTIONED},
    "docs/performance.md": {
        "bench speed": MINUTES,
        "bench photos": MINUTES,
        "bench data data/analytic": MINUTES,
        "bench ddp data/small": MINUTES,
        "render data/large": LLVM,
        "sweep sweeps/paper_claim_small.yaml": HOURS,
    },
    "docs/real_pictures.md": {"bench real": RUNS},
    "docs/reference/commands.md": {"COMMAND": MENTIONED},
    "docs/results.md": {
        "bench turning": RUNS,
        "bench looks": RUNS,
        "render data/256": HOURS,
        "fit --config experiments/base.yaml --data.root data/256": GPUS,
        "bench speed --device cuda": GPUS,
        "bench ddp DATA": GPUS,
        "bench quality --tier screen --jobs 2 --redo true": HOURS,
    },
    "docs/tutorials/photo_to_picture.md": {"relight photo.jpg --direction E --depth estimate": FETCHED},
}
"""Commands that are read by their parsers and not run, by page and by how they begin, and why."""
