"""Interventions as text: ``Change(field="optimizer.weight_decay", value=0.3, start=400)``.

The arguments are literals; the text is parsed and never executed.
"""

from collections.abc import Mapping

from mi_jax.basics.calls import called
from mi_jax.interventions.places import Intervention

_EXAMPLE = 'Change(field="optimizer.weight_decay", value=0.3, start=400)'


def parse(text: str, known: Mapping[str, type[Intervention]]) -> Intervention:
    """Read an intervention from text: the call of a known class with literal arguments.

    Args:
        text: the call, by the name of the class.
        known: the classes by registry name, such as ``INTERVENTIONS``.

    Raises:
        ConfigError: for any other text.

    Example:
        >>> from mi_jax.interventions import INTERVENTIONS
        >>> parse('Freeze("embed.*", start=10, stop=20)', INTERVENTIONS)
        Freeze(start=10, stop=20, parameters=('embed.*',))
    """
    classes = {cls.__name__: cls for cls in known.values()}
    return called(text, classes, kind="intervention", example=_EXAMPLE)
