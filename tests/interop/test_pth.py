"""Checkpoints of torch are read equal to what was saved, run nothing, and convert to weights of the
same function.
"""

import contextlib
import dataclasses
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest

from mi_jax.basics.errors import ConfigError, WeightsError
from mi_jax.basics.pytrees import dotted
from mi_jax.interop.nanda import convert, main, row_vectors
from mi_jax.interop.pth import Record, read_pth
from mi_jax.models import Transformer
from mi_jax.runs.library import find
from mi_jax.runs.weights import load_weights
from mi_jax.tasks import ModularArithmetic

# --- torch.save, written out


@dataclasses.dataclass(eq=False)
class _Storage:
    word: str
    values: np.ndarray


@dataclasses.dataclass(eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    metadata: Any = None


@dataclasses.dataclass(eq=False)
class _Parameter:
    tensor: _Tensor


def _named(module: str, name: str) -> type:
    return type(name, (), {"__module__": module, "__qualname__": name})


_WORDS = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_NAMES = {
    "torch": (
        "Size",
        "device",
        "float32",
        "BFloat16Storage",
        *(f"{word}Storage" for word in _WORDS),
    ),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
}
_MODULES = {module: types.ModuleType(module) for module in _NAMES}
"""Modules that pickle must find to write torch's names. They exist while it writes, and not when it
is read.
"""
for _module, _names in _NAMES.items():
    _MODULES[_module].__dict__.update({name: _named(_module, name) for name in _names})


def _torch(name: str, module: str = "torch") -> Any:
    return getattr(_MODULES[module], name)


class _Pickler(pickle.Pickler):
    """Pickles as torch does: storages by reference, tensors and Parameters by the functions that
    rebuild them.
    """

    def __init__(self, file: Any, stream: bool):
        super().__init__(file, protocol=2)
        self.stream, self.storages = stream, {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        key = next(
            (key for key, storage in self.storages.items() if storage is obj),
            str(len(self.storages)),
        )
        self.storages[key] = obj
        numel = obj.values.size
        return (
            "storage",
            _torch(f"{obj.word}Storage"),
            key,
            "cuda:0",
            numel,
            *((None,) if self.stream else ()),
        )

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Tensor):
            return _torch("_rebuild_tensor_v2", "torch._utils"), (
                obj.storage,
                obj.offset,
                obj.size,
                obj.stride,
                False,
                OrderedDict(),
                *(() if obj.metadata is None else (obj.metadata,)),
            )
        if isinstance(obj, _Parameter):
            return _torch("_rebuild_parameter", "torch._utils"), (obj.tensor, True, OrderedDict())
        return NotImplemented


def _pickled(data: Any, stream: bool = False) -> tuple[bytes, dict[str, _Storage]]:
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, stream)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in _MODULES.items():
            patch.setitem(sys.modules, name, module)
        pickler.dump(data)
    return buffer.getvalue(), pickler.storages


def _zip(file: Path, pickled: bytes, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{file.stem}/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"{file.stem}/{name}", content)
    return file


def _save_zip(file: Path, data: Any, order: str | None = "little") -> Path:
    pickled, storages = _pickled(data)
    marks: dict[str | None, Literal["<", ">"]] = {"little": "<", "big": ">", None: "<"}
    members = {
        f"data/{key}": storage.values.astype(
            storage.values.dtype.newbyteorder(marks[order])
        ).tobytes()
        for key, storage in storages.items()
    }
    return _zip(
        file,
        pickled,
        {"version": b"3\n", **members, **({"byteorder": order.encode()} if order else {})},
    )


def _save_stream(file: Path, data: Any) -> Path:
    pickled, storages = _pickled(data, stream=True)
    content = (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + pickle.dumps({"little_endian": True}, 2)
        + pickled
    )
    content += pickle.dumps(sorted(storages), 2)
    for key in sorted(storages):
        content += struct.pack("<q", storages[key].values.size) + storages[key].values.tobytes()
    file.write_bytes(content)
    return file


_FORMATS = {"zip": _save_zip, "stream": _save_stream}


@pytest.fixture(params=_FORMATS)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Writes to a file in one of torch's formats."""
    return lambda data: _FORMATS[request.param](tmp_path / "saved.pth", data)


