// 17 to 32 rows of int8 activations that teams of warps share, one weight scale per 128 columns; a strip a warp.
#include "flexq/small_teams.cuh"

FLEXQ_SMALL_TEAMS(s8_m32, 1, TeamCodes<4>)
