"""Effects of each intervention on an update: exactly as documented, nothing before or beside it."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_experiment, tiny_mlp_experiment
from unchecked import unchecked

from mi_jax.basics.errors import ConfigError, RunError
from mi_jax.basics.fourier import fourier_basis
from mi_jax.basics.pytrees import dotted, nested
from mi_jax.interventions import (
    INTERVENTIONS,
    Ablate,
    AtBatch,
    AtGradient,
    AtSite,
    Change,
    Clamp,
    Forward,
    Freeze,
    Graft,
    PrepareContext,
    Project,
    Reset,
    Transplant,
)
from mi_jax.interventions.directions import (
    control_frequencies,
    frequency_rows,
    key_frequencies,
    random_rows,
)
from mi_jax.interventions.parsing import parse
from mi_jax.models.taps import capture
from mi_jax.training import SGD
from mi_jax.training.decay import InitialState
from mi_jax.training.loop import replay
from mi_jax.training.program_schedule import ProgramSchedule
from mi_jax.training.state import TrainState

DECAY = "optimizer.weight_decay"
MLP, TRANSFORMER = (
    tiny_mlp_experiment(seeds=(0, 3), steps=40),
    tiny_experiment(seeds=(0,), steps=40),
)


def _programs(
    *interventions: Any, of: Any = MLP, route: str | None = None, load_params: Any = None
) -> ProgramSchedule:
    parts = replace(of, interventions=interventions).parts(route)
    return (
        ProgramSchedule(parts)
        if load_params is None
        else ProgramSchedule(parts, load_params=load_params)
    )


def _at(programs: ProgramSchedule, step: int) -> TrainState:
    return replay(programs, programs.init(), 0, step)


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in dotted(state.params).items()}


@pytest.fixture(scope="module")
def plain() -> dict[int, TrainState]:
    """The MLP's states without interventions."""
    programs, states = _programs(), {0: _programs().init()}
    for step in range(1, 21):
        states[step] = replay(programs, states[step - 1], step - 1, step)
    return states


# At sites.


def _forward(
    experiment: Any, tap: AtSite, arrays: dict[str, Any]
) -> tuple[Any, dict[str, Any], Any]:
    """Run a tapped forward pass on the training batch: the site, the gradient, the parameters."""
    model, task = experiment.build(), experiment.task
    batch = task.data(0)
    params = model.init(jax.random.key(5))
    forward = Forward(model, model.apply, batch.inputs, task.read)
    taps = {tap.place: lambda value: tap.value_at(value, arrays, forward)}

    @jax.jit
    def both(p: Any) -> Any:
        def loss(p: Any) -> Any:
            outputs = model.apply(p, batch.inputs, taps=taps, positions=task.read)
            return experiment.loss(outputs, batch.targets).mean()

        _, seen = capture(model.apply, [tap.place])(p, batch.inputs, taps=taps, positions=task.read)
        return seen[tap.place], jax.grad(loss)(p)

    seen, gradient = both(params)
    return (
        np.asarray(seen),
        {name: np.asarray(value) for name, value in dotted(gradient).items()},
        params,
    )


def test_a_clamped_site_is_its_target_and_passes_no_gradient_upstream() -> None:
    seen, gradient, _ = _forward(MLP, Clamp("hidden.0.post", 0.25), {"value": jnp.float32(0.25)})
    assert (seen == 0.25).all()
    assert {name for name, g in gradient.items() if np.abs(g).max() > 0} == {"unembed.W_U"}


def test_a_clamped_head_is_its_target_and_the_others_are_free() -> None:
    target = np.array([[0.2, 0.3, 0.5]], np.float32)
    clamp = Clamp("blocks.0.attn.pattern", ((0.2, 0.3, 0.5),), only={"head": (1,)})
    seen, gradient, _ = _forward(TRANSFORMER, clamp, {"value": jnp.asarray(target)})
    np.testing.assert_array_equal(seen[:, 1], np.broadcast_to(target, seen[:, 1].shape))
    assert np.abs(seen[:, 0] - target).max() > 0.01
    for name in ("blocks.0.attn.W_Q", "blocks.0.attn.W_K"):
        assert np.abs(gradient[name][1]).max() == 0
        assert np.abs(gradient[name][0]).max() > 0


