// Up to 8 rows of int8 activations that teams of warps share, one weight scale per 128 columns; two strips a warp.
#include "flexq/small_teams.cuh"

FLEXQ_SMALL_TEAMS(s8_m8, 2, TeamCodes<1>)
