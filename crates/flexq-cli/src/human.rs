//! Numbers as people read them.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units: `6.15 GB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.2} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A time: `12.3 s`, `4 min 05 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{} min {:02} s", seconds as u64 / 60, seconds as u64 % 60)
    }
}

/// Bits per weight without needless digits: `6.125`, `16`.
pub fn bits(bits: f64) -> String {
    let text = format!("{bits:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A part of a whole: `38.3 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

/// `1 tensor`, `2 tensors`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{bits, bytes, duration, grouped, percent};
    use std::time::Duration;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 6_148_497_408].map(grouped), ["0", "999", "1,000", "6,148,497,408"]);
        assert_eq!([12, 1_500, 6_148_497_408].map(bytes), ["12 B", "1.50 kB", "6.15 GB"]);
        assert_eq!([6.125, 16.0, 8.0 / 3.0].map(bits), ["6.125", "16", "2.667"]);
        assert_eq!(duration(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(duration(Duration::from_secs(245)), "4 min 05 s");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(1, 0), "-");
    }
}
