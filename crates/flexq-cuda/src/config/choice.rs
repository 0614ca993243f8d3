//! The kernel that a product gets: which family is the fastest, by measurements on an H200.

use super::teams::Teams;
use super::{Activations, Config, Family, Hopper, Problem, Small, Tile};

/// Whether a small-M kernel that stages x beats the warp-group kernels. Its blocks keep their part of x,
/// so the fewer numbers of x the better; with few rows of weights, or few tiles in a last round, the
/// others must share the K of tiles.
fn few_rows_win(p: &Problem) -> bool {
    let cells = p.m * p.k;
    let tiles = p.n.div_ceil(128) as u32;
    let (whole, rest) = (tiles / p.arch.multiprocessors, tiles % p.arch.multiprocessors);
    let even = rest == 0 || rest * 5 >= p.arch.multiprocessors * 3;
    let light = p.n <= 5120 || p.weight_bytes() < 16_000_000;
    let Activations::Int8 { per_row } = p.activations else { return p.m <= 16 && light && cells <= 200_000 };
    // Tiles of so few columns are cut into many parts, whose sums cost more than they save.
    let short = p.m <= 32 && p.weight_bytes() < 16_000_000;
    let uneven = whole > 0 && !even && p.m <= 16;
    let short_rows = if per_row { cells <= 8192 } else { p.m <= 4 && cells <= 32_768 && p.k <= 16_384 };
    p.m <= 16 && light && cells <= 200_000 || uneven || short || short_rows
}

/// Whether a kernel that loads x while weights come beats the others: up to eight rows. It cuts N, so there
/// must be strips for all; quantizing x in every block, 128 columns at a time, is hidden behind weights for
/// few rows or beside many strips.
fn streamed_wins(p: &Problem) -> bool {
    let bytes = p.weight_bytes();
    strips_for_all(p)
        && match p.activations {
            Activations::F16 | Activations::BF16 => true,
            Activations::Int8 { .. } => {
                bytes > 100_000_000 && !p.is_narrow()
                    || p.m <= 4 && bytes > 16_000_000
                    || (2..=4).contains(&p.m)
            }
        }
}

/// Whether a kernel whose warps share x beats the others: of 9 to 16 rows, or of codes that are made
/// beforehand and few strips; up to 32 where the warp-group kernels have too few tiles.
fn teams_win(p: &Problem) -> bool {
    let (bytes, few) = (p.weight_bytes(), p.m <= 16 || p.m <= 32 && p.weight_bytes() < 16_000_000);
    strips_for_all(p)
        && few
        && match p.activations {
            Activations::F16 | Activations::BF16 => p.m > 8,
            Activations::Int8 { per_row } => {
                p.m >= if per_row { 2 } else { 5 } && p.is_narrow() && bytes < 100_000_000
            }
        }
}

fn strips_for_all(p: &Problem) -> bool {
    p.strips() * 10 >= u64::from(p.arch.multiprocessors) * 9
}

/// The kernel for a product.
#[must_use]
pub fn choose(p: &Problem) -> Config {
    let few = if streamed_wins(p) { Small::choose_streamed(p) } else { None };
    let few = few.or_else(|| if teams_win(p) { Small::choose_teams(p, Teams::default()) } else { None });
    if let Some(few) = few {
        return Config::Small(few);
    }
    let hopper = Hopper::choose(p);
    let few = if hopper.is_some() { few_rows_win(p) } else { p.m <= 24 };
    if few && let Some(small) = Small::choose(p, Family::Staged) {
        return Config::Small(small);
    }
    hopper.map_or_else(|| Config::Tile(Tile::choose(p)), Config::Hopper)
}

#[cfg(test)]
mod tests {
    use super::super::{Arch, Reduce, SmallOptions};
    use super::*;

    const H200: Arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
    const A100: Arch = Arch { capability: (8, 0), multiprocessors: 108, shared_bytes: 166_912 };
    const L40: Arch = Arch { capability: (8, 9), multiprocessors: 142, shared_bytes: 101_376 };

    fn problem(arch: Arch, m: usize, n: usize, k: usize, activations: Activations) -> Problem {
        Problem { arch, m, n, k, activations, segment: 128, aligned: k.is_multiple_of(8) }
    }

