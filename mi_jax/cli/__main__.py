"""Run the command line as a module: ``python -m mi_jax.cli``."""

import sys

from mi_jax.cli.main import main

sys.exit(main())
