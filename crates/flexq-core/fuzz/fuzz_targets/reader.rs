//! Any bytes: the reader refuses them or reads all of them.
#![no_main]

use flexq_core::{SharedBytes, format::File, verify::verify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = File::from_bytes(SharedBytes::from(bytes.to_vec()), "m.safetensors") else { return };
    assert_eq!(verify(&file, &|_| ()).is_ok(), file.manifest().is_some());
    for name in file.names() {
        let _ = (file.qtensor(name), file.float_rows(name));
    }
});
