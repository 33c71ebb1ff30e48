"""The verb ``cclseg match``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
from click.core import ParameterSource

from ..models import DEFAULT_MODEL
from .options import STANDARD_OUTPUT, json_option, writable, write_report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..matching import Found, Metric, Reference, Threshold

_MASK_SUFFIXES, _PICTURE_SUFFIXES = (".png",), (".jpg", ".jpeg")
_ONLY_FOR = {"pixels": ("metric", "angles", "scales"), "network": ("model",)}
_SHOWN_PLACES = 10

_FILE = click.Path(path_type=Path, dir_okay=False)


def _threshold(_ctx: click.Context, _option: click.Parameter, text: str) -> Threshold:
    if text in ("otsu", "multi-otsu"):
        return cast("Threshold", text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise click.BadParameter(f"'{text}'; expected otsu, multi-otsu or a number such as 0.8")
    return value


def _scales(_ctx: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(word) for word in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise click.BadParameter(f"'{text}'; expected positive numbers such as 0.9,1,1.1")
    return scales


def _out(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Names the picture after the image, and refuses a result of no known form before the work."""
    image: Path | None = ctx.params.get("image")
    if path is None and image is not None:
        path = Path(f"{image.stem}_match.jpg")
    if path is not None and path.suffix.lower() not in _MASK_SUFFIXES + _PICTURE_SUFFIXES:
        raise click.BadParameter(f"{path.name}; expected a .png (mask) or .jpg (picture)")
    return writable(ctx, option, path)


@click.command()
@click.argument("image", type=_FILE)
@click.option(
    "-r",
    "--reference",
    "crops",
    type=_FILE,
    multiple=True,
    required=True,
    metavar="CROP",
    help="Image of what to find; may be repeated.",
)
@click.option(
    "--mask",
    "masks",
    type=_FILE,
    multiple=True,
    help="Pixels of the object (not 0) in each CROP, in their order.",
)
@click.option(
    "--features",
    type=click.Choice(["pixels", "network"]),
    default="pixels",
    show_default=True,
    help="Slide the crops over the image, or compare what a network says of it and of them.",
)
@click.option(
    "--metric",
    type=click.Choice(["ncc", "ssd", "sad"]),
    default="ncc",
    show_default=True,
    help="What is alike; ncc does not mind light and contrast.",
)
@click.option(
    "--threshold",
    default="otsu",
    show_default=True,
    callback=_threshold,
    metavar="otsu|multi-otsu|SCORE",
    help="Least score of what counts.",
)
@click.option(
    "--angles",
    type=click.IntRange(1, 360),
    default=24,
    show_default=True,
    help="Headings that are tried, evenly over the full turn.",
)
@click.option(
    "--scales",
    default="1",
    show_default=True,
    callback=_scales,
    metavar="A,B,C",
    help="Sizes that are tried, over that of the crop.",
)
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help="Name or model file.")
@click.option(
    "-o",
    "--out",
    type=_FILE,
    callback=_out,
    help=".png for a mask, .jpg for a picture (default: IMAGE_match.jpg).",
)
@json_option
@click.pass_context
def match(
    ctx: click.Context,
    *,
    image: Path,
    crops: tuple[Path, ...],
    masks: tuple[Path, ...],
    features: Literal["pixels", "network"],
    metric: Metric,
    threshold: Threshold,
    angles: int,
    scales: tuple[float, ...],
    model: str,
    out: Path,
    json_path: Path | None,
) -> None:
    """Find in IMAGE what the reference crops show, without training.

    With pixels, each CROP is slid over the image at every heading and scale and the best places
    are marked by their boxes. With --features network, the network's class scores at every pixel
    are compared with their mean over each CROP, and alike regions are marked.

    A mask (.png) is 1 where something was found and 0 elsewhere. Transparent pixels of a CROP are
    not of the object. Otsu always finds something; give a SCORE where there may be nothing.
    """
    _refuse_idle_options(ctx, features)
    if masks and len(masks) != len(crops):
        raise click.UsageError(
            f"{len(masks)} masks for {len(crops)} references; give one for each, in their order"
        )
    if out.resolve() in {path.resolve() for path in (image, *crops, *masks)}:
        raise click.UsageError(f"{out} would replace what is read; choose another place with -o")
    from ..image_files import write_image

    pixels = _read(image)[0]
    references = [_reference(crop, mask) for crop, mask in zip_longest(crops, masks)]
    described: dict[str, Any] = {
        "image": str(image),
        "references": [str(crop) for crop in crops],
        "features": features,
    }
    if features == "pixels":
        from ..matching import find_places

        with _progress(image.name) as on_step:
            found = find_places(
                pixels, references, metric=metric, angles=angles, scales=scales,
                threshold=threshold, on_step=on_step,
            )  # fmt: skip
        described |= {"metric": metric, "angles": angles, "scales": scales}
    else:
        found = _found_by_network(pixels, references, model, threshold)
        described["model"] = model
    as_mask = out.suffix.lower() in _MASK_SUFFIXES
    write_image(out, found.mask if as_mask else found.overlay(_photo(pixels, image)))
    if json_path is not None:
        write_report(described | {"output": str(out)} | found.to_json(), json_path)
    if json_path != STANDARD_OUTPUT:
        _print_places(found, out, crops)


