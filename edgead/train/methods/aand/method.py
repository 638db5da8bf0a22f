"""AAND as a method of this package: its stages, presets and published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgead.console import Track
from edgead.train.feature_cache import FeatureCache, fingerprint, float32_bytes, pays
from edgead.train.foreground import part_of
from edgead.train.method import WITH_REPLACEMENT, Arrays, Card, Method, Official, Stage, TrainingData
from edgead.train.methods.aand.config import AandConfig
from edgead.train.methods.aand.export_model import ExportModel
from edgead.train.methods.aand.losses import Amplification, Distillation, teach
from edgead.train.methods.aand.network import AandNetwork
from edgead.train.methods.aand.reference_model import ReferenceModel
from edgead.train.synthetic import make_anomaly

UNUSED = re.compile(r"encoder_AT\.(layer4|fc)\.|bn\.(conv4|bn4)\.|bn\..*memory")
"""Layers that the published code saves and never uses."""


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights[name].shape) if name in weights else (0, 0)

    def blocks(prefix: str) -> int:
        return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})

    found = []
    if inner := shape("encoder_AT.layer1.0.conv2.weight")[0]:
        plain = "resnet34" if blocks("encoder_AT.layer1.") == 3 else "resnet18"
        bottleneck = "wide_resnet50_2" if inner == 128 else "resnet50"
        found.append(f"backbone={bottleneck if 'encoder_AT.layer1.0.conv3.weight' in weights else plain}")
    if keys := shape("encoder_AT.feat_recons_a.K_list.0")[1]:
        found.append(f"keys={keys // 2}")
        hidden, channels = shape("encoder_AT.feat_recons_a.projs.0.0.weight")[:2]
        found += [f"hidden_factor={hidden / channels}"]
        found += [f"hidden_most={shape('encoder_AT.feat_recons_c.projs.0.0.weight')[0]}"]
    if outputs := shape("decoder_ss.layer1.0.conv3.weight")[0]:
        found.append(f"student_factor={shape('decoder_ss.layer1.0.conv3.weight')[1] / outputs}")
        found.append("student_blocks=" + ",".join(str(blocks(f"decoder_ss.layer{number}.")) for number in (1, 2, 3)))
        found.append(f"bottleneck_blocks={blocks('bn.bn_layer.')}")
    return found


class Aand(Method):
    """AAND as a method of this package."""

    name = "aand"
    card = Card(
        title="AAND",
        paper="Anomaly amplification and normality distillation, arXiv 2405.02068",
        parameters=120.4,
        macs=40.8,
        published="no figure of the ResNet version could be read",
        localises="distance of teacher and student at 1/4, 1/8 and 1/16 of the input's resolution",
        needs="good images and ImageNet weights (--weights); texture images help (--textures)",
    )
    Config = AandConfig
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"backbone": "resnet50", "hidden_factor": 0.5, "student_factor": 0.25},
        "nano": {
            "size": (129, 129),
            "backbone": "squeezenet1_1",
            "hidden_factor": 0.5,
            "student_factor": 0.25,
            "bottleneck_blocks": 1,
            "student_blocks": (1, 1, 1),
            "batch_size": 8,
            "steps": 300,
        },
    }
    sensitive = ("gates", "scoring")
    official = Official(
        marks=("encoder_AT.feat_recons_a.K_list.0", "decoder_ss.layer1.0.conv1.weight"),
        settings=_official_settings,
        rename=lambda name: None if UNUSED.match(name) else name,
        partners=((r"Stage1([/\\][^/\\]+)$", r"Stage2\1"), (r"Stage2([/\\][^/\\]+)$", r"Stage1\1")),
        resize="pillow bicubic",
        inference="RGB, ImageNet's mean and deviation; map: cosine distances of three levels, Gaussian of 4 pixels; "
        "score: its maximum",
    )

    def __init__(self, config: AandConfig) -> None:
        self.config: AandConfig = config
        self.network: AandNetwork = AandNetwork(config)

    def load_pretrained(self, weights: Path | None) -> None:
        self.network.encoder_AT.load_pretrained(weights)

    def departures(self) -> list[str]:
        found = [
            WITH_REPLACEMENT,
            "the last state of each stage is kept (published: the one that is best on the tests)",
        ]
        if self.config.foreground == "auto":
            found.append("the part is found by brightness (published: by a limit for each product)")
        return found

    def stages(self, data: TrainingData) -> list[Stage]:
        config, network, normals = self.config, self.network, data.normals
        teacher, amplifiers = network.encoder_AT, nn.ModuleList(network.encoder_AT.amplifiers())
        parts = [part_of(data, number, config.foreground) for number in range(len(normals))]

        def draw(rng: np.random.Generator) -> Arrays:
            number = rng.integers(len(normals))
            image, mask = normals[number].astype(np.float32), np.zeros(config.size, np.bool_)
            if rng.random() < config.anomaly_share:
                image, mask = make_anomaly(rng, normals[number], data.textures, config.lowest_opacity, parts[number])
                image = image * np.float32(255)
            return {
                "image": image,
                "mask": mask[None].astype(np.float32),
                "foreground": parts[number][None].astype(np.float32),
            }

        first, second = config.stage_steps(data.steps_in_epoch(config))
        row = float32_bytes(*teacher.level_shapes)
        cache = FeatureCache(data.cache) if pays(len(normals), row, second * config.batch_size) else None

        def draw_normal(rng: np.random.Generator) -> Arrays:
            number = int(rng.integers(len(normals)))
            return cache.row(number) if cache is not None and cache.is_filled else {"frames": normals[number]}

        def stage(name: str, module: nn.Module, sample: Callable[[np.random.Generator], Arrays], steps: int) -> Stage:
            def prepare(device: torch.device, track: Track) -> None:
                amplifiers.requires_grad_(name == "amplify")
                # A GPU computes the features of a batch sooner than a hundred times as many bytes reach it.
                if name == "distill" and cache is not None and device.type == "cpu":
                    key = fingerprint(normals, teacher, {"method": "aand", "device": device.type})
                    cache.fill(len(normals), key, lambda number: teach(teacher, normals[number]), track)

            def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
                return torch.optim.Adam(parameters, lr=config.learning_rate, betas=(0.5, 0.999))

            return Stage(
                name=name,
                module=module,
                sample=sample,
                steps=steps,
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=lambda step: config.learning_rate_factor(step, steps),
                prepare=prepare,
            )

        return [
            stage("amplify", Amplification(teacher, config), draw, first),
            stage("distill", Distillation(network, config.top_patches), draw_normal, second),
        ]

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        mask = np.zeros(self.config.size, np.bool_)
        while not mask.any():
            number = int(rng.integers(len(data.normals)))
            part = part_of(data, number, self.config.foreground)
            image, mask = make_anomaly(rng, data.normals[number], data.textures, self.config.lowest_opacity, part)
        return {"frame": np.round(image * 255).astype(np.uint8), "mask": mask}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network, self.config).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network, self.config).eval()
