"""The transfer set: images, and what the teacher gives for them, on disk while the run lasts.

The images do not depend on the run's seed, only on its good images and settings, so a stopped run finds them again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgead.console import Track
from edgead.files import write_json
from edgead.images import Frame, cv2
from edgead.schema import SchemaError, load_json
from edgead.train.feature_cache import FeatureCache
from edgead.train.method import Arrays, TrainingData
from edgead.train.methods.student.config import StudentConfig
from edgead.train.methods.student.examples import draw_anomalous, draw_good, jitter, vary
from edgead.train.methods.student.losses import disagreement, map_errors
from edgead.train.methods.student.network import StudentNetwork, compress
from edgead.train.synthetic import Rng
from edgead.train.teacher import Teacher

MOST_REVIEWED = 800
"""Images of earlier rounds whose disagreement is measured before a new one."""
HARDEST = 0.25
"""Share of them that is hard: half for their maps, half for their scores."""
REHEARSED = 4
"""Images by which the teacher's time is measured."""
MOST_SCALED = 100
"""Good images that the scale is laid through at most."""
USUAL, WIDE = 0.5, 0.99
"""Quantiles of the map on good images that the student's scale is laid through."""


class TransferSet:
    """Images and teacher's outputs of all rounds so far.

    Args:
        data: what the images are made of.
        config: of the student.
        network: the student; its scale is set from the first round.
    """

    def __init__(self, data: TrainingData, config: StudentConfig, network: StudentNetwork) -> None:
        self.data, self.config, self.network = data, config, network
        self.stored: list[FeatureCache] = []
        self.counts: list[int] = []
        self.hard: list[int] = []
        self.each: float | None = None

    def add(self, number: int, count: int, track: Track) -> None:
        """Make the images of a round, from 0, and ask the teacher; earlier rounds are read where they are missing."""
        teacher = self._open()
        for earlier in range(len(self.stored), number):
            self._fill(earlier, self.config.round_pictures()[earlier], teacher, track)
        if number:
            self.hard = self._hardest(number)
        self._fill(number, count, teacher, track)
        if number == 0:
            self._set_scale()

    def rehearse(self, count: int) -> float:
        """Ask the teacher about a few images, once for all rounds; return the seconds that so many take."""
        if self.each is None:
            teacher = self._open()
            for _ in range(2):  # the first inference is slow
                self.stored, self.counts, start = [], [], time.monotonic()
                self._fill(0, REHEARSED, teacher, lambda items: items)
            self.each, self.hard = (time.monotonic() - start) / REHEARSED, [0]
        return self.each * count

    def _open(self) -> Teacher:
        return Teacher(Path(self.config.teacher), self.config.teacher_digest)

    def draw(self, rng: Rng) -> Arrays:
        """Draw an image ``frames [H, W, 3]`` with the teacher's ``map [h, w]`` and ``score []``."""
        if self.hard and rng.random() < self.config.hard_share:
            return self._row(self.hard[rng.integers(len(self.hard))])
        return self._row(int(rng.integers(sum(self.counts))))

    def _scaled(self) -> int:
        """Return how many images, the first of the first round, the scale is laid through."""
        return max(1, min(MOST_SCALED, self.config.round_pictures()[0] // 4))

    def _row(self, number: int) -> Arrays:
        for cache, count in zip(self.stored, self.counts):
            if number < count:
                return cache.row(number)
            number -= count
        raise IndexError(number)

    def _fill(self, number: int, count: int, teacher: Teacher, track: Track) -> None:
        folder = None if self.data.cache is None else self.data.cache / f"round{number + 1}"
        cache = FeatureCache(folder)
        batch: dict[int, Arrays] = {}

        def compute(row: int) -> Mapping[str, NDArray[Any]]:
            if row not in batch:
                rows = range(row, min(row + teacher.batch, count))
                frames = np.stack([self._picture(number, each) for each in rows])
                scores, maps = teacher.outputs(frames)
                batch.clear()
                for each, frame, score, found in zip(rows, frames, scores, maps):
                    batch[each] = {"frames": frame, "map": _shrink(found, self.network.grid), "score": score}
            return batch[row]

        cache.fill(count, self._key(number, teacher.digest), compute, track)
        self.stored.append(cache)
        self.counts.append(count)

    def _key(self, number: int, digest: str) -> str:
        config = self.config.replaced(steps=1, learning_rate=1.0, teacher="")  # they may change until a run is resumed
        settings = [number, digest, str(config), self.data.normals.shape, self.data.textures.shape]
        found = hashlib.sha256(json.dumps(settings, default=str).encode())
        found.update(np.ascontiguousarray(self.data.normals).data)
        return found.hexdigest()

    def _picture(self, number: int, row: int) -> Frame:
        """Make an image of a round; in later rounds every other one is a variant of a hard one."""
        rng, data, config = np.random.default_rng((0x7EAC, number, row)), self.data, self.config
        if number == 0 and row < self._scaled():
            return jitter(rng, data.normals[row % len(data.normals)], config)
        if self.hard and row % 2:
            return vary(rng, self._row(self.hard[rng.integers(len(self.hard))])["frames"], data, config)
        if rng.random() < config.anomaly_share:
            return draw_anomalous(rng, data, config)[0]
        return draw_good(rng, data, config)

    def _set_scale(self) -> None:
        """Lay the student's scale through the teacher's outputs on good images.

        They are jittered: a teacher that was trained on these images gives lower values for them as they are.
        """
        rows = [self._row(number) for number in range(self.counts[0])]
        every = np.stack([row["map"] for row in rows]), np.stack([row["score"] for row in rows])
        for scale, values in zip((self.network.map_scale, self.network.score_scale), every):
            scale.copy_(torch.tensor(find_scale(values[: self._scaled()], values)))

    def _hardest(self, number: int) -> list[int]:
        """Return the numbers of the images that the student gets most wrong; a stopped run reads them again."""
        file = None if self.data.cache is None else self.data.cache / f"hard{number + 1}.json"
        if file is not None and (stored := _read(file)):
            return stored
        total = sum(self.counts)
        chosen = np.random.default_rng((0x4A8D, number)).permutation(total)[:MOST_REVIEWED]
        by_map, by_score = np.argsort(-self._errors([int(each) for each in chosen]), kind="stable").tolist()
        count = max(1, int(HARDEST * len(chosen)))
        worst = by_map[: count // 2]
        worst += [index for index in by_score if index not in worst][: count - len(worst)]
        hard = sorted(int(chosen[index]) for index in worst)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, hard)
        return hard

    @torch.inference_mode()
    def _errors(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Return how wrong the student is on each image, ``[2, N]``: its map, and its score where that decides."""
        training = self.network.training
        network = self.network.eval()
        device, errors = network.map_scale.device, []
        for number in numbers:
            row = {
                name: torch.from_numpy(np.array(value)[None]).to(device) for name, value in self._row(number).items()
            }
            scores, maps = network(row["frames"])
            map_error = map_errors(maps, compress(row["map"], network.map_scale)).mean()
            apart = disagreement(scores, compress(row["score"], network.score_scale))
            errors.append((float(map_error), float(apart)))
        network.train(training)
        return np.array(errors, np.float32).T


def find_scale(good: NDArray[np.float32], every: NDArray[np.float32]) -> tuple[float, float]:
    """Return centre and spread of a scale: the median on good images, and how far 99 % of them are above it at most.

    Args:
        good: values on good images.
        every: these and those on synthetic anomalies; a thousandth of their range is the least spread.
    """
    centre, high = np.quantile(good, (USUAL, WIDE))
    least = max(1e-3 * float(np.ptp(every)), float(np.finfo(np.float32).tiny))
    return float(centre), max(float(high - centre), least)


def _shrink(anomaly_map: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2().resize(anomaly_map, grid[::-1], interpolation=cv2().INTER_AREA), np.float32)


def _read(file: Path) -> list[int]:
    try:
        return [int(number) for number in load_json(file)]
    except (OSError, SchemaError, TypeError, ValueError):
        return []
