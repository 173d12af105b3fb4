use std::io::Read;

use super::*;

/// An image of two files that are in this folder.
fn image(folder: &Path, name: &str, architecture: &'static str) -> Image {
    let mut files = BTreeMap::new();
    for (path, is_executable) in [("/program", true), ("/licenses/LICENSE", false)] {
        let at = folder.join(path.rsplit('/').next().expect("a name"));
        std::fs::write(&at, format!("{path} for {architecture}")).expect("a file");
        files.insert(path.to_owned(), Content { path: at, is_executable });
    }
    let config = Stage {
        user: "65532:65532".into(),
        entrypoint: vec!["/program".into()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
    };
    Image { name: name.into(), architecture, files, config }
}

/// The files of an archive.
fn read(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    unpack(&std::fs::read(archive).expect("an archive"))
}

fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(bytes);
    let entries = tar.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let header = entry.header();
        assert_eq!(
            (header.mtime().expect("a time"), header.uid().expect("a user"), header.gid().expect("a group")),
            (0, 0, 0)
        );
        let mode = header.mode().expect("a mode");
        let path = entry.path().expect("a path").display().to_string();
        assert_eq!(mode, if path == "program" || path.ends_with('/') { 0o755 } else { 0o644 }, "{path}");
        let mut content = vec![];
        entry.read_to_end(&mut content).expect("a content");
        (path, content)
    });
    entries.collect()
}

fn blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("SHA-256");
    let content = &files[&format!("blobs/sha256/{digest}")];
    assert_eq!(super::digest(content), digest);
    assert_eq!(descriptor["size"], content.len());
    content.clone()
}

fn json(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Value {
    serde_json::from_slice(&blob(files, descriptor)).expect("JSON")
}

fn index(files: &BTreeMap<String, Vec<u8>>) -> Vec<Value> {
    let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
    index["manifests"].as_array().expect("manifests").clone()
}

/// Where files are, when they were made and in which order images are given is not in an archive.
#[test]
fn the_same_files_make_the_same_archive() {
    let folders = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let [one, two] = folders.each_ref().map(|folder| {
        let images = ["r/b:1", "r/a:1"].map(|name| image(folder.path(), name, "amd64"));
        let archive = folder.path().join("archive.tar");
        (write(&archive, &images).expect("an archive"), std::fs::read(archive).expect("it"))
    });
    assert_eq!(one, two);
    let folder = folders[0].path();
    std::fs::write(folder.join("program"), "other").expect("a file");
    let mut images = ["r/a:1", "r/b:1"].map(|name| image(folder, name, "amd64"));
    images[0].config.labels.clear();
    let other = write(&folder.join("archive.tar"), &images).expect("an archive");
    assert_ne!(other[0].digest, one.0[0].digest);
    assert_eq!(other[1], one.0[1]);
}

#[test]
fn an_archive_says_what_a_runtime_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive.tar");
    let written = write(&archive, &[image(folder.path(), "host:5000/r/x:v1", "amd64")]).expect("an archive");
    let files = read(&archive);
    let entries = index(&files);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["annotations"]["io.containerd.image.name"], "host:5000/r/x:v1");
    assert_eq!(entries[0]["annotations"]["org.opencontainers.image.ref.name"], "v1");
    let manifest = json(&files, &entries[0]);
    let layer = &manifest["layers"][0];
    let size = |one: &Value| one["size"].as_u64().expect("a size");
    let expected = Written {
        name: "host:5000/r/x:v1".into(),
        digest: entries[0]["digest"].as_str().expect("a digest").into(),
        compressed: size(layer) + size(&manifest["config"]),
    };
    assert_eq!(written, [expected]);
    let mut tar = vec![];
    flate2::read::GzDecoder::new(&blob(&files, layer)[..]).read_to_end(&mut tar).expect("gzip");
    let inside: Vec<_> = unpack(&tar).into_iter().collect();
    assert_eq!(
        inside,
        [
            ("licenses/".into(), vec![]),
            ("licenses/LICENSE".into(), b"/licenses/LICENSE for amd64".to_vec()),
            ("program".into(), b"/program for amd64".to_vec()),
        ]
    );
    let config = json(&files, &manifest["config"]);
    assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", digest(&tar))]));
    assert_eq!(
        config["config"],
        json!({"User": "65532:65532", "Entrypoint": ["/program"], "Labels": {"a": "b"}, "Env": [PATH]})
    );
    assert_eq!((&config["architecture"], &config["os"]), (&json!("amd64"), &json!("linux")));
}

#[test]
fn one_name_for_two_architectures_is_an_index() {
    let folders = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let archive = folders[0].path().join("archive.tar");
    let images = [image(folders[0].path(), "r/x:1", "amd64"), image(folders[1].path(), "r/x:1", "arm64")];
    let written = write(&archive, &images).expect("an archive");
    let files = read(&archive);
    let entries = index(&files);
    assert_eq!((entries.len(), written.len()), (1, 1));
    assert_eq!((&entries[0]["mediaType"], &entries[0]["digest"]), (&json!(INDEX), &json!(written[0].digest)));
    let both = json(&files, &entries[0]);
    for (entry, architecture) in both["manifests"].as_array().expect("manifests").iter().zip(["amd64", "arm64"]) {
        assert_eq!(entry["platform"], json!({"architecture": architecture, "os": "linux"}));
        assert_eq!(json(&files, &json(&files, entry)["config"])["architecture"], architecture);
    }
}
