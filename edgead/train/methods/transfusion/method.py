"""TransFusion as a method of this package: its stage, presets and published checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgead.errors import ConfigError, DataError
from edgead.train.foreground import part_of
from edgead.train.method import (
    WITH_REPLACEMENT,
    Arrays,
    Batch,
    Card,
    Method,
    Official,
    Reconstruction,
    Stage,
    TrainingData,
)
from edgead.train.methods.transfusion.config import TransfusionConfig
from edgead.train.methods.transfusion.diffusion import COLOURS, LAST, blend, losses
from edgead.train.methods.transfusion.examples import draw_example, measured, to_frame, to_image, widened
from edgead.train.methods.transfusion.export_model import ExportModel
from edgead.train.methods.transfusion.network import UNet
from edgead.train.methods.transfusion.preprocessing import LEARNED
from edgead.train.methods.transfusion.reference_model import ReferenceModel

MOST_DRAWS = 1000
"""Examples drawn for one that shows an anomaly; one in seventy does not where the whole picture is the part."""
NOWHERE = (
    "Nowhere is left for synthetic anomalies: no image has measured depth where its part was found.\n"
    "Say where the part is with --set foreground=bright, dark, all, or a folder of masks."
)


class TransfusionNetwork(nn.Module):
    """The U-Net, and the losses that train it. Named as the published code names it, `model` in its state."""

    def __init__(self, config: TransfusionConfig) -> None:
        super().__init__()
        self.model = UNet(
            config.channels,
            config.width,
            config.multipliers,
            config.attention_levels,
            config.blocks,
            config.norm_groups,
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses on a batch of `Example.arrays`. Its first half keeps the anomalies, the second gets none.

        A batch of one keeps its anomaly.
        """
        time, normal = batch["time"], batch["normal"]
        kept = (torch.arange(len(time), device=time.device) < max(1, len(time) // 2)).float()[:, None, None, None]
        anomaly, mask, previous = (kept * batch[name] for name in ("anomaly", "mask", "previous"))
        opacity = time[:, None, None, None] / LAST
        x = blend(normal, anomaly, mask, opacity)
        predicted = self.model(x, previous, time)
        with torch.autocast(x.device.type, enabled=False):  # sums over windows and logarithms want float32
            scaled, found, logits = (each.float() for each in predicted)
            return losses((scaled, found, logits), x, normal, anomaly, mask, opacity)


def _official_settings(weights: Mapping[str, Tensor]) -> list[str]:
    """Go down the published network: its blocks' widths, which of them attend, and where a level ends."""
    widths, attends, level, blocks = [], set(), 0, [0]
    for number in range(len(weights)):
        name = f"model.down.{number}."
        if f"{name}conv.weight" in weights:
            level += 1
            blocks.append(0)
        elif f"{name}res.conv1.weight" in weights:
            if not blocks[level]:
                widths.append(weights[f"{name}res.conv1.weight"].shape[0])
            blocks[level] += 1
            if f"{name}attn.output.weight" in weights:
                attends.add(level)
        else:
            break
    halves = "model.image_proj_rgb.weight" in weights
    first = weights.get("model.image_proj_rgb.weight" if halves else "model.image_proj.weight")
    if first is None or not widths:
        return []
    width = first.shape[0] * (2 if halves else 1)  # one half for colour, one for depth
    inputs = [width, *widths]
    multipliers = [after // before for before, after in zip(inputs, widths)]
    return [
        f"depth={str(halves).lower()}",
        f"width={width}",
        f"multipliers={','.join(map(str, multipliers))}",
        f"attention_levels={','.join(map(str, sorted(attends)))}",
        f"blocks={blocks[0]}",
    ]


class Transfusion(Method):
    """TransFusion as a method of this package."""

    name = "transfusion"
    card = Card(
        title="TransFusion",
        paper="Fučka, Zavrtanik, Skočaj: TransFusion, ECCV 2024",
        parameters=54.6,
        macs=3298.7,
        published="MVTec AD 99.2 (paper), 99.4 (released weights); VisA 98.5 (paper), 98.7 (released weights)",
        localises="segmentation head, at input resolution, averaged over the reverse steps",
        needs="good images; texture images help (--textures); with --set depth=true their depth (docs/depth.md)",
    )
    Config = TransfusionConfig
    sensitive = ("standardise", "attend", "decide")
    export_settings = ("reverse_steps", "reconstruction_weight")
    # 18 reverse steps in every preset: fewer lose real defects that no synthetic anomaly shows, docs/adr/0010.
    presets = {  # noqa: RUF012
        "paper": {},
        "edge": {"width": 32, "norm_groups": 16, "attention_levels": (3,), "learning_rate": 1e-4},
        "nano": {
            "size": (64, 64),
            "width": 32,
            "norm_groups": 16,
            "multipliers": (1, 1, 2),
            "attention_levels": (),
            "blocks": 1,
            "learning_rate": 2e-3,
            "decay_at": (0.8,),
            "steps": 800,
        },
    }
    official = Official(
        marks=("model.middle.res1.conv1.weight",),
        settings=_official_settings,
        rename=lambda name: name if name.startswith("model.") else None,
        resize="pillow bilinear",
        depth_scale=(
            0.0,
            1.1,
        ),  # MVTec 3D-AD is in metres, all below one: 0 and 1.1 times the larger of 1 and the depth
        inference="RGB in [−1, 1]; 18 reverse steps; map: 0.95 of the mean mask and 0.05 of the squared change, their "
        "7×7 mean; score: its maximum",
    )

    def __init__(self, config: TransfusionConfig) -> None:
        self.config: TransfusionConfig = config
        self.network: TransfusionNetwork = TransfusionNetwork(config)

    def reconstruction(self) -> Reconstruction | None:
        # Without it in the map the last step has no heads, and no image is made.
        return Reconstruction("reconstruct", -1.0, 1.0) if self.config.reconstruction_weight else None

    def published(self) -> TransfusionConfig:
        return TransfusionConfig(depth=True, width=128) if self.config.depth else TransfusionConfig()

    def departures(self) -> list[str]:
        found = [WITH_REPLACEMENT]
        if self.config.foreground == "auto":
            found.append("the part is found by brightness (published: masks of a segmentation network)")
        return found

    def stages(self, data: TrainingData) -> list[Stage]:
        config = self.config
        if config.depth_values != LEARNED:
            raise ConfigError(f"depth_values are {LEARNED} in training; leave them out.")
        parts = [widened(part_of(data, number, config.foreground)) for number in range(len(data.normals))]
        if not any((part & measured(to_image(frame))).any() for part, frame in zip(parts, data.normals)):
            raise DataError(NOWHERE)

        def sample(rng: np.random.Generator) -> Arrays:
            number = rng.integers(len(data.normals))
            return draw_example(rng, data.normals[number], parts[number], data.textures, config).arrays()

        def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.AdamW(parameters, lr=config.learning_rate)

        steps = config.total_steps(data.steps_in_epoch(config))
        return [
            Stage(
                name="train",
                module=self.network,
                sample=sample,
                steps=steps,
                batch_size=config.batch_size,
                optimizer=optimizer,
                schedule=lambda step: config.learning_rate_factor(step, steps),
                in_halves=True,
            )
        ]

    def example(self, data: TrainingData, rng: np.random.Generator) -> Arrays:
        for _ in range(MOST_DRAWS):
            number = int(rng.integers(len(data.normals)))
            part = widened(part_of(data, number, self.config.foreground))
            made = draw_example(rng, data.normals[number], part, data.textures, self.config)
            if made.mask.any():
                break
        else:
            raise DataError(NOWHERE)
        opacity = made.time / LAST
        blended = np.where(made.mask[:, :, None], (1 - opacity) * made.normal + opacity * made.anomaly, made.normal)
        blended[:, :, COLOURS:] = (made.normal + opacity * made.anomaly)[:, :, COLOURS:]
        return {"frame": to_frame(blended.astype(np.float32)), "mask": made.mask}

    def reference_model(self) -> nn.Module:
        return ReferenceModel(self.network.model, self.config).eval()

    def export_model(self) -> nn.Module:
        return ExportModel(self.network.model, self.config).eval()
