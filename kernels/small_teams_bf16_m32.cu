// 17 to 32 rows of bf16 activations that teams of warps share, one weight scale per 128 columns; a strip a warp.
#include "flexq/small_teams.cuh"

FLEXQ_SMALL_TEAMS(bf16_m32, 1, TeamFloats<flexq::BfloatHopper, 4>)
