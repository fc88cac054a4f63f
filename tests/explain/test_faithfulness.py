"""What is measured of a map: curves fall and rise as they should, and maps that know nothing are told from one that does."""

from __future__ import annotations

import numpy as np
import pytest

from msmedcap.explain import faithfulness as measures
from msmedcap.explain import together

SIZE = 64
SPOT = (slice(40, 52), slice(10, 22))


def _picture() -> np.ndarray:
    picture = np.full((SIZE, SIZE, 3), 40, np.uint8)
    picture[SPOT] = 240
    return picture


def _mask() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[SPOT] = True
    return mask


def _bright_spot(pictures: np.ndarray) -> np.ndarray:
    """A model that looks at the spot alone."""
    return pictures[:, SPOT[0], SPOT[1], 0].mean((1, 2)) / 255


def _knowing() -> np.ndarray:
    return measures.soft_mask(_mask())


def test_the_hottest_places_go_first() -> None:
    picture, gone = _picture(), np.zeros((SIZE, SIZE, 3), np.uint8)
    share = float(_mask().mean())
    first = measures.steps(picture, gone, _knowing(), (0.0, share, 1.0))
    assert (first[0] == picture).all() and (first[2] == gone).all()
    assert ((first[1] == 0).all(-1) == _mask()).all()


def test_a_map_of_another_size_or_without_numbers_is_refused() -> None:
    picture = _picture()
    with pytest.raises(ValueError, match="does not lie"):
        measures.steps(picture, picture, np.zeros((8, 8)))
    with pytest.raises(ValueError, match="not finite"):
        measures.steps(picture, picture, np.full((SIZE, SIZE), np.nan))


def test_the_map_that_knows_beats_those_that_do_not_in_both_directions() -> None:
    picture, without = _picture(), measures.blurred(_picture())
    dumb = [measures.random_map(SIZE, SIZE, np.random.default_rng(i)) for i in range(5)]
    dumb.append(measures.centre_map(SIZE, SIZE))

    def away(heat: np.ndarray) -> float:
        return measures.area(measures.deletion(_bright_spot, picture, heat, without=without))

    def back(heat: np.ndarray) -> float:
        return measures.area(measures.deletion(_bright_spot, without, heat, without=picture))

    assert away(_knowing()) < min(map(away, dumb))
    assert back(_knowing()) > max(map(back, dumb))
    assert away(-_knowing()) > max(map(away, dumb))


def test_what_is_deleted_is_the_blurred_picture_where_nothing_else_is_said() -> None:
    curve = measures.deletion(_bright_spot, _picture(), _knowing())
    assert curve[-1] == pytest.approx(_bright_spot(measures.blurred(_picture())[None])[0])
    assert curve[0] == pytest.approx(240 / 255)


@pytest.mark.parametrize(("curve", "area"), [([1] * 8, 1.0), (list(measures.SHARES), 0.5), ([0] * 8, 0.0)])
def test_area_is_the_mean_of_the_curve(curve: list[float], area: float) -> None:
    assert measures.area(curve) == pytest.approx(area)


def test_of_equally_hot_places_the_nearer_ones_go_first() -> None:
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[SPOT] = 1
    gone = measures.steps(_picture(), np.zeros((SIZE, SIZE, 3), np.uint8), heat, (0.1,))[0]
    away = np.argwhere((gone == 0).all(-1)) - (46, 16)
    assert np.abs(away).max() < 16, "what is deleted lies around the spot, not along the top"


def test_hiding_finds_what_a_model_looks_at_with_all_its_branches() -> None:
    heat = together.spread(together.drops(lambda pictures: np.log(_bright_spot(pictures)), _picture()), SIZE, SIZE)
    assert heat.shape == (SIZE, SIZE) and heat.dtype == np.float32
    assert measures.pointed(heat, _mask(), tolerance=2)
    assert measures.energy(heat, measures.soft_mask(_mask()) > 0.01) > 0.5


def test_pointing_allows_the_stated_distance_and_no_more() -> None:
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[45, 25] = 1  # four pixels right of the mask, whose last column is 21
    assert not measures.pointed(heat, _mask(), tolerance=3)
    assert measures.pointed(heat, _mask(), tolerance=4)
    with pytest.raises(ValueError, match="empty"):
        measures.pointed(heat, np.zeros_like(_mask()), tolerance=4)


def test_a_flat_map_points_at_the_middle() -> None:
    middle = np.zeros((SIZE, SIZE), bool)
    middle[30:34, 30:34] = True
    assert measures.pointed(np.ones((SIZE, SIZE)), middle, tolerance=0)
    assert not measures.pointed(np.ones((SIZE, SIZE)), _mask(), tolerance=3)


def test_two_equally_hot_spots_are_no_third_one_between_them() -> None:
    both = _mask()
    both[40:52, 50:60] = True
    assert measures.pointed(both.astype(float), both, tolerance=0)


def test_energy_is_the_share_of_positive_mass() -> None:
    even = np.ones((SIZE, SIZE))
    assert measures.energy(even, _mask()) == pytest.approx(_mask().mean())
    assert measures.energy(_mask().astype(float), _mask()) == 1
    assert measures.energy(_mask() - 2.0 * ~_mask(), _mask()) == 1, "what counts against is no energy"
    assert measures.energy(np.zeros((SIZE, SIZE)), _mask()) == pytest.approx(_mask().mean())


def test_random_maps_are_smooth_and_each_another() -> None:
    a, b = (measures.random_map(SIZE, 2 * SIZE, np.random.default_rng(i)) for i in (0, 1))
    assert a.shape == (SIZE, 2 * SIZE) and abs(measures.likeness(a, b)) < 0.5
    assert np.abs(np.diff(a, axis=1)).max() < 0.2 < np.ptp(a)


def test_likeness_is_that_of_ranks() -> None:
    heat = measures.random_map(SIZE, SIZE, np.random.default_rng(3))
    assert measures.likeness(heat, heat**3) == pytest.approx(1)
    assert measures.likeness(heat, -heat) == pytest.approx(-1)
    assert measures.likeness(heat, np.ones_like(heat)) == 0


def test_painting_over_leaves_the_surroundings() -> None:
    painted = measures.painted_over(_picture(), _mask())
    assert abs(int(painted[46, 16, 0]) - 40) <= 2
    assert (painted[:30] == 40).all()
