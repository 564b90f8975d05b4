"""Commands about stored logits: ``make-logits`` and ``verify-logits``."""

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
from manifests.support.console import say
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

    Students then learn from them, and no teacher is run again.

    Example: distill make-logits --shards shards/ --config fast-cifar --teacher resnet56.safetensors --out logits/
    """
    from distill.commands.make_logits import check_inputs, label  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415

    config = run_config(config_name, settings, teacher=teacher, eval_data=eval_data)
    picked = pick_device(device)
    folder = fetched(shards, lambda: check_inputs(config, out))
    manifest = label(config, folder, out, device=picked, say=say)
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

    That is every digest, and random steps computed again by the teacher.

    Example: distill verify-logits logits/ --shards shards/ --config fast-cifar --teacher resnet56.safetensors
    """
    from distill.commands.make_logits import check_stored, verify  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415

    config = run_config(config_name, settings, teacher=teacher)
    picked = pick_device(device)
    folder = fetched(shards, lambda: check_stored(config, logits))
    note = (lambda line: None) if as_json else say
    check = verify(config, logits, folder, sample=sample, seed=seed, device=picked, say=note)
    if as_json:
        click.echo(json.dumps(check.to_dict()))
        return
    click.echo(
        f"{logits}: every digest as promised; over {counted(check.steps, 'step')} computed again, a logit "
        f"differs by at most {check.largest_difference:.5f} (their deviation is {check.deviation:.3f}), "
        f"{check.same_class:.2f} % of the likeliest classes are the same"
    )