def test_an_ablated_site_is_zero_and_passes_no_gradient() -> None:
    seen, gradient, _ = _forward(
        TRANSFORMER, Ablate("blocks.0.mlp.post", only=(("d_mlp", (0, 7)),)), {}
    )
    assert np.abs(seen[..., [0, 7]]).max() == 0
    assert np.abs(seen).max() > 0
    assert np.abs(gradient["blocks.0.mlp.W_in"][:, [0, 7]]).max() == 0
    assert np.abs(gradient["blocks.0.mlp.W_out"][[0, 7]]).max() == 0


def test_a_transplanted_site_is_the_other_networks_and_passes_no_gradient() -> None:
    theirs = MLP.build().init(jax.random.key(9))
    arrays = {f"theirs.{name}": value for name, value in dotted(theirs).items()}
    seen, gradient, _ = _forward(MLP, Transplant("hidden.0.post", None, 0), arrays)
    model, task = MLP.build(), MLP.task
    _, other = capture(model.apply, ["hidden.0.post"])(
        theirs, task.data(0).inputs, positions=task.read
    )
    np.testing.assert_array_equal(seen, other["hidden.0.post"])
    assert {name for name, g in gradient.items() if np.abs(g).max() > 0} == {"unembed.W_U"}


def test_what_is_upstream_of_a_clamp_moves_by_decay_alone() -> None:
    programs = _programs(
        Clamp("hidden.0.post", 0.5),
        of=replace(MLP, optimizer=SGD(learning_rate=0.5, weight_decay=0.1)),
    )
    before, after = _arrays(programs.init()), _arrays(_at(programs, 3))
    for name in before:
        if name != "unembed.W_U":
            np.testing.assert_allclose(after[name], before[name] * 0.95**3, rtol=1e-6)
    assert np.abs(after["unembed.W_U"] - before["unembed.W_U"] * 0.95**3).max() > 1e-3


@dataclass(frozen=True)
class Identity(AtSite):
    site: str = "hidden.0.post"

    @property
    def place(self) -> str:
        return self.site

    def value_at(self, value: Any, arrays: Any, forward: Forward) -> Any:
        return value


@pytest.mark.parametrize(
    "no_op", [Identity(start=5), Project("unembed.W_U", ((0, ()), (3, ())), start=5)]
)
def test_a_no_op_is_the_parent_to_rounding(no_op: Any, plain: dict[int, TrainState]) -> None:
    ours, theirs = _arrays(_at(_programs(no_op), 15)), _arrays(plain[15])
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-5)


@pytest.mark.slow
def test_a_no_op_that_leaves_the_fast_path_is_the_plain_parent_to_rounding() -> None:
    parent, fork = (
        _programs(*new, of=TRANSFORMER, route="plain")
        for new in ((), (Identity(site="embed", start=2),))
    )
    ours, theirs = _arrays(_at(fork, 12)), _arrays(_at(parent, 12))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-5)


# On parameters.


def test_frozen_parameters_keep_their_values_and_the_others_move(
    plain: dict[int, TrainState],
) -> None:
    frozen = _arrays(_at(_programs(Freeze("unembed.*", start=5, stop=9)), 9))
    before, free = _arrays(plain[5]), _arrays(plain[9])
    np.testing.assert_array_equal(frozen["unembed.W_U"], before["unembed.W_U"])
    for name in set(before) - {"unembed.W_U"}:
        assert np.abs(frozen[name] - before[name]).max() > 1e-3
        assert np.abs(frozen[name] - free[name]).max() > 0


def test_reset_parameters_are_those_of_step_0_once(plain: dict[int, TrainState]) -> None:
    programs = _programs(Reset("unembed.*", start=5))
    six, nine = _arrays(_at(programs, 6)), _arrays(_at(programs, 9))
    np.testing.assert_array_equal(six["unembed.W_U"], _arrays(plain[0])["unembed.W_U"])
    for name in set(six) - {"unembed.W_U"}:
        np.testing.assert_allclose(six[name], _arrays(plain[6])[name], atol=1e-6)
    assert np.abs(nine["unembed.W_U"] - six["unembed.W_U"]).max() > 1e-3


