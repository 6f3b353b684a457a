"""Ship the results files of the book in the package, as explainer.results.

The one part of the package that lies elsewhere in the repository. All else
about it stands in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["explainer*"]), "explainer.results"],
    package_dir={"explainer.results": "book/results"},
)
