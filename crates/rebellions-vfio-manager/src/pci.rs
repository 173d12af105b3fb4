//! PCI: addresses, and what an NPU looks like.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// PCI vendor id of Rebellions. Source: the pci.ids database.
pub const VENDOR: u16 = 0x1eff;

/// PCI base class of processing accelerators; an NPU's class is `12xx00`. Source: PCI Code and ID Assignment
/// Specification, base class 12h.
pub const BASE_CLASS: u8 = 0x12;

/// PCI base class and subclass of PCI-to-PCI bridges, root ports included. Source: as above, base class 06h.
pub const BRIDGE_CLASS: u16 = 0x0604;

/// Products by device id, physical and virtual functions. Source: pci.ids and the vendor's driver, plugin and exporter,
/// none of which knows them all. An id that is not here is an NPU all the same.
const PRODUCTS: [(u16, &str); 14] = [
    (0x1020, "RBLN-CA02"),
    (0x1021, "RBLN-CA02"),
    (0x1120, "RBLN-CA12"),
    (0x1121, "RBLN-CA12"),
    (0x1150, "RBLN-CA15"),
    (0x1151, "RBLN-CA15"),
    (0x1220, "RBLN-CA22"),
    (0x1221, "RBLN-CA22"),
    (0x1250, "RBLN-CA25"),
    (0x1251, "RBLN-CA25"),
    (0x2030, "RBLN-CR03"),
    (0x2031, "RBLN-CR03"),
    (0x2130, "RBLN-CR13"),
    (0x2131, "RBLN-CR13"),
];

/// What a device whose id is not known is called.
pub const UNKNOWN_PRODUCT: &str = "unknown";

/// The product of a device id.
#[must_use]
pub fn product(device: u16) -> &'static str {
    PRODUCTS.iter().find(|(id, _)| *id == device).map_or(UNKNOWN_PRODUCT, |(_, name)| name)
}

/// Every device id that is known, and its product.
pub fn devices() -> impl Iterator<Item = (u16, &'static str)> {
    PRODUCTS.into_iter()
}

/// Whether a device id is that of a virtual function. Source: pci.ids, where the vendor's cards are even and their functions one more.
#[must_use]
pub const fn is_virtual_function(device: u16) -> bool {
    device % 2 == 1
}

/// Every product that is known, and the name for those that are not.
pub fn products() -> impl Iterator<Item = &'static str> {
    PRODUCTS.iter().map(|(_, name)| *name).chain([UNKNOWN_PRODUCT])
}

/// Where a PCI function is: `0000:03:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

/// Not the address of a PCI function.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no PCI address such as 0000:03:00.0")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    /// With or without the domain, which is 0 when it is left out, as `lspci` does.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
            let hex = |text: &str, limit: u32| {
                let is_hex = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                u32::from_str_radix(text, 16).ok().filter(|number| is_hex && *number <= limit)
            };
            let byte = |text: &str, limit: u32| u8::try_from(hex(text, limit)?).ok();
            Some(Self {
                domain: hex(domain, u32::MAX)?,
                bus: byte(bus, 0xff)?,
                device: byte(device, 0x1f)?,
                function: byte(function, 7)?,
            })
        };
        parse().ok_or_else(|| ParseAddressError(text.into()))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_the_kernel_does() {
        for (text, written) in
            [("0000:03:00.0", "0000:03:00.0"), ("03:1F.7", "0000:03:1f.7"), ("10000:e1:00.1", "10000:e1:00.1")]
        {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(written.to_owned()));
        }
        for text in ["", "03", "03:00", "0000:03:20.0", "0000:03:00.8", "0000:0300:00.0", "x:03:00.0", "0000:+3:00.0"] {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError(text.into())));
        }
    }

    #[test]
    fn even_ids_are_physical_and_odd_ones_virtual_functions_of_the_same_product() {
        for (id, name) in PRODUCTS {
            assert_eq!(product(id ^ 1), name, "{id:04x}");
        }
        assert_eq!(product(0x9999), UNKNOWN_PRODUCT);
    }
}
