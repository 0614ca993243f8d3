//! Files made once, by an independent writer, are read and written the same for ever.

use std::path::Path;

use flexq_core::format::{File, KEY, Plan, Writer, packed_name, scale_name};
use flexq_core::verify::verify_file;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// Each file and its tensors in the order in which they were added.
const GOLDEN: [(&str, &[&str]); 2] = [
    ("smallest-v1.safetensors", &["w"]),
    (
        "every-kind-v1.safetensors",
        &[
            "norm.weight",
            "linear.weight",
            "row.weight",
            "experts.gate_up_proj",
            "steps",
            "zeros.weight",
            "empty.weight",
        ],
    ),
];

/// Writes the tensors of a file again.
fn rewrite(file: &File, names: &[&str], target: &Path) -> Result {
    let mut plan = Plan::new();
    for (key, value) in file.metadata() {
        if key != KEY {
            plan.set_metadata(key, value);
        }
    }
    let manifest = file.manifest().ok_or("no manifest")?;
    let mut parts = Vec::new();
    for &name in names {
        if let Some(description) = manifest.tensors().get(name) {
            let (codes, scales) = plan.add_quantized(name, description.clone())?;
            parts.push((codes, file.bytes(&packed_name(name))?));
            parts.push((scales, file.bytes(&scale_name(name))?));
        } else {
            let entry = file.entry(name).ok_or("no entry")?;
            parts.push((plan.add(name, entry.dtype(), entry.shape().to_vec())?, file.bytes(name)?));
        }
    }
    let writer = Writer::create(target, plan)?;
    for (id, bytes) in parts {
        writer.write(id, &bytes)?;
    }
    Ok(writer.finish()?)
}

#[test]
fn golden_files_are_intact_and_written_again_byte_for_byte() -> Result {
    let folder = tempfile::tempdir()?;
    for (name, tensors) in GOLDEN {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
        let report = verify_file(&path)?;
        assert!(report.is_intact() && report.quantized > 0, "{name}");
        let target = folder.path().join("again.safetensors");
        let file = File::open(&path)?;
        assert_eq!(file.names().len(), tensors.len(), "{name}");
        rewrite(&file, tensors, &target)?;
        assert_eq!(std::fs::read(&target)?, std::fs::read(&path)?, "{name}");
    }
    Ok(())
}
