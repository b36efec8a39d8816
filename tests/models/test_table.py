"""Tests of the first layer on the token table: the plain forward pass in fewer multiply-adds."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import few, tiny_experiment, tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.contracts import Inputs, Model
from mi_jax.models import Transformer, capture
from mi_jax.models.taps import ByPosition
from mi_jax.models.transformer.table import multiply_adds
from mi_jax.runs.run import open_run
from mi_jax.runs.train import train
from mi_jax.tasks import ModularArithmetic
from mi_jax.training.record import write_record
from mi_jax.training.trajectory import Trajectory

_CONSTANT_END = Inputs(
    "tokens", vocabulary=7, positions=4, classes=6, alphabet=((0, 6), (2, 6), (0, 3), (6, 7))
)
_FREE = Inputs("tokens", vocabulary=6, positions=3, classes=6, alphabet=((0, 6), (0, 6), (1, 5)))
_ROUTES = ("plain", "table")
_GRID: list[dict[str, Any]] = [
    {},
    {"layers": 2},
    {"normalization": "layer"},
    {"normalization": "rms", "positions": "rotary", "layers": 2},
    {"positions": "rotary", "attention": "bidirectional"},
    {"positions": "none", "attention_bias": True},
    {"positions": "relative", "layers": 2, "normalization": "layer"},
    {"positions": "relative_keys", "attention": "bidirectional", "attention_bias": True},
    {"attention_rate": 0.3},
    {"attention_rate": 0.0, "attention": "bidirectional", "d_mlp": 0},
    {"heads": 3, "d_head": 4, "attention_scale": 1.7, "mlp_bias": False},
]


def _model(inputs: Inputs, **settings: Any) -> Model:
    return Transformer(**{"d_model": 8, "heads": 2, "d_mlp": 12, **settings}).build(inputs)


def _params(model: Model) -> Any:
    leaves, structure = jax.tree.flatten(model.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return structure.unflatten(
        [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    )


def _tokens(inputs: Inputs, n: int = 20) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(
        np.stack([rng.integers(first, end, n) for first, end in inputs.alphabet], axis=1)
    )


# --- Equal to the plain route


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "positions"),
    [(_CONSTANT_END, (3,)), (_FREE, None), (_FREE, (2, 0))],
    ids=["fixed", "all", "two"],
)
@pytest.mark.parametrize("settings", _GRID, ids=str)
def test_outputs_and_gradients_are_those_of_the_plain_route(
    settings: dict[str, Any], inputs: Inputs, positions: tuple[int, ...] | None
) -> None:
    model, tokens = _model(inputs, **settings), _tokens(inputs)
    params = _params(model)

    plain, table = (
        jax.jit(model.along(route), static_argnames="positions")(
            params, tokens, positions=positions
        )
        for route in _ROUTES
    )
    np.testing.assert_allclose(table, plain, rtol=1e-5, atol=2e-5)
    # In float64, where rounding hides nothing; relative to the largest: keys' biases have none,
    # theirs is of what cancels.
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), params)
        plain, table = (
            jax.jit(jax.grad(_squares(model, route, positions)))(wide, tokens) for route in _ROUTES
        )
    largest = max(float(np.abs(np.asarray(leaf)).max()) for leaf in jax.tree.leaves(plain))
    for ours, theirs in zip(jax.tree.leaves(table), jax.tree.leaves(plain), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13 * largest)


def _squares(model: Model, route: str, positions: tuple[int, ...] | None) -> Any:
    return lambda params, tokens: (
        model.along(route)(params, tokens, positions=positions) ** 2
    ).sum()


_AFTER = [
    "attn.attn_scores",
    "attn.pattern",
    "attn.z",
    "attn.result",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp.post",
    "resid_post",
]


@pytest.mark.slow
def test_captures_after_the_scores_are_those_of_the_plain_route() -> None:
    model, tokens = _model(_CONSTANT_END), _tokens(_CONSTANT_END)
    params, sites = _params(model), [f"blocks.0.{name}" for name in _AFTER]
    (_, plain), (_, table) = (
        capture(model.along(route), sites)(params, tokens, positions=(3,))
        for route in ("plain", "table")
    )
    for site in sites:
        np.testing.assert_allclose(table[site], plain[site], rtol=1e-5, atol=1e-5)
        assert not np.array_equal(table["blocks.0.attn.z"], plain["blocks.0.attn.z"])


@pytest.mark.parametrize(
    "settings",
    few(
        [
            {"layers": 2, "normalization": "layer", "positions": "rotary"},
            {},
            {"positions": "relative"},
        ],
        1,
    ),
    ids=str,
)
def test_a_tap_that_treats_tokens_alone_stays_on_the_table(settings: dict[str, Any]) -> None:
    model, tokens = _model(_CONSTANT_END, **settings), _tokens(_CONSTANT_END)
    params = _params(model)
    places: list[int] = []

    def turned(rows: jax.Array, position: int) -> jax.Array:
        places.append(len(rows))
        return rows[:, ::-1] * (2.0 + position)

    taps = {"embed": ByPosition(turned)}
    plain, table = (
        model.along(route)(params, tokens, taps=taps, positions=(3,))
        for route in ("plain", "table")
    )
    np.testing.assert_allclose(table, plain, rtol=1e-5, atol=1e-5)
    assert not np.allclose(plain, model.along("plain")(params, tokens, positions=(3,)), rtol=1e-2)
    # 20 examples per position, then the table's own rows.
    assert places == [20] * 4 + [6, 4, 3, 1]


@pytest.mark.parametrize(
    "settings",
    few([{}, {"normalization": "rms"}, {"positions": "rotary"}, {"positions": "relative"}], 2),
    ids=str,
)
def test_a_tap_on_anything_before_the_scores_leaves_the_table(settings: dict[str, Any]) -> None:
    model, tokens = _model(_CONSTANT_END, **settings), _tokens(_CONSTANT_END)
    params = _params(model)
    names = [site.name for site in model.sites]
    for name in names[: names.index("blocks.0.attn.attn_scores")]:
        tap = {
            name: (
                (lambda x, W=None: 2.0 * x)
                if "W_" not in name
                else (lambda x, W: jnp.zeros((*x.shape, W.shape[-1])))
            )
        }
        if ".W_" in name and name.startswith("blocks"):
            tap = {name: lambda x, W: jnp.zeros((*x.shape[:2], W.shape[0], W.shape[2]))}
        if name.endswith("W_rel_K"):
            tap = {
                name: (
                    lambda x, W: jnp.arange(x.shape[1] ** 2, dtype=float).reshape(
                        1, 1, x.shape[1], -1
                    )
                )
            }
        plain, table = (
            model.along(route)(params, tokens, taps=tap) for route in ("plain", "table")
        )
        assert np.array_equal(plain, table), name
        assert not np.allclose(plain, model.along("plain")(params, tokens)), name


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_token_outside_its_alphabet_gives_nan_for_its_example_alone(position: int) -> None:
    model, tokens = _model(_CONSTANT_END), _tokens(_CONSTANT_END)
    tokens = tokens.at[5, position].set((6, 0, 4, 1)[position])
    out = np.asarray(model.along("table")(_params(model), tokens, positions=(3,)))
    assert np.isnan(out[5]).all()
    assert np.isfinite(np.delete(out, 5, axis=0)).all()


# --- Which route


def test_multiply_adds_are_counted_by_hand() -> None:
    # 2 x 11 + 1 rows.
    inputs = ModularArithmetic(p=11).inputs
    plain, table = multiply_adds(inputs, 60, (2,), 16, 2, 8)
    assert plain == 60 * 16 * 16 * (3 + 3 + 1)
    assert table == 3 * 23 * 16 * 16


@pytest.mark.slow
def test_the_cheaper_route_is_taken_and_the_other_can_be_forced() -> None:
    model = _model(_CONSTANT_END)
    params, few, many = _params(model), _tokens(_CONSTANT_END, 1), _tokens(_CONSTANT_END, 200)
    read = (3,)
    for tokens, route in ((few, "plain"), (many, "table")):
        assert model.cheapest(_CONSTANT_END, tokens.shape, read) == route
        ours = np.asarray(model.apply(params, tokens, positions=read))
        assert {
            name
            for name in model.routes
            if np.array_equal(ours, model.along(name)(params, tokens, positions=read))
        } == {route}


def test_an_unknown_route_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no route 'tabel'; did you mean table\?"):
        _model(_FREE).along("tabel")
    with pytest.raises(ConfigError, match="no route 'table'; known are plain"):
        tiny_mlp_experiment().parts("table")


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_a_run_records_its_route_and_is_resumed_and_replayed_on_it(tmp_path: Path) -> None:
    experiment = tiny_experiment(seeds=(0,))
    runs = {route: train(experiment, tmp_path / route, route=route) for route in ("plain", "table")}
    for route, run in runs.items():
        assert run.record["mode"]["route"] == route
        assert _bits(run.state_at(37).params) == _bits(
            train(experiment, tmp_path / route).state_at(37).params
        )
        other = "plain" if route == "table" else "table"
        with pytest.raises(
            RunError, match=f"trained with route='{route}', you asked for '{other}'"
        ):
            train(experiment, tmp_path / route, route=other)
    assert _bits(runs["plain"].stack()) != _bits(runs["table"].stack())
    for ours, theirs in zip(
        jax.tree.leaves(runs["plain"].params(5)),
        jax.tree.leaves(runs["table"].params(5)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_seed_mode_is_recorded_and_changes_results_by_rounding_only(tmp_path: Path) -> None:
    experiment = tiny_mlp_experiment()
    runs = {
        mode: train(experiment, tmp_path / mode, seed_mode=mode) for mode in ("mapped", "vmapped")
    }
    for mode, run in runs.items():
        assert run.record["mode"]["seeds"] == run.mode.seed_mode == mode
        assert _bits(run.state_at(37).params) == _bits(
            train(experiment, tmp_path / mode).state_at(37).params
        )
        with pytest.raises(RunError, match=f"was trained with seed_mode='{mode}'"):
            train(
                experiment, tmp_path / mode, seed_mode="mapped" if mode == "vmapped" else "vmapped"
            )
    assert train(experiment, tmp_path / "default").mode.seed_mode == "mapped"
    np.testing.assert_allclose(runs["vmapped"].losses, runs["mapped"].losses, rtol=1e-3)


def test_a_run_stored_before_routes_existed_is_resumed_on_its_route(tmp_path: Path) -> None:
    experiment = tiny_experiment(seeds=(0,))
    run = train(experiment, tmp_path / "old", route="plain")
    record = {**run.record, "mode": {"seeds": "mapped", "fast_path": False}}
    write_record(run.path, record)
    assert Trajectory(run.path).record["mode"] == record["mode"]
    assert _bits(open_run(run.path).state_at(37)) == _bits(
        train(experiment, tmp_path / "new", route="plain").state_at(37)
    )


def test_apply_of_a_run_takes_any_token_anywhere(tmp_path: Path) -> None:
    run = train(tiny_experiment(seeds=(0,), steps=3), tmp_path / "run")
    tokens = np.tile([[11, 3, 4]], (300, 1))
    assert np.isfinite(run.apply(run.params(3), tokens)).all()
