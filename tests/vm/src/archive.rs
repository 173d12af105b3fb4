//! An archive in the format that the kernel unpacks at its start: cpio, `newc`.

use std::collections::BTreeSet;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file, and the folders on the way to it.
    pub fn file(&mut self, name: &str, content: &[u8], mode: u32) {
        let parents: Vec<_> = name.match_indices('/').map(|(at, _)| name[..at].to_owned()).collect();
        for parent in parents {
            if self.folders.insert(parent.clone()) {
                self.entry(&parent, &[], 0o040_755);
            }
        }
        self.entry(name, content, 0o100_000 | mode);
    }

    /// The archive with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &[], 0);
        self.bytes
    }

    /// Source: Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`.
    fn entry(&mut self, name: &str, content: &[u8], mode: u32) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
