"""Writes the joblib files beside it (joblib 1.6, scikit-learn 1.9): twice, with other values.

Run by hand (``python make_joblib.py``); the tests need neither.
"""

from pathlib import Path

import joblib  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np
from sklearn.linear_model import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    LogisticRegression,
)

HERE = Path(__file__).parent


def main() -> None:
    """Write both files."""
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(20, 5))
        model = LogisticRegression(max_iter=5 * 20).fit(features, (features[:, 0] > 0).astype(int))
        model.n_iter_[:] = 7
        value = {
            "model": model,
            "x": features,
            "fortran": np.asfortranarray(features),
            "objects": np.array([1, "a", None], object),
            "records": np.zeros(3, [("a", "<f4"), ("b", "<i8")]),
            "big": features.astype(">f4"),
            "empty": np.zeros((0, 3)),
            "text": "after",
        }
        joblib.dump(value, HERE / f"model.{seed}.joblib")


if __name__ == "__main__":
    main()
