"""Helpers that tests share: ``from tests.support import Repo, make_model``.

No helper imports theta: one that shares code with the code it checks would prove nothing.
"""

from tests.support.models import make_model, mutate, random_tensors, read_model, real_model_path, sha256
from tests.support.repos import Repo

__all__ = ["Repo", "make_model", "mutate", "random_tensors", "read_model", "real_model_path", "sha256"]
