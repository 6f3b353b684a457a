"""The reference: the API page is whole, the symbols name real code."""

import importlib
import re

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

import explainer
import explainer.data
import explainer.training
from chapters import ROOT

API = ROOT / "book" / "reference_api.md"


@pytest.fixture(scope="module")
def api_page(tmp_path_factory):
    """The API page as HTML; a docstring that is no good markup fails it."""
    folder = tmp_path_factory.mktemp("api")
    source = folder / "source"
    source.mkdir()
    # The other pages are not built, so their links have nothing to lead to.
    text = re.sub(r"\]\(\w+\.ipynb\)", "](#api)", API.read_text())
    (source / "index.md").write_text("(api)=\n" + text)
    with patch_docutils(), docutils_namespace():
        application = Sphinx(
            str(source),
            None,
            str(folder / "html"),
            str(folder / "trees"),
            "html",
            confoverrides={
                "extensions": [
                    "sphinx.ext.autodoc",
                    "sphinx.ext.napoleon",
                    "myst_parser",
                ],
                "autodoc_member_order": "bysource",
            },
            status=None,
            warningiserror=True,
        )
        application.build()
        assert application.statuscode == 0
    return (folder / "html" / "index.html").read_text()


@pytest.mark.parametrize(
    "module", [explainer, explainer.data, explainer.training]
)
def test_every_public_name_is_on_the_api_page(api_page, module):
    shown = set(
        re.findall(r'class="sig-name descname">(.+?)</span></s', api_page)
    )
    shown = {re.sub("<.+?>", "", name) for name in shown}

    assert set(module.__all__) - shown == set()


def test_functions_that_no_list_names_are_on_the_api_page(api_page):
    for name in (
        "explainer.losses.area_bound",
        "explainer.metrics.mean_iou",
        "explainer.attribution.rise.rise",
    ):
        assert f'id="{name}"' in api_page
    assert 'id="explainer.masks._fill_mean"' not in api_page


def symbols():
    text = (ROOT / "book" / "symbols.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| $")]
    return {
        row.split("|")[1].strip(): re.findall(
            r"`(explainer\.[\w.]+)`", row.split("|")[-2]
        )
        for row in rows
    }


def test_every_symbol_names_code_that_exists():
    assert len(symbols()) > 20
    for symbol, names in symbols().items():
        assert names, symbol
        for name in names:
            module, _, attribute = name.rpartition(".")
            found = getattr(importlib.import_module(module), attribute, None)
            assert callable(found), (symbol, name)