def _refuse_idle_options(ctx: click.Context, features: str) -> None:
    """Refuses options that the chosen features have no use for."""
    for needed, names in _ONLY_FOR.items():
        for name in names:
            given = ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
            if given and needed != features:
                raise click.UsageError(
                    f"--{name} is for --features {needed}, not {features}; leave it out"
                )


def _read(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Reads an image as a frame, and where it is opaque, None where it has no alpha channel."""
    from ..image_files import RASTER_SUFFIXES
    from ..sources.images import read_frame

    pixels = read_frame(path)
    if pixels.shape[2] == 4 and path.suffix.lower() not in RASTER_SUFFIXES:
        return pixels[:, :, :3].copy(), pixels[:, :, 3] > 0
    return pixels, None


def _reference(crop: Path, mask: Path | None) -> Reference:
    from ..image_files import read_mask
    from ..matching import Reference

    pixels, opaque = _read(crop)
    return Reference(pixels, opaque if mask is None else read_mask(mask), name=crop.name)


def _found_by_network(
    pixels: NDArray[Any], references: Sequence[Reference], model: str, threshold: Threshold
) -> Found:
    from ..matching import find_alike, pixel_features, prototype_of
    from ..segmenter import Segmenter

    with Segmenter(model) as segmenter:
        stride = segmenter.spec.output_stride

        def features_of(image: NDArray[Any]) -> NDArray[np.float32]:
            size_hw = (image.shape[0], image.shape[1])
            return pixel_features(segmenter(image).logits, stride=stride, size_hw=size_hw)

        prototypes = [
            prototype_of(features_of(reference.crop), reference.valid, stride=stride)
            for reference in references
        ]
        return find_alike(
            features_of(pixels),
            prototypes,
            stride=stride,
            size_hw=(pixels.shape[0], pixels.shape[1]),
            threshold=threshold,
        )


def _photo(pixels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Shows any number of bands as a photograph to draw on, BGR."""
    from ..panels import photograph

    # Three bands are a frame in OpenCV order; of others the file's first three are shown.
    return photograph(pixels[:, :, ::-1] if pixels.shape[2] == 3 else pixels)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar with the remaining time, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_places(found: Found, out: Path, crops: Sequence[Path]) -> None:
    noun = "place" if len(found.places) == 1 else "places"
    how_sure = found.cut.separability
    separated = "" if how_sure is None else f", separability {how_sure:.2f}"
    click.echo(f"{len(found.places)} {noun} -> {out}  (threshold {found.cut.value:.3f}{separated})")
    for place in found.places[:_SHOWN_PLACES]:
        line = f"  {place.score:.3f} at ({place.x:.1f}, {place.y:.1f})"
        if place.angle_deg is not None:
            line += f", turned {place.angle_deg:g} degrees, scale {place.scale:g}"
        if len(crops) > 1:
            line += f", like {crops[place.reference].name}"
        click.echo(line)
    if len(found.places) > _SHOWN_PLACES:
        rest = len(found.places) - _SHOWN_PLACES
        click.echo(f"  and {rest} more; --json FILE lists all")
