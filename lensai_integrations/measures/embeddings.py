"""How a layer's output becomes one vector per row, and how a vector that is too wide becomes narrower.

What is kept is always a copy: many networks apply the next ReLU in place, and a view would then hold what the layer did
not answer. Half precision is added up in float32, since float16 loses the mean of a 7 x 7 map.

A projection has to be the same in training, in production and on a device, so it is worked out from its sizes and its
seed alone, from the raw bits of PCG64, which numpy keeps fixed (its distributions it does not). A dense Gaussian matrix
for 512 x 7 x 7 = 25088 components would take 25088 * 2048 * 4 bytes = 206 MB; four signs per component keep distances
as well, take 25088 * 4 * 12 bytes = 1.2 MB, and need only gathering, multiplying and summing, which are deterministic
everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from array_api_compat import is_torch_array

from lensai_integrations.arrays.namespaces import Array, is_immutable, kept_beside, local, namespace, shape_of
from lensai_integrations.errors import InputError
from lensai_integrations.measures.definitions import Definition, register

#: `"mean"`, `"max"`, `"cls"`, `"flatten"`, or a function from the layer's output to `[n, D]`.
Reduce: TypeAlias = Literal["mean", "max", "cls", "flatten"] | Callable[[Any], Any]

REDUCTIONS: Final = ("mean", "max", "cls", "flatten")

_SIGNS = 4  # per component; one already gives the error of a Gaussian matrix on average, more thin out its tail
_CHUNK = 1 << 23  # numbers gathered at a time: 32 MB
_UNIT = "the layer's own"
_JL = (
    "D. M. Kane, J. Nelson, Sparser Johnson-Lindenstrauss Transforms, J. ACM 61(1), 2014 (block construction), with"
    " equally full buckets; W. B. Johnson, J. Lindenstrauss, 1984"
)
_PROJECTED = (
    f"; then a sparse random projection with {_SIGNS} signs per component: RandomProjection(dim_in, dim_out, seed),"
    " sizes and seed as noted in the profile"
)
_TABLE: Final = {
    "as_is": ("embedding", "One component of a layer's output vector.", "as given, in float32"),
    "mean": ("embedding_mean", "One channel of a layer, averaged.", "mean over space or tokens"),
    "max": ("embedding_max", "One channel of a layer, at its largest.", "maximum over space or tokens"),
    "cls": ("embedding_cls", "One component of the first token.", "x[:, 0] of tokens [n, T, D]"),
    "flatten": ("embedding_flatten", "One element of a layer's output.", "all axes but the first, in C order"),
    "custom": ("embedding_custom", "One component of the user's own reduction.", "the function noted in the profile"),
}

for _name, _description, _formula in _TABLE.values():
    _projected = f"{_name}_projected"
    register(
        Definition(f"lensai/{_name}@1", _name, _UNIT, _description, _formula, "the model's layer"),
        Definition(f"lensai/{_projected}@1", _projected, _UNIT, _description, _formula + _PROJECTED, _JL),
    )


def check_reduce(reduce: Reduce) -> None:
    """Refuse a `reduce` that `reduce_embedding` does not know.

    Raises:
        InputError: If it is neither one of `REDUCTIONS` nor callable.

    Example:
        >>> check_reduce("average")
        Traceback (most recent call last):
            ...
        lensai_integrations.errors.InputError: reduce='average' is unknown; pass 'mean', 'max', 'cls', 'flatten' ...
    """
    if not callable(reduce) and reduce not in REDUCTIONS:
        names = ", ".join(map(repr, REDUCTIONS))
        raise InputError(f"reduce={reduce!r} is unknown; pass {names} or a function from the layer's output to [n, D]")


def reduce_embedding(output: Array, reduce: Reduce = "mean", *, channels_last: bool = False) -> Array:
    """One float32 vector per row of a layer's output, as a copy `[n, D]` on the same device; nothing is waited for.

    Args:
        output: `[n]` (one component), `[n, D]` (as is), tokens `[n, T, D]`, or maps `[n, C, H, W]` or
            `[n, C, T, H, W]`, of any numeric dtype, of any library.
        reduce: Over space or tokens: `"mean"`, `"max"`, `"cls"` (the first token, tokens only) or `"flatten"`; or a
            function that gets the output as it is (a torch tensor detached) and must not change it.
        channels_last: Maps have their channels at the end, `[n, H, W, C]`, as Keras's have.

    Raises:
        InputError: If the output has no rows or no components, `reduce` is unknown or does not fit the shape, or the
            function's answer is not `[n, D]`.

    Example:
        >>> maps = np.arange(8.0).reshape(1, 2, 2, 2)
        >>> reduce_embedding(maps).tolist(), reduce_embedding(maps, "max", channels_last=True).tolist()
        ([[1.5, 5.5]], [[6.0, 7.0]])
    """
    check_reduce(reduce)
    if callable(reduce):
        return _custom(output, reduce)
    array = local(output)
    shape = _shape(array)
    xp = namespace(array)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities mark the row as invalid, later
        if len(shape) <= 2 or reduce == "flatten":
            return _copy(xp.reshape(array, (shape[0], math.prod(shape[1:]))), xp)
        if reduce == "cls":
            return _copy(_first_token(array), xp)
        axes = _reduced_axes(len(shape), channels_last)
        if reduce == "max":
            return xp.astype(xp.max(array, axis=axes), xp.float32, copy=False)
        return _mean(array, axes, xp)


def embedding_definition(axes: int, reduce: Reduce = "mean", *, projected: bool = False) -> str:
    """Definition id of an embedding's components; `axes` is the number of axes of the layer's output.

    Example:
        >>> embedding_definition(4), embedding_definition(2), embedding_definition(4, "flatten", projected=True)
        ('lensai/embedding_mean@1', 'lensai/embedding@1', 'lensai/embedding_flatten_projected@1')
    """
    check_reduce(reduce)
    key = "custom" if callable(reduce) else "as_is" if axes <= 2 else reduce
    return f"lensai/{_TABLE[key][0]}{'_projected' if projected else ''}@1"


class RandomProjection:
    """A fixed random linear map from `dim_in` to `dim_out` components that nearly keeps distances.

    Squared distances are right on average over seeds, with a relative standard deviation of at most sqrt(2 / dim_out),
    3.1% at 2048. Every component goes, with a random sign, into one bucket of each of four blocks of outputs; within a
    block all buckets hold equally many components, give or take one. Source: Kane and Nelson, Sparser
    Johnson-Lindenstrauss Transforms, J. ACM 61(1), 2014. The same arguments give the same map in every library and on
    every machine.

    Args:
        dim_in: Components of a row.
        dim_out: Components to keep, fewer than `dim_in`.
        seed: 0 or more; noted in the profile, since projections of different seeds cannot be compared.

    Raises:
        InputError: If `dim_out` is not between 1 and `dim_in`, or `seed` is negative.

    Example:
        >>> RandomProjection(25088, 2048).project(np.ones((3, 25088), np.float32)).shape
        (3, 2048)
    """

    def __init__(self, dim_in: int, dim_out: int = 2048, seed: int = 0) -> None:
        if not 1 <= dim_out <= dim_in:
            raise InputError(f"dim_out={dim_out} must be between 1 and dim_in={dim_in}")
        if seed < 0:
            raise InputError(f"seed={seed} must be 0 or more")
        self.dim_in = dim_in
        self.dim_out = dim_out
        self.seed = seed
        self._blocks = _draw_blocks(dim_in, dim_out, seed)

    def __reduce__(self) -> tuple[type[RandomProjection], tuple[int, int, int]]:
        return RandomProjection, (self.dim_in, self.dim_out, self.seed)

    def __repr__(self) -> str:
        return f"RandomProjection({self.dim_in}, {self.dim_out}, seed={self.seed})"

    @property
    def info(self) -> dict[str, int]:
        """What a profile notes of the projection, JSON-able: equal in both, or the streams cannot be compared."""
        return {"dim_in": self.dim_in, "dim_out": self.dim_out, "seed": self.seed}

    def project(self, rows: Array) -> Array:
        """Project float rows `[n, dim_in]` to float32 `[n, dim_out]` on the same device.

        Nothing is waited for. A row with a non-finite value keeps at least one.

        Raises:
            InputError: If the rows are not `[n, dim_in]`.
        """
        array = local(rows)
        if len(array.shape) != 2 or array.shape[1] != self.dim_in:
            raise InputError(f"rows must be [n, {self.dim_in}] for {self!r}, got shape {shape_of(array)}")
        xp = namespace(array)
        step = max(1, _CHUNK // self.dim_in)
        starts = range(0, max(1, shape_of(array)[0]), step)
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [self._project(xp.astype(array[at : at + step], xp.float32, copy=False), xp) for at in starts]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def _project(self, rows: Array, xp: Any) -> Array:
        n = shape_of(rows)[0]
        blocks = []
        for sources, signs in self._beside(rows):
            signed = xp.take(rows, sources, axis=1) * signs.reshape((-1,))
            blocks.append(xp.sum(xp.reshape(signed, (n, *signs.shape)), axis=1))
        return xp.concat(blocks, axis=1)

    def _beside(self, rows: Array) -> list[tuple[Array, Array]]:
        if isinstance(rows, np.ndarray) or is_immutable(rows):  # these become constants of a traced function
            return self._blocks
        key = "projection", self.dim_in, self.dim_out, self.seed

        def sent(block: int, which: int) -> Array:
            return kept_beside((*key, block, which), lambda: self._blocks[block][which], rows)

        return [(sent(block, 0), sent(block, 1)) for block in range(len(self._blocks))]


def _draw_blocks(dim_in: int, dim_out: int, seed: int) -> list[tuple[Array, Array]]:
    """Per block of w outputs: source components int64 `[r * w]`, and their signs float32 `[r, w]`, 0 where padded."""
    bits = np.random.PCG64(np.random.SeedSequence([dim_in, dim_out, seed]))
    count = min(_SIGNS, dim_out)
    blocks = []
    for block in range(count):
        width = dim_out // count + (block < dim_out % count)
        order = np.argsort(bits.random_raw(dim_in), kind="stable")
        padding = -dim_in % width
        sources = np.concatenate([order, np.zeros(padding, dtype=np.int64)])
        signs = np.where(bits.random_raw(dim_in) >> np.uint64(63), 1.0, -1.0) / math.sqrt(count)
        padded = np.concatenate([signs, np.zeros(padding)]).astype(np.float32)
        blocks.append((sources, padded.reshape(-1, width)))
    return blocks


def _shape(array: Array) -> tuple[int, ...]:
    shape = shape_of(array)
    if not shape or 0 in shape[1:]:
        raise InputError(f"a layer's output must be [n, ...] with components, got shape {shape}; name another layer")
    return shape


def _copy(array: Array, xp: Any) -> Array:
    return xp.astype(array, xp.float32, copy=True)


def _mean(array: Array, axes: tuple[int, ...], xp: Any) -> Array:
    shape = shape_of(array)
    if is_torch_array(array):  # in one operation, and without a copy of the map in float32
        return array.mean(axes, dtype=xp.float32)
    if -1 in shape[1:]:
        return xp.mean(_copy(array, xp), axis=axes)
    return xp.sum(array, axis=axes, dtype=xp.float32) / math.prod(shape[axis] for axis in axes)


def _first_token(array: Array) -> Array:
    if len(array.shape) != 3:
        raise InputError(
            f"reduce='cls' takes the first of tokens [n, T, D], got shape {tuple(array.shape)}; pass 'mean' for maps"
        )
    return array[:, 0, :]


def _reduced_axes(axes: int, channels_last: bool) -> tuple[int, ...]:
    """Axes of space or tokens: tokens lie before the components, space lies after the channels or before them."""
    return tuple(range(1, axes - 1)) if axes == 3 or channels_last else tuple(range(2, axes))


def _custom(output: Array, reduce: Callable[[Any], Any]) -> Array:
    """The user's own reduction, checked and copied."""
    detached = output.detach() if is_torch_array(output) else output
    array = local(reduce(detached))
    shape = shape_of(array)
    rows = shape_of(detached if hasattr(detached, "shape") else array)[:1]
    if len(shape) != 2 or shape[:1] != rows or shape[1] == 0:
        name = getattr(reduce, "__qualname__", repr(reduce))
        raise InputError(f"reduce={name} must return [n, D] for an output of {rows} rows, got shape {shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        return _copy(array, namespace(array))
