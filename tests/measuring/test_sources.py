"""A stored reading belongs to the code that made it: what its key follows, and what is refused."""

import functools
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import SEGMENTED

from mi_jax.basics.errors import MeasureError
from mi_jax.contracts import Context, Measure
from mi_jax.measuring import sources
from mi_jax.measuring.files import load_dataset, write_dataset
from mi_jax.measuring.registry import EXPENSIVE, READINGS
from mi_jax.measuring.sources import code_digest, code_of, text_digest
from mi_jax.runs.run import Run, open_run
from mi_jax.runs.train import train

_PACKAGE = Path(sources.__file__).parents[1]


@pytest.fixture
def run(segmented: Path, tmp_path: Path) -> Run:
    """A run without readings."""
    shutil.copytree(segmented, tmp_path / "run", ignore=shutil.ignore_patterns("measures"))
    return open_run(tmp_path / "run")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's source, which keys are taken from, to edit."""
    copied = tmp_path / "mi_jax"
    shutil.copytree(_PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "_PACKAGE", copied)
    return copied


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# --- Code of the package ---


def test_a_reading_by_code_that_changed_since_is_left_out_with_a_sentence(
    run: Run, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.measure(["gini_unembedding", "train_loss"])
    _edit(package / "measures" / "fourier.py", "def gini(", "def gini_coefficient(")
    with caplog.at_level(logging.WARNING):
        stored = run.measures
    assert set(stored.data_vars) == {"train_loss"}
    assert "gini_unembedding of " in stored.attrs["left_out"]
    assert "is left out. The weights, the code" in caplog.text
    run.measure(["gini_unembedding"])
    assert set(run.measures.data_vars) == {"train_loss", "gini_unembedding"}
    assert "left_out" not in run.measures.attrs


def test_readings_of_an_earlier_version_never_stand_beside_others(run: Run) -> None:
    """They say nothing of what they depend on."""
    values = run.measure(["gini_unembedding", "train_loss"])["train_loss"].values
    for file in (run.path / "measures").glob("*.nc"):
        dataset = load_dataset(file)
        del dataset.attrs["recipe"]
        dataset.attrs["key"] = "of another kind"
        write_dataset(file, dataset)
    earlier = run.measures
    assert set(earlier.data_vars) == {"gini_unembedding", "train_loss"}
    assert "of an earlier version of mi_jax" in earlier.attrs["earlier_version"]
    again = run.measure(["train_loss"])["train_loss"].values
    np.testing.assert_array_equal(again, values)
    assert set(run.measures.data_vars) == {"train_loss"}
    assert "gini_unembedding of " in run.measures.attrs["left_out"]


@pytest.mark.parametrize(
    "file",
    [
        "measures/behaviour.py",
        "measures/evaluation.py",
        "models/mlp.py",
        "tasks/algebra.py",
        "tasks/splits.py",
        "training/losses.py",
        "measuring/program.py",
        "basics/streams.py",
    ],
)
def test_a_reading_follows_the_code_that_it_depends_on(package: Path, file: str) -> None:
    subject, measure = SEGMENTED.subject(), READINGS["test_loss"]
    before = code_digest(subject, measure)
    (package / file).write_text((package / file).read_text() + "\nCHANGED = 1\n")
    assert code_digest(subject, measure) != before


@pytest.mark.parametrize(
    "file", ["report/page.py", "models/transformer/forward.py", "measures/heads.py", "cli/main.py"]
)
def test_a_reading_does_not_follow_other_code(package: Path, file: str) -> None:
    subject, measure = SEGMENTED.subject(), READINGS["test_loss"]
    before = code_digest(subject, measure)
    (package / file).write_text((package / file).read_text() + "\nCHANGED = 1\n")
    assert code_digest(subject, measure) == before


def test_comments_docstrings_and_layout_change_nothing(package: Path) -> None:
    subject, measure = SEGMENTED.subject(), READINGS["test_loss"]
    before = code_digest(subject, measure)
    file = package / "measures" / "behaviour.py"
    _edit(file, '"""', '"""Another text. ')
    file.write_text(file.read_text() + "\n\n# A comment.\n")
    assert code_digest(subject, measure) == before


def test_every_measure_of_the_package_follows_its_own_module(package: Path) -> None:
    subject = SEGMENTED.subject()
    for measure in (*READINGS.values(), *EXPENSIVE.values()):
        code = code_of(subject, None, measure)
        assert code.values is not None, measure.name
        module = getattr(measure.function, "__module__", "")
        assert module in code.modules, measure.name
        assert text_digest(code.modules, code.files) is not None, measure.name


def test_other_versions_are_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, measure = SEGMENTED.subject(), READINGS["test_loss"]
    before = code_digest(subject, measure)
    for package in ("jax", "jaxlib", "numpy"):
        version = sources.metadata.version
        with monkeypatch.context() as patch:
            patch.setattr(
                sources.metadata,
                "version",
                lambda name, p=package, v=version: "0" if name == p else v(name),
            )
            assert code_digest(subject, measure) != before


def test_text_alone_gives_the_key_of_a_stored_reading() -> None:
    """What a stored reading is checked by needs neither jax nor the user's modules."""
    modules = code_of(SEGMENTED.subject(), None, READINGS["test_loss"]).modules
    imported = set(sys.modules)
    assert text_digest(modules, ()) is not None
    assert set(sys.modules) == imported


# --- Code of users ---


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """A function that writes modules by name, and imports the first one afresh."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = set[str]()
    stamps = iter(range(10**9, 2 * 10**9, 10))

    def load_modules(**texts: str) -> ModuleType:
        for name, text in texts.items():
            (folder / f"{name}.py").write_text(text)
            stamp = next(stamps)
            os.utime(folder / f"{name}.py", (stamp, stamp))
            names.add(name)
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(next(iter(texts)))

    yield load_modules
    for name in names:
        sys.modules.pop(name, None)


_USE = """from helpers_b import stat
def own(params, context):
    return stat(params["unembed"]["W_U"])
"""


def _last(run: Run, function: Any, name: str = "own") -> np.ndarray:
    return run.measure([function])[name].values[:, -1]


def test_a_helper_that_changed_is_read_again(run: Run, load: Callable[..., ModuleType]) -> None:
    helper = "def stat(W):\n    return W.{}()\n"
    largest = _last(run, load(use_a=_USE, helpers_b=helper.format("max")).own)
    module = load(use_a=_USE, helpers_b=helper.format("min"))
    assert set(run.measures.data_vars) == set()  # stale before it is read again
    smallest = _last(run, module.own)
    assert (smallest < 0).all()
    assert (largest > 0).all()
    assert set(run.measures.data_vars) == {"own"}


def test_a_helper_of_a_helper_that_changed_is_read_again(
    run: Run, load: Callable[..., ModuleType]
) -> None:
    middle, deep = (
        "import deep\ndef stat(W):\n    return deep.stat(W)\n",
        "def stat(W):\n    return W.{}()\n",
    )
    values = [
        _last(run, load(use_a=_USE, helpers_b=middle, deep=deep.format(name)).own)
        for name in ("max", "min")
    ]
    assert (values[0] > values[1]).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [("2.0", "3.0"), ("np.array([2.0])", "np.array([3.0])"), ("Two(2.0)", "Two(3.0)")],
)
def test_a_global_that_changed_is_read_again(
    run: Run, load: Callable[..., ModuleType], one: str, other: str
) -> None:
    module = load(
        use_a="import numpy as np\nfrom dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Two:\n    value: float\n"
        f"scale = {one}\n"
        "def own(params, context):\n"
        "    factor = getattr(scale, 'value', scale) * np.ones(1)\n"
        "    return factor[0] * params['unembed']['W_U'].max()\n"
    )
    first = _last(run, module.own)
    vars(module)["scale"] = eval(other, vars(module))
    np.testing.assert_allclose(_last(run, module.own), 1.5 * first, rtol=1e-6)


@pytest.mark.parametrize("one", ["[2.0]", "{'value': 2.0}", "np.array([2.0])"])
def test_an_attribute_of_a_users_class_that_changed_is_read_again(
    run: Run, load: Callable[..., ModuleType], one: str
) -> None:
    index = "'value'" if "value" in one else "0"
    module = load(
        use_a=f"import numpy as np\nclass Held:\n    scale = {one}\n"
        f"def own(params, context):\n"
        f"    return Held.scale[{index}] * params['unembed']['W_U'].max()\n"
    )
    first = _last(run, module.own)
    module.Held.scale = eval(one.replace("2.0", "3.0"), vars(module))
    np.testing.assert_allclose(_last(run, module.own), 1.5 * first, rtol=1e-6)


def test_a_global_that_names_another_value_is_read_again(
    run: Run, load: Callable[..., ModuleType]
) -> None:
    module = load(
        use_a="A, B = (2.0,), (3.0,)\nC = A\n"
        "def own(params, context):\n    (A, B)\n    return C[0] * params['unembed']['W_U'].max()\n"
    )
    first = _last(run, module.own)
    vars(module)["C"] = module.B
    np.testing.assert_allclose(_last(run, module.own), 1.5 * first, rtol=1e-6)


_SCALED = """from dataclasses import dataclass, replace
from mi_jax.models import MLP
SCALE = 1.0
@dataclass(frozen=True)
class Scaled(MLP):
    def build(self, inputs):
        model = super().build(inputs)
        def apply(params, tokens, **options):
            return SCALE * model.apply(params, tokens, **options)
        return replace(model, apply=apply, routes={})
"""


def test_a_global_of_a_users_model_that_changed_is_read_again(
    tmp_path: Path, load: Callable[..., ModuleType]
) -> None:
    module = load(scaled=_SCALED)
    path = train(replace(SEGMENTED, model=module.Scaled(width=8)), tmp_path / "scaled").path
    first = open_run(path).measure(["test_loss"])["test_loss"].values
    assert open_run(path).measures["test_loss"].values.tobytes() == first.tobytes()
    vars(module)["SCALE"] = -3.0
    run = open_run(path)
    changed = run.measure(["test_loss"])["test_loss"].values
    assert (changed != first).all()
    np.testing.assert_array_equal(changed, run.read(["test_loss"], run.steps)["test_loss"].values)


def test_a_helper_of_the_package_is_followed(run: Run, load: Callable[..., ModuleType]) -> None:
    module = load(
        use_a="from mi_jax.measures.evaluation import table_neurons\n"
        "def own(params, context):\n    return table_neurons(params, context).max()\n"
    )
    code = code_of(run.subject, None, Measure("own", module.own))
    assert "mi_jax.measures.evaluation" in code.modules


def test_a_comment_in_a_users_file_changes_nothing(
    run: Run, load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = "def stat(W):\n    return W.max()\n"
    first = _last(run, load(use_a=_USE, helpers_b=helper).own)
    module = load(use_a=f"# A comment.\n\n{_USE}", helpers_b=f'"""A docstring."""\n{helper}')
    assert set(run.measures.data_vars) == {"own"}

    def read(*arguments: Any) -> Any:
        raise AssertionError("snapshots were read again")

    monkeypatch.setattr("mi_jax.measuring.program.Reader.read", read)
    np.testing.assert_array_equal(_last(run, module.own), first)


class _Scaled:
    """A callable object: its contents cannot be told from another's."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, params: Any, context: Context) -> Any:
        return self.factor * params["unembed"]["W_U"].max()


def _scaled_by(factor: float, params: Any, context: Context) -> Any:
    return factor * params["unembed"]["W_U"].max()


def _closure(factor: float) -> Any:
    def own(params: Any, context: Context) -> Any:
        return factor * params["unembed"]["W_U"].max()

    return own


@pytest.mark.parametrize(
    "make",
    [
        _Scaled,
        _closure,
        lambda factor: functools.partial(_scaled_by, factor),
        lambda factor: lambda params, context: factor * params["unembed"]["W_U"].max(),
    ],
    ids=["object", "closure", "partial", "lambda"],
)
def test_what_cannot_be_followed_is_always_read_again(run: Run, make: Any) -> None:
    assert code_digest(run.subject, Measure("own", make(1.0))) is None
    values = [_last(run, Measure("own", make(factor))) for factor in (1.0, 2.0)]
    np.testing.assert_array_equal(values[1], 2 * values[0])


# --- Names ---


@pytest.mark.parametrize("name", ["test_loss", "key_frequencies", "sharpness", "test_accuracy"])
def test_a_name_of_the_package_is_refused(run: Run, name: str) -> None:
    before = run.measure(["test_loss"])["test_loss"].values
    own = _closure(1.0)
    for measure in (Measure(name, own), Measure("own", own, {name: ()})):
        with pytest.raises(
            MeasureError, match=rf"{name} is a measure of mi_jax.*Name yours otherwise"
        ):
            run.measure([measure])
    np.testing.assert_array_equal(run.measures["test_loss"], before)


def test_a_reading_that_is_not_stored_may_have_a_name_of_the_package(run: Run) -> None:
    before = run.measure(["test_loss"])["test_loss"].values
    read = run.read([Measure("test_loss", _closure(1.0))], [int(run.steps[-1])])
    assert not np.array_equal(read["test_loss"].values[:, 0], before[:, -1])
    np.testing.assert_array_equal(run.measures["test_loss"], before)


def test_another_measure_of_the_package_under_a_name_of_the_package_is_refused(run: Run) -> None:
    with pytest.raises(MeasureError, match="test_loss is a measure of mi_jax"):
        run.measure([Measure("test_loss", READINGS["train_loss"].function)])
    same = READINGS["test_loss"]
    assert "test_loss" in run.measure([Measure(**vars(same))])


@pytest.mark.parametrize(
    "function", [lambda params, context: 0, functools.partial(_scaled_by, 2.0), _Scaled(1.0)]
)
def test_a_measure_without_a_name_of_its_own_is_refused(run: Run, function: Any) -> None:
    with pytest.raises(MeasureError, match=r"without a name of its own.*Measure\('my_measure'"):
        run.measure([function])


def test_a_function_that_moved_to_another_name_is_no_second_source(
    run: Run, load: Callable[..., ModuleType]
) -> None:
    text = "def {}(params, context):\n    return params['unembed']['W_U'].max()\n"
    _last(run, Measure("own", load(use_a=text.format("before")).before))
    _last(run, Measure("own", load(use_a=text.format("after")).after))
    both = load(use_a=text.format("before") + text.format("after"))
    with pytest.raises(MeasureError, match="Two functions have the name own"):
        _last(run, Measure("own", both.before))
