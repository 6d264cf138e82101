"""Triton Inference Server from the `nvidia-pytriton` wheel: its binary and Python backend, run in this environment.

The wheel is installed aside (`pip install --no-deps --target DIR`), since as a dependency it would want an old numpy.
Models run in stub processes of this Python, with this environment's packages.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from streams.local.part import Command, PartFailed, ProcessPart
from streams.local.ports import LOOPBACK, HeldPort

HOME_VARIABLE = "FRESHRANK_TRITON_HOME"
WHEEL = "nvidia-pytriton==0.7.0"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SHARED_MEMORY = Path("/dev/shm")
ASK_TIMEOUT_S = 2.0
LOAD_TIMEOUT_S = 60.0


class TritonServer(ProcessPart):
    """One Triton on loopback that serves the named models of a repository; a model folder is read when it is loaded.

    `address` is gRPC's; metrics are at `metrics_url`.
    """

    name = "triton"
    grace_s = 10.0  # above --exit-timeout-secs

    def __init__(self, repository: Path, models: Sequence[str], folder: Path, *, port: int = 0) -> None:
        self._grpc, self._http, self._metrics = HeldPort(port), HeldPort(), HeldPort()
        super().__init__(folder, self._grpc, self._http, self._metrics)
        self.repository = repository.absolute()
        self.models = tuple(models)

    @property
    def http_address(self) -> str:
        """`host:port` of the HTTP API."""
        return self._http.address

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds Triton's own metrics."""
        return f"http://{self._metrics.address}/metrics"

    def load(self, model: str) -> None:
        """Load a model, or load it again from its folder; the old one serves until then. Raises PartFailed."""
        request = urllib.request.Request(f"http://{self.http_address}/v2/repository/models/{model}/load", b"{}")
        try:
            urllib.request.urlopen(request, timeout=LOAD_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            raise PartFailed(f"triton: cannot load {model}: {_reason(error)}") from None
        except OSError as error:
            raise PartFailed(self._with_log(f"triton: cannot load {model}: {error}")) from None

    def stop(self) -> None:
        super().stop()
        self._remove_shared_memory()

    def kill(self) -> None:
        super().kill()
        self._remove_shared_memory()

    def freeze(self) -> None:
        """SIGSTOP to the server alone: it answers nothing. Its stubs must stay awake, since a server that wakes before
        them finds that they gave no sign of life for a second, and dies of letting them go (so does one whose whole
        machine slept: whoever runs it must start it again)."""
        self._running().freeze(group=False)

    def _command(self) -> Command:
        home, libpython = triton_home(), _libpython_folder()
        for model in self.models:
            if not (self.repository / model / "config.pbtxt").is_file():
                raise PartFailed(f"triton: no model {model} in {self.repository} (no {model}/config.pbtxt)")
        server = home / "pytriton" / "tritonserver"
        # fmt: off
        argv = [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={_backends(server, self.folder.absolute())}",
            f"--cache-directory={server / 'caches'}",
            "--model-control-mode=explicit", *(f"--load-model={model}" for model in self.models),
            f"--http-address={LOOPBACK}", f"--http-port={self._http.number}",
            f"--grpc-address={LOOPBACK}", f"--grpc-port={self._grpc.number}",
            f"--metrics-address={LOOPBACK}", f"--metrics-port={self._metrics.number}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            "--exit-timeout-secs=5",
        ]
        # fmt: on
        return Command(tuple(argv), _environment(home, libpython))

    def _answers(self) -> bool:
        """The server is ready only when every model that it was told to load is."""
        try:
            with urllib.request.urlopen(f"http://{self.http_address}/v2/health/ready", timeout=ASK_TIMEOUT_S) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    @property
    def _shared_memory_prefix(self) -> str:
        return f"freshrank-{os.getpid()}-{self._grpc.number}-"

    def _remove_shared_memory(self) -> None:
        """What killed servers leave: our own, and those of processes that died before they could clean up."""
        for region in SHARED_MEMORY.glob("freshrank-*"):
            owner = region.name.split("-")[1]
            if region.name.startswith(self._shared_memory_prefix) or not Path("/proc", owner).exists():
                region.unlink(missing_ok=True)


def triton_home() -> Path:
    """The folder that the wheel was installed to: FRESHRANK_TRITON_HOME or opt/pytriton in this environment."""
    home = Path(os.environ.get(HOME_VARIABLE) or Path(sys.prefix) / "opt" / "pytriton").absolute()
    if not (home / "pytriton" / "tritonserver" / "bin" / "tritonserver").is_file():
        raise PartFailed(
            f"triton: no tritonserver in {home}; install it with: pip install --no-deps --target {home} {WHEEL}"
            f" (or set {HOME_VARIABLE})"
        )
    return home


def _libpython_folder() -> Path:
    """Where the stub finds the shared libpython of the Python that runs this."""
    library = f"libpython{PYTHON}.so.1.0"
    libdir, multiarch = (str(sysconfig.get_config_var(name) or "") for name in ("LIBDIR", "MULTIARCH"))
    for folder in (Path(libdir), Path(libdir, multiarch), Path(sys.base_prefix, "lib")):
        if (folder / library).exists():
            return folder
    raise PartFailed(
        f"triton: this Python ({sys.base_prefix}) has no {library}, which the Python backend needs; on Debian:"
        f" apt-get install libpython{PYTHON}; with pyenv: build it with PYTHON_CONFIGURE_OPTS=--enable-shared"
    )


def _backends(server: Path, folder: Path) -> Path:
    """The wheel's backends with this Python's stub put in its place, copied to the folder once and in one step."""
    backends = folder / "triton-backends"
    if backends.exists():
        return backends
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise PartFailed(f"triton: the wheel has no Python backend for Python {PYTHON}")
    copy = folder / f"triton-backends.{uuid.uuid4().hex}"
    shutil.copytree(server / "backends", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(stub, copy / "python")
    (copy / "python" / stub.name).chmod(0o755)
    try:
        copy.rename(backends)
    except OSError:  # another process was faster, with the same files
        shutil.rmtree(copy)
    return backends


def _environment(home: Path, libpython: Path) -> dict[str, str]:
    inherited = os.environ.get("LD_LIBRARY_PATH")
    libraries = [str(home / "nvidia_pytriton.libs"), str(libpython), *([inherited] if inherited else [])]
    return {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing but models may lie in a repository
    }


def _reason(error: urllib.error.HTTPError) -> str:
    body = error.read()
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"