def test_grafted_parameters_are_the_other_checkpoints_seed_by_seed(
    plain: dict[int, TrainState],
) -> None:
    programs = _programs(
        Graft("unembed.*", None, 20, start=5), load_params=lambda path, step: plain[step].params
    )
    np.testing.assert_array_equal(
        _arrays(_at(programs, 6))["unembed.W_U"], _arrays(plain[20])["unembed.W_U"]
    )


def _component(W: np.ndarray, k: int) -> float:
    """The norm of a frequency's part in the columns of W_U."""
    return float(np.linalg.norm(fourier_basis(W.shape[-1])[2 * k - 1 : 2 * k + 1] @ W.T))


def test_projected_frequencies_are_gone_to_a_millionth_and_the_others_are_left(
    plain: dict[int, TrainState],
) -> None:
    programs = _programs(Project("unembed.W_U", ((0, (2, 5)), (3, (4,))), start=5))
    after = _arrays(_at(programs, 6))["unembed.W_U"]
    free = _arrays(plain[6])["unembed.W_U"]
    for seed_index, gone in ((0, (2, 5)), (1, (4,))):
        for k in range(1, 6):
            if k in gone:
                assert _component(after[seed_index], k) < 1e-6 * np.linalg.norm(free[seed_index])
            else:
                assert _component(after[seed_index], k) == pytest.approx(
                    _component(free[seed_index], k), rel=1e-5
                )
        np.testing.assert_allclose(
            after[seed_index].mean(axis=-1), free[seed_index].mean(axis=-1), atol=1e-6
        )


def test_projecting_every_so_often_acts_at_those_updates_alone() -> None:
    programs = _programs(Project("unembed.W_U", frequencies=(2,), every=3, start=5, stop=12))
    state, seen = programs.init(), []
    for step in range(14):
        state = replay(programs, state, step, step + 1)
        seen.append(_component(_arrays(state)["unembed.W_U"][0], 2) < 1e-6)
    assert [step for step, gone in enumerate(seen) if gone] == [5, 8, 11]


def test_projection_of_given_directions_removes_their_span() -> None:
    rows = ((1.0, 1.0) + (0.0,) * 22, (1.0, -1.0) + (0.0,) * 22)
    after = _arrays(_at(_programs(Project("unembed.W_U", rows, start=2)), 3))["unembed.W_U"]
    assert np.abs(after[:, :2]).max() < 1e-6
    assert np.abs(after[:, 2:]).min(axis=-1).max() > 0


def test_directions_that_follow_from_others_or_are_nothing_remove_no_more() -> None:
    direction, zeros = (1.0, 1.0) + (0.0,) * 22, (0.0,) * 24
    expected = _arrays(_at(_programs(Project("unembed.W_U", (direction,), start=2)), 3))[
        "unembed.W_U"
    ]
    after = _arrays(
        _at(_programs(Project("unembed.W_U", (direction, direction, zeros), start=2)), 3)
    )["unembed.W_U"]
    np.testing.assert_allclose(after, expected, atol=1e-6)
    untouched = _arrays(_at(_programs(Project("unembed.W_U", (zeros,), start=2)), 3))["unembed.W_U"]
    np.testing.assert_allclose(untouched, _arrays(_at(_programs(), 3))["unembed.W_U"], atol=1e-6)


def test_the_key_rule_finds_planted_frequencies_and_control_takes_as_many_others() -> None:
    p, model = 11, MLP.build()
    params = {
        name: np.zeros(x.shape, np.float32)
        for name, x in dotted(jax.eval_shape(model.init, jax.random.key(0))).items()
    }
    waves = fourier_basis(p)
    params["unembed.W_U"][0], params["unembed.W_U"][1], params["unembed.W_U"][2] = (
        waves[3],
        0.3 * waves[10],
        0.2 * waves[5],
    )
    assert key_frequencies(nested(params), model, p, "unembedding") == (2, 5)
    others = {control_frequencies((2, 5), p, seed) for seed in range(20)}
    assert all(len(drawn) == 2 and not set(drawn) & {2, 5} for drawn in others)
    assert len(others) > 1
    with pytest.raises(RunError, match="3 of 5 frequencies are key: there are fewer others"):
        control_frequencies((1, 2, 3), p, 0)


