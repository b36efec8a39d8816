"""Interventions as text: ``Change(field="optimizer.weight_decay", value=0.3, start=400)``, literals
only, never executed.
"""

from mi_jax.basics.calls import called
from mi_jax.interventions.places import Intervention

_EXAMPLE = 'Change(field="optimizer.weight_decay", value=0.3, start=400)'


def parse(text: str, known: dict[str, type[Intervention]]) -> Intervention:
    """The intervention that a call of one of the known classes with literal arguments says.

    Example:
        >>> from mi_jax.interventions import INTERVENTIONS
        >>> parse('Freeze("embed.*", start=10, stop=20)', INTERVENTIONS)
        Freeze(start=10, stop=20, parameters=('embed.*',))

    Raises:
        ConfigError: for anything else.
    """
    return called(
        text, {one.__name__: one for one in known.values()}, kind="intervention", example=_EXAMPLE
    )
