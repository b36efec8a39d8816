"""Decodable against used: what probes and their interventions say of each concept, by stated rules."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from mi_jax.dynamics.evidence import REPLICATED, Claim

DECODABLE = 0.9
"""Accuracy on the test half from which a concept counts as decodable ..."""

SELECTIVE = 0.1
"""... and accuracy beyond the control task's from which it does at any accuracy."""


class Verdict(NamedTuple):
    """What the last snapshot says of a concept at a site; each array has an entry a seed."""

    concept: str
    site: str
    accuracy: np.ndarray
    control: np.ndarray
    """Accuracy on the control task."""
    effect: np.ndarray
    null: np.ndarray
    """The largest effect of random subspaces."""

    @property
    def decodable(self) -> bool:
        """In every seed to at least DECODABLE, or in every seed by SELECTIVE better than the
        control task.
        """
        return bool(
            (self.accuracy >= DECODABLE).all() or (self.accuracy >= self.control + SELECTIVE).all()
        )

    @property
    def selective(self) -> bool:
        """In every seed better than the control task."""
        return bool((self.accuracy > self.control).all())

    @property
    def used(self) -> bool:
        """In every seed the effect is beyond all random subspaces'."""
        return bool((self.effect > self.null).all())


READ = ("probe_accuracy", "probe_accuracy_control", "probe_effect", "probe_effect_null")
"""What is decodable, and what is used."""


def probe_readings(dataset: xr.Dataset) -> xr.Dataset:
    """``READ`` by their plain names, also where options (chosen sites, concepts ...) have added to
    the names in the dataset.

    Raises:
        ValueError: where one of both is not in the dataset, or several are with different options
            and none has a plain name.
    """
    names: dict[str, str] = {}
    for stem, second in (READ[:2], READ[2:]):
        ending = second.removeprefix(stem)
        suffixes = [
            name.removeprefix(stem).removesuffix(ending)
            for name in map(str, dataset)
            if _is(name, stem, ending)
        ]
        if "" not in suffixes and len(suffixes) != 1:
            found = [f"{stem}{suffix}" for suffix in suffixes]
            told = (
                f"the dataset has several of {stem}, {found}; select one"
                if found
                else f"the dataset has no {stem} beside {second}"
            )
            raise ValueError(f"{told}; it has {sorted(map(str, dataset.data_vars))}")
        suffix = "" if "" in suffixes else suffixes[0]
        names |= {f"{stem}{suffix}": stem, f"{stem}{suffix}{ending}": second}
    return dataset[list(names)].rename(names)


def _is(name: str, stem: str, ending: str) -> bool:
    return name.startswith(stem) and name.endswith(ending)


def readout_site(dataset: xr.Dataset) -> str:
    """The last probed site before the outputs, where what the network knows is together; the only
    one, if there is one.
    """
    sites = [str(site) for site in dataset["site"].values]
    return next((site for site in reversed(sites) if site != "logits"), sites[-1])


def verdicts(dataset: xr.Dataset, site: str | None = None) -> list[Verdict]:
    """One a concept, at the site given or ``readout_site``.

    Args:
        dataset: probe_accuracy, probe_accuracy_control, probe_effect, probe_effect_null; dims
            (seed, step, site, concept), the last with draw. What options add to their names is no
            matter (``probe_readings``).
    """
    dataset = probe_readings(dataset)
    site = site or readout_site(dataset)
    last = dataset.sel(site=site).isel(step=-1)
    null = last["probe_effect_null"].max("draw")
    return [
        Verdict(
            str(concept),
            site,
            *(
                np.atleast_1d(one.sel(concept=concept).values)
                for one in (
                    last["probe_accuracy"],
                    last["probe_accuracy_control"],
                    last["probe_effect"],
                    null,
                )
            ),
        )
        for concept in last["concept"].values
    ]


def probe_claims(dataset: xr.Dataset, site: str | None = None) -> list[Claim]:
    """A finding for each concept that is decodable, the used ones first.

    Of one that isn't, an effect says nothing: the class means of labels that a site doesn't know
    lie along what it does know.

    3 causal: erasing it moves the answers, in every seed more than random subspaces of its rank.
        Without that 1 beats nulls (2 in
    at least five seeds): it is decodable, in every seed better than the control task; else 0
    observed.
    """
    found: list[Claim] = []
    for one in sorted(verdicts(dataset, site), key=lambda one: (not one.used, one.concept)):
        if not one.decodable:
            continue
        level = 3 if one.used else (1 + (len(one.accuracy) >= REPLICATED)) * one.selective
        reason = (
            f"probe accuracy {_told(one.accuracy)}, control task {_told(one.control)}; erasing it"
            f" moves the answers by {_told(one.effect)} (total variation), random subspaces by up"
            f" to {_told(one.null)}"
        )
        use = "used" if one.used else "not seen to be used"
        found.append(
            Claim(
                f"'{one.concept}' is decodable and {use} at {one.site} (probe_accuracy,"
                " probe_effect)",
                int(level),
                reason,
            )
        )
    return found


def _told(values: np.ndarray) -> str:
    low, high = (f"{x:.2f}" for x in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
