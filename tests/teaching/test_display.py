"""Source, tables and a warning as a page shows them."""

import inspect

import pytest

from explainer import masks
from explainer.teaching.display import Text, check_weights, source, table


def test_source_is_the_real_one_in_a_python_fence():
    shown = source(masks.complement, masks.target_mask)._repr_markdown_()

    fence, *lines, end = shown.rstrip().split("\n")
    assert (fence, end) == ("```python", "```")
    code = "\n".join(lines)
    assert inspect.getsource(masks.complement) in code + "\n"
    assert inspect.getsource(masks.target_mask) in code + "\n"


def test_table_shows_floats_with_their_decimals_and_escapes_the_rest():
    shown = table(["iou", "n"], {"a<b": [0.456, "<3"]}, digits=1)

    html = shown._repr_html_()
    assert "<th></th><th>iou</th><th>n</th>" in html
    assert "<th>a&lt;b</th><td>0.5</td><td>&lt;3</td>" in html


def test_an_interval_is_not_broken_across_lines():
    shown = table(["IoU ↑"], {"ours": ["−0.82 [−0.90, −0.84] *"]})

    html = shown._repr_html_()
    assert "<th>IoU\N{NO-BREAK SPACE}↑</th>" in html
    assert (
        '<td>−0.82 *<br><small style="white-space: nowrap">'
        "[−0.90, −0.84]</small></td>"
    ) in html
    assert "−0.82 [−0.90, −0.84] *" in str(shown)


def test_a_column_of_words_is_wide_and_begins_at_the_left():
    rows = {
        "a": ["one word and then another", "0.82 [0.80, 0.84] and more"],
        "b": ["–", "0.1"],
    }
    html = table(["changed", "n"], rows)._repr_html_()

    style = ' style="text-align: left; min-width: 12em"'
    assert f"<th{style}>changed</th><th>n</th>" in html
    assert f"<td{style}>–</td><td>0.1</td>" in html


def test_table_as_text_is_aligned():
    shown = table(["iou", "mae"], {"ours": [1.0, 0.25], "a": [0.5, "<0.1"]})

    assert str(shown) == (
        "       iou   mae\n"  #
        "ours  1.00  0.25\n"
        "a     0.50  <0.1"
    )


def test_text_is_shown_without_quotation_marks():
    words = Text("not run")

    assert words == "not run"
    assert words._repr_markdown_() == "not run"


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="'a' has 1 values for 2 columns"):
        table(["x", "y"], {"a": [1]})


def test_weights_that_are_there_need_no_word(capsys):
    check_weights("scenes", "classifier", "explainer")

    assert capsys.readouterr().out == ""


def test_weights_that_are_not_there_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no runs/ of one's own

    check_weights("voc2007-vgg16", "classifier", "explainer")

    for kind, said in zip(
        ("classifier", "explainer"),
        capsys.readouterr().out.splitlines(),
        strict=True,
    ):
        assert said.startswith(f"PRESET = 'voc2007-vgg16' has no {kind} here")
        assert f"`explainer train {kind} --preset voc2007-vgg16" in said
        assert "scenes_classifier" in said  # what could be asked for
