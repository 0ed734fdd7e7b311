import sys
import xml.etree.ElementTree as xml

import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.charts import line_chart, project_codes, scatter_chart

SVG = "{http://www.w3.org/2000/svg}"


def clusters(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 0.1, (count, 8)), rng.normal(5, 0.1, (count, 8))])


@pytest.mark.parametrize(("count", "method"), [(4, "PCA"), (12, "t-SNE")])
def test_clusters_stay_apart_in_the_plane(count, method):
    plane, found = project_codes(clusters(count))
    assert (plane.shape, found) == ((2 * count, 2), method)
    centres = plane[:count].mean(0), plane[count:].mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > 3 * max(plane[:count].std(), plane[count:].std())
    assert project_codes(clusters(count))[0].tolist() == plane.tolist()


def test_without_scikit_learn_it_is_pca_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    plane, method = project_codes(clusters(12))
    assert method == "PCA"
    assert plane.var(0)[0] == pytest.approx(np.linalg.eigvalsh(np.cov(clusters(12), rowvar=False, bias=True)).max())


def test_a_single_dimension_or_code_is_no_harm():
    assert project_codes(np.ones((3, 1)))[0].tolist() == np.zeros((3, 2)).tolist()
    assert project_codes(np.ones((1, 4)))[0].shape == (1, 2)


def test_lines_go_through_their_points_and_texts_are_escaped():
    chart = xml.fromstring(line_chart("a < b", {"<one>": [(0, 0), (1, 10)], "two": [(0, 5), (1, 5)]}, "x", "y"))
    assert chart.attrib["aria-label"] == "a < b" and chart.attrib["role"] == "img"
    first, second = (
        [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
        for line in chart.iter(f"{SVG}polyline")
    )
    assert first[0][1] > second[0][1] == second[1][1] > first[1][1]  # y runs down
    assert first[0][0] == second[0][0] < first[1][0]
    assert "<one>" in [text.text for text in chart.iter(f"{SVG}text")]
    assert {"0", "0.5", "1", "5", "10"} <= {text.text for text in chart.iter(f"{SVG}text")}


def test_groups_differ_in_shape_and_colour():
    points = np.array([[0.0, 0], [1, 1], [2, 0]])
    chart = xml.fromstring(scatter_chart("styles", points, ["sad", "happy", "sad"], [2, 4, 6]))
    groups = list(chart.iter(f"{SVG}g"))
    assert [group[0].text for group in groups] == ["sad", "happy", "sad"]
    assert [group[1].tag for group in groups] == [f"{SVG}circle", f"{SVG}rect", f"{SVG}circle"]
    assert [group[1].attrib.get("r") for group in groups] == ["2.0", None, "6.0"]
    assert groups[0][1].attrib["fill"] != groups[1][1].attrib["fill"]
