//! OCI archives with images of one static program each, as the Containerfile makes them: no base, no registry, the same bytes
//! every time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Registry, name and tag.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Where it is in the image; the first is the entry point.
    pub paths: Vec<String>,
    /// User and group, if not root.
    pub user: Option<&'static str>,
}

/// Writes an archive that containerd imports. Source: OCI Image Specification 1.0, image layout.
pub fn write(archive: &Path, images: &[Image]) -> anyhow::Result<()> {
    let mut blobs = BTreeMap::new();
    let manifests: Vec<_> = images.iter().map(|image| manifest(image, &mut blobs)).collect::<anyhow::Result<_>>()?;
    let mut tar = tar::Builder::new(File::create(archive)?);
    add(&mut tar, "oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes(), 0o644)?;
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    add(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
    for (digest, blob) in &blobs {
        add(&mut tar, &format!("blobs/sha256/{digest}"), blob, 0o644)?;
    }
    tar.finish()?;
    Ok(())
}

/// An image's entry in the index. What it consists of is added to the blobs.
fn manifest(image: &Image, blobs: &mut BTreeMap<String, Vec<u8>>) -> anyhow::Result<Value> {
    let mut blob = |content: Vec<u8>, kind: &str| {
        let digest = Sha256::digest(&content).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"),
            "size": content.len(),
        });
        blobs.insert(digest, content);
        descriptor
    };
    let layer = blob(layer(image)?, "layer.v1.tar");
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": image.user.unwrap_or_default(),
            "Entrypoint": [image.paths.first().context("an image without a program")?],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(config.to_string().into_bytes(), "config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut entry = blob(manifest.to_string().into_bytes(), "manifest.v1+json");
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    entry["annotations"] = json!({"io.containerd.image.name": image.name});
    Ok(entry)
}

fn layer(image: &Image) -> anyhow::Result<Vec<u8>> {
    let program = std::fs::read(&image.program).with_context(|| format!("no {}", image.program.display()))?;
    let mut tar = tar::Builder::new(vec![]);
    for path in &image.paths {
        add(&mut tar, path.trim_start_matches('/'), &program, 0o755)?;
    }
    Ok(tar.into_inner()?)
}

fn add(tar: &mut tar::Builder<impl std::io::Write>, name: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, content)?;
    Ok(())
}
