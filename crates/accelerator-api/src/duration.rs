//! Spans of time as Kubernetes writes them: `5m`, `0s`, `1h30m`.

use std::borrow::Cow;

use k8s_openapi::jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time of whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub SignedDuration);

impl Duration {
    /// Reads `1h30m`; `None` when the text is no such span.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Everything else that is a span of time elsewhere, milliseconds for example, is none here.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"hms".contains(&byte)) && !text.contains("ms");
        text.parse().ok().filter(|_| is_plain).map(Self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration such as 5m or 1h30m")))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_secs();
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
        let parts = parts.into_iter().filter(|(number, _)| *number > 0);
        let text = parts.fold(String::new(), |text, (number, unit)| format!("{text}{number}{unit}"));
        serializer.serialize_str(if text.is_empty() { "0s" } else { &text })
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 20,
            "pattern": "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_the_schema_takes_is_read() {
        let seconds = |text| Duration::parse(text).map(|duration| duration.0.as_secs());
        assert_eq!(seconds("0s"), Some(0));
        assert_eq!(seconds("5m"), Some(300));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("1h0m7s"), Some(3607));
        assert_eq!(seconds("999999h999999m999999s"), Some(999_999 * 3661));
        for wrong in ["", "5", "m", "-5m", "5 m", "5 minutes", "1.5h", "30m1h", "PT5M", "500ms", "1d"] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn it_is_written_in_the_same_form() {
        for text in ["0s", "5m", "1h30m", "1h7s", "45s"] {
            let duration: Duration = serde_json::from_value(json!(text)).expect("a duration");
            assert_eq!(serde_json::to_value(duration).expect("text"), Value::from(text));
        }
        let error = serde_json::from_value::<Duration>(json!("soon")).expect_err("no duration");
        assert_eq!(error.to_string(), "\"soon\" is no duration such as 5m or 1h30m");
    }
}
