"""Container images: the product's by its Containerfile, and the two a cluster needs for itself.

Built by buildah, without a daemon and without a registry; the base is a small Debian with Python,
made from its packages; the product is built in another one, with a C compiler. Each is built once
per state of what goes into it, and lies in the cache as an archive that containerd imports. It
pushes nothing anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nexus_devtools.controlplane.paths import REPOSITORY
from nexus_devtools.controlplane.progress import Progress
from nexus_devtools.node.commands import run
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import cache_folder
from nexus_devtools.node.programs import COREDNS, PAUSE, built

PAUSE_IMAGE = "localhost/pause:dev"
COREDNS_IMAGE = "localhost/coredns:dev"
BASE_IMAGE = "localhost/base:dev"
BUILDER_IMAGE = "localhost/builder:dev"
PRODUCT = ("nexus-operator", "nexus-proxy")
SOURCES = ("crds", "quality", "operator", "proxy")
COMPILER = "devtools/nexus_devtools/compiled.py"
INPUTS = ("Containerfile", "pyproject.toml", "README.md", "requirements", COMPILER)
WHEELS = ("compile", "operator", "proxy")
KEPT_ARCHIVES = 3
BASE_SUITE = "bookworm"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
BUILDER_PACKAGES = f"{BASE_PACKAGES},libpython3-dev,gcc,libc6-dev"
# Documents, sanitizers, Python as an archive: each layer of a build is a copy of all there is.
LEFT_OUT = (
    *("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"),
    *("*/libpython3*.a", "*/gcc/*/lto1", "*/gcc/*/g++-mapper-server", "/usr/lib/*san.so*"),
)


def archives() -> dict[str, Path]:
    """Every image by its name, built first where it is not there yet."""
    made = {
        PAUSE_IMAGE: _scratch(PAUSE_IMAGE, built(PAUSE) / "pause"),
        COREDNS_IMAGE: _scratch(COREDNS_IMAGE, built(COREDNS) / "coredns"),
    }
    return made | product_archives()


def product_archives() -> dict[str, Path]:
    """`nexus-operator` and `nexus-proxy` of the sources as they are, by the Containerfile; with an
    empty COMPILED in the environment uncompiled, which is soon done.
    """
    compiled = os.environ.get("COMPILED", "1")
    key = _digest(_files(*INPUTS, *SOURCES)) + ("" if compiled else "-pure")
    folder = cache_folder() / "images"
    wanted = {_tag(name): folder / f"{name}-{key}.tar" for name in PRODUCT}
    if not all(archive.exists() for archive in wanted.values()):
        bases = base_archive(), _debian_archive("builder", BUILDER_IMAGE, BUILDER_PACKAGES)
        with (
            tempfile.TemporaryDirectory(prefix="nexus-image-") as scratch,
            Progress(f"building the images {' and '.join(PRODUCT)}", announce=True),
        ):
            context = _context(Path(scratch))
            for base in bases:
                _buildah("pull", "--quiet", f"oci-archive:{base}")
            for name in PRODUCT:
                build = functools.partial(_product, name, context, compiled)
                _cached(f"{name}-{key}", build)
            # Not sooner: the second takes the layers of the first.
            _buildah("rmi", "--prune", "--force")
    return wanted


def said(archive: Path, *command: str) -> str:
    """What a command in an image prints."""
    container = _buildah("from", "--quiet", f"oci-archive:{archive}").strip()
    try:
        return _buildah("run", container, "--", *command)
    finally:
        _buildah("rm", container)


def _product(name: str, context: Path, compiled: str, archive: Path) -> None:
    # With layers the second target finds what the first has built.
    given = (f"BASE={BASE_IMAGE}", f"BUILDER={BUILDER_IMAGE}", "OFFLINE=1", f"COMPILED={compiled}")
    arguments = ("--layers", *(f"--build-arg={each}" for each in given))
    _buildah("build", "--quiet", "--target", name, *arguments, "-t", _tag(name), str(context))
    _buildah("push", "--quiet", _tag(name), f"oci-archive:{archive}:{_tag(name)}")
    _forget_old(name, archive.parent)


def _forget_old(name: str, folder: Path) -> None:
    """What was built of other sources would fill the disk."""
    archives = sorted(folder.glob(f"{name}-*.tar"), key=lambda file: -file.stat().st_mtime)
    for old in archives[KEPT_ARCHIVES:]:
        old.unlink(missing_ok=True)


def _tag(name: str) -> str:
    return f"docker.io/library/{name}:latest"


def _context(folder: Path) -> Path:
    """What the Containerfile copies, and the wheels it would otherwise download."""
    for name in (*INPUTS, *SOURCES):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    for extra in WHEELS:
        options = ("--require-hashes", "--only-binary=:all:", "--dest", folder / "wheels")
        run(*pip, "download", *options, "-r", folder / "requirements" / f"{extra}.txt")
    return folder


def base_archive() -> Path:
    """The small Debian with Python that the others stand on."""
    return _debian_archive("base", BASE_IMAGE, BASE_PACKAGES)


def _debian_archive(name: str, tag: str, packages: str) -> Path:
    key = hashlib.sha256(f"{BASE_SUITE}{packages}".encode()).hexdigest()[:16]
    return _cached(f"{name}-{key}", functools.partial(_debian, tag, packages))


def _debian(tag: str, packages: str, archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="nexus-base-") as scratch:
        root = Path(scratch) / "root.tar"
        with Progress(f"making {tag} from Debian packages (once)", announce=True):
            options = ("--quiet", "--variant=minbase", f"--include={packages}")
            lean = [f"--dpkgopt=path-exclude={each}" for each in LEFT_OUT]
            run("mmdebstrap", *options, *lean, BASE_SUITE, root)
        _commit(tag, archive, (str(root), "/"), ())


def _scratch(tag: str, program: Path) -> Path:
    name = program.name
    return _cached(
        f"{name}-{_digest([program])}",
        lambda archive: _commit(tag, archive, (str(program), f"/{name}"), (f"/{name}",)),
    )


def _commit(tag: str, archive: Path, copied: tuple[str, str], entrypoint: Sequence[str]) -> None:
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, *copied)
    if entrypoint:
        listed = ",".join(f'"{each}"' for each in entrypoint)
        _buildah("config", "--entrypoint", f"[{listed}]", container)
    _buildah("commit", "--quiet", "--rm", container, f"oci-archive:{archive}:{tag}")


def _cached(name: str, build: Callable[[Path], None]) -> Path:
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}.tar"
    if not archive.exists():
        fresh = folder / f".{name}.{os.getpid()}.tar"
        try:
            build(fresh)
            fresh.rename(archive)
        finally:
            fresh.unlink(missing_ok=True)
    return archive


def _buildah(*arguments: str) -> str:
    storage = cache_folder() / "containers"
    command = ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run")]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise NodeError(f"buildah {arguments[0]}: {last}")
    return done.stdout


def _files(*names: str) -> list[Path]:
    found = []
    for name in names:
        place = REPOSITORY / name
        found += [place] if place.is_file() else sorted(place.rglob("*"))
    return [file for file in found if file.is_file() and "__pycache__" not in file.parts]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file.name
        digest.update(f"{name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
