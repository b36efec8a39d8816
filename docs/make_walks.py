"""Write the walks in ARCHITECTURE.md: the files that an experiment passes through ``train``, and a
run through ``fork`` and ``report``, as seen while tiny ones pass.

python docs/make_walks.py
"""

import sys
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from mi_jax import Experiment, fork, measure, train
from mi_jax.interventions import Freeze
from mi_jax.models import Transformer
from mi_jax.report.study import report
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import log_spaced

_ROOT = Path(__file__).parents[1]
_PACKAGE = str(_ROOT / "mi_jax") + "/"
_BEGIN, _END = "<!-- walks: made by docs/make_walks.py -->", "<!-- end of walks -->"
_BASICS = ("basics/", "contracts/")

TINY = Experiment(
    task=ModularArithmetic(p=11, fraction=0.6),
    model=Transformer(d_model=16, heads=2, d_mlp=32),
    steps=60,
    schedule=log_spaced(8),
    name="tiny",
)


def walk(work: Callable[[], Any], travellers: list[Any]) -> list[str]:
    """The files that objects are handed to while ``work`` runs, in order.

    A file is listed each time that a call from another file hands one of the objects over, as an
    argument or by one of its methods; several such calls in a row count once, and so do reads of
    attributes, which are no calls. Rooms that every other room uses are left out.

    Args:
        work: what to run.
        travellers: the objects that are followed.
    """
    files: list[str] = []

    def listen(frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(_PACKAGE) or frame.f_back is None:
            return
        inner, caller = file.removeprefix(_PACKAGE), frame.f_back.f_code.co_filename
        if caller == file or inner.startswith(_BASICS) or not _hands_over(frame, travellers):
            return
        if not files or files[-1] != inner:
            files.append(inner)

    sys.setprofile(listen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return files


def _hands_over(frame: FrameType, travellers: list[Any]) -> bool:
    """Whether a call has one of the objects among its arguments, and is no read of an attribute."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for name in names:
        value = frame.f_locals.get(name)
        if any(value is one for one in travellers):
            attribute = getattr(type(value), code.co_name, None)
            read = isinstance(attribute, property | cached_property) or code.co_name[:2] == "__"
            return not (read and name == names[0])
    return False


def walks() -> dict[str, list[str]]:
    """By call, the files passed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        trained = walk(lambda: train(TINY, out / "run"), [TINY])
        run = train(TINY, out / "run")
        freeze = Freeze("embed.W_E")
        forked = walk(
            lambda: fork(run, step=30, interventions=[freeze], out=out / "fork"),
            [run, *run.trajectories],
        )
        measure(run)
        reported = walk(lambda: report(run), [run])
    return {"train(experiment)": trained, "fork(run, ...)": forked, "report(run)": reported}


def table(passed: dict[str, list[str]]) -> str:
    """The walks as Markdown."""
    rows = [
        f"| `{call}` | {', '.join(f'`{file}`' for file in files)} |"
        for call, files in passed.items()
    ]
    return "\n".join(["| call | files, in order |", "|---|---|", *rows])


def page(passed: dict[str, list[str]]) -> str:
    """ARCHITECTURE.md with the walks in their place."""
    text = (_ROOT / "ARCHITECTURE.md").read_text()
    before, rest = text.split(_BEGIN)
    return f"{before}{_BEGIN}\n\n{table(passed)}\n\n{_END}{rest.split(_END)[1]}"


if __name__ == "__main__":
    (_ROOT / "ARCHITECTURE.md").write_text(page(walks()))