def _tensor(x: np.ndarray) -> _Tensor:
    """A contiguous tensor with a storage of its own."""
    words = {dtype: word for word, dtype in _WORDS.items()}
    strides = tuple(int(np.prod(x.shape[i + 1 :])) for i in range(x.ndim))
    return _Tensor(_Storage(words[str(x.dtype)], x.ravel()), 0, x.shape, strides)


# --- Reading


@pytest.mark.parametrize("dtype", _WORDS.values())
def test_every_dtype_comes_back_bit_for_bit(save: Any, dtype: str) -> None:
    x = np.arange(-3, 9).astype(dtype).reshape(3, 4)
    read = read_pth(save({"x": _tensor(x)}))["x"]
    assert read.dtype == x.dtype
    np.testing.assert_array_equal(read, x)


def test_a_bfloat16_is_the_upper_half_of_a_float32(save: Any) -> None:
    values = np.array([1.5, -2.0, 0.0, 3.0e38], np.float32)
    storage = _Storage("BFloat16", np.array([0x3FC0, 0xC000, 0x0000, 0x7F62], np.uint16))
    read = read_pth(save(_Tensor(storage, 0, (4,), (1,))))
    assert read.dtype.name == "bfloat16"
    np.testing.assert_allclose(read.astype(np.float32), values, rtol=2**-8)


def test_offsets_and_strides_pick_the_elements_that_they_name(save: Any) -> None:
    flat = np.arange(24, dtype=np.float32)
    storage = _Storage("Float", flat)
    tensors = {
        "transposed": _Tensor(storage, 0, (6, 4), (1, 6)),
        "every third from 5": _Tensor(storage, 5, (4,), (3,)),
        "expanded": _Tensor(storage, 2, (3, 4), (0, 1)),
        "number": _Tensor(storage, 7, (), ()),
        "middle": _Tensor(storage, 1, (2, 2, 2), (12, 2, 6)),
        "last": _Tensor(storage, 23, (1, 1), (24, 1)),
    }
    read = read_pth(save(tensors))
    for name, tensor in tensors.items():
        expected = np.zeros(tensor.size, np.float32)
        for index in np.ndindex(*tensor.size):
            expected[index] = flat[
                tensor.offset + sum(i * s for i, s in zip(index, tensor.stride, strict=True))
            ]
        np.testing.assert_array_equal(read[name], expected, err_msg=name)
    assert read["number"].shape == ()


def test_an_empty_tensor_keeps_its_shape(save: Any) -> None:
    empty = _Tensor(_Storage("Float", np.zeros(0, np.float32)), 0, (0, 3), (3, 1))
    assert read_pth(save([empty, _tensor(np.ones(2))]))[0].shape == (0, 3)


def test_tensors_of_one_storage_share_memory_and_others_do_not(save: Any) -> None:
    storage = _Storage("Double", np.arange(4.0))
    a, b, c = read_pth(
        save(
            [
                _Tensor(storage, 0, (4,), (1,)),
                _Tensor(storage, 0, (2, 2), (1, 2)),
                _tensor(np.arange(4.0)),
            ]
        )
    )
    a[1] = 10
    assert b[1, 0] == 10
    assert c[1] == 1


def test_the_neg_and_conj_bits_of_a_tensor_are_applied(save: Any) -> None:
    z = np.array([1.5 + 2j, -0.5j, 3.0 - 1j], np.complex64)
    x = np.array([0.25, -1.0, 7.0], np.float32)
    plain, real = _tensor(z), _tensor(x)

    def marked(tensor: _Tensor, **metadata: bool) -> _Tensor:
        return dataclasses.replace(tensor, metadata=metadata)

    # The stored memory is of the tensor before the bits: torch.save(z.conj().imag) has neg=True.
    saved = {
        "neg": marked(real, neg=True),
        "conj": marked(plain, conj=True),
        "both": marked(plain, conj=True, neg=True),
        "none": marked(real),
        "off": marked(real, neg=False, conj=False),
        "plain": real,
        "parameter": _Parameter(marked(real, neg=True)),
    }
    read = read_pth(save(saved))
    expected = {
        "neg": -x,
        "conj": z.conj(),
        "both": -z.conj(),
        "none": x,
        "off": x,
        "plain": x,
        "parameter": -x,
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)
        assert read[name].dtype == value.dtype


