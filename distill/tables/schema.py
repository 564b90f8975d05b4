"""A table as YAML: what is made, what is trained on it, and what the publication reports of each."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from distill.errors import DistillError
from manifests.support.field_values import read_counts
from manifests.support.home import expand_home
from manifests.support.validation import describe
from manifests.support.yaml_core import parse_yaml

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
"""Of a part of a table: a folder's name too."""

File = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$"), AfterValidator(expand_home)]
"""A packaged file's name, or a path beside the table."""

SET_BY = {
    "train.seed": "--seeds",
    "teacher.weights": "--teacher",
    "eval.data": "--input",
    "eval.every": "evaluations",
}
"""Keys of a run's config that something else sets."""

PHOTO, DATA, IMAGES = "a photo", "labelled data", "a folder of images"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MadeImage(_Part):
    """A source image that ``patchgen source`` makes."""

    source: Literal["noise", "fractal", "dead-leaves"]
    size: Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$", description="WIDTHxHEIGHT")]
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0


class BuiltSet(_Part):
    """A patch set that ``patchgen build`` makes of ``images``: names of inputs or of made ones."""

    images: Annotated[list[Name], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=10**9)]
    size: Annotated[int | None, Field(ge=8, le=1024, description="pixels a side")] = None
    recipe: File | None = None
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0


class PackedSet(_Part):
    """A patch set that ``patchgen pack`` makes of an input's images."""

    pack: Name
    size: Annotated[int | None, Field(ge=8, le=1024, description="pixels a side")] = None


class Network(_Part):
    """A network that ``distill train-teacher`` trains; one without a ``config`` must be given as a file."""

    data: Name
    config: File | None = None
    set: dict[str, Any] = {}


class Run(_Part):
    """A student that ``distill train`` distils; ``evaluations`` during it, for rows that ask for a part of it."""

    config: File
    shards: Name
    teacher: Name
    set: dict[str, Any] = {}
    evaluations: Annotated[int, Field(ge=0, le=1000)] = 0


class Row(_Part):
    """A line of the table: the top-1 ``of`` a network or run, at its end or ``after`` a part of it."""

    group: Annotated[str, StringConstraints(max_length=120)]
    name: Annotated[str, StringConstraints(max_length=120)]
    of: Name
    paper: Annotated[float | None, Field(ge=0, le=100, description="top-1 in percent")] = None
    after: Annotated[float, Field(gt=0, le=1, description="part of the run")] = 1.0


class Table(_Part):
    """A table. ``variants`` name settings that replace those of every run's config."""

    title: Annotated[str, StringConstraints(max_length=200)]
    source: Annotated[str, StringConstraints(max_length=200)]
    note: Annotated[str, StringConstraints(max_length=2000)] = ""
    images: dict[Name, MadeImage] = {}
    sets: dict[Name, BuiltSet] = {}
    packs: dict[Name, PackedSet] = {}
    networks: dict[Name, Network] = {}
    runs: dict[Name, Run] = {}
    variants: dict[Name, dict[str, Any]] = {}
    rows: Annotated[list[Row], Field(min_length=1)]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for one, other, what in (
            (self.networks, self.runs, "a network and a run"),
            (self.sets, self.packs, "a set and a pack"),
        ):
            if both := one.keys() & other.keys():
                raise ValueError(f"{min(both)!r} is {what}")
        for name, run in self.runs.items():
            _require(run.shards, self.sets | self.packs, f"runs.{name}.shards", "set or pack")
            _require(run.teacher, self.networks, f"runs.{name}.teacher", "network")
        for where, settings in self._all_settings():
            if key := next((key for key in settings if key in SET_BY), None):
                raise ValueError(f"{where}: {key} is not for a table; {SET_BY[key]} sets it")
        for number, row in enumerate(self.rows):
            _require(row.of, self.networks | self.runs, f"rows[{number}].of", "network or run")
            if row.after < 1 and not (row.of in self.runs and self.runs[row.of].evaluations):
                raise ValueError(f"rows[{number}].after: {row.of} is no run with evaluations")
        return self

    def _all_settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is set of runs, each with its place."""
        yield from ((f"runs.{name}.set", run.set) for name, run in self.runs.items())
        yield from ((f"variants.{name}", settings) for name, settings in self.variants.items())

    def variant(self, name: str | None) -> dict[str, Any]:
        """The settings of a variant; none without a name.

        Raises:
            DistillError: the table has no such variant.
        """
        if name is None:
            return {}
        if name not in self.variants:
            raise DistillError(f"--variant {name}: the table has {', '.join(sorted(self.variants)) or 'no variants'}")
        return dict(self.variants[name])

    def inputs(self) -> dict[str, str]:
        """What a user has to bring, by name: what each is."""
        found = {network.data: DATA for network in self.networks.values()}
        for packed in self.packs.values():
            found.setdefault(packed.pack, IMAGES)
        for built in self.sets.values():
            found |= {name: PHOTO for name in built.images if name not in self.images}
        return found

    def needs(self, name: str) -> Iterator[str]:
        """The inputs that a network or run needs."""
        if name in self.networks:
            yield self.networks[name].data
            return
        run = self.runs[name]
        yield self.networks[run.teacher].data
        if run.shards in self.packs:
            yield self.packs[run.shards].pack
        else:
            yield from (name for name in self.sets[run.shards].images if name not in self.images)


def _require(name: str, known: Mapping[str, Any], where: str, what: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: there is no {what} {name!r}")


def parse_table(text: str, where: str) -> Table:
    """A table from YAML text.

    Raises:
        DistillError: not YAML, or a key missing, unknown or ill-typed, or a name that nothing has.
    """
    try:
        return Table.model_validate(read_counts(parse_yaml(text), Table))
    except ValidationError as error:
        raise DistillError(f"table {where}: {describe(error, Table)}") from error
    except ValueError as error:
        raise DistillError(f"table {where}: {error}") from error
