"""Which versions of other packages this one is tested with.

    python tools/check_versions.py oldest
    python tools/check_versions.py unchanged .github/colab-requirements.txt

``oldest`` prints the lower bounds of ``pyproject.toml`` as constraints for
pip, so that CI installs the oldest packages that are said to do. A list of
its own could drift away from the bounds. ``unchanged`` fails if torch,
torchvision or NumPy is not installed in the version that a list of
requirements names: in Colab they fit the machine, and the installation of
this package must leave them alone.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("torch", "torchvision", "numpy")


def lower_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """Return the version behind ``>=`` by package.

    Raises ValueError for a requirement without such a bound.
    """
    bounds = {}
    for requirement in requirements:
        found = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} names no oldest version")
        bounds[found[1]] = found[2]
    return bounds


def oldest(root: Path = ROOT) -> dict[str, str]:
    """Return the oldest versions that ``pyproject.toml`` allows."""
    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return lower_bounds(project["dependencies"])


def pinned(text: str) -> dict[str, str]:
    """Return the versions of a list of ``name==version`` lines."""
    return dict(re.findall(r"^([\w.-]+)==([\w.+!]+)", text, re.MULTILINE))


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return installed versions without their build (``+cu128``)."""
    found = {}
    for name in names:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def changes(wanted: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return a line for each package of :data:`KEPT` that differs."""
    return [
        f"{name} is {here[name]}, and was {wanted[name].partition('+')[0]}"
        for name in KEPT
        if here[name] != wanted[name].partition("+")[0]
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the oldest versions, or compare those that are installed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("oldest")
    commands.add_parser("unchanged").add_argument("list", type=Path)
    asked = parser.parse_args(arguments)
    if asked.command == "oldest":
        for name, bound in oldest().items():
            print(f"{name}=={bound}")
        return
    wanted = pinned(asked.list.read_text(encoding="utf-8"))
    found = changes(wanted, installed(KEPT))
    if found:
        sys.exit("\n".join(found))
    print(", ".join(f"{name} {wanted[name]}" for name in KEPT), "as before")


if __name__ == "__main__":
    main()
