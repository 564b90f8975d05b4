"""The commands ``make-logits`` and ``verify-logits``."""

import json
from pathlib import Path
from typing import Any

import click

from distill.cli import options
from manifests.support.counts import counted
from manifests.support.numbers import Count


@click.command("make-logits")
@options.distillation_options
@options.eval_option
@click.option("--out", required=True, type=options.FILE, help="Folder of the logits; run again to continue.")
def store_logits(
    shards: Path | str, teacher: Path | None, eval_data: dict[str, Any], out: Path, **shared: Any
) -> None:
    """Store a teacher's logits for a whole run.

    Students of any seed can then learn from the stored logits without the teacher.

    Example: distill make-logits --shards shards/ --config fast-cifar --teacher resnet56.safetensors --out logits/
    """
    from distill.commands import make_logits, train  # noqa: PLC0415
    from distill.config.schema import Config  # noqa: PLC0415

    files = {"teacher.weights": teacher} | eval_data
    _, config, context = options.parse_run(Config, files, shared)
    make_logits.check_folder(out)
    folder = options.download(shards, lambda: train.check_inputs(config))
    manifest = make_logits.make_logits(config, folder, out, context)
    stored = f"{counted(manifest.steps, 'step')} of {counted(manifest.batch_size, 'sample')}"
    click.echo(f"{stored} in {counted(len(manifest.files), 'file')}; train with --teacher-logits {out}")


@click.command()
@click.argument("logits", type=options.FILE)
@options.distillation_options
@click.option("--sample", type=Count(1, 10_000), default=20, show_default=True, help="Number of steps to recompute.")
@click.option("--seed", type=Count(0), default=0, show_default=True, help="Seed of the choice of these steps.")
@options.json_option
def verify_logits(
    logits: Path, shards: Path | str, teacher: Path | None, sample: int, seed: int, as_json: bool, **shared: Any
) -> None:
    """Check stored logits.

    The command checks the digest of every file. It also computes the logits of random steps again.

    Example: distill verify-logits logits/ --shards shards/ --config fast-cifar --teacher resnet56.safetensors
    """
    from distill.commands import make_logits, train  # noqa: PLC0415
    from distill.config.schema import Config  # noqa: PLC0415

    files = {"teacher.weights": teacher, "teacher.logits": logits}
    _, config, context = options.parse_run(Config, files, shared)
    folder = options.download(shards, lambda: train.check_inputs(config))
    check = make_logits.verify_logits(config, logits, folder, context, sample=sample, seed=seed)
    if as_json:
        click.echo(json.dumps(check))
        return
    done, deviation = f"{counted(int(check['steps']), 'step')} computed again", f"{check['deviation']:.3f}"
    differs = f"a logit differs by at most {check['largest_difference']:.5f} (the deviation of logits is {deviation})"
    same = f"the most probable class is the same for {check['same_class']:.2f} % of the images"
    click.echo(f"{logits}: every digest is correct; {done}: {differs}, {same}")
