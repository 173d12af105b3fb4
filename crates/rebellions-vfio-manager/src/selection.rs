//! Which NPUs are for virtual machines: all of them, but for what an admin includes or excludes.

use std::str::FromStr;

use crate::pci::{Address, UNKNOWN_PRODUCT, product, products};

/// One way to name NPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One function: `0000:03:00.0`.
    Address(Address),
    /// All of a device id: `1250`, or `1eff:1250`.
    DeviceId(u16),
    /// All of a product: `RBLN-CA25`, or `unknown` for those whose id is not known.
    Product(&'static str),
}

/// A selector that names nothing that could exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is neither a PCI address (0000:03:00.0), nor a device id (1250), nor a product ({known})",
    known = products_once().join(", ")
)]
pub struct ParseSelectorError(String);

fn products_once() -> Vec<&'static str> {
    let mut names: Vec<_> = products().collect();
    names.dedup();
    names
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, ParseSelectorError> {
        let text = text.trim();
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        // First, because `CA25` is a number as well, and nobody means that.
        let names =
            |name: &str| name.eq_ignore_ascii_case(text) || name.trim_start_matches("RBLN-").eq_ignore_ascii_case(text);
        if let Some(product) = products().find(|name| names(name)) {
            return Ok(Self::Product(product));
        }
        // As `lspci` and as sysfs write it.
        let prefixes = ["1eff:", "1EFF:", "0x"];
        let id = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let is_id = id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u16::from_str_radix(id, 16).ok().filter(|_| is_id);
        id.map(Self::DeviceId).ok_or_else(|| ParseSelectorError(text.into()))
    }
}

impl Selector {
    fn is_about(&self, address: Address, device: u16, product: &str) -> bool {
        match self {
            Self::Address(one) => *one == address,
            Self::DeviceId(id) => *id == device,
            Self::Product(name) => *name == product,
        }
    }
}

/// What becomes of an NPU whose device id this version does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenUnknown {
    /// It stays as it is and is told, unless it is included by name.
    #[default]
    Leave,
    /// It is an NPU like any other.
    Bind,
}

/// What is included and excluded. Excluding wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Empty: all.
    pub include: Vec<Selector>,
    /// Empty: none.
    pub exclude: Vec<Selector>,
    /// What becomes of devices that nobody knows.
    pub when_unknown: WhenUnknown,
}

/// Whether an NPU is for virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is.
    Selected,
    /// The admin says that it is not.
    Excluded,
    /// Nobody knows what it is, and nobody asked for it by name.
    Unknown,
}

impl Selection {
    /// Whether an NPU is for virtual machines.
    #[must_use]
    pub fn choose(&self, address: Address, device: u16) -> Choice {
        let product = product(device);
        let names = |list: &[Selector]| list.iter().any(|one| one.is_about(address, device, product));
        if names(&self.exclude) || !(self.include.is_empty() || names(&self.include)) {
            Choice::Excluded
        } else if product == UNKNOWN_PRODUCT && self.include.is_empty() && self.when_unknown == WhenUnknown::Leave {
            Choice::Unknown
        } else {
            Choice::Selected
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NPUS: [(&str, u16); 4] =
        [("0000:03:00.0", 0x1250), ("0000:04:00.0", 0x1250), ("0000:05:00.0", 0x2130), ("0000:06:00.0", 0x9998)];

    fn selects(include: &[&str], exclude: &[&str]) -> Vec<&'static str> {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a selector")).collect();
        let selection = Selection { include: list(include), exclude: list(exclude), ..Selection::default() };
        let choose = |address: &str, device| selection.choose(address.parse().expect("an address"), device);
        let chosen = NPUS.into_iter().filter(|(address, device)| choose(address, *device) == Choice::Selected);
        chosen.map(|(address, _)| address).collect()
    }

    #[test]
    fn all_that_are_known_are_selected_but_for_what_is_named() {
        assert_eq!(selects(&[], &[]), ["0000:03:00.0", "0000:04:00.0", "0000:05:00.0"]);
        assert_eq!(selects(&["03:00.0"], &[]), ["0000:03:00.0"]);
        assert_eq!(selects(&["1eff:1250"], &["0000:04:00.0"]), ["0000:03:00.0"]);
        assert_eq!(selects(&["rbln-cr13", "0x1250"], &["CA25"]), ["0000:05:00.0"]);
    }

    #[test]
    fn what_nobody_knows_is_left_alone_unless_it_is_asked_for() {
        let (address, device) = ("0000:06:00.0".parse().expect("an address"), 0x9998);
        let choose = |selection: &Selection| selection.choose(address, device);
        assert_eq!(choose(&Selection::default()), Choice::Unknown);
        assert_eq!(choose(&Selection { when_unknown: WhenUnknown::Bind, ..Selection::default() }), Choice::Selected);
        for (include, expected) in [("unknown", 1), ("9998", 1), ("0000:06:00.0", 1), ("1250", 2)] {
            assert_eq!(selects(&[include], &[]).len(), expected, "{include}");
        }
        let exclude = vec!["unknown".parse().expect("a selector")];
        assert_eq!(
            choose(&Selection { exclude, when_unknown: WhenUnknown::Bind, ..Selection::default() }),
            Choice::Excluded
        );
    }

    #[test]
    fn what_names_nothing_is_refused_in_words_that_help() {
        for text in ["", "CAX5", "0x125", "1234:1250", "0000:03:00"] {
            let error = text.parse::<Selector>().expect_err(text).to_string();
            assert!(error.contains("RBLN-CA25, RBLN-CR03"), "{error}");
        }
    }
}
