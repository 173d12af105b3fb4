//! An emulated NPU: a PCI function that the machine emulator asks over a socket. It has no more than what a kernel wants to
//! see of a device: identity, a memory region, power management and a reset.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

const CONFIG_BYTES: usize = 256;
const MEMORY_BYTES: usize = 0x4000;
const MEMORY: u32 = 0;

/// Vendor and class of an NPU.
const VENDOR: u16 = 0x1eff;
const CLASS: u32 = 0x12_0000;

struct Npu {
    config: [u8; CONFIG_BYTES],
    /// Bits that may be written.
    mask: [u8; CONFIG_BYTES],
    memory: Vec<u8>,
}

impl Npu {
    /// Source of the registers: PCI Local Bus Specification 3.0, chapter 6, and PCI Express Base Specification, 7.5.
    fn new(device: u16) -> Self {
        let (mut config, mut mask) = ([0; CONFIG_BYTES], [0; CONFIG_BYTES]);
        config[0x00..0x02].copy_from_slice(&VENDOR.to_le_bytes());
        config[0x02..0x04].copy_from_slice(&device.to_le_bytes());
        config[0x06] = 0x10; // There are capabilities.
        config[0x08] = 0x01; // Revision.
        config[0x09..0x0c].copy_from_slice(&CLASS.to_le_bytes()[..3]);
        config[0x2c..0x2e].copy_from_slice(&VENDOR.to_le_bytes());
        config[0x2e] = 0x01;
        config[0x34] = 0x40; // The first capability:
        config[0x40..0x44].copy_from_slice(&[0x10, 0x80, 0x02, 0x00]); // a PCI Express endpoint
        config[0x47] = 0x10; // that can be reset,
        config[0x80..0x83].copy_from_slice(&[0x01, 0x00, 0x03]); // and power management.
        config[0x84] = 0x08;
        mask[0x04..0x06].copy_from_slice(&[0x47, 0x05]); // Command.
        mask[0x0c] = 0xff; // Cache line size.
        mask[0x11..0x14].copy_from_slice(&[0xc0, 0xff, 0xff]); // 16 KiB of memory.
        mask[0x3c] = 0xff; // Interrupt line.
        mask[0x84] = 0x03; // Power state.
        Self { config, mask, memory: vec![0; MEMORY_BYTES] }
    }

    fn region(&mut self, region: u32) -> &mut [u8] {
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => &mut self.config,
            MEMORY => &mut self.memory,
            _ => &mut [],
        }
    }
}

impl ServerBackend for Npu {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = self.region(region).get(from.saturating_add(at)).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, new) in data.iter().enumerate().map(|(at, byte)| (from.saturating_add(at), byte)) {
            let mask =
                if region == VFIO_PCI_CONFIG_REGION_INDEX { self.mask.get(at).copied().unwrap_or(0) } else { 0xff };
            if let Some(byte) = self.region(region).get_mut(at) {
                *byte = *byte & !mask | new & mask;
            }
        }
        Ok(())
    }

    fn dma_map(&mut self, _: DmaMapFlags, _: u64, _: u64, _: u64, _: Option<File>) -> io::Result<()> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}

/// Serves an NPU with this device id, for as long as we live. Returns its socket.
pub fn serve(folder: &Path, name: &str, device: u16) -> anyhow::Result<PathBuf> {
    let socket = folder.join(format!("{name}.socket"));
    let (mut server, path) = (Some(listen(&socket)?), socket.clone());
    std::thread::spawn(move || {
        while let Some(one) = server.take() {
            // Ends when the emulator lets go of the device; it may come back, as after a hot-unplug.
            let _ = one.run(&mut Npu::new(device));
            // Takes its socket along, so the next one comes after.
            drop(one);
            server = listen(&path).ok();
        }
    });
    Ok(socket)
}

fn listen(socket: &Path) -> anyhow::Result<Server> {
    let _ = std::fs::remove_file(socket);
    let regions = (0..VFIO_PCI_NUM_REGIONS).map(|index| {
        let size = match index {
            VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_BYTES,
            MEMORY => MEMORY_BYTES,
            _ => 0,
        };
        let flags = if size > 0 { VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
        let region_info = vfio_region_info {
            argsz: u32::try_from(size_of::<vfio_region_info>()).unwrap_or(0),
            flags,
            index,
            size: size as u64,
            ..vfio_region_info::default()
        };
        ServerRegion { region_info, sparse_areas: vec![], mmap_fd: None }
    });
    let irqs = (0..VFIO_PCI_NUM_IRQS).map(|index| IrqInfo { index, flags: VFIO_IRQ_INFO_EVENTFD, count: 0 });
    Server::new(socket, true, irqs.collect(), regions.collect()).map_err(|error| anyhow::anyhow!("{error:?}"))
}
