//! The choices a caller makes, as types.

/// Storage of activations, bias and output; the numbers are those of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE half precision.
    F16 = 0,
    /// bfloat16.
    BF16 = 1,
    /// IEEE single precision.
    F32 = 2,
}

impl Dtype {
    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Storage of weight scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// IEEE half precision.
    F16 = 0,
    /// bfloat16.
    BF16 = 1,
}

/// Precision of activations in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationBits {
    /// As they come.
    A16,
    /// Quantized to -127..127.
    A8,
    /// Quantized to -31..31.
    A6,
}

impl ActivationBits {
    /// The largest code, or `None` where activations are not quantized.
    #[must_use]
    pub fn limit(self) -> Option<f32> {
        match self {
            Self::A16 => None,
            Self::A8 => Some(127.0),
            Self::A6 => Some(31.0),
        }
    }
}

/// Columns of a weight that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// 32, 64, 128 or 256 columns.
    Columns(usize),
    /// All columns of a row.
    Row,
}

impl Group {
    /// Columns that share a scale in rows of `k` columns.
    #[must_use]
    pub fn width(self, k: usize) -> usize {
        match self {
            Self::Columns(columns) if columns < k => columns,
            _ => k.max(1),
        }
    }

    /// Scales of a row of `k` columns.
    #[must_use]
    pub fn count(self, k: usize) -> usize {
        k.div_ceil(self.width(k))
    }

    /// Columns per scale in device order: longer groups are repeated for every 128 columns.
    #[must_use]
    pub fn segment(self) -> usize {
        match self {
            Self::Columns(columns) => columns.min(128),
            Self::Row => 128,
        }
    }
}
