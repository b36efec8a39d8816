"""Decodable versus used: verdicts on each concept from probes and their interventions.

A concept is *decodable* at a site if a probe reads it there, and *used* if erasing it there moves
the model's answers more than erasing random subspaces does.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr

from mi_jax.dynamics.evidence import Claim, ClaimTest, judge_page
from mi_jax.dynamics.significance import own_draws_p, sign_flip_p_values, within_family

DECODABLE = 0.9
"""Accuracy on the test half from which a concept counts as decodable."""

SELECTIVE = 0.1
"""Accuracy beyond the control task's from which a concept counts as decodable at any accuracy."""


class Verdict(NamedTuple):
    """A concept at a site at the last snapshot; each array has one entry per seed.

    Attributes:
        concept: name of the concept.
        site: name of the site.
        accuracy: accuracy of the probe on the test half.
        control: the same on the control task, where only tokens can be decoded.
        effect: how far erasing the concept moves the answers (total variation, from 0 to 1).
        null: the largest effect of erasing random subspaces of the same rank.
        draws: the effect of erasing each of them, [seed draw].
    """

    concept: str
    site: str
    accuracy: np.ndarray
    control: np.ndarray
    effect: np.ndarray
    null: np.ndarray
    draws: np.ndarray

    @property
    def decodable(self) -> bool:
        """Whether the probe is right often enough in every seed.

        Either its accuracy is at least ``DECODABLE`` in every seed, or it exceeds the control
        task's by at least ``SELECTIVE`` in every seed.
        """
        return bool(
            (self.accuracy >= DECODABLE).all() or (self.accuracy >= self.control + SELECTIVE).all()
        )

    @property
    def selective(self) -> bool:
        """Whether accuracy exceeds the control task's in every seed."""
        return bool((self.accuracy > self.control).all())

    @property
    def used(self) -> bool:
        """Whether the effect exceeds that of all random subspaces in every seed."""
        return bool((self.effect > self.null).all())


PAIRS = (("probe_accuracy", "probe_accuracy_control"), ("probe_effect", "probe_effect_null"))
"""The variables that verdicts need: each measure with its companion."""


def probe_readings(dataset: xr.Dataset) -> xr.Dataset:
    """The four probe variables of a dataset under their plain names.

    The options of a measure (chosen sites, concepts, ...) are part of its name in a dataset, as in
    ``probe_accuracy_a+b``. Here every variable is called as if it had none. If a dataset holds
    several variants of a measure, the one with a plain name is taken.

    Args:
        dataset: holds probe_accuracy, probe_accuracy_control, probe_effect and probe_effect_null,
            with any suffix for options.

    Returns:
        A dataset of these four variables alone.

    Raises:
        ValueError: if a variable is missing, or if there are several variants of a measure and
            none has a plain name.

    Example:
        >>> names = ("probe_accuracy_a+b", "probe_accuracy_a+b_control")
        >>> names += ("probe_effect_a+b", "probe_effect_a+b_null")
        >>> sorted(probe_readings(xr.Dataset({name: 0.5 for name in names})))
        ['probe_accuracy', 'probe_accuracy_control', 'probe_effect', 'probe_effect_null']
    """
    names: dict[str, str] = {}
    for measure, companion in PAIRS:
        ending = companion.removeprefix(measure)
        suffixes = [
            name.removeprefix(measure).removesuffix(ending)
            for name in map(str, dataset)
            if name.startswith(measure) and name.endswith(ending)
        ]
        if "" not in suffixes and len(suffixes) != 1:
            available = sorted(map(str, dataset.data_vars))
            if not suffixes:
                raise ValueError(
                    f"The dataset has no {measure} beside {companion}. It has {available}."
                    f" Measure {measure} and add it."
                )
            variants = [f"{measure}{suffix}" for suffix in suffixes]
            raise ValueError(
                f"The dataset has several of {measure}: {variants}. It has {available}. Please"
                " select one variant and its companion variables."
            )
        suffix = "" if "" in suffixes else suffixes[0]
        names |= {f"{measure}{suffix}": measure, f"{measure}{suffix}{ending}": companion}
    return dataset[list(names)].rename(names)


