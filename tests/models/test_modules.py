"""Networks of Flax and Equinox as models: the module's own numbers, taps at every site, errors."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from users_networks import EquinoxMLP, LinenMLP, NnxMLP, NnxTransformer

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.pytrees import dotted
from mi_jax.contracts import Architecture, Inputs, Reference, Roles, Subject
from mi_jax.measuring.choosing import choose
from mi_jax.measuring.program import make_context
from mi_jax.models import MLP, EquinoxModule, Here, LinenModule, NnxModule, capture
from mi_jax.tasks import ModularArithmetic, SparseParity
from mi_jax.training import CrossEntropy

TASK = ModularArithmetic(p=7, fraction=0.6)
INPUTS = TASK.inputs
TOKENS = np.array([[0, 6, 7], [3, 3, 7], [5, 1, 7], [2, 0, 7], [6, 6, 7]])
USERS: dict[str, Any] = {
    "nnx": NnxMLP(),
    "nnx transformer": NnxTransformer(layers=2),
    "linen": LinenMLP(),
    "equinox": EquinoxMLP(),
}


def _module_call(architecture: Any, params: Any) -> Callable[[Any], Any]:
    """The user's own way to call the network, outside of this package."""
    module = architecture.as_module(INPUTS, params)
    if isinstance(architecture, NnxModule):
        module.eval()
        # Outside of nnx.capture flax warns of what a module sows.
        graph, state = nnx.split(module)

        def call(x: Any) -> Any:
            merged = nnx.merge(graph, state)
            return nnx.capture(merged, nnx.Intermediate)(x)[0]

        return call
    if isinstance(architecture, EquinoxModule):
        return jax.vmap(eqx.nn.inference_mode(module))
    return lambda x: module(x)


@pytest.mark.parametrize("name", USERS)
def test_outputs_are_bitwise_those_of_the_module(name: str) -> None:
    architecture = USERS[name]
    model = architecture.build(INPUTS)
    params = model.init(jax.random.key(3))
    expected = np.asarray(jax.jit(_module_call(architecture, params))(TOKENS))
    found = np.asarray(jax.jit(model.apply)(params, TOKENS))
    assert found.tobytes() == expected.reshape(found.shape).tobytes()
    last = np.asarray(jax.jit(lambda p, x: model.apply(p, x, positions=(2,)))(params, TOKENS))
    assert last.shape == (5, 1, 7)
    np.testing.assert_array_equal(last[:, 0], found[:, -1])


@pytest.mark.parametrize("name", USERS)
def test_initial_parameters_are_those_of_the_module(name: str) -> None:
    architecture, key = USERS[name], jax.random.key(5)
    params = architecture.build(INPUTS).init(key)
    if isinstance(architecture, NnxModule):
        made = nnx.state(architecture.module(INPUTS, nnx.Rngs(key)), nnx.Param)
    elif isinstance(architecture, LinenModule):
        made = architecture.module(INPUTS, None).init(key, TOKENS)
    else:
        made = eqx.filter(architecture.module(INPUTS, key), eqx.is_inexact_array)
    expected = sorted(np.asarray(x).tobytes() for x in jax.tree.leaves(made))
    assert sorted(np.asarray(x).tobytes() for x in jax.tree.leaves(params)) == expected
    shapes = {name: tuple(x.shape) for name, x in dotted(params).items()}
    assert dict(architecture.shapes(INPUTS)) == shapes


def test_names_are_those_of_the_network_or_of_its_map() -> None:
    assert list(dotted(NnxMLP().build(INPUTS).init(jax.random.key(0)))) == [
        "embed.W_E",
        "layers.0.W",
        "layers.0.b",
        "unembed.W_U",
        "unembed.b_U",
    ]
    params = NnxTransformer().build(INPUTS).init(jax.random.key(0))
    assert {"embed.embedding", "positions", "blocks.0.attn.query.kernel"} <= set(dotted(params))
    assert set(EquinoxMLP().build(INPUTS).init(jax.random.key(0))) == {"embed", "hidden", "out"}


