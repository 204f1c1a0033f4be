"""Pictures of the distilled images, as PNGs inside the page and as a file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """An image of a distilled set, with what is said below it and on hovering."""

    file: Path
    caption: str = ""
    hint: str = ""

    @property
    def url(self) -> str:
        """A small version as a data URL."""
        buffer = io.BytesIO()
        thumbnail(self.file).save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Strip:
    """Pictures in one line, with its name."""

    name: str
    pictures: list[Picture]


def class_strips(folder: Path, num_classes: int, num_images: int) -> list[Strip]:
    """Return the first classes of a distilled set with their first images, the heaviest first."""
    table = pq.read_table(folder / "metadata.parquet").to_pandas()
    table = table[table["label"] < num_classes].sort_values(
        ["label", "weight"], ascending=[True, False], kind="stable"
    )
    strips = []
    for _, own in table.groupby("label"):
        first = own.head(num_images).rename(columns={"count": "cell"})  # tuples have a count()
        pictures = [
            Picture(
                folder / row.file_name,
                f"{row.weight:.2f}",
                f"{row.file_name} · {row.cell} training images in its cell",
            )
            for row in first.itertuples()
        ]
        strips.append(Strip(own["class_name"].iloc[0], pictures))
    return strips


def heaviest(folder: Path, name: str, num_classes: int) -> Strip:
    """Return the heaviest image of the first classes of a distilled set."""
    strips = class_strips(folder, num_classes, 1)
    return Strip(name, [Picture(strip.pictures[0].file) for strip in strips])


def thumbnail(path: Path, side: int = 64) -> Image.Image:
    """Return an image, small ones enlarged by whole pixels and large ones reduced."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    if image.width <= side:
        return image.resize((image.width * (side // image.width),) * 2, Image.Resampling.NEAREST)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def write_grid(strips: Sequence[Strip], target: Path, gap: int = 2) -> None:
    """Write a PNG with one row of images per strip."""
    tiles = [[thumbnail(picture.file) for picture in strip.pictures] for strip in strips]
    side = tiles[0][0].width + gap
    sheet = Image.new("RGB", (side * max(map(len, tiles)) - gap, side * len(tiles) - gap), "white")
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            sheet.paste(tile, (x * side, y * side))
    sheet.save(target)
