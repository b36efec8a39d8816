"""The compiled programs of training: the ends of chunks, the seeds that run together and the way
numbers enter change no bit.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import compilations
from conftest import few, tiny_experiment, tiny_mlp_experiment

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted, take
from mi_jax.contracts import LONGEST_CHUNK, mean_loss
from mi_jax.models import Transformer
from mi_jax.runs.experiment import Experiment
from mi_jax.tasks import ModularArithmetic
from mi_jax.training import AdamW
from mi_jax.training.state import Program, TrainState, flat_state, state_from_flat

SMALL = ModularArithmetic(p=7, fraction=0.5)
EXPERIMENTS = {
    "one layer": tiny_experiment(task=SMALL),
    "two layers": tiny_experiment(
        task=SMALL, model=Transformer(layers=2, d_model=16, heads=2, d_mlp=32), seeds=(0,)
    ),
    "minibatch": tiny_experiment(task=replace(SMALL, batch_size=5), seeds=(0, 1)),
    "mlp": tiny_mlp_experiment(),
    "mlp, minibatch": tiny_mlp_experiment(task=ModularArithmetic(p=11, fraction=0.5, batch_size=7)),
    "mlp, a split a seed": tiny_mlp_experiment(
        task=ModularArithmetic(p=11, fraction=0.5, split_per_seed=True)
    ),
}


@cache
def _program(experiment: Experiment) -> Program:
    return Program(experiment.parts())


def _run(experiment: Experiment, cuts: list[int]) -> tuple[TrainState, np.ndarray]:
    """The state after chunks of these lengths, and the losses of all their steps [seed step]."""
    program = _program(experiment)
    state, losses = program.init(), []
    for n in cuts:
        state, buffer = program.advance(state, program.parts.numbers, n)
        losses.append(np.asarray(buffer)[:, :n])
    return state, np.concatenate(losses, axis=1)


def _same(tree: Any, other: Any) -> bool:
    ours, theirs = dotted(tree), dotted(other)
    assert list(ours) == list(theirs)
    return all(
        np.asarray(ours[name]).tobytes() == np.asarray(theirs[name]).tobytes() for name in ours
    )


@pytest.mark.parametrize("name", few(EXPERIMENTS, 1))
def test_where_chunks_are_cut_changes_no_bit(name: str) -> None:
    whole, losses = _run(EXPERIMENTS[name], [20])
    for cuts in ([7, 13], [1, 1, 17, 1]):
        state, again = _run(EXPERIMENTS[name], cuts)
        assert _same(state, whole)
        assert again.tobytes() == losses.tobytes()
    assert np.asarray(whole.step).tolist() == [20] * len(EXPERIMENTS[name].seeds)


@pytest.mark.parametrize("name", few(["one layer", "mlp, minibatch", "mlp, a split a seed"], 2))
def test_a_seed_beside_others_is_the_seed_alone(name: str) -> None:
    together, losses = _run(EXPERIMENTS[name], [20])
    alone, own_losses = _run(replace(EXPERIMENTS[name], seeds=(2,)), [20])
    assert _same(take(together, 2), take(alone, 0))
    assert losses[2].tobytes() == own_losses[0].tobytes()
    assert not _same(take(together, 1).params, take(alone, 0).params)


def test_a_seeds_label_decides_and_not_its_place() -> None:
    forward, _ = _run(tiny_mlp_experiment(seeds=(0, 1, 2)), [10])
    backward, _ = _run(tiny_mlp_experiment(seeds=(2, 1, 0)), [10])
    assert all(
        _same(take(forward, seed_index), take(backward, 2 - seed_index)) for seed_index in range(3)
    )


def test_a_number_given_to_advance_is_the_number_of_another_program() -> None:
    base, other = (
        tiny_mlp_experiment(),
        tiny_mlp_experiment(optimizer=AdamW(learning_rate=3e-3, weight_decay=0.2, b1=0.8)),
    )
    program = Program(base.parts())
    changed, _ = program.advance(program.init(), Program(other.parts()).parts.numbers, 15)
    expected, _ = _run(other, [15])
    assert _same(changed, expected)
    assert not _same(changed.params, _run(base, [15])[0].params)


def test_one_compilation_serves_every_number_of_steps() -> None:
    program = Program(
        tiny_mlp_experiment(task=ModularArithmetic(p=11, fraction=0.5, batch_size=7)).parts()
    )
    state = program.init()
    with compilations("jit(_advance") as compiled:
        for n in (1, 2, 5, 60, 7):
            state, _ = program.advance(state, program.parts.numbers, n)
        state = state_from_flat(program.template, flat_state(state))
        program.advance(state, program.parts.numbers, 3)
    assert len(compiled) == 1


def test_building_a_program_and_its_template_compiles_nothing_of_training() -> None:
    with compilations("jit(_") as compiled:
        template = Program(tiny_mlp_experiment(task=ModularArithmetic(p=13)).parts()).template
    assert compiled == []
    assert template.params["embed_a"]["W_E"].shape == (3, 13, 24)


@pytest.mark.parametrize("n", [0, -1, LONGEST_CHUNK + 1])
def test_a_chunk_longer_than_the_buffer_is_refused(n: int) -> None:
    program = Program(tiny_mlp_experiment().parts())
    with pytest.raises(ConfigError, match="must lie between 1 and 4096"):
        program.advance(program.init(), program.parts.numbers, n)


@pytest.mark.parametrize("per_seed", [False, True])
def test_each_seed_trains_on_its_own_split_where_asked(per_seed: bool) -> None:
    task = ModularArithmetic(p=11, fraction=0.5, split_seed=3, split_per_seed=per_seed)
    program = Program(tiny_mlp_experiment(task=task).parts())
    state = program.init()
    _, losses = program.advance(state, program.parts.numbers, 1)
    for seed_index, seed in enumerate((0, 1, 2)):
        alone = ModularArithmetic(p=11, fraction=0.5, split_seed=3 + seed * per_seed)
        np.testing.assert_allclose(
            losses[seed_index, 0],
            _loss(tiny_mlp_experiment(task=alone), take(state.params, seed_index)),
            rtol=1e-6,
        )
    assert len({tuple(task.order(seed)) for seed in (0, 1, 2)}) == (3 if per_seed else 1)


def _loss(experiment: Experiment, params: Any) -> float:
    """The mean cross-entropy over all outputs on the trained pairs, in float64 from the logits."""
    data = experiment.task.data(0)
    logits = np.asarray(
        experiment.build().apply(params, data.inputs, positions=experiment.task.read), np.float64
    )[:, 0]
    targets = np.asarray(data.targets)[:, 0]
    top = logits.max(axis=1)
    return float(
        np.mean(
            top
            + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            - logits[np.arange(len(targets)), targets]
        )
    )


@pytest.mark.parametrize("name", few(["one layer", "mlp", "two layers"], 1))
def test_losses_are_those_of_the_parameters_before_each_update(name: str) -> None:
    experiment = EXPERIMENTS[name]
    program = _program(experiment)
    state = program.init()
    _, losses = program.advance(state, program.parts.numbers, 6)
    for step in range(6):
        for seed_index in range(len(experiment.seeds)):
            np.testing.assert_allclose(
                losses[seed_index, step],
                _loss(experiment, take(state.params, seed_index)),
                rtol=1e-5,
            )
        state, _ = program.advance(state, program.parts.numbers, 1)
    assert np.isnan(losses[:, 6:]).all()
    assert (np.abs(np.diff(losses[:, :6])) > 1e-4).any()  # an entry shifted by one would show


@pytest.mark.parametrize("name", few(["one layer", "minibatch", "two layers", "mlp"], 1))
def test_a_plain_python_loop_of_optax_steps_agrees(name: str) -> None:
    experiment = EXPERIMENTS[name]
    model, task, opt = experiment.build(), experiment.task, experiment.optimizer
    assert isinstance(opt, AdamW)
    params, data = model.init(jax.random.fold_in(jax.random.key(0), 0)), task.data(0)
    transform = optax.adamw(
        lambda count: (
            opt.learning_rate * (jnp.minimum(count / opt.warmup, 1.0) if opt.warmup else 1.0)
        ),
        b1=opt.b1,
        b2=opt.b2,
        weight_decay=opt.weight_decay,
    )
    opt_state = transform.init(params)

    @jax.jit
    def step(params: Any, opt_state: Any, i: int) -> tuple[Any, Any]:
        batch = task.batches(data, jax.random.fold_in(jax.random.key(0), 1), i, 1)(0)

        def loss(params: Any) -> jax.Array:
            out = (
                model.apply(params, batch.inputs)[:, jnp.array(task.read)]
                if name != "mlp"
                else model.apply(params, batch.inputs)
            )
            return mean_loss(
                -jnp.take_along_axis(jax.nn.log_softmax(out), batch.targets[..., None], -1)[..., 0],
                batch.weights,
            )

        updates, opt_state = transform.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for i in range(5):
        params, opt_state = step(params, opt_state, i)
    ours, _ = _run(experiment, [5])
    for key, value in dotted(params).items():
        np.testing.assert_allclose(
            dotted(take(ours.params, 0))[key], value, atol=1e-6, rtol=1e-6, err_msg=key
        )


def test_a_state_comes_back_from_its_flat_arrays_bit_for_bit() -> None:
    program = Program(tiny_mlp_experiment().parts())
    state, _ = program.advance(program.init(), program.parts.numbers, 4)
    flat = flat_state(state)
    assert all(isinstance(value, np.ndarray) for value in flat.values())
    again = state_from_flat(program.template, flat)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert _same(
        program.advance(again, program.parts.numbers, 4)[0],
        program.advance(state, program.parts.numbers, 4)[0],
    )
