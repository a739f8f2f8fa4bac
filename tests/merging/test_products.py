"""The eleven ways of PEFT's ``add_weighted_adapter``, beside values that peft 0.21.2 computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from theta.errors import ThetaError
from theta.merging.adapters import products
from theta.merging.adapters.products import Mixture, ModuleFactors

Array = NDArray[Any]
Case = tuple[str, str, float, int]


def factors(number: int, rank: int, alpha: float) -> ModuleFactors:
    """Factors for a matrix (5, 4), the same on every machine."""
    a, b = (
        np.sin(np.arange(1, size * rank + 1) * (number + at) * 0.7).astype(np.float32).astype(np.float64)
        for size, at in ((4, 0.3), (5, 1.1))
    )
    return ModuleFactors(a.reshape(rank, 4), b.reshape(5, rank), alpha / rank)


def product(mixture: Mixture, found: list[ModuleFactors], rank: int) -> Array:
    a, b = mixture.factors(found, rank)
    assert a.shape == (rank, 4)
    assert b.shape == (5, rank)
    result: Array = b @ a
    return result


THREE: list[tuple[Case, str]] = [
    (
        ("linear", "total", 0.5, 2),
        "2.6631571 1.0650103 2.0719499 -1.2094286 0.94697667 -0.21103908 -0.93344018 "
        "-0.14093277 0.57292588 0.63693976 1.6007303 -0.46012101 3.7440508 0.2575707 "
        "-0.59802799 -1.0925362 -0.54467625 0.64981043 2.0334378 -0.17800097",
    ),
    (
        ("cat", "total", 0.5, 6),
        "1.0798895 0.82722336 0.71328251 -0.31026893 -0.20722442 -1.4481387 -0.094800188 "
        "0.29875707 0.88325482 -0.11577772 0.83509593 0.28884183 0.77730285 -0.98100852 "
        "-0.25597042 -0.11625549 -0.36006386 -0.39801583 0.84203395 0.64486906",
    ),
    (
        ("svd", "total", 0.5, 2),
        "1.0417549 0.86598611 0.75326478 -0.1655458 -0.19170336 -1.4306735 -0.1215136 "
        "0.36624546 0.97849984 -0.16632862 0.72070627 0.10327458 0.36272458 -0.87618478 "
        "0.27811905 0.25341769 0.18369045 -0.53732886 0.14210393 0.15306054",
    ),
    (
        ("ties", "total", 0.5, 2),
        "0.59388191 -0.7168568 0.16410055 -0.41389616 0.10359881 0.36955553 -0.73493484 "
        "-0.53844645 0.77208923 -0.8584407 0.099836871 -0.60740352 0.58263943 -0.63312647 "
        "0.05268298 -0.47219771 -0.84473708 0.58941394 0.43078114 0.99429725",
    ),
    (
        ("ties", "frequency", 0.5, 2),
        "0.59388191 0.6413109 0.16410055 -0.41389616 -0.6097373 -1.1166528 -0.37116279 "
        "0.30118537 0.77208923 0.57713742 0.099836871 -0.60740352 0.58263943 0.38430156 "
        "0.05268298 -0.47219771 -0.84473708 0.58941394 0.43078114 0.99429725",
    ),
    (
        ("ties_svd", "total", 0.5, 2),
        "0.82783936 1.1390326 0.57208481 -0.086416813 0.080090744 -0.75281745 -0.05991824 "
        "0.056909055 0.61931465 -0.71304064 0.21893686 0.053723517 0.50486626 -0.65552964 "
        "0.16855968 0.049411591 -0.050882656 -0.39588089 -0.078686654 0.029957088",
    ),
    (
        ("ties_svd", "frequency", 0.5, 2),
        "0.84726484 1.1459495 0.53277227 -0.059988109 0.093996787 -0.74730833 -0.082609701 "
        "0.084592821 0.56970762 0.5937509 0.32958811 -0.021887955 0.5277426 -0.6417165 "
        "0.11217272 0.1040815 -0.037078025 -0.40307107 -0.080511434 0.039452613",
    ),
    (
        ("dare_linear", "total", 1.0, 2),
        "2.6631571 1.0650103 2.0719499 -1.2094286 0.94697667 -0.21103908 -0.93344018 "
        "-0.14093277 0.57292588 0.63693976 1.6007303 -0.46012101 3.7440508 0.2575707 "
        "-0.59802799 -1.0925362 -0.54467625 0.64981043 2.0334378 -0.17800097",
    ),
    (
        ("dare_ties", "total", 1.0, 2),
        "0.48806166 -0.023958911 0.21133391 -0.47935695 0.070812518 0.51662318 -0.51538319 "
        "0.42365053 -0.11061913 -0.40067999 0.37847102 -0.27646025 0.63317048 0.11456123 "
        "0.12125777 -0.4837668 -0.32999954 -0.34992712 0.24149971 -0.023076977",
    ),
    (
        ("dare_ties", "frequency", 1.0, 2),
        "0.48806166 -0.023958911 0.21133391 -0.14464447 0.51021036 0.11356737 0.075395895 "
        "-0.20939744 -0.11061913 -0.40067999 0.37847102 0.2032655 0.63317048 0.11456123 "
        "0.12125777 -0.24878966 -0.32999954 -0.34992712 0.24149971 0.25149746",
    ),
    (
        ("dare_linear_svd", "total", 1.0, 2),
        "1.0417549 0.86598611 0.75326478 -0.1655458 -0.19170336 -1.4306735 -0.1215136 "
        "0.36624546 0.97849984 -0.16632862 0.72070627 0.10327458 0.36272458 -0.87618478 "
        "0.27811905 0.25341769 0.18369045 -0.53732886 0.14210393 0.15306054",
    ),
    (
        ("dare_ties_svd", "total", 1.0, 2),
        "0.46709508 0.56280406 0.334918 -0.16275236 0.029327928 -0.4718032 -0.015782507 "
        "0.16902192 0.41250789 -0.35195606 0.23415307 0.15632909 0.31651941 -0.46902558 "
        "0.16522455 0.19027417 0.20808356 -0.16673469 0.11889933 0.075039277",
    ),
    (
        ("dare_ties_svd", "frequency", 1.0, 2),
        "0.47662947 0.55535225 0.33257882 -0.17201144 0.038865493 -0.49695933 -0.015206869 "
        "0.10172837 0.40966157 -0.37840893 0.21905427 0.03483267 0.33737891 -0.43156442 "
        "0.17104235 0.054287143 0.18229026 -0.15758739 0.098316985 0.013195074",
    ),
    (
        ("magnitude_prune", "total", 0.5, 2),
        "2.3394611 0.58497429 0.50752238 -0.41389616 -0.55367661 -0.74709724 -0.60444572 "
        "-0.23726108 2.4206729 0.2800185 0.26631487 -0.60740352 1.7195009 -0.73242043 "
        "-0.55192484 -0.94439542 -2.1284312 0.58941394 0.43078114 0.99429725",
    ),
    (
        ("magnitude_prune_svd", "total", 0.5, 2),
        "0.78808595 1.1399535 0.63155485 -0.030758071 -0.14799473 -1.4714355 -0.18389562 "
        "0.077408915 0.85735226 -0.10691877 0.61710922 0.043281743 0.30164925 -0.67304908 "
        "0.18412415 0.051429103 -0.0074952884 -0.40980735 -0.026725155 0.023021869",
    ),
]
"""Type, how signs are elected, density, rank -> the product, row by row; weights .7, -.4 and .25."""

TWO: list[tuple[Case, str]] = [
    (
        ("svd", "total", 1.0, 1),
        "1.2425696 1.0245539 0.060794843 -0.37007831 -0.92779378 -0.76500719 -0.045393896 "
        "0.27632766 0.42857032 0.35337527 0.020968535 -0.12764241 0.12346902 0.10180569 "
        "0.0060409327 -0.036773155 -0.56363253 -0.46474006 -0.027576685 0.1678684",
    ),
    (
        ("cat", "total", 1.0, 3),
        "1.1531212 1.1184295 0.25352781 -0.37885612 -0.88538927 -0.86320748 -0.21230055 "
        "0.11942162 0.27222107 0.59729064 0.47014866 0.096465108 0.42671113 -0.31304073 "
        "-0.78323392 -0.29676373 -0.88308723 -0.0015466292 0.84070724 0.52025145",
    ),
]
"""The same of adapters of ranks 2 and 1, weights .7 and .4."""


def wanted(values: str) -> Array:
    return np.array(values.split(), np.float64).reshape(5, 4)


@pytest.mark.parametrize(("case", "values"), THREE, ids=lambda value: "-".join(map(str, value[:2])))
def test_three_adapters_are_merged_as_peft_merges_them(case: Case, values: str) -> None:
    kind, sign, density, rank = case
    mixture = Mixture(kind, (0.7, -0.4, 0.25), density, sign == "frequency")
    found = [factors(number, 2, alpha) for number, alpha in ((1, 4), (2, 1), (3, 3))]
    np.testing.assert_allclose(product(mixture, found, rank), wanted(values), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("case", "values"), TWO, ids=lambda value: value[0])
def test_adapters_of_several_ranks(case: Case, values: str) -> None:
    found = [factors(1, 2, 4), factors(2, 1, 1)]
    result = product(Mixture(case[0], (0.7, 0.4)), found, case[3])
    np.testing.assert_allclose(result, wanted(values), rtol=0, atol=1e-6)


def test_a_sum_of_factors_needs_one_rank() -> None:
    found = [factors(1, 2, 4), factors(2, 1, 1)]
    with pytest.raises(ThetaError, match="needs factors of one rank, not 2, 1"):
        product(Mixture("linear", (1, 1)), found, 2)


def test_a_larger_rank_is_filled_with_zeros() -> None:
    found = [factors(1, 2, 4), factors(2, 1, 1)]
    exact = sum(one.scale * one.b @ one.a for one in found)
    for rank in (3, 4, 9):
        np.testing.assert_allclose(product(Mixture("svd", (1, 1)), found, rank), exact, atol=1e-12)


@pytest.mark.parametrize("kind", ["dare_linear", "dare_ties", "dare_linear_svd"])
def test_dare_divides_what_it_keeps_by_the_density(kind: str) -> None:
    found = [factors(1, 2, 4), factors(2, 2, 1)]
    masks: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def drawn(number: int, factor: int, count: int) -> NDArray[np.bool_]:
        return masks.setdefault((number, factor), np.arange(count) % 3 != number)

    thinned = product(Mixture(kind, (1, 1), 0.5, drawn=drawn), found, 2)
    if kind == "dare_linear":
        a, b = (
            sum(
                one.scale**0.5 * (value * masks[number, part].reshape(value.shape) / 0.5)
                for number, (one, value) in enumerate((one, getattr(one, "ab"[part])) for one in found)
            )
            for part in (0, 1)
        )
        np.testing.assert_allclose(thinned, b @ a, atol=1e-12)
    with pytest.raises(ThetaError, match="divides by the density"):
        product(Mixture(kind, (1, 1), 0.0, drawn=drawn), found, 2)


def test_the_norm_of_an_update_is_that_of_the_product() -> None:
    one = factors(1, 2, 4)
    assert products.norm(one.a, one.b) == pytest.approx(np.linalg.norm(one.b @ one.a), rel=1e-12)