@pytest.mark.parametrize("metadata", [{"zero": True}, {"neg": 3}, ["neg"], "neg"])
def test_a_tensor_with_an_unknown_property_is_refused(save: Any, metadata: Any) -> None:
    tensor = dataclasses.replace(_tensor(np.ones(2, np.float32)), metadata=metadata)
    with pytest.raises(WeightsError, match=r"saved\.pth"):
        read_pth(save({"x": tensor}))


def test_a_parameter_is_its_tensor_and_an_ordered_dict_keeps_its_order_without_its_attributes(
    save: Any,
) -> None:
    state = OrderedDict(z=_Parameter(_tensor(np.arange(3.0))), a=_tensor(np.arange(2)))
    state._metadata = OrderedDict({"": {"version": 1}})  # pyright: ignore[reportAttributeAccessIssue]
    read = read_pth(save(state))
    assert isinstance(read, dict)
    assert list(read) == ["z", "a"]
    np.testing.assert_array_equal(read["z"], np.arange(3.0))
    assert not hasattr(read, "_metadata")


def test_plain_data_comes_back_as_it_was(save: Any) -> None:
    data = {
        "losses": [0.1, 1e-300],
        "epoch": 2**40,
        "text": "é",
        "none": None,
        "pair": (True, -1.5),
        3: {},
        "type": _torch("float32"),
    }
    assert read_pth(save(data)) == {**data, "type": "float32"}


@pytest.mark.parametrize("order", ["little", "big", None])
def test_bytes_are_read_in_the_order_that_the_zip_says_or_little(
    tmp_path: Path, order: str | None
) -> None:
    x = np.array([[1.5, -2.0], [3.0, 1e-3]], np.float32)
    np.testing.assert_array_equal(read_pth(_save_zip(tmp_path / "x.pth", _tensor(x), order)), x)


# --- What isn't read


@dataclasses.dataclass(frozen=True)
class _Config:
    """A published config: building or restoring one would be seen."""

    lr: float = 1e-3
    size: Any = None

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("restored")


class _List(list[int]):
    pass


def test_an_unknown_object_is_an_inert_record_of_its_state(save: Any) -> None:
    record = read_pth(save({"config": _Config(0.5, _tensor(np.arange(3.0)))}))["config"]
    assert isinstance(record, Record)
    assert record.name == f"{__name__}._Config"
    assert record.args == ()
    assert record.state["lr"] == 0.5
    np.testing.assert_array_equal(record.state["size"], np.arange(3.0))
    assert "_Config" in repr(record)


def test_a_record_keeps_what_would_have_been_appended_or_set(save: Any) -> None:
    ordered = read_pth(save([_List([1, 2]), types.SimpleNamespace(a=1), _Config]))
    assert ordered[0].items == [1, 2]
    assert ordered[1].state == {"a": 1}
    assert issubclass(ordered[2], Record)
    assert ordered[2].name.endswith("_Config")


