//! What the machine can do at best: read, copy, multiply integers.

use std::cell::Cell;
use std::thread;

/// Memory larger than the caches, read a part at a time.
pub struct Memory {
    bytes: Vec<u8>,
    next: Cell<usize>,
}

/// Parts that are read in turn.
const PARTS: usize = 8;

impl Memory {
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![1; bytes], next: Cell::new(0) }
    }

    /// Bytes of a part.
    pub fn part(&self) -> usize {
        self.bytes.len() / PARTS
    }

    fn next(&self) -> &[u8] {
        self.next.set((self.next.get() + 1) % PARTS);
        &self.bytes[self.next.get() * self.part()..][..self.part()]
    }

    /// Copies the next part.
    pub fn copy(&self, threads: usize, target: &mut [u8]) {
        let source = self.next();
        let piece = source.len().div_ceil(threads);
        thread::scope(|scope| {
            for (source, target) in source.chunks(piece).zip(target.chunks_mut(piece)) {
                scope.spawn(move || target.copy_from_slice(source));
            }
        });
    }

    /// The sum of the next part's words.
    pub fn sum(&self, threads: usize) -> u64 {
        let source = self.next();
        let piece = source.len().div_ceil(threads);
        thread::scope(|scope| {
            let parts: Vec<_> = source.chunks(piece).map(|piece| scope.spawn(move || sum(piece))).collect();
            parts.into_iter().map(|part| part.join().unwrap()).fold(0, u64::wrapping_add)
        })
    }
}

/// In as many chains as the compiler likes to vectorize.
fn sum(source: &[u8]) -> u64 {
    let mut lanes = [0u64; 32];
    for chunk in source.as_chunks::<256>().0 {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// Multiplies integers in registers for some milliseconds; the operations, or `None`
/// without the instructions.
#[cfg(target_arch = "x86_64")]
pub fn dot_products(threads: usize) -> Option<f64> {
    use std::arch::x86_64::*;

    const CHAINS: usize = 16;
    const STEPS: usize = 1 << 20;

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn multiply() -> i32 {
        let (w, x) = (_mm512_set1_epi8(3), _mm512_set1_epi8(-2));
        let mut chains = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..STEPS {
            for chain in &mut chains {
                *chain = _mm512_dpbusd_epi32(*chain, w, x);
            }
            // SAFETY: no instruction; the compiler may not see through the loop.
            unsafe { std::arch::asm!("", options(nomem, nostack, preserves_flags)) };
        }
        let mut sum = 0i32;
        for chain in chains {
            sum = sum.wrapping_add(_mm512_reduce_add_epi32(chain));
        }
        sum
    }

    if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")) {
        return None;
    }
    thread::scope(|scope| {
        for _ in 0..threads {
            // SAFETY: the instructions were just detected.
            scope.spawn(|| std::hint::black_box(unsafe { multiply() }));
        }
    });
    Some((threads * CHAINS * STEPS * 128) as f64)
}

#[cfg(not(target_arch = "x86_64"))]
pub fn dot_products(_threads: usize) -> Option<f64> {
    None
}
