//! Every set of kernels this processor has against the scalar one: byte for byte where
//! the numerics are exact.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod data;
mod products;
mod weights;
