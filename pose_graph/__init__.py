"""2D to 3D hand-object graphs: 21 joints and 8 box corners seen by a camera become points in space.

The architectures are those of HOPE-Net (Doosti et al., CVPR 2020) and of JHOPE's context-aware module, rewritten.
"""
