"""What lies beside a published set's shards and tables, read where it was published."""

import hashlib

from manifests.errors import PatchSetError
from manifests.export.finalize import agree, derived_files, file_digests, longest_exports
from manifests.format.checksums import SUMS_NAME
from manifests.format.schema import Manifest
from manifests.remote.download import read_whole
from manifests.remote.transfers import Channel
from manifests.remote.urls import Place


def prove_exports(place: Place, manifest: Manifest, sums: dict[str, str], channel: Channel) -> None:
    """Read the files for other tools that a published ``SHA256SUMS`` names, and keep none.

    Raises:
        PatchSetError: one cannot be had, has another digest or is not what the manifest gives; or none of a set has
            such a name.
    """
    derived, limits = derived_files(manifest), longest_exports(manifest)
    for name in sorted(sums.keys() - file_digests(manifest, derived=False).keys()):
        if name not in limits:
            raise PatchSetError(
                f"{place.shown(SUMS_NAME)}: names {name}, which is no file of the set; tell whoever published it"
            )
        data = _read(place, name, sums[name], limits[name], channel)
        if name in derived and not agree(data, derived[name]):
            raise PatchSetError(f"{place.shown(name)}: is not what the manifest gives; tell whoever published it")


def _read(place: Place, name: str, sha256: str, limit: int, channel: Channel) -> bytes:
    for again in (False, True):
        data = read_whole(place, name, limit, channel)
        found = hashlib.sha256(data).hexdigest()
        if found == sha256:
            return data
        if not again:
            channel.note(f"{place.shown(name)}: sha256 is {found}; reading it once more")
    raise PatchSetError(
        f"{place.shown(name)}: sha256 is {found}, SHA256SUMS there says {sha256}; tell whoever published it"
    )
