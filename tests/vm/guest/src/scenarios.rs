//! What happens in each virtual machine.

mod group;
mod node;
mod plug;
mod rough;
mod without;

use std::fs;
use std::path::Path;

use anyhow::bail;
use rebellions_vfio_manager::sysfs::Tree;

use crate::machine::load;

/// A driver that any device may be given to by its id: it stands in for the vendor's.
const NATIVE: &str = "uio_pci_generic";

/// Runs a scenario.
pub fn run(name: &str) -> anyhow::Result<()> {
    match name {
        "node" => node::run(),
        "one-group" => group::run(),
        "iommu-off" | "no-iommu" => without::an_iommu(),
        "hot-plug" => {
            plug::run();
            Ok(())
        }
        "rough" => rough::run(),
        "nothing" => without::a_device(),
        _ => bail!("no scenario {name}"),
    }
}

/// Addresses of all NPUs.
fn npus() -> Vec<String> {
    let tree = Tree { sys: "/sys".into(), dev: "/dev".into() };
    tree.npus().expect("sysfs").into_iter().map(|npu| npu.address.to_string()).collect()
}

fn attribute(address: &str, name: &str) -> String {
    let path = Path::new("/sys/bus/pci/devices").join(address).join(name);
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The driver that a device is bound to, and what its override says.
fn bound(address: &str) -> (String, String) {
    let link = fs::read_link(Path::new("/sys/bus/pci/devices").join(address).join("driver"));
    let driver = link.ok().and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    (driver.unwrap_or_else(|| "none".into()), attribute(address, "driver_override"))
}

fn pair(driver: &str, reservation: &str) -> (String, String) {
    (driver.into(), reservation.into())
}

/// A device that nobody has, and that nobody asked for.
fn free() -> (String, String) {
    pair("none", "(null)")
}

fn native() -> (String, String) {
    pair(NATIVE, "(null)")
}

fn ours() -> (String, String) {
    pair("vfio-pci", "vfio-pci")
}

/// Gives every device of these ids that is free to the driver that stands in for the vendor's.
fn give_to_native(ids: &[&str]) -> anyhow::Result<()> {
    load(&[NATIVE])?;
    for id in ids {
        fs::write(format!("/sys/bus/pci/drivers/{NATIVE}/new_id"), format!("1eff {id}"))?;
    }
    Ok(())
}

/// `ADDRESS Bound/Verified on vfio-pci` for each.
fn all_bound(addresses: &[String]) -> Vec<String> {
    addresses.iter().map(|address| format!("{address} Bound/Verified on vfio-pci")).collect()
}