@pytest.mark.parametrize("name", ["nnx", "linen"])
def test_every_reading_of_the_plain_model_is_the_same_on_the_same_numbers(name: str) -> None:
    plain = MLP(width=16, embedding="shared", d_embed=8, activation="relu", bias=True)
    first = plain.build(INPUTS)
    params = first.init(jax.random.key(1))
    final = jax.tree.map(lambda x: 1.5 * x + 0.1, params)
    ours, theirs = (
        Subject(model, TASK, CrossEntropy()) for model in (first, USERS[name].build(INPUTS))
    )
    measures, _ = choose(None, ours)
    assert {one.name for one in measures} <= {one.name for one in choose(None, theirs)[0]}
    assert {measure.name for measure in measures} >= {
        "fourier_power_embedding",
        "gini_unembedding",
        "restricted_loss",
        "cluster_sizes",
    }
    reference = Reference(initial=params, final=final, previous=params)
    contexts = [make_context(subject, 0, reference, measures) for subject in (ours, theirs)]
    for measure in measures:
        expected, found = (
            jax.tree.leaves(measure.function(params, context)) for context in contexts
        )
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-6, err_msg=measure.name)


def test_every_reading_of_the_plain_model_is_that_of_an_equinox_network_too() -> None:
    """Its weights are turned, so readings by parameter have other names."""
    plain = MLP(width=16, embedding="shared", d_embed=8, activation="relu", bias=True)
    model = plain.build(INPUTS)
    first = model.init(jax.random.key(1))
    last = jax.tree.map(lambda x: 1.5 * x + 0.1, first)

    def turned(params: Any) -> Any:
        hidden, out = params["layers"]["0"], params["unembed"]
        return {
            "embed": {"weight": params["embed"]["W_E"]},
            "hidden": {"weight": hidden["W"].T, "bias": hidden["b"]},
            "out": {"weight": out["W_U"].T, "bias": out["b_U"]},
        }

    subjects = [
        Subject(one, TASK, CrossEntropy()) for one in (model, USERS["equinox"].build(INPUTS))
    ]
    allowed = {one.name for one in choose(None, subjects[1])[0]}
    measures = [
        one
        for one in choose(None, subjects[0])[0]
        if one.name in allowed and "by_parameter" not in one.name
    ]
    assert {"restricted_loss", "cluster_sizes", "excluded_loss"} <= {one.name for one in measures}
    both = [(first, last), (turned(first), turned(last))]
    contexts = [
        make_context(subject, 0, Reference(initial=a, final=b, previous=a), measures)
        for subject, (a, b) in zip(subjects, both, strict=True)
    ]
    for measure in measures:
        expected, found = (
            jax.tree.leaves(measure.function(pair[0], context))
            for pair, context in zip(both, contexts, strict=True)
        )
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-6, err_msg=measure.name)


def test_sown_attention_patterns_feed_the_measures_of_attention() -> None:
    subject = Subject(USERS["nnx transformer"].build(INPUTS), TASK, CrossEntropy())
    params = subject.model.init(jax.random.key(0))
    measures, _ = choose(["attention_pattern"], subject)
    context = make_context(subject, 0, Reference(), measures)
    read = measures[0].function(params, context)
    pattern = np.asarray(read["attention_pattern"] if isinstance(read, dict) else read)
    assert pattern.shape[:2] == (2, 2)
    np.testing.assert_allclose(pattern.sum(axis=-1), 1, atol=1e-5)


# --- Taps ---


@pytest.mark.parametrize("name", USERS)
def test_taps_work_under_jit_vmap_map_and_grad(name: str) -> None:
    model = USERS[name].build(INPUTS)
    sites = [site.name for site in model.sites]
    stack = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))
    one = jax.tree.map(lambda x: x[1], stack)
    captured = capture(model.apply, sites)
    outputs, values = captured(one, TOKENS)
    np.testing.assert_array_equal(values["logits"], outputs)
    for site in model.sites:
        assert values[site.name].ndim == len(site.dims)
        if "batch" in site.dims:
            assert values[site.name].shape[site.dims.index("batch")] == 5
    jitted = jax.jit(captured)(one, TOKENS)[1]
    by_seed = jax.jit(jax.vmap(captured, in_axes=(0, None)))(stack, TOKENS)[1]
    mapped = jax.jit(lambda s: jax.lax.map(lambda p: captured(p, TOKENS), s))(stack)[1]
    for site in sites:
        np.testing.assert_allclose(jitted[site], values[site], atol=1e-5)
        np.testing.assert_allclose(by_seed[site][1], values[site], atol=1e-5)
        np.testing.assert_allclose(mapped[site][1], values[site], atol=1e-5)

    def loss(params: Any, factor: Any) -> Any:
        taps = {"post" if name != "nnx transformer" else "blocks.0.post": lambda v: factor * v}
        return jnp.square(captured(params, TOKENS, taps=taps)[0]).sum()

    slope = jax.jit(jax.grad(loss, argnums=1))(one, 1.3)
    expected = (loss(one, 1.301) - loss(one, 1.299)) / 0.002
    np.testing.assert_allclose(slope, expected, rtol=2e-2)


