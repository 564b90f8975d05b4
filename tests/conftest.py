"""Shared fixtures: a synthetic photo, a small set of the photo, functions that call the programs, an S3 server."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import hypothesis
import numpy as np
import pytest

import distill.cli
import patchgen.cli

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is slow
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write golden files instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the files with the longest tests to the front, so that parallel processes end at about the same time."""
    items.sort(key=lambda item: item.path.name not in ("test_docs.py", "test_reproduce.py", "test_torchrun.py"))


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-goldens"))


def make_photo(width: int = 160, height: int = 120, seed: int = 0) -> np.ndarray:
    """Return a colorful RGB image (uint8) like a photo: smooth at large scale, rough at small scale."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells, weight in ((3, 0.6), (12, 0.3), (48, 0.15)):
        small = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += weight * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(total, 0, 255).astype(np.uint8)


def write_image(path: Path, rgb: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture(scope="session")
def photo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("photo") / "photo.png", make_photo())


class Result(NamedTuple):
    status: int
    out: str
    err: str


Program = Callable[..., Result]


def _program(
    main: Callable[[], None], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Program:
    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Result(status, *capfd.readouterr())

    return call


@pytest.fixture
def run_patchgen(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    return _program(patchgen.cli.main, "patchgen", monkeypatch, capfd)


@pytest.fixture
def run_distill(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    return _program(distill.cli.main, "distill", monkeypatch, capfd)


@contextlib.contextmanager
def full_output() -> Iterator[None]:
    """Replace stdout in the block by a file on a full disk."""
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full, contextlib.redirect_stdout(full):
        yield


@pytest.fixture(scope="session")
def patchset_path(photo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a set of 200 patches of 32 px in three shards. Tests must not change the set."""
    from patchgen.pipeline.build import build
    from patchgen.pipeline.plan import make_plan
    from patchgen.recipe import load_recipe
    from patchgen.sources.photo import read_photo

    folder = tmp_path_factory.mktemp("set") / "shards"
    photo = read_photo(photo_path)
    recipe = load_recipe("asano2023").with_format("png")
    plan = make_plan(photos=[photo], recipe=recipe, n=200, size=32, seed=0, shard_size=80)
    build(plan, [photo], folder, workers=1)
    return folder


def assert_one_line(result: Result, *parts: str, status: int = 1) -> None:
    """Check that the program ended with ``status`` and wrote one line to stderr that contains every part."""
    assert result.status == status, result
    assert len(result.err.strip().splitlines()) == 1, result.err
    for part in parts:
        assert part in result.err, (part, result.err)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start an S3 server on loopback, and yield its URL."""
    pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of the S3 server with an empty bucket ``lab``. s3fs finds the server in the environment."""
    import boto3
    import s3fs

    settings = {
        "ENDPOINT_URL": s3_server,
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "y",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "*")
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="lab")
    yield client
    for entry in client.list_objects_v2(Bucket="lab").get("Contents", []):
        client.delete_object(Bucket="lab", Key=entry["Key"])
    client.delete_bucket(Bucket="lab")
