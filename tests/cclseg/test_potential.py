"""The potential function: its energy, and the inference that lowers it."""

import itertools

import numpy as np
import pytest
from scenes import blurred_answer, shapes

from cclseg.errors import InputError
from cclseg.metrics import ConfusionMatrix
from cclseg.potential import Potential, PotentialParameters
from cclseg.superpixels import superpixels

STRONG = PotentialParameters(
    sides_px=(8, 16), region_weights=(1.0, 1.0), compactness=40.0, truncation=0.35, edge_weight=1.0
)


def energy_by_hand(labels, image, logits, parameters):
    """E as the module's docstring writes it, term by term."""
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(axis=0)
    height, width = labels.shape
    total = sum(-np.log(probabilities[labels[v, u], v, u]) for v, u in np.ndindex(labels.shape))
    for side, weight in zip(parameters.sides_px, parameters.region_weights, strict=True):
        ids = superpixels(image, side=side, compactness=parameters.compactness)
        for each in np.unique(ids):
            inside = labels[ids == each]
            off = inside.size - np.bincount(inside).max()
            quality = np.exp(
                -image[ids == each].astype(float).var(axis=0).mean() / parameters.variance
            )
            share = min(1, off / (parameters.truncation * inside.size))
            total += weight * inside.size * quality * share
    pairs = [((v, u), (v, u + 1)) for v in range(height) for u in range(width - 1)]
    pairs += [((v, u), (v + 1, u)) for v in range(height - 1) for u in range(width)]
    squares = [((image[a].astype(float) - image[b]) ** 2).mean() for a, b in pairs]
    for (a, b), square in zip(pairs, squares, strict=True):
        weight = (np.exp(-square / (2 * np.mean(squares))) + parameters.least_edge) / 4
        total += parameters.edge_weight * weight * (labels[a] != labels[b])
    return total / labels.size


def score(potential, truth):
    matrix = ConfusionMatrix(int(truth.max()) + 1)
    matrix.update(potential.scores.argmax(axis=0).astype(np.uint8), truth)
    return matrix.miou, matrix.boundary.f_score


class TestGolden:
    """Images so small that all labellings can be tried."""

    parameters = PotentialParameters(
        sides_px=(2, 3), region_weights=(0.6, 0.4), truncation=0.6, edge_weight=2.0
    )

    def scene(self, seed):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 30, (3, 3, 2), np.uint8)
        image[:, 2] += 150
        logits = np.zeros((2, 3, 3), np.float32)
        logits[0, :, :2] = logits[1, :, 2] = 1.5
        return image, logits + rng.normal(0, 0.7, logits.shape).astype(np.float32)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_energy_is_the_written_one(self, seed):
        image, logits = self.scene(seed)
        labels = logits.argmax(axis=0)
        expected = energy_by_hand(labels, image, logits, self.parameters)
        assert Potential(image, logits, self.parameters).energy() == pytest.approx(expected, 1e-5)

    @pytest.mark.parametrize("seed", range(5))
    def test_it_finds_the_best_of_all_labellings(self, seed):
        image, logits = self.scene(seed)
        potential = Potential(image, logits, self.parameters)
        potential.descend()
        every = (np.reshape(x, (3, 3)) for x in itertools.product(range(2), repeat=9))
        best = min(every, key=lambda x: energy_by_hand(x, image, logits, self.parameters))
        np.testing.assert_array_equal(potential.scores.argmax(axis=0), best)

    def test_a_step_is_the_written_one(self):
        image, logits = self.scene(7)
        powers = np.exp(logits.astype(np.float64))
        q = powers / powers.sum(axis=0)
        field = np.log(q)
        p = self.parameters
        for side, weight in zip(p.sides_px, p.region_weights, strict=True):
            ids = superpixels(image, side=side, compactness=p.compactness)
            for v, u in np.ndindex(3, 3):
                inside = ids == ids[v, u]
                theta = np.exp(-image[inside].astype(float).var(axis=0).mean() / p.variance)
                off = 1 - q[:, inside].mean(axis=1)
                field[:, v, u] -= weight * theta * np.minimum(1, off / p.truncation)
        values = image.astype(float)
        around = [(0, 1), (1, 0), (0, -1), (-1, 0)]
        pairs = [
            ((v, u), (v + dv, u + du))
            for v, u in np.ndindex(3, 3)
            for dv, du in around
            if 0 <= v + dv < 3 and 0 <= u + du < 3
        ]
        squares = [((values[a] - values[b]) ** 2).mean() for a, b in pairs]
        for (a, b), square in zip(pairs, squares, strict=True):
            w = (np.exp(-square / (2 * np.mean(squares))) + p.least_edge) / 4
            field[(slice(None), *a)] += p.edge_weight * w * q[(slice(None), *b)]
        potential = Potential(image, logits, p)
        potential.step()
        difference = potential.scores - field
        # Logits of the same probabilities differ by one number for each pixel.
        np.testing.assert_allclose(difference, difference[:1].repeat(2, axis=0), atol=1e-5)


