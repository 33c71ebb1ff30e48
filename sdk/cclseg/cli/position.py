"""Options of ``cclseg predict`` about where the camera was and what it saw of the ground."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import InputError

if TYPE_CHECKING:
    from ..mavlink import Telemetry
    from ..sinks.geo import GeoOptions
    from ..sources import Source

_Verb = TypeVar("_Verb", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--mavlink",
        metavar="ADDRESS",
        help="Positions: udp://:14550, tcp://HOST:PORT, serial:/dev/ttyACM0 or a .tlog.",
    ),
    click.option("--camera", type=float, metavar="FOCAL_PX", help="Focal length in pixels."),
    click.option("--hfov", type=float, metavar="DEGREES", help="Or its horizontal angle of view."),
    click.option(
        "--dem",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="GeoTIFF of heights (default: flat ground); for a .geojsonl.",
    ),
    click.option("--regions", is_flag=True, help="Each region of the mask too; for a .geojsonl."),
    click.option(
        "--min-area",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="M2",
        help="Leave out smaller regions.",
    ),
    click.option(
        "--simplify",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="PX",
        help="Shorten outlines of regions by up to PX pixels beside their edges.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Positioning:
    """What the options say.

    Attributes:
        mavlink: Address of the telemetry.
        camera: Focal length in pixels.
        hfov: Horizontal angle of view in degrees.
        dem: Raster of heights.
        regions: Write each region too.
        min_area: Smallest region in square metres.
        simplify: Tolerance of outlines in pixels.
    """

    mavlink: str | None
    camera: float | None
    hfov: float | None
    dem: Path | None
    regions: bool
    min_area: float
    simplify: float

    @property
    def geo(self) -> GeoOptions | None:
        """What a .geojsonl is to say; None where no option asks for anything of it."""
        from ..sinks.geo import GeoOptions

        if self.dem is None and not self.regions:
            if self.min_area or self.simplify:
                raise InputError("--min-area and --simplify are about regions; give --regions too")
            return None
        return GeoOptions(
            terrain=self.dem,
            regions=self.regions,
            min_area_m2=self.min_area,
            simplify_px=self.simplify,
        )

    @contextmanager
    def applied(self, source: Source) -> Iterator[tuple[Source, Telemetry | None]]:
        """Yields the source with what the options add to it, and the telemetry where there is."""
        from ..sources.posed import Lens, PosedSource

        lens = None
        if self.camera is not None or self.hfov is not None:
            lens = Lens(focal_px=self.camera, hfov_deg=self.hfov)
        if self.mavlink is None:
            yield (source if lens is None else PosedSource(source, lens=lens)), None
            return
        from ..mavlink import open_telemetry

        with open_telemetry(self.mavlink) as telemetry:
            yield PosedSource(source, telemetry, lens=lens), telemetry


def position_options(verb: _Verb) -> Callable[..., Any]:
    """Adds the options to a verb, which gets them as one argument ``positioning``."""

    @functools.wraps(verb)
    def gathered(**values: Any) -> Any:  # noqa: ANN401 - whatever the verb takes and returns
        own = {name: values.pop(name) for name in Positioning.__dataclass_fields__}
        return verb(positioning=Positioning(**own), **values)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
