//! Kernels for AVX-512 with VBMI and VNNI: Intel since Ice Lake (2019), AMD since Zen 4 (2022).
//!
//! What is not here is AVX2's. As there, the functions in the table are safe wrappers, and
//! vectors are handled in loops, not in closures given to `map` or `from_fn`.

use super::avx2;
use crate::arch::Kernels;

pub(in crate::arch) fn is_available() -> bool {
    avx2::is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
}

pub(in crate::arch) const KERNELS: Kernels = Kernels { ..avx2::KERNELS };