def readout_site(dataset: xr.Dataset) -> str:
    """The last probed site before the outputs, where everything the network knows is together.

    Args:
        dataset: has the coordinate ``site``, in the order of the forward pass.

    Returns:
        The last site that is not "logits"; "logits" if there is no other.

    Example:
        >>> readout_site(xr.Dataset(coords={"site": ["embed", "resid_post", "logits"]}))
        'resid_post'
    """
    sites = [str(site) for site in dataset["site"].values]
    return next((site for site in reversed(sites) if site != "logits"), sites[-1])


def verdicts(dataset: xr.Dataset, site: str | None = None) -> list[Verdict]:
    """The verdict on each concept at one site at the last snapshot.

    Args:
        dataset: holds probe_accuracy, probe_accuracy_control, probe_effect and probe_effect_null,
            with or without a suffix for options (see ``probe_readings``); dims (seed, step, site,
            concept), and draw for probe_effect_null.
        site: name of the site; by default ``readout_site``.

    Returns:
        One ``Verdict`` per concept, in the order of the dataset.

    Raises:
        ValueError: if the dataset lacks a variable, or holds several variants of it.

    Example:
        >>> dims = ("seed", "step", "site", "concept")
        >>> dataset = xr.Dataset(
        ...     {
        ...         "probe_accuracy": (dims, np.full((1, 1, 1, 1), 1.0)),
        ...         "probe_accuracy_control": (dims, np.full((1, 1, 1, 1), 0.1)),
        ...         "probe_effect": (dims, np.full((1, 1, 1, 1), 0.5)),
        ...         "probe_effect_null": ((*dims, "draw"), np.full((1, 1, 1, 1, 20), 0.02)),
        ...     },
        ...     {"site": ["resid_post"], "concept": ["answer"]},
        ... )
        >>> [(verdict.concept, verdict.decodable, verdict.used) for verdict in verdicts(dataset)]
        [('answer', True, True)]
    """
    dataset = probe_readings(dataset)
    site = site or readout_site(dataset)
    last = dataset.sel(site=site).isel(step=-1)
    null = last["probe_effect_null"].transpose(..., "draw")

    def by_seed(values: xr.DataArray, concept: str) -> np.ndarray:
        return np.atleast_1d(values.sel(concept=concept).values)

    return [
        Verdict(
            str(concept),
            site,
            accuracy=by_seed(last["probe_accuracy"], concept),
            control=by_seed(last["probe_accuracy_control"], concept),
            effect=by_seed(last["probe_effect"], concept),
            null=by_seed(null.max("draw"), concept),
            draws=np.atleast_2d(by_seed(null, concept)),
        )
        for concept in last["concept"].values
    ]


