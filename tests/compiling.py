"""Counting what JAX compiles."""

import contextlib
import logging
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def compilations(of: str = "") -> Iterator[list[str]]:
    """The messages of every program named ``of`` (all by default) that is compiled inside the
    block.
    """
    logger, messages = logging.getLogger("jax._src.interpreters.pxla"), list[str]()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if message.startswith(f"Compiling {of}"):
                messages.append(message)

    handler, propagate = Keep(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with jax.log_compiles():
            yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
