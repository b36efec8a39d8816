"""Composition in a finite group: x y, x y x^-1 or x y x (arXiv 2201.02177, 2302.03025)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mi_jax.basics.errors import ConfigError
from mi_jax.basics.fields import accepts_old_names
from mi_jax.contracts import Labels, labels
from mi_jax.tasks.groups import conjugacy_classes, group, group_order, parse_group_name
from mi_jax.tasks.pairs import PairTask
from mi_jax.tasks.representations import characters, irrep_basis
from mi_jax.tasks.subgroups import cosets

Form = Literal["xy", "xyx^-1", "xyx"]
"""Forms of composition of two elements x and y."""

_LARGEST_WITH_COSETS = 120
"""Order of the largest group whose subgroups are listed. S6, of order 720, would take a minute."""


@accepts_old_names
@dataclass(frozen=True)
class GroupComposition(PairTask):
    """All pairs (x, y) of a group's elements as tokens ``[x, y, =]``; the composed element is read
    at the last position.

    Ground truth, beside that of every ``PairTask`` (table, answer, corrupted, right_answer):
        product [token token_other]: x y, the group's table.
        inverse [token]: x^-1.
        characters [irrep token]: tr rho(x) of each real irrep, in the order of ``irrep_labels``.
            The logits of a network that composes by an irrep are along chi(x y z^-1), which is
            ``characters[:, product[answer[x, y], inverse[z]]]``.
        irrep_basis [token mode]: orthonormal basis of the functions on the group, made of matrix
            elements of the irreps. It splits a table of elements by irrep; for a cyclic group it is
            the Fourier basis. For products, rho(x y) is looked up at ``product``. The irreps are
            homomorphisms to 1e-12; for A5 the published code's are not, so that its readings
            differ from these by up to 5 % (see ``representations.irreps``).
        irrep_of_mode [mode]: irrep that each column of the basis belongs to.
        cosets [subgroup side element]: left and right coset of each element, for each proper
            subgroup in the order of ``subgroups``, named by its smallest element. Absent if
            there is no such subgroup, and for groups of more than 120 elements.
        residues [token], cyclic_answer, distance [token token_other]: for a cyclic group as in
            ``ModularArithmetic``, for the Fourier measures. The last two exist only for the
            form "xy"; distance only for odd n.

    Labels for probes, beside those of every ``PairTask``, each for x, y and the answer, under the
    names ``a_...``, ``b_...`` and ``answer_...``, with their number of classes:
        class: conjugacy class, if the group is not abelian.
        coset_LABEL [2]: for each irrep of dimension 1 with the values 1 and -1, the coset of its
            kernel. For S_5, ``coset_1+1+1+1+1`` is the sign.
        image_of_0, preimage_of_0 [n]: for S_n and A_n, the point to which the permutation sends 0,
            and the point that it sends to 0: the cosets of a point's stabiliser.

    Attributes:
        group: ``C113``, ``D59``, ``S3`` to ``S6``, ``A4``, ``A5`` or ``Q8``, see ``groups.group``.
            Tokens are the group's elements, in their order.
        form: the composition. "xyx^-1" is conjugation.
        fraction: share of the pairs trained on; 0.4 is the published share for an MLP on S5.
    """

    group: str = "S5"
    form: Form = "xy"
    fraction: float = field(default=0.4, kw_only=True)

    paper: ClassVar[str] = "arXiv 2302.03025"

    def __post_init__(self) -> None:
        parse_group_name(self.group)
        if self.form not in get_args(Form):
            raise ConfigError(f"form={self.form!r}: must be one of {get_args(Form)}")
        super().__post_init__()

    @classmethod
    def smallest(cls) -> "GroupComposition":
        """Products in S4, trained on 80 % of the pairs."""
        return cls(group="S4", fraction=0.8)

    @property
    def elements(self) -> int:
        """Number of elements of the group."""
        return group_order(self.group)

    @property
    def pair_count(self) -> int:
        """The square of the number of elements."""
        return self.elements**2

    @property
    def fact_bytes(self) -> int:
        """Bytes of the products, the basis, the characters and the cosets."""
        return (20 if self.elements <= _LARGEST_WITH_COSETS else 12) * self.elements**2

    @property
    def irrep_labels(self) -> tuple[str, ...]:
        """Names of the irreps, in the order of the dim irrep."""
        return tuple(label for label, _ in characters(self.group))

    @property
    def dim_names(self) -> Mapping[str, tuple[Any, ...]]:
        """Names of the irreps, along the dim irrep."""
        return {"irrep": self.irrep_labels}

    @property
    def domain(self) -> Int[np.ndarray, " pair"]:
        """Flat indices of all pairs."""
        return np.arange(self.elements**2)

    def answers(
        self, a: Int[np.ndarray, " pair"], b: Int[np.ndarray, " pair"]
    ) -> Int[np.ndarray, " pair"]:
        """Indices of the elements a b, a b a^-1 or a b a.

        Args:
            a: first elements, [pair].
            b: second elements, [pair].
        """
        _, table, inverse = group(self.group)
        product = table[a, b]
        if self.form == "xy":
            return product
        return table[product, inverse[a] if self.form == "xyx^-1" else a]

    def facts(self) -> Mapping[str, Array]:
        """Computes the ground truth of the group and its irreps.

        Returns:
            Arrays by name: product, inverse, characters, irrep_basis, irrep_of_mode; cosets if the
            group has proper subgroups and at most 120 elements; residues, cyclic_answer and
            distance for a cyclic group. The class gives their dims.
        """
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
        if self.elements <= _LARGEST_WITH_COSETS and len(cosets(self.group)):
            facts["cosets"] = jnp.asarray(cosets(self.group))
        family, n = parse_group_name(self.group)
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
        """Makes the labels of x, y and the answer.

        They are class, coset_LABEL, image_of_0 and preimage_of_0, as far as the group has them; see
        ``GroupComposition``.

        Args:
            a: first elements, [pair].
            b: second elements, [pair].
            answer: right answers, [pair].

        Returns:
            Labels by name, such as ``a_class``; one entry per pair.
        """
        kinds = element_labels(self.group)
        each = {"a": a, "b": b, "answer": answer}
        return {
            f"{name}_{kind}": labels(np.asarray(of_elements.values)[x], of_elements.classes)
            for name, x in each.items()
            for kind, of_elements in kinds.items()
        }


def element_labels(name: str) -> dict[str, Labels]:
    """Makes the labels of a group's elements: class, coset_LABEL, image_of_0 and preimage_of_0.

    ``GroupComposition`` explains them, and says which a group has.

    Args:
        name: name of the group, such as ``S4``.

    Returns:
        Labels by kind; one entry per element.
    """
    elements, table, inverse = group(name)
    by_kind: dict[str, Labels] = {}
    if (table != table.T).any():
        classes = conjugacy_classes(name)
        by_kind["class"] = labels(classes, int(classes.max()) + 1)
    for label, values in characters(name):
        signs = np.round(values).astype(int)
        if np.allclose(values, signs, atol=1e-6) and set(signs.tolist()) == {1, -1}:
            by_kind[f"coset_{label}"] = labels((1 - signs) // 2, 2)
    family, n = parse_group_name(name)
    if family in "SA":
        images = np.array([element[0] for element in elements])  # pyright: ignore[reportIndexIssue]
        by_kind |= {"image_of_0": labels(images, n), "preimage_of_0": labels(images[inverse], n)}
    return by_kind
