"""The pictures of a page: `pictures.json` in its folder, so that the page can be rebuilt without data and model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edgead import schema
from edgead.errors import DataError
from edgead.files import write_json
from edgead.images import Frame, cv2
from edgead.schema import SchemaError, Within
from edgead.text import valid

PICTURES = "pictures.json"
VERSION = 1
SIDE = 320
"""Longest side of a picture, pixels: twice what a page shows."""
QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture: captions and JPEG in base64, one for each moment of an animation, or just one."""

    caption: str
    jpegs: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Pictures under a title.

    Attributes:
        title, note: text above them; the note may be empty.
        pictures: all have as many moments.
        moments: captions of the moments of an animation; empty for single pictures.
    """

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""
    moments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """The content of `PICTURES`."""

    groups: tuple[Group, ...]
    schema: Annotated[int, Within(VERSION, VERSION)] = VERSION


def encode(picture: Frame) -> str:
    """Return a frame ``(H, W, 3) uint8 BGR`` as a small JPEG in base64."""
    scale = SIDE / max(picture.shape[:2])
    if scale < 1:
        picture = cv2().resize(picture, None, fx=scale, fy=scale, interpolation=cv2().INTER_AREA)
    _, data = cv2().imencode(".jpg", picture, [cv2().IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data).decode()


def picture(caption: str, *frames: Frame) -> Picture:
    """Return a picture of one frame ``(H, W, 3) uint8 BGR``, or of one for each moment of an animation."""
    return Picture(valid(caption), tuple(map(encode, frames)))


def write_pictures(folder: Path, groups: Sequence[Group]) -> None:
    """Write the pictures of a page."""
    write_json(folder / PICTURES, schema.write(Pictures(tuple(groups))))


def read_pictures(folder: Path) -> tuple[Group, ...]:
    """Read the pictures of a page; none if there is no file.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / PICTURES
    try:
        found = schema.read(Pictures, schema.load_json(path))
        for group in found.groups:
            for picture in group.pictures:
                for jpeg in picture.jpegs:
                    base64.b64decode(jpeg, validate=True)
    except FileNotFoundError:
        return ()
    except (OSError, SchemaError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}.\nDelete it to build the page without pictures.") from error
    return found.groups
