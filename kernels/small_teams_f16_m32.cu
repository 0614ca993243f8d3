// 17 to 32 rows of f16 activations that teams of warps share, one weight scale per 128 columns; a strip a warp.
#include "flexq/small_teams.cuh"

FLEXQ_SMALL_TEAMS(f16_m32, 1, TeamFloats<flexq::Half, 4>)
