"""Reads PyTorch's checkpoints (torch.save) as NumPy arrays.

This needs no torch and runs nothing that the file names. A checkpoint is a pickle that rebuilds
each tensor from a storage (its flat memory), an offset, sizes and strides. Since torch 1.6 the
storages are files of the same zip; in the older stream they follow the pickle. A pickle calls
whatever it names. Here it can name two functions of this file, dict, tuple and dtypes; everything
else becomes a ``Record`` of the object that the pickle describes.
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
"""By torch's word for the type of a storage, the dtype's name, which torch and NumPy share."""

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The two pickled numbers with which the older stream starts."""

Opened: TypeAlias = io.BufferedReader | io.BytesIO
Storage: TypeAlias = Shaped[np.ndarray, " numel"]
Storages: TypeAlias = Callable[[str, np.dtype, int], Storage]
"""(key, dtype, number of elements) -> the flat memory. The pickle states dtype and number, and the
function checks them.
"""


class Record:
    """An inert stand-in for an object of an unknown class: what the file states about it.

    Attributes:
        name: "module.class" as the file names it. The class itself is represented by a subclass of
            ``Record`` with this name.
        args: positional arguments with which the object would have been made.
        kwargs: keyword arguments with which the object would have been made.
        state: the argument of its ``__setstate__``, or its ``__dict__``; for a dataclass, the dict
            of its fields.
        items: values that would have been appended or added, and pairs (key, value) that would have
            been set.
    """

    __slots__ = ("args", "items", "kwargs", "state")
    name: ClassVar[str] = "?"

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: Any
    items: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Record":
        """Stores the arguments."""
        record = super().__new__(cls)
        record.args, record.kwargs, record.state, record.items = args, kwargs, None, []
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        """Stores an element that would have been appended to a list."""
        self.items.append(item)

    def add(self, item: Any) -> None:
        """Stores an element that would have been added to a set."""
        self.items.append(item)

    def __repr__(self) -> str:
        return (
            f"<Record of a {self.name}: args={self.args!r}, state={self.state!r},"
            f" items={self.items!r}>"
        )


class _OrderedDict(dict[Any, Any]):
    """A plain dict in place of an OrderedDict.

    The attributes of a state dict (versions of its modules) are dropped.
    """

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the names that tensors need and turns every other into a Record.

    A pickle can also set the state of any object it can reach. Dtypes are therefore strings here,
    and functions are made anew for each file.
    """

    def __init__(self, opened: Opened, storages: Storages):
        super().__init__(opened)
        self._storages = storages
        self._globals: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _OrderedDict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor_v2"): (
                lambda *description: _with_bits(_tensor(*description[:4]), *description[6:])
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch.storage", "UntypedStorage"): "uint8",
            **{("torch", f"{word}Storage"): dtype for word, dtype in _DTYPES.items()},
            **{("torch", dtype): dtype for dtype in _DTYPES.values()},
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The object that stands for a name in the file. Nothing is imported."""
        key = (module_name, global_name)
        if key not in self._globals:
            self._globals[key] = type(
                "Record", (Record,), {"__slots__": (), "name": f"{module_name}.{global_name}"}
            )
        return self._globals[key]

    def persistent_load(self, pid: Any, /) -> Any:
        """The storage that a tensor refers to, or the Record that stands for a module's class."""
        match pid:
            case ("storage", str() as dtype, str() as key, _, int() as numel, *views) if all(
                view is None for view in views
            ):
                if dtype not in _DTYPES.values() or numel < 0:
                    raise pickle.UnpicklingError(f"storage {key} is {numel} of {dtype!r}")
                return self._storages(key, jnp.dtype(dtype), numel)
            case ("module", kind, *_):
                return kind
        raise pickle.UnpicklingError("it refers to something other than a storage of a known type")


def _load(opened: Opened, storages: Storages) -> Any:
    """Loads the next pickle of an open file.

    The opcodes are read first: a size or memo index beyond the pickle's own end would make the
    unpickler allocate all memory.
    """
    start = opened.tell()
    for opcode, argument, byte in pickletools.genops(opened):
        if (
            opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
            and isinstance(argument, int)
            and argument > (byte or 0)
        ):
            raise pickle.UnpicklingError(
                f"the pickle writes to memo index {argument} at its byte {byte}"
            )
    opened.seek(start)
    return _Unpickler(opened, storages).load()


