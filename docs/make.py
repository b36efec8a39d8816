"""Write every generated page of the documentation: run this after adding a task or a model.

python docs/make.py

Each page has a program ``make_NAME.py`` beside this one, which also runs alone.
"""

import runpy
from pathlib import Path


def main() -> None:
    """Run every ``make_*.py`` of this folder, in alphabetical order."""
    for program in sorted(Path(__file__).parent.glob("make_*.py")):
        print(program.name)
        runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
