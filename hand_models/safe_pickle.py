"""Read the numbers out of a pickle without letting it run code.

MANO is distributed as Python 2 pickles of chumpy objects. A plain ``pickle.load`` would execute whatever
such a file names, and needs chumpy, which no longer installs. Here only the globals in a closed table are
admitted: numpy arrays, dtypes and scalars, stand-ins for scipy sparse matrices and for chumpy, and the empty
shells those need. Anything else is refused by name. Follows "Restricting Globals" in the documentation of
Python's ``pickle``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse


class UnsafePickleError(ValueError):
    """The pickle names something other than plain numbers; nothing of it was run."""


class _Admitted:
    """A callable the pickle may call. It has no attributes a pickle could overwrite."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError(f"the pickle tries to change {name!r} of a loader function.")

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("the pickle tries to change a loader function.")


class _Shell:
    """Base of the stand-ins: keeps the pickled state as data and computes nothing until asked."""

    __slots__ = ("state",)

    def __new__(cls, *args: Any) -> _Shell:  # arguments of the real class's constructor are of no use here
        shell = super().__new__(cls)
        object.__setattr__(shell, "state", {})
        return shell

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnsafePickleError(f"{type(self).__name__} with a state that is no dictionary.")
        object.__setattr__(self, "state", state)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError(f"the pickle tries to set {name!r} on a stand-in.")


class _ChumpyArray(_Shell):
    """``chumpy.Ch``: an array in ``x``."""

    __slots__ = ()

    def array(self) -> np.ndarray:
        return to_array(self.state["x"])


class _ChumpySelect(_Shell):
    """``chumpy.reordering.Select``: the flat entries ``idxs`` of ``a``, in shape ``preferred_shape``."""

    __slots__ = ()

    def array(self) -> np.ndarray:
        picked = to_array(self.state["a"]).ravel()[to_array(self.state["idxs"])]
        shape = self.state.get("preferred_shape")
        return picked if shape is None else picked.reshape([int(n) for n in shape])


class _ChumpyReshape(_Shell):
    """``chumpy.reordering.Reshape``: ``a`` in shape ``newshape``."""

    __slots__ = ()

    def array(self) -> np.ndarray:
        return to_array(self.state["a"]).reshape(self.state["newshape"])


class _Sparse(_Shell):
    """A scipy sparse matrix of any version: rebuilt through scipy's checked constructor, then made dense."""

    __slots__ = ()
    layout = ""

    def array(self) -> np.ndarray:
        state = self.state
        shape = tuple(int(n) for n in state["_shape" if "_shape" in state else "shape"])
        if self.layout == "coo":
            places = state["coords"] if "coords" in state else (state["row"], state["col"])
            return scipy.sparse.coo_matrix((state["data"], places), shape=shape).toarray()
        build = scipy.sparse.csc_matrix if self.layout == "csc" else scipy.sparse.csr_matrix
        return build((state["data"], state["indices"], state["indptr"]), shape=shape).toarray()


_SPARSE = {
    layout: type(f"_{layout}", (_Sparse,), {"__slots__": (), "layout": layout}) for layout in ("csc", "csr", "coo")
}


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode`` as Python 3 uses it to store bytes in old protocols."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickleError("_codecs.encode with anything but latin1 text.")
    return text.encode("latin1")


def _bytes(*args: Any) -> bytes:
    """``bytes()``: how old protocols store empty bytes."""
    if args:
        raise UnsafePickleError("bytes() with arguments.")
    return b""


def _reconstruct_shell(cls: Any, base: Any, state: Any) -> _Shell:
    """``copy_reg._reconstructor``, for the stand-ins only: how protocols 0 and 1 create objects."""
    if not (isinstance(cls, type) and issubclass(cls, _Shell)):
        raise UnsafePickleError(f"_reconstructor of {getattr(cls, '__name__', cls)!s}.")
    return cls()


