//! The model card: a README that says how to load what lies beside it.

use std::fs;
use std::path::Path;

use super::output::write_file;
use super::summary::Summary;
use crate::error::{Error, Result};

/// The model card's file name.
const CARD: &str = "README.md";
/// Where our part of a card begins.
const MARK: &str = "<!-- flexq -->";

/// Adds `section` to the card in `directory`, in place of an earlier one, or begins a card.
pub(super) fn write(directory: &Path, section: &str) -> Result<()> {
    let path = directory.join(CARD);
    let original = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let original = original.split(MARK).next().unwrap_or_default().trim_end();
    let gap = if original.is_empty() { "" } else { "\n\n" };
    write_file(&path, format!("{original}{gap}{MARK}\n{section}").as_bytes())
}

/// What a packed checkpoint says of itself.
pub(super) fn section(summary: &Summary) -> String {
    let (quantized, total) = (summary.quantized(), summary.total());
    format!(
        "## 6-bit weights (flexq)

{} of {} tensors are quantized to symmetric 6-bit codes with {} per {}, \
{:.3} bits per weight, by the rule `{}`. The others are as they were. All files together take {} bytes \
(before: {} bytes of tensors).

Load it with transformers; the import registers the format:

```python
import flexq.transformers
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(\"path/to/this/directory\")
```

Check it with `flexq-pack verify`, look into it with `flexq-pack inspect`.
",
        quantized.tensors,
        total.tensors,
        match summary.scheme.scale_type {
            crate::ScaleType::Pair => "two scales in 16 bits".to_owned(),
            scale_type => format!("one {scale_type} scale"),
        },
        match summary.scheme.group {
            crate::Group::Columns(columns) => format!("group of {columns}"),
            crate::Group::Row => "row".to_owned(),
        },
        quantized.bits_per_weight(),
        summary.scheme.rule,
        summary.file_bytes(),
        total.bytes_before,
    )
}
