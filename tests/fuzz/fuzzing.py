"""Random damage to all that mi_jax reads: command lines, run.json, npz, an experiment's JSON,
readings and sweep.json.

Each case follows from its number alone. It damages a copy of one small run or sweep, runs one
command in it, and looks at four things: the command answers with a sentence and no traceback; it
ends within ``LIMIT_SECONDS``; no module that a file names is imported; and nothing that stood in
the folder is lost or changed.

    python tests/fuzz/fuzzing.py --cases 1000 --commands 50
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LIMIT_SECONDS = 20.0
"""Longest time that a case may take on a machine that does nothing else; see ``_limit``."""
_START_SECONDS = 120.0
"""Longest time that a new worker may take to import everything."""
_WORKER_CASES = 250
"""Cases after which a worker is thrown away for a new one."""
_SENTINEL = "sentinel_of_the_fuzzer"
"""A module in the current folder, which is on the Python path too: importing it writes a file."""

_EXPERIMENT = """
from mi_jax import Experiment
from mi_jax.models import MLP
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW, Storage, at

experiment = Experiment(
    name="tiny",
    task=ModularArithmetic(p=7, fraction=0.5),
    model=MLP(width=8),
    optimizer=AdamW(learning_rate=1e-2, warmup=1),
    steps=8,
    schedule=at(3),
    storage=Storage(states=2),
)
"""

_SETTINGS = tuple(
    f"{part}.{name}" if part else name
    for part, names in {
        "": "steps seeds name precision accept-machine",
        "task": "p fraction split split-seed format batch-size label-noise operation name",
        "model": "width activation depth embedding outputs d-embed init-scale name",
        "optimizer": "learning-rate weight-decay warmup filter.name name",
        "storage": "states snapshots megabytes",
        "schedule": "at",
        "loss": "name",
        "path": "name",
    }.items()
    for name in names.split()
)

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "run": ("--out", "--route", "--seed-mode", "--rule", "--level", "--gap", "--intervention"),
    "train": ("--out", "--route", "--seed-mode", "--intervention", "--allow-module"),
    "sweep": ("--out", "--processes", "--rule", "--level", "--gap"),
    "measure": ("--measures", "--like", "--out", "--reference", "--allow-module"),
    "report": ("--rule", "--level", "--gap", "--allow-module"),
    "info": ("--json",),
    "verify": ("--json",),
    "fork": ("--step", "--steps", "--out", "--intervention"),
    "zoom": ("--around", "--every", "--width", "--out"),
    "compare": ("--measures", "--level", "--gap", "--out"),
    "reproduce": ("--out",),
    "list": ("--json",),
}

_SMALL = ("-1", "0", "1", "2", "3", "5", "7", "0.5", "0,1", "0-2", "1e-3", "1e-2", "1e30")
_LARGE = ("1000000", "1000000000", "2147483647", "9223372036854775807", "1" * 30, "0-999999999")
_STRANGE = (
    "", " ", "nan", "inf", "-inf", "1e400", "None", "True", "0x10", "1_0", "é", "零", "\n", "\t",
    "a" * 300, "1" * 5000, "[" * 2000, "{}", "[]", "()", "..", "/", "/dev/null", "~", "-", "--",
    "tiny.py", "theirs", "sweep", "weights.npz", "precious", "nowhere/at/all", "*", "%s", "{0}",
    f"{_SENTINEL}:Mine", f"{_SENTINEL}", "os:system", "antigravity:x", "builtins:eval", "this:s",
    "__import__('os').system('touch called')", "lambda: 0", "Ablate('hidden.0.post')", "\x00",
    "Freeze('embed_a.W_E', 2, 5)", "Scale('hidden.0.post', nan)", "train_loss", "norm(*",
    "learning_coefficient(draws=10**9)", "probe_accuracy(sites=[])", "\udcff", "🦜", "mlp", "add",
)  # fmt: skip

_JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "é", "\ud800", "a" * 10_000, [], {}, [0], [[]], [None], ["x"],
    {"type": "x"}, {"type": None}, {"type": []}, {"type": f"{_SENTINEL}:Mine"},
    {"type": f"{_SENTINEL}:Writes"}, {"type": "os:system", "command": "touch called"},
    {"type": "antigravity:x"}, {"type": "mi_jax.cli.main:main"}, {"type": "storage"},
    {"type": "modular_arithmetic", "p": 10**9}, {"type": "mlp", "depth": 10**6},
    {"type": "transformer", "layers": 2**63 - 1}, {"type": "every", "n": 0},
    {"type": "every", "n": 1}, {"type": "log_spaced", "n": 10**12}, {"type": "adamw"},
    [0, 1, 2], list(range(2000)), {"a": {"b": {"c": [1, {"d": None}]}}}, "../..", "/etc",
)  # fmt: skip


class Command(NamedTuple):
    """One case: the words after ``mi-jax``, or a function of the library to call."""

    kind: str
    words: tuple[str, ...] = ()
    call: Callable[[], Any] | None = None


class Failure(NamedTuple):
    """A case that did not hold: its number, what is wrong, and the command."""

    case: int
    wrong: str
    command: str


class Result(NamedTuple):
    """The figures of many cases."""

    kinds: Counter[str]
    statuses: Counter[str]
    failures: list[Failure]
    seconds: float


def _limit() -> float:
    """The longest time that a case may take now: longer while others use this machine's cores."""
    return LIMIT_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


