//! Memory that kernels reuse.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the largest vectors.
const LINE: usize = 64;

/// Elements that begin at a cache line and keep their memory when they become fewer.
#[derive(Debug, Default)]
pub(crate) struct Buffer<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Buffer<T> {
    /// Makes it `len` elements, whose values do not matter to the caller.
    pub fn resize(&mut self, len: usize) {
        let spare = LINE / size_of::<T>();
        if self.memory.len() < len + spare {
            self.memory.resize(len + spare, T::default());
        }
        self.start = self.memory.as_ptr().align_offset(LINE).min(spare);
        self.len = len;
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..][..self.len]
    }
}
