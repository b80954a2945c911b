"""What papers report on grasps that they made better, to stand beside one's own figures.

No two of these are the same experiment: each says what is different from measuring with `contact.perturb`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure of one paper."""

    method: str
    paper: str
    data: str
    metric: str
    """column of `METRICS` that measures the same"""
    before: float
    after: float
    noise: str = ""
    """protocol of `contact.perturb` with the same noise; empty: none has"""
    difference: str = ""
    """from our measurement under that protocol; of another experiment, what its input is"""


_CONTACTPOSE = (
    "ContactPose's objects and MANO hands, by a network trained on other grasps of the same data set; noise of the "
    "fingers is on MANO's 15 principal components, ours on anatomical angles; volumes are counted in 5 mm voxels"
)
_GRAB = (
    "motions of GRAB, refined with the frames before and after, by a network trained on other motions of the same "
    "data set; MANO hands; ours are single grasps"
)
_TOCH = "Zhou et al., ECCV 2022"

PUBLISHED = (
    Published("ContactOpt", "Grady et al., CVPR 2021", "Perturbed ContactPose", "mpjpe_mm", 79.9, 25.05,
              "contactopt", _CONTACTPOSE),
    Published("ContactOpt", "Grady et al., CVPR 2021", "Perturbed ContactPose", "volume_cm3", 8.4, 12.8,
              "contactopt", _CONTACTPOSE),
    Published("S2Contact", "Tse et al., ECCV 2022", "Perturbed ContactPose", "mpjpe_mm", 79.9, 29.4,
              "contactopt", _CONTACTPOSE),
    Published("NL2Contact", "Zhang et al., ECCV 2024", "Perturbed ContactPose", "mpjpe_mm", 79.9, 21.7,
              "contactopt", _CONTACTPOSE),
    Published("TOCH", _TOCH, "GRAB, T 0.01", "mpjpe_mm", 16.0, 9.9, "toch-t1", _GRAB),
    Published("TOCH", _TOCH, "GRAB, T 0.02", "mpjpe_mm", 31.9, 12.3, "toch-t2", _GRAB),
    Published("TOCH", _TOCH, "GRAB, R 0.3", "mpjpe_mm", 4.6, 9.6, "toch-r3", _GRAB),
    Published("TOCH", _TOCH, "GRAB, R 0.5", "mpjpe_mm", 7.5, 9.1, "toch-r5", _GRAB),
    Published("TOCH", _TOCH, "GRAB, B 0.01, 0.3", "mpjpe_mm", 17.3, 10.3, "toch-b1", _GRAB),
    Published("TOCH", _TOCH, "GRAB, B 0.02, 0.5", "mpjpe_mm", 33.3, 12.1, "toch-b2", _GRAB),
    Published("ContactOpt", "Grady et al., CVPR 2021", "HO-3D", "mpjpe_mm", 57.7, 48.1,
              difference="hands of an image estimator instead of drawn noise"),
    Published("CPF", "Yang et al., ICCV 2021", "FHAB", "mpjpe_mm", 16.4, 24.3,
              difference="hands and objects of its own image estimator; read from its result files"),
    Published("CPF", "Yang et al., ICCV 2021", "FHAB", "volume_cm3", 21.1, 12.6,
              difference="hands and objects of its own image estimator; read from its result files"),
    Published("RefineNet of GrabNet", "Taheri et al., ECCV 2020", "GRAB", "mpvpe_mm", 18.4, 4.4,
              difference="noise of its own; network trained on other grasps of the same data set"),
)  # fmt: skip
"""GraspTTA (Jiang et al., ICCV 2021) is not among them: it makes grasps from an object alone, which have no error
from a truth."""


def published_under(noise: str) -> tuple[Published, ...]:
    """What was measured under the same noise as the protocol ``noise`` of `contact.perturb`."""
    return tuple(figure for figure in PUBLISHED if figure.noise and figure.noise == noise)