class _Object(_Shell):
    """``object``, only ever the base named in a ``_reconstructor`` call."""

    __slots__ = ()


def _numpy_function(name: str) -> _Admitted:
    """A function of numpy's pickling protocol, from numpy 2 (``_core``) or numpy 1 (``core``)."""
    module, attribute = name.rsplit(".", 1)
    try:
        core = __import__(f"numpy._core.{module}", fromlist=[attribute])
    except ImportError:
        core = __import__(f"numpy.core.{module}", fromlist=[attribute])
    return _Admitted(getattr(core, attribute))


def _admitted_globals() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _Admitted(_encode),
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _numpy_function("multiarray._reconstruct")
        table[f"{core}.multiarray", "scalar"] = _numpy_function("multiarray.scalar")
        table[f"{core}.numeric", "_frombuffer"] = _numpy_function("numeric._frombuffer")
    for builtins in ("builtins", "__builtin__"):
        table[builtins, "set"] = _Admitted(set)
        table[builtins, "bytes"] = _Admitted(_bytes)
        table[builtins, "object"] = _Object
    for registry in ("copyreg", "copy_reg"):
        table[registry, "_reconstructor"] = _Admitted(_reconstruct_shell)
    for layout, stand_in in _SPARSE.items():
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}"):
            for kind in ("matrix", "array"):
                table[module, f"{layout}_{kind}"] = stand_in
    for module in ("chumpy", "chumpy.ch"):
        table[module, "Ch"] = _ChumpyArray
    table["chumpy.reordering", "Select"] = _ChumpySelect
    table["chumpy.reordering", "Reshape"] = _ChumpyReshape
    return table


class GuardedUnpickler(pickle.Unpickler):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream, encoding="latin1")  # Python 2 wrote array bytes as str
        self._table = _admitted_globals()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._table[module, name]
        except KeyError:
            raise UnsafePickleError(f"the pickle asks for {module}.{name}, which is not plain numbers.") from None

    def persistent_load(self, identifier: Any) -> Any:
        raise UnsafePickleError(f"the pickle refers to an outside object {identifier!r}.")


def to_array(value: Any) -> np.ndarray:
    """A numeric numpy array from an unpickled value: an array, a number, a sparse matrix or a chumpy object.

    Raises:
        TypeError: the value is something else, or an array of objects.
    """
    if isinstance(value, _Shell):
        if isinstance(value, _Object):
            raise TypeError("a bare object, not numbers")
        return value.array()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array of {array.dtype}, not numbers")
    return array


def unpickle(stream: IO[bytes], where: str, mend: str) -> Any:
    """What a pickle of numbers holds. Errors begin with ``where``, its file; a refusal ends with ``mend``.

    Raises:
        UnsafePickleError: it names a class or function outside the table; none of it was run.
        ValueError: it is no pickle, or cut short.
    """
    try:
        return GuardedUnpickler(stream).load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: refused: {error} Nothing was executed. {mend}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        message = f"{type(error).__name__}: {str(error)[:120]}"
        raise ValueError(f"{where}: not a readable pickle ({message}); write or download it again.") from None


def load_pickle(path: str | Path) -> dict[str, Any]:
    """The dictionary stored in a pickle of numbers. Pass its values through `to_array`.

    Values may be numpy arrays, strings, numbers, or stand-ins for chumpy and scipy objects.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePickleError: the pickle names a class or function outside the table; none of it was run.
        ValueError: the file is no pickle, is cut short, or holds no dictionary.
    """
    path = Path(path)
    with path.open("rb") as stream:
        if stream.read(7) == b"version":
            raise ValueError(f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`.")
        stream.seek(0)
        content = unpickle(
            stream, str(path),
            "Only numpy, scipy sparse and chumpy arrays are read; use the file as downloaded from its publisher, or "
            "save its fields as plain numpy arrays.",
        )  # fmt: skip
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a dictionary of arrays.")
    return content
