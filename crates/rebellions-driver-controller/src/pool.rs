//! Pools: the nodes that need the same image, and what their DaemonSet is called.

use accelerator_api::contract::DRIVER;
use accelerator_operand::digest;

use crate::image_tag::Variable;

/// The most characters of a label's value, which a DaemonSet's name becomes.
const LONGEST_NAME: usize = 63;

/// How many hexadecimal digits of a hash tell two pools apart. Kernels are named after dates, of 8, 12 or 14 digits.
const HASH: usize = 10;

/// What makes a pool: the values that the image asks of its nodes. A new version is a new image of the same pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKey {
    /// The family of the nodes' NPUs.
    pub family: Option<String>,
    /// Their operating system.
    pub os: Option<String>,
    /// Their kernel's release.
    pub kernel: Option<String>,
    /// Their architecture.
    pub arch: Option<String>,
}

impl PoolKey {
    /// The value of a variable; empty when the image does not ask for it.
    #[must_use]
    pub fn value(&self, variable: Variable) -> &str {
        let value = match variable {
            Variable::Family => &self.family,
            Variable::Os => &self.os,
            Variable::Kernel => &self.kernel,
            Variable::Arch => &self.arch,
        };
        value.as_deref().unwrap_or_default()
    }

    /// The pool's name: `ubuntu22.04-5.15.0-130-generic`. The same key has the same name for ever, and two keys with the same
    /// variables have two. Where the values are no legal name, or would read like another pool's, a hash of them is
    /// behind. `None` when the image asks nothing, so that one DaemonSet serves every node.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let values = Variable::ALL.map(|variable| self.value(variable));
        let values: Vec<_> = values.into_iter().filter(|value| !value.is_empty()).collect();
        if values.is_empty() {
            return None;
        }
        let longest = LONGEST_NAME - prefix().len();
        let plain = values.join("-");
        // With one dash at most outside of the kernel's release, the parts can be told from the whole.
        let is_distinct = ![&self.family, &self.os, &self.arch].into_iter().flatten().any(|value| value.contains('-'));
        if is_distinct && plain.len() <= longest && is_subdomain(&plain) && !ends_in_hash(&plain) {
            return Some(plain);
        }
        let hash = &digest(&[&self.family, &self.os, &self.kernel, &self.arch])[..HASH];
        let readable = legal(&plain, longest - HASH - 1);
        Some(if readable.is_empty() { hash.to_owned() } else { format!("{readable}-{hash}") })
    }
}

/// What the names of pools' DaemonSets begin with.
#[must_use]
pub fn prefix() -> String {
    format!("{}-", DRIVER.operand)
}

/// Name of a pool's DaemonSet.
#[must_use]
pub fn daemon_set_name(pool: Option<&str>) -> String {
    pool.map_or_else(|| DRIVER.operand.to_owned(), |pool| format!("{}{pool}", prefix()))
}

/// Whether a text is a DNS subdomain, as a DaemonSet's name has to be.
fn is_subdomain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.split('.').all(|label| {
        let bytes = label.as_bytes();
        bytes.first().copied().is_some_and(is_plain)
            && bytes.last().copied().is_some_and(is_plain)
            && bytes.iter().all(|byte| is_plain(*byte) || *byte == b'-')
    })
}

fn ends_in_hash(text: &str) -> bool {
    text.rsplit('-').next().is_some_and(|last| last.len() == HASH && last.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// As much of a text as makes a DNS subdomain, in at most so many characters.
fn legal(text: &str, longest: usize) -> String {
    let mut legal = String::new();
    for character in text.to_ascii_lowercase().chars() {
        let is_plain = character.is_ascii_alphanumeric();
        let is_after_separator = legal.is_empty() || legal.ends_with(['-', '.']);
        match character {
            _ if is_plain => legal.push(character),
            _ if is_after_separator => {}
            '.' | '_' => legal.push('.'),
            _ => legal.push('-'),
        }
        if legal.len() == longest {
            break;
        }
    }
    legal.trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key([family, os, kernel, arch]: [&str; 4]) -> PoolKey {
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PoolKey { family: value(family), os: value(os), kernel: value(kernel), arch: value(arch) }
    }

    fn name(values: [&str; 4]) -> String {
        key(values).name().expect("a name")
    }

    #[test]
    fn what_is_a_legal_name_stays_readable() {
        assert_eq!(key([""; 4]).name(), None);
        assert_eq!(name(["", "ubuntu22.04", "5.15.0-130-generic", ""]), "ubuntu22.04-5.15.0-130-generic");
        assert_eq!(name(["atom", "ubuntu24.04", "6.8.0-60-generic", ""]), "atom-ubuntu24.04-6.8.0-60-generic");
        assert_eq!(name(["", "", "6.8.0-60-generic", "arm64"]), "6.8.0-60-generic-arm64");
        assert_eq!(name(["", "debian12", "6.1.0-20260101", ""]), "debian12-6.1.0-20260101");
        assert_eq!(
            daemon_set_name(Some("ubuntu22.04-5.15.0-130-generic")),
            "rebellions-driver-ubuntu22.04-5.15.0-130-generic"
        );
        assert_eq!(daemon_set_name(None), "rebellions-driver");
    }

    /// They are in clusters and on nodes: another release has to make the same.
    #[test]
    fn what_is_none_is_hashed_and_stays_what_it_was() {
        let table = [
            (["", "rhel9.4", "5.14.0-427.13.1.el9_4.x86_64", ""], "rhel9.4-5.14.0-427.13.1.el9.4.x86-6d78c3c910"),
            (["", "opensuse-leap15.5", "5.14.21", ""], "opensuse-leap15.5-5.14.21-169622dfa8"),
            (["", "ubuntu22.04", "5.15.0-Custom", ""], "ubuntu22.04-5.15.0-custom-a4f2c969a2"),
            (["", "a", "0123456789", ""], "a-0123456789-4fd31ab473"),
            (
                ["rebel100", "ubuntu22.04", "6.8.0-1024-very-long-flavour-oem", "amd64"],
                "rebel100-ubuntu22.04-6.8.0-1024-ve-4af4163af0",
            ),
            (["", "", "___", ""], "fe50d82059"),
        ];
        for (values, expected) in table {
            assert_eq!(name(values), expected);
            assert!(daemon_set_name(Some(expected)).len() <= 63, "{expected}");
        }
    }

    fn value(dashes: bool) -> impl Strategy<Value = String> {
        let characters = if dashes { "[-._a-zA-Z0-9]{1,63}" } else { "[-._aA0]{1,4}" };
        characters.prop_map(|text| text)
    }

    proptest! {
        #[test]
        fn every_name_is_legal(values in prop::array::uniform4(value(true)), used in prop::array::uniform4(any::<bool>())) {
            let mut used_values = [""; 4];
            for (index, value) in values.iter().enumerate() {
                used_values[index] = if used[index] { value } else { "" };
            }
            let name = daemon_set_name(key(used_values).name().as_deref());
            prop_assert!(name.len() <= 63, "{name}");
            prop_assert!(is_subdomain(&name), "{name}");
        }

        #[test]
        fn two_keys_have_two_names(
            one in prop::array::uniform4(value(false)),
            other in prop::array::uniform4(value(false)),
            used in prop::array::uniform4(any::<bool>()),
        ) {
            let of = |values: &[String; 4]| {
                let mut chosen = [""; 4];
                for (index, value) in values.iter().enumerate() {
                    chosen[index] = if used[index] { value } else { "" };
                }
                key(chosen)
            };
            prop_assert_eq!(of(&one) == of(&other), of(&one).name() == of(&other).name());
        }
    }
}
