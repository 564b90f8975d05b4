"""A table as jobs: commands of the two programs, what each needs, and the file that each ends with."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config import presets
from distill.config.overrides import merge
from distill.config.schema import Config, SupervisedConfig, parse_config
from distill.errors import DistillError
from distill.tables import redaction
from distill.tables.options import Wish
from distill.tables.schema import BuiltSet, Row, Table
from distill.training import provenance
from distill.training.run_dir import SUMMARY_NAME, TEACHER_NAME
from manifests.format.digest import file_digest
from manifests.support.console import shell_word

EVERY = "eval.every"

DIGEST_OF = "sha256 of "
"""Stands before a file's name, or an input's variable, in what a job is made from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A command that runs in the table's folder, and what it makes there: ``result``, which is written last.

    ``name`` is the path of what it makes, ``also`` are further files that others need of it, and ``identity`` is
    what it is made from, as plain values without paths. A training has a ``config``, and in an epoch either ``n``
    samples, or all images of the input ``epoch_of``; a set has ``n`` patches, if they are known, and no config.
    ``run`` is the table's run that it does for one seed.
    """

    name: str
    argv: tuple[str, ...]
    result: str
    also: tuple[str, ...] = ()
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    config: Config | SupervisedConfig | None = None
    n: int | None = None
    epoch_of: str | None = None
    run: str | None = None

    @property
    def command(self) -> str:
        """As a shell takes it."""
        return " ".join(map(shell_word, self.argv))


def missing(table: Table, wish: Wish, of: str) -> list[str]:
    """What a network or run still needs from the user: the options that would give it."""
    teacher = table.runs[of].teacher if of in table.runs else of
    lacks = [f"--input {name}=PATH" for name in dict.fromkeys(table.needs(of)) if name not in wish.inputs]
    if table.networks[teacher].config is None and teacher not in wish.teachers:
        lacks.append(f"--teacher {teacher}=FILE")
    return lacks


def make_jobs(table: Table, wish: Wish) -> dict[str, Job]:
    """All jobs that the given inputs allow, by name, each after those it needs.

    Raises:
        DistillError: a config is missing or wrong.
    """
    jobs = [*_images(table), *_sets(table, wish), *_packs(table, wish), *_networks(table, wish), *_runs(table, wish)]
    return {job.name: dataclasses.replace(job, identity=_identity(job, wish)) for job in jobs}


def _identity(job: Job, wish: Wish) -> dict[str, Any]:
    """What decides the results of a job, but for those of the jobs it needs."""
    value: dict[str, Any] = {"command": redaction.command(job.argv, wish)}
    if job.config is not None:
        config = provenance.settings_of_weights(job.config.model_dump(mode="json"))
        value["config"] = config | {"eval": {"every": job.config.eval.every}}
    for word in job.argv:
        path = Path(word)
        if path.is_absolute() and (digest := wish.digests.get(path)):
            value[f"{DIGEST_OF}{redaction.text(word, wish)}"] = digest
        elif path.is_absolute() and path.suffix in (".yaml", ".yml") and job.config is None:
            value[f"{DIGEST_OF}{path.name}"] = file_digest(path)
    return value


def without_seed(made_from: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a run called ``name`` is made from, but for its seed: the same for all of which the table gives a mean."""
    seed = f"--set train.seed={name.rpartition('/seed')[2]} --out {name} "
    value = dict(made_from) | {"command": str(made_from.get("command")).replace(seed, "")}
    config = value.get("config")
    return value | ({"config": provenance.without_seed(config)} if isinstance(config, dict) else {})


def jobs_of(table: Table, wish: Wish, row: Row) -> list[str]:
    """Names of the jobs whose results a row shows: one a seed, or none where its network was given as a file."""
    if row.of in table.networks:
        return [] if row.of in wish.teachers else [f"networks/{row.of}"]
    return [f"runs/{row.of}/seed{seed}" for seed in wish.seeds]


def _images(table: Table) -> Iterable[Job]:
    for name, image in table.images.items():
        path = f"images/{name}.png"
        argv = ("patchgen", "source", image.source, "--size", image.size, "--seed", str(image.seed), "--out", path)
        yield Job(name=f"images/{name}", argv=argv, result=path)


def _sets(table: Table, wish: Wish) -> Iterable[Job]:
    for name, built in table.sets.items():
        if any(image not in table.images and image not in wish.inputs for image in built.images):
            continue
        made = [image for image in built.images if image in table.images]
        paths = [f"images/{image}.png" if image in made else str(wish.inputs[image]) for image in built.images]
        n = _patches(table, wish, name, built)
        argv = ["patchgen", "build", *(word for path in paths for word in ("--image", path)), "--n", str(n)]
        argv += ["--size", str(built.size)] if built.size else []
        argv += ["--recipe", _file_or_name(built.recipe, wish.folder)] if built.recipe else []
        argv += ["--seed", str(built.seed)] if built.seed else []
        yield _set_job(name, argv, tuple(f"images/{image}" for image in made), n)


def _packs(table: Table, wish: Wish) -> Iterable[Job]:
    for name, packed in table.packs.items():
        if packed.pack in wish.inputs:
            size = ["--size", str(packed.size)] if packed.size else []
            yield _set_job(name, ["patchgen", "pack", str(wish.inputs[packed.pack]), *size], (), None)


