"""The file of held-out grasps beside this one: objects, true hands and their contact, rounded to stay small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from contact.cases import Cases
from contact.field import NUM_PARTS, ContactField
from contact.objects.hierarchy import PointHierarchy, build_hierarchy
from contact.objects.object_set import ObjectPoints
from contact.perturb import perturb
from hand_models import HandPose
from hand_models.atomic import write_atomically

_POSE = ("global_orient", "hand_pose", "betas", "transl")
_THICKEST, _NORMAL_STEPS, _STEPS = 0.1, 127, 65535  # metres; steps of int8 and of uint16


def write_cases(cases: Cases, path: Path) -> Path:
    """Objects, true hands and their contact in one small file: about 20 kB an object and 3 kB a grasp.

    Points and thickness are rounded to a few micrometres, normals to 0.3 degrees. Of the truth, contact and canonical
    points are kept. Written under a temporary name and renamed.
    """
    seen = cases.objects
    low, high = seen.points.amin(1, keepdim=True), seen.points.amax(1, keepdim=True)
    near = cases.truth.near > 0.5
    arrays = {name: value.astype(np.float32) for name, value in cases.pose.as_arrays().items() if name in _POSE}
    arrays |= {
        "which": cases.which.numpy().astype(np.int32),
        "names": np.array(cases.names),
        "low": low[:, 0].numpy(),
        "high": high[:, 0].numpy(),
        "points": ((seen.points - low) / (high - low) * _STEPS).round().numpy().astype(np.uint16),
        "normals": (seen.normals * _NORMAL_STEPS).round().numpy().astype(np.int8),
        "thickness": (seen.thickness / _THICKEST * _STEPS).round().numpy().clip(0, _STEPS).astype(np.uint16),
        "contact": (cases.truth.contact * 255).round().numpy().astype(np.uint8),
        "near": np.packbits(near.numpy(), axis=1),
        "canonical": cases.truth.canonical[near].numpy().astype(np.float16),
    }
    return write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read_cases(path: Path, noise: str, count: int | None = None, seed: int = 0) -> Cases:
    """Read what `write_cases` wrote, and put noise on the hands.

    Args:
        noise: name of a protocol.
        count: of the file's grasps the first so many; None for all.
        seed: of the noise, drawn for all grasps of the file.

    Returns:
        Truth without parts, gaps and contact of the hand: uniform, and zero.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is not there; contact_network.py --make-held-out makes such files.")
    with np.load(path, allow_pickle=False) as data:
        arrays = dict(data)
    rows = slice(count)
    pose = HandPose.from_arrays({name: arrays[name] for name in _POSE}, side="right")
    objects, which = np.unique(arrays["which"][rows], return_inverse=True)
    low, high = (torch.from_numpy(arrays[name][objects])[:, None] for name in ("low", "high"))
    points = torch.from_numpy(arrays["points"][objects].astype(np.float32)) / _STEPS * (high - low) + low
    normals = torch.from_numpy(arrays["normals"][objects].astype(np.float32))
    thickness = torch.from_numpy(arrays["thickness"][objects].astype(np.float32)) / _STEPS * _THICKEST
    hierarchy = PointHierarchy.cat([build_hierarchy(p) for p in points])
    seen = ObjectPoints(points, torch.nn.functional.normalize(normals, dim=-1), thickness, hierarchy)
    contact = torch.from_numpy(arrays["contact"].astype(np.float32) / 255)
    near = torch.from_numpy(np.unpackbits(arrays["near"], axis=1, count=contact.shape[1]) > 0)
    canonical = torch.zeros(*contact.shape, 3)
    canonical[near] = torch.from_numpy(arrays["canonical"].astype(np.float32))
    nothing, hand = torch.zeros_like(contact), torch.zeros(len(contact), 0)
    uniform = torch.full((*contact.shape, NUM_PARTS), 1 / NUM_PARTS)
    truth = ContactField(contact, nothing, uniform, canonical, nothing, nothing, nothing, near.float(), hand, hand)
    noisy, names = perturb(pose, noise, seed=seed), tuple(arrays["names"][objects].tolist())
    return Cases(pose[rows], noisy[rows], torch.from_numpy(which), seen, truth[rows], names)
