"""The file of a line: TOML, described in docs/line.md."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from edgead import schema
from edgead.errors import ConfigError, unknown
from edgead.files import is_path
from edgead.home import at_home
from edgead.line.part import LONGEST, PartRules
from edgead.line.products import Product, why_no_version
from edgead.redaction import redact
from edgead.runtime.frame_queue import ON_FULL
from edgead.runtime.policy import HEALTH, UNTRAINED_ASPECT
from edgead.schema import FilePath, OneOf, SchemaError, Within
from edgead.toml import line_of, read_toml

LOGS = ("text", "json")
"""Forms of log lines."""
NAME = re.compile(r"\w[\w.-]*")
"""Of a camera: in front of the = of ``--source NAME=URI``."""


@dataclass(frozen=True)
class Camera:
    """A camera.

    Attributes:
        source: its URI.
        delay: milliseconds from trigger to camera; None for `PartRules.delay`.
    """

    source: str
    delay: Annotated[float, Within(-LONGEST, LONGEST)] | None = None


@dataclass(frozen=True)
class RunTable:
    """The options of `edgead run` that a file may set, each as on the command line; None where it does not."""

    engine: str | None = None
    batch: Annotated[int, Within(1, 1024)] | None = None
    on_full: Annotated[str, OneOf(ON_FULL)] | None = None
    max_staleness: Annotated[float, Within(0, above=True)] | None = None
    deadline: Annotated[float, Within(0, above=True)] | None = None
    silence: Annotated[float, Within(0, above=True)] | None = None
    health: Annotated[str, OneOf(HEALTH)] | None = None
    untrained_aspect: Annotated[str, OneOf(UNTRAINED_ASPECT)] | None = None
    keep_warm: Annotated[float, Within(0)] | None = None
    drift_window: Annotated[int, Within(0)] | None = None
    drift_alarms: Annotated[float, Within(0, above=True)] | None = None
    drift_every: Annotated[float, Within(0)] | None = None
    boxes: bool = False
    contours: bool = False
    record: FilePath | None = None
    metrics: str | None = None
    metrics_token: str | None = None
    view: str | None = None
    view_token: str | None = None
    view_folder: FilePath | None = None
    need_all_cameras: bool | None = None
    log: Annotated[str, OneOf(LOGS)] | None = None
    trust: tuple[FilePath, ...] | None = None


@dataclass(frozen=True)
class LineFile:
    """A line.

    Attributes:
        cameras, products: by name.
        product: name of the one that decides first; empty for the first in the file.
        triggers, control, sinks: URIs.
        part: rules of parts.
        run: options.
    """

    cameras: dict[str, Camera] = field(default_factory=dict)
    products: dict[str, Product] = field(default_factory=dict)
    product: str = ""
    triggers: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    part: PartRules = field(default_factory=PartRules)
    run: RunTable = field(default_factory=RunTable)

    def options(self) -> dict[str, Any]:
        """Return what the file sets as defaults of the options of `edgead run`, by their names in Python."""
        run = {name: value for name, value in vars(self.run).items() if value is not None}
        shapes = tuple(name for name in ("boxes", "contours") if run.pop(name))
        part = {name: value for name, value in vars(self.part).items() if value != getattr(PartRules(), name)}
        lists = {
            "sources": tuple(f"{name}={camera.source}" for name, camera in self.cameras.items()),
            "triggers": self.triggers,
            "control": self.control,
            "sinks": self.sinks,
            "part_rules": tuple(f"{name}={value}" for name, value in part.items()),
            "shapes": shapes,
        }
        return {**run, **{name: values for name, values in lists.items() if values}}

    @property
    def delays(self) -> dict[str, float]:
        """Delay of the cameras that have one of their own."""
        return {name: camera.delay for name, camera in self.cameras.items() if camera.delay is not None}


def read_line_file(path: Path) -> LineFile:
    """Read the file of a line. Paths of bundles and masks start at its folder.

    Raises:
        ConfigError: it is missing, not TOML, or has a field that is unknown, missing or wrong, with its line.
    """
    values, text = read_toml(path, "line's file", "line")
    if found := schema.find_unknown(LineFile, values):
        place, names = found
        owner = ".".join(place[:-1])
        raise ConfigError(f"{_where(path, text, place)}: {unknown('field', place[-1], names, owner and f'[{owner}]')}")
    try:
        line = schema.read(LineFile, values)
    except SchemaError as error:
        raise ConfigError(f"{_where(path, text, tuple(error.place.split('.')))}: {error}.") from error
    except ConfigError as error:  # rules that make no sense together
        raise ConfigError(f"{_where(path, text, ('part',))}: {error}") from error
    if wrong := next((name for name in line.cameras if not NAME.fullmatch(name)), None):
        where = _where(path, text, ("cameras", wrong))
        raise ConfigError(f"{where}: the camera's name {wrong!a} may hold letters, digits and _ . - only.")
    if line.product and line.product not in line.products:
        raise ConfigError(f"{_where(path, text, ('product',))}: {unknown('product', line.product, line.products)}")
    folder = path.resolve().parent
    products = {name: _from_folder(product, folder) for name, product in line.products.items()}
    for name, product in products.items():
        if not Path(product.bundle).is_dir():
            where = _where(path, text, ("products", name, "bundle"))
            raise ConfigError(f"{where}: the bundle {product.bundle} does not exist.")
        if why := why_no_version(product.version):
            raise ConfigError(f"{_where(path, text, ('products', name, 'version'))}: {why}")
    run = line.run
    if run.trust is not None:
        run = dataclasses.replace(run, trust=tuple(str(folder / at_home(place)) for place in run.trust))
    return dataclasses.replace(line, products=products, run=run)


def describe(
    options: Mapping[str, Any], rules: PartRules, delays: Mapping[str, float], recipes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the resolved configuration of a run as JSON values, without passwords and tokens.

    Args:
        options: of `edgead run`, from the command line, the file and the defaults.
        rules, delays: of parts.
        recipes: resolved settings of the products.
    """
    shown = {name: _plain(value) for name, value in options.items() if not name.endswith("_token")}
    return {**shown, "part": schema.write(rules), "delays": dict(delays), "recipes": dict(recipes)}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):  # which JSON does not have
        return str(value)
    return redact(str(value)) if isinstance(value, (str, Path)) else value


def _from_folder(product: Product, folder: Path) -> Product:
    def mask(text: str) -> str:
        path = folder / at_home(text)
        return str(path) if is_path(text) and path.is_file() else text

    return dataclasses.replace(
        product,
        bundle=str(folder / at_home(product.bundle)),
        roi=tuple(map(mask, product.roi)),
        ignore=tuple(map(mask, product.ignore)),
    )


def _where(path: Path, text: str, place: tuple[str, ...]) -> str:
    number = line_of(text, place)
    return f"{path}, line {number}" if number else str(path)