def test_controls_may_be_of_named_frequencies(plain: dict[int, TrainState]) -> None:
    named = ((0, (2, 5)), (3, (4,)))
    W = _arrays(plain[5])["unembed.W_U"]
    context = PrepareContext(
        (0, 3), plain[5].params, lambda: None, MLP.build(), MLP.task.inputs, lambda path, step: None
    )
    rows = {
        rule: np.asarray(
            Project("unembed.W_U", rule, frequencies=named).prepare(context)["out.unembed.W_U"]
        )
        for rule in ("control", "random")
    }
    for seed_index, keys in enumerate(((2, 5), (4,))):
        taken = frequency_rows(keys, 11, 11)
        assert np.abs(rows["control"][seed_index] @ taken.T).max() < 1e-6
        assert np.linalg.matrix_rank(rows["control"][seed_index]) == 2 * len(keys)
        removed = np.linalg.norm(
            rows["random"][seed_index].T @ (rows["random"][seed_index] @ W[seed_index].T)
        )
        assert removed == pytest.approx(np.linalg.norm(taken @ W[seed_index].T), rel=1e-5)
    with pytest.raises(ConfigError, match="beside 'control'"):
        Project("unembed.W_U", "key", frequencies=(2,))


def test_frequencies_are_projected_out_of_arrays_of_residues_alone() -> None:
    with pytest.raises(ConfigError, match=r"blocks\.0\.mlp\.W_in has no axis of residues"):
        _programs(Project("blocks.0.mlp.W_*", (1,)), of=TRANSFORMER).check()


def test_random_directions_take_as_much_off_the_norm_as_the_key_ones() -> None:
    p, rng = 59, np.random.default_rng(0)
    W = rng.normal(size=(p + 1, 8)).astype(np.float32)
    W[:p] += 3 * np.outer(fourier_basis(p)[3], rng.normal(size=8))
    keys = frequency_rows((2, 9), p, p + 1)
    for seed in range(3):
        rows = random_rows(keys, W, p, seed)
        removed = np.linalg.norm(rows.T @ (rows @ W))
        assert removed == pytest.approx(np.linalg.norm(keys.T @ (keys @ W)), rel=1e-5)
        np.testing.assert_allclose(rows[:-1] @ rows[:-1].T, np.eye(len(rows) - 1), atol=1e-6)
        assert np.abs(rows[:, p]).max() == 0
        np.testing.assert_allclose(rows.sum(axis=1), 0, atol=1e-5)


# On settings, gradients and batches.


def test_another_optimizer_begins_with_a_fresh_state(plain: dict[int, TrainState]) -> None:
    change = (
        Change("optimizer.name", "sgd", start=5),
        Change("optimizer.learning_rate", 0.25, start=5),
    )
    programs = _programs(*change)
    state = _at(programs, 6)
    assert jax.tree.structure(programs.template(5)) != jax.tree.structure(programs.template(6))
    assert jax.tree.structure(state) == jax.tree.structure(programs.template(6))
    momentum = dotted(state.opt_state)
    by_hand = replace(MLP, optimizer=SGD(learning_rate=0.25))
    other = ProgramSchedule(by_hand.parts())
    expected = replay(other, other.base.fresh(plain[5].params, 5), 5, 6)
    assert all(
        np.array_equal(momentum[name], value) for name, value in dotted(expected.opt_state).items()
    )
    for name, value in _arrays(state).items():
        np.testing.assert_array_equal(value, _arrays(expected)[name])


def test_decay_and_a_held_norm_that_begin_later_go_by_step_0(plain: dict[int, TrainState]) -> None:
    changes = (
        Change("optimizer.decay_to", "initial", start=5),
        Change("optimizer.weight_norm", 1.0, start=5),
    )
    state = _at(_programs(*changes), 6)
    parts = jax.tree.leaves(state.opt_state, is_leaf=lambda part: isinstance(part, InitialState))
    [remembered] = [part.initial for part in parts if isinstance(part, InitialState)]
    for name, value in dotted(remembered).items():
        np.testing.assert_array_equal(value, dotted(plain[0].params)[name])
    norm = lambda params: np.sqrt(sum(np.square(x[0]).sum() for x in jax.tree.leaves(params)))  # noqa: E731
    assert norm(state.params) == pytest.approx(norm(plain[0].params), rel=1e-5)
    assert abs(norm(plain[5].params) / norm(plain[0].params) - 1) > 1e-3