# --- The folder that is damaged


def make_base(folder: Path) -> None:
    """Trains the small run and the small sweep that all cases begin from."""
    import numpy as np

    from mi_jax.basics.pytrees import dotted
    from mi_jax.runs.fork import fork
    from mi_jax.runs.library import find
    from mi_jax.runs.sweep import sweep
    from mi_jax.runs.train import train

    folder.mkdir()
    (folder / "tiny.py").write_text(_EXPERIMENT)
    (folder / f"{_SENTINEL}.py").write_text(_sentinel())
    (folder / "precious").mkdir()
    (folder / "precious" / "notes.txt").write_text("Results of a year.")
    experiment = find(str(folder / "tiny.py"))
    run = train(experiment, folder / "theirs")
    run.measure(["train_loss", "test_loss", "train_accuracy", "test_accuracy"])
    fork(run, step=4, out=folder / "forked")
    np.savez(folder / "weights.npz", **dotted(run.params(8, seed=0)))
    (folder / "experiment.json").write_text(json.dumps(experiment.to_json()))
    sweep(experiment, {"optimizer.weight_decay": (0.0, 1.0)}, folder / "sweep", processes=1)


def _sentinel() -> str:
    return (
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from mi_jax.tasks import ModularArithmetic\n"
        'Path("imported").write_text("x")\n'
        "@dataclass(frozen=True)\n"
        "class Mine(ModularArithmetic):\n"
        "    pass\n"
        "class Writes:\n"
        "    def __init__(self, **settings):\n"
        '        Path("called").write_text("x")\n'
    )


