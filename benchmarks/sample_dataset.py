"""Make a smaller data set from links to every k-th image of a data set in MVTec AD layout, with the masks.

    python benchmarks/sample_dataset.py DATA OUT --train 4 --test 3

Which images are taken depends on their sorted names alone.
"""

from __future__ import annotations

from pathlib import Path

import click

from edgead.datasets import GOOD, open_category


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--train", default=1, help="Take every k-th training image.")
@click.option("--test", default=1, help="Take every k-th test image of each kind.")
def main(data: Path, out: Path, train: int, test: int) -> None:
    """Make a smaller data set OUT from DATA."""
    category = open_category(data)
    links = {out / "train" / GOOD / path.name: path for path in category.normals[::train]}
    for kind in sorted({sample.kind for sample in category.test}):
        for sample in [sample for sample in category.test if sample.kind == kind][::test]:
            links[out / "test" / kind / sample.path.name] = sample.path
            for mask in sample.masks:
                links[out / "ground_truth" / kind / mask.name] = mask
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target.resolve())
    click.echo(f"{len(links)} links in {out}")


if __name__ == "__main__":
    main()