def test_more_data_from_a_step_on_is_a_run_on_that_data(plain: dict[int, TrainState]) -> None:
    other = ProgramSchedule(replace(MLP, task=replace(MLP.task, fraction=0.7)).parts())  # pyright: ignore[reportCallIssue]
    state = _at(_programs(Change("task.fraction", 0.7, start=5)), 8)
    for name, value in _arrays(state).items():
        np.testing.assert_array_equal(value, _arrays(replay(other, plain[5], 5, 8))[name])


@dataclass(frozen=True)
class Backwards(AtGradient, AtBatch):
    """Climbs, on the first half of the batch."""

    def batch(self, batch: Any, arrays: Any) -> Any:
        half = len(batch.inputs) // 2
        return batch._replace(
            weights=jnp.where(jnp.arange(len(batch.inputs))[:, None] < half, batch.weights, 0.0)
        )

    def gradient(self, gradients: Any, params: Any, arrays: Any) -> Any:
        return jax.tree.map(jnp.negative, gradients)


def test_a_users_own_class_acts_where_it_says() -> None:
    of = replace(MLP, optimizer=SGD(learning_rate=0.1))
    before, after = (_arrays(_at(_programs(Backwards(start=2), of=of), step)) for step in (2, 3))
    model, data = MLP.build(), MLP.task.data(0)
    half = len(data.inputs) // 2

    def loss(params: Any) -> Any:
        return MLP.loss(
            model.apply(params, data.inputs[:half], positions=MLP.task.read), data.targets[:half]
        ).mean()

    slope = dotted(
        jax.jit(jax.grad(loss))(nested({name: value[0] for name, value in before.items()}))
    )
    for name, value in after.items():
        np.testing.assert_allclose(value[0] - before[name][0], 0.1 * slope[name], atol=1e-6)


def test_equal_compile_keys_share_a_program() -> None:
    programs = _programs(Clamp("hidden.0.post", 0.1, stop=3), Clamp("hidden.0.post", 0.7, start=3))
    assert programs.active(2).program is programs.active(3).program
    low, high = _programs(Clamp("hidden.0.post", 0.1)), _programs(Clamp("hidden.0.post", 0.7))
    both = _at(programs, 4)
    expected = replay(high, replay(low, low.init(), 0, 3), 3, 4)
    for name, value in _arrays(both).items():
        np.testing.assert_array_equal(value, _arrays(expected)[name])


@pytest.mark.parametrize("every", [1, 3, None])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (4, 5), (4, 11), (7, None)])
def test_the_next_change_is_the_first_step_that_differs(
    every: int | None, start: int, stop: int | None
) -> None:
    project = Project("unembed.W_U", (1,), every, start=start, stop=stop)
    inside = [project.in_force(step) for step in range(40)]
    for step in range(20):
        change = project.next_change(step)
        now = inside[step]
        following = next((later for later in range(step + 1, 40) if inside[later] != now), None)
        assert following is None or (change is not None and change <= following)


