//! The order of packed weights that kernels read.
//!
//! `kernels/include/flexq/layout.cuh` draws it. [`prepare::repack`](crate::prepare::repack)
//! makes it on the GPU; the functions here say the same on the host, and tests compare the two.
//!
//! N is padded to [`TILE_ROWS`], K to [`TILE_COLUMNS`], with codes of zero. A tile is four
//! blocks of 16 rows by 128 columns; in a block, each of 32 lanes owns twelve words, three for
//! each quad of 32 columns, which hold four bytes of one code each in words 0 to 2 and a fourth
//! set of four codes in the two low bits of those bytes.

/// Rows of a tile; N is padded to a multiple.
pub const TILE_ROWS: usize = 64;
/// Columns of a tile; K is padded to a multiple.
pub const TILE_COLUMNS: usize = 128;
/// Bytes of a tile: 6 bits for each of its codes.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_COLUMNS * 6 / 8;

const BLOCK_ROWS: usize = 16;
const BLOCK_WORDS: usize = BLOCK_ROWS * TILE_COLUMNS * 6 / 32;
const CHUNK_WORDS: usize = 128;

/// N and K rounded up to whole tiles.
#[must_use]
pub fn padded(n: usize, k: usize) -> (usize, usize) {
    (n.next_multiple_of(TILE_ROWS), k.next_multiple_of(TILE_COLUMNS))
}

/// Bytes of an `[n, k]` weight in device order.
#[must_use]
pub fn weight_bytes(n: usize, k: usize) -> usize {
    n.div_ceil(TILE_ROWS) * k.div_ceil(TILE_COLUMNS) * TILE_BYTES
}

/// Scales of an `[n, k]` weight in device order, `segment` columns each.
#[must_use]
pub fn scale_count(n: usize, k: usize, segment: usize) -> usize {
    let (n, k) = padded(n, k);
    k / segment * n
}

/// Where a code lies: the index of the first word of its quad, its byte-word 0 to 3, and the
/// byte in that.
fn place(row: usize, column: usize, k: usize) -> (usize, usize, usize) {
    let (strip, r) = (row / BLOCK_ROWS, row % BLOCK_ROWS);
    let (block, c) = (column / TILE_COLUMNS, column % TILE_COLUMNS);
    let tile = strip / 4 * k.div_ceil(TILE_COLUMNS) + block;
    let first = (tile * 4 + strip % 4) * BLOCK_WORDS;
    let (quad, c) = (c / 32, c % 32);
    let (half, c) = (c / 16, c % 16);
    let lane = r % 8 * 4 + c % 8 / 2;
    (first + word(lane, 3 * quad), 2 * half + r / 8, c % 2 + c / 8 * 2)
}

/// Index in its block of word `w` (0 to 11) of a lane.
fn word(lane: usize, w: usize) -> usize {
    w / 4 * CHUNK_WORDS + lane * 4 + w % 4
}

/// The three words of the quad whose first word is `words[first]`, as indices.
fn quad_words(first: usize) -> [usize; 3] {
    let block = first / BLOCK_WORDS * BLOCK_WORDS;
    let (chunk, rest) = ((first - block) / CHUNK_WORDS, (first - block) % CHUNK_WORDS);
    let (lane, w) = (rest / 4, chunk * 4 + rest % 4);
    [w, w + 1, w + 2].map(|w| block + word(lane, w))
}

/// Codes `q [n, k]` in -32..=31, row by row, in device order.
///
/// # Panics
/// If `q` does not hold `n * k` codes.
#[must_use]
pub fn to_device_order(q: &[i8], n: usize, k: usize) -> Vec<u32> {
    assert_eq!(q.len(), n * k, "codes of an [n, k] matrix");
    let (n_pad, k_pad) = padded(n, k);
    let mut words = vec![0_u32; weight_bytes(n, k) / 4];
    for row in 0..n_pad {
        for column in 0..k_pad {
            let q = if row < n && column < k { q[row * k + column] } else { 0 };
            let code = (i32::from(q) + 32) as u32;
            let (first, byte_word, byte) = place(row, column, k);
            let quad = quad_words(first);
            if byte_word < 3 {
                words[quad[byte_word]] |= code << (8 * byte + 2);
            } else {
                for (i, &word) in quad.iter().enumerate() {
                    words[word] |= (code >> (4 - 2 * i) & 3) << (8 * byte);
                }
            }
        }
    }
    words
}

/// The codes back from device order.
///
/// # Panics
/// If `words` is shorter than [`weight_bytes`] says.
#[must_use]
pub fn from_device_order(words: &[u32], n: usize, k: usize) -> Vec<i8> {
    let mut q = Vec::with_capacity(n * k);
    for row in 0..n {
        for column in 0..k {
            let (first, byte_word, byte) = place(row, column, k);
            let quad = quad_words(first).map(|word| words[word] >> (8 * byte));
            let code = if byte_word < 3 {
                quad[byte_word] >> 2 & 63
            } else {
                (quad[0] & 3) << 4 | (quad[1] & 3) << 2 | quad[2] & 3
            };
            q.push(code as i8 - 32);
        }
    }
    q
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_and_last_code_of_a_block() {
        let mut q = vec![0; 64 * 128];
        q[0] = 31;
        q[64 * 128 - 1] = -32;
        let words = to_device_order(&q, 64, 128);
        assert_eq!(words[0], 63 << 2 | (32 << 10 | 32 << 18 | 32 << 26) | 0x0202_0202);
        assert_eq!(words.len() * 4, TILE_BYTES);
        assert_eq!(from_device_order(&words, 64, 128), q);
    }

    #[test]
    fn every_bit_of_a_tile_is_used_once() {
        let mut all = vec![0_u32; TILE_BYTES / 4];
        for row in 0..64 {
            for column in 0..128 {
                let (first, byte_word, byte) = place(row, column, 128);
                let quad = quad_words(first);
                let bits = if byte_word < 3 {
                    vec![(quad[byte_word], 63 << (8 * byte + 2))]
                } else {
                    quad.iter().map(|&word| (word, 3 << (8 * byte))).collect()
                };
                for (word, bits) in bits {
                    assert_eq!(all[word] & bits, 0);
                    all[word] |= bits;
                }
            }
        }
        assert!(all.iter().all(|&word| word == u32::MAX));
    }

    proptest! {
        #[test]
        fn there_and_back(n in 1_usize..150, k in 1_usize..300, seed in any::<u64>()) {
            let mut state = seed;
            let q: Vec<i8> = (0..n * k)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 58) as i8 - 32
                })
                .collect();
            let words = to_device_order(&q, n, k);
            prop_assert_eq!(words.len() * 4, weight_bytes(n, k));
            prop_assert_eq!(from_device_order(&words, n, k), q);
        }
    }
}