def probe_tests(dataset: xr.Dataset, site: str | None = None) -> list[ClaimTest]:
    """ClaimTest claims about decodable concepts, two each: it is decodable, and it is used.

    - used: erasing the concept moves the answers more than erasing random subspaces of its rank
      (``significance.own_draws_p``). The evidence is an intervention.
    - decodable: its probe reads it better than the probe of the control task in every seed
      (``significance.sign_flip_p_values``).

    All concepts of the site, decodable or not, are one family in each of the two, and the p-values
    are adjusted for it. Neither claim is supported of a concept that is not decodable: the class
    means of labels that a site does not know lie along what it does know, so that an effect says
    nothing. Use is not supported either of one whose probe reads the control task as well in some
    seed: what is erased may then be the tokens.

    Args:
        dataset: holds probe_accuracy, probe_accuracy_control, probe_effect and probe_effect_null,
            dims (seed, step, site, concept), and draw for probe_effect_null; see ``verdicts``.
        site: name of the site; by default ``readout_site``.

    Returns:
        The claims on use, then those on decodability, by name of the concept.

    Raises:
        ValueError: if the dataset lacks a variable, or holds several variants of it.

    Example:
        >>> dims, one = ("seed", "step", "site", "concept"), np.ones((5, 1, 1, 1))
        >>> dataset = xr.Dataset(
        ...     {
        ...         "probe_accuracy": (dims, one),
        ...         "probe_accuracy_control": (dims, 0.1 * one),
        ...         "probe_effect": (dims, 0.5 * one),
        ...         "probe_effect_null": ((*dims, "draw"), np.full((5, 1, 1, 1, 20), 0.02)),
        ...     },
        ...     {"site": ["resid_post"], "concept": ["answer"]},
        ... )
        >>> [(test.text, test.p) for test in probe_tests(dataset)]
        [("'answer' is decodable and used at resid_post (probe_effect)", 2.448...e-07),
         ("'answer' is decodable at resid_post beyond the control task (probe_accuracy)", 0.03125)]
    """
    each = sorted(verdicts(dataset, site), key=lambda verdict: verdict.concept)
    used = within_family([own_draws_p(v.effect, v.draws, "above") for v in each])
    decoded = sign_flip_p_values(np.stack([v.accuracy - v.control for v in each], axis=1))
    return [
        *(_used_test(verdict, p) for verdict, p in zip(each, used, strict=True)),
        *(_decodable_test(verdict, float(p)) for verdict, p in zip(each, decoded, strict=True)),
    ]


def _used_test(verdict: Verdict, p: float) -> ClaimTest:
    """The claim that a decodable concept is used."""
    reason = (
        f"erasing it moves the answers by {_range(verdict.effect)} (total variation), random"
        f" subspaces by up to {_range(verdict.null)}; probe accuracy {_range(verdict.accuracy)},"
        f" control task {_range(verdict.control)}"
    )
    middle = np.median(verdict.draws, axis=1)
    return ClaimTest(
        f"'{verdict.concept}' is decodable and used at {verdict.site} (probe_effect)",
        "probe_effect",
        p,
        len(verdict.effect),
        reason,
        family="probe_effect",
        causal=True,
        large_enough=verdict.decodable and verdict.selective,
        contradicted=not verdict.decodable
        or bool((verdict.accuracy <= verdict.control).all())
        or bool((verdict.effect < middle).all()),
    )


def _decodable_test(verdict: Verdict, p: float) -> ClaimTest:
    """The claim that a concept is decodable beyond the control task."""
    seeds = len(verdict.accuracy)
    reason = (
        f"probe accuracy {_range(verdict.accuracy)}, control task {_range(verdict.control)};"
        f" {seeds} {'seed allows' if seeds == 1 else 'seeds allow'} no p-value below"
        f" {2.0**-seeds:.2g}"
    )
    return ClaimTest(
        f"'{verdict.concept}' is decodable at {verdict.site} beyond the control task"
        " (probe_accuracy)",
        "probe_accuracy",
        p,
        seeds,
        reason,
        family="probe_accuracy",
        large_enough=verdict.decodable,
        contradicted=not verdict.decodable or bool((verdict.accuracy < verdict.control).all()),
    )


def probe_claims(dataset: xr.Dataset, site: str | None = None) -> list[Claim]:
    """Claims of ``probe_tests``, judged by themselves (``judge_page``): what a page of nothing but
    these probes would claim.

    Args:
        dataset: see ``probe_tests``.
        site: name of the site; by default ``readout_site``.

    Returns:
        The claims, each with its numbers as the reason; "causal" needs five seeds.

    Raises:
        ValueError: if the dataset lacks a variable, or holds several variants of it.
    """
    return judge_page(probe_tests(dataset, site))


def _range(values: np.ndarray) -> str:
    """The smallest and the largest value to two decimals; one number if they agree."""
    low, high = (f"{x:.2f}" for x in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
