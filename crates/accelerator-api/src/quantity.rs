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
    /// The amount in billionths of the unit, the finest step that Kubernetes keeps, rounded up as Kubernetes does.
    /// `None` when the text is no quantity, or its amount is beyond any that a node can have.
    #[must_use]
    pub fn nanos(&self) -> Option<i128> {
        let text = self.0.strip_prefix('+').unwrap_or(&self.0);
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (base, exponent) = scale(suffix)?;
        // mantissa × base^exponent × 10^(9 − digits of the fraction)
        let decimal = 9 - i32::try_from(fraction.len()).ok()?;
        let (decimal, binary) = if base == 10 { (decimal + exponent, 0) } else { (decimal, exponent) };
        let scaled = mantissa.checked_mul(2_i128.checked_pow(u32::try_from(binary).ok()?)?)?;
        if let Ok(up) = u32::try_from(decimal) {
            scaled.checked_mul(10_i128.checked_pow(up)?)
        } else {
            let down = 10_i128.checked_pow(decimal.unsigned_abs())?;
            Some(scaled / down + i128::from(scaled % down != 0))
        }
    }
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

    fn nanos(text: &str) -> Option<i128> {
        Quantity(text.into()).nanos()
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
            ("1u", "1000n"),
            ("1e-2", "10m"),
        ] {
            assert_eq!(nanos(left), nanos(right), "{left} and {right}");
            assert!(nanos(left).is_some(), "{left}");
        }
        assert_ne!(nanos("1"), nanos("1001m"));
    }

    #[test]
    fn what_is_finer_than_a_billionth_is_rounded_up() {
        assert_eq!(nanos("0.0000000001"), Some(1));
    }

    #[test]
    fn what_is_no_quantity_has_no_amount() {
        for text in ["", "m", "1x", "1 Gi", "one", "-1", "1e", "."] {
            assert_eq!(nanos(text), None, "{text}");
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
