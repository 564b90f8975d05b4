"""Make the jobs of a table. A job is a command of ``patchgen`` or ``distill``, with the names of its result files."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from distill.config import presets
from distill.config.overrides import merge
from distill.config.schema import Config, SupervisedConfig, parse_config
from distill.errors import DistillError
from distill.models.arch import is_own
from distill.tables.options import TableOptions, format_settings
from distill.tables.schema import EVERY, BuiltSet, Row, Table
from distill.training import run_identity
from distill.training.run_dir import SUMMARY_NAME, TEACHER_NAME
from distill.user_code import require_user
from manifests.format.digest import file_digest
from manifests.support.console import shell_word

DIGEST_OF = "sha256 of "  # begins a key in the identity of a job; a file's name or an input's variable follows

C = TypeVar("C", Config, SupervisedConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A command that runs in the table's folder and writes the files ``results``."""

    name: str  # the path of the set, network or run in the table's folder
    argv: tuple[str, ...]
    results: tuple[str, ...]  # paths in the table's folder
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # decides the results
    needs: tuple[str, ...] = ()  # names of the jobs that must be done first
    config: Config | SupervisedConfig | None = None  # None if the job does not train
    n: int | None = None  # patches of a set, or samples in an epoch of a training, if known
    epoch_input: str | None = None  # the input whose images are the epoch of a training
    run: str | None = None  # the run of the table that this job trains with one seed
    set_name: str | None = None  # the table's name of the set that a student is trained on

    @property
    def command(self) -> str:
        """The command, quoted for a shell."""
        return " ".join(map(shell_word, self.argv))


def missing_options(table: Table, options: TableOptions, of: str) -> list[str]:
    """Return the options that the user must add so that the network or run named ``of`` can be trained."""
    teacher = table.runs[of].teacher if of in table.runs else of
    missing = [f"--input {name}=PATH" for name in dict.fromkeys(table.inputs_of(of)) if name not in options.inputs]
    if table.networks[teacher].config is None and teacher not in options.teachers:
        missing.append(f"--teacher {teacher}=FILE")
    return missing


def make_jobs(table: Table, options: TableOptions) -> dict[str, Job]:
    """Return all jobs that the given inputs allow, as a dict by name. Each job comes after the jobs that it needs."""
    maker = _JobMaker(table, options)
    jobs = [*maker.images(), *maker.sets(), *maker.packs(), *maker.networks(), *maker.runs()]
    return {job.name: dataclasses.replace(job, identity=_identity(job, options)) for job in jobs}


