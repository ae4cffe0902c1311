//! Sizes, rates, shares and lengths of time, as people write them on a command line and in a configuration.

use std::str::FromStr;
use std::time::Duration;

/// Bytes, as `256MiB`, `64k` or `1000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size: write 256MiB, 64k or 1000000"))?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "kb" => 1000,
            "m" | "mib" => 1 << 20,
            "mb" => 1_000_000,
            "g" | "gib" => 1 << 30,
            "gb" => 1_000_000_000,
            "t" | "tib" => 1 << 40,
            "tb" => 1_000_000_000_000,
            _ => return Err(format!("`{unit}` is no unit: use k, M, G, T, KiB, MiB, GiB, TiB, kB, MB, GB or TB")),
        };
        let bytes = number * factor as f64;
        if bytes < 1.0 || bytes >= u64::MAX as f64 {
            return Err(format!("`{text}` is out of range"));
        }
        Ok(Self(bytes as u64))
    }
}

/// The length of a block.
pub(crate) fn block_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    match size.0.is_power_of_two() && (1 << 20..=64 << 20).contains(&size.0) {
        true => Ok(size),
        false => Err(format!("`{text}` is no length of a block: write a power of two from 1MiB to 64MiB")),
    }
}

/// A share as `10%` or `10`.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 100.0 => Ok(share),
        _ => Err(format!("`{text}` is no share: write 10%")),
    }
}

/// A length of time, as `90s`, `30m`, `26h`, `60d` or `2w`; a day has 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds: Option<u64> = match unit.trim() {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    };
    let seconds = seconds.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| unit.checked_mul(number));
    match seconds {
        // Longer than any record lives, and what a calendar can still add.
        Some(seconds) if (1..=1000 * 366 * 86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is no length of time: write 90s, 30m, 26h, 60d or 2w")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("256MiB".parse(), Ok(Size(256 << 20)));
        assert_eq!("64k".parse(), Ok(Size(64 << 10)));
        assert_eq!("1.5G".parse(), Ok(Size(3 << 29)));
        assert_eq!("10MB".parse(), Ok(Size(10_000_000)));
        for bad in ["", "k", "-1", "1x", "0", "1e3", "99999999999999T"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("26h"), Ok(Duration::from_secs(26 * 3600)));
        assert_eq!(duration("60d"), Ok(Duration::from_secs(60 * 86_400)));
        for bad in ["", "h", "0d", "1", "-1h", "1y", "1.5h", "99999999999999999999d", "9999999999w"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
