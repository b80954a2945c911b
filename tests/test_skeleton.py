"""Joint orders: every table is a permutation, conversions undo each other, known layouts are reproduced."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_models import skeleton
from hand_models.skeleton import (
    FINGERS,
    JOINT_NAMES,
    ORDERS,
    TIP_VERTICES,
    bones,
    convert,
    joint_order,
    parents,
    permutation,
)

FULL = sorted(name for name in ORDERS if len(ORDERS[name]) == 21)
REQUIRED = {
    "mano16", "openpose", "manopth", "smplx", "ho3d", "freihand", "dexycb", "fhab", "contactpose", "h2o",
    "arctic", "mediapipe",
}  # fmt: skip

# Index lists published by the sources themselves, independent of the names in the module.
MANO_AND_TIPS_TO_OPENPOSE = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)  # HO-3D
FHAB_TO_OPENPOSE = (0, 1, 6, 7, 8, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20)


def test_every_required_order_is_there_with_its_source():
    assert set(ORDERS) >= REQUIRED
    assert all(order.name == name and order.source for name, order in ORDERS.items())


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_each_order_is_a_permutation(name):
    joints = ORDERS[name].joints
    assert len(set(joints)) == len(joints)
    expected = set(JOINT_NAMES) if len(joints) == 21 else {j for j in JOINT_NAMES if not j.endswith("_tip")}
    assert set(joints) == expected


@pytest.mark.parametrize("source", FULL)
@pytest.mark.parametrize("target", FULL)
def test_round_trip_and_bijectivity(source, target):
    index = permutation(source=source, target=target)
    assert sorted(index) == list(range(21))
    joints = np.arange(2 * 21 * 3.0).reshape(2, 21, 3)
    there = convert(joints, source=source, target=target)
    np.testing.assert_array_equal(convert(there, source=target, target=source), joints)
    for k, name in enumerate(ORDERS[target].joints):
        np.testing.assert_array_equal(there[:, k], joints[:, ORDERS[source].joints.index(name)])


@given(st.sampled_from(FULL), st.sampled_from(FULL), st.sampled_from(sorted(ORDERS)))
@settings(max_examples=30, deadline=None)
def test_conversions_compose(a, b, c):
    joints = np.arange(21 * 2.0).reshape(21, 2)
    through = convert(convert(joints, source=a, target=b), source=b, target=c)
    np.testing.assert_array_equal(through, convert(joints, source=a, target=c))


def test_published_index_lists():
    for name in ("smplx", "ho3d", "arctic"):
        assert permutation(source=name, target="openpose") == MANO_AND_TIPS_TO_OPENPOSE
    assert permutation(source="fhab", target="openpose") == FHAB_TO_OPENPOSE
    assert permutation(source="interhand26m", target="openpose")[:5] == (20, 3, 2, 1, 0)
    for name in ("manopth", "freihand", "dexycb", "contactpose", "h2o", "mediapipe"):
        assert permutation(source=name, target="openpose") == tuple(range(21))


def test_numpy_torch_and_lists_agree_and_keep_their_type():
    joints = torch.arange(4 * 21 * 3, dtype=torch.float32).reshape(2, 2, 21, 3).requires_grad_()
    turned = convert(joints, source="openpose", target="fhab")
    assert isinstance(turned, torch.Tensor)
    assert turned.requires_grad
    assert turned.dtype == joints.dtype
    array = convert(joints.detach().numpy(), source="openpose", target="fhab")
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(turned.detach().numpy(), array)
    np.testing.assert_array_equal(convert(joints.tolist(), source="openpose", target="fhab"), array)


def test_mano16_drops_tips():
    joints = np.random.default_rng(0).normal(size=(5, 21, 3))
    np.testing.assert_array_equal(
        convert(joints, source="openpose", target="mano16"),
        joints[:, list(permutation(source="openpose", target="mano16"))],
    )
    assert permutation(source="openpose", target="mano16") == (0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3)


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_bones_form_the_hand_tree(name):
    order = ORDERS[name]
    pairs = bones(name)
    assert len(pairs) == len(order) - 1
    assert {child for _, child in pairs} == set(range(len(order))) - {order.joints.index("wrist")}
    assert all(parents(name)[child] == parent for parent, child in pairs)
    for parent, child in pairs:  # a bone stays in its finger or leaves the wrist
        a, b = order.joints[parent], order.joints[child]
        assert a == "wrist" or a.rstrip("123").removesuffix("_tip") == b.rstrip("123").removesuffix("_tip")


def test_mano_parents_match_the_model():
    assert parents("mano16") == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
    assert bones("openpose")[:4] == ((0, 1), (1, 2), (2, 3), (3, 4))


def test_names_are_forgiving():
    assert joint_order("HO-3D") is ORDERS["ho3d"]
    assert joint_order("Open Pose").name == "openpose"
    assert joint_order("MANO").name == "mano16"
    assert joint_order("fpha").name == "fhab"


def test_tip_vertices_are_data():
    assert set(TIP_VERTICES) >= {"smplx", "manopth"}
    assert TIP_VERTICES["smplx"].for_side("right") == (744, 320, 443, 554, 671)
    assert TIP_VERTICES["manopth"].for_side("left")[2] == 445
    for tips in TIP_VERTICES.values():
        assert tips.source
        assert all(0 <= v < 778 for v in tips.right + tips.left)
        assert len(set(tips.right)) == len(FINGERS)


def test_smplx_tip_ids_agree_with_the_package():
    smplx_ids = pytest.importorskip("smplx.vertex_ids").vertex_ids["mano"]
    assert TIP_VERTICES["smplx"].right == tuple(smplx_ids[finger] for finger in FINGERS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: joint_order("banana"), ["order", "banana", "openpose"]),
        (lambda: joint_order(3), ["order", "3", "openpose"]),
        (lambda: convert(np.zeros((21, 3)), source="openpose", target="xyz"), ["order", "xyz"]),
        (lambda: convert(np.zeros((16, 3)), source="openpose", target="smplx"), ["joints", "(16, 3)", "21"]),
        (lambda: convert(np.zeros(21), source="openpose", target="smplx"), ["joints", "(21,)"]),
        (lambda: convert(np.zeros((16, 3)), source="mano16", target="openpose"), ["target", "thumb_tip", "mano16"]),
    ],
)
def test_errors_name_the_argument_and_the_mend(call, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        call()
    assert all(word in str(caught.value) for word in words)


def test_module_has_no_mutable_tables():
    for table in (skeleton.ORDERS, skeleton.TIP_VERTICES, skeleton.PARENT_NAMES):
        with pytest.raises(TypeError):
            table["new"] = None  # type: ignore[index]
