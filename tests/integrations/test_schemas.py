"""Files that services of others read are of their published schemas, which check-jsonschema brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.support.environment import ROOT

BY_SCHEMA: Final = {
    "vendor.citation-file-format": ["CITATION.cff"],
    "vendor.github-issue-forms": [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/idea.yml"],
    "vendor.github-actions": ["theta/integrations/github/action.yml"],
    "vendor.github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
}


def check(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_component_of_gitlab_is_a_header_and_a_pipeline(tmp_path: Path) -> None:
    """The schema is that of a pipeline; inputs stand in it as text, as GitLab puts them there."""
    text = (ROOT / "theta" / "integrations" / "gitlab" / "theta.yml").read_text()
    header, pipeline = text.split("\n---\n")
    for name, given in yaml.safe_load(header)["spec"]["inputs"].items():
        assert f"$[[ inputs.{name} ]]" in pipeline
        pipeline = pipeline.replace(f"$[[ inputs.{name} ]]", given["default"])
    assert "$[[" not in pipeline
    (tmp_path / "pipeline.yml").write_text(pipeline)
    done = check("vendor.gitlab-ci", tmp_path / "pipeline.yml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("schema", BY_SCHEMA)
def test_a_file_that_services_read_is_of_their_schema(schema: str, tmp_path: Path) -> None:
    done = check(schema, *(ROOT / name for name in BY_SCHEMA[schema]))
    assert done.returncode == 0, done.stdout
    (tmp_path / "wrong.yml").write_text("nonsense: [1]\n")
    assert check(schema, tmp_path / "wrong.yml").returncode == 1
