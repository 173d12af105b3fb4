//! Resource quantities as Kubernetes writes them: `250m`, `1.5Gi`, `2e3`, or a bare number.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::api::resource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// An amount of a resource. Kept as it was written; the cluster decides what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl Quantity {
    /// The amount in thousandths of the unit, the finest step that Kubernetes keeps of a container's resources, rounded up
    /// and cut at the largest amount, as Kubernetes does. `None` when the text is no quantity.
    #[must_use]
    pub fn millis(&self) -> Option<i128> {
        let text = self.0.strip_prefix('+').unwrap_or(&self.0);
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (base, exponent) = scale(suffix)?;
        let amount = if base == 10 { decimal(whole, fraction, exponent) } else { binary(whole, fraction, exponent) };
        Some(amount.map_or(MOST, |amount| amount.min(MOST)))
    }
}

/// The largest amount that Kubernetes keeps, in thousandths.
const MOST: i128 = i64::MAX as i128 * 1000;

/// Thousandths of a number times a power of ten, rounded up; `None` when it is beyond any.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> Option<i128> {
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    // How many of the digits are in front of the point, and three more for thousandths.
    let zeros = i32::try_from(all.len() - digits.len()).ok()?;
    let kept = i32::try_from(whole.len()).ok()? - zeros + exponent + 3;
    if digits.is_empty() {
        return Some(0);
    }
    // Everything is behind the last digit that counts, or there are more than an amount can have.
    let Ok(kept) = usize::try_from(kept) else { return Some(1) };
    if kept > 30 {
        return None;
    }
    let (front, rest) = digits.split_at(kept.min(digits.len()));
    let padded: i128 = format!("0{front}{}", "0".repeat(kept - front.len())).parse().ok()?;
    Some(padded + i128::from(rest.bytes().any(|digit| digit != b'0')))
}

/// Thousandths of a number times a power of two, rounded up; `None` when it is beyond any.
fn binary(whole: &str, fraction: &str, exponent: i32) -> Option<i128> {
    let factor = 1000 * 2_i128.checked_pow(u32::try_from(exponent).ok()?)?;
    let whole: i128 = format!("0{whole}").parse().ok()?;
    // Fifteen digits behind the point are finer than a byte of the largest unit that an amount can have.
    let fraction = &fraction[..fraction.len().min(15)];
    let divisor = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let part = format!("0{fraction}").parse::<i128>().ok()?.checked_mul(factor)?;
    whole.checked_mul(factor)?.checked_add(part / divisor + i128::from(part % divisor != 0))
}

/// Base and exponent that a quantity's suffix stands for.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "" => (10, 0),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        exponent => (10, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

impl From<&Quantity> for resource::Quantity {
    fn from(quantity: &Quantity) -> Self {
        Self(quantity.0.clone())
    }
}

/// A number is a quantity too: `cpu: 2`.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Number(number) => number.to_string(),
            Either::Text(text) => text,
        }))
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The longest sensible quantity is far below 64 characters; the bound keeps CEL rules over it cheap.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": 64,
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE](\+|-)?[0-9]{1,2})?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<i128> {
        Quantity(text.into()).millis()
    }

    #[test]
    fn one_amount_written_in_many_ways_is_one_amount() {
        for (left, right) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1k", "1e3"),
            ("1Ki", "1024"),
            ("1.5Gi", "1536Mi"),
            ("2E3", "2000"),
            ("3E", "3e18"),
            ("+7", "7"),
            ("1u", "1m"),
            ("1e-2", "10m"),
            ("0.0010", "1m"),
            ("9Ei", "9223372036854775807"),
            ("1E99", "1e99"),
            ("99999999999999999999999999999999999999999999", "8Ei"),
        ] {
            assert_eq!(millis(left), millis(right), "{left} and {right}");
            assert!(millis(left).is_some(), "{left}");
        }
        assert_ne!(millis("1"), millis("1001m"));
    }

    #[test]
    fn what_is_finer_than_a_thousandth_is_rounded_up() {
        for text in ["0.0000000001", "1n", "1e-99", "0.0001", "0.00000000000000000000000000000000000000000000000001"] {
            assert_eq!(millis(text), Some(1), "{text}");
        }
        assert_eq!(millis("1.0001"), Some(1001));
        assert_eq!(millis("0.0000000001Ki"), Some(1));
        for nothing in ["0", "0.0", "0e9", "0Ei"] {
            assert_eq!(millis(nothing), Some(0), "{nothing}");
        }
    }

    /// What the schema's pattern takes.
    #[test]
    fn every_quantity_has_an_amount() {
        let numbers = [
            "0",
            "7",
            "007",
            "1.",
            ".5",
            "0.0000000001",
            "9223372036854775808",
            &"9".repeat(40),
            &format!(".{}", "1".repeat(40)),
        ]
        .map(str::to_owned);
        let units =
            ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].map(str::to_owned);
        let exponents = ["e", "E"].iter().flat_map(|e| {
            ["", "+", "-"]
                .iter()
                .flat_map(move |sign| ["0", "9", "18", "99"].iter().map(move |it| format!("{e}{sign}{it}")))
        });
        for suffix in units.into_iter().chain(exponents) {
            for number in &numbers {
                let amount = millis(&format!("{number}{suffix}"));
                assert!(amount.is_some_and(|amount| (0..=MOST).contains(&amount)), "{number}{suffix}: {amount:?}");
            }
        }
    }

    #[test]
    fn what_is_no_quantity_has_no_amount() {
        for text in ["", "m", "1x", "1 Gi", "one", "-1", "1e", ".", "1.2.3"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_quantities() {
        let read = |json| serde_json::from_str::<Quantity>(json).map(|quantity| quantity.0).ok();
        assert_eq!(read("2").as_deref(), Some("2"));
        assert_eq!(read("\"250m\"").as_deref(), Some("250m"));
        assert_eq!(read("true"), None);
    }
}