def _identity(job: Job, options: TableOptions) -> dict[str, Any]:
    """Return the command, config and input digests that decide the results of a job, as plain JSON values."""
    value: dict[str, Any] = {"command": options.redact_command(job.argv)}
    if job.config is not None:
        config = run_identity.weight_settings(job.config.model_dump(mode="json"))
        value["config"] = config | {"eval": {"every": job.config.eval.every}}
    for path in (Path(word) for word in job.argv if Path(word).is_absolute()):
        if digest := options.digests.get(path):
            value[f"{DIGEST_OF}{options.redact_text(str(path))}"] = digest
        elif path.suffix in (".yaml", ".yml") and job.config is None:
            value[f"{DIGEST_OF}{path.name}"] = file_digest(path)
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def without_seed(identity: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the ``identity`` of the job ``name`` without the seed. The result is equal for all seeds of a run."""
    seed = f"--set train.seed={name.rpartition('/seed')[2]} --out {name} "
    value = dict(identity) | {"command": str(identity.get("command")).replace(seed, "")}
    config = value.get("config")
    return value | ({"config": run_identity.without_seed(config)} if isinstance(config, dict) else {})


def jobs_of(table: Table, options: TableOptions, row: Row) -> list[str]:
    """Return the names of the jobs whose results a row shows: one for each seed of a run, or one for a network.

    A network whose weight file the user gives needs no job.
    """
    if row.of in table.networks:
        return [] if row.of in options.teachers else [f"networks/{row.of}"]
    return [f"runs/{row.of}/seed{seed}" for seed in options.seeds]


def with_needs(jobs: Mapping[str, Job], names: Iterable[str]) -> dict[str, Job]:
    """Return the jobs ``names`` and all jobs that must be done before these jobs, in the order of ``jobs``."""
    wanted = set(names)
    for name, job in reversed(list(jobs.items())):
        if name in wanted:
            wanted.update(job.needs)
    return {name: job for name, job in jobs.items() if name in wanted}


@dataclasses.dataclass(frozen=True)
class _JobMaker:
    table: Table
    options: TableOptions

    def images(self) -> Iterator[Job]:
        for name, image in self.table.images.items():
            path, seed = f"images/{name}.png", str(image.seed)
            argv = ("patchgen", "source", image.source, "--size", image.size, "--seed", seed, "--out", path)
            yield Job(name=f"images/{name}", argv=argv, results=(path,))

    def sets(self) -> Iterator[Job]:
        paths = {image: str(path) for image, path in self.options.inputs.items()}
        paths |= {image: f"images/{image}.png" for image in self.table.images}
        for name, built in self.table.sets.items():
            if not paths.keys() >= set(built.images):
                continue
            n = self._num_patches(name, built)
            argv = ["patchgen", "build", *(word for image in built.images for word in ("--image", paths[image]))]
            recipe = built.recipe and self._file_or_name(built.recipe)
            options = {"--n": n, "--size": built.size, "--recipe": recipe, "--seed": built.seed}
            argv += [word for option, value in options.items() if value for word in (option, str(value))]
            needs = tuple(f"images/{image}" for image in built.images if image in self.table.images)
            yield _set_job(name, argv, needs=needs, n=n)

    def packs(self) -> Iterator[Job]:
        for name, packed in self.table.packs.items():
            if packed.pack in self.options.inputs:
                size = ["--size", str(packed.size)] if packed.size else []
                yield _set_job(name, ["patchgen", "pack", str(self.options.inputs[packed.pack]), *size])

    def _num_patches(self, name: str, built: BuiltSet) -> int:
        """Return how many patches ``built`` needs: ``built.n``, or fewer if shortened runs on the set use fewer."""
        if self.options.scale >= 1:
            return built.n
        configs = (self._run_config(key)[1] for key, run in self.table.runs.items() if run.shards == name)
        used = (_samples(config, built.n, self.options.scale) for config in configs)
        return min(built.n, max(used, default=built.n))

    def networks(self) -> Iterator[Job]:
        for name, network in self.table.networks.items():
            given = name in self.options.teachers
            if network.config is None or given or network.data not in self.options.inputs:
                continue
            where, path, data = f"networks.{name}", f"networks/{name}", str(self.options.inputs[network.data])
            layers = [network.set, self.options.teacher_settings]
            _, config = self._resolve(where, network.config, SupervisedConfig, *layers)
            layers.append(_scaled_length(config, self.options.teacher_scale))
            settings, config = self._resolve(where, network.config, SupervisedConfig, *layers)
            argv = ["distill", "train-teacher", "--data", data, "--config", self._file_or_name(network.config)]
            results = (f"{path}/{SUMMARY_NAME}", f"{path}/{TEACHER_NAME}")
            job = Job(name=path, argv=(*argv, "--eval", data), results=results, epoch_input=network.data)
            yield _with_config(job, settings, config)

    def runs(self) -> Iterator[Job]:
        for name, run in self.table.runs.items():
            if missing_options(self.table, self.options, name):
                continue
            packed = self.table.packs.get(run.shards)
            n = self.table.sets[run.shards].n if packed is None else None
            settings = self._run_settings(name, n)
            given = self.options.teachers.get(run.teacher)
            needs = (f"sets/{run.shards}", *(() if given else (f"networks/{run.teacher}",)))
            argv = ["distill", "train", "--shards", needs[0], "--config", self._file_or_name(run.config)]
            argv += ["--teacher", str(given) if given else f"networks/{run.teacher}/{TEACHER_NAME}"]
            argv += ["--eval", str(self.options.inputs[self.table.networks[run.teacher].data])]
            more: dict[str, Any] = {"n": n, "epoch_input": packed.pack if packed else None, "set_name": run.shards}
            for seed in self.options.seeds:
                path = f"runs/{name}/seed{seed}"
                seeded, config = self._resolve(f"runs.{name}", run.config, Config, settings, {"train.seed": seed})
                results = (f"{path}/{SUMMARY_NAME}",)
                job = Job(name=path, argv=tuple(argv), results=results, needs=needs, run=name, **more)
                yield _with_config(job, seeded, config)

    def _run_settings(self, name: str, n: int | None) -> dict[str, Any]:
        """Return all settings of the run ``name`` except the seed. ``n`` is the set's number of patches, if known."""
        evaluations, scale = self.table.runs[name].evaluations, self.options.scale
        settings, config = self._run_config(name)
        settings = merge(settings, _scaled_length(config, scale, n))
        if evaluations:
            if n is None and config.train.samples is None:
                raise DistillError(f"runs.{name}.evaluations: the length of the run is unknown; set train.samples")
            settings[EVERY] = max(_samples(config, n or 0, scale) // evaluations, 1)
        return settings

    def _run_config(self, name: str) -> tuple[dict[str, Any], Config]:
        """Return the settings and the config of the run ``name``, before ``scale`` changes the length of the run."""
        run, variant = self.table.runs[name], self.table.variant(self.options.variant)
        return self._resolve(f"runs.{name}", run.config, Config, variant, run.set, self.options.settings)

    def _resolve(self, where: str, name: str, model: type[C], *layers: Mapping[str, Any]) -> tuple[dict[str, Any], C]:
        """Return the merged settings of ``layers``, and the config ``name`` with these settings."""
        _, text = presets.read(presets.CONFIGS, self._file_or_name(name))
        try:
            settings = merge(*layers)
            return settings, parse_config(text, name, settings, model)
        except DistillError as error:
            raise DistillError(f"{where}: {error}") from error

    def _file_or_name(self, name: str) -> str:
        """Return the path of the file ``name`` in the table's folder. If no such file exists, return ``name``."""
        path = self.options.folder / name
        return str(path.resolve()) if os.path.isfile(path) else name  # noqa: PTH113 - is_file raises for long names


def _set_job(name: str, argv: list[str], **fields: Any) -> Job:
    path = f"sets/{name}"
    return Job(name=path, argv=(*argv, "--out", path), results=(f"{path}/manifest.json",), **fields)


def _with_config(job: Job, settings: Mapping[str, Any], config: Config | SupervisedConfig) -> Job:
    """Return the training ``job`` with ``config``, and with --set, --out and --resume in the command."""
    words = [word for package in _own_packages(config) for word in ("--allow-import", package)]
    words += [word for setting in format_settings(settings) for word in ("--set", setting)]
    return dataclasses.replace(job, argv=(*job.argv, *words, "--out", job.name, "--resume"), config=config)


def _own_packages(config: Config | SupervisedConfig) -> list[str]:
    """Return the packages of the user whose networks a run needs. Raise DistillError if one is not allowed."""
    if isinstance(config, SupervisedConfig):
        archs = [config.network.arch]
    else:
        archs = [config.student.arch, config.teacher.arch, *(each.arch for each in config.teacher.others or ())]
    names = [name for arch in archs if is_own(name := arch.partition("(")[0])]
    for name in names:
        require_user(name, f"arch {name!r}")
    return sorted({name.partition(":")[0].partition(".")[0] for name in names})


def _samples(config: Config | SupervisedConfig, n: int, scale: float) -> int:
    """Return ``scale`` times the number of samples of a run, at least one batch. An epoch has ``n`` samples."""
    return max(round(config.train.num_samples(n) * scale), config.data.batch_size)


def _scaled_length(config: Config | SupervisedConfig, scale: float, n: int | None = None) -> dict[str, Any]:
    """Return the scaled length of a run as a setting: train.samples, or train.epochs if the samples are unknown."""
    if scale == 1:
        return {}
    if n is None and config.train.samples is None:
        return {"train.epochs": float(f"{(config.train.epochs or 0) * scale:.6g}")}
    return {"train.samples": _samples(config, n or 0, scale)}
