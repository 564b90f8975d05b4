"""All hostile cases, ordered by theme. This module imports torch; ``case`` does not."""

from tests.hostile import (
    checkpoints,
    cifar,
    configs,
    images,
    inputs,
    labels,
    manifests,
    names,
    parquet,
    pickles,
    tables,
    tars,
    weights,
)
from tests.hostile.case import Case

CASES: tuple[Case, ...] = tuple(
    case
    for theme in (
        manifests,
        names,
        tars,
        tables,
        images,
        weights,
        checkpoints,
        pickles,
        labels,
        configs,
        inputs,
        cifar,
        parquet,
    )
    for case in theme.CASES
)
