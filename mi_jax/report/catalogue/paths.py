"""Figures that follow the weights through several snapshots: see ``runs.across``."""

from mi_jax import plots
from mi_jax.report.catalogue.plan import FigurePlan
from mi_jax.report.inputs import ReportInputs


def modes(inputs: ReportInputs) -> list[FigurePlan]:
    """Followed singular modes of the unembedding."""
    lines = inputs.mode_lines
    if "seed" not in lines:
        return []
    seed = int(lines["seed"].values[0])
    colour = ""
    if "mode_frequency" in lines:
        colour = (
            " A mode has a frequency's colour where the frequency holds more than half of it at"
            " the end."
        )
    return [
        FigurePlan(
            "modes",
            f"Modes of the unembedding (seed {seed})",
            "Singular modes of the map from neurons to logits, W_L, each followed from snapshot to"
            f" snapshot.{colour} Dashed: what the untrained table reaches. Lines are thick above"
            " it; triangles: by this snapshot, the mode's longest stretch above it has begun; those"
            " that point left, before the first snapshot.",
            "Singular values of followed modes against the step.",
            {"mode_value", "mode_alive", "mode_found", "mode_birth", "mode_noise"},
            lambda: plots.mode_curves(lines, seed=seed),
        )
    ]


def path(inputs: ReportInputs) -> list[FigurePlan]:
    """Paths of the seeds through weight space."""
    return [
        FigurePlan(
            "path",
            "Paths of the weights beside random walks",
            "Joint principal components of all seeds' parameters (line styles are seeds), from the"
            " first snapshot (dark) to the last (light). Beside them: random walks with the same"
            " step lengths, drawn in the same way. They are the null: even a single random walk"
            " draws a smooth (Lissajous) curve.",
            "Paths of the seeds in weight space beside those of random walks.",
            {"score", "share", "walk_score", "walk_share"},
            lambda: plots.path_panels(inputs.weight_path),
        )
    ]
