//! OCI archives: what is in them depends on what they are made of, and on nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::containerfile::Stage;

/// An image for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Registry, name and tag. Images with the same name are one image for several architectures.
    pub name: String,
    /// Architecture as Go spells it: `amd64`.
    pub architecture: &'static str,
    /// What is in it: the path in the image, and the file.
    pub files: BTreeMap<String, Content>,
    /// What a runtime reads.
    pub config: Stage,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Where it is now.
    pub path: PathBuf,
    /// Whether it is a program.
    pub is_executable: bool,
}

/// An image that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Registry, name and tag.
    pub name: String,
    /// Digest by which it is pulled: that of its manifest, or of the index of several.
    pub digest: String,
    /// Bytes that one architecture's pull moves, the largest of them: config and layer.
    pub compressed: u64,
}

/// What `PATH` is where a program is looked for by name, as tools for containers set it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes an archive that containerd, podman, skopeo and newer versions of docker read. Source: OCI Image Specification 1.1,
/// image layout.
pub fn write(archive: &Path, images: &[Image]) -> anyhow::Result<Vec<Written>> {
    let mut blobs = Blobs::default();
    let mut by_name = BTreeMap::<_, Vec<_>>::new();
    for image in images {
        by_name.entry(image.name.as_str()).or_default().push(manifest(image, &mut blobs)?);
    }
    let (mut entries, mut written) = (vec![], vec![]);
    for (name, manifests) in by_name {
        let compressed = manifests.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
        let mut entry = one_or_index(manifests.into_iter().map(|(entry, _)| entry).collect(), &mut blobs);
        let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
        entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
        let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
        entries.push(entry);
        written.push(Written { name: name.into(), digest, compressed });
    }
    let mut tar = tar::Builder::new(File::create(archive).with_context(|| archive.display().to_string())?);
    add(&mut tar, "oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes(), 0o644)?;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    add(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
    for (digest, blob) in &blobs.0 {
        add(&mut tar, &format!("blobs/sha256/{digest}"), blob, 0o644)?;
    }
    tar.finish()?;
    Ok(written)
}

/// Contents by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Adds one; returns its descriptor.
    fn add(&mut self, content: Vec<u8>, media_type: &str) -> Value {
        let digest = digest(&content);
        let descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()});
        self.0.insert(digest, content);
        descriptor
    }
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// The one image, or an index of the images for each architecture.
fn one_or_index(mut manifests: Vec<Value>, blobs: &mut Blobs) -> Value {
    if manifests.len() == 1 {
        return manifests.remove(0);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    blobs.add(index.to_string().into_bytes(), INDEX)
}

/// An image's descriptor, and how many bytes a pull of it moves. What it consists of is added to the blobs.
fn manifest(image: &Image, blobs: &mut Blobs) -> anyhow::Result<(Value, u64)> {
    let layer = layer(image)?;
    let diff_id = format!("sha256:{}", digest(&layer));
    let layer = blobs.add(compress(&layer)?, "application/vnd.oci.image.layer.v1.tar+gzip");
    let Stage { user, entrypoint, labels } = &image.config;
    let mut config = Map::new();
    if !user.is_empty() {
        config.insert("User".into(), json!(user));
    }
    config.insert("Env".into(), json!([PATH]));
    config.insert("Entrypoint".into(), json!(entrypoint));
    if !labels.is_empty() {
        config.insert("Labels".into(), json!(labels));
    }
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": image.architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "image-archive"}],
    });
    let config = blobs.add(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
    let bytes = [&config, &layer].into_iter().filter_map(|one| one["size"].as_u64()).sum();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut entry = blobs.add(manifest.to_string().into_bytes(), MANIFEST);
    entry["platform"] = json!({"architecture": image.architecture, "os": "linux"});
    Ok((entry, bytes))
}

/// The files of an image, each folder before what is in it.
fn layer(image: &Image) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(vec![]);
    let mut folders = vec![];
    for (path, content) in &image.files {
        let path = path.trim_start_matches('/');
        for (slash, _) in path.match_indices('/') {
            let folder = &path[..=slash];
            if !folders.contains(&folder.to_owned()) {
                let mut header = header(0, 0o755);
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, folder, std::io::empty())?;
                folders.push(folder.to_owned());
            }
        }
        let bytes = std::fs::read(&content.path).with_context(|| format!("no {}", content.path.display()))?;
        add(&mut tar, path, &bytes, if content.is_executable { 0o755 } else { 0o644 })?;
    }
    Ok(tar.into_inner()?)
}

fn compress(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(vec![], Compression::best());
    gzip.write_all(content)?;
    Ok(gzip.finish()?)
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
    tar.append_data(&mut header(content.len() as u64, mode), name, content)?;
    Ok(())
}

/// Of root, and made at the beginning of time.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests;
