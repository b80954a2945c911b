"""Results as users handle them: rows of them, a look in the terminal and the notebook, a trip to disk and back."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from enum import Enum
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mano_file
import numpy as np
import pytest
import torch
import trimesh

from contact.network import ContactNet, NetworkConfig
from contact.objects import ObjectMesh
from contact.weights import save_weights
from hand_models import HandPose, MissingManoError, load_mano, load_open_hand
from refine import RefineConfig, RefineResult, Status, refine_grasp
from refine.commands.live import start_live
from refine.result import RefinedStart, TwoHandResult
from refine.view.summary import ROWS_SHOWN

pytestmark = pytest.mark.filterwarnings("ignore:hand_pose")  # an untrained network's hands look wrong


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RefineConfig:
    """A small network that has learnt nothing."""
    torch.manual_seed(0)
    network = ContactNet(NetworkConfig(fine=8, middle=8, token=16, layers=1, heads=2))
    return RefineConfig(weights=save_weights(network, {}, tmp_path_factory.mktemp("w") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def can() -> ObjectMesh:
    return ObjectMesh.from_any(trimesh.creation.cylinder(0.032, 0.12, sections=24), name="can", resolution=32)


@pytest.fixture(scope="module")
def hands() -> HandPose:
    """Three half-closed hands beside the can, no two alike; the second is NaN."""
    g = torch.Generator().manual_seed(0)
    bend = torch.zeros(3, 15, 3)
    bend[:, :12, 2] = 0.5 + 0.1 * torch.randn(3, 12, generator=g)
    transl = torch.tensor([-0.02, 0.075, 0.0]) + 0.01 * torch.randn(3, 3, generator=g)
    transl[1] = torch.nan
    return HandPose("right", 0.2 * torch.randn(3, 3, generator=g), bend, torch.randn(3, 10, generator=g), transl)


@pytest.fixture(scope="module")
def result(hands, can, config) -> RefineResult:
    """Before a camera, with texts to show, and one of them hostile."""
    camera = torch.eye(4)
    camera[2, 3] = 0.6
    there = replace(hands, transl=hands.transl + camera[:3, 3])
    found = refine_grasp(there, can, object_pose=camera.numpy(), config=config)
    return replace(found, warnings=[["<b>units</b>: millimetres?", "left & right"], [], []])


@pytest.fixture(scope="module")
def pair(hands, can, config) -> TwoHandResult:
    left = replace(hands.mirrored(), transl=hands.mirrored().transl * torch.tensor([1.0, -1.0, 1.0]))
    return refine_grasp([left[[0, 2]], hands[[0, 2]]], can, config=config)


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """What a nest of dataclasses, dictionaries and lists holds at its ends, and the way there."""
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        yield f"{where}#", len(value)
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{where}.{key}")
    else:
        yield where, value


def difference(one: Any, other: Any) -> str | None:
    """Where two nests first differ in value, type, shape or a single bit; None where they do not."""
    mine, theirs = list(leaves(one)), list(leaves(other))
    if [where for where, _ in mine] != [where for where, _ in theirs]:
        return "the ways"
    for (where, a), (_, b) in zip(mine, theirs, strict=True):
        if type(a) is not type(b):
            return f"{where}: {type(a)} and {type(b)}"
        if isinstance(a, torch.Tensor):
            a, b = a.numpy(), b.numpy()
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
                return where
        elif a != b:
            return where
    return None


# Rows -----------------------------------------------------------------------------------------------


def test_rows_are_results(result):
    rows = list(result)
    assert [len(row) for row in rows] == [1, 1, 1]
    for k, row in enumerate(rows):
        assert difference(row, result[k]) is None
        assert difference(row, result[k - 3]) is None
        assert row.status == [result.status[k]]
        assert row.reason == [result.reason[k]]
        assert row.warnings == [result.warnings[k]]
        assert row.object is result.object
        for name in ("vertices_before", "vertices_after", "joints_before", "joints_after"):
            assert difference(getattr(row, name)[0], getattr(result, name)[k]) is None
        assert difference(row.pose.transl[0], result.pose.transl[k]) is None
        assert difference(row.initial_pose.betas[0], result.initial_pose.betas[k]) is None
        assert difference(row.contact.part[0], result.contact.part[k]) is None
        np.testing.assert_array_equal(row.uncertainty[0], result.uncertainty[k])
        np.testing.assert_array_equal(row.object_pose[0], result.object_pose[k])
        assert row.metrics.keys() == result.metrics.keys()
        np.testing.assert_array_equal(row.metrics["volume_cm3_after"], result.metrics["volume_cm3_after"][k : k + 1])
        assert (row.score_after.shape, row.steps.shape, row.score_before.shape) == ((1,), (1,), (1,))


def test_slices_lists_and_masks_select_alike(result):
    ends = result[::2]
    assert ends.status == [result.status[0], result.status[2]]
    for index in ([0, 2], (0, 2), np.array([0, 2]), torch.tensor([0, 2]), np.array([True, False, True])):
        assert difference(ends, result[index]) is None
    assert difference(result[:], result) is None
    assert difference(result[[2, 1, 0]][::-1], result) is None
    empty = result[3:]
    assert len(empty) == len(result[[]]) == 0
    assert list(empty) == []
    assert "0 right hands" in repr(empty)
    for one in (1, np.int64(1), torch.tensor(1), [1]):
        assert difference(result[one], result[1:2]) is None
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"index {index} is out of range: the result holds 3 grasps"):
            result[index]


def test_a_row_has_the_page_of_its_grasp(result):
    whole, alone = result.view(2, title="t"), result[2].view(title="t")
    assert difference(whole, alone) is None


# A look ---------------------------------------------------------------------------------------------


def test_repr_tells_how_many_ended_how_and_the_means(result):
    text = repr(result)
    assert len(text) <= 600
    assert "3 right hands" in text
    assert "'can'" in text
    assert "1 failed" in text
    assert "2 warnings" in text
    before, after = (np.nanmean(result.metrics[f"penetration_mm_{w}"]) for w in ("before", "after"))
    assert f"penetration {before:.3g} → {after:.3g} mm" in text
    before, after = (np.nanmean(result.metrics[f"contact_ratio_{w}"]) for w in ("before", "after"))
    assert f"contact ratio {before:.3g} → {after:.3g}" in text
    assert f"uncertainty {1e3 * np.nanmean(result.uncertainty):.3g} mm" in text


def test_repr_of_nothing_known_says_so(result):
    text = repr(result[1])
    assert "1 right hand (" in text
    assert "penetration – → – mm" in text
    assert "nan" not in text


def test_repr_is_short_whatever_is_in_it(result, pair):
    """Long names with line breaks, large batches, many warnings, and numbers off the scale."""
    hostile = "\n\x1b[31m" * 500

    def worst(one: RefineResult) -> RefineResult:
        many = one[np.zeros(4000, int)]
        return replace(
            many,
            object=replace(one.object, name=hostile),
            hand_model=replace(one.hand_model, name=hostile),
            metrics={name: np.full(4000, -1.2345e-30) for name in one.metrics},
            uncertainty=np.full((4000, 21), 1.2345e30),
            status=list(Status) * 1000,
            warnings=[["w" * 1000] * 3] * 4000,
        )

    text = repr(worst(result))
    assert len(text) <= 600
    assert len(text.splitlines()) == 3
    assert "\x1b" not in text
    both = TwoHandResult((worst(pair[0]), worst(pair[1])), *[np.full(4000, 1.2345e-30)] * 2)
    assert len(repr(both)) <= 600
    assert "\x1b" not in repr(both)
    start = RefinedStart(worst(result), result.pose, torch.eye(4).expand(len(result), 4, 4))
    assert len(repr(start)) <= 600


class Cells(HTMLParser):
    """The texts of a table's cells, row by row, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_table_of_a_notebook(result):
    hostile = replace(result, object=replace(result.object, name="<script>alert(1)</script>"))
    page = Cells(hostile._repr_html_())
    assert page.open == []
    assert page.tags == {"table", "caption", "thead", "tbody", "tr", "td", "th"}
    assert len({len(row) for row in page.rows}) == 1
    rows = {row[0]: row for row in page.rows}
    assert rows["0"][1] == result.status[0].value
    assert rows["0"][-1] == "<b>units</b>: millimetres?; left & right"
    assert rows["1"][1] == "failed"
    assert rows["1"][-1] == result.reason[1]
    assert "1 failed" in rows["mean"][1]
    penetration = page.rows[0].index("penetration")
    before, after = (result.metrics[f"penetration_mm_{w}"][2] for w in ("before", "after"))
    assert rows["2"][penetration] == f"{before:.3g} → {after:.3g} mm"


