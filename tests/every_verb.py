"""One small call of every verb. A verb without one fails the tests that use them."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgead.bundle import Bundle
from edgead.cli import cli

TINY = ("size=32", "reconstructive_width=2", "discriminative_width=2", "batch_size=2", "steps=1")
STUDENT = ("stem=4", "widths=16,16", "pictures=8", "rounds=1", "batch_size=2", "steps=2")


def settings(values: tuple[str, ...]) -> list[str]:
    return [f"--set={each}" for each in values]


def calls(bundle: Bundle, parts: Path, trained: Path, folder: Path) -> dict[str, list[str]]:
    """Return verb ↦ what follows it. They run in `folder`, in which this puts what they need.

    `demo` is refused at once, because it takes minutes; so are `pull` and `sign` until ``key`` and ``key.pub`` exist.
    """
    from onnx import parser, save_model

    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 3, 16, 16] image) => (float[N, 1, 16, 16] heat) <float[1, 3, 1, 1] w = {0.2, 0.3, 0.5}>
        { heat = Conv (image, w) }""")
    save_model(model, folder / "m.onnx")
    (folder / "rejects").mkdir()
    shutil.copytree(bundle.path, folder / "copy.edgead")
    sweep = f'data = "{parts}"\nsettings = {list(TINY)}\n[[methods]]\nmethod = "draem"\npreset = "nano"\n'
    (folder / "sweep.toml").write_text(sweep)
    images = str(parts / "test" / "chip")
    lowered = ["--precision", "int8", "--max-flips", "1", "--max-auroc-drop", "1"]
    distil = [str(bundle.path), "--data", str(parts), "--target", "9999ms", "--precision", "fp32"]
    made = {
        "benchmark": [str(bundle.path), "--data", str(parts), "--rounds", "1", "--pixel-size", "32", "--quick"],
        "demo": ["--out", str(bundle.path)],
        "distil": [*distil, *settings(STUDENT)],
        "doctor": [],
        "export": ["--checkpoint", str(trained), "--out", "x.edgead"],
        "import": ["m.onnx", "--threshold-data", str(parts), *lowered],
        "inspect": [str(bundle.path)],
        "keys": ["new", "key"],
        "methods": ["draem"],
        "plan": ["--cameras", "1", "--fps", "1", "--deadline", "1s", "--bundle", str(bundle.path)],
        "plc": ["registers"],
        "predict": [str(bundle.path), images],
        "pull": ["https://127.0.0.1:9/part", "--to", "now.edgead", "--trust", "key.pub"],
        "report": [str(bundle.path)],
        "review": ["rejects"],
        "run": [str(bundle.path), "--source", images],
        "sign": [str(folder / "copy.edgead"), "--key", "key"],
        "sweep": ["sweep.toml", "--list"],
        "synthesise": [str(trained), "--count", "1", "--out", "pictures"],
        "train": ["--data", str(parts), "--preset", "nano", *settings(TINY)],
    }
    assert set(made) == set(cli.commands)
    return made
