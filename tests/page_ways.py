"""How tests do what each page of the documentation says, and the list of what they do not run, with the reasons."""

from __future__ import annotations

from page_steps import ROOT, Page

ELSEWHERE = {
    "contribute.md": "test_docs_pages.py",
    "live-page.md": "test_docs_pages.py",
    "lookout.md": "test_docs_pages.py",
    "plan.md": "test_docs_pages.py",
    "python.md": "test_docs_python.py",
    "reports.md": "test_docs_pages.py",
    "tutorial.md": "test_docs_pages.py",
}
"""Pages that need a test of their own ↦ its file."""
TRAINING = (
    "README.md",
    "benchmarks/README.md",
    "defect-transfer.md",
    "depth.md",
    "geometry.md",
    "precision.md",
    "quickstart.md",
    "sweep.md",
    "tensorrt.md",
    "thresholds.md",
    "train.md",
    "training.md",
)
"""Pages that train, or that begin with a trained run."""
DESK = "run by test_the_path_at_a_desk"
GPU = "needs a GPU"
HOURS = "takes hours"
ON_CPU = {"--engine tensorrt": "--engine onnxruntime"}
SERVERS = "needs servers at these addresses; tests/runtime has them on this machine"
WAYS = {
    "README.md": Page(
        {"line.mp4": "images"},
        makes=("bottle.edgead",),
        given="from level_bundle import frame_of\n\nframe = frame_of(100)\n",
    ),
    "anomalib-on-jetson.md": Page({**ON_CPU, "mqtt://broker/": "jsonl:"}, makes=("bottle.edgead",)),
    "benchmarks/README.md": Page(
        {"benchmarks/results/": f"{ROOT}/benchmarks/results/"},
        {
            "python benchmarks/": HOURS,
            "edgead train --method draem --preset paper": HOURS,
            "edgead export --checkpoint draem_paper": HOURS,
            "python -m venv peers": "installs packages",
            "peers/bin/python": HOURS,
            ".venv/bin/python": HOURS,
            "MALLOC_MMAP_THRESHOLD_": HOURS,
        },
    ),
    "bundle.md": Page({"--trust plant.pub": "--trust keys/plant.pub", "-inkey plant.pub": "-inkey keys/plant.pub"}),
    "command-line.md": Page(
        not_run={"_EDGEAD_COMPLETE": "changes the reader's shell; tests/test_terminal.py completes commands"}
    ),
    "defect-transfer.md": Page(
        {
            "--method drept": "--method drept --set removal_steps=5 --set defect_steps=5",
            "runs/train/drept-TARGET-…": "runs/train/drept-TARGET-*",
            "--defect 3": "--defect 0",
            "synthesise RUN": "synthesise runs/train/drept-OTHER-*",
        }
    ),
    "depth.md": Page(
        {"test/hole": "test/dent"},
        given="import numpy as np\n\nframe, depth = np.full((64, 80, 3), 100, 'u1'), np.full((64, 80), 0.5, 'f4')\n",
    ),
    "geometry.md": Page({"400,300,3200,2400": "40,30,160,120"}),
    "import.md": Page({"model.onnx --input": "other.onnx --input"}),
    "jetson.md": Page(ON_CPU, {"edgead doctor --build": GPU}),
    "line.md": Page(
        {'"9100"': '"0"', '"fpr:0.001"': '"140"', '"openvino"': '"onnxruntime"'},
        {
            "curl": DESK,
            "edgead run bottle.edgead --source 'synthetic": DESK,
            "edgead plc simulate": DESK,
            "python benchmarks/simulated_line": HOURS,
        },
        files=("line.toml",),
    ),
    "operate.md": Page({"rejects/20260714T081502123-front_1a2b3c4d-00000042.png": "rejects/*-00000001.png"}),
    "plc.md": Page(not_run={"edgead run": DESK, "edgead plc simulate": DESK}),
    "quickstart.md": Page(
        {"collect_photographs.py 0 photos/ 150": "collect_photographs.py labelled/train/good photos/ 12 0"},
        makes=("bottle.edgead", "photos"),
    ),
    "runtime.md": Page({"mqtt://broker/": "jsonl:"}),
    "secrets.md": Page(not_run={"edgead run": SERVERS}),
    "service.md": Page(
        {"/srv/edgead/": "", "/var/lib/edgead-line3/": "", "--metrics 9100": "--metrics 0"},
        {"edgead pull": "needs a server with HTTPS; tests/pull has one"},
    ),
    "sweep.md": Page(
        not_run={
            "edgead sweep sweep.toml --ray HOST": "needs a cluster; tests/sweep has one",
            "edgead sweep sweep.toml   ": HOURS,
            "edgead sweep sweep.toml --retry-failed": HOURS,
            "edgead predict bottle.edgead /archive --ray": "needs a cluster; tests/archive has one",
            "import ray": "needs Spark and an object store",
        },
        files=("sweep.toml",),
    ),
    "tensorrt.md": Page(
        ON_CPU,
        {
            "edgead doctor --build": GPU,
            "edgead export --method draem --format engine": GPU,
            "results = inspector": GPU,
            "python examples/pycuda_camera.py": GPU,
            "python examples/triton_client.py": "run by tests/export/test_triton.py",
        },
    ),
    "thresholds.md": Page({"rejects/PICTURE.png": "rejects/*-00000001.png"}),
    "train.md": Page(makes=("bottle.edgead",)),
    "training.md": Page(
        {"--target 10ms --budget 20m": "--target 9999ms"},
        {"edgead train --data photos/ --track mlflow": "needs mlflow, which not every machine can install"},
    ),
}
"""Pages that need more than what the test has ready ↦ how it does what they say."""
