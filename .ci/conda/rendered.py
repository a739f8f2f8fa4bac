"""Render a recipe as rattler-build does, which ends with its error if the recipe is wrong.

    python .ci/conda/rendered.py RECIPE SHA256

Prints the source and what is needed to run; ends with 1 if the source has another digest than SHA256.
"""

from __future__ import annotations

import sys

from rattler_build import Stage0Recipe, VariantConfig


def main() -> int:
    """Return the exit code."""
    path, digest = sys.argv[1:]
    (variant,) = Stage0Recipe.from_file(path).render(VariantConfig())
    rendered = variant.recipe.to_dict()
    (source,) = rendered["source"]
    print(source["url"], source["sha256"])
    print(*rendered["requirements"]["run"], sep="\n")
    return int(source["sha256"] != digest)


if __name__ == "__main__":
    sys.exit(main())
