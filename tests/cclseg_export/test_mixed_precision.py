"""The search for layers to keep in floating point: minimal, bounded in time, honest at the end."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from cclseg_export.mixed_precision import Trial, smallest_float_set

NODES = tuple("abcdefghijkl")
POINTS = {"budget_points": 0.5, "seconds": 1.0, "slowdowns": dict.fromkeys(NODES, 1.0)}


def _needing(needed):
    """A file that loses a point for every node that it needs in floating point and lacks."""

    def measure(kept):
        lacking = len(set(needed) - set(kept))
        return Trial(kept, float(lacking), "water on onnxruntime", lacking == 0)

    return measure


def _shares(ranked):
    """Each node adds half the error of the one before it."""
    return {node: 0.5**place for place, node in enumerate(ranked)}


@given(st.permutations(NODES), st.sets(st.sampled_from(NODES)))
def test_whatever_the_ranking_exactly_the_needed_nodes_are_kept(ranked, needed):
    measure = _needing(needed)
    result = smallest_float_set(_shares(ranked), measure, **POINTS, clock=lambda: 0.0)
    assert result.complete
    assert result.best.passes
    assert set(result.best.kept) == needed
    assert set(result.needed) == needed
    assert all(node not in trial.kept and not trial.passes for node, trial in result.needed.items())


@given(st.permutations(NODES), st.sets(st.sampled_from(NODES)), st.integers(1, 20))
def test_when_the_time_is_up_the_best_so_far_is_returned(ranked, needed, ticks):
    clock = count().__next__  # every look at the clock costs a second
    result = smallest_float_set(
        _shares(ranked), _needing(needed), **(POINTS | {"seconds": ticks}), clock=clock
    )
    assert 1 <= len(result.trials) <= ticks + 1
    assert set(result.needed) <= set(result.best.kept)
    passing = [trial for trial in result.trials if trial.passes]
    if passing:
        assert len(result.best.kept) == min(len(trial.kept) for trial in passing)
    else:
        assert not result.complete
        assert result.best.loss_points == min(trial.loss_points for trial in result.trials)


def test_no_mixture_is_measured_twice():
    asked = []

    def measure(kept):
        asked.append(frozenset(kept))
        return _needing("cg")(kept)

    smallest_float_set(_shares(NODES), measure, **POINTS, clock=lambda: 0.0)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 22


def test_many_layers_are_given_back_at_once():
    """One layer of the 64 that are ranked before it is needed: halves find that in few trials."""
    nodes = [f"layer{place}" for place in range(100)]
    points = POINTS | {"slowdowns": dict.fromkeys(nodes, 1.0)}
    result = smallest_float_set(_shares(nodes), _needing({"layer63"}), **points, clock=lambda: 0.0)
    assert result.best.kept == ("layer63",)
    assert len(result.trials) <= 22


def test_a_loss_that_goes_with_the_error_is_foretold_at_once():
    """The amplitude of what 20 equal layers add is to fall to 0.35: 18 stay."""
    shares = dict.fromkeys(range(20), 0.05)

    def measure(kept):
        points = (1 - len(kept) / 20) ** 0.5
        return Trial(kept, points, "water", points <= 0.5)

    points = POINTS | {"slowdowns": dict.fromkeys(shares, 1.0)}
    result = smallest_float_set(shares, measure, **points, clock=lambda: 0.0)
    counts = [len(trial.kept) for trial in result.trials]
    assert counts[:2] == [0, 18]
    assert len(result.best.kept) == 15


def test_of_layers_that_help_alike_the_fastest_stay():
    """Any three layers do; the three that lose least time in floating point are found."""
    slowdowns = {node: 1.0 + place for place, node in enumerate(reversed(NODES))}

    def measure(kept):
        return Trial(kept, 3.0 - len(kept), "water on openvino", len(kept) >= 3)

    result = smallest_float_set(
        dict.fromkeys(NODES, 1 / 12), measure, **(POINTS | {"slowdowns": slowdowns}),
        clock=lambda: 0.0,
    )  # fmt: skip
    assert set(result.best.kept) == set("lkj")


def test_a_slow_layer_stays_only_where_fast_ones_do_not_do():
    """The first layer adds most of the error, but two fast ones take as much of it away."""
    shares = {"slow": 0.5, "fast": 0.25, "faster": 0.25}
    slowdowns = {"slow": 50.0, "fast": 2.0, "faster": 1.0}

    def measure(kept):
        left = 1 - sum(shares[node] for node in kept)
        return Trial(kept, left, "water on openvino", left <= 0.5)

    points = POINTS | {"slowdowns": slowdowns}
    result = smallest_float_set(shares, measure, **points, clock=lambda: 0.0)
    assert set(result.best.kept) == {"fast", "faster"}


def test_a_file_that_passes_as_it_is_costs_one_trial():
    result = smallest_float_set(_shares(NODES), _needing(""), **POINTS, clock=lambda: 0.0)
    assert [trial.kept for trial in result.trials] == [()]


def test_nodes_that_always_stay_are_part_of_every_mixture():
    result = smallest_float_set(
        _shares(NODES), _needing("abc"), always=("b", "z"), **POINTS, clock=lambda: 0.0
    )
    assert all(trial.kept[:2] == ("b", "z") for trial in result.trials)
    assert set(result.best.kept) == {"a", "b", "c", "z"}


def test_a_budget_that_nothing_meets_ends_with_what_loses_least():
    def measure(kept):
        return Trial(kept, 9.0 - len(kept) / 2, "road on openvino", False)

    result = smallest_float_set(_shares(NODES), measure, **POINTS, clock=lambda: 0.0)
    assert result.complete
    assert not result.best.passes
    assert set(result.best.kept) == set(NODES)
