"""Where O2Physics runs: in the current environment, loaded by ``alienv``, or in a container.

All three run ``bash run-chain.sh`` in the folder of the run; a container sees that folder as ``/pidml``. Only the
container's command line holds a path at all, as one argument that no shell reads.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pidml.errors import ConfigError, ToolMissing
from pidml.producer.o2physics_chain import PRODUCER
from pidml.spec.data_sections import Producer

SCRIPT = "run-chain.sh"
ENGINES = ("apptainer", "podman", "docker")
_INSIDE, _TOKEN_INSIDE = "/pidml", "/pidml-token"
_CVMFS = Path("/cvmfs")

Kind = Literal["current", "alienv", "container"]


@dataclass(frozen=True)
class Runtime:
    """A way to run O2Physics on this machine.

    Attributes:
        kind: current environment, ``alienv`` or a container.
        program: path of ``alienv`` or of the container engine; empty for the current environment.
        image: the container's image.
        version: version of O2Physics to load.
        shared_memory: size of ``/dev/shm`` in a container, in B.
        name: name of the container, by which it can be ended.
    """

    kind: Kind
    program: str = ""
    image: str = ""
    version: str = "latest"
    shared_memory: int = 0
    name: str = field(default_factory=lambda: f"pidml-{uuid.uuid4().hex[:12]}")

    @property
    def engine(self) -> str:
        """Name of the container engine."""
        return Path(self.program).name

    def command(
        self, folder: Path, readable: Sequence[Path] = (), environ: Mapping[str, str] = os.environ
    ) -> list[str]:
        """Return the command line that runs the chain prepared in ``folder``; it is to be started there.

        Args:
            folder: holds the script and everything that it reads and writes.
            readable: other folders that the inputs' links lead to; a container gets them too, read-only.
            environ: tells where the GRID token lies, which the tasks need to read from CCDB.
        """
        if self.kind == "current":
            return ["bash", SCRIPT]
        if self.kind == "alienv":
            return [self.program, "setenv", f"O2Physics/{self.version}", "-c", "bash", SCRIPT]
        token = _token(environ)
        mounts = [(folder, Path(_INSIDE), False), *((path, path, True) for path in readable)]
        mounts += [(path, Path(_TOKEN_INSIDE, name), True) for name, path in token.items()]
        mounts += [(_CVMFS, _CVMFS, True)] if _CVMFS.is_dir() else []
        variables = {f"JALIEN_TOKEN_{name.upper()}": f"{_TOKEN_INSIDE}/{name}" for name in token}
        return [*self._start(variables), *_arguments("--mount", [_mount(*each) for each in mounts]), *self._inside()]

    def _start(self, variables: Mapping[str, str]) -> list[str]:
        if self.engine == "apptainer":
            settings = _arguments("--env", [f"{name}={value}" for name, value in variables.items()])
            return [self.program, "exec", "--cleanenv", "--no-home", "--pwd", _INSIDE, *settings]
        user = ["--userns=keep-id", "--security-opt", "label=disable"]
        if self.engine == "docker":
            user = ["--user", f"{os.getuid()}:{os.getgid()}"]
        memory = ["--shm-size", str(self.shared_memory)] if self.shared_memory else []
        settings = _arguments("--env", [f"HOME={_INSIDE}", *(f"{name}={value}" for name, value in variables.items())])
        start = [self.program, "run", "--rm", "--init", "--name", self.name]
        return [*start, *user, *memory, "--workdir", _INSIDE, *settings]

    def _inside(self) -> list[str]:
        return [self.image, "bash", SCRIPT, self.version]

    @property
    def detached(self) -> bool:
        """Whether it is a container whose processes are not our children (:mod:`pidml.producer.containers`)."""
        return self.kind == "container" and self.engine != "apptainer"


def resolve(producer: Producer, environ: Mapping[str, str] = os.environ) -> Runtime:
    """Choose how O2Physics runs here.

    What the job leaves open is taken from ``PIDML_O2PHYSICS_RUNTIME``, ``PIDML_O2PHYSICS_IMAGE`` and
    ``PIDML_O2PHYSICS_ENGINE``; what is still open is found out: the current environment if it has the programs, else
    ``alienv``, else a container if an image is named.

    Raises:
        ToolMissing: the program that is asked for, or any at all, is not installed.
        ConfigError: a variable holds something else than what is allowed, or a container has no image.
    """
    path = environ.get("PATH")
    kind: str = producer.runtime
    if kind == "auto":
        kind = _choice(environ, "PIDML_O2PHYSICS_RUNTIME", ("auto", "current", "alienv", "container"))
    image = producer.container_image or environ.get("PIDML_O2PHYSICS_IMAGE", "").strip()
    if kind == "auto":
        kind = _found(path, image)
    if kind == "current":
        if shutil.which(PRODUCER, path=path) is None:
            raise ToolMissing(
                f"producer.runtime: current, but {PRODUCER} is not on PATH",
                "enter O2Physics first (alienv enter O2Physics/latest), or choose runtime: alienv or container",
            )
        return Runtime("current", version=producer.o2physics_version)
    if kind == "alienv":
        program = shutil.which("alienv", path=path)
        if program is None:
            raise ToolMissing(
                "producer.runtime: alienv, but alienv is not on PATH",
                "put it there (on CVMFS: /cvmfs/alice.cern.ch/bin), or choose runtime: container",
            )
        return Runtime("alienv", program, version=producer.o2physics_version)
    return _container(producer, image, environ)


def _container(producer: Producer, image: str, environ: Mapping[str, str]) -> Runtime:
    if not image or image.startswith("-"):
        raise ConfigError(
            "O2Physics is to run in a container, but no image is named",
            "set producer.container_image in the job, or PIDML_O2PHYSICS_IMAGE",
        )
    engine: str = producer.container_engine
    if engine == "auto":
        engine = _choice(environ, "PIDML_O2PHYSICS_ENGINE", ("auto", *ENGINES))
    wanted = ENGINES if engine == "auto" else (engine,)
    for name in wanted:
        program = shutil.which(name, path=environ.get("PATH"))
        if program is not None:
            memory = producer.shm_segment_size if producer.chain == "current" else 0
            return Runtime("container", program, image, producer.o2physics_version, memory)
    raise ToolMissing(
        f"O2Physics is to run in a container, but {' or '.join(wanted)} is not installed",
        "install one, or choose another producer.container_engine or runtime",
    )


def _found(path: str | None, image: str) -> Kind:
    if shutil.which(PRODUCER, path=path) is not None:
        return "current"
    if shutil.which("alienv", path=path) is not None:
        return "alienv"
    if image:
        return "container"
    raise ToolMissing(
        f"O2Physics was not found: neither {PRODUCER} nor alienv is on PATH, and no container image is named",
        "enter O2Physics, or name an image in producer.container_image or PIDML_O2PHYSICS_IMAGE; "
        "or use producer.backend: native",
    )


def _choice(environ: Mapping[str, str], name: str, allowed: Sequence[str]) -> str:
    value = environ.get(name, "").strip() or "auto"
    if value not in allowed:
        raise ConfigError(f"{name} = {value[:80]!r}", f"allowed: {', '.join(allowed)}")
    return value


def _token(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the files of the GRID token, if there are: where the environment says, else where alienpy keeps them."""
    temporary = environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the place that alienpy uses
    found = {}
    for name in ("cert", "key"):
        default = f"{temporary}/token{name}_{os.getuid()}.pem"
        found[name] = Path(environ.get(f"JALIEN_TOKEN_{name.upper()}") or default)
    return found if all(path.is_file() for path in found.values()) else {}


def _mount(source: Path, destination: Path, read_only: bool) -> str:
    """Return the value of ``--mount``, which all engines read as a line of CSV.

    >>> _mount(Path("/a,b"), Path("/pidml"), True)
    'type=bind,"source=/a,b",destination=/pidml,ro'
    """
    text = io.StringIO()
    fields = ["type=bind", f"source={source}", f"destination={destination}", *(["ro"] if read_only else [])]
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def _arguments(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