@pytest.mark.parametrize("parameters", [PotentialParameters(), STRONG], ids=["default", "strong"])
@pytest.mark.parametrize("seed", range(3))
def test_the_energy_falls_with_the_steps(seed, parameters):
    image, truth = shapes(seed, (61, 83))
    potential = Potential(image, blurred_answer(truth, seed), parameters)
    energies = [potential.energy()]
    for _ in range(5):
        potential.step()
        energies.append(potential.energy())
    assert energies[-1] < energies[0]
    # Parallel steps may go a little too far once they are nearly there.
    assert all(b < a + 1e-3 * abs(a) for a, b in itertools.pairwise(energies))


@pytest.mark.parametrize("seed", range(3))
def test_a_blurred_and_noisy_answer_gets_better(seed):
    image, truth = shapes(seed, (96, 128))
    potential = Potential(image, blurred_answer(truth, seed), STRONG)
    before = score(potential, truth)
    potential.descend()
    after = score(potential, truth)
    assert after[0] > before[0] + 0.02
    assert after[1] > before[1] + 0.05


@pytest.mark.parametrize("part", [{"region_weights": (0.0, 0.0)}, {"edge_weight": 0.0}])
def test_each_term_helps_by_itself(part):
    image, truth = shapes(1, (96, 128))
    values = {name: getattr(STRONG, name) for name in STRONG.__slots__}
    potential = Potential(image, blurred_answer(truth, 1), PotentialParameters(**values | part))
    before = score(potential, truth)
    potential.descend()
    assert score(potential, truth) > before


def test_pixels_that_are_sure_keep_their_scores():
    image, truth = shapes(0, (48, 64))
    logits = blurred_answer(truth, 0)
    powers = np.sort(np.exp(logits) / np.exp(logits).sum(axis=0), axis=0)
    sure = powers[-1] - powers[-2] > 0.3
    potential = Potential(image, logits, STRONG, margin=0.3)
    potential.descend()
    changed = (potential.scores != logits).any(axis=0)
    np.testing.assert_array_equal(changed, ~sure)


@pytest.mark.parametrize("margin", [None, 0.5])
def test_an_image_without_contrast_leaves_everything_as_it_is(margin):
    logits = np.random.default_rng(0).normal(size=(4, 33, 47)).astype(np.float32)
    potential = Potential(np.full((33, 47, 3), 90, np.uint8), logits, STRONG, margin=margin)
    potential.descend()
    np.testing.assert_array_equal(potential.scores, logits)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (9, 1), (7, 13), (33, 65)])
@pytest.mark.parametrize(("classes", "bands"), [(1, 1), (2, 3), (7, 5), (300, 2)])
def test_any_size_and_number_of_classes_and_bands(size_hw, classes, bands):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size_hw, bands), np.uint8)
    logits = rng.normal(size=(classes, *size_hw)).astype(np.float32)
    potential = Potential(image, logits, STRONG)
    potential.descend()
    assert potential.scores.shape == logits.shape
    assert np.isfinite(potential.scores).all()


def test_one_answer_everywhere_stays():
    image, _ = shapes(0, (48, 64))
    logits = np.zeros((3, 48, 64), np.float32)
    logits[1] = 0.1
    potential = Potential(image, logits, STRONG)
    potential.descend()
    assert (potential.scores.argmax(axis=0) == 1).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sides_px": (16,)}, "one weight for each scale"),
        ({"sides_px": (1, 8)}, "2 pixels or more"),
        ({"truncation": 0.0}, "above 0"),
        ({"edge_weight": -1.0}, "no weight or number of steps below"),
    ],
)
def test_impossible_parameters_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        PotentialParameters(**values)
