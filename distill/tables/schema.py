"""The schema of a table's YAML file: the sets to build, the networks to train, and the published figures."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from distill.errors import DistillError, with_action
from manifests.support.files import expand_home
from manifests.support.validation import describe, read_counts
from manifests.support.yaml_core import parse_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]  # also the name of a folder
File = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), AfterValidator(expand_home)]
"""The name of a packaged file, or a path relative to the table."""
Seed = Annotated[int, Field(ge=0, lt=2**53)]
PatchSize = Annotated[int | None, Field(ge=8, le=1024, description="pixels a side")]
Text200 = Annotated[str, StringConstraints(max_length=200)]

EVERY = "eval.every"
SET_BY = {"train.seed": "--seeds", "teacher.weights": "--teacher", "eval.data": "--input", EVERY: "evaluations"}
"""Config keys that the settings of a table must not contain, and what sets each key instead."""

PHOTO, LABELLED_DATA, IMAGES = "a photo", "labelled data", "a folder of images"  # kinds of inputs


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SyntheticImage(_Part):
    """An image that ``patchgen source`` draws."""

    source: Literal["noise", "fractal", "dead-leaves"]
    size: str = Field(pattern=r"^\d{1,5}x\d{1,5}$", description="WIDTHxHEIGHT in pixels")
    seed: Seed = 0


class BuiltSet(_Part):
    """A patch set that ``patchgen build`` builds. ``images`` are names of inputs or of synthetic images."""

    images: list[Name] = Field(min_length=1)
    n: int = Field(ge=1, le=10**9, description="patches")
    size: PatchSize = None
    recipe: File | None = None
    seed: Seed = 0


class PackedSet(_Part):
    """A patch set that ``patchgen pack`` builds from the images of the input ``pack``."""

    pack: Name
    size: PatchSize = None


class NetworkSpec(_Part):
    """A network that ``distill train-teacher`` trains. If ``config`` is not set, the user must give a weight file."""

    data: Name
    config: File | None = None
    set: dict[str, Any] = {}


class RunSpec(_Part):
    """A student that ``distill train`` trains and evaluates ``evaluations`` times during the run, equally spaced."""

    config: File
    shards: Name
    teacher: Name
    set: dict[str, Any] = {}
    evaluations: int = Field(default=0, ge=0, le=1000, description="number of evaluations; 0: only at the end")


class Row(_Part):
    """A row of the table. ``paper`` is the published top-1. Our top-1 is from the network or run that ``of`` names.

    ``after`` is the fraction of the run after which we measure our top-1: 1 is the end, 0.5 is the middle. A row with
    ``after`` below 1 shows the evaluation nearest to this fraction, so the run needs the key ``evaluations``.
    """

    group: Annotated[str, StringConstraints(max_length=120)]
    name: Annotated[str, StringConstraints(max_length=120)]
    of: Name
    paper: float | None = Field(default=None, ge=0, le=100, description="top-1 in percent")
    after: float = Field(default=1.0, gt=0, le=1, description="part of the run, 1: its end")


class Table(_Part):
    """A table. ``variants`` are groups of settings by name. The option --variant applies one group to every run."""

    title: Text200
    source: Text200
    note: Annotated[str, StringConstraints(max_length=2000)] = ""
    images: dict[Name, SyntheticImage] = {}
    sets: dict[Name, BuiltSet] = {}
    packs: dict[Name, PackedSet] = {}
    networks: dict[Name, NetworkSpec] = {}
    runs: dict[Name, RunSpec] = {}
    variants: dict[Name, dict[str, Any]] = {}
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        kinds = ((self.networks, self.runs, "network and a run"), (self.sets, self.packs, "set and a pack"))
        for a, b, what in kinds:
            if both := a.keys() & b.keys():
                raise ValueError(f"the name {min(both)!r} is used for a {what}; rename one of the two")
        for name, run in self.runs.items():
            _require(run.shards, self.sets | self.packs, f"runs.{name}.shards", "set or pack")
            _require(run.teacher, self.networks, f"runs.{name}.teacher", "network")
        settings = {f"runs.{name}.set": run.set for name, run in self.runs.items()}
        settings |= {f"variants.{name}": variant for name, variant in self.variants.items()}
        for where, keys in settings.items():
            if key := next((key for key in keys if key in SET_BY), None):
                raise ValueError(f"{where}: a table must not set {key}; use {SET_BY[key]} instead")
        for number, row in enumerate(self.rows):
            _require(row.of, self.networks | self.runs, f"rows[{number}].of", "network or run")
            if row.after < 1 and not (row.of in self.runs and self.runs[row.of].evaluations):
                key = "add the key 'evaluations' to this run" if row.of in self.runs else "remove 'after'"
                raise ValueError(f"rows[{number}].after: {row.of} is evaluated only at its end; {key}")
        return self

    def variant(self, name: str | None) -> dict[str, Any]:
        """Return the settings of a variant; empty if ``name`` is None."""
        if name is not None and name not in self.variants:
            action = f"choose one of {', '.join(sorted(self.variants))}" if self.variants else "remove the option"
            raise DistillError(f"--variant {name}: the table has no variant of this name; {action}")
        return self.variants[name] if name else {}

    def inputs(self) -> dict[str, str]:
        """Return the kind of each file or folder that the user must give with --input, by its name in the table."""
        found = {network.data: LABELLED_DATA for network in self.networks.values()}
        found = {packed.pack: IMAGES for packed in self.packs.values()} | found
        for built in self.sets.values():
            found |= {name: PHOTO for name in built.images if name not in self.images}
        return found

    def inputs_of(self, name: str) -> Iterator[str]:
        """Yield the names of the files and folders that the user must give for the network or run ``name``."""
        run = self.runs.get(name)
        yield self.networks[run.teacher if run else name].data
        if run and run.shards in self.packs:
            yield self.packs[run.shards].pack
        elif run:
            yield from (name for name in self.sets[run.shards].images if name not in self.images)


def _require(name: str, known: Mapping[str, Any], where: str, what: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: the table has no {what} {name!r}; add it or correct the name")


def parse_table(text: str, where: str) -> Table:
    """Parse YAML text as a table; ``where`` is the table's name in error messages."""
    try:
        return Table.model_validate(read_counts(parse_yaml(text), Table))
    except ValueError as error:
        found = describe(error, Table) if isinstance(error, ValidationError) else str(error)
        raise DistillError(f"table {where}: {with_action(found, 'correct the table')}") from error
