"""Define the command line of ``patchgen``. A command imports heavy libraries only after its options are parsed."""

import signal

import click

from manifests.errors import PatchSetError
from manifests.support.console import ProgramGroup, run_program
from patchgen.cli.building import build, extend, pack, rebuild
from patchgen.cli.checking import diff, doctor, info, verify
from patchgen.cli.making import export, preview, recipes, source
from patchgen.errors import PatchgenError


@click.group(cls=ProgramGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="single-image-distillation", prog_name="patchgen")
def cli() -> None:
    """Build bit-exact sets of augmented patches from a single image."""


for command in (build, pack, rebuild, extend, export, verify, diff, info, preview, source, recipes, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command line, and exit with the status of the command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    run_program(cli, "patchgen", (PatchgenError, PatchSetError))