    #[test]
    fn small_products_fill_the_gpu_and_leave_room_for_the_next() {
        let p = problem(H200, 2, 5120, 5120, Activations::F16);
        assert_eq!(
            choose(&p).to_string(),
            "streamed rows=8 strips=3 splits=1 stages=3 grid=132 shared=115184"
        );
        // the same share of shared memory, whatever is needed
        let Config::Small(c) = choose(&problem(H200, 1, 1024, 4096, Activations::F16)) else { panic!() };
        assert_eq!((c.splits, c.grid, c.options.room, c.shared_bytes), (2, 128, 2, 115_184));
        let unaligned = Problem { aligned: false, ..problem(H200, 16, 8192, 8192, Activations::BF16) };
        let Config::Small(c) = choose(&unaligned) else { panic!() };
        assert_eq!((c.rows, c.splits, c.cluster(), c.grid), (16, 4, 4, 120));
    }

    #[test]
    fn few_rows_load_activations_on_the_way() {
        let launch = |m, n, k| match choose(&problem(H200, m, n, k, Activations::F16)) {
            Config::Small(c) => (c.options.family.name(), c.rows, c.splits, c.options.blocks),
            config => panic!("{config}"),
        };
        assert_eq!(launch(8, 4096, 14336), ("streamed", 8, 1, 1));
        // two blocks of a long launch beside each other
        assert_eq!(launch(1, 8192, 8192), ("streamed", 8, 1, 2));
        // sums of so many strips fit for parts of them
        assert_eq!(launch(8, 128_256, 4096), ("streamed", 8, 1, 8));
        // teams of warps share more rows; of narrow and long products two blocks read half of x each
        assert_eq!(launch(16, 14336, 4096), ("teams", 16, 1, 1));
        assert_eq!(launch(9, 8192, 8192), ("teams", 16, 2, 1));
        assert_eq!(launch(16, 4096, 4096), ("teams", 16, 1, 1));
        assert_eq!(launch(16, 2048, 4096), ("teams", 16, 2, 1));
        assert_eq!(launch(16, 28672, 8192), ("teams", 16, 1, 2));
        assert_eq!(launch(17, 4096, 4096), ("teams", 32, 1, 1));
        // too few strips for all multiprocessors: parts of K, which need x beforehand
        assert_eq!(launch(4, 1024, 4096), ("small", 8, 2, 1));
        let odd = Problem { segment: 64, ..problem(H200, 4, 4096, 4096, Activations::F16) };
        assert!(matches!(choose(&odd), Config::Small(c) if c.options.family == Family::Staged));
        assert!(!matches!(choose(&problem(H200, 17, 5120, 5120, Activations::F16)), Config::Small(_)));
        let int8 = problem(H200, 32, 1024, 4096, Activations::Int8 { per_row: true });
        assert!(matches!(choose(&int8), Config::Small(c) if c.rows == 32 && !c.options.fused));
    }

    #[test]
    fn few_activations_are_quantized_on_the_way() {
        let launch = |m, k, per_row| {
            let Config::Small(c) = choose(&problem(H200, m, 4096, k, Activations::Int8 { per_row })) else {
                panic!("{m} {k}")
            };
            (c.options.family.name(), c.options.fused, c.splits, c.options.room)
        };
        // each of two blocks quantizes half of every row
        assert_eq!(launch(4, 4096, false), ("streamed", true, 2, 2));
        // codes of a launch of its own, which leaves no room for a second block
        assert_eq!(launch(8, 4096, false), ("teams", false, 2, 1));
        assert_eq!(launch(16, 11008, false), ("teams", false, 2, 1));
        assert_eq!(launch(2, 14336, true), ("teams", false, 2, 1));
        // the largest number of a row is found first, in all of it
        assert_eq!(launch(1, 4096, true), ("small", true, 1, 2));
    }

    #[test]
    fn warps_can_count_their_units() {
        let launch = |n| {
            let options = SmallOptions {
                family: Family::Staged,
                fused: false,
                splits: 4,
                reduce: Reduce::Workspace,
                stages: 2,
                blocks: 1,
                room: 1,
            };
            Small::with(&problem(H200, 1, n, 1 << 17, Activations::F16), &options)
        };
        assert!(launch(1 << 18).is_some_and(|c| c.strips == 497 && c.split_blocks == 256));
        assert_eq!(launch(1 << 19), None);
    }

