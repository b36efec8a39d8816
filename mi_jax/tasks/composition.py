"""Composition in a finite group: x y, x y x^-1 or x y x (arXiv 2201.02177, arXiv 2302.03025)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.errors import require
from mi_jax.basics.fields import accepts_old_names
from mi_jax.contracts import Labels, labels
from mi_jax.tasks.groups import conjugacy_classes, group, parse
from mi_jax.tasks.pairs import PairTask
from mi_jax.tasks.representations import characters, irrep_basis
from mi_jax.tasks.subgroups import cosets

Form = Literal["xy", "xyx^-1", "xyx"]

_COSETS = 120
"""The largest group whose subgroups are listed: S6 takes a minute."""


@accepts_old_names
@dataclass(frozen=True)
class GroupComposition(PairTask):
    """All pairs (x, y) of a group's elements as tokens ``[x, y, =]``; the composed element is read
    at the last position.

    Concepts, beside those of every task on pairs (``PairTask``: table, answer, corrupted,
    right_answer):
        product [token token_other]: x y: the group's table. inverse [token]: x^-1.
        characters [irrep token]: tr rho(x) of each real irrep, in the order of ``irrep_labels``.
        The logits of a network that
            composes by an irrep are along chi(x y z^-1): ``characters[:, product[answer[x, y],
            inverse[z]]]``.
        irrep_basis [token mode]: an orthonormal basis of the functions on the group, made of the
        irreps' matrix elements: what
            splits a table of elements by irrep. For a cyclic group it is the Fourier basis, for
            products rho(x y) it is looked up at ``product``.
        irrep_of_mode [mode]: which irrep each of its columns is of.
        cosets [subgroup side element]: of every proper subgroup (``subgroups``) the left and the
        right coset of each element,
            named by its least element. Absent where there is no such subgroup, and for groups of
            more than 120 elements.
        residues [token], cyclic_answer, distance [token token_other]: for a cyclic group as in
        modular addition (the last two for
            the form x y alone; distance for odd n), so that Fourier measures read it.

    Labels for probes, beside those of every task on pairs; each for a, b and answer, as
    ``a_class``:
        class: the conjugacy class, where the group isn't abelian.
        coset_LABEL [2]: for each irrep of one dimension with the values 1 and -1, the coset of its
        kernel: of S_n the sign,
            ``coset_1+1+1+1+1``.
        image_of_0, preimage_of_0 [n]: for S_n and A_n where the permutation sends 0, and what it
        sends to 0: the cosets of a
            point's stabiliser.

    Attributes:
        group: ``C113``, ``D59``, ``S3`` to ``S6``, ``A4``, ``A5``, ``Q8`` (see ``groups.group``);
            tokens are its elements, in their order.
        form: what is computed; "xyx^-1" is conjugation.
        fraction: .4 is the published share for an MLP on S5.
    """

    group: str = "S5"
    form: Form = "xy"
    fraction: float = field(default=0.4, kw_only=True)

    paper: ClassVar[str] = "arXiv 2302.03025"

    def __post_init__(self) -> None:
        parse(self.group)
        require(self.form in get_args(Form), f"form={self.form!r}: must be one of {get_args(Form)}")
        super().__post_init__()

    @classmethod
    def smallest(cls) -> "GroupComposition":
        """Products in S4, on eight tenths of the pairs."""
        return cls(group="S4", fraction=0.8)

    @property
    def elements(self) -> int:
        """|G|."""
        return len(group(self.group).table)

    @property
    def irrep_labels(self) -> tuple[str, ...]:
        """The irreps' names, in the order of the dim irrep."""
        return tuple(label for label, _ in characters(self.group))

    @property
    def dim_names(self) -> Mapping[str, tuple[Any, ...]]:
        """The irreps' names."""
        return {"irrep": self.irrep_labels}

    @property
    def domain(self) -> Int[np.ndarray, " pair"]:
        """All pairs."""
        return np.arange(self.elements**2)

    def answers(
        self, a: Int[np.ndarray, " pair"], b: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, " pair"]:
        """The index of a b, a b a^-1 or a b a."""
        _, table, inverse = group(self.group)
        product = table[a, b]
        return (
            product
            if self.form == "xy"
            else table[product, inverse[a] if self.form == "xyx^-1" else a]
        )

    def facts(self) -> Mapping[str, Array]:
        """See the class."""
        _, table, inverse = group(self.group)
        basis, irrep = irrep_basis(self.group)
        facts = {
            "product": jnp.asarray(table),
            "inverse": jnp.asarray(inverse),
            "characters": jnp.asarray(
                np.stack([values for _, values in characters(self.group)]), jnp.float32
            ),
            "irrep_basis": jnp.asarray(basis, jnp.float32),
            "irrep_of_mode": jnp.asarray(irrep),
        }
        if self.elements <= _COSETS and len(cosets(self.group)):
            facts["cosets"] = jnp.asarray(cosets(self.group))
        family, n = parse(self.group)
        if family == "C":
            residues = facts["residues"] = jnp.arange(n)
            if self.form == "xy":
                facts["cyclic_answer"] = jnp.asarray(table)
                if n % 2:
                    facts["distance"] = (residues[:, None] - residues[None, :]) % n
        return facts

    def pair_labels(
        self,
        a: Int[np.ndarray, " pair"],
        b: Int[np.ndarray, " pair"],
        answer: Int[np.ndarray, " pair"],
    ) -> Mapping[str, Labels]:
        """See the class."""
        kinds = {
            kind: (np.asarray(one.values), one.classes)
            for kind, one in element_labels(self.group).items()
        }
        each = {"a": a, "b": b, "answer": answer}
        return {
            f"{name}_{kind}": labels(held[x], n)
            for name, x in each.items()
            for kind, (held, n) in kinds.items()
        }


def element_labels(name: str) -> dict[str, Labels]:
    """Classes of a group's elements by kind: see ``GroupComposition``. One row an element."""
    elements, table, inverse = group(name)
    found: dict[str, Labels] = {}
    if (table != table.T).any():
        classes = conjugacy_classes(name)
        found["class"] = labels(classes, int(classes.max()) + 1)
    for label, values in characters(name):
        signs = np.round(values).astype(int)
        if np.allclose(values, signs, atol=1e-6) and set(signs.tolist()) == {1, -1}:
            found[f"coset_{label}"] = labels((1 - signs) // 2, 2)
    family, n = parse(name)
    if family in "SA":
        images = np.array([element[0] for element in elements])  # pyright: ignore[reportIndexIssue]
        found |= {"image_of_0": labels(images, n), "preimage_of_0": labels(images[inverse], n)}
    return found