class _Blend(nnx.Module):
    """A random network: each part is called once, but for a table that is tied to the readout."""

    def __init__(self, seed: int, inputs: Inputs, rngs: nnx.Rngs):
        rng = np.random.default_rng(seed)
        self.d = d = int(rng.choice([4, 6, 8]))
        self.embed = nnx.Embed(inputs.vocabulary, d, rngs=rngs)
        make = {
            "linear": lambda: nnx.Linear(d, d, rngs=rngs),
            "norm": lambda: nnx.LayerNorm(d, rngs=rngs),
            "attention": lambda: nnx.MultiHeadAttention(2, d, decode=False, rngs=rngs),
            "pair": lambda: nnx.List([nnx.Linear(d, d, rngs=rngs), nnx.LayerNorm(d, rngs=rngs)]),
        }
        kinds = rng.choice(list(make), size=rng.integers(1, 5))
        self.parts = nnx.List([make[str(kind)]() for kind in kinds])
        self.tied = bool(rng.integers(2))
        self.reader = self.embed if self.tied else nnx.Linear(d, inputs.vocabulary, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        for part in self.parts:
            for one in part if isinstance(part, nnx.List) else (part,):
                x = x + one(x)
        return x @ self.reader.embedding[...].T if self.tied else self.reader(x)


@dataclass(frozen=True)
class _Random(NnxModule):
    seed: int = 0

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return _Blend(self.seed, inputs, rngs)


class _Edited(nnx.Module):
    """A module whose value is edited, as its user would write it."""

    def __init__(self, inner: Any):
        self.inner = inner
        self.embedding = getattr(inner, "embedding", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * self.inner(*args, **kwargs) - 0.5


def _edit(module: Any, path: str) -> None:
    """Exchange the submodule at a path."""
    *parents, last = path.split(".")
    for part in parents:
        module = module[int(part)] if part.isdigit() else getattr(module, part)
    if last.isdigit():
        module[int(last)] = _Edited(module[int(last)])
    else:
        setattr(module, last, _Edited(getattr(module, last)))


@pytest.mark.parametrize(
    "seed", [pytest.param(i, marks=pytest.mark.slow) if i >= 4 else i for i in range(20)]
)
def test_every_path_of_a_random_network_is_listened_to_and_replaced(seed: int) -> None:
    architecture = _Random(seed)
    model = architecture.build(INPUTS)
    params = model.init(jax.random.key(seed))
    module = architecture.as_module(INPUTS, params)
    assert len([name for name in dotted(params) if "embedding" in name]) == 1
    paths = [site.name for site in model.sites if site.name != "logits"]
    called = {
        ".".join(map(str, path))
        for path, one in nnx.iter_modules(module)
        if path and not isinstance(one, nnx.List)
    }
    # A tied table is called as an embedding only.
    assert set(paths) == called - {"reader"} | ({"reader"} - {"reader" * module.tied})
    for path in paths:
        outputs, values = capture(model.apply, [path])(params, TOKENS)
        np.testing.assert_array_equal(outputs, module(TOKENS))
        replaced = model.apply(params, TOKENS, taps={path: lambda value: 2 * value - 0.5})
        edited = architecture.as_module(INPUTS, params)
        _edit(edited, path)
        if module.tied and path == "embed":
            edited.reader = edited.embed
        np.testing.assert_array_equal(replaced, edited(TOKENS), err_msg=path)
        again = model.apply(params, TOKENS, taps={path: lambda value, v=values[path]: v})
        np.testing.assert_array_equal(again, outputs)


class _TwiceNet(nnx.Module):
    def __init__(self, inputs: Inputs, rngs: nnx.Rngs):
        self.embed = nnx.Embed(inputs.vocabulary, 4, rngs=rngs)
        self.rule = nnx.Linear(4, 4, rngs=rngs)
        self.out = nnx.Linear(4, inputs.classes, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.rule(self.embed(tokens))
        pair = jax.vmap(jax.vmap(self.rule))(x)
        return self.out(jax.lax.scan(lambda c, _: (self.rule(c), None), pair, length=2)[0])


@dataclass(frozen=True)
class _Twice(NnxModule):
    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return _TwiceNet(inputs, rngs)


def test_a_second_call_has_a_site_and_one_within_scan_has_none() -> None:
    model = _Twice().build(INPUTS)
    assert [site.name for site in model.sites] == ["embed", "rule", "rule@2", "out", "logits"]
    params = model.init(jax.random.key(0))
    _, values = capture(model.apply, ["rule", "rule@2"])(params, TOKENS)
    kernel, bias = params["rule"]["kernel"], params["rule"]["bias"]
    np.testing.assert_allclose(
        values["rule@2"], values["rule"] @ kernel + bias[None, None], atol=1e-6
    )
    replaced = model.apply(params, TOKENS, taps={"rule@2": lambda value: jnp.zeros_like(value)})
    twice = (bias @ kernel + bias) @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(replaced, np.broadcast_to(twice, replaced.shape), atol=1e-5)


def test_what_is_sown_can_be_recorded_and_not_replaced() -> None:
    model = USERS["nnx transformer"].build(INPUTS)
    site = "blocks.1.attn.attention_weights"
    assert {s.kind for s in model.sites if "attention_weights" in s.name} == {"listened"}
    assert {s.dims for s in model.sites if "attention_weights" in s.name} == {
        ("batch", "head", "query", "key")
    }
    params = model.init(jax.random.key(0))
    with pytest.raises(ConfigError, match=f"{site}' cannot be replaced, only recorded"):
        model.apply(params, TOKENS, taps={site: lambda value: value})
    with pytest.raises(ConfigError, match="cannot be replaced"):
        capture(model.apply, [site])(params, TOKENS, taps={site: lambda value: value})


class _MaskedNet(nnx.Module):
    """Constants beside parameters: a mask, and a table of NumPy."""

    def __init__(self, inputs: Inputs, drawn: bool, rngs: nnx.Rngs):
        self.embed = nnx.Embed(inputs.vocabulary, inputs.classes, rngs=rngs)
        ones = jnp.ones((inputs.positions, inputs.positions))
        self.mask = jax.random.normal(rngs.params(), ones.shape) if drawn else jnp.tril(ones)
        self.shift = np.arange(float(inputs.classes), dtype=np.float32)

    def __call__(self, tokens: Any) -> Any:
        return jnp.einsum("qk,bkd->bqd", self.mask, self.embed(tokens)) + self.shift[None, None]


@dataclass(frozen=True)
class _Masked(NnxModule):
    drawn: bool = False

    def module(self, inputs: Inputs, rngs: Any) -> Any:
        return _MaskedNet(inputs, self.drawn, rngs)


def test_plain_arrays_of_a_network_are_constants() -> None:
    model = _Masked().build(INPUTS)
    params = model.init(jax.random.key(4))
    assert list(dotted(params)) == ["embed.embedding"]
    expected = np.cumsum(np.asarray(params["embed"]["embedding"])[TOKENS], axis=1) + np.arange(7.0)
    np.testing.assert_allclose(jax.jit(model.apply)(params, TOKENS), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="draws arrays that are no parameters from its seed"):
        _Masked(drawn=True).build(INPUTS)


def test_floats_enter_too() -> None:
    @dataclass(frozen=True)
    class OfFloats(LinenModule):
        def module(self, inputs: Inputs, rngs: Any) -> Any:
            return linen.Dense(inputs.classes)

    task = SparseParity.smallest()
    model = OfFloats().build(task.inputs)
    params = model.init(jax.random.key(0))
    x = np.ones((4, task.inputs.positions, task.inputs.features), np.float32)
    assert model.apply(params, x).shape == (4, task.inputs.positions, task.inputs.classes)


def test_flax_and_equinox_are_imported_only_where_a_network_is_built() -> None:
    code = "import sys, mi_jax.models as m; m.MLP(); print({'flax', 'equinox'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- Errors ---


def _nnx(make: Callable[[Inputs, Any], Any], **methods: Any) -> Architecture:
    """An architecture of a network that a function makes."""
    body = {"module": lambda self, inputs, rngs: make(inputs, rngs), **methods}
    return dataclass(frozen=True)(type("Own", (NnxModule,), body))()


def _around(call: Callable[[Any, Any], Any], **parts: Callable[[Inputs, Any], Any]) -> Any:
    """A maker of a network with an embedding, further parts, and a function of both."""

    class Net(nnx.Module):
        def __init__(self, inputs: Inputs, rngs: nnx.Rngs):
            self.embed = nnx.Embed(inputs.vocabulary, inputs.classes, rngs=rngs)
            for name, part in parts.items():
                setattr(self, name, part(inputs, rngs))

        def __call__(self, tokens: Any) -> Any:
            return call(self, tokens)

    return Net


_RUNS = {"call": lambda net, tokens: net.embed(tokens)}
_RNG = np.random.default_rng(0)


def _dense(inputs: Inputs, rngs: Any) -> Any:
    return nnx.Linear(3, 3, rngs=rngs)


_BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no parameters": (
        lambda: _nnx(lambda inputs, rngs: nnx.Dropout(0.5)),
        r"Own\.module made a network without parameters",
    ),
    "batch norm": (
        lambda: _nnx(
            _around(
                lambda net, x: net.norm(net.embed(x)),
                norm=lambda inputs, rngs: nnx.BatchNorm(inputs.classes, rngs=rngs),
            )
        ),
        r"state that is not parameters: norm\.mean \(BatchStat\), norm\.var \(BatchStat\)",
    ),
    "cache": (
        lambda: _nnx(
            _around(
                lambda net, x: net.embed(x),
                cache=lambda inputs, rngs: nnx.Cache(jnp.zeros(3)),
            )
        ),
        r"state that is not parameters: cache \(Cache\)",
    ),
    "shape from the seed": (
        lambda: _nnx(
            _around(
                **_RUNS,
                wide=lambda inputs, rngs: nnx.Linear(
                    3, 2 + int(jax.random.randint(rngs.params(), (), 0, 9)), rngs=rngs
                ),
            )
        ),
        r"shapes depend on its random numbers; every seed must have the same",
    ),
    "shape from numpy": (
        lambda: _nnx(
            _around(
                **_RUNS,
                wide=lambda inputs, rngs: nnx.Linear(3, int(_RNG.integers(2, 1000)), rngs=rngs),
            )
        ),
        r"two different networks from the same settings: wide\.(kernel|bias) has the shape",
    ),
    "another shape": (
        lambda: _nnx(_around(lambda net, x: net.embed(x).sum(axis=0))),
        r"of the shape \(2, 3\) the network returned the shape \(3, 7\).*\(2, 3, 7\)",
    ),
    "a tuple": (
        lambda: _nnx(_around(lambda net, x: (net.embed(x), x))),
        r"the network returned tuple\. It must return \[batch position class\]",
    ),
    "too few classes": (
        lambda: _nnx(_around(lambda net, x: net.embed(x)[..., :3])),
        r"returned the shape \(2, 3, 3\)",
    ),
    "two of one name": (
        lambda: _nnx(
            _around(**_RUNS, wide=_dense), names=lambda self: {"wide.kernel": "embed.embedding"}
        ),
        r"parameters embed\.embedding and wide\.kernel would be stored as embed\.embedding",
    ),
    "a name within another": (
        lambda: _nnx(_around(**_RUNS, wide=_dense), names=lambda self: {"wide.kernel": "embed"}),
        r"would be stored as embed\.embedding and embed\. Give each a name",
    ),
    "a name that is not there": (
        lambda: _nnx(_around(**_RUNS), names=lambda self: {"embed.table": "W_E"}),
        r"names renames 'embed\.table', which is no parameter",
    ),
    "a missing site of a role": (
        lambda: _nnx(_around(**_RUNS), roles=lambda self, inputs: Roles(neurons="hidden")),
        r"neurons names the site 'hidden', which the network does not have",
    ),
    "a missing parameter of a role": (
        lambda: _nnx(
            _around(**_RUNS), roles=lambda self, inputs: Roles(output_map=lambda p: p["W_U"])
        ),
        r"output_map cannot be read from the parameters \(KeyError: 'W_U'\)\. They are embed\.emb",
    ),
    "an error of its own": (
        lambda: _nnx(_around(lambda net, x: net.embed(x) @ jnp.zeros((3, 3)))),
        r"Own\.module could not make the network or call it on a batch \(TypeError: .*dot",
    ),
    "dims of no site": (
        lambda: _nnx(_around(**_RUNS), site_dims=lambda self: {"embde": ("batch",)}),
        r"site_dims names 'embde', which is no site of the network; did you mean embed",
    ),
    "whole numbers": (
        lambda: _nnx(
            _around(**_RUNS, count=lambda inputs, rngs: nnx.Param(jnp.zeros(3, jnp.int32)))
        ),
        r"the parameter count is of the type int32",
    ),
}


@pytest.mark.parametrize("case", _BAD)
def test_a_network_that_cannot_be_trained_is_refused_in_a_sentence(case: str) -> None:
    make, message = _BAD[case]
    with pytest.raises(ConfigError, match=message):
        make().build(INPUTS)


def test_one_position_is_not_enough_where_the_task_reads_several() -> None:
    architecture = _nnx(_around(lambda net, x: net.embed(x)[:, -1]))
    model = architecture.build(INPUTS)
    params = model.init(jax.random.key(0))
    assert model.apply(params, TOKENS, positions=(2,)).shape == (5, 1, 7)
    with pytest.raises(ConfigError, match=r"one position, and the task reads the positions \[1, 2"):
        model.apply(params, TOKENS, positions=(1, 2))


class _StatefulNet(eqx.Module):
    norm: eqx.nn.BatchNorm
    out: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        return self.out(x)


class _TiedNet(eqx.Module):
    table: jax.Array
    again: jax.Array
    order: jax.Array

    def __call__(self, tokens: Any) -> Any:
        return self.table[tokens] @ self.again.T[:, self.order]


def test_equinox_refuses_state_and_keeps_tied_arrays_and_whole_numbers() -> None:
    @dataclass(frozen=True)
    class Stateful(EquinoxModule):
        def module(self, inputs: Inputs, rngs: Any) -> Any:
            norm = eqx.nn.BatchNorm(3, "batch", mode="ema")
            return _StatefulNet(norm, eqx.nn.Linear(3, 7, key=rngs))

    with pytest.raises(ConfigError, match=r"state that is not parameters: norm\..* \(State\)"):
        Stateful().build(INPUTS)

    @dataclass(frozen=True)
    class Tied(EquinoxModule):
        draws: bool = False

        def module(self, inputs: Inputs, rngs: Any) -> Any:
            table = jax.random.normal(rngs, (inputs.vocabulary, 4))
            order = jnp.arange(inputs.vocabulary)[::-1]
            order = jax.random.permutation(rngs, order) if self.draws else order
            return _TiedNet(table, table, order)

    model = Tied().build(INPUTS)
    params = model.init(jax.random.key(0))
    assert list(params) == ["table"]
    table = np.asarray(params["table"])
    expected = table[TOKENS] @ table.T[:, ::-1]
    np.testing.assert_allclose(model.apply(params, TOKENS), expected, atol=1e-6)
    with pytest.raises(ConfigError, match="draws arrays of whole numbers from its key"):
        Tied(draws=True).build(INPUTS)


def test_linen_refuses_collections_beside_the_parameters() -> None:
    class Net(linen.Module):
        @linen.compact
        def __call__(self, tokens: Any) -> Any:
            x = linen.Embed(8, 7, name="embed")(tokens)
            return linen.BatchNorm(use_running_average=True, name="norm")(x)

    @dataclass(frozen=True)
    class Own(LinenModule):
        def module(self, inputs: Inputs, rngs: Any) -> Any:
            return Net()

    with pytest.raises(ConfigError, match=r"norm\.mean \(batch_stats\)"):
        Own().build(INPUTS)


def test_a_mark_is_an_identity_outside_of_a_run() -> None:
    value = object()
    assert Here()(value) is value