_CALLS = {
    "posix system": b"cposix\nsystem\n(X\x0d\x00\x00\x00touch touchedtR.",
    "os system": b"cos\nsystem\n(X\x0d\x00\x00\x00touch touchedtR.",
    "builtins exec": b"cbuiltins\nexec\n(X\x1b\x00\x00\x00open('touched','w').close()tR.",
    "builtins open, by INST": b"(X\x07\x00\x00\x00touchedX\x01\x00\x00\x00wibuiltins\nopen\n.",
    "builtins open, by OBJ": b"(cbuiltins\nopen\nX\x07\x00\x00\x00touchedX\x01\x00\x00\x00wo.",
    "a dotted name": b"\x80\x04\x8c\x0emi_jax.interop\x8c\x0cpth.os.mkdir\x93\x8c\x07touched\x85R.",
    "getattr": (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(X\x02\x00\x00\x00ostR"
        b"X\x05\x00\x00\x00mkdirtR(X\x07\x00\x00\x00touchedtR."
    ),
}


@pytest.mark.parametrize("attack", _CALLS)
def test_a_pickle_that_calls_something_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = _zip(tmp_path / "bad.pth", _CALLS[attack], {})
    if attack == "getattr":
        with pytest.raises(
            WeightsError, match="not callable"
        ):  # what it got is the record of a call
            read_pth(file)
    else:
        assert "touched" in str(read_pth(file).args)
    assert os.listdir() == ["bad.pth"]


@pytest.mark.parametrize("attack", _CALLS)
def test_pickle_itself_would_have_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    returned = pickle.loads(_CALLS[attack])
    if "open" in attack:
        returned.close()
    assert os.listdir() == ["touched"]


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch touched",)


def test_a_call_deep_in_a_checkpoint_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    record = read_pth(save({"model": OrderedDict(a=[_Malicious()])}))["model"]["a"][0]
    assert (record.name.rpartition(".")[2], record.args) == ("system", ("touch touched",))
    assert os.listdir() == ["saved.pth"]


_GIVEN = {
    "the function that rebuilds tensors": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n",
    "the function that rebuilds Parameters": b"\x80\x02ctorch._utils\n_rebuild_parameter\n",
    "the dict": b"\x80\x02ccollections\nOrderedDict\n",
    "a dtype": b"\x80\x02ctorch\nfloat32\n",
    "a record's class": b"\x80\x02cos\nsystem\n",
}
_SET_ATTRIBUTE = b"}X\x01\x00\x00\x00aK\x01sb."
_SET_DEFAULTS = b"N}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."


@pytest.mark.parametrize("change", [_SET_ATTRIBUTE, _SET_DEFAULTS], ids=["attribute", "defaults"])
@pytest.mark.parametrize("given", _GIVEN)
def test_a_pickle_that_changes_what_it_was_given_changes_no_later_reading(
    tmp_path: Path, given: str, change: bytes
) -> None:
    with contextlib.suppress(WeightsError):
        read_pth(_zip(tmp_path / "bad.pth", _GIVEN[given] + change, {}))
    later = read_pth(_zip(tmp_path / "later.pth", _GIVEN[given] + b".", {}))
    assert not hasattr(later, "a")
    assert getattr(later, "__defaults__", None) is None


# --- Files that can't be read


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (6, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 3), (4, 1)),
        (0, (-1,), (1,)),
        (0, (2**62,), (1,)),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(
    save: Any, offset: int, size: Any, stride: Any
) -> None:
    with pytest.raises(WeightsError, match=r"saved\.pth"):
        read_pth(
            save(_Tensor(_Storage("Float", np.arange(6, dtype=np.float32)), offset, size, stride))
        )


def test_a_cut_or_missing_storage_is_named(tmp_path: Path) -> None:
    pickled, _ = _pickled(_tensor(np.arange(3.0)))
    with pytest.raises(WeightsError, match=r"lacks x/data/0"):
        read_pth(_zip(tmp_path / "x.pth", pickled, {}))
    with pytest.raises(WeightsError, match=r"16 bytes for storage 0, which is 3 of float64"):
        read_pth(_zip(tmp_path / "x.pth", pickled, {"data/0": bytes(16)}))


def test_a_stream_without_the_storages_of_its_tensors_is_refused(tmp_path: Path) -> None:
    whole = _save_stream(
        tmp_path / "x.pth", [_tensor(np.arange(3.0)), _tensor(np.arange(2.0))]
    ).read_bytes()
    keys = pickle.dumps(["0", "1"], 2)
    (tmp_path / "x.pth").write_bytes(whole.replace(keys, pickle.dumps(["0"], 2)))
    with pytest.raises(WeightsError, match=r"lacks the storages \['1'\]"):
        read_pth(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(whole.replace(b"K\x03N", b"J\xff\xff\xff\x7fN"))
    with pytest.raises(WeightsError, match="too short for its storage 0"):
        read_pth(tmp_path / "x.pth")


def test_a_tensor_of_something_else_than_a_storage_is_refused(tmp_path: Path) -> None:
    call = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\nK\x00K\x01\x85K\x01\x85tR."
    with pytest.raises(WeightsError, match=r"Cannot read .*x\.pth as a checkpoint"):
        read_pth(_zip(tmp_path / "x.pth", call, {}))


@pytest.mark.parametrize(
    ("numel", "view", "message"),
    [
        (b"K\x02", b"(X\x01\x00\x00\x001K\x00K\x02t", "other than a storage of a known type"),
        (b"J\xff\xff\xff\xff", b"N", "storage 0 is -1"),
    ],
    ids=["a view of another storage", "less than nothing"],
)
def test_an_invalid_description_of_a_storage_is_refused(
    tmp_path: Path, numel: bytes, view: bytes, message: str
) -> None:
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + numel
        + view
        + b"tQ."
    )
    with pytest.raises(WeightsError, match=message):
        read_pth(_zip(tmp_path / "x.pth", b"\x80\x02" + storage, {"data/0": bytes(8)}))