def test_table_shows_the_first_rows_alone(result):
    page = Cells(result[np.zeros(ROWS_SHOWN + 5, int)]._repr_html_())
    assert page.rows[-1][0] == "5 more"
    assert len(page.rows) == 2 + ROWS_SHOWN + 1


# To disk and back -----------------------------------------------------------------------------------


def test_saved_results_come_back_to_the_bit(result, tmp_path):
    folder = result.save(tmp_path / "out")
    back = RefineResult.load(folder)
    assert difference(result, back) is None
    assert difference(result, RefineResult.load(folder / "result.npz")) is None
    again = back.save(tmp_path / "again")
    assert difference(RefineResult.load(again), result) is None
    assert json.loads((again / "summary.json").read_text()) == json.loads((folder / "summary.json").read_text())
    assert difference(RefineResult.load(result[1:2].save(tmp_path / "row")), result[1:2]) is None
    assert difference(RefineResult.load(result[:0].save(tmp_path / "none")), result[:0]) is None


def test_loaded_objects_can_be_refined_on(hands, result, config, tmp_path):
    back = RefineResult.load(result.save(tmp_path))
    one, other = (refine_grasp(hands[0], r.object, config=config) for r in (result, back))
    assert difference(one, other) is None


def test_left_hands_in_the_object_s_frame_and_other_objects_come_back_too(pair, tmp_path):
    """Without a camera; of a mesh with other points than the network's, hence without their neighbourhoods."""
    box = ObjectMesh.from_any(trimesh.creation.box((0.05, 0.06, 0.1)), n_points=50, resolution=16)
    left = replace(pair.left, object=box, warnings=[])
    assert left.object_pose is None
    assert difference(RefineResult.load(left.save(tmp_path)), left) is None


