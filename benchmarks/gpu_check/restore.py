"""Restore the run that the step accuracy kept, to export it on another machine.

    python benchmarks/gpu_check/restore.py FOLDER --data CATEGORY --out RUN
    edgead export --checkpoint RUN

FOLDER holds the files weights-N.safetensors. CATEGORY is the data set's folder on this machine, with the images of the
training: the held-out ones set the threshold. Both are compared by their contents.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open

from edgead.train.checkpoint import build_method, save_weights
from edgead.train.run_config import CONFIG, load_run_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    paths = sorted(given.folder.glob("weights-*.safetensors"))
    if not paths:
        parser.error(f"{given.folder} holds no weights-N.safetensors")
    if given.out.exists():
        parser.error(f"{given.out} exists already")
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    if len(paths) != int(facts["pieces"]):
        parser.error(f"{given.folder} holds {len(paths)} of {facts['pieces']} files of weights")
    config = {**json.loads(facts["config"]), "data": str(given.data.resolve())}
    given.out.mkdir(parents=True)
    (given.out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    method = build_method(load_run_config(given.out))
    method.network.load_state_dict(tensors)  # float16 becomes float32
    save_weights(given.out, method)
    print(f"Restored: {given.out}. Next:  edgead export --checkpoint {given.out}")


if __name__ == "__main__":
    main()
