//! `kernels/small_*.cu`.

use super::hopper::TensorMap;
use super::{Shape, launch};
use crate::config::{Activations, Family, Small};
use crate::device::Device;
use crate::error::Result;
use crate::kernels::Source;

#[repr(C)]
pub struct Arguments {
    pub weights: u64,
    pub scales: u64,
    pub x: u64,
    pub x_scales: u64,
    pub bias: u64,
    pub y: u64,
    pub partial: u64,
    pub arrivals: u64,
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub x_stride: i32,
    pub x_scale_stride: i32,
    pub splits: i32,
    pub split_blocks: i32,
    pub strips: i32,
    pub longer: i32,
    pub stages: i32,
    pub per_row: i32,
    pub late: i32,
    pub limit: f32,
    pub x_type: i32,
    pub scale_type: i32,
    pub bias_type: i32,
    pub y_type: i32,
}

/// Source and kernel for a launch. The driver compiles whole files, so each kernel for groups of 128,
/// which most models have, is a file of its own.
pub fn names(config: &Small, activations: Activations, segment: usize) -> (&'static str, String) {
    let (kind, family) = (activations.name(), config.options.family);
    if matches!(family, Family::Streamed | Family::Teams) {
        let name = format!("small_{}_{kind}_m{}", family.name(), config.rows);
        return (Source::named(&name).map_or("", |source| source.name), format!("flexq_{name}"));
    }
    let kind = if family == Family::Planes { "b1" } else { kind };
    let file = format!("small_{kind}_g{segment}");
    let name = format!("{file}_m{}", config.rows);
    let source = Source::named(if segment == 128 { &name } else { &file });
    (source.map_or("", |source| source.name), format!("flexq_{name}"))
}

/// What kernels take whose warps form teams.
#[repr(C, align(64))]
pub struct TeamArguments {
    pub x: TensorMap,
    pub rest: Arguments,
    pub x_stages: i32,
}

/// Launches the kernel of `config`, which takes an `A`.
///
/// # Safety
/// As for [`launch`].
pub unsafe fn run<A>(
    device: &Device,
    stream: u64,
    config: &Small,
    activations: Activations,
    segment: usize,
    arguments: &A,
) -> Result<()> {
    let (source, name) = names(config, activations, segment);
    let kernel = device.kernel(source, &name)?;
    let shape = Shape {
        grid: config.grid,
        threads: config.warps * 32,
        shared_bytes: config.shared_bytes,
        cluster: config.cluster(),
    };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Arch, Config, Problem};

    #[test]
    fn every_launch_has_a_kernel() {
        let arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
        let int8 = Activations::Int8 { per_row: true };
        for activations in [Activations::F16, Activations::BF16, int8] {
            for (m, segment) in [1, 8, 9, 16, 17, 32].into_iter().flat_map(|m| [32, 64, 128].map(|s| (m, s)))
            {
                let p = Problem { arch, m, n: 4096, k: 4096, activations, segment, aligned: true };
                for family in ["small", "streamed", "teams", "planes"] {
                    let Ok(Config::Small(c)) = Config::requested(family, &p) else { continue };
                    let (source, kernel) = names(&c, activations, segment);
                    let text = Source::named(source).and_then(|source| source.ptx((9, 0))).expect(&kernel);
                    let entry = format!(".entry {kernel}(");
                    assert!(String::from_utf8(text).unwrap().contains(&entry), "{kernel}");
                }
            }
        }
    }
}
