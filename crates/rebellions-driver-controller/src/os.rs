//! A node's operating system as images are named after it: `ID` and `VERSION_ID` of os-release in one.

/// What `status.nodeInfo.osImage`, which is `PRETTY_NAME` of os-release, begins with, the `ID`, and how many parts of the
/// version `VERSION_ID` has. A longer beginning stands before a shorter one.
const NAMES: &[(&str, &str, usize)] = &[
    ("Ubuntu ", "ubuntu", 2),
    ("Red Hat Enterprise Linux CoreOS ", "rhcos", 2),
    ("Red Hat Enterprise Linux ", "rhel", 2),
    ("Rocky Linux ", "rocky", 2),
    ("AlmaLinux ", "almalinux", 2),
    ("Oracle Linux Server ", "ol", 2),
    ("CentOS Stream ", "centos", 1),
    ("Debian GNU/Linux ", "debian", 1),
    ("Amazon Linux ", "amzn", 1),
    ("Fedora Linux ", "fedora", 1),
];

/// What the name of an operating system says, such as `ubuntu22.04` of `Ubuntu 22.04.5 LTS`; `None` when it is not known.
#[must_use]
pub fn of_image(pretty_name: &str) -> Option<String> {
    let (name, id, parts) = NAMES.iter().find(|(name, ..)| pretty_name.starts_with(name))?;
    let version = pretty_name[name.len()..].split(' ').next()?;
    let mut numbers =
        version.split('.').take_while(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if *id == "rhcos" {
        return core_os(numbers.next()?, numbers.next()?);
    }
    let kept: Vec<_> = numbers.take(*parts).collect();
    (kept.len() == *parts).then(|| format!("{id}{}", kept.join(".")))
}

/// Its version was that of `OpenShift`, in one number (`416`), and is, since `OpenShift` 4.19, that of the RHEL below, whose `ID` it has.
fn core_os(first: &str, second: &str) -> Option<String> {
    match first.split_at_checked(1)? {
        ("4", minor) if !minor.is_empty() => Some(format!("rhcos4.{minor}")),
        _ => Some(format!("rhel{first}.{second}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems_say_which_they_are() {
        let table = [
            ("Ubuntu 22.04.5 LTS", Some("ubuntu22.04")),
            ("Ubuntu 24.04 LTS", Some("ubuntu24.04")),
            ("Ubuntu 25.10", Some("ubuntu25.10")),
            ("Red Hat Enterprise Linux 9.4 (Plow)", Some("rhel9.4")),
            ("Red Hat Enterprise Linux 10.0 (Coughlan)", Some("rhel10.0")),
            ("Red Hat Enterprise Linux CoreOS 416.94.202405291527-0 (Plow)", Some("rhcos4.16")),
            ("Red Hat Enterprise Linux CoreOS 9.6.20250523-0 (Plow)", Some("rhel9.6")),
            ("Rocky Linux 9.4 (Blue Onyx)", Some("rocky9.4")),
            ("AlmaLinux 9.4 (Seafoam Ocelot)", Some("almalinux9.4")),
            ("Oracle Linux Server 8.9", Some("ol8.9")),
            ("CentOS Stream 9", Some("centos9")),
            ("Debian GNU/Linux 12 (bookworm)", Some("debian12")),
            ("Amazon Linux 2023.5.20240805", Some("amzn2023")),
            ("Fedora Linux 40 (Server Edition)", Some("fedora40")),
            ("Ubuntu Noble Numbat (development branch)", None),
            ("Debian GNU/Linux trixie/sid", None),
            ("Red Hat Enterprise Linux 9 (Plow)", None),
            ("Kwok", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(of_image(name).as_deref(), expected, "{name:?}");
        }
    }
}
