"""The machine that a run was trained on: versions, device, cores and flags, which its bits depend
on.
"""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

# The entries of ``machine()`` that change the bits of a run.
_BITS = ("jax", "jaxlib", "optax", "platform", "device", "cpu", "cores", "xla_flags", "x64")


def machine() -> dict[str, Any]:
    """Versions, device, cores and XLA flags; also the commit, if a repository tracks the source."""
    device = jax.devices()[0]
    commit, dirty = _commit()
    return {
        "mi_jax": _version("mi-jax"),
        "jax": jax.__version__,
        "jaxlib": _version("jaxlib"),
        "optax": _version("optax"),
        "orbax": _version("orbax-checkpoint"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} {device.device_kind}",
        "cpu": _cpu(),
        "cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "commit": commit,
        "dirty": dirty,
    }


def with_packages(here: Mapping[str, Any], packages: Iterable[str]) -> dict[str, Any]:
    """The record of a machine with the versions of packages that a run's model depends on.

    Args:
        here: of ``machine``.
        packages: their names.
    """
    versions = {name: _version(name) for name in packages}
    return {**here, "packages": versions} if versions else dict(here)


def bit_differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Differences between two machines that change the bits of a run, one line each.

    Args:
        there: the machine that the run was trained on.
        here: this machine.
    """
    packages = there.get("packages")
    recorded = packages if isinstance(packages, dict) else {}
    others = {name: here.get("packages", {}).get(name, _version(name)) for name in recorded}
    ours = {**{name: here[name] for name in _BITS}, **others}
    theirs = {**there, **recorded}
    return [
        f"{name}: {theirs.get(name)} there, {value} here"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the repository that tracks this file.

    Returns:
        The commit's hash, and whether tracked files have changes; both None if no repository tracks
        this file.
    """
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def use_compile_cache(folder: str) -> None:
    """Cache compiled programs of this process in a folder.

    The command line calls this; the library never does.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