    #[test]
    fn many_rows_use_what_the_gpu_has() {
        let int8 = Activations::Int8 { per_row: false };
        assert!(matches!(choose(&problem(H200, 4096, 8192, 8192, int8)), Config::Hopper(_)));
        assert!(matches!(choose(&problem(A100, 4096, 8192, 8192, int8)), Config::Tile(_)));
        assert!(matches!(choose(&problem(H200, 4096, 100, 1001, Activations::F16)), Config::Tile(_)));
    }

    #[test]
    fn many_rows_fill_the_gpu() {
        let choice = |m, n, k| {
            let text = choose(&problem(H200, m, n, k, Activations::F16)).to_string();
            text.split(" shared").next().unwrap().to_owned()
        };
        // 64 tiles: two blocks share the K of each, of which one adds the sums and has more of K
        assert_eq!(choice(32, 8192, 8192), "hopper 32x128 splits=1 split_tiles=64 share=29 grid=128");
        // 40 tiles: three blocks each
        assert_eq!(choice(32, 5120, 5120), "hopper 32x128 splits=1 split_tiles=40 share=12 grid=120");
        // tiles of another shape, which make one round
        assert_eq!(choice(256, 12288, 4096), "hopper 128x192 splits=1 split_tiles=0 share=0 grid=128");
        assert_eq!(choice(512, 5120, 5120), "hopper 176x128 splits=1 split_tiles=0 share=0 grid=120");
        // whole tiles of 256 rows, clusters of two; where rounds are uneven, K is dealt out
        assert_eq!(choice(1024, 8192, 8192), "hopper 256x256 splits=1 split_tiles=0 share=0 grid=132");
        assert_eq!(choice(2048, 8192, 28672), "hopper 256x256 splits=1 split_tiles=0 share=0 grid=132");
        assert_eq!(choice(1024, 5120, 5120), "hopper 256x256 splits=1 split_tiles=80 share=0 grid=132");
        assert_eq!(choice(1024, 14336, 4096), "hopper 256x256 splits=1 split_tiles=92 share=0 grid=132");
    }

    #[test]
    fn every_choice_fits_the_gpu() {
        let kinds = [
            Activations::F16,
            Activations::BF16,
            Activations::Int8 { per_row: true },
            Activations::Int8 { per_row: false },
        ];
        for arch in [H200, A100, L40] {
            for activations in kinds {
                for (n, k) in
                    [(0, 128), (1, 1), (64, 128), (100, 172), (4096, 11008), (8192, 28672), (128_256, 4096)]
                {
                    for m in [0, 1, 7, 8, 9, 16, 17, 31, 33, 64, 65, 128, 1000, 16384] {
                        for segment in [32, 64, 128] {
                            let p = Problem { segment, ..problem(arch, m, n, k, activations) };
                            let config = choose(&p);
                            let shared = match config {
                                Config::Small(c) => c.shared_bytes,
                                Config::Tile(_) => Tile::shared_bytes(activations, segment),
                                Config::Hopper(c) => c.shared_bytes,
                            };
                            assert!(shared <= arch.shared_bytes, "{config} {p:?}");
                            // the L40 has too little shared memory for some
                            let fits = arch == L40
                                || p.is_empty()
                                || m > 8
                                || Small::choose(&p, Family::Staged).is_some();
                            assert!(fits, "{p:?}");
                            if let Config::Hopper(c) = config {
                                assert!(
                                    c.partial_bytes() <= Hopper::most_partial_bytes(&p, m),
                                    "{config} {p:?}"
                                );
                                assert!(c.grid <= arch.multiprocessors && c.counters() * 4 <= 1 << 18);
                                let blocks = p.k_blocks() as u32;
                                let (sharers, share, extra) = c.ranges(blocks);
                                let workers = c.grid / c.cluster;
                                match sharers {
                                    0 => assert_eq!(workers * share + extra, c.split_tiles * blocks),
                                    _ => assert!(
                                        share > 0
                                            && (sharers - 1) * share < blocks
                                            && sharers * c.split_tiles == workers
                                    ),
                                }
                                assert!(
                                    u64::from(c.splits) <= p.k_blocks()
                                        && c.grid % (c.splits * c.cluster) == 0
                                );
                            }
                            if let Config::Small(c) = config {
                                let groups = u64::from(c.grid / c.splits);
                                let longer = u64::from(c.longer);
                                assert!(longer <= groups);
                                assert_eq!(u64::from(c.strips - 1) * groups + longer, p.strips());
                                assert!(u64::from(c.split_blocks * c.splits) >= p.k_blocks());
                            }
                        }
                    }
                }
            }
        }
    }
}
