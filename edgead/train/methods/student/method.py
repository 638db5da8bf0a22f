"""A student as a method of this package: its rounds and its family of sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgead.console import Track
from edgead.errors import ConfigError
from edgead.text import typed
from edgead.train.method import Arrays, Card, Method, Stage, TrainingData
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.examples import draw_anomalous
from edgead.train.methods.student.export_model import ExportModel
from edgead.train.methods.student.losses import Imitation
from edgead.train.methods.student.network import PretrainedEncoder, StudentNetwork
from edgead.train.methods.student.reference_model import ReferenceModel
from edgead.train.methods.student.transfer_set import TransferSet


class Student(Method):
    """A student as a method of this package."""

    name = "student"
    card = Card(
        title="Student (distillation)",
        paper="knowledge distillation: Hinton et al., arXiv 1503.02531; hard examples as in EfficientAD, WACV 2024",
        parameters=0.27,
        macs=0.27,
        published="none: as accurate as its teacher at best",
        localises="regressed map of the teacher, at 1/4 of the input's resolution",
        needs="good images and a bundle as teacher (edgead distil); texture images help (--textures)",
    )
    Config = StudentConfig
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"stem": 4, "widths": (32, 48, 64)},
        "nano": {"stem": 4, "widths": (16, 32, 48), "pictures": 400, "steps": 600},
    }
    sensitive = ("scoring",)

    def __init__(self, config: StudentConfig) -> None:
        self.config: StudentConfig = config
        self.network: StudentNetwork = StudentNetwork(config)

    def load_pretrained(self, weights: Path | None) -> None:
        if isinstance(self.network.encoder, PretrainedEncoder):
            self.network.encoder.backbone.load_pretrained(weights)
        else:
            super().load_pretrained(weights)

    def published(self) -> StudentConfig:
        return self.config  # nobody published one that it could depart from

    def resume_command(self) -> str:
        return f"edgead distil {typed(self.config.teacher)} --target TIME --resume"  # it exports and compares, too

    def stages(self, data: TrainingData) -> list[Stage]:
        config = self.config
        if not config.teacher:
            raise ConfigError("A student needs a teacher. Distil a bundle:  edgead distil BUNDLE --data DIR")
        transfer, module = TransferSet(data, config, self.network), Imitation(self.network)
        total = config.total_steps(data.steps_in_epoch(config))
        counts, steps = config.round_pictures(), config.round_steps(total)

        def stage(number: int) -> Stage:
            def prepare(device: torch.device, track: Track) -> None:
                transfer.add(number, counts[number], track)

            def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
                return torch.optim.Adam(parameters, lr=config.learning_rate)

            return Stage(
                name=f"round {number + 1}",
                module=module,
                sample=transfer.draw,
                steps=steps[number],
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=_after(config, sum(steps[:number]), total),
                prepare=prepare,
                rehearse=lambda: transfer.rehearse(counts[number]),
            )

        return [stage(number) for number in range(config.rounds)]

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        frame, mask = draw_anomalous(rng, data, self.config)
        return {"frame": frame, "mask": mask}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network, self.config).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network, self.config).eval()


def _after(config: StudentConfig, before: int, total: int) -> Callable[[int], float]:
    """Return the schedule of a round that so many steps of the whole come before."""
    return lambda step: config.learning_rate_factor(before + step, total)
