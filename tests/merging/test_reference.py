"""Every merge method against published formulas, worked out in float64 for one small fixture.

b is the base; A, B and C are b plus dA, dB and dC.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.merging.in_memory import Geometry, merge_arrays
from theta.errors import ThetaError
from theta.merging.strategies import parse
from theta.merging.strategies.della import keep_chances
from theta.merging.strategies.pairs import importance, threshold

Array = NDArray[np.float64]

b = np.array([[1.0, 2, 3], [4, 5, 6]])
D = {
    "A": np.array([[0.5, -1, 0], [2, 0.25, -0.125]]),
    "B": np.array([[-0.25, -0.5, 1], [1, -0.5, 0.75]]),
    "C": np.array([[0.75, 0.5, -2], [-1, 0.125, 0.5]]),
    "1": np.array([[0.5, 0, 0], [1, 0, 0]]),
    "2": np.array([[0, -0.5, 0], [3, 0, 0.25]]),
}


def merge(strategy: str, names: str, *, base: Array = b, statistics: tuple[Any, ...] = ()) -> Array:
    """The merge of b + D[name] for each name ("b" is b itself)."""
    inputs = [(b + D[name] if name in D else b) for name in names]
    words = [tensor.reshape(-1).view("<u8") for tensor in inputs]
    before = base.reshape(-1).view("<u8")
    found = merge_arrays(parse(strategy), words, before, Geometry("f64", b.shape), statistics=statistics)
    return found.view("<f8").reshape(b.shape)


REFERENCE = {
    ("linear:weight=[0.5,0.3,0.2]", "ABC"): [[1.325, 1.45, 2.9], [5.1, 5.0, 6.2625]],
    ("linear:weight=[2,1],normalize=false", "AB"): [[3.75, 3.5, 10.0], [17.0, 15.0, 18.5]],
    ("slerp:t=0.3", "AB"): [[1.279676, 1.154842, 3.313665], [5.722154, 5.0446, 6.162391]],
    ("nuslerp:weight=[0.7,0.3],use_base=true", "AB"): [
        [1.295612, 1.055948, 3.352829],
        [5.888104, 5.015495, 6.168667],
    ],
    ("nuslerp:weight=[0.6,0.4]", "AB"): [[1.205231, 1.20561, 3.41577], [5.62517, 4.972289, 6.253582]],
    ("nuslerp:weight=[0.6,0.4],nuslerp_flatten=false", "AB"): [
        [1.210242, 1.210986, 3.430879],
        [5.615463, 4.963693, 6.24256],
    ],
    ("nuslerp:weight=[0.6,0.4],nuslerp_flatten=false,nuslerp_row_wise=true", "AB"): [
        [1.201275, 1.202644, 3.401643],
        [5.606137, 4.960503, 6.227978],
    ],
    ("multislerp:weight=[0.5,0.3,0.2]", "ABC"): [
        [1.357039, 1.499727, 2.904545],
        [5.135804, 5.087055, 6.374538],
    ],
    ("multislerp:weight=[0.5,0.3,0.2],use_base=true", "ABC"): [
        [1.449592, 1.074351, 3.026464],
        [5.851298, 4.927058, 6.499412],
    ],
    ("karcher", "ABC"): [[1.379264, 1.73767, 2.656932], [4.699666, 5.073276, 6.520046]],
    ("task_arithmetic:weight=[0.6,0.4],lambda=0.5", "AB"): [[1.1, 1.6, 3.2], [4.8, 4.975, 6.1125]],
    ("ties:density=0.5", "ABC"): [[1.625, 1.0, 1.0], [5.5, 5.0, 6.75]],
    ("ties:density=0.5,weight=[0.6,0.3,0.1]", "ABC"): [[1.535714, 1.0, 4.0], [5.666667, 5.0, 6.75]],
    ("ties:density=0.5,rescale=true", "ABC"): [[1.764286, 0.892857, 0.4], [5.834416, 5.0, 7.090909]],
    ("ties:density=0.5,rescale=true,normalize=false,lambda=0.5", "ABC"): [
        [1.764286, 1.446429, 1.7],
        [5.834416, 5.0, 6.545455],
    ],
    ("della:density=1", "ABC"): [[1.625, 1.25, 1.0], [5.5, 4.5, 6.625]],
    ("ties:density=0.5,variant=paper", "ABC"): [[1.625, 1.25, 1.0], [5.5, 4.5, 6.625]],
    ("breadcrumbs:density=0.5,gamma=0.2", "A"): [[1.5, 1.0, 3.0], [4.0, 5.25, 6.0]],
    ("sce", "ABC"): [[1.633219, 1.184843, 1.0], [5.630314, 4.5, 6.58489]],
    ("sce:select_topk=0.5", "ABC"): [[1.0, 1.155172, 1.0], [5.689655, 5.0, 6.0]],
    ("model_stock", "AB"): [[1.086433, 1.4814, 3.345734], [5.037201, 4.913567, 6.216083]],
    ("model_stock:clamp=false", "ABC"): [[0.695704, 2.304296, 3.304296], [3.391408, 5.038037, 5.657667]],
    ("nearswap:t=0.3", "AB"): [[1.2, 1.3, 3.3], [5.7, 4.95, 6.175]],
    ("arcee_fusion", "bA"): [[1.0, 2.0, 3.0], [6.0, 5.0, 6.0]],
    ("ram", "12"): [[1.5, 1.5, 3.0], [6.0, 5.0, 6.25]],
    ("ramplus_tl:r=0.1,alpha=0.2", "12"): [[1.51, 1.49, 3.0], [6.0, 5.0, 6.255]],
    ("magmax", "ABC"): [[1.375, 1.5, 2.0], [5.0, 4.75, 6.375]],
    ("iso_c", "ABC"): [[1.925831, 0.830837, 1.668615], [5.648886, 5.018611, 7.130275]],
    ("emr", "ABC"): [[1.75, 1.0, 1.0], [6.0, 4.5, 6.75]],
    ("emr:input=3", "ABC"): [[2.044643, 2.0, 0.214286], [4.0, 5.0, 7.044643]],
    ("tall:input=2,tall_lambda=0.6", "ABC"): [[1.0, 1.0, 3.0], [6.0, 4.875, 7.125]],
    ("consensus:tall_lambda=0.6", "ABC"): [[2.0, 1.0, 3.0], [6.0, 4.875, 7.125]],
    # The next six by the authors' formulas with torch's SVD, autograd and Adam in float64.
    ("opcm", "AB"): [[1.032567, 1.166911, 3.74109], [5.610548, 4.745566, 6.500612]],
    ("opcm:alpha=0.9,merged=3", "AB"): [[1.208657, 1.054762, 3.509456], [5.852234, 4.918226, 6.297574]],
    ("wudi", "ABC"): [[1.997007, 0.996998, 1.997006], [5.997004, 4.878, 7.127993]],
    ("wudi:steps=50,learning_rate=0.01", "ABC"): [
        [1.709647, 0.501287, 1.646875],
        [5.587321, 5.354399, 7.43758],
    ],
    ("doge_ta", "AB"): [[1.0, 1.968462, 3.041181], [4.103045, 5.0, 6.0]],
    ("doge_ta:eta=1,subspace=2,steps=40,learning_rate=0.01", "AB"): [
        [1.0, 1.412695, 3.70895],
        [5.78028, 5.0, 6.0],
    ],
    ("tsv_m", "AB"): [[0.668103, 1.233486, 4.371731], [6.008521, 4.934608, 5.99924]],
}


@pytest.mark.parametrize(("strategy", "names"), REFERENCE, ids=str)
def test_reference_values(strategy: str, names: str) -> None:
    np.testing.assert_allclose(merge(strategy, names), REFERENCE[strategy, names], rtol=0, atol=1e-6)


def test_fisher() -> None:
    known = np.array([[1.0, 2, 0], [4, 1, 1]]), np.array([[3.0, 2, 0], [1, 1, 3]])
    found = merge("fisher:epsilon=0", "AB", statistics=known)
    np.testing.assert_allclose(found, [[0.9375, 1.25, 0], [5.8, 4.875, 6.53125]], atol=1e-6)
    kept = merge("fisher", "AB", statistics=known)[0, 2]
    assert kept == pytest.approx(3.5)  # where nothing is known, the mean


def test_smear_2306_03745_weighs_experts_by_what_is_routed_to_them() -> None:
    """The share of an expert is its routing weight by the sum of all; without any it counts nothing."""
    found = merge("smear", "AB", statistics=(np.array([0.3]), np.array([0.9])))
    np.testing.assert_allclose(found, merge("linear:weight=[0.25,0.75]", "AB"), rtol=0, atol=1e-6)
    alone = merge("smear", "AB", statistics=(np.array([0.0]), np.array([0.5])))
    assert np.array_equal(alone, b + D["B"])
    with pytest.raises(ThetaError, match="routing weights are positive"):
        merge("smear", "AB", statistics=(np.array([-1.0]), np.array([2.0])))


def test_without_statistics_the_mean() -> None:
    mean = merge("average", "AB")
    assert np.array_equal(merge("fisher", "AB"), mean)
    assert np.array_equal(merge("smear", "AB"), mean)
    assert np.array_equal(merge("regmean", "AB", statistics=(None, np.eye(3))), mean)


@pytest.mark.parametrize("alpha", [1.0, 0.9])
def test_regmean_is_the_least_squares_fit(alpha: float) -> None:
    """The gradient of sum |X_i W^T - X_i W_i^T|^2 vanishes, with what is off the diagonal shrunk."""
    random = np.random.default_rng(5)
    inner = [x.T @ x for x in (random.normal(size=(7, 3)), random.normal(size=(9, 3)))]
    found = merge(f"regmean:alpha={alpha}", "AB", statistics=tuple(inner))
    shrunk = [alpha * g + (1 - alpha) * np.diag(np.diag(g)) for g in inner]
    gradient = sum(g @ (found - b - D[name]).T for g, name in zip(shrunk, "AB", strict=True))
    np.testing.assert_allclose(gradient, 0, atol=1e-9)


def test_della_chances() -> None:
    wanted = [[0.5, 0.7, 0.3], [0.7, 0.5, 0.3]]
    np.testing.assert_allclose(keep_chances(D["A"], 0.5, 0.2), wanted, atol=1e-12)


def test_arcee_importance() -> None:
    found = importance(b, b + D["A"])
    wanted = [[0.041876, 0.083752, 0.0], [0.807466, 0.100933, 0.050467]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert threshold(found.reshape(-1)) == pytest.approx(0.113281, abs=1e-6)


MASK = np.array([[True, False, True], [True, True, False]])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("", [[0.704545, 0, 0], [2.818182, 0.352273, 0]]),
        (",variant=paper", [[1.0, 0, 0], [4.0, 0.5, 0]]),
        (",rescale=false", [[0.5, 0, 0], [2.0, 0.25, 0]]),
    ],
)
@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_dare_with_a_given_mask(
    monkeypatch: pytest.MonkeyPatch, name: str, options: str, wanted: list[list[float]]
) -> None:
    from theta.merging.strategies import dare

    def mask(job: Any, model: int, block: Any, chance: Any) -> NDArray[np.bool_]:
        return MASK.reshape(-1)[block.start : block.stop]

    monkeypatch.setattr(dare, "drawn", mask)
    found = merge(f"{name}:density=0.5{options}", "A")
    np.testing.assert_allclose(found - b, wanted, atol=1e-6)


def test_linear_is_lora_free_of_rank() -> None:
    """Extraction's reference: the singular values of dA and its best rank-one part."""
    u, s, v = np.linalg.svd(D["A"], full_matrices=False)
    np.testing.assert_allclose(s, [2.065117, 1.03122], atol=1e-6)
    one = s[0] * np.outer(u[:, 0], v[0])
    np.testing.assert_allclose(
        one, [[0.497702, 0.000286, -0.029285], [2.000572, 0.001149, -0.117714]], atol=1e-6
    )