def _tensor(storage: Storage, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """The view x[i, j, ...] = storage[offset + i stride_0 + j stride_1 + ...] of a storage.

    NumPy refuses a view that leaves the storage.
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


def _with_bits(tensor: np.ndarray, bits: Any = None) -> np.ndarray:
    """The values of a tensor whose memory torch has not negated or conjugated yet.

    Args:
        tensor: the view of the storage.
        bits: the properties that torch stores beside it, "neg" and "conj", each True or False; None
            or empty where it has none.
    """
    bits = {} if bits is None else bits
    known = isinstance(bits, dict) and set(bits) <= {"neg", "conj"}
    if not known or not all(isinstance(bit, bool) for bit in bits.values()):
        raise pickle.UnpicklingError(f"a tensor has the properties {bits!r}, which are unknown")
    if bits.get("conj"):
        tensor = np.conjugate(tensor)
    if bits.get("neg"):
        tensor = np.negative(tensor)
    return tensor


def read_pth(file: str | os.PathLike[str]) -> Any:
    """Reads the object that was given to torch.save.

    Dicts, lists, numbers and strings are returned as they were, tensors and Parameters as NumPy
    arrays. Arrays whose tensors shared a storage share memory, and have the tensors' strides; a
    tensor whose negation or conjugation torch had put off is a copy with the right values.
    bfloat16 is the type of ml_dtypes. A dtype is returned as its name; a device or any other object
    as a ``Record``.

    Args:
        file: the checkpoint.

    Returns:
        The object.

    Raises:
        WeightsError: for a file that cannot be read, is no checkpoint of torch, or is damaged.

    Example:
        >>> state = read_pth("model.pth")  # doctest: +SKIP
        >>> state["embed.W_E"].shape  # doctest: +SKIP
        (128, 114)
    """
    path = Path(file)
    try:
        with path.open("rb") as opened:
            zipped = opened.read(4) == b"PK\x03\x04"
            opened.seek(0)
            return _read_zip(opened) if zipped else _read_stream(opened, path.stat().st_size)
    except OSError as error:
        raise WeightsError(
            f"Cannot read {path} ({error.strerror or error}). Name a file that can be read."
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    # A damaged pickle can raise any error, since it calls the functions above and sets items with
    # arbitrary arguments.
    except Exception as error:
        raise WeightsError(
            f"Cannot read {path} as a checkpoint of torch.save ({type(error).__name__}: {error})."
            " Give another file, or download it again."
        ) from error


def _read_zip(opened: Opened) -> Any:
    """Reads a zip of NAME/data.pkl, NAME/data/KEY per storage, and NAME/byteorder.

    Without NAME/byteorder, the order is little-endian.
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
                "is a zip without a NAME/data.pkl. Give a file that torch.save wrote."
            )
        root, loaded = roots[0], {}
        order = (
            archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in names else "little"
        )

        def storages(key: str, dtype: np.dtype, numel: int) -> Storage:
            member = f"{root}data/{key}"
            if member not in names:
                raise WeightsError(
                    f"lacks {member}, from which its tensors are made. Download it again."
                )
            if key not in loaded:
                _check_bytes(key, archive.getinfo(member).file_size, dtype, numel)
                loaded[key] = np.frombuffer(bytearray(archive.read(member)), dtype)
                _to_native(loaded[key], order)
            return _same(loaded[key], key, dtype, numel)

        return _load(io.BytesIO(archive.read(f"{root}data.pkl")), storages)


def _read_stream(opened: Opened, size: int) -> Any:
    """Reads a stream of pickles: magic number, protocol, machine, object and the keys of storages.

    Per key, the number of elements and the elements follow.
    """
    loaded: dict[str, Storage] = {}

    def storages(key: str, dtype: np.dtype, numel: int) -> Storage:
        if key not in loaded:
            # Checked before anything is allocated: the pickle can state any number of elements.
            if sum(storage.nbytes for storage in loaded.values()) + numel * dtype.itemsize > size:
                raise WeightsError(f"is too short for its storage {key}. Download it again.")
            loaded[key] = np.zeros(numel, dtype)
        return _same(loaded[key], key, dtype, numel)

    if opened.read(1) != b"\x80":
        raise WeightsError(
            "is neither the zip nor the older stream that torch.save writes. Give a file that"
            " torch.save wrote."
        )
    opened.seek(0)
    for expected in (_MAGIC, _PROTOCOL):
        if _load(opened, storages) != expected:
            raise WeightsError(
                "is a pickle, but not the stream that torch.save writes. Give a file that"
                " torch.save wrote."
            )
    _load(opened, storages)
    begin = opened.tell()
    _, keys = _load(opened, storages), _load(opened, storages)
    for key in keys:
        numel = int.from_bytes(opened.read(8), "little")
        raw = opened.read(loaded[key].nbytes)
        _check_bytes(key, len(raw), loaded[key].dtype, numel)
        loaded[key].view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
        _to_native(loaded[key], "little")
    if set(keys) != set(loaded):
        raise WeightsError(
            f"lacks the storages {sorted(set(loaded) - set(keys))}. Download it again."
        )
    # The elements follow the object, so that a tensor which is a changed copy of its storage is
    # right only where the object is loaded again.
    opened.seek(begin)
    return _load(opened, storages)


def _check_bytes(key: str, size: int, dtype: np.dtype, numel: int) -> None:
    """Refuses a storage whose size in bytes does not fit what the pickle states."""
    if size != numel * dtype.itemsize:
        raise WeightsError(
            f"has {size} bytes for storage {key}, which is {numel} of {dtype}. Download it again."
        )


def _same(storage: Storage, key: str, dtype: np.dtype, numel: int) -> Storage:
    """Returns the storage; refuses one that the file describes in two different ways."""
    if (storage.dtype, storage.size) != (dtype, numel):
        raise WeightsError(
            f"describes storage {key} both as {numel} of {dtype} and as {storage.size} of"
            f" {storage.dtype}. Download it again."
        )
    return storage


def _to_native(storage: Storage, order: str) -> None:
    """Swaps the bytes of a storage in place if its order is not this machine's."""
    if order != sys.byteorder:
        storage.byteswap(inplace=True)
