"""The results that an OPC UA client can ask for again, as ResultDataType."""

from __future__ import annotations

import fnmatch
import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from edgead.line.outputs.handshake import delay_of
from edgead.line.outputs.opcua import model
from edgead.line.outputs.register_map import Snapshot, describe
from edgead.runtime.result import Result
from edgead.text import valid

COMPLETED, FAILED = 1, 4
"""ResultState: a verdict was reached, or none (UNKNOWN)."""


def recipe_id(classes: dict[str, Any], name: str, version: str) -> Any:
    """Return the internal id of a recipe: a product with its version, or a bundle, which has none.

    Args:
        classes: the classes of the structures, see `edgead.line.outputs.opcua.types.Types`.
        name: of the product or bundle.
        version: empty for none.
    """
    return classes["RecipeIdInternalDataType"](Id=name, Version=version or None)


class Results:
    """The newest results by id.

    Args:
        classes: the classes of the structures, see `edgead.line.outputs.opcua.types.Types`.
        ua: the module ``asyncua.ua``.
        keep: how many.
    """

    def __init__(self, classes: dict[str, Any], ua: Any, keep: int) -> None:
        self._classes, self._ua, self._keep = classes, ua, keep
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def add(self, result: Result, shown: Snapshot, job: str) -> Any:
        """Keep a result and return it as ResultDataType."""
        ua, told = self._ua, describe(shown)
        made = self._classes["ResultDataType"]()
        result_id = result.id or f"{shown.session}-{shown.sequence}"
        made.ResultId.Id = result_id
        made.ResultState = FAILED if told["verdict"] == "UNKNOWN" else COMPLETED
        made.PartId = self._named("PartIdDataType", valid(result.part_id or result.id))
        product, _, version = result.recipe.rpartition(" ")
        made.InternalRecipeId = recipe_id(self._classes, valid(product or result.bundle), valid(version))
        made.InternalConfigurationId.Id = result.bundle_digest
        made.JobId.Id = job
        made.CreationTime = datetime.now(timezone.utc) - timedelta(seconds=delay_of(result, time.monotonic()))
        made.ProcessingTimes = self._times(result, made.CreationTime)
        made.ResultContent = [
            ua.Variant(told["verdict"], ua.VariantType.String),
            ua.Variant(told["cause"] or "", ua.VariantType.String),
            ua.Variant(float(result.score), ua.VariantType.Double),
            ua.Variant(float(result.threshold), ua.VariantType.Double),
            ua.Variant(shown.sequence, ua.VariantType.UInt16),
        ]
        self._kept[result_id] = made
        self._kept.move_to_end(result_id)
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        return made

    def get(self, result_id: str) -> Any:
        """Return a result; None if it is not kept."""
        return self._kept.get(result_id)

    def matching(self, state: int, ids: dict[str, str]) -> Iterator[Any]:
        """Yield the results of a filter, the newest first.

        Args:
            state: ResultState; 0 for any.
            ids: pattern by the name of a field with an id, with ``*`` and ``?``; empty for any.
        """
        for made in reversed(self._kept.values()):
            wanted = ((getattr(made, name), pattern.replace("[", "[[]")) for name, pattern in ids.items() if pattern)
            if state in (0, made.ResultState) and all(
                field is not None and fnmatch.fnmatchcase(field.Id or "", pattern) for field, pattern in wanted
            ):
                yield made

    def components(self, made: Any) -> list[Any]:
        """Return the fields of a result one by one, as GetResultComponentsById does."""
        ua = self._ua
        fields = {field.name: field for field in model.STRUCTURES["ResultDataType"].fields}
        found = []
        for name in model.COMPONENTS:
            kind, value = fields[name].type, getattr(made, name)
            if kind in self._classes:
                found.append(ua.Variant(self._classes[kind]() if value is None else value))
            elif name == "ResultContent":
                found.append(ua.Variant(value or [], ua.VariantType.Variant, is_array=True))
            else:
                variant = {"Boolean": "Boolean", "ResultStateDataType": "Int32", "UtcTime": "DateTime"}[kind]
                found.append(ua.Variant(bool(value) if kind == "Boolean" else value, ua.VariantType[variant]))
        return found

    def _named(self, kind: str, name: str) -> Any:
        made = self._classes[kind]()
        made.Id = name
        return made

    def _times(self, result: Result, end: datetime) -> Any:
        made = self._classes["ProcessingTimesDataType"]()
        total = result.latency_ms.get("total", 0.0)
        made.EndTime = end
        made.StartTime = end - timedelta(milliseconds=total if math.isfinite(total) else 0.0)
        made.ProcessingDuration = result.latency_ms.get("infer")
        return made
