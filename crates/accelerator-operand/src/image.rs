//! Composes an image reference from the default and the parts that an admin set.

use accelerator_api::Image;

/// The reference to run: every part of `image` that is set replaces that part of `default`. A digest wins over any tag.
/// A name that begins with a host stands for itself unless a registry is set as well. `registry`, if not empty, takes the
/// place of the default's host, and of nothing that `image` sets.
pub fn reference(default: &str, registry: &str, image: Option<&Image>) -> String {
    let nothing = Image::default();
    let image = image.unwrap_or(&nothing);
    let default = Reference::parse(default);
    let given = Reference::parse(&image.name);
    let hosts = [image.registry.as_str(), given.host, registry, default.host];
    let host = hosts.into_iter().find(|part| !part.is_empty());
    // A registry in front of a name with a host is a mirror that keeps the host as the first part of its path.
    let mirrored = if image.registry.is_empty() { "" } else { given.host };
    let path = if given.path.is_empty() { default.path } else { given.path };
    let version = if image.digest.is_empty() {
        match [given.version, image.tag.as_str()].into_iter().find(|part| !part.is_empty()) {
            Some(version) if version.starts_with(['@', ':']) => version.to_owned(),
            Some(tag) => format!(":{tag}"),
            None => default.version.to_owned(),
        }
    } else {
        format!("@{}", image.digest)
    };
    let path = [host.unwrap_or_default(), mirrored, path].into_iter().filter(|part| !part.is_empty());
    path.collect::<Vec<_>>().join("/") + &version
}

/// A reference in parts, each possibly empty; `version` with its leading `:` or `@`.
struct Reference<'a> {
    host: &'a str,
    path: &'a str,
    version: &'a str,
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Self {
        let first = text.find('/').unwrap_or(0);
        let (host, rest) = match text.split_at(first) {
            (host, rest) if host.contains(['.', ':']) || host == "localhost" => (host, &rest[1..]),
            _ => ("", text),
        };
        // A tag's colon is behind the last slash; a digest's `@` is behind any tag.
        let end = rest.find('@').unwrap_or(rest.len());
        let name = rest[..end].rfind('/').map_or(0, |slash| slash + 1);
        let version = rest[name..end].find(':').map_or(end, |colon| name + colon);
        let (path, version) = rest.split_at(version);
        Self { host, path, version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "docker.io/rebellions/k8s-device-plugin:v0.3.7";

    fn image(registry: &str, name: &str, tag: &str, digest: &str) -> String {
        let image = Image {
            registry: registry.into(),
            name: name.into(),
            tag: tag.into(),
            digest: digest.into(),
            ..Image::default()
        };
        reference(DEFAULT, "", Some(&image))
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(image("", "", "", ""), DEFAULT);
    }

    #[test]
    fn each_part_alone_replaces_that_part() {
        assert_eq!(
            image("mirror.local:5000/hub", "", "", ""),
            "mirror.local:5000/hub/rebellions/k8s-device-plugin:v0.3.7"
        );
        assert_eq!(image("", "mine/plugin", "", ""), "docker.io/mine/plugin:v0.3.7");
        assert_eq!(image("", "", "v9", ""), "docker.io/rebellions/k8s-device-plugin:v9");
        assert_eq!(image("", "", "", "sha256:0f"), "docker.io/rebellions/k8s-device-plugin@sha256:0f");
    }

    #[test]
    fn a_digest_wins_over_every_tag() {
        assert_eq!(image("r.io", "a/b", "v1", "sha256:0f"), "r.io/a/b@sha256:0f");
        assert_eq!(image("r.io", "a/b:v1", "", "sha256:0f"), "r.io/a/b@sha256:0f");
    }

    #[test]
    fn a_name_with_a_host_stands_for_itself() {
        assert_eq!(image("", "quay.io/a/b", "v1", ""), "quay.io/a/b:v1");
        assert_eq!(image("", "localhost/b:1", "", ""), "localhost/b:1");
        assert_eq!(image("", "host:5000/a/b@sha256:0f", "", ""), "host:5000/a/b@sha256:0f");
        assert_eq!(image("mirror.local", "quay.io/a/b", "v1", ""), "mirror.local/quay.io/a/b:v1");
    }

    #[test]
    fn a_tag_in_the_name_is_kept() {
        assert_eq!(image("", "redhat/ubi8:8.10", "", ""), "docker.io/redhat/ubi8:8.10");
        assert_eq!(image("", "ubi8:8.10@sha256:0f", "", ""), "docker.io/ubi8:8.10@sha256:0f");
    }

    #[test]
    fn a_registry_for_all_replaces_the_defaults_host_and_nothing_that_is_set() {
        let with = |registry: &str, name: &str| {
            let image = Image { registry: registry.into(), name: name.into(), ..Image::default() };
            reference(DEFAULT, "all.local:5000/hub", Some(&image))
        };
        assert_eq!(
            reference(DEFAULT, "all.local:5000/hub", None),
            "all.local:5000/hub/rebellions/k8s-device-plugin:v0.3.7"
        );
        assert_eq!(with("", ""), "all.local:5000/hub/rebellions/k8s-device-plugin:v0.3.7");
        assert_eq!(with("", "mine/plugin"), "all.local:5000/hub/mine/plugin:v0.3.7");
        assert_eq!(with("own.local", ""), "own.local/rebellions/k8s-device-plugin:v0.3.7");
        assert_eq!(with("", "quay.io/a/b"), "quay.io/a/b:v0.3.7");
    }
}
