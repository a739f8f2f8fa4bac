"""Commands in two namespaces of process ids that share a repository and the name of the host."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.support import Repo, make_model, random_tensors

pytestmark = pytest.mark.campaign

_APART = ("unshare", "-Urpf", "--mount-proc")


@pytest.fixture
def shared(repo: Repo) -> Repo:
    if subprocess.run([*_APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not allowed here")
    with (repo.path / ".gitattributes").open("a") as attributes:
        attributes.write("z.slow filter=slow\n")
    repo.git("config", "filter.slow.clean", "sleep 8; cat")
    # Not the warm server of the tests, which is in one namespace.
    repo.git("config", "filter.theta.process", f"{sys.executable} -P -m theta filter-process")
    return repo


def test_what_a_living_add_stored_stays_when_a_container_adds(shared: Repo) -> None:
    make_model(shared.path / "a.safetensors", random_tensors({"w": (64, 64)}, seed=1))
    make_model(shared.path / "b.safetensors", random_tensors({"w": (64, 64)}, seed=2))
    (shared.path / "z.slow").write_text("words\n")
    adding = subprocess.Popen(["git", "add", "a.safetensors", "z.slow"], cwd=shared.path)
    staged = shared.path / ".git/theta/staged"
    until = time.monotonic() + 10
    while not (staged.is_dir() and any(staged.iterdir())) and time.monotonic() < until:
        time.sleep(0.05)
    before = set(staged.iterdir())
    assert before and adding.poll() is None
    command = [*_APART, "git", "hash-object", "-w", "--path", "b.safetensors", "b.safetensors"]
    subprocess.run(command, cwd=shared.path, check=True)
    assert adding.poll() is None
    assert before < set(staged.iterdir())
    assert adding.wait() == 0
    shared.git("commit", "-qm", "a")
    assert shared.theta("fsck", "--read-data").returncode == 0
