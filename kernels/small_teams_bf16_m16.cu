// 9 to 16 rows of bf16 activations that teams of warps share, one weight scale per 128 columns; two strips a warp.
#include "flexq/small_teams.cuh"

FLEXQ_SMALL_TEAMS(bf16_m16, 2, TeamFloats<flexq::BfloatHopper, 2>)
