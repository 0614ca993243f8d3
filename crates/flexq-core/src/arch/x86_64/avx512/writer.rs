//! Packed codes to where they go.

use std::arch::x86_64::*;

use crate::arch::Out;

/// Bytes that come at a time: 64 codes.
const PIECE: usize = 48;
const LINE: usize = 64;
/// Lines are put together from pieces in units of sixteen bytes.
const UNIT: usize = 16;

/// Writes pieces one after the other. Past the caches, where the address allows it, whole lines
/// are written: a line in parts would take a buffer that reads wait for.
pub(super) struct Writer<'a> {
    /// What is not yet written.
    target: &'a mut [u8],
    stream: bool,
    /// What is not yet written of the current line, in its place.
    line: __m512i,
    /// Units of it that are there, those before the target included.
    filled: usize,
    /// Units of the first line that lie before the target.
    before: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn new(target: &'a mut [u8], out: Out) -> Self {
        let past = target.as_ptr().addr() % LINE;
        let stream = out == Out::Streamed && past.is_multiple_of(UNIT);
        let before = if stream { past / UNIT } else { 0 };
        Self { target, stream, line: _mm512_setzero_si512(), filled: before, before }
    }

    /// The lower 48 bytes of a vector.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn push(&mut self, piece: __m512i) {
        if !self.stream {
            return self.store(piece, PIECE);
        }
        let filled = self.filled;
        let line = _mm512_permutex2var_epi64(self.line, places(&JOINED[filled]), piece);
        self.line = _mm512_permutexvar_epi64(places(&REST[filled]), piece);
        if filled == 0 {
            self.filled = 3;
            return;
        }
        self.filled = filled - 1;
        if self.before > 0 {
            return self.first_line(line);
        }
        let (whole, rest) = std::mem::take(&mut self.target).split_at_mut(LINE);
        self.target = rest;
        // SAFETY: a line, which begins where the one before it ends.
        unsafe { _mm512_stream_si512(whole.as_mut_ptr().cast(), line) }
    }

    /// The part of the first line that lies in the target.
    #[cold]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn first_line(&mut self, line: __m512i) {
        let before = std::mem::take(&mut self.before);
        self.store(from_unit(line, before), LINE - UNIT * before);
    }

    /// The lower `count` bytes of a vector, into the caches.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn store(&mut self, bytes: __m512i, count: usize) {
        let (piece, rest) = std::mem::take(&mut self.target).split_at_mut(count);
        self.target = rest;
        // SAFETY: the mask has as many bits as the slice has bytes, at most 64.
        unsafe { _mm512_mask_storeu_epi8(piece.as_mut_ptr().cast(), !0 >> (LINE - count), bytes) }
    }

    /// A last, shorter piece: as many bytes as there is room for.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn finish(mut self, piece: __m512i) {
        let (before, filled) = (self.before, self.filled);
        if filled > before {
            self.store(from_unit(self.line, before), UNIT * (filled - before));
        }
        let count = self.target.len();
        if count > 0 {
            self.store(piece, count);
        }
    }
}

/// Units of the line so far, then of the piece (from 4 on), by the number that are there.
const JOINED: [[i64; 8]; 4] = halves([[4, 5, 6, 7], [0, 4, 5, 6], [0, 1, 4, 5], [0, 1, 2, 4]]);
/// Units of the piece that remain.
const REST: [[i64; 8]; 4] = halves([[0, 1, 2, 3], [3, 3, 3, 3], [2, 3, 3, 3], [1, 2, 3, 3]]);

/// Places of units as places of their halves.
const fn halves(units: [[i64; 4]; 4]) -> [[i64; 8]; 4] {
    let mut halves = [[0; 8]; 4];
    let mut i = 0;
    while i < 32 {
        halves[i / 8][i % 8] = 2 * units[i / 8][i % 8 / 2] + i as i64 % 2;
        i += 1;
    }
    halves
}

#[inline]
#[target_feature(enable = "avx512f")]
fn places(halves: &[i64; 8]) -> __m512i {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) }
}

/// The units of a line from `first` on.
#[target_feature(enable = "avx512f")]
fn from_unit(line: __m512i, first: usize) -> __m512i {
    let first = 2 * first as i64;
    let counted = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    _mm512_permutexvar_epi64(_mm512_add_epi64(counted, _mm512_set1_epi64(first)), line)
}

#[cfg(test)]
mod tests {
    use super::super::is_available;
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw")]
    fn write(bytes: &[u8], target: &mut [u8], out: Out) {
        let mut writer = Writer::new(target, out);
        let (pieces, tail) = bytes.as_chunks::<PIECE>();
        let load = |piece: &[u8]| {
            let mut line = [0xff; LINE];
            line[..piece.len()].copy_from_slice(piece);
            // SAFETY: the array has 64 bytes.
            unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
        };
        for piece in pieces {
            writer.push(load(piece));
        }
        writer.finish(load(tail));
        out.finish();
    }

    #[test]
    fn pieces_follow_each_other_from_any_address_on() {
        if !is_available() {
            return;
        }
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(500).collect();
        for start in 0..LINE {
            for len in 0..bytes.len() {
                for out in [Out::Streamed, Out::Cached] {
                    let mut target = vec![0xaa; start + len + LINE];
                    // SAFETY: the instructions were just detected.
                    unsafe { write(&bytes[..len], &mut target[start..start + len], out) };
                    assert!(target[start..start + len] == bytes[..len], "{len} bytes at {start}");
                    let around = target[..start].iter().chain(&target[start + len..]);
                    assert!(around.copied().all(|byte| byte == 0xaa), "{len} bytes at {start}");
                }
            }
        }
    }
}