# As text.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Change(field="optimizer.weight_decay", value=0.3, start=400)',
            Change("optimizer.weight_decay", 0.3, start=400),
        ),
        (" Freeze(['embed.*', 'unembed.*'])", Freeze(("embed.*", "unembed.*"))),
        (
            "Project('embed.W_E', frequencies=(3, 7), start=5)",
            Project("embed.W_E", (3, 7), start=5),
        ),
        ("Project('embed.W_E', 'key', None)", Project("embed.W_E", "key", None)),
        ("Clamp('blocks.0.attn.pattern', ((.5, .5),), only={'head': [2]})", None),
        ("Clamp('hidden.0.post', -1)", Clamp("hidden.0.post", -1)),
    ],
)
def test_text_is_read_as_the_call_that_it_is(text: str, expected: Any) -> None:
    assert parse(text, INTERVENTIONS) == (
        expected or Clamp("blocks.0.attn.pattern", ((0.5, 0.5),), only={"head": (2,)})
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Chnage(field='a', value=1)", "did you mean Change"),
        ("Change(feild='a', value=1)", "did you mean field"),
        ("Change('a')", "value"),
        ("Change", "is no intervention"),
        ("Change(field='a', value=__import__('os').getcwd())", "must be numbers"),
        ("Change(field='a', value=open('x'))", "must be numbers"),
        ("__import__('os').getcwd()", "is no intervention"),
        ("Change(field='a', value=1", "is no intervention"),
        ("Change(**{'field': 'a'})", "no setting 'None'|must be"),
        ("Freeze('a', start=5, stop=5)", "range is empty"),
        ("Clamp('x', float('nan'))", "must be numbers"),
        ("Project('embed.W_E', 'kye')", "kye"),
        ("Project('embed.W_E', (3, 'a'))", "directions"),
        ("Freeze('a', start=1.5)", "start=1.5: must be a whole number"),
        ("Freeze('a', stop=True)", "stop=True: must be a whole number"),
        ("Freeze(('a', 3))", r"parameters=\('a', 3\) must be"),
        ("Clamp(3, 0.5)", "site=3 must be"),
        ("Clamp('x', 0.5, only='head')", "only='head' must be"),
        ("Clamp('x', 0.5, only={'head': (0.5,)})", "head=0.5: must be a whole number"),
        ("Graft('a', None, 1.5)", "step=1.5: must be a whole number"),
        ("Project('a', (1,), every=1.5)", "every=1.5: must be a whole number"),
        ("Change(3, 1)", "field=3 must be"),
        ("-" * 100_000, "is no intervention"),
    ],
)
def test_other_text_is_refused_and_nothing_of_it_runs(text: str, message: str) -> None:
    with unchecked(), pytest.raises(ConfigError, match=message):
        parse(text, INTERVENTIONS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer.learning_rate", "fast"),
        ("optimizer.learning_rate", None),
        ("optimizer.learning_rate", True),
        ("optimizer.learning_rate", 1 + 2j),
        ("optimizer.warmup", 2.5),
        ("optimizer.decayed", "embed.*"),
        ("optimizer.filter", "grokfast_ema"),
        ("task.fraction", None),
        ("task.split_seed", 1.5),
    ],
)
def test_a_value_of_another_kind_is_refused(field: str, value: Any) -> None:
    with (
        unchecked(),
        pytest.raises(ConfigError, match=rf"Change\({field}\) to .*: must be of the type"),
    ):
        _programs(Change(field, value))


def test_numbers_and_arrays_of_numpy_are_stored_as_pythons() -> None:
    with unchecked():
        given = (
            Freeze("a", start=np.int64(3), stop=np.int32(5)),  # pyright: ignore
            Clamp("x", np.full((1, 2), 0.5), only={"head": np.array([2])}),  # pyright: ignore
            Project("a", np.array([1, 2])),  # pyright: ignore
            Change(DECAY, np.float32(0.5)),  # pyright: ignore
        )
    assert given == (
        Freeze("a", start=3, stop=5),
        Clamp("x", ((0.5, 0.5),), only={"head": (2,)}),
        Project("a", (1, 2)),
        Change(DECAY, 0.5),
    )
    assert len({hash(intervention) for intervention in given}) == 4


@pytest.mark.parametrize(
    ("name", "length", "axis"),
    [
        ("blocks.0.attn.W_Q", 16, 1),
        ("blocks.0.attn.W_V", 8, 2),
        ("blocks.0.attn.W_O", 8, 1),
        ("blocks.0.attn.W_O", 16, 2),
        ("blocks.0.attn.W_K", 2, 0),
    ],
)
def test_directions_fit_any_axis_of_the_matrices_of_heads(
    name: str, length: int, axis: int
) -> None:
    direction = np.zeros(length)
    direction[:2] = 0.6, 0.8
    project = Project(name, (tuple(direction.tolist()),), start=1)
    programs = _programs(project, of=TRANSFORMER)
    programs.check()
    after, free = (
        _arrays(_at(schedule, 2))[name][0] for schedule in (programs, _programs(of=TRANSFORMER))
    )
    along = np.tensordot(free, direction, axes=(axis, 0))
    expected = free - np.moveaxis(np.multiply.outer(direction, along), 0, axis)
    assert np.abs(np.tensordot(after, direction, axes=(axis, 0))).max() < 1e-6
    np.testing.assert_allclose(after, expected, atol=1e-5)
