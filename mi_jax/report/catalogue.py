"""The figures that a run's report can have: title, caption, alt text, and the readings that each
needs.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mi_jax import plots
from mi_jax.dynamics import AT_ONCE, Dates, Phases, readout_site
from mi_jax.measuring.nulls import Nulls


class Plan(NamedTuple):
    """A figure: what it says, what it needs, how it is drawn."""

    name: str
    title: str
    caption: str
    alt: str
    needs: set[str]
    draw: Callable[[], Any]
    marks: tuple[str, ...] = ()
    """What is marked on it beside its readings and their nulls: see ``figures``."""
    shows: tuple[str, ...] = ()
    """What else it tells of its readings, so that no other figure has to."""


DATES = ("memorised", "grokked", "memorisation_end", "circuit_formation_end", "cleanup_end")
_KEYS = ("final_keys",)
_COMPARED = {
    f"{kind}_final" for kind in ("cka", "procrustes", "loss_barrier_train", "loss_barrier_test")
}
_COMPARED |= {f"subspace_angle_{place}_final" for place in ("embedding", "unembedding")}


def plans(
    dataset: xr.Dataset,
    nulls: Nulls,
    dates: Dates | None,
    phases: Phases | None,
    born: xr.DataArray | None,
    pictures: xr.Dataset,
    lines: xr.Dataset,
    path: xr.Dataset,
) -> list[Plan]:
    """Every figure that a report can have, in its order; ``lines`` and ``path`` are those of
    ``across``.
    """
    found = [
        *_curves(dataset, nulls, dates, phases),
        *_spectral(dataset, nulls, born),
        *_neural(dataset),
    ]
    found += [
        *_of_weights(dataset, nulls),
        *_pictured(dataset, pictures),
        *_landscape(dataset, nulls),
        *_probed(dataset),
    ]
    shown = {name for plan in found for name in (*plan.needs, *plan.shows)}
    found += [*_by_part(dataset, nulls, shown), *_beside_nulls(dataset, nulls, shown)]
    return found + _followed(lines, path)


def _curves(
    dataset: xr.Dataset, nulls: Nulls, dates: Dates | None, phases: Phases | None
) -> list[Plan]:
    seeds = "Lines of one colour are seeds, by style." if dataset.sizes["seed"] > 1 else ""
    shaded = (
        "Grounds: memorisation (grey), circuit formation (blue), clean-up (yellow), up to their"
        " median ends; bars at the foot are the ends' range or interval over seeds. Triangles: a"
        " seed first reaches .99 training (blue), test (orange) accuracy."
    )
    band = (
        "Bands: the same with other frequencies in the place of the key ones (range of the draws)."
    )
    losses, accuracies = (
        {f"{split}_{kind}" for split in ("train", "test")} for kind in ("loss", "accuracy")
    )
    plans = [
        Plan(
            "progress",
            "The circuit under the loss",
            "Restricted loss: the logits' key frequencies and class means alone, all pairs."
            " Excluded: everything but the key frequencies, training pairs. Key frequencies are"
            f" the final model's (retrospective). {band} {shaded} {seeds}",
            "Restricted, excluded and test loss against the step, both axes logarithmic.",
            {"restricted_loss", "excluded_loss", "test_loss"},
            lambda: plots.progress_curves(
                dataset, dates=dates, phases=phases, null=nulls.frequencies
            ),
            DATES,
        ),
        Plan(
            "loss",
            "Loss",
            f"Training and test loss by step. {shaded} {seeds}",
            "Training and test loss against the step, both axes logarithmic.",
            losses,
            lambda: plots.loss_curves(dataset, dates=dates, phases=phases),
            DATES,
        ),
        Plan(
            "accuracy",
            "Accuracy",
            f"Training and test accuracy by step. {shaded} {seeds}",
            "Training and test accuracy against the step.",
            accuracies,
            lambda: plots.accuracy_curves(dataset, dates=dates, phases=phases),
            DATES,
        ),
    ]
    noisy = {"clean_accuracy", "memorised_accuracy", "corrected_accuracy", "test_accuracy"}
    if noisy <= set(dataset):
        plans.append(
            Plan(
                "wrong_labels",
                "What becomes of wrong labels",
                "Accuracy on training examples with their own label, on corrupted ones against the"
                f" label they were given and against the right one, and in test. {seeds}",
                "Four accuracies against the step.",
                noisy,
                lambda: plots.label_noise_curves(dataset),
            )
        )
    # Where every step draws fresh examples, there is nothing to compare the test curves with.
    if dates is None and not {"train_loss", "train_accuracy"} & set(dataset):
        told = f"By step. {seeds}"
        plans += [
            Plan(
                "test_loss",
                "Test loss",
                told,
                "Test loss against the step.",
                {"test_loss"},
                lambda: plots.loss_curves(dataset),
            ),
            Plan(
                "test_accuracy",
                "Test accuracy",
                told,
                "Test accuracy against the step.",
                {"test_accuracy"},
                lambda: plots.accuracy_curves(dataset),
            ),
        ]
    together = phases is not None and bool((phases.verdict == AT_ONCE).all())
    if (
        dates is not None
        and dates.grokked.notnull().any()
        and dataset.sizes["seed"] > 1
        and not together
    ):
        plans.append(
            Plan(
                "seeds",
                "Every seed on its own clock",
                "Test accuracy against step / step of grokking; seeds that never grok are grey.",
                "Test accuracy of each seed, its step of grokking at one.",
                {"test_accuracy"},
                lambda: plots.aligned_seeds(dataset, dates),
                ("grokked",),
            )
        )
    return plans


def _spectral(dataset: xr.Dataset, nulls: Nulls, born: xr.DataArray | None) -> list[Plan]:
    """Frequencies of the weights, and what each is worth."""
    seed = int(dataset["seed"].values[0])
    told = f"(seed {seed})"
    winners = (
        "Triangles: from when on a final key frequency holds more than twice an even share for"
        " good."
    )
    return [
        Plan(
            "frequencies",
            f"The mechanism being born {told}",
            f"Share of each Fourier frequency in the map from neurons to logits. {winners}",
            "A map of frequency and step: the darker, the more power.",
            {"fourier_power_unembedding"},
            lambda: plots.frequency_map(dataset, seed=seed, births=born),
            ("births", *_KEYS),
        ),
        Plan(
            "frequencies_embedding",
            f"The same in the embedding {told}",
            "Share of each Fourier frequency in the embedding.",
            "A map of frequency and step: the darker, the more power.",
            {"fourier_power_embedding"},
            lambda: plots.frequency_map(dataset, seed=seed, place="embedding"),
            _KEYS,
        ),
        Plan(
            "spectra",
            f"Final spectra {told}",
            "Share of each frequency in the embedding and in the map from neurons to logits, at the"
            " last step.",
            "A bar a frequency for each of the two maps.",
            {"fourier_power_embedding", "fourier_power_unembedding"},
            lambda: plots.spectra(dataset, seed=seed),
        ),
        Plan(
            "gini",
            "Sparsity in the Fourier basis",
            "Gini coefficient of the norms of the Fourier components. Bands: untrained networks"
            " (range of the draws).",
            "Two Gini coefficients against the step, beside untrained networks.",
            {"gini_embedding", "gini_unembedding"},
            lambda: plots.gini_curves(dataset, null=nulls.untrained),
        ),
        Plan(
            "excluded_by_frequency",
            f"What each frequency is worth {told}",
            "Training loss with one frequency removed from the logits: key frequencies in colour,"
            " all others grey.",
            "Excluded loss against the step, a line a frequency.",
            {"excluded_loss_by_frequency"},
            lambda: _log(
                plots.frequency_lines(
                    dataset, "excluded_loss_by_frequency", "excluded loss", seed=seed
                )
            ),
            _KEYS,
        ),
    ]


def _neural(dataset: xr.Dataset) -> list[Plan]:
    """Which neurons and heads do it, and by which answers it shows."""
    seed = int(dataset["seed"].values[0])
    told = f"(seed {seed})"
    return [
        Plan(
            "clusters",
            f"Neurons by frequency {told}",
            "Neurons of which one frequency explains at least .85 of the variance, at the last"
            " step.",
            "Counts of neurons by frequency.",
            {"cluster_sizes"},
            lambda: plots.neuron_clusters(dataset, seed=seed),
        ),
        Plan(
            "neuron_flow",
            f"Neurons joining clusters {told}",
            "Neurons that a frequency explains to at least .85, by frequency, over training.",
            "Counts of neurons by frequency, stacked, against the step.",
            {"cluster_sizes"},
            lambda: plots.neuron_flow(dataset, seed=seed),
            _KEYS,
        ),
        Plan(
            "attention",
            f"Attention {told}",
            "Mean attention of the position that is read: colours are heads, line styles attended"
            " positions (solid: the first).",
            "Attention of each head to each position against the step.",
            {"attention_pattern"},
            lambda: plots.attention_curves(dataset, seed=seed),
        ),
        Plan(
            "hidden_progress",
            "What the weights know before the answers do",
            "Accuracy; the largest move of a first-layer weight (hidden progress), and how far the"
            " weights of one neuron on the signs that matter stand above its others (weight gap);"
            " where there is a training set, how many neurons, the largest first, answer as well as"
            " all. Seeds by line style.",
            "Accuracy, hidden progress and effective sparsity against the step.",
            {"test_accuracy", "hidden_progress"},
            lambda: plots.hidden_progress_panels(dataset),
            shows=("weight_gap", "effective_sparsity"),
        ),
        Plan(
            "positions",
            f"One answer after the other {told}",
            "Test loss of each answer that is read, by its position in the input.",
            "Test loss of each position against the step.",
            {"test_loss_by_position"},
            lambda: plots.position_curves(dataset, seed=seed),
        ),
    ]


def _of_weights(dataset: xr.Dataset, nulls: Nulls) -> list[Plan]:
    """Sizes of the weights, their singular values, and the irreps that they compute by."""
    seed = int(dataset["seed"].values[0])
    told = f"(seed {seed})"
    return [
        Plan(
            "norms",
            f"Weights {told}",
            "Sum of squared weights of each array.",
            "Sum of squared weights of each array against the step.",
            {"sum_squared_weights_by_parameter"},
            lambda: plots.norm_curves(dataset, seed=seed),
        ),
        Plan(
            "singular_values",
            f"Singular values of the unembedding {told}",
            "The 16 largest singular values of the map from neurons to logits, the largest"
            " darkest.",
            "Singular values against the step.",
            {"singular_values_unembedding"},
            lambda: plots.singular_value_curves(dataset, seed=seed),
        ),
        Plan(
            "irreps",
            "The irreps that the network computes by",
            "Cosine of the logits with the character of each irrep at x y z^-1; line styles are"
            " seeds. The trivial irrep's is 0. Band: untrained networks (range of the draws, over"
            " all irreps).",
            "Similarity to each irrep against the step.",
            {"logit_similarity"},
            lambda: plots.irrep_curves(dataset, null=nulls.untrained.get("logit_similarity")),
        ),
    ]


def _pictured(dataset: xr.Dataset, pictures: xr.Dataset) -> list[Plan]:
    seed = int(dataset["seed"].values[0])
    plans = [
        Plan(
            "surface",
            f"Where the answers are right (seed {seed})",
            "The right logit minus the largest wrong one for every pair: blue is right; trained"
            " pairs are framed in black.",
            "Tables of all pairs at several steps, coloured by margin.",
            {"answer_surface", "trained_pairs"},
            lambda: plots.answer_surface(pictures, seed=seed),
        )
    ]
    if len(plots.key_labels(dataset, seed)):
        plans.append(
            Plan(
                "circles",
                f"The embedding on its circles (seed {seed})",
                "Tokens in the planes of the final key frequencies, a row each; colour is the"
                " token's angle.",
                "Tokens in planes, at several steps.",
                {"circle_coordinates"},
                lambda: plots.embedding_circles(pictures, dataset, seed=seed),
                _KEYS,
            )
        )
    return plans


def _probed(dataset: xr.Dataset) -> list[Plan]:
    """What is decodable against what is used, where probes and their effects were read."""
    needs = {"probe_accuracy", "probe_accuracy_control", "probe_effect", "probe_effect_null"}
    if not needs <= set(dataset):
        return []
    site = readout_site(dataset)
    seeds = " Seeds by line style." if dataset.sizes["seed"] > 1 else ""
    return [
        Plan(
            "decodable_and_used",
            f"Decodable against used, at {site}",
            "Blue: how often a linear probe is right on the half of the examples that it was not"
            " fitted on; pale: on the control task, after tokens were renamed. Orange: how far the"
            " answers' distribution moves (total variation) when the probe's subspace is erased;"
            " band: the range of random subspaces of the same rank. Where blue lies on its control"
            " task, the site doesn't know the concept as such, and orange says nothing of"
            f" it.{seeds}",
            "Probe accuracy and effect of erasure against the step, by concept.",
            needs,
            lambda: plots.decodable_and_used(dataset),
            shows=("probe_accuracy_train",),
        ),
        Plan(
            "probe_map",
            "Where concepts are decodable, and where they are used",
            "At the last step, mean over seeds: probe accuracy on the test half, which is high by"
            " chance where classes are few; the same less that of the control task; and the effect"
            " of erasing less the largest of random subspaces. A concept that is bright in the"
            " middle and dark on the right is present but not used there.",
            "Accuracy and effect by site and concept.",
            needs,
            lambda: plots.probe_map(dataset),
        ),
    ]


def _landscape(dataset: xr.Dataset, nulls: Nulls) -> list[Plan]:
    """What is read of the loss around the checkpoints, where it was."""
    null = nulls.expensive
    seeds = " Seeds by line style." if dataset.sizes["seed"] > 1 else ""
    untrained = " Band: untrained networks (range of the draws)."
    band = {name: untrained * (name in null) for name in ("learning_coefficient", "sharpness")}
    told = tuple(
        str(name) for name in dataset.data_vars if str(name).startswith("learning_coefficient_")
    )
    threshold = _edge_of_stability(dataset)
    edge = (
        f" Dashed: 2/eta = {threshold:.3g}, where plain gradient descent would diverge on a"
        " quadratic."
        if threshold
        else ""
    )
    return [
        Plan(
            "learning_coefficient",
            "The learning coefficient beside the loss",
            "Local learning coefficient of the training loss by localised SGLD"
            f"{_protocol(dataset, 'learning_coefficient')}, with a standard error. Hollow: flagged"
            " (steps too large, chains that"
            " disagree or diverged, a negative value)."
            f"{_held_by_gamma(dataset, 'learning_coefficient')}{band['learning_coefficient']}{seeds}",
            "Loss above, learning coefficient below, over the same steps.",
            {"learning_coefficient", "learning_coefficient_se"},
            lambda: plots.learning_coefficient_curves(
                dataset, null=null.get("learning_coefficient")
            ),
            shows=told,
        ),
        Plan(
            "sharpness",
            "Sharpness",
            "Largest eigenvalue of the Hessian of the training loss"
            f" (Lanczos).{edge}{band['sharpness']}{seeds}",
            "The largest Hessian eigenvalue over training.",
            {"sharpness"},
            lambda: plots.sharpness_curves(
                dataset, threshold=threshold, null=null.get("sharpness")
            ),
        ),
        *(
            _refined(dataset, name, seeds)
            for name in told
            if f"{name}_se" in dataset and f"{name}_loss_trace" in dataset
        ),
    ]


def _refined(dataset: xr.Dataset, name: str, seeds: str) -> Plan:
    """A learning coefficient of some parameters or examples, or with another protocol, which its
    name says.
    """
    return Plan(
        re.sub(r"[^\w.+=-]", "_", name),
        f"{name} beside the loss",
        f"The same with other options than the default ones{_protocol(dataset, name)}. Hollow:"
        f" flagged.{_held_by_gamma(dataset, name)}{seeds}",
        "Loss above, learning coefficient below, over the same steps.",
        {name, f"{name}_se"},
        lambda: plots.learning_coefficient_curves(dataset, name=name),
    )


def _held_by_gamma(dataset: xr.Dataset, name: str) -> str:
    """How many estimates say more of gamma than of the loss."""
    if f"{name}_localisation" not in dataset:
        return ""
    share = dataset[f"{name}_localisation"].values
    count, of = int((share > 0.5).sum()), int(np.isfinite(share).sum())
    told = (
        f" In {count} of {of} estimates gamma holds the chains more than the loss does"
        f" ({name}_localisation above .5)."
    )
    return told if count else ""


def _protocol(dataset: xr.Dataset, name: str) -> str:
    """In brackets, the options of an estimate that any number of it depends on."""
    provenance = dataset[name].attrs.get("provenance") if name in dataset else None
    if not provenance:
        return ""
    told = json.loads(provenance)
    given = {key: value for key, value in told["options"].items() if value not in (None, [])}
    temperatures = list(told.get("prepared", {}).get(f"{name}_n_beta", {}).values())
    if temperatures:
        given["n_beta"] = f"{temperatures[0]:.4g}"
    return f" ({', '.join(f'{key} {value}' for key, value in given.items())})"


def _followed(lines: xr.Dataset, path: xr.Dataset) -> list[Plan]:
    """What needs several snapshots at once: see ``across``."""
    seed = int(lines["seed"].values[0]) if "seed" in lines else None
    waves = (
        " coloured where one frequency holds at least half of the mode at the end,"
        if "mode_frequency" in lines
        else ""
    )
    return [
        Plan(
            "modes",
            f"Modes of the unembedding (seed {seed})",
            "Singular modes of the map from neurons to logits, each followed from snapshot to"
            f" snapshot:{waves} thick where it exceeds what the untrained table reaches (dashed);"
            " triangles: from when on.",
            "Singular values of followed modes against the step.",
            {"mode_value", "mode_alive", "mode_found", "mode_birth", "mode_noise"},
            lambda: plots.mode_curves(lines, seed=seed or 0),
        ),
        Plan(
            "path",
            "The path of the weights, and of random walks",
            "Joint principal components of all seeds' parameters (line styles), from the first"
            " snapshot (dark) to the last (light). Beside it: random walks with the same step"
            " lengths, drawn alike (the null: a single walk draws a Lissajous figure).",
            "Paths of the seeds in weight space beside those of random walks.",
            {"score", "share", "walk_score", "walk_share"},
            lambda: plots.path_panels(path),
        ),
    ]


def _edge_of_stability(dataset: xr.Dataset) -> float | None:
    """2 / eta of the experiment that the readings are of; None where its optimizer has no one
    learning rate.
    """
    optimizer = (
        json.loads(dataset.attrs.get("provenance", "{}")).get("experiment", {}).get("optimizer", {})
    )
    rate = optimizer.get("learning_rate")
    return 2 / rate if isinstance(rate, (int, float)) and rate > 0 else None


def _by_part(dataset: xr.Dataset, nulls: Nulls, shown: set[str]) -> list[Plan]:
    """Readings of heads, matrices and concepts that no other figure shows."""
    every = {str(name): one for kind in nulls for name, one in kind.data_vars.items()}
    null = {
        name: one for name, one in every.items() if "draw" in one.dims and "step" not in one.dims
    }
    numbers = {
        str(name): one.dims for name, one in dataset.data_vars.items() if one.dtype.kind == "f"
    }
    held = {name: {*map(str, dims)} - {"seed", "step"} for name, dims in numbers.items()}
    rest = [
        name
        for name, dims in held.items()
        if dims - {"mode"} and dims <= plots.PARTS and name not in shown
    ]
    seed = int(dataset["seed"].values[0])
    return [
        Plan(
            "parts",
            f"By head, matrix and concept (seed {seed})",
            "The parts that are largest at the end in colour, all others grey. Of sites the last"
            " one before the outputs, of singular values the largest. Bands, where there is such a"
            " null: untrained networks (range of the draws, over all parts).",
            "A panel for each reading against the step, a line a part.",
            set(rest),
            lambda: plots.part_panels(dataset, rest, seed=seed, null=null),
        )
    ] * bool(rest)


def _beside_nulls(dataset: xr.Dataset, nulls: Nulls, shown: set[str]) -> list[Plan]:
    """Every scalar reading that no other figure shows, beside its null."""
    null = {str(name): one for kind in nulls for name, one in kind.data_vars.items()}
    scalar = [name for name, one in dataset.data_vars.items() if one.dims == ("seed", "step")]
    rest = [str(name) for name in scalar if name not in shown and name in null]
    other = (
        "; of comparisons with the final model, between two untrained networks"
        if set(rest) & _COMPARED
        else ""
    )
    other += (
        ", or with other frequencies in the place of the key ones"
        if set(rest) & set(nulls.frequencies)
        else ""
    )
    return [
        Plan(
            "readings",
            "Every other reading beside its null",
            f"Lines are seeds, by style. Bands: the same reading of untrained networks{other}"
            " (range of the draws).",
            "A small panel for each reading against the step.",
            set(rest),
            lambda: plots.reading_panels(dataset, rest, null=null),
        )
    ] * bool(rest)


def _log(axes: Any) -> Any:
    axes.set_yscale("log")
    return axes
