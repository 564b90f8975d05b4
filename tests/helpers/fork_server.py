"""Run Python modules in processes of their own that need no time to import torch.

A server process imports the libraries once, and forks for each call. A call has the arguments, the environment and
the current folder of a usual start with ``python -m``.
"""

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

PRELOADED = ("torch._dynamo", "distill.api", "distill.commands.reproduce", "patchgen.pipeline.build")


class ForkServer:
    """Client of the server process, which starts with the first call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, module: str, arguments: list[Any], output: Path, *, folder: Path | None = None, ranks: int = 1
    ) -> int:
        """Run ``module`` as a program and return its exit status, negative for a signal.

        Stdout and stderr are appended to the file ``output``. With several ``ranks``, each process has the
        environment that ``torchrun`` sets. When a process fails, the others are stopped; its status is returned.
        """
        if self._process is None:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {
            "module": module,
            "arguments": [str(each) for each in arguments],
            "output": str(output.absolute()),
            "folder": str((folder or Path.cwd()).absolute()),
            "environments": [{**os.environ, **variables} for variables in _rank_variables(ranks)],
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()  # an ordinary exit prints what the libraries leave behind
            self._process.communicate()


def _rank_variables(ranks: int) -> list[dict[str, str]]:
    """Return the variables that ``torchrun`` sets for each rank; none for one process."""
    if ranks == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), **address}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _run(request: dict[str, Any], environment: dict[str, str]) -> None:
    """Run the module in this forked process as if it were started with ``python -m``."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(source, target)
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _wait(running: list[ForkProcess]) -> int:
    """Wait for all processes, and return the first error status. When a process fails, stop the others."""
    first = 0
    while running:
        wait([process.sentinel for process in running])
        ended = [process for process in running if process.exitcode is not None]
        running = [process for process in running if process not in ended]
        if not first and (first := next((each.exitcode for each in ended if each.exitcode), 0)):
            for other in running:
                other.terminate()
    return first


def _serve() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a forked process would copy all memory
    context = multiprocessing.get_context("fork")
    while line := sys.stdin.readline():
        request = json.loads(line)
        processes = [context.Process(target=_run, args=(request, each)) for each in request["environments"]]
        for process in processes:
            process.start()
        print(_wait(processes), flush=True)


if __name__ == "__main__":
    _serve()