def _kept(folder: Path) -> dict[str, str]:
    """The hash of every file that no command may change: not readings, figures, reports, locks."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        passing = {"measures", "figures", "__pycache__"} & set(parts)
        if path.is_file() and not passing and path.name not in (".lock", "report.html"):
            hashes["/".join(parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


# --- Damage


def _value(rng: random.Random, large: bool) -> str:
    pools = [_SMALL, _SMALL, _STRANGE] + ([_LARGE] if large else [])
    return rng.choice(rng.choice(pools))


def _json_damaged(rng: random.Random, record: Any) -> Any:
    """A JSON value with a random place replaced, removed or doubled."""
    places: list[tuple[Any, Any]] = []
    todo = [record]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            places += [(part, key) for key in part]
            todo += part.values()
        elif isinstance(part, list):
            places += [(part, index) for index in range(len(part))]
            todo += part
    if not places:
        return rng.choice(_JSON_VALUES)
    owner, key = rng.choice(places)
    action = rng.random()
    if action < 0.7:
        owner[key] = rng.choice(_JSON_VALUES)
    elif action < 0.85:
        del owner[key]
    elif isinstance(owner, dict):
        owner[rng.choice(["x", "type", "p", "é"])] = owner[key]
    else:
        owner.append(owner[key])
    return record


def _text_damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes that are cut, flipped, doubled or replaced."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 20))
            case 3:
                del data[at:]
            case _:
                data[at : at + 8] = struct.pack("<q", rng.choice((-1, 0, 2**62, 10**10)))
    return bytes(data)


def _damage_record(rng: random.Random, run: Path) -> None:
    """Damages run.json, mostly with right hashes, so that what it says is looked at."""
    from mi_jax.basics.records import digest
    from mi_jax.training.record import forked_hash, identity

    file = run / "run.json"
    if rng.random() < 0.15:
        file.write_bytes(_text_damaged(rng, file.read_bytes()))
        return
    record = json.loads(file.read_text())
    record.pop("digest")
    part = record["experiment"] if rng.random() < 0.6 else record
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _json_damaged(rng, part)
    with contextlib.suppress(Exception):
        own = digest(identity(record["experiment"]))
        parent = record.get("parent")
        record["hash"] = own if parent is None else forked_hash(own, parent)
        for name in ("seeds", "steps"):
            record[name] = record["experiment"][name]
    with contextlib.suppress(Exception):
        record["digest"] = digest(record)
    file.write_text(json.dumps(record))


def _damage_npz(rng: random.Random, file: Path) -> None:
    """Damages an archive of arrays: its bytes, or the header of one of its arrays."""
    if rng.random() < 0.5:
        file.write_bytes(_text_damaged(rng, file.read_bytes()))
        return
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    header = {
        "descr": rng.choice(("<f4", "<i8", "|b1", "|O", "<U3", ">f8", "<c16", "|V9", "x", 3)),
        "fortran_order": rng.choice((True, False, 0, "x")),
        "shape": rng.choice(
            ((2,), (), (-1,), (2**31, 2), (2**62, 4), (True,), ("x",), (1.5,), (0,), (7, 8), 3)
        ),
    }
    if rng.random() < 0.2:
        header.pop(rng.choice(sorted(header)))
    text = repr(header) if rng.random() < 0.8 else rng.choice(("{", "[]", "{}", "x", "(" * 999))
    body = rng.randbytes(rng.choice((0, 8, 224)))
    encoded = text.encode() + (b"\n" if rng.random() < 0.9 else b"")
    size = len(encoded) if rng.random() < 0.9 else rng.choice((0, 65535))
    members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + encoded + body
    if rng.random() < 0.2:
        members[rng.choice(("../out.npy", "x", "é.npy", "a" * 300 + ".npy"))] = b"x"
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(file, "w", kind) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def _damage_netcdf(rng: random.Random, file: Path) -> None:
    """Damages a stored reading: its bytes, its variables, dims or attributes."""
    if rng.random() < 0.6:
        file.write_bytes(_text_damaged(rng, file.read_bytes()))
        return
    import h5py

    with contextlib.suppress(Exception), h5py.File(file, "a") as stored:
        names = list(stored)
        name = rng.choice(names)
        match rng.randrange(5):
            case 0:
                del stored[name]
            case 1:
                attribute = rng.choice([*stored.attrs, "recipe", "key"])
                stored.attrs[attribute] = rng.choice(("", "{}", "[" * 999, 3, "x", [1.0, 2.0]))
            case 2:
                for attribute in list(stored.attrs):
                    del stored.attrs[attribute]
            case 3:
                del stored[name]
                stored[name] = rng.choice(("x", 3, [1, 2], [[1.0]] * 5, []))
            case _:
                stored[rng.choice(("more", "step_", "é"))] = [1.0, float("nan")]


# --- Cases


def _run_command(rng: random.Random, run: str) -> tuple[str, ...]:
    """A command that opens a run; those that take seconds are rare."""
    cheap = (
        ("info", run), ("verify", run), ("info", run, "--json"), ("train", run),
        ("measure", run, "--measures", "train_loss"), ("train", run, "--dry-run"),
        ("fork", run, "--step", "8"), ("zoom", run, "--around", "99"), ("compare", run, run),
        ("measure", "weights.npz", "--like", run, "--measures", "weight_norm"),
        ("train", f"{run}/run.json", "--dry-run"), ("measure", run, "--measures", "sharpness(x=1)"),
    )  # fmt: skip
    dear = (
        ("report", run), ("measure", run), ("fork", run, "--step", "4", "--out", "new"),
        ("zoom", run, "--around", "4", "--out", "new"), ("reproduce", run, "--out", "new"),
        ("compare", "theirs", "forked"), ("sweep", run, "--steps", "3,4", "--processes", "1"),
    )  # fmt: skip
    return rng.choice(dear if rng.random() < 0.04 else cheap)


def _command_line(rng: random.Random) -> tuple[str, ...]:
    verb = rng.choice([*_OPTIONS, "run", "train", "sweep", rng.choice(_STRANGE)])
    target = rng.choice(("tiny.py", "tiny.py", "theirs", "forked", _value(rng, True)))
    words = [verb, target]
    trains = verb in ("run", "train", "fork", "zoom", "reproduce", "sweep")
    dry = verb in ("run", "train") and rng.random() < 0.85
    if verb in ("run", "train", "sweep"):
        for _ in range(rng.randint(0, 3)):
            # What is trained stays small, so that no case is long for a good reason.
            value = _value(rng, large=dry)
            words += [f"--{rng.choice(_SETTINGS)}", value]
    for option in rng.sample(_OPTIONS.get(verb, ()), k=min(2, len(_OPTIONS.get(verb, ())))):
        if rng.random() < 0.4:
            words += [option, _value(rng, large=not trains)]
    if rng.random() < 0.2:
        words.insert(rng.randrange(len(words) + 1), _value(rng, large=dry))
    if dry:
        words.append("--dry-run")
    if rng.random() < 0.3:
        words.append(rng.choice(("--json", "--quiet", "--help", "--allow-other-machine")))
    return tuple(words)


def make_case(number: int, commands_only: bool = False) -> Command:
    """Makes a case in the current folder, which is a copy of the base: damages it.

    Args:
        number: of the case; all that is random follows from it.
        commands_only: give no calls of the library.
    """
    rng = random.Random(number)
    run = rng.choice(("theirs", "theirs", "forked"))
    kind = rng.choices(
        ("words", "run.json", "npz", "experiment", "readings", "sweep.json"), (6, 6, 3, 3, 2, 1)
    )[0]
    if kind == "experiment" and commands_only:
        kind = "words"
    match kind:
        case "words":
            return Command(kind, _command_line(rng))
        case "run.json":
            _damage_record(rng, Path(run))
            return Command(kind, _run_command(rng, run))
        case "npz":
            if rng.random() < 0.3:
                _damage_npz(rng, Path("forked") / "origin.npz")
                return Command(kind, _run_command(rng, "forked"))
            _damage_npz(rng, Path("weights.npz"))
            words = ("measure", "weights.npz", "--like", "theirs", "--measures", "weight_norm")
            return Command(kind, words)
        case "readings":
            files = sorted(Path("theirs", "measures").glob("*.nc"))
            _damage_netcdf(rng, rng.choice(files))
            return Command(kind, _run_command(rng, "theirs"))
        case "sweep.json":
            file = Path("sweep", "sweep.json")
            if rng.random() < 0.5:
                file.write_bytes(_text_damaged(rng, file.read_bytes()))
            else:
                file.write_text(json.dumps(_json_damaged(rng, json.loads(file.read_text()))))
            words = ("sweep", "tiny.py", "--optimizer.weight-decay", "0,1", "--out", "sweep")
            return Command(kind, (*words, "--processes", "1"))
        case _:
            record = json.loads(Path("experiment.json").read_text())
            for _ in range(rng.choice((1, 1, 2))):
                record = _json_damaged(rng, record)
            return Command(kind, call=lambda: _experiment_opened(record))


def _experiment_opened(record: Any) -> None:
    from mi_jax.runs.experiment import Experiment

    experiment = Experiment.from_json(record)
    assert Experiment.from_json(experiment.to_json()) == experiment


def _wrong_afterwards(folder: Path, before: Mapping[str, str]) -> str:
    """What a case broke in its folder; empty if nothing."""
    if _SENTINEL in sys.modules or (folder / "imported").exists():
        return "a module was imported"
    if any((folder / name).exists() for name in ("called", "out.npy")):
        return "code of the run was called"
    now = _kept(folder)
    lost = [name for name, sha256 in before.items() if now.get(name) != sha256]
    # A sweep that is accepted writes its record again.
    lost = [name for name in lost if name != "sweep/sweep.json"]
    return f"lost or changed: {', '.join(lost[:3])}" if lost else ""


def run_case(number: int, base: Path, folder: Path) -> tuple[str, str, str, str]:
    """Runs one case in this process.

    Returns:
        The kind of the case, its status, what is wrong (empty if nothing), and the command.
    """
    from mi_jax.basics.errors import MiJaxError
    from mi_jax.cli.main import main

    shutil.copytree(base, folder)
    os.chdir(folder)
    command = make_case(number)
    before = _kept(folder)
    output = io.StringIO()
    status, wrong = "", ""
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            if command.call is not None:
                command.call()
                status = "0"
            else:
                status = str(main(list(command.words)))
    except MiJaxError as error:
        status = "2"
        if command.call is None or not str(error):
            wrong = traceback.format_exc()
    except SystemExit as stop:
        status = str(stop.code)
    except BaseException:
        wrong = traceback.format_exc()
    if not wrong and status not in ("0", "1", "2", "130"):
        wrong = f"exit status {status}"
    if not wrong and "Traceback (most recent call last)" in output.getvalue():
        wrong = output.getvalue()
    wrong = wrong or _wrong_afterwards(folder, before)
    os.chdir(base)
    shutil.rmtree(folder, ignore_errors=True)
    return command.kind, status, wrong, repr(command.words)


def run_command(number: int, base: Path, folder: Path) -> tuple[str, str, str, str]:
    """Runs one case as a command of its own. Returns as ``run_case``."""
    shutil.copytree(base, folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        command = make_case(number, commands_only=True)
        words = [os.fsencode(word) for word in command.words if "\0" not in word]
    finally:
        os.chdir(here)
    before = _kept(folder)
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{folder}"}
    wrong, status = "", "none"
    for _ in range(2):
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "mi_jax.cli", *words],
                cwd=folder, env=environment, capture_output=True, timeout=_limit(),
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            # Once more, in case the machine was busy.
            wrong = f"longer than {LIMIT_SECONDS:.0f} s"
            continue
        errors = done.stderr.decode(errors="replace")
        status, wrong = str(done.returncode), ""
        if "Traceback (most recent call last)" in errors:
            wrong = errors
        elif done.returncode not in (0, 1, 2, 130):
            wrong = f"exit status {status}: {errors[-300:]}"
        break
    wrong = wrong or _wrong_afterwards(folder, before)
    shutil.rmtree(folder, ignore_errors=True)
    return command.kind, status, wrong, repr(command.words)


# --- Workers that are thrown away


def _work(base: Path, scratch: Path, numbers: Any, answers: Any) -> None:
    """Runs cases one after another, in a process of its own."""
    warnings.simplefilter("ignore")
    sys.path.append(str(base))
    # What a case prints at a level below Python is not for the terminal either.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    import mi_jax.cli.overrides
    import mi_jax.report.study  # noqa: F401

    answers.put(None)
    while (number := numbers.get()) is not None:
        answers.put((number, *run_case(number, base, scratch / str(number))))


class _Worker:
    """A process that runs cases, and is replaced after a hang, a death, or many cases."""

    def __init__(self, base: Path, scratch: Path):
        self._arguments = (base, scratch)
        self._process: Any = None
        self._done = 0

    def run(self, number: int) -> tuple[str, str, str, str]:
        """Runs one case; see ``run_case``."""
        import queue

        if self._process is None or self._done >= _WORKER_CASES:
            self._start()
        process = self._process
        assert process is not None
        self._done += 1
        self._numbers.put(number)
        end = time.monotonic() + _limit()
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=0.5)[1:]
            if not process.is_alive():
                self.stop()
                return "unknown", "none", "the process died", ""
        self.stop()
        return "unknown", "none", f"longer than {LIMIT_SECONDS:.0f} s", ""

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._numbers, self._answers = context.Queue(), context.Queue()
        arguments = (*self._arguments, self._numbers, self._answers)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        self._answers.get(timeout=_START_SECONDS)
        self._done = 0

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def fuzz(
    cases: Iterable[int],
    commands: Iterable[int] = (),
    *,
    seconds: float = float("inf"),
    watch: Callable[[str], None] = lambda line: None,
) -> Result:
    """Runs cases in workers that are thrown away, and commands in processes of their own.

    Args:
        cases: numbers of the cases that run in workers.
        commands: numbers of the cases that run as commands.
        seconds: no case is begun after this time.
        watch: called with a line for each failure, and now and then.

    Returns:
        The figures, and every case that did not hold.
    """
    begin = time.monotonic()
    kinds, statuses = Counter[str](), Counter[str]()
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory() as name:
        base, scratch = Path(name, "base"), Path(name, "cases")
        make_base(base)
        scratch.mkdir()
        worker = _Worker(base, scratch)
        runs: list[tuple[int, Callable[[int], tuple[str, str, str, str]]]] = [
            (number, lambda number: run_command(number, base, scratch / f"c{number}"))
            for number in commands
        ]
        runs += [(number, worker.run) for number in cases]
        try:
            for done, (number, run) in enumerate(runs, 1):
                if time.monotonic() - begin > seconds:
                    break
                kind, status, wrong, command = run(number)
                kinds[kind] += 1
                statuses[status] += 1
                if wrong:
                    failures.append(Failure(number, wrong, command))
                    watch(f"case {number} ({kind}): {command}\n{wrong}")
                if done % 100 == 0:
                    watch(f"{done} cases, {len(failures)} failures")
        finally:
            worker.stop()
    return Result(kinds, statuses, failures, time.monotonic() - begin)


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--commands", type=int, default=0)
    options = parser.parse_args()
    cases = range(options.first, options.first + options.cases)
    commands = range(options.first + 10**6, options.first + 10**6 + options.commands)
    result = fuzz(cases, commands, watch=lambda line: print(line, flush=True))
    print(f"{sum(result.kinds.values())} cases in {result.seconds:.0f} s: {dict(result.kinds)}")
    print(f"exit statuses: {dict(result.statuses)}; failures: {len(result.failures)}")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(_main())
