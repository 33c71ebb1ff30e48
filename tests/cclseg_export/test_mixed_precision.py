"""The search for layers to keep in floating point: minimal, bounded in time, honest at the end."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from cclseg_export.mixed_precision import Trial, smallest_float_set

NODES = tuple("abcdefghijkl")


def _needing(needed):
    """A file that loses a point for every node that it needs in floating point and lacks."""

    def measure(kept):
        lacking = len(set(needed) - set(kept))
        return Trial(kept, float(lacking), "water on onnxruntime", lacking == 0)

    return measure


@given(st.permutations(NODES), st.sets(st.sampled_from(NODES)), st.integers(1, 20))
def test_whatever_ranking_and_guess_exactly_the_needed_nodes_are_kept(ranked, needed, guess):
    result = smallest_float_set(
        ranked, _needing(needed), first_guess=guess, seconds=1, clock=lambda: 0.0
    )
    assert result.complete
    assert result.best.passes
    assert set(result.best.kept) == needed


@given(st.permutations(NODES), st.sets(st.sampled_from(NODES)), st.integers(1, 20))
def test_when_the_time_is_up_the_best_so_far_is_returned(ranked, needed, ticks):
    clock = count().__next__  # every look at the clock costs a second
    result = smallest_float_set(ranked, _needing(needed), seconds=ticks, clock=clock)
    assert 1 <= len(result.trials) <= ticks + 1
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

    smallest_float_set(NODES, measure, seconds=1, clock=lambda: 0.0)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 20  # log2 to find the prefix, one per node to give back


def test_a_good_guess_passes_before_a_short_time_is_up():
    clock = count().__next__
    result = smallest_float_set(NODES, _needing("abcde"), first_guess=6, seconds=2, clock=clock)
    assert [len(trial.kept) for trial in result.trials] == [0, 6]
    assert result.best.passes


def test_a_file_that_passes_as_it_is_costs_one_trial():
    result = smallest_float_set(NODES, _needing(""), seconds=1, clock=lambda: 0.0)
    assert [trial.kept for trial in result.trials] == [()]


def test_nodes_that_always_stay_are_part_of_every_mixture():
    result = smallest_float_set(
        NODES, _needing("abc"), always=("b", "z"), seconds=1, clock=lambda: 0.0
    )
    assert all(trial.kept[:2] == ("b", "z") for trial in result.trials)
    assert set(result.best.kept) == {"a", "b", "c", "z"}


def test_a_budget_that_nothing_meets_ends_with_what_loses_least():
    def measure(kept):
        return Trial(kept, 9.0 - len(kept) / 2, "road on openvino", False)

    result = smallest_float_set(NODES, measure, seconds=1, clock=lambda: 0.0)
    assert result.complete
    assert not result.best.passes
    assert set(result.best.kept) == set(NODES)
