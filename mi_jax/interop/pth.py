"""PyTorch's checkpoints (torch.save) as NumPy arrays, without torch and without running anything
that the file names.

A checkpoint is a pickle that rebuilds each tensor from a storage (its flat memory), an offset,
sizes and strides. The storages are files of the same zip since torch 1.6; in the older stream they
follow the pickle. A pickle calls whatever it names: here it can name two functions of this file,
dict, tuple and dtypes. Everything else becomes a ``Record`` of what it would be made of.
"""

import io
import os
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from mi_jax.basics.errors import WeightsError

_DTYPES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
}
"""torch's word for a storage's type, and the dtype, which torch and NumPy call by the same name."""

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""How the older stream begins: two pickled numbers."""

Opened: TypeAlias = io.BufferedReader | io.BytesIO
Storage: TypeAlias = Shaped[np.ndarray, " numel"]
Storages: TypeAlias = Callable[[str, np.dtype, int], Storage]
"""The flat memory of a key, given the dtype and the number of elements that the pickle says it has.
"""


class Record:
    """An object of a class that isn't read: what the file says of it, and nothing that acts.

    Attributes:
        name: "module.class", as the file names it. A subclass made for that name stands for the
            class itself.
        args, kwargs: what it would have been called with.
        state: what its ``__setstate__`` (or ``__dict__``) would have been given; of a dataclass,
            the dict of its fields.
        items: what would have been appended, added, or set as (key, value).
    """

    __slots__ = ("args", "items", "kwargs", "state")
    name: ClassVar[str] = "?"

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: Any
    items: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Record":
        """Keeps the arguments."""
        record = super().__new__(cls)
        record.args, record.kwargs, record.state, record.items = args, kwargs, None, []
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        """Keeps an element of what would have been a list."""
        self.items.append(item)

    def add(self, item: Any) -> None:
        """Keeps an element of what would have been a set."""
        self.items.append(item)

    def __repr__(self) -> str:
        return (
            f"<Record of a {self.name}: args={self.args!r}, state={self.state!r},"
            f" items={self.items!r}>"
        )


class _OrderedDict(dict[Any, Any]):
    """A plain dict in the place of an OrderedDict. A state dict's attribute (versions of its
    modules) is left out.
    """

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Admits the names that tensors need; the rest becomes Records.

    A pickle may also set the state of what is in its reach: hence dtypes are strings there, and
        functions are made for each file.
    """

    def __init__(self, opened: Opened, storages: Storages):
        super().__init__(opened)
        self._storages = storages
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _OrderedDict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *description: _tensor(*description[:4]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch.storage", "UntypedStorage"): "uint8",
            **{("torch", f"{word}Storage"): dtype for word, dtype in _DTYPES.items()},
            **{("torch", dtype): dtype for dtype in _DTYPES.values()},
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What stands for a name of the file. Nothing is imported."""
        key = (module_name, global_name)
        if key not in self._known:
            self._known[key] = type(
                "Record", (Record,), {"__slots__": (), "name": f"{module_name}.{global_name}"}
            )
        return self._known[key]

    def persistent_load(self, pid: Any, /) -> Any:
        """The storage that a tensor refers to; of a module's class, its Record."""
        match pid:
            case ("storage", str() as dtype, str() as key, _, int() as numel, *views) if all(
                view is None for view in views
            ):
                if dtype not in _DTYPES.values() or numel < 0:
                    raise pickle.UnpicklingError(f"the storage {key} is {numel} of {dtype!r}")
                return self._storages(key, jnp.dtype(dtype), numel)
            case ("module", kind, *_):
                return kind
        raise pickle.UnpicklingError("it refers to something that is no storage of a known type")


def _load(opened: Opened, storages: Storages) -> Any:
    """The next pickle of an opened file. It is walked through first: a size or memo index past its
    end would take all memory.
    """
    start = opened.tell()
    for opcode, argument, place in pickletools.genops(opened):
        if (
            opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
            and isinstance(argument, int)
            and argument > (place or 0)
        ):
            raise pickle.UnpicklingError(
                f"the pickle puts into place {argument} at its byte {place}"
            )
    opened.seek(start)
    return _Unpickler(opened, storages).load()


def _tensor(storage: Storage, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """The view x[i, j, ...] = storage[offset + i stride_0 + j stride_1 + ...]; NumPy refuses one
    that leaves the storage.
    """
    step = storage.itemsize
    strides = tuple(step * s for s in stride)
    return np.ndarray(
        tuple(size),
        storage.dtype,
        buffer=storage.view(np.uint8),
        offset=step * offset,
        strides=strides,
    )


def read_pth(file: str | os.PathLike[str]) -> Any:
    """What was given to torch.save: dicts, lists, numbers and strings as they were, tensors and
    Parameters as NumPy arrays.

    Arrays whose tensors shared a storage share memory, and have their strides. bfloat16 is
    ml_dtypes'; a dtype is its name; a device or another object is a ``Record``.

    Raises:
        WeightsError: for a file that can't be read, is no checkpoint of torch, or is damaged.
    """
    path = Path(file)
    try:
        with path.open("rb") as opened:
            zipped = opened.read(4) == b"PK\x03\x04"
            opened.seek(0)
            return _read_zip(opened) if zipped else _read_stream(opened, path.stat().st_size)
    except OSError as error:
        raise WeightsError(f"{path} can't be read ({error.strerror or error})") from error
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    # A damaged pickle can fail as anything: it calls the two functions above, and sets items, with
    # whatever it has.
    except Exception as error:
        raise WeightsError(
            f"{path} can't be read as a checkpoint of torch.save ({type(error).__name__}: {error})"
        ) from error


def _read_zip(opened: Opened) -> Any:
    """NAME/data.pkl, NAME/data/KEY for each storage, and NAME/byteorder (little where there is
    none).
    """
    with zipfile.ZipFile(opened) as archive:
        names = set(archive.namelist())
        roots = [
            name.removesuffix("data.pkl")
            for name in names
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise WeightsError(
                "is a zip without a NAME/data.pkl; give a file that torch.save wrote"
            )
        root, read = roots[0], {}
        order = (
            archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in names else "little"
        )

        def storages(key: str, dtype: np.dtype, numel: int) -> Storage:
            member = f"{root}data/{key}"
            if member not in names:
                raise WeightsError(
                    f"has no {member}, which its tensors are made of; fetch it again"
                )
            if key not in read:
                _check_bytes(key, archive.getinfo(member).file_size, dtype, numel)
                read[key] = np.frombuffer(bytearray(archive.read(member)), dtype)
                _to_native(read[key], order)
            return _same(read[key], key, dtype, numel)

        return _load(io.BytesIO(archive.read(f"{root}data.pkl")), storages)


def _read_stream(opened: Opened, size: int) -> Any:
    """Pickles of the magic number, the protocol, the machine, the object and its keys; then by key
    numel and the elements.
    """
    made: dict[str, Storage] = {}

    def storages(key: str, dtype: np.dtype, numel: int) -> Storage:
        if key not in made:
            if sum(one.nbytes for one in made.values()) + numel * dtype.itemsize > size:
                raise WeightsError(f"is too short for its storage {key}; fetch it again")
            made[key] = np.zeros(numel, dtype)
        return _same(made[key], key, dtype, numel)

    if opened.read(1) != b"\x80":
        raise WeightsError("is neither the zip nor the older stream that torch.save writes")
    opened.seek(0)
    for expected in (_MAGIC, _PROTOCOL):
        if _load(opened, storages) != expected:
            raise WeightsError("is a pickle, but not the stream that torch.save writes")
    _, data, keys = (_load(opened, storages) for _ in range(3))
    for key in keys:
        numel = int.from_bytes(opened.read(8), "little")
        raw = opened.read(made[key].nbytes)
        _check_bytes(key, len(raw), made[key].dtype, numel)
        made[key].view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
        _to_native(made[key], "little")
    if set(keys) != set(made):
        raise WeightsError(f"lacks the storages {sorted(set(made) - set(keys))}; fetch it again")
    return data


def _check_bytes(key: str, found: int, dtype: np.dtype, numel: int) -> None:
    if found != numel * dtype.itemsize:
        raise WeightsError(
            f"has {found} bytes for the storage {key}, which is {numel} of {dtype}; fetch it again"
        )


def _same(storage: Storage, key: str, dtype: np.dtype, numel: int) -> Storage:
    """The storage, unless the file now says something else of it."""
    if (storage.dtype, storage.size) != (dtype, numel):
        raise WeightsError(
            f"says that storage {key} is {numel} of {dtype}, and also {storage.size} of"
            f" {storage.dtype}"
        )
    return storage


def _to_native(storage: Storage, order: str) -> None:
    if order != sys.byteorder:
        storage.byteswap(inplace=True)