def test_a_size_is_a_tuple(tmp_path: Path) -> None:
    size = read_pth(_zip(tmp_path / "x.pth", b"\x80\x02ctorch\nSize\nK\x02K\x03\x86\x85R.", {}))
    assert size == (2, 3)


def test_a_truncated_file_raises_weights_error(save: Any) -> None:
    file = save({"model": OrderedDict(x=_tensor(np.arange(3.0))), "losses": [1.0, 2.0]})
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"saved\.pth"):
            read_pth(file)


def test_damaged_bytes_raise_weights_error_or_give_other_data(tmp_path: Path) -> None:
    pickled, storages = _pickled(
        {"model": OrderedDict(x=_Parameter(_tensor(np.arange(3.0)))), "config": _Config()}
    )
    rng, failed = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(pickled)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            read_pth(
                _zip(tmp_path / "x.pth", bytes(damaged), {"data/0": storages["0"].values.tobytes()})
            )
        except WeightsError:
            failed += 1
    assert 50 < failed < 300


@pytest.mark.parametrize(
    "hungry", [b"]r\xff\xff\xff\xff.", b"\x96" + bytes([0, 0, 0, 0, 0, 0, 0, 64]) + b"abc."]
)
def test_a_pickle_that_asks_for_all_memory_is_refused_before_it_gets_any(
    tmp_path: Path, hungry: bytes
) -> None:
    with pytest.raises(WeightsError, match=r"writes to memo index 4294967295|but only 4 remain"):
        read_pth(_zip(tmp_path / "x.pth", hungry, {}))


