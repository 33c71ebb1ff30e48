import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unsure import item

from cclseg.harvest.choice import Choice
from cclseg.harvest.look import Look, look_at, margins, rivals
from cclseg.postprocess import enlarged


def look(score, *features):
    return Look(score, score, np.array(features, np.float32))


def chosen(capacity, looks):
    choice = Choice(capacity)
    for one in looks:
        verdict = choice.judge(one)
        if verdict.kept:
            choice.take(one, verdict)
    return choice.looks


class TestMargins:
    @given(st.integers(1, 6), st.integers(0, 2**32 - 1))
    def test_they_are_the_difference_of_the_two_largest_probabilities(self, classes, seed):
        logits = np.random.default_rng(seed).normal(0, 3, (classes, 5, 7)).astype(np.float32)
        powers = np.exp(logits - logits.max(axis=0))
        probabilities = np.sort(powers / powers.sum(axis=0), axis=0)
        below = probabilities[-2] if classes > 1 else 0.0
        np.testing.assert_allclose(margins(logits), probabilities[-1] - below, atol=1e-5)

    def test_huge_logits_are_no_trouble(self):
        logits = np.full((3, 2, 2), 1e30, np.float32)
        logits[0] = -1e30
        np.testing.assert_allclose(margins(logits), 0)


class TestLook:
    def test_the_score_grows_with_the_share_that_is_unsure(self):
        scores = [look_at(*item(0, unsure=share)).score for share in (0.0, 0.25, 0.5, 1.0)]
        assert scores[0] == 0
        assert scores == sorted(scores)
        assert scores[1] == pytest.approx(scores[3] / 4, rel=1e-5)

    def test_one_unsure_pixel_is_less_than_an_unsure_frame(self):
        assert look_at(*item(0, unsure=1 / 16)).score < look_at(*item(0, unsure=1)).score / 10

    def test_frames_alike_are_near_and_others_far(self):
        one, same, other = (
            look_at(*item(index, unsure=0.5, tint=tint)).features
            for index, tint in enumerate([(90, 90, 90), (92, 90, 90), (10, 200, 90)])
        )
        assert np.linalg.norm(one - same) < 0.02
        assert np.linalg.norm(one - other) > 0.5

    @pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (513, 1025)])
    def test_frames_of_any_size_have_as_many_features(self, size_hw):
        features = look_at(*item(0, unsure=0.5, size_hw=size_hw)).features
        assert features.shape == look_at(*item(1, unsure=0.5)).features.shape
        assert np.isfinite(features).all()

    def test_the_classes_between_which_it_wavers_are_named(self):
        assert rivals(item(0, unsure=0.5)[1]) == ("greenest", "blueest")
        assert rivals(item(0, unsure=0.0)[1]) is None

    def test_a_low_resolution_is_enough(self):
        """The score at the network's resolution is that at the frame's."""
        _, result = item(3, unsure=0.5)
        whole = margins(enlarged(result.logits, stride=4, size_hw=(48, 64)))
        full = float((1 - whole)[whole < 0.5].sum() / whole.size)
        assert look_at(*item(3, unsure=0.5)).score == pytest.approx(full, abs=0.03)


class TestChoice:
    def test_the_least_sure_of_frames_equally_different_are_kept(self):
        looks = [look(score, *np.eye(20)[i]) for i, score in enumerate(np.linspace(0.05, 1, 20))]
        np.random.default_rng(0).shuffle(looks)
        assert sorted(kept.score for kept in chosen(5, looks)) == pytest.approx(
            np.linspace(0.8, 1, 5)
        )

    def test_of_frames_alike_one_is_kept_and_others_get_their_chance(self):
        alike = [look(0.9 - i / 1000, i / 1000, 0.0) for i in range(50)]
        other = [look(0.3, 0.5, 0.5), look(0.2, 1.0, 0.0), look(0.25, 0.0, 1.0)]
        kept = chosen(4, [*alike, *other])
        assert sorted(one.score for one in kept) == pytest.approx([0.2, 0.25, 0.3, 0.9])

    def test_a_frame_of_which_it_is_sure_is_never_kept(self):
        assert chosen(3, [look(0.0, 1.0)]) == []

    def test_a_slow_pass_over_one_place_changes_little(self):
        choice, taken = Choice(3), 0
        for step in range(200):
            one = look(0.5 + step / 2000, step / 10_000)
            verdict = choice.judge(one)
            if verdict.kept:
                choice.take(one, verdict)
                taken += 1
        assert taken < 10

    @given(
        st.integers(1, 8),
        st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=60),
    )
    def test_it_never_holds_more_than_it_may_and_fills_up_first(self, capacity, rows):
        looks = [look(*row) for row in rows]
        kept = chosen(capacity, looks)
        unsure = sum(one.score > 0 for one in looks)
        assert len(kept) == min(capacity, unsure)

    def test_it_does_better_than_the_highest_scores_at_showing_different_things(self):
        rng = np.random.default_rng(1)
        places = rng.random((12, 2))
        scores = rng.uniform(0.1, 1, 12)
        looks = [
            look(scores[i] * rng.uniform(0.9, 1), *(places[i] + rng.normal(0, 0.005, 2)))
            for i in rng.integers(0, 12, 600)
        ]
        ours, top = chosen(8, looks), sorted(looks, key=lambda one: -one.score)[:8]
        assert _places(ours, places) >= 7
        assert _places(top, places) <= 3
        assert min(one.score for one in ours) > 0.1


def _places(looks, places):
    features = np.stack([one.features for one in looks])
    return len(set(np.linalg.norm(features[:, None] - places[None], axis=2).argmin(axis=1)))
