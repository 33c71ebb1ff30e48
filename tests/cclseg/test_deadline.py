"""The control loop on simulated loads: its clock is the frames, so nothing here waits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cclseg.deadline import LevelController

COSTS_MS = [40.0, 28.0, 16.0, 8.0, 3.0]
BUDGET_MS = 50.0

few = settings(max_examples=30)
costs = st.lists(st.floats(0.3, 0.9), min_size=1, max_size=5).map(
    lambda ratios: [100.0, *(100 * np.cumprod(ratios))]
)


def fly(control, true_costs_ms, loads, *, noise=0.0, seed=0):
    """Runs frames under loads; returns what each took and the level it had."""
    grain = np.exp(np.random.default_rng(seed).normal(0, noise, len(loads)))
    times_ms, levels = [], []
    for load in (grain * loads).tolist():
        levels.append(control.level)
        times_ms.append(true_costs_ms[control.level] * load)
        control.observe(control.level, times_ms[-1])
    return np.array(times_ms), np.array(levels)


def changes(levels):
    return int(np.count_nonzero(np.diff(levels)))


class TestConstantLoad:
    @few
    @given(costs, st.floats(0.02, 5), st.floats(0, 0.02), st.integers(0, 99))
    def test_it_settles_and_never_swings(self, costs_ms, load, noise, seed):
        control = LevelController(costs_ms, 100.0)
        _, levels = fly(control, costs_ms, [load] * 3000, noise=noise, seed=seed)
        settled = 50 * len(costs_ms) + 100
        directions = np.sign(np.diff(levels))
        assert changes(levels[settled:]) == 0
        # One way only: down under a load, up in its absence.
        assert len({int(d) for d in directions if d}) <= 1

    @few
    @given(costs, costs, st.floats(0.1, 3))
    def test_costs_that_were_measured_wrong_are_tried_ever_more_rarely(self, told, true, load):
        size = min(len(told), len(true))
        control = LevelController(told[:size], 100.0)
        times_ms, levels = fly(control, true[:size], [load] * 6000)
        # The waits before trials of one level are 50, 100, 200, ... 1600 frames.
        assert changes(levels[1000:]) <= 8 * (size - 1)
        if true[size - 1] * load < 90:
            assert np.mean(times_ms[1000:] > 100) < 0.01

    def test_a_hiccup_now_and_then_is_what_the_percentile_allows(self):
        loads = np.where(np.arange(3000) % 150 == 149, 5.0, 1.0)
        _, levels = fly(LevelController(COSTS_MS, BUDGET_MS), COSTS_MS, loads)
        assert changes(levels) == 0


class TestPercentile:
    @few
    @given(
        st.lists(st.tuples(st.integers(500, 900), st.floats(0.2, 14)), min_size=1, max_size=6),
        st.floats(0, 0.02),
        st.integers(0, 99),
    )
    def test_it_is_kept_wherever_a_level_fits(self, episodes, noise, seed):
        loads = np.concatenate([np.full(frames, load) for frames, load in episodes])
        control = LevelController(COSTS_MS, BUDGET_MS)
        times_ms, _ = fly(control, COSTS_MS, loads, noise=noise, seed=seed)
        assert max(load for _, load in episodes) * COSTS_MS[-1] < 0.85 * BUDGET_MS
        assert np.percentile(times_ms, 99, method="higher") <= BUDGET_MS

    @few
    @given(st.integers(1500, 6000))
    def test_it_is_kept_while_a_device_grows_hot(self, frames):
        loads = np.linspace(0.5, 14, frames)
        times_ms, levels = fly(LevelController(COSTS_MS, BUDGET_MS), COSTS_MS, loads, noise=0.01)
        assert np.mean(times_ms > BUDGET_MS) < 0.01
        assert levels[-1] == len(COSTS_MS) - 1


class TestDown:
    def test_two_late_frames_lead_straight_to_the_level_that_fits(self):
        _, levels = fly(LevelController(COSTS_MS, BUDGET_MS), COSTS_MS, [1.0] * 20 + [5.0] * 5)
        assert levels[20:25].tolist() == [0, 0, 3, 3, 3]

    def test_it_starts_where_the_measured_costs_fit(self):
        assert [LevelController(COSTS_MS, budget).level for budget in (1000, 40, 10, 0.1)] == [
            0, 1, 3, 4,
        ]  # fmt: skip

    def test_frames_that_were_on_their_way_do_not_count(self):
        control = LevelController(COSTS_MS, BUDGET_MS)
        for _ in range(2):
            control.observe(0, 60.0)
        level = control.level
        for _ in range(10):
            control.observe(0, 500.0)
        assert control.level == level > 0

    def test_below_the_last_level_there_is_none(self):
        control = LevelController([10.0], BUDGET_MS)
        fly(control, [10.0], [100.0] * 50)
        assert control.level == 0


class TestUp:
    @few
    @given(st.floats(1.5, 14), st.integers(1, 2000), st.integers(0, 99))
    def test_it_climbs_back_when_the_load_goes(self, load, frames, seed):
        control = LevelController(COSTS_MS, BUDGET_MS)
        loads = [1.0] * 100 + [load] * frames + [0.9] * 600
        _, levels = fly(control, COSTS_MS, loads, noise=0.02, seed=seed)
        assert levels[-1] == 0

    def test_it_climbs_one_level_at_a_time_and_slowly(self):
        loads = [1.0] * 10 + [10.0] * 100 + [0.5] * 400
        _, levels = fly(LevelController(COSTS_MS, BUDGET_MS), COSTS_MS, loads)
        climbs = np.flatnonzero(np.diff(levels) < 0)
        assert set(np.diff(levels)[climbs]) == {-1}
        assert np.diff(climbs).min() >= 50

    def test_what_fails_above_is_tried_ever_more_rarely_though_the_climb_to_it_works(self):
        # By the costs it was told, every level fits; in truth the first one does not.
        control = LevelController([44.0, 40.0, 36.0], BUDGET_MS)
        _, levels = fly(control, [90.0, 30.0, 25.0], [1.0] * 6000)
        trials = np.flatnonzero((np.diff(levels) < 0) & (levels[1:] == 0))
        waits = np.diff(trials)
        assert 4 <= len(trials) <= 8
        assert (waits[:-1] <= waits[1:]).all()
        assert waits[-1] >= 1600
