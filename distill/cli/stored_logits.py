"""The commands ``make-logits`` and ``verify-logits``."""

import json
from pathlib import Path
from typing import Any

import click

from distill.cli.options import (
    FILE,
    config_option,
    device_option,
    eval_option,
    fetched,
    json_option,
    run_config,
    set_option,
    shards_option,
    teacher_option,
)
from manifests.support.counts import counted
from manifests.support.numbers import Count


@click.command()
@shards_option
@config_option
@teacher_option
@eval_option
@click.option("--out", required=True, type=FILE, help="Folder of the logits; run again to go on.")
@set_option
@device_option
def make_logits(
    shards: Path | str,
    config_name: str,
    teacher: Path | None,
    eval_data: Path | None,
    out: Path,
    settings: dict[str, Any],
    device: str,
) -> None:
    """Store a teacher's logits for a whole run.

    Students of any seed can then learn from them without the teacher.

    Example: distill make-logits --shards shards/ --config fast-cifar --teacher resnet56.safetensors --out logits/
    """
    from distill.commands.make_logits import check_inputs  # noqa: PLC0415
    from distill.commands.make_logits import make_logits as run_make_logits  # noqa: PLC0415
    from distill.runtime.context import RunContext  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415

    config = run_config(config_name, settings, teacher=teacher, eval_data=eval_data)
    context = RunContext(device=pick_device(device))
    folder = fetched(shards, lambda: check_inputs(config, out))
    manifest = run_make_logits(config, folder, out, context)
    click.echo(
        f"{counted(manifest.steps, 'step')} of {counted(manifest.batch_size, 'sample')} "
        f"in {counted(len(manifest.files), 'file')}; train with --teacher-logits {out}"
    )


@click.command()
@click.argument("logits", type=FILE)
@shards_option
@config_option
@teacher_option
@click.option("--sample", type=Count(1, 10_000), default=20, show_default=True, help="Steps to recompute.")
@click.option("--seed", type=Count(0), default=0, show_default=True, help="Which steps.")
@set_option
@json_option
@device_option
def verify_logits(
    logits: Path,
    shards: Path | str,
    config_name: str,
    teacher: Path | None,
    sample: int,
    seed: int,
    settings: dict[str, Any],
    as_json: bool,
    device: str,
) -> None:
    """Check stored logits.

    Checks every digest, and computes the logits of random steps again.

    Example: distill verify-logits logits/ --shards shards/ --config fast-cifar --teacher resnet56.safetensors
    """
    from distill.commands.make_logits import check_stored  # noqa: PLC0415
    from distill.commands.make_logits import verify_logits as run_verify_logits  # noqa: PLC0415
    from distill.runtime.context import RunContext  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415

    config = run_config(config_name, settings, teacher=teacher)
    context = RunContext(device=pick_device(device))
    folder = fetched(shards, lambda: check_stored(config, logits))
    check = run_verify_logits(config, logits, folder, context, sample=sample, seed=seed)
    if as_json:
        click.echo(json.dumps(check))
        return
    click.echo(
        f"{logits}: every digest as promised; over {counted(int(check['steps']), 'step')} computed again, a logit "
        f"differs by at most {check['largest_difference']:.5f} (their deviation is {check['deviation']:.3f}), "
        f"{check['same_class']:.2f} % of the likeliest classes are the same"
    )
