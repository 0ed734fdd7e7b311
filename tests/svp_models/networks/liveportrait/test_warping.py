from __future__ import annotations

import torch

from svp_portrait.svp_models.networks.liveportrait.warping import coordinate_grid, gaussians


@torch.no_grad()
def test_the_warp_of_liveportrait(liveportrait_networks, liveportrait_io, close):
    io = liveportrait_io
    warp = liveportrait_networks.warping(io["feature_3d"], io["stitched_keypoints"][1:], io["source_keypoints"])
    for name, tensor in warp._asdict().items():
        close(tensor, io[name])


@torch.no_grad()
def test_frames_of_a_clip_share_one_source(liveportrait_networks, liveportrait_io, close):
    io = liveportrait_io
    together = liveportrait_networks.warping(io["feature_3d"], io["stitched_keypoints"], io["source_keypoints"])
    for frame in range(2):
        keypoints = io["stitched_keypoints"][frame : frame + 1]
        alone = liveportrait_networks.warping(io["feature_3d"], keypoints, io["source_keypoints"])
        close(together.warped[frame : frame + 1], alone.warped)


@torch.no_grad()
def test_points_at_rest_leave_every_cell_in_its_place(liveportrait_networks, liveportrait_io):
    io = liveportrait_io
    warp = liveportrait_networks.warping(io["feature_3d"], io["source_keypoints"], io["source_keypoints"])
    grid = coordinate_grid(io["feature_3d"].shape[2:], io["feature_3d"])
    torch.testing.assert_close(warp.deformation[0], grid, rtol=1e-5, atol=1e-6)


def test_the_grid_runs_from_corner_to_corner():
    grid = coordinate_grid(torch.Size([2, 3, 5]), torch.zeros(()))
    assert grid[0, 0, 0].tolist() == [-1, -1, -1] and grid[1, 2, 4].tolist() == [1, 1, 1]
    assert grid[0, 1, 3].tolist() == [0.5, 0, -1]  # x y z


def test_gaussians_are_one_at_their_point():
    grid = coordinate_grid(torch.Size([3, 3, 21]), torch.zeros(()))
    maps = gaussians(grid, torch.tensor([[[0.0, 0.0, 0.0]]]))  # 1 1 d h w
    torch.testing.assert_close(maps[0, 0, 1, 1, 10], torch.tensor(1.0))
    torch.testing.assert_close(maps[0, 0, 1, 1, 11], torch.tensor(-0.5).exp())  # 0.1 away, variance 0.01
