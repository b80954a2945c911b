"""MANO: reading without chumpy, refusing foreign pickles, finding the file, and agreement with smplx."""

from __future__ import annotations

import os
import pickle
import types
from pathlib import Path

import mano_file
import numpy as np
import pytest
import scipy.sparse
import torch

from hand_models.mano import MissingManoError, find_mano, load_mano, load_mano_pca, read_fields, user_data_dir
from hand_models.mano_layer import from_layer, pca_from_layer
from hand_models.model import PARENTS
from hand_models.pose import HandPose
from hand_models.safe_pickle import UnsafePickleError, load_pickle, to_array
from hand_models.skeleton import TIP_VERTICES
from hand_models.surface import boundary_loops, cap_boundaries, signed_volume, spread_points

SIDES = ("right", "left")


@pytest.fixture(autouse=True)
def _no_mano_of_the_machine(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("MANO_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path_factory.mktemp("data")))
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def mano_dir(tmp_path_factory) -> Path:
    """Plain-numpy MANO files of both hands."""
    folder = tmp_path_factory.mktemp("mano")
    for side in SIDES:
        mano_file.write_mano(folder, side)
    return folder


def random_pose(side: str, batch: int = 4, seed: int = 0) -> HandPose:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> torch.Tensor:
        return scale * torch.randn(batch, *shape, generator=g)

    return HandPose(side, draw(3, scale=1.0), draw(15, 3, scale=0.5), draw(10, scale=1.0), draw(3, scale=0.3))


# Reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("style", ["numpy", "chumpy", "npz"])
def test_every_style_reads_back_what_was_written(tmp_path, side, style):
    written = mano_file.write_mano(tmp_path, side, style=style)
    fields = read_fields(find_mano(tmp_path, side))
    np.testing.assert_array_equal(fields.template, written["v_template"])
    np.testing.assert_array_equal(fields.shapedirs, written["shapedirs"])
    np.testing.assert_array_equal(fields.posedirs, written["posedirs"])
    np.testing.assert_array_equal(fields.weights, written["weights"])
    np.testing.assert_array_equal(fields.joint_regressor, written["J_regressor"].toarray())
    np.testing.assert_array_equal(fields.faces, written["f"])
    assert fields.parents == PARENTS
    pca = load_mano_pca(tmp_path, side)
    np.testing.assert_allclose(pca.mean, written["hands_mean"], rtol=1e-6)
    np.testing.assert_allclose(pca.components, written["hands_components"], rtol=1e-5, atol=1e-7)


def test_the_published_files_globals_are_the_ones_written(tmp_path):
    """The chumpy style must exercise exactly what a scan of the published MANO_RIGHT.pkl lists."""
    import pickletools

    mano_file.write_mano(tmp_path, style="chumpy")
    data = (tmp_path / "MANO_RIGHT.pkl").read_bytes()
    names = {arg for op, arg, _ in pickletools.genops(data) if op.name in ("GLOBAL", "STACK_GLOBAL")}
    assert names == {
        "numpy.core.multiarray _reconstruct",
        "chumpy.reordering Select",
        "scipy.sparse.csc csc_matrix",
        "__builtin__ set",
        "numpy dtype",
        "numpy ndarray",
        "chumpy.ch Ch",
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_scalars_and_sparse_in_every_protocol(tmp_path, protocol):
    rng = np.random.default_rng(protocol)
    stored = {
        "array": rng.normal(size=(3, 4)),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float64(2.5),
        "integers": np.arange(5, dtype=">i4"),
        "csc": scipy.sparse.random(5, 6, 0.4, "csc", random_state=rng),
        "csr": scipy.sparse.random(5, 6, 0.4, "csr", random_state=rng),
        "coo": scipy.sparse.random(5, 6, 0.4, "coo", random_state=rng),
    }
    path = tmp_path / "fields.pkl"
    path.write_bytes(pickle.dumps(stored, protocol=protocol))
    loaded = load_pickle(path)
    for name, value in stored.items():
        expected = value.toarray() if scipy.sparse.issparse(value) else value
        np.testing.assert_array_equal(to_array(loaded[name]), expected)


class _Runs:
    """An object whose unpickling would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (os.mkdir, (str(self.witness),))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path, protocol):
    path, witness = tmp_path / "MANO_RIGHT.pkl", tmp_path / "ran"
    fields = mano_file.mano_fields() | {"extra": _Runs(witness)}
    path.write_bytes(pickle.dumps(fields, protocol=protocol))
    with pytest.raises(UnsafePickleError, match=rf"MANO_RIGHT\.pkl: refused.*{os.name}\.mkdir"):
        load_mano(tmp_path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0elib.npyio.load\x93.",  # a dotted path below an admitted module
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cchumpy.ch\nos\n.",
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"c_codecs\nencode\n}S'_function'\nI1\nsb.",  # BUILD on a loader function
        b"cchumpy.ch\nCh\n)\x81(N}S'state'\nI1\nstb.",  # slots state on a stand-in
        b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
        b"Pelsewhere\n.",  # persistent id
        b"c__builtin__\nbytes\n(I1000000\ntR.",
    ],
)
def test_tricks_are_refused(tmp_path, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(UnsafePickleError, match="refused"):
        load_pickle(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable pickle"),
        (b"\x80\x02}q\x00X\x05", "download it again"),
        (b"no pickle at all", "not a readable pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (pickle.dumps([1, 2]), "not a dictionary"),
    ],
)
def test_broken_files_say_so(tmp_path, data, words):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        load_mano(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("posedirs"), "'posedirs' is missing"),
        (lambda f: f.update(weights=f["weights"][:, :15]), r"'weights' has shape \(778, 15\)"),
        (lambda f: f.update(shapedirs=f["shapedirs"][..., :5]), "5 shape components"),
        (lambda f: f.update(v_template="abc"), "'v_template' is not readable"),
        (lambda f: f["v_template"].__setitem__((0, 0), np.nan), "'v_template' has NaN"),
        (lambda f: f["f"].__setitem__((0, 0), 778), "'f' is empty or names vertices"),
        (lambda f: f["kintree_table"].__setitem__((0, 5), 1), "parents"),
        (lambda f: f["f"].__setitem__(0, f["f"][0, ::-1].copy()), "orient them consistently"),
    ],
)
def test_files_that_are_not_manos_say_what_is_wrong(tmp_path, change, words):
    fields = mano_file.mano_fields()
    change(fields)
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(fields, protocol=2))
    with pytest.raises(ValueError, match=words):
        load_mano(tmp_path)


# Finding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "below",
    [".", "mano", "models/mano", "mano/models", "mano_v1_2/models", "_DATA/data/mano", "mano_data", "mano_data/mano"],
)
def test_layouts_of_other_packages_are_recognised(tmp_path, monkeypatch, below):
    path = tmp_path / below / "MANO_RIGHT.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert find_mano(tmp_path) == path.resolve()
    monkeypatch.setenv("MANO_DIR", str(tmp_path))
    assert find_mano() == path.resolve()


def test_a_file_may_be_named_outright(mano_dir):
    path = mano_dir / "MANO_LEFT.pkl"
    assert find_mano(path, "left") == path
    with pytest.raises(ValueError, match=r"side: 'right'.*left hand's file"):
        find_mano(path, "right")


def test_user_data_directory_is_the_last_resort(tmp_path, monkeypatch):
    home = user_data_dir() / "mano"
    home.mkdir(parents=True)
    (home / "MANO_RIGHT.pkl").touch()
    assert find_mano() == (home / "MANO_RIGHT.pkl").resolve()
    (tmp_path / "MANO_RIGHT.pkl").touch()
    monkeypatch.setenv("MANO_DIR", str(tmp_path))
    assert find_mano() == (tmp_path / "MANO_RIGHT.pkl").resolve()


def test_a_given_directory_is_the_only_one_searched(tmp_path, monkeypatch, mano_dir):
    monkeypatch.setenv("MANO_DIR", str(mano_dir))
    with pytest.raises(MissingManoError):
        find_mano(tmp_path)


def test_the_missing_file_error_tells_everything(tmp_path, monkeypatch):
    with pytest.raises(MissingManoError) as caught:
        find_mano()
    message = str(caught.value)
    for word in (
        "MANO_RIGHT.pkl",
        "$MANO_DIR is not set",
        "mano.is.tue.mpg.de",
        "--mano-dir",
        str(user_data_dir()),
        "open hand",
    ):
        assert word in message
    monkeypatch.setenv("MANO_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere .*does not exist"):
        find_mano()
    (tmp_path / "MANO_RIGHT.pkl").touch()
    with pytest.raises(MissingManoError, match="serves left hands too"):
        find_mano(tmp_path, "left")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"side": "up"}, "side: got 'up'"),
        ({"tips": "nobody"}, "tips: 'nobody'.*manopth"),
        ({"tips": (1, 2, 3)}, "tips: .*five distinct"),
        ({"tips": (1, 2, 3, 4, 778)}, "tips: .*0..777"),
        ({"fix_left_shapedirs": True}, "fix_left_shapedirs: .*side='left'"),
    ],
)
def test_wrong_arguments_are_named(mano_dir, arguments, words):
    with pytest.raises(ValueError, match=words):
        load_mano(mano_dir, **arguments)


# The model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("space", ["axis-angle", "pca"])
@pytest.mark.parametrize("flat", [True, False])
def test_forward_equals_smplx(mano_dir, side, space, flat):
    smplx = pytest.importorskip("smplx")
    count = 12 if space == "pca" else 45
    reference = smplx.MANO(
        str(mano_dir),
        is_rhand=side == "right",
        use_pca=space == "pca",
        num_pca_comps=count,
        flat_hand_mean=flat,
        batch_size=4,
    )
    model, pca = load_mano(mano_dir, side), load_mano_pca(mano_dir, side)
    drawn = random_pose(side, seed=count)
    values = 0.6 * torch.randn(4, count, generator=torch.Generator().manual_seed(1))
    components = pca.components if space == "pca" else torch.eye(45)
    pose = HandPose.from_pca(
        values,
        components,
        pca.mean,
        flat_hand_mean=flat,
        global_orient=drawn.global_orient,
        betas=drawn.betas,
        transl=drawn.transl,
        side=side,
    )
    expected = reference(betas=pose.betas, global_orient=pose.global_orient, hand_pose=values, transl=pose.transl)
    hand = model(pose)
    torch.testing.assert_close(hand.vertices, expected.vertices, atol=1e-5, rtol=0)
    sixteen = hand.joints[:, [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]]
    torch.testing.assert_close(sixteen, expected.joints[:, :16], atol=1e-5, rtol=0)
    tips = expected.vertices[:, list(TIP_VERTICES["smplx"].for_side(side))]
    torch.testing.assert_close(hand.joints[:, [4, 8, 12, 16, 20]], tips, atol=1e-5, rtol=0)


def test_left_file_with_the_fix_is_the_mirror_of_the_right_one(mano_dir):
    right, left = load_mano(mano_dir, "right"), load_mano(mano_dir, "left", fix_left_shapedirs=True)
    published = load_mano(mano_dir, "left")
    pose = random_pose("left")
    torch.testing.assert_close(left(pose).vertices, right(pose).vertices, atol=1e-5, rtol=0)
    assert (published(pose).vertices - right(pose).vertices).abs().max() > 1e-3
    mean_hand = HandPose(pose.side, pose.global_orient, pose.hand_pose, 0 * pose.betas, pose.transl)
    torch.testing.assert_close(published(mean_hand).joints, right(mean_hand).joints, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", SIDES)
def test_closed_faces_are_watertight_and_outward(mano_dir, side):
    model = load_mano(mano_dir, side)
    faces = model.closed_faces.numpy()
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward = {tuple(e) for e in edges.tolist()}
    assert len(forward) == len(edges)
    assert forward == {(b, a) for a, b in forward}
    assert len(model.template) - len(edges) // 2 + len(faces) == 2  # Euler: a sphere
    assert signed_volume(model.template.numpy().astype(float), faces) > 0
    assert len(faces) == len(model.faces) + mano_file.LOOP - 2
    np.testing.assert_array_equal(faces[: len(model.faces)], model.faces)


def test_faces_stored_inside_out_are_turned(tmp_path, mano_dir):
    fields = mano_file.mano_fields()
    fields["f"] = fields["f"][:, ::-1].copy()
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(fields, protocol=2))
    model = load_mano(tmp_path)
    assert signed_volume(model.template.numpy().astype(float), model.closed_faces.numpy()) > 0


def tip_ids(model):
    """The five vertices that fingertips are, each with a weight of one."""
    assert model.tip_regressor.sum(1).tolist() == model.tip_regressor.amax(1).tolist() == [1.0] * 5
    return model.tip_regressor.argmax(1).tolist()


def test_contact_points_and_tips(mano_dir):
    for side in SIDES:
        model = load_mano(mano_dir, side)
        assert len(model.contact_points) == len(model.template) <= 800
        assert tip_ids(model) == list(TIP_VERTICES["smplx"].for_side(side))
    assert tip_ids(load_mano(mano_dir, "left", tips="manopth")) == [745, 317, 445, 556, 673]
    assert tip_ids(load_mano(mano_dir, tips=(5, 4, 3, 2, 1))) == [5, 4, 3, 2, 1]


def test_spread_points_cover_the_surface():
    points = np.random.default_rng(0).normal(size=(1500, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    chosen = spread_points(points, 100)
    assert len(set(chosen.tolist())) == 100
    reach = np.linalg.norm(points[:, None] - points[chosen], axis=-1).min(1)
    apart = np.linalg.norm(points[chosen][:, None] - points[chosen], axis=-1) + 9 * np.eye(100)
    assert reach.max() <= apart.min() + 1e-12  # the mark of farthest-point sampling


def test_cap_of_a_tube_has_the_area_of_its_ends():
    count = 12
    angle = 2 * np.pi * np.arange(count) / count
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    vertices = np.concatenate([ring, ring + np.array([0, 0, 3.0])])
    k = np.arange(count)
    nxt = (k + 1) % count
    faces = np.concatenate([np.stack([k, nxt, nxt + count], 1), np.stack([k, nxt + count, k + count], 1)])
    assert sorted(len(loop) for loop in boundary_loops(faces)) == [count, count]
    closed = cap_boundaries(vertices, faces)
    polygon = 0.5 * count * np.sin(2 * np.pi / count)
    assert signed_volume(vertices, closed) == pytest.approx(3 * polygon)
    assert boundary_loops(closed) == []


# Layers the user has built ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_smplx_layer_gives_the_same_model(mano_dir, side):
    smplx = pytest.importorskip("smplx")
    layer = smplx.MANO(str(mano_dir), is_rhand=side == "right", use_pca=True, num_pca_comps=6)
    assert_same_model(from_layer(layer), load_mano(mano_dir, side))
    pca = pca_from_layer(layer)
    assert pca.side == side
    torch.testing.assert_close(pca.components, load_mano_pca(mano_dir, side).components[:6])
    torch.testing.assert_close(pca.mean, load_mano_pca(mano_dir, side).mean)
    axis_angle = smplx.MANO(str(mano_dir), is_rhand=side == "right", use_pca=False, flat_hand_mean=True)
    pca = pca_from_layer(axis_angle)
    assert pca.mean.abs().max() == 0
    assert pca.components.shape == (45, 45)


@pytest.mark.parametrize("side", SIDES)
def test_manopth_layer_gives_the_same_model(mano_dir, side):
    f = mano_file.mano_fields(side)
    layer = types.SimpleNamespace(
        side=side,
        use_pca=True,
        kintree_parents=f["kintree_table"][0].tolist(),
        th_v_template=torch.tensor(f["v_template"]).float()[None],
        th_shapedirs=torch.tensor(f["shapedirs"]).float(),
        th_posedirs=torch.tensor(f["posedirs"]).float(),
        th_faces=torch.tensor(f["f"].astype(np.int64)),
        th_J_regressor=torch.tensor(f["J_regressor"].toarray()).float(),
        th_weights=torch.tensor(f["weights"]).float(),
        th_hands_mean=torch.tensor(f["hands_mean"]).float()[None],
        th_selected_comps=torch.tensor(f["hands_components"][:15]).float(),
    )
    assert_same_model(from_layer(layer), load_mano(mano_dir, side, tips="manopth"))
    assert pca_from_layer(layer).components.shape == (15, 45)
    del layer.side
    with pytest.raises(ValueError, match=r"side: .*pass side='right'"):
        from_layer(layer)
    del layer.th_hands_mean
    with pytest.raises(ValueError, match="from_rotmats"):
        pca_from_layer(layer)


def test_a_real_manopth_layer(mano_dir):
    manolayer = pytest.importorskip("manopth.manolayer")
    layer = manolayer.ManoLayer(mano_root=str(mano_dir), use_pca=False)
    assert_same_model(from_layer(layer), load_mano(mano_dir, tips="manopth"))


def test_other_objects_are_no_layers():
    with pytest.raises(ValueError, match=r"layer: a Linear .*smplx\.MANO"):
        from_layer(torch.nn.Linear(2, 2))


def assert_same_model(ours, reference):
    pose = random_pose(reference.side)
    a, b = ours(pose), reference(pose)
    torch.testing.assert_close(a.vertices, b.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.joints, b.joints, atol=1e-6, rtol=0)
    assert torch.equal(ours.closed_faces, reference.closed_faces)