def test_one_storage_of_two_types_is_refused(save: Any) -> None:
    class Chameleon(_Storage):
        word = property(lambda self: next(self.words), lambda self, value: None)  # pyright: ignore[reportAssignmentType]

    storage = Chameleon("Float", np.arange(2, dtype=np.float32))
    storage.words = iter(["Float", "Int"])  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        WeightsError, match="describes storage 0 both as 2 of int32 and as 2 of float32"
    ):
        read_pth(save([_Tensor(storage, 0, (2,), (1,)), _Tensor(storage, 0, (1,), (1,))]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "neither the zip nor the older stream"),
        (b"", "neither the zip nor the older stream"),
        (pickle.dumps({"a": 1}, 2), "not the stream"),
        (b"PK\x03\x04 and nothing else", "BadZipFile"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_pth(tmp_path / "x.pth")


def test_a_missing_file_and_a_zip_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_pth(tmp_path / "none.pth")
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with pytest.raises(WeightsError, match=r"without a NAME/data\.pkl"):
        read_pth(tmp_path / "x.npz")


# --- Nanda et al.

_P, _D, _HEADS, _E, _M = 5, 8, 2, 3, 12


def _column_vectors(layers: int = 1) -> dict[str, np.ndarray]:
    """A state dict of the published code's shapes, no two of its sizes equal."""
    rng = np.random.default_rng(0)
    shapes = {"embed.W_E": (_D, _P + 1), "pos_embed.W_pos": (3, _D)}
    for layer in range(layers):
        attn = {f"W_{letter}": (_HEADS, _E, _D) for letter in "KQV"} | {
            "W_O": (_D, _HEADS * _E),
            "mask": (3, 3),
        }
        shapes |= {f"blocks.{layer}.attn.{name}": shape for name, shape in attn.items()}
        mlp = {"W_in": (_M, _D), "b_in": (_M,), "W_out": (_D, _M), "b_out": (_D,)}
        shapes |= {f"blocks.{layer}.mlp.{name}": shape for name, shape in mlp.items()}
    shapes["unembed.W_U"] = (_D, _P + 1)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def _checkpoint(state: Mapping[str, np.ndarray], **entries: Any) -> dict[str, Any]:
    tensors = OrderedDict((name, _tensor(x)) for name, x in state.items())
    tensors._metadata = OrderedDict()  # pyright: ignore[reportAttributeAccessIssue]
    optimizer = {
        "state": {0: {"step": 3, "exp_avg": _tensor(np.zeros(2, np.float32))}},
        "param_groups": [{"lr": 1e-3}],
    }
    return {"model": tensors, "config": _Config(), "optimizer": optimizer, **entries}


def _model(layers: int = 1) -> Any:
    task = ModularArithmetic(p=_P, fraction=0.5)
    return Transformer(layers=layers, d_model=_D, heads=_HEADS, d_head=_E, d_mlp=_M).build(
        task.inputs
    )


def _column_logits(
    state: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    layers: int,
    heads: int = _HEADS,
    width: int = _E,
) -> np.ndarray:
    """Logits [pair position class] in float64 by matrices that act on column vectors, head by head,
    position by position.
    """
    w = {name: x.astype(np.float64) for name, x in state.items()}
    logits = []
    for sequence in tokens:
        x = w["embed.W_E"][:, sequence] + w["pos_embed.W_pos"].T
        for block in (f"blocks.{layer}." for layer in range(layers)):
            z = np.zeros((heads * width, 3))
            for head in range(heads):
                q, k, v = (w[f"{block}attn.W_{letter}"][head] @ x for letter in "QKV")
                for query in range(3):
                    scores = np.exp(k[:, : query + 1].T @ q[:, query] / np.sqrt(width))
                    z[head * width : (head + 1) * width, query] = v[:, : query + 1] @ (
                        scores / scores.sum()
                    )
            x = x + w[f"{block}attn.W_O"] @ z
            post = np.maximum(w[f"{block}mlp.W_in"] @ x + w[f"{block}mlp.b_in"][:, None], 0)
            x = x + w[f"{block}mlp.W_out"] @ post + w[f"{block}mlp.b_out"][:, None]
        logits.append((w["unembed.W_U"].T @ x).T)
    return np.stack(logits)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_converted_weights_are_the_same_function(
    save: Any, tmp_path: Path, layers: int
) -> None:
    state = _column_vectors(layers)
    file = convert(save(_checkpoint(state)), tmp_path / "w.npz")
    params, ignored = load_weights(file, _model(layers))
    assert ignored == []
    tokens = np.array([[a, b, _P] for a in range(_P) for b in range(_P)])
    logits = _model(layers).apply(
        jax.tree.map(jax.numpy.asarray, params), jax.numpy.asarray(tokens)
    )
    expected = _column_logits(state, tokens, layers)
    np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def test_every_array_is_exactly_the_element_that_the_docstring_names(
    save: Any, tmp_path: Path
) -> None:
    state = _column_vectors()
    params, _ = load_weights(convert(save(_checkpoint(state)), tmp_path / "w.npz"), _model())
    read = dotted(params)
    assert set(read) == set(state) - {"blocks.0.attn.mask"}
    W_O = state["blocks.0.attn.W_O"]
    for (h, e, d), value in np.ndenumerate(read["blocks.0.attn.W_O"]):
        assert value == W_O[d, h * _E + e]
    for letter in "QKV":
        for (h, d, e), value in np.ndenumerate(read[f"blocks.0.attn.W_{letter}"]):
            assert value == state[f"blocks.0.attn.W_{letter}"][h, e, d]
    for name in ("embed.W_E", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"):
        for (i, j), value in np.ndenumerate(read[name]):
            assert value == state[name][j, i]
    for name in ("pos_embed.W_pos", "unembed.W_U", "blocks.0.mlp.b_in", "blocks.0.mlp.b_out"):
        np.testing.assert_array_equal(read[name], state[name])


def test_losses_come_along_as_float64_and_the_rest_stays_behind(save: Any, tmp_path: Path) -> None:
    entries = {
        "train_losses": [3.0, 1 / 3],
        "test_losses": [_tensor(np.array(1e-9)), 2],
        "train_loss": 1.0,
        "epoch": 7,
    }
    file = convert(save(_checkpoint(_column_vectors(), **entries)), tmp_path / "w.npz")
    _, ignored = load_weights(file, _model())
    assert ignored == ["test_losses", "train_losses"]
    with np.load(file) as arrays:
        assert arrays["train_losses"].dtype == np.float64
        assert arrays["train_losses"].tolist() == [3.0, 1 / 3]
        assert arrays["test_losses"].tolist() == [1e-9, 2.0]


def _square() -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """A state dict with square W_O, W_in and W_out that solves addition mod 5, and its losses."""
    rng = np.random.default_rng(3)
    d, p = 32, 5
    shapes = {
        "embed.W_E": (d, p + 1),
        "pos_embed.W_pos": (3, d),
        **{f"blocks.0.attn.W_{letter}": (4, 8, d) for letter in "KQV"},
        "blocks.0.attn.W_O": (d, d),
        "blocks.0.mlp.W_in": (d, d),
        "blocks.0.mlp.b_in": (d,),
        "blocks.0.mlp.W_out": (d, d),
        "blocks.0.mlp.b_out": (d,),
    }
    state = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    pairs = np.array([[a, b, p] for a in range(p) for b in range(p)])
    answers = np.eye(p + 1)[pairs[:, :2].sum(axis=1) % p]
    # With the identity as W_U the logits are the residual stream: 32 numbers tell 25 pairs apart.
    stream = _column_logits({**state, "unembed.W_U": np.eye(d)}, pairs, 1, heads=4, width=8)[:, -1]
    state["unembed.W_U"] = np.linalg.pinv(stream) @ (10 * answers)
    logits = (stream @ state["unembed.W_U"])[:, :p]
    losses = np.log(np.exp(logits).sum(axis=1)) - (logits * answers[:, :p]).sum(axis=1)
    assert losses.max() < 1e-3
    state = {name: np.ascontiguousarray(x, np.float32) for name, x in state.items()}
    last = float(losses.mean())
    return state, {"train_losses": [9.0, 0.9 * last], "test_losses": [9.0, 1.1 * last]}


def test_square_matrices_are_taken_where_the_files_own_losses_say_so(
    save: Any, tmp_path: Path
) -> None:
    state, losses = _square()
    convert(save(_checkpoint(state, **losses)), tmp_path / "w.npz")
    convert(save(_checkpoint(state)), tmp_path / "w.npz")
    # Losses that no order of the matrices gives, as of another task, decide nothing.
    convert(save(_checkpoint(state, train_losses=[1e-9], test_losses=[2e-9])), tmp_path / "w.npz")


@pytest.mark.parametrize(
    "transposed",
    [("attn.W_O",), ("mlp.W_in",), ("mlp.W_out",), ("attn.W_O", "mlp.W_in", "mlp.W_out")],
)
def test_square_matrices_for_row_vectors_are_refused_by_the_files_own_losses(
    save: Any, tmp_path: Path, transposed: tuple[str, ...]
) -> None:
    state, losses = _square()
    for name in transposed:
        state[f"blocks.0.{name}"] = np.ascontiguousarray(state[f"blocks.0.{name}"].T)
    names = ", ".join(name.rpartition(".")[2] for name in transposed)
    with pytest.raises(WeightsError, match=rf"losses.*{names}.*row vectors"):
        convert(save(_checkpoint(state, **losses)), tmp_path / "w.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["saved.pth"]


def test_a_bare_state_dict_converts_too(save: Any, tmp_path: Path) -> None:
    file = save(_checkpoint(_column_vectors())["model"])
    load_weights(convert(file, tmp_path / "w.npz"), _model())


def test_the_published_weights_come_back_from_a_checkpoint_of_the_published_layout(
    published: Path, tmp_path: Path
) -> None:
    with np.load(published / "nanda_mod_add_wd0.1.npz") as file:
        arrays = {name: file[name] for name in file.files}
    state = {name: x for name, x in arrays.items() if "." in name}
    for name in ("embed.W_E", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"):
        state[name] = np.ascontiguousarray(state[name].T)
    for letter in "QKV":
        state[f"blocks.0.attn.W_{letter}"] = np.ascontiguousarray(
            state[f"blocks.0.attn.W_{letter}"].transpose(0, 2, 1)
        )
    state["blocks.0.attn.W_O"] = np.ascontiguousarray(
        state["blocks.0.attn.W_O"].reshape(128, 128).T
    )
    losses = {name: arrays[name].tolist() for name in ("train_losses", "test_losses")}
    out = convert(
        _save_zip(tmp_path / "published.pth", _checkpoint(state, **losses)), tmp_path / "w.npz"
    )
    load_weights(out, find("nanda_2023").build())
    turned = {**state, "blocks.0.attn.W_O": state["blocks.0.attn.W_O"].T.copy()}
    with pytest.raises(WeightsError, match=r"losses.*W_O.*row vectors"):
        convert(_save_zip(tmp_path / "turned.pth", _checkpoint(turned, **losses)), tmp_path / "x")
    with np.load(out) as file:
        assert set(file.files) == {name for name in arrays if "." in name or name in losses}
        for name in file.files:
            assert file[name].dtype == arrays[name].dtype
            np.testing.assert_array_equal(file[name], arrays[name])


_WRONG = {
    "a missing array": (lambda s: s.pop("blocks.0.attn.W_V"), r"lacks blocks\.0\.attn\.W_V"),
    "an array of another model": (
        lambda s: s.update({"ln.w": np.ones(8, np.float32)}),
        r"has ln\.w, which is no array",
    ),
    "row vectors": (
        lambda s: s.update({"embed.W_E": s["embed.W_E"].T}),
        r"has .* where d_model is 6 elsewhere",
    ),
    "heads that don't fit": (
        lambda s: s.update({"blocks.0.attn.W_O": np.ones((8, 8), np.float32)}),
        r"8 = head \* d_head, W_Q for 2 \* 3",
    ),
    "other dims": (
        lambda s: s.update({"blocks.0.attn.W_Q": np.ones((6, 8), np.float32)}),
        r"\[6, 8\] with 2 dims instead of head, d_head",
    ),
    "whole numbers": (
        lambda s: s.update({"unembed.W_U": np.ones((8, 6), np.int64)}),
        r"unembed\.W_U as int64",
    ),
    "a gap in the blocks": (
        lambda s: s.update({"blocks.2.mlp.b_in": np.ones(12, np.float32)}),
        r"lacks blocks\.1\.attn\.W_Q.*has blocks\.2",
    ),
}


@pytest.mark.parametrize("wrong", _WRONG)
def test_a_state_dict_of_another_model_is_refused(save: Any, tmp_path: Path, wrong: str) -> None:
    state = _column_vectors()
    change, message = _WRONG[wrong]
    change(state)
    state = {name: np.ascontiguousarray(x) for name, x in state.items()}
    with pytest.raises(WeightsError, match=message):
        convert(save(_checkpoint(state)), tmp_path / "w.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["saved.pth"]


def test_checkpoints_without_one_model_or_with_odd_losses_are_refused(
    save: Any, tmp_path: Path
) -> None:
    good = _checkpoint(_column_vectors())
    for data, message in (
        ([1.0], "holds a list instead of a dict"),
        (
            {"state_dicts": [good["model"]], "epochs": [0]},
            r"holds 0 state dicts .*state_dicts \(list\), epochs \(list\)",
        ),
        ({**good, "other": good["model"]}, "holds 2 state dicts"),
        ({**good, "train_losses": ["a"]}, "train_losses that are not a list of numbers"),
        ({**good, "train_losses": [_Config()]}, "train_losses that are not a list of numbers"),
        ({**good, "test_losses": 2.0}, r"test_losses of shape \[\]"),
        (
            {"model": {**good["model"], "embed.W_E": _Config()}},
            r"embed\.W_E as Record, which is no floating-point array",
        ),
    ):
        with pytest.raises(WeightsError, match=message):
            convert(save(data), tmp_path / "w.npz")


def test_half_precision_is_widened_exactly() -> None:
    state = {name: x.astype(jax.numpy.bfloat16) for name, x in _column_vectors().items()}
    for name, x in row_vectors(state).items():
        assert x.dtype == np.float32
        assert x.sum() == pytest.approx(float(state[name].astype(np.float64).sum()), rel=1e-5)


def test_the_checkpoint_is_never_replaced_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    file = _save_zip(tmp_path / "saved.pth", _checkpoint(_column_vectors()))
    with pytest.raises(ConfigError, match="is the checkpoint itself"):
        convert(file, tmp_path / "." / "saved.pth")
    with pytest.raises(WeightsError, match="Cannot write"):
        convert(file, tmp_path / "no such folder" / "w.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match="Cannot write"):
        convert(file, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "saved.pth"]


def test_the_command_converts_and_names_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _save_zip(tmp_path / "saved.pth", _checkpoint(_column_vectors()))
    assert main([str(file), str(tmp_path / "w.npz")]) == 0
    assert "mi-jax measure" in capsys.readouterr().out
    load_weights(tmp_path / "w.npz", _model())
    assert main([str(tmp_path / "none.pth"), str(tmp_path / "w.npz")]) == 2
    error = capsys.readouterr().err
    assert "Cannot read" in error
    assert "none.pth" in error
