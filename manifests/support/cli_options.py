"""The command line options that both programs have."""

import os
import sys

import click


def _allow_imports(ctx: click.Context, param: click.Parameter, packages: tuple[str, ...]) -> None:
    """Allow the import of packages. They may be in the current folder, which is the last that Python searches."""
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")):
            raise click.BadParameter(f"{package!r} is not the name of a package or module; give for example mypkg.")
        from manifests.support.user_code import allow_import  # noqa: PLC0415 - few users need it

        allow_import(package)
    if packages and not ctx.resilient_parsing:
        sys.path.append(os.getcwd())  # noqa: PTH109 - as Python writes it


allow_import_option = click.option(
    "--allow-import",
    metavar="PACKAGE",
    multiple=True,
    expose_value=False,
    callback=_allow_imports,
    help="Allow recipes and configs to import code from this package or module.",
)
