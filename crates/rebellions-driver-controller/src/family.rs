//! The family of a node's NPUs, by discovery's labels.

use std::collections::BTreeMap;

use accelerator_api::contract::{NPU_FAMILY_LABEL, PCI_VENDOR};

/// The families as the vendor's images are named after them.
const ATOM: &str = "atom";
const REBEL: &str = "rebel100";

/// The families that a node's labels name, each once, in order. Node Feature Discovery's labels tell one only where it was told to put
/// the device into them (`pci-1200_1eff_1250.present`).
#[must_use]
pub fn families(labels: &BTreeMap<String, String>) -> Vec<String> {
    let label = labels.get(NPU_FAMILY_LABEL).and_then(|value| of_label(value));
    let present = labels.iter().filter(|(_, value)| *value == "true");
    let devices = present.filter_map(|(key, _)| of_device(device(key)?)).map(str::to_owned);
    let mut families: Vec<_> = label.into_iter().chain(devices).collect();
    families.sort_unstable();
    families.dedup();
    families
}

/// The vendor's discovery writes `ATOM` and `REBEL`, its operator's rule `atom` and `rebel100`. A family to come is taken at its word.
fn of_label(value: &str) -> Option<String> {
    match value.to_ascii_lowercase() {
        family if family == "rebel" => Some(REBEL.into()),
        // The name becomes a part of the image's.
        family if !family.is_empty() && family.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Some(family),
        _ => None,
    }
}

/// The family of a PCI device id. A node may have devices that we do not know.
fn of_device(id: &str) -> Option<&'static str> {
    // Physical functions are even, their virtual functions one more.
    match id {
        "0010" | "0011" | "1020" | "1021" | "1120" | "1121" | "1150" | "1151" | "1220" | "1221" | "1250" | "1251" => {
            Some(ATOM)
        }
        "2030" | "2031" | "2130" | "2131" => Some(REBEL),
        _ => None,
    }
}

/// The device id in a label of Node Feature Discovery about a device of our vendor, if one is there. The fields before it are the class,
/// if at all, and the vendor.
fn device(key: &str) -> Option<&str> {
    let fields = key.strip_prefix("feature.node.kubernetes.io/pci-")?.strip_suffix(".present")?;
    let mut fields = fields.split('_').skip_while(|field| *field != PCI_VENDOR);
    fields.nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_families() {
        let pci = |device: &str| format!("feature.node.kubernetes.io/pci-{device}.present");
        let family = |value: &str| (NPU_FAMILY_LABEL.to_owned(), value.to_owned());
        let present = |device: &str| (pci(device), "true".to_owned());
        let table = [
            (vec![], vec![]),
            (vec![family("ATOM")], vec!["atom"]),
            (vec![family("atom")], vec!["atom"]),
            (vec![family("REBEL")], vec!["rebel100"]),
            (vec![family("rebel100")], vec!["rebel100"]),
            (vec![family("rebel200")], vec!["rebel200"]),
            (vec![family("")], vec![]),
            (vec![family("a/b")], vec![]),
            (vec![present("1200_1eff")], vec![]),
            (vec![present("1200_1eff_1250")], vec!["atom"]),
            (vec![present("1eff_2130")], vec!["rebel100"]),
            (vec![present("1200_1eff_1250_1eff_0001")], vec!["atom"]),
            (vec![present("1200_1eff_9999")], vec![]),
            (vec![present("1200_10de_1250")], vec![]),
            (vec![(pci("1200_1eff_1250"), "false".to_owned())], vec![]),
            (vec![present("1200_1eff_1221"), present("1200_1eff_1250"), family("ATOM")], vec!["atom"]),
            (vec![present("1200_1eff_1250"), present("1200_1eff_2030")], vec!["atom", "rebel100"]),
            (vec![present("1200_1eff_2030"), family("ATOM")], vec!["atom", "rebel100"]),
        ];
        for (labels, expected) in table {
            assert_eq!(families(&labels.iter().cloned().collect()), expected, "{labels:?}");
        }
    }
}