def _set_job(name: str, argv: list[str], needs: tuple[str, ...], n: int | None) -> Job:
    path = f"sets/{name}"
    return Job(name=path, argv=(*argv, "--out", path), needs=needs, result=f"{path}/manifest.json", n=n)


def _patches(table: Table, wish: Wish, name: str, built: BuiltSet) -> int:
    """How many patches a set has: never more than the shortened runs see of it."""
    if wish.scale >= 1:
        return built.n
    seen = (
        _samples(_parse(f"runs.{key}", run.config, _settings(table, key, wish), wish, Config), built.n, wish)
        for key, run in table.runs.items()
        if run.shards == name
    )
    return min(built.n, max(seen, default=built.n))


def _samples(config: Config, n: int, wish: Wish) -> int:
    whole = config.train.samples if config.train.samples is not None else round((config.train.epochs or 0) * n)
    return max(round(whole * wish.scale), config.data.batch_size)


def _networks(table: Table, wish: Wish) -> Iterable[Job]:
    for name, network in table.networks.items():
        if network.config is None or name in wish.teachers or network.data not in wish.inputs:
            continue
        settings = _merge(f"networks.{name}", network.set, wish.teacher_settings)
        config = _parse(f"networks.{name}", network.config, settings, wish, SupervisedConfig)
        settings = merge(settings, _shortened(config, wish.teacher_scale))
        config = _parse(f"networks.{name}", network.config, settings, wish, SupervisedConfig)
        data = str(wish.inputs[network.data])
        argv = ("distill", "train-teacher", "--data", data, "--config", _config(network.config, wish), "--eval", data)
        also = (f"networks/{name}/{TEACHER_NAME}",)
        yield _training(f"networks/{name}", argv, settings, also=also, config=config, epoch_of=network.data)


def _runs(table: Table, wish: Wish) -> Iterable[Job]:
    for name, run in table.runs.items():
        if missing(table, wish, name):
            continue
        settings = _settings(table, name, wish)
        config = _parse(f"runs.{name}", run.config, settings, wish, Config)
        packed = table.packs.get(run.shards)
        n = table.sets[run.shards].n if packed is None else None
        if wish.scale != 1 and n is not None:
            settings = merge(settings, {"train.samples": _samples(config, n, wish)})
        elif wish.scale != 1:
            settings = merge(settings, _shortened(config, wish.scale))
        if run.evaluations:
            if n is None and config.train.samples is None:
                raise DistillError(f"runs.{name}.evaluations: of a pack in epochs; set train.samples")
            settings[EVERY] = max(_samples(config, n or 0, wish) // run.evaluations, 1)
        given = wish.teachers.get(run.teacher)
        needs = (f"sets/{run.shards}", *(() if given else (f"networks/{run.teacher}",)))
        teacher = str(given) if given else f"networks/{run.teacher}/{TEACHER_NAME}"
        data = str(wish.inputs[table.networks[run.teacher].data])
        argv = ("distill", "train", "--shards", needs[0], "--config", _config(run.config, wish), "--teacher", teacher)
        for seed in wish.seeds:
            own = settings | {"train.seed": seed}
            yield _training(
                f"runs/{name}/seed{seed}",
                (*argv, "--eval", data),
                own,
                needs=needs,
                config=_parse(f"runs.{name}", run.config, own, wish, Config),
                n=n,
                epoch_of=packed.pack if packed else None,
                run=name,
            )


def _training(path: str, argv: tuple[str, ...], settings: Mapping[str, Any], **more: Any) -> Job:
    sets = [word for key, value in settings.items() for word in ("--set", redaction.setting(key, value))]
    argv = (*argv, *sets, "--out", path, "--resume")
    return Job(name=path, argv=argv, result=f"{path}/{SUMMARY_NAME}", **more)


def _settings(table: Table, name: str, wish: Wish) -> dict[str, Any]:
    return _merge(f"runs.{name}", table.variant(wish.variant), table.runs[name].set, wish.settings)


def _merge(where: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return merge(*layers)
    except DistillError as error:
        raise DistillError(f"{where}: {error}") from error


def _parse(where: str, name: str, settings: Mapping[str, Any], wish: Wish, model: type[Any]) -> Any:
    _, text = presets.read(presets.CONFIGS, _config(name, wish))
    try:
        return parse_config(text, name, dict(settings), model)
    except DistillError as error:
        raise DistillError(f"{where}: {error}") from error


def _config(name: str, wish: Wish) -> str:
    return _file_or_name(name, wish.folder)


def _file_or_name(name: str, folder: Path) -> str:
    path = folder / name
    return str(path.resolve()) if os.path.isfile(path) else name  # noqa: PTH113 - Path.is_file raises for long names


def _shortened(config: Config | SupervisedConfig, scale: float) -> dict[str, Any]:
    """Return the length of a run at a scale, at least a batch where it is said in samples."""
    if scale == 1:
        return {}
    if config.train.samples is not None:
        return {"train.samples": max(round(config.train.samples * scale), config.data.batch_size)}
    return {"train.epochs": float(f"{(config.train.epochs or 0) * scale:.6g}")}
