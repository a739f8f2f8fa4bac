"""A checkpoint as a lazy mapping from names to tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from theta.api import destinations
from theta.api.closing import Closing
from theta.api.lazy_tensor import Access, LazyTensor
from theta.errors import FormatError, NoSuchTensorError, UsageError, did_you_mean
from theta.formats.layout import Tensor, View
from theta.formats.torch import torch_zip
from theta.formats.values import seen
from theta.pages import cells
from theta.porcelain.tensors.converting import Model
from theta.store.read.random_access import StoredSource
from theta.units import human, shape_text

if TYPE_CHECKING:
    from theta.api.destinations import Framework


def require_glob(names: object) -> None:
    """Raise :class:`UsageError` unless ``names`` is a glob: a list of names is the likeliest mistake."""
    if not isinstance(names, str):
        raise UsageError(f"names is a glob, not {names!r}", hint="names=\"layers.0.*\", or '*' for all")


class Checkpoint(Closing, Mapping[str, LazyTensor]):  # to programs; workspace's is a path and a manifest
    """The tensors of one file, or of one sharded model: name -> :class:`LazyTensor`, in file order.

    Opening one reads what is between the tensors, not the tensors.  It stays what it was when it was
    opened, whatever is committed or checked out meanwhile; of a file in the worktree that was written to,
    reading raises :class:`theta.errors.ChangedWhileReadError`.
    """

    def __init__(self, label: str, model: Model, access: Access) -> None:
        self._label, self._model, self._access = label, model, access

    @property
    def label(self) -> str:
        """The name that it was opened by: ``main~2:model.safetensors``."""
        return self._label

    @property
    def formats(self) -> frozenset[str]:
        """The formats of its files, as manifests name them: ``{"safetensors"}``."""
        return self._model.formats

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of a safetensors file; empty for other formats."""
        return dict(self._model.metadata)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(value.nbytes for value in self._model.values.values())

    def __getitem__(self, name: str) -> LazyTensor:
        """Return tensor ``name``; raises :class:`theta.errors.NoSuchTensorError`, a ``KeyError``."""
        found: LazyTensor | None = self.get(name)
        if found is None:
            near = did_you_mean(name, self._model.values)
            raise NoSuchTensorError(
                f"{self._label} has no tensor {name}", hint=near or "list(checkpoint) names them"
            )
        return found

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return tensor ``name``; ``default`` when there is none."""
        value = self._model.values.get(name)
        if value is None or value.place is None:
            return default
        return LazyTensor(name, value.place, self._access)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._model.values)

    def __len__(self) -> int:
        return len(self._model.values)

    def _repr_html_(self) -> str:
        values = self._model.values.items()
        rows = ((name, one.dtype, shape_text(one.shape), human(one.nbytes)) for name, one in values)
        title = f"{self._label}: {len(self)} tensors, {human(self.nbytes)}"
        return cells.table(title, ("tensor", "dtype", "shape", "bytes"), rows)

    def matching(self, names: str = "*") -> dict[str, LazyTensor]:
        """Return the tensors whose names match the glob ``names`` (``layers.0.*``); there may be none."""
        return {name: self[name] for name in self if fnmatchcase(name, names)}

    def load(
        self, names: str = "*", *, out: Mapping[str, Any] | None = None, framework: Framework = "numpy"
    ) -> Mapping[str, Any]:
        """Read all tensors whose names match; return name -> array, or ``out`` with its arrays filled.

        A partial clone fetches what it lacks of them in one request.

        Args:
            names: a glob.
            out: arrays to read into, in place, in nested mappings too (numpy, torch on any device, whatever
                has ``__dlpack__`` or a buffer).  Those whose names match are filled; dtypes and shapes of all
                are checked before the first is.
            framework: the kind of new arrays: ``"numpy"``, as :meth:`LazyTensor.numpy` makes them, or
                ``"torch"``.

        Raises:
            theta.errors.NoSuchTensorError: the checkpoint lacks an array of ``out``, or none matches.
            theta.errors.UsageError: something cannot be written to, or there is no such framework.
            theta.errors.FormatError: a dtype or a shape differs.
        """
        destinations.check(framework)
        require_glob(names)
        if out is not None:
            planned = destinations.planned(out, self, names, self._label)
            self._fetch(tensor.name for tensor, _ in planned)
            for tensor, destination in planned:
                tensor.into(destination.array)
                destination.done()
            return out
        self.fetch(names)
        matching = self.matching(names)
        if not matching and names != "*":
            raise NoSuchTensorError(
                f"no tensor of {self._label} is called {names}", hint=did_you_mean(names, self._model.values)
            )
        return {
            name: tensor.torch() if framework == "torch" else tensor.numpy()
            for name, tensor in matching.items()
        }

    def object(self, *, framework: Framework = "numpy") -> Any:
        """Return the object in a torch file: nested dicts, lists and tuples, numbers, text, arrays, as saved.

        Nothing is imported or called to make it.

        Raises:
            theta.errors.FormatError: the file is not one of torch's zip files, or its object has more in it.
        """
        destinations.check(framework)
        source = self._model.source
        if source is None or self.formats != {torch_zip.NAME}:
            raise FormatError(f"{self._label} holds tensors, not an object", hint="load() reads them")
        self.fetch()

        def tensor(extent: Tensor, view: View) -> Any:
            place = seen(view, extent, source).place
            if place is None or view.dtype == "bytes":
                raise FormatError("the object has a tensor of a type that theta does not know")
            lazy = LazyTensor(view.name, place, self._access)
            return lazy.torch() if framework == "torch" else lazy.numpy()

        with self._access.reading():
            return torch_zip.read_object(source, tensor)

    def fetch(self, names: str = "*") -> None:
        """Fetch in one request what a partial clone lacks of the tensors whose names match.

        Without it each tensor is fetched when it is read, whole.  It does nothing where all is here.

        Raises:
            theta.errors.NotHereYetError: the remote cannot be reached, or does not have it.
        """
        self._fetch(name for name in self if fnmatchcase(name, names))

    def _fetch(self, names: Iterable[str]) -> None:
        """Fetch what is lacking of the tensors ``names``."""
        places = [place for name in names if (place := self._model.values[name].place) is not None]
        with self._access.reading():
            for source in {id(place.source): place.source for place in places}.values():
                if isinstance(source, StoredSource):
                    source.obtain(place.span for place in places if place.source is source)

    def close(self) -> None:
        """Close the file it reads; its tensors cannot be read any more.  Needed where files are many."""
        self._access.close()

    def __repr__(self) -> str:
        return f"Checkpoint({self._label!r}, {len(self)} tensors, {human(self.nbytes)})"
