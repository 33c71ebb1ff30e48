"""The share of nested phases that is done."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg_export.engine.progress import PhaseTree

NAMES = st.sampled_from("abcde")
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), NAMES, st.none() | NAMES, st.integers(-1, 5)),
        st.tuples(st.just("step"), NAMES, st.integers(-1, 6)),
        st.tuples(st.just("finish"), NAMES),
    ),
    max_size=60,
)


def test_steps_of_an_inner_phase_are_parts_of_an_outer_step():
    tree = PhaseTree()
    tree.start("build", None, 2)
    tree.start("time", "build", 4)
    tree.step("time", 0)
    assert (tree.share, tree.innermost) == (pytest.approx(1 / 8), "time")
    tree.finish("time")
    tree.step("build", 0)
    assert (tree.share, tree.innermost) == (pytest.approx(1 / 2), "build")


def test_a_finished_build_is_whole():
    tree = PhaseTree()
    tree.start("build", None, 3)
    tree.start("time", "build", 2)
    tree.finish("build")
    assert tree.share == 1


def test_before_the_first_phase_nothing_is_done():
    assert (PhaseTree().share, PhaseTree().innermost) == (0, "")


@given(EVENTS)
def test_whatever_a_builder_reports_the_share_only_grows(events):
    tree = PhaseTree()
    shares = [tree.share]
    for event, *arguments in events:
        getattr(tree, event)(*arguments)
        shares.append(tree.share)
    assert all(0 <= before <= after <= 1 for before, after in itertools.pairwise(shares))
