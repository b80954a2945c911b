"""The examples run as they stand, and a term from outside does what it says."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh

from contact.terms import FingersApart
from hand_models import HandPose, load_open_hand
from hand_models.solver.terms import JointLimits
from refine import RefineConfig, refine_grasp

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TABLE = "06_your_own_term.py"


def held() -> tuple[HandPose, trimesh.Trimesh]:
    """A right hand beside a cylinder that stands on z = -30 mm."""
    model = load_open_hand()
    angles = model.anatomy.from_anatomical(model.anatomy.mean)[None]
    pose = HandPose.from_arrays({"global_orient": torch.zeros(1, 3), "hand_pose": angles})
    knuckles = model.joints(pose)[:, [5, 9, 13, 17]].mean(1)
    transl = torch.tensor([[-0.02, 0.055, 0.0]]) - knuckles
    return replace(pose, transl=transl), trimesh.creation.cylinder(radius=0.035, height=0.06)


def test_the_term_of_the_example_keeps_the_hand_above_the_table(capsys: Any) -> None:
    runpy.run_path(str(EXAMPLES / TABLE), run_name="__main__")
    without, under, alone, above = (float(n) for n in re.findall(r"([+-][\d.]+) mm", capsys.readouterr().out))
    assert without < -10
    assert alone < -10
    assert under > -4  # against what the network sees of the grasp
    assert above > -1


def test_a_left_hand_is_its_mirror_image_under_the_same_term() -> None:
    term = runpy.run_path(str(EXAMPLES / TABLE))["AboveTable"]
    pose, cap = held()
    config, terms = RefineConfig(gate=False, volumes=False), [term(torch.tensor([-0.03]))]
    right = refine_grasp(pose, cap, terms=terms, config=config)
    left = refine_grasp(pose.mirrored(), (cap.vertices * [-1, 1, 1], cap.faces[:, ::-1]), terms=terms, config=config)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(left.joints_after * flip, right.joints_after, atol=1e-4, rtol=0)


def test_mistakes_in_terms_are_named() -> None:
    pose, cap = held()

    class Bare:
        def __len__(self) -> int:
            return 1

        def linearize(self, state: Any) -> list[Any]:
            return []

        def __getitem__(self, index: Any) -> Bare:
            return self

    with pytest.raises(ValueError, match="terms: Bare is about 1 hands, but 2 were given"):
        refine_grasp(HandPose.cat([pose, pose]), cap, terms=[Bare()])
    with pytest.raises(ValueError, match=r"terms: .* give Bare a method mirrored\(\)"):
        refine_grasp(pose.mirrored(), cap, terms=[Bare()])
    with pytest.raises(ValueError, match="terms: is for single hands"):
        refine_grasp([pose, pose.mirrored()], cap, terms=[Bare()])


def test_terms_that_are_the_same_for_all_hands_serve_any_number() -> None:
    pose, cap = held()
    config, terms = (
        RefineConfig(gate=False, volumes=False),
        [FingersApart(0.001), JointLimits(load_open_hand().anatomy, 1.0)],
    )
    assert len(refine_grasp(HandPose.cat([pose, pose]), cap, terms=terms, config=config)) == 2


def printed(name: str, capsys: Any) -> list[list[float]]:
    """The numbers at the ends of the lines of a table."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    rows = [re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?= |$)", line) for line in capsys.readouterr().out.splitlines()]
    return [[float(n) for n in row] for row in rows if len(row) >= 3]


@pytest.mark.slow
def test_hands_stay_on_their_picture_and_find_their_depth(capsys: Any) -> None:
    (given, _, camera, keypoints, both) = printed("07_camera.py", capsys)
    for joints, along, across in (camera, keypoints, both):
        assert joints < 0.5 * given[0]
        assert along < 0.5 * given[1]
        assert across < 1.5 * given[2]
    assert both[2] < given[2]


@pytest.mark.slow
def test_depth_points_bring_the_hand_to_its_depth(capsys: Any) -> None:
    rows = printed("08_depth_points.py", capsys)
    assert len(rows) == 4
    for depth, given, _, scanned in rows:
        assert abs(depth) < given
        assert scanned < 0.35 * given


@pytest.mark.slow
def test_samples_lie_as_far_apart_as_the_input_may_be_off(capsys: Any) -> None:
    runpy.run_path(str(EXAMPLES / "09_samples.py"), run_name="__main__")
    out = capsys.readouterr().out
    apart = {name: float(along) for name, along in re.findall(r"^ *(tracker|camera) +([\d.]+) mm", out, re.MULTILINE)}
    assert apart["camera"] > 2 * apart["tracker"]
    for line in re.findall(r"probabilities ([\d. ]+)", out):
        assert sum(map(float, line.split())) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(path)])
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80
    runpy.run_path(str(path), run_name="__main__")
