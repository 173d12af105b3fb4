//! A virtual machine, as far as a device can tell: opens it through VFIO and keeps it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use vfio_ioctls::{VfioContainer, VfioDevice};

/// The region with the configuration space. Source: Linux, `VFIO_PCI_CONFIG_REGION_INDEX`.
const CONFIG: u32 = 7;

/// Opens a device, reads its vendor, says so, and keeps it until killed.
pub fn hold(address: &str) -> anyhow::Result<()> {
    let folder = Path::new("/sys/bus/pci/devices").join(address);
    let container = Arc::new(VfioContainer::new(None)?);
    let device = VfioDevice::new(&folder, container, false)?;
    let mut vendor = [0; 2];
    device.region_read(CONFIG, &mut vendor, 0);
    ensure!(vendor == [0xff, 0x1e], "the device says that its vendor is {vendor:02x?}");
    println!("held");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
