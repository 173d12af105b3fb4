//! What is to be explained.

use accelerator_api::contract::{COMPONENTS, Component};

/// What is to be explained.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A node, by name.
    Node(String),
    /// A component.
    Component(&'static Component),
    /// The AcceleratorConfig that counts, or one by name.
    Config(Option<String>),
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some(("node" | "nodes" | "no", name)) if !name.is_empty() => Ok(Self::Node(name.into())),
            Some(("component" | "components", name)) => {
                let short = name.trim_start_matches("rebellions-").trim_end_matches("-controller");
                let found = COMPONENTS.into_iter().find(|component| component.name == short);
                let names: Vec<_> = COMPONENTS.iter().map(|component| component.name).collect();
                found
                    .map(Self::Component)
                    .ok_or_else(|| format!("there is no component {name}; there are {}", names.join(", ")))
            }
            Some(("config" | "ac" | "acceleratorconfig", name)) if !name.is_empty() => {
                Ok(Self::Config(Some(name.into())))
            }
            None if matches!(text, "config" | "ac" | "acceleratorconfig") => Ok(Self::Config(None)),
            _ => Err("give node/NAME, component/NAME, config or config/NAME".into()),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Component(component) => write!(f, "component/{}", component.name),
            Self::Config(None) => f.write_str("config"),
            Self::Config(Some(name)) => write!(f, "config/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_understood_and_what_is_not_is_told() {
        let parse = |text: &str| text.parse::<Subject>().map(|subject| subject.to_string());
        for (text, meant) in [
            ("node/n-1", "node/n-1"),
            ("component/driver", "component/driver"),
            ("component/rebellions-device-plugin-controller", "component/device-plugin"),
            ("config", "config"),
            ("ac/default", "config/default"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(meant), "{text}");
        }
        assert!(parse("component/gpu").is_err_and(|why| why.contains("device-plugin")));
        for text in ["", "node/", "n-1", "pod/x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
