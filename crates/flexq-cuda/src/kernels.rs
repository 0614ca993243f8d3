//! The embedded PTX: which file holds which kernels, for which GPUs.

use std::io::Read;

use flate2::read::GzDecoder;

/// One compiled source of `kernels/`.
#[derive(Debug)]
pub struct Source {
    /// Name of the source without its ending.
    pub name: &'static str,
    /// Compressed PTX for every GPU from Ampere on; `None` where only Hopper's will do.
    ampere: Option<&'static [u8]>,
    /// Compressed PTX for Hopper and what the file says of later ones.
    hopper: Option<&'static [u8]>,
    /// The Hopper PTX is for compute capability 9.0 alone.
    hopper_only: bool,
}

macro_rules! ptx {
    ($name:literal, $target:literal) => {
        Some(include_bytes!(concat!("../ptx/", $name, ".", $target, ".ptx.gz")) as &[u8])
    };
}

macro_rules! both {
    ($name:literal) => {
        Source { name: $name, ampere: ptx!($name, "sm_80"), hopper: ptx!($name, "sm_90"), hopper_only: false }
    };
}

macro_rules! ampere {
    ($name:literal) => {
        Source { name: $name, ampere: ptx!($name, "sm_80"), hopper: None, hopper_only: false }
    };
}

macro_rules! from_hopper {
    ($name:literal) => {
        Source { name: $name, ampere: None, hopper: ptx!($name, "sm_90"), hopper_only: false }
    };
}

macro_rules! hopper {
    ($name:literal) => {
        Source { name: $name, ampere: None, hopper: ptx!($name, "sm_90a"), hopper_only: true }
    };
}

/// Every source.
pub static SOURCES: &[Source] = &[
    both!("activations_any"),
    both!("activations_blocks"),
    both!("activations_long"),
    both!("activations_rows"),
    ampere!("order"),
    hopper!("sm90_bf16_m128"),
    hopper!("sm90_bf16_m176"),
    hopper!("sm90_bf16_m192"),
    hopper!("sm90_bf16_m256"),
    hopper!("sm90_bf16_m32"),
    hopper!("sm90_bf16_m64"),
    hopper!("sm90_bf16_n192_m128"),
    hopper!("sm90_bf16_n192_m32"),
    hopper!("sm90_bf16_n192_m64"),
    hopper!("sm90_f16_m128"),
    hopper!("sm90_f16_m176"),
    hopper!("sm90_f16_m192"),
    hopper!("sm90_f16_m256"),
    hopper!("sm90_f16_m32"),
    hopper!("sm90_f16_m64"),
    hopper!("sm90_f16_n192_m128"),
    hopper!("sm90_f16_n192_m32"),
    hopper!("sm90_f16_n192_m64"),
    hopper!("sm90_s8b_m128"),
    hopper!("sm90_s8b_m176"),
    hopper!("sm90_s8b_m256"),
    hopper!("sm90_s8b_m32"),
    hopper!("sm90_s8b_m64"),
    hopper!("sm90_s8b_n192_m128"),
    hopper!("sm90_s8r_m128"),
    hopper!("sm90_s8r_m176"),
    hopper!("sm90_s8r_m256"),
    hopper!("sm90_s8r_m32"),
    hopper!("sm90_s8r_m64"),
    hopper!("sm90_s8r_n192_m128"),
    hopper!("sm90_s8r_near_m256"),
    both!("small_b1_g128_m8"),
    both!("small_bf16_g128_m16"),
    both!("small_bf16_g128_m32"),
    both!("small_bf16_g128_m8"),
    both!("small_bf16_g32"),
    both!("small_bf16_g64"),
    both!("small_f16_g128_m16"),
    both!("small_f16_g128_m32"),
    both!("small_f16_g128_m8"),
    both!("small_f16_g32"),
    both!("small_f16_g64"),
    both!("small_grouped_bf16"),
    both!("small_grouped_f16"),
    both!("small_grouped_s8"),
    both!("small_s8_g128_m16"),
    both!("small_s8_g128_m32"),
    both!("small_s8_g128_m8"),
    both!("small_s8_g32"),
    both!("small_s8_g64"),
    from_hopper!("small_streamed_bf16_m8"),
    from_hopper!("small_streamed_f16_m8"),
    from_hopper!("small_streamed_s8_m8"),
    from_hopper!("small_teams_bf16_m16"),
    from_hopper!("small_teams_bf16_m32"),
    from_hopper!("small_teams_f16_m16"),
    from_hopper!("small_teams_f16_m32"),
    from_hopper!("small_teams_s8_m16"),
    from_hopper!("small_teams_s8_m32"),
    from_hopper!("small_teams_s8_m8"),
    ampere!("tile_bf16"),
    ampere!("tile_f16"),
    ampere!("tile_s8"),
];

impl Source {
    /// The source of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SOURCES.iter().find(|source| source.name == name)
    }

    /// Whether the PTX chosen for a GPU of this capability uses dependent launch and clusters.
    pub fn is_hopper(&self, capability: (u32, u32)) -> bool {
        self.hopper.is_some() && if self.hopper_only { capability == (9, 0) } else { capability >= (9, 0) }
    }

    /// The PTX for a GPU of this compute capability, NUL-terminated as the driver wants it.
    pub fn ptx(&self, capability: (u32, u32)) -> Option<Vec<u8>> {
        let compressed = if self.is_hopper(capability) { self.hopper } else { self.ampere }?;
        let mut text = Vec::new();
        GzDecoder::new(compressed).read_to_end(&mut text).ok()?;
        text.push(0);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITIES: [(u32, u32); 5] = [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)];

    #[test]
    fn every_file_is_what_its_name_says() {
        for source in SOURCES {
            for capability in CAPABILITIES {
                let Some(ptx) = source.ptx(capability) else { continue };
                let text = String::from_utf8(ptx).unwrap();
                let (version, target) = match (source.is_hopper(capability), source.hopper_only) {
                    (false, _) => ("7.4", "sm_80"),
                    (true, false) => ("8.0", "sm_90"),
                    (true, true) => ("8.0", "sm_90a"),
                };
                assert!(text.contains(&format!(".version {version}\n")), "{}", source.name);
                assert!(text.contains(&format!(".target {target}\n")), "{}", source.name);
                assert!(text.ends_with('\0'));
            }
        }
    }

    #[test]
    fn every_compiled_file_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/ptx");
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            if let Some(stem) = file.strip_suffix(".ptx.gz") {
                let (name, _) = stem.rsplit_once(".sm_").unwrap();
                assert!(Source::named(name).is_some(), "{file} is not in the table");
            }
        }
    }
}
