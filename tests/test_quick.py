"""`edgead train --quick`: ten photographs to a bundle; with and without ImageNet weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from edgead import quick
from edgead.bundle import Bundle, read_bundle
from edgead.cli import cli
from edgead.console import Console
from edgead.errors import CheckpointError
from edgead.runtime.run import RunSummary, run
from edgead.train import run_config
from edgead.train.backbones import LEVELS, Backbone
from edgead.train.methods.patchcore.config import PatchcoreConfig

SETTINGS = ("--set", "size=96", "--set", "memory=100")


@pytest.fixture(scope="module")
def photos(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of ten good parts."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for path in sorted((parts / "train" / "good").iterdir())[:10]:
        shutil.copy(path, folder)
    return folder


def train(folder: Path, *options: object) -> Result:
    return CliRunner().invoke(cli, ["train", "--quick", "--out", str(folder), *map(str, options)])


def test_ten_photographs_become_a_bundle_that_says_what_it_can_promise(
    photos: Path, squeezenet_weights: Path, bundle: Bundle, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = train(tmp_path / "first", "--data", photos, "--weights", squeezenet_weights, *SETTINGS)
    assert done.exit_code == 0, done.output
    assert backbone_of(tmp_path / "first") == ("squeezenet1_1", (2,), 100)
    path = Path("runs", "export", "first.edgead")
    assert f"Next:  edgead predict {path} IMAGES" in done.stdout
    made = read_bundle(path)
    assert (made.manifest.method, made.manifest.threshold.normals) == ("patchcore", 3)
    assert "from 3 held-out good images: out of 1,000 good parts at most 250 fail on average" in done.stdout
    assert "Requested: 10, which needs at least 99 held-out images" in done.stdout
    assert made.manifest.training.textures == "none"
    assert "Synthetic anomalies, which it was not trained on" in (tmp_path / "first" / "report.html").read_text()

    # A longer training replaces it at the line.
    ends: list[RunSummary] = []
    for decides, beside in ((made, bundle), (bundle, made)):
        source = str(parts / "test" / "chip")
        run(decides.path, sources=[source], shadow=beside.path, engine="onnxruntime", on_end=ends.append)
    assert [sum(end["shadow"].values()) for end in ends] == [2, 2]


def test_json_names_runs_and_bundles(
    photos: Path, squeezenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quick, "MOST_IMAGES", 6)
    options = ("--data", photos, "--weights", squeezenet_weights, "--holdout", "0.5", "--json", *SETTINGS)
    done = train(tmp_path / "run", *options)
    found = json.loads(done.stdout)
    assert "photos: 6 of 10 good images are used" in done.stderr
    [folder] = found["runs"]
    config = run_config.load_run_config(Path(folder))
    assert (len(config.normals), len(config.held_out)) == (3, 3)
    assert read_bundle(Path(found["bundles"][0])).manifest.threshold.normals == 3


def test_the_weights_choose_the_backbone(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Backbone("resnet50v2", LEVELS["resnet50v2"]).state_dict(), "weights.pth")
    done = train(tmp_path / "run", "--data", photos, "--weights", "weights.pth", *SETTINGS)
    assert done.exit_code == 0, done.output
    assert backbone_of(tmp_path / "run") == ("resnet50v2", (2,), 100)


def backbone_of(run_folder: Path) -> tuple[str, tuple[int, ...], int]:
    config = run_config.load_run_config(run_folder).config
    assert isinstance(config, PatchcoreConfig)
    return config.backbone, config.levels, config.memory


@pytest.mark.long
@pytest.mark.usefixtures("offline")
def test_without_weights_it_says_what_to_fetch_and_trains_what_needs_none(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quick, "BUDGET", "40s")  # with less, a machine that is busy with other tests may refuse
    done = train(tmp_path / "first", "--data", photos)
    assert done.exit_code == 0, done.output
    assert "Fetch squeezenet1_1-b8a52dc0.pth from https://download.pytorch.org/models/\n" in done.stderr
    assert "or pass it with --weights FILE.\n  Without them, DRAEM is trained for 40s." in done.stderr
    assert read_bundle(Path("runs", "export", "first.edgead")).manifest.method == "draem"


@pytest.mark.usefixtures("offline")
def test_a_machine_that_is_too_slow_gets_no_advice_about_an_option_that_nobody_gave(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "BUDGET", "0.1s")
    done = train(tmp_path / "first", "--data", photos)
    assert "too slow or too busy to train DRAEM in 0.1s. Fetch the weights of PatchCore" in str(done.exception)
    assert f"edgead train --method draem --preset nano --data {photos} --budget 5m" in str(done.exception)


@pytest.mark.usefixtures("offline")
def test_settings_are_not_dropped_in_silence(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        quick.train_quick(photos, settings=("memory=100",), out=tmp_path / "run", console=Console())
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_an_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"not weights")
    done = train(tmp_path / "run", "--data", photos, "--weights", tmp_path / "other.pth")
    assert isinstance(done.exception, CheckpointError)
    assert "cannot be read as weights" in str(done.exception)


@pytest.mark.parametrize(
    "options", [("--method", "aand"), ("--preset", "nano"), ("--budget", "30s"), ("--textures", "x"), ("--resume",)]
)
def test_options_without_an_effect_are_refused(photos: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = train(tmp_path / "run", "--data", photos, *options)
    assert done.exit_code == 2
    assert f"{options[0]} has no effect with --quick" in done.output
