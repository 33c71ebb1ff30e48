"""Health as metrics in the text form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

from ..errors import MissingDependencyError
from .health import Health, State, StreamHealth

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingDependencyError.for_extra(
        "prometheus_client", extra="serve", purpose="the page of a stream"
    ) from error

CONTENT_TYPE = CONTENT_TYPE_LATEST

_COUNTS = {
    "captured": ("cclseg_frames_captured", "Frames that the source gave."),
    "delivered": ("cclseg_results_delivered", "Results handed out."),
    "dropped": ("cclseg_frames_dropped", "Frames given up by the policy before their inference."),
    "superseded": ("cclseg_results_superseded", "Results given up for newer ones."),
    "failed": ("cclseg_frames_failed", "Frames that could not be read or did not fit."),
    "restarts": ("cclseg_source_restarts", "Restarts of the source by the watchdog."),
}


class Metrics(Collector):
    """The metrics of a stream and of its process, none of them shared with the rest of a program.

    Args:
        health: Returns how it is.

    Example:
        >>> Metrics(lambda: supervisor.health).text()[:20]  # doctest: +SKIP
        b'# HELP process_virtu'
    """

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def text(self) -> bytes:
        """Returns the metrics as they are now."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, each with its values."""
        health = self._health()
        about = health.about
        yield InfoMetricFamily(
            "cclseg",
            "What runs.",
            {
                "version": health.version,
                "source": about.source,
                "model": about.model,
                "backend": about.backend,
                "precision": about.precision,
                "device": about.device,
            },
        )
        yield GaugeMetricFamily("cclseg_healthy", "1 where all is well.", value=health.healthy)
        yield _states(health)
        yield from _counts(health.streams)
        yield from _speeds(health.streams)
        yield from _heat(health)


def _states(health: Health) -> Metric:
    states = GaugeMetricFamily(
        "cclseg_stream_state", "1 for the state that a stream is in.", labels=("stream", "state")
    )
    for stream in health.streams:
        for state in get_args(State):
            states.add_metric((stream.name, state), stream.state == state)
    return states


def _counts(streams: tuple[StreamHealth, ...]) -> Iterator[Metric]:
    for attribute, (name, meaning) in _COUNTS.items():
        counts = CounterMetricFamily(name, meaning, labels=("stream",))
        for stream in streams:
            counts.add_metric((stream.name,), getattr(stream, attribute))
        yield counts


def _speeds(streams: tuple[StreamHealth, ...]) -> Iterator[Metric]:
    rates = GaugeMetricFamily(
        "cclseg_results_per_second", "Results per second lately.", labels=("stream",)
    )
    silences = GaugeMetricFamily(
        "cclseg_last_result_age_seconds", "Time since the last result.", labels=("stream",)
    )
    ages = GaugeMetricFamily(
        "cclseg_result_age_seconds",
        "Time from the capture of a frame until its result was handed out.",
        labels=("stream", "quantile"),
    )
    shares = GaugeMetricFamily(
        "cclseg_class_share", "Share of a class in the newest result.", labels=("stream", "class")
    )
    for stream in streams:
        rates.add_metric((stream.name,), stream.fps)
        if stream.last_result_s is not None:
            silences.add_metric((stream.name,), stream.last_result_s)
        for percentile, age_ms in (stream.age_ms or {}).items():
            quantile = f"0.{percentile.removeprefix('p')}"
            ages.add_metric((stream.name, quantile), age_ms / 1000)
        for one in stream.classes:
            shares.add_metric((stream.name, one.name), one.share)
    yield from (rates, silences, ages, shares)


def _heat(health: Health) -> Iterator[Metric]:
    temperatures = GaugeMetricFamily(
        "cclseg_temperature_celsius", "Temperature of a sensor.", labels=("sensor",)
    )
    for sensor, celsius in health.temperature_c.items():
        temperatures.add_metric((sensor,), celsius)
    yield temperatures
    if health.throttled is not None:
        yield GaugeMetricFamily(
            "cclseg_throttled", "1 where the machine slows itself down.", value=health.throttled
        )