def test_mano_is_found_by_its_name_and_is_not_in_the_file(hands, can, config, tmp_path, monkeypatch):
    mano_file.write_mano(tmp_path, "right")
    mano = load_mano(tmp_path)
    result = refine_grasp(hands[0], can, config=config, hand_model=mano)
    folder = result.save(tmp_path / "out")
    with np.load(folder / "result.npz") as saved:
        shapes = {saved[name].shape for name in saved.files}
    assert mano.template.shape not in shapes
    monkeypatch.setenv("MANO_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(MissingManoError):
        RefineResult.load(folder)
    assert difference(RefineResult.load(folder, hand_model=mano), result) is None
    monkeypatch.setenv("MANO_DIR", str(tmp_path))
    assert difference(RefineResult.load(folder), result) is None


def test_mirrored_models_come_back_mirrored(hands, can, config, tmp_path):
    result = refine_grasp(hands[0], can, config=config, hand_model=load_open_hand().mirrored())
    assert difference(RefineResult.load(result.save(tmp_path)), result) is None


def test_another_hand_model_is_refused(result, tmp_path):
    folder = result.save(tmp_path / "out")
    longer = replace(load_open_hand(), template=1.01 * load_open_hand().template)
    for other in (longer, load_open_hand().mirrored()):
        with pytest.raises(ValueError, match=r"hand_model: the given one is another than the right 'open'"):
            RefineResult.load(folder, hand_model=other)
    own = replace(result, hand_model=replace(result.hand_model, name="mine")).save(tmp_path / "own")
    with pytest.raises(ValueError, match=r"hand_model: the result is of 'mine'.*pass it as hand_model="):
        RefineResult.load(own)
    assert len(RefineResult.load(own, hand_model=load_open_hand())) == 3


def test_what_is_no_result_is_named(result, pair, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: no result was saved in .*gone'; check the path"):
        RefineResult.load(tmp_path / "gone")
    two, one = pair.save(tmp_path / "two"), result.save(tmp_path / "one")
    with pytest.raises(FileNotFoundError, match=r"two hands: use TwoHandResult\.load"):
        RefineResult.load(two)
    with pytest.raises(FileNotFoundError, match=r"one hand: use RefineResult\.load"):
        TwoHandResult.load(one)
    with np.load(one / "result.npz") as saved:
        arrays = dict(saved)
    for name in ("object_grid_values", "initial_transl", "part", "penetration_mm_after", "hand_model"):
        np.savez(one / "result.npz", **{key: array for key, array in arrays.items() if key != name})
        with pytest.raises(ValueError, match=rf"result\.npz has no array '{name}'.*save"):
            RefineResult.load(one)
    np.savez(one / "result.npz", status=np.array([object()]))
    with pytest.raises(ValueError, match="never read"):
        RefineResult.load(one)
    Path(one / "result.npz").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match="not a readable"):
        RefineResult.load(one)


# Two hands ------------------------------------------------------------------------------------------


def test_two_hands_are_a_pair(pair, tmp_path):
    first, second = pair
    assert len(pair) == 2
    assert pair[0] is first is pair.left
    assert pair[1] is second is pair.right
    back = TwoHandResult.load(pair.save(tmp_path / "two"))
    assert difference(back, pair) is None
    assert [hand.pose.side for hand in back] == ["left", "right"]


def test_a_look_at_two_hands(pair):
    text = repr(pair)
    assert len(text) <= 600
    before, after = (np.nanmean(getattr(pair, f"overlap_mm_{when}")) for when in ("before", "after"))
    assert f"overlap {before:.3g} → {after:.3g} mm" in text
    assert text.index("2 left hands") < text.index("2 right hands")
    page = Cells(pair._repr_html_())
    assert page.open == []
    assert [row[0] for row in page.rows] == ["", "mean", "0", "1"] * 2


def test_two_hands_are_shown_together(pair, tmp_path):
    """Their skins one beside the other, the likelier contact, the nearer distance."""
    view, parts = pair.view(1, title="both"), [hand.view(1) for hand in pair]
    count = len(parts[0].after)
    assert view.title == "both"
    for name in ("before", "after"):
        assert np.array_equal(view.hands[name], np.concatenate([part.hands[name] for part in parts]))
    assert (np.diff(np.sort(view.hand_faces // count, 1), axis=1) == 0).all()  # no triangle is of both
    np.testing.assert_array_equal(
        view.hand_faces[: view.open_faces] // count, np.repeat([0, 1], view.open_faces // 2)[:, None].repeat(3, 1)
    )
    assert not set(view.parts[:count]) & set(view.parts[count:])
    likelier = np.maximum(*(part.object_contact for part in parts))
    np.testing.assert_array_equal(view.object_contact, likelier)
    for part in parts:
        mine = (part.object_contact == likelier) & (parts[0].object_contact != parts[1].object_contact)
        np.testing.assert_array_equal(view.object_contact_sd[mine], part.object_contact_sd[mine])
    nearer = np.minimum(*(part.object_distance["after"] for part in parts))
    np.testing.assert_array_equal(view.object_distance["after"], nearer)
    assert view.joints.shape == (42, 3)
    assert {"contact ratio, left", "contact ratio, right"} <= set(view.metrics)
    page = pair.to_html(tmp_path / "both.html", 1).read_text(encoding="utf-8")
    assert "contact ratio, left" in page
    assert pair.to_glb(tmp_path / "both.glb").stat().st_size > 1000
    failed = replace(pair[0], status=[Status.REFINED, Status.FAILED], reason=["", "why"])
    assert len(replace(pair, hands=(failed, pair[1])).view(1).after) == count
    table = pair.to_dataframe()
    assert table["side"].tolist() == ["left"] * 2 + ["right"] * 2
    textures = pair.contact_uv(16)
    np.testing.assert_array_equal(textures[1].mean, pair[1].contact_uv(16).mean)


def test_what_was_saved_is_shown_live(result, pair, tmp_path):
    pytest.importorskip("viser")
    for which, name in ((result, "one"), (pair, "two")):
        folder = which.save(tmp_path / name)
        for path in (folder, folder / "pair.npz")[:: 1 if name == "two" else 2]:
            running = start_live(path, {}, None, 0)
            node = running.scene.get_handle_by_name("/hands/after")
            running.stop()
            assert node.visible


def test_status_is_told_as_its_word(result):
    """Not as Python's name of the constant."""
    assert all(isinstance(status, Enum) for status in result.status)
    assert "Status." not in repr(result) + result._repr_html_()


def test_a_table_of_grasps(result):
    pandas = pytest.importorskip("pandas")
    table = result.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == len(result)
    assert table["status"].tolist() == [status.value for status in result.status]
    np.testing.assert_array_equal(table["penetration_mm_after"], result.metrics["penetration_mm_after"])
    np.testing.assert_allclose(table["uncertainty_mm"], 1e3 * result.uncertainty.mean(1), rtol=1e-6)


def test_a_table_without_pandas_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'regrasp\[pandas\]'"):
        result.to_dataframe()


def test_contact_on_the_hands_own_map(result):
    texture = result.contact_uv(32)
    assert texture.mean.shape == texture.variance.shape == (len(result), 32, 64)
