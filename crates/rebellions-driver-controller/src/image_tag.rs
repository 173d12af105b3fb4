//! The image of a node's driver: the template of its tag, and the family in its name.

use accelerator_api::DriverSpec;

/// The template when the admin gives none: what the vendor's registry has.
const DEFAULT_TEMPLATE: &str = "{version}-{kernel}-{os}";

/// The most characters of a tag. Source: OCI distribution specification.
const LONGEST_TAG: usize = 128;

/// What a template may ask of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// The family of its NPUs.
    Family,
    /// Its operating system.
    Os,
    /// Its kernel's release.
    Kernel,
    /// Its architecture.
    Arch,
}

impl Variable {
    /// All of them, in the order in which they make the name of a pool.
    pub const ALL: [Self; 4] = [Self::Family, Self::Os, Self::Kernel, Self::Arch];

    /// As a template spells it.
    #[must_use]
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Family => "{family}",
            Self::Os => "{os}",
            Self::Kernel => "{kernel}",
            Self::Arch => "{arch}",
        }
    }
}

/// The image of the driver's main container, with what is left to say for each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageTemplate(String);

impl ImageTemplate {
    /// The template that a section asks for. `rendered` is the image as rendering makes it of any section: with the tag of the
    /// default image, which is the default version, unless the admin gave a tag or a digest.
    #[must_use]
    pub fn of(section: &DriverSpec, rendered: &str) -> Self {
        let image = section.component.image.clone().unwrap_or_default();
        let name_end = image.name.rfind('/').map_or(0, |slash| slash + 1);
        let is_explicit =
            !image.tag.is_empty() || !image.digest.is_empty() || image.name[name_end..].contains([':', '@']);
        if is_explicit {
            return Self(rendered.to_owned());
        }
        let name = rendered.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, default) = match rendered[name..].find(':') {
            Some(colon) => (&rendered[..name + colon], &rendered[name + colon + 1..]),
            None => (rendered, ""),
        };
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        let template = or(&section.image_tag_template, DEFAULT_TEMPLATE);
        Self(format!("{repository}:{}", template.replace("{version}", &or(&section.version, default))))
    }

    /// What it asks of a node.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        Variable::ALL.into_iter().filter(|variable| self.0.contains(variable.placeholder()))
    }

    /// The image for these values; why there is none, when its tag would be too long.
    pub fn image(&self, value: impl Fn(Variable) -> String) -> Result<String, String> {
        let image = self
            .variables()
            .fold(self.0.clone(), |image, variable| image.replace(variable.placeholder(), &value(variable)));
        let tag = image.rfind('/').map_or(0, |slash| slash + 1);
        let tag = image[tag..].split('@').next().and_then(|name| name.split_once(':')).map_or("", |(_, tag)| tag);
        if tag.len() > LONGEST_TAG {
            return Err(format!("the tag {tag} of its driver's image has more than {LONGEST_TAG} characters"));
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accelerator_api::{ComponentSpec, Image};

    const RENDERED: &str = "repo.rebellions.ai/rebellions/rbln-driver:3.0.0";

    fn section(template: &str, version: &str, image: Image) -> DriverSpec {
        let component = ComponentSpec { enabled: true, image: Some(image), ..ComponentSpec::default() };
        DriverSpec { image_tag_template: template.into(), version: version.into(), component, ..DriverSpec::default() }
    }

    fn value(variable: Variable) -> String {
        match variable {
            Variable::Family => "atom".into(),
            Variable::Os => "ubuntu22.04".into(),
            Variable::Kernel => "5.15.0-130-generic".into(),
            Variable::Arch => "amd64".into(),
        }
    }

    fn image(template: &str, version: &str, rendered: &str) -> String {
        let template = ImageTemplate::of(&section(template, version, Image::default()), rendered);
        template.image(value).expect("an image")
    }

    #[test]
    fn the_tag_is_made_of_the_template() {
        let repository = "repo.rebellions.ai/rebellions/rbln-driver";
        assert_eq!(image("", "", RENDERED), format!("{repository}:3.0.0-5.15.0-130-generic-ubuntu22.04"));
        assert_eq!(image("", "3.2.2", RENDERED), format!("{repository}:3.2.2-5.15.0-130-generic-ubuntu22.04"));
        assert_eq!(
            image("{os}_{arch}.{family}-{version}", "", RENDERED),
            format!("{repository}:ubuntu22.04_amd64.atom-3.0.0")
        );
        assert_eq!(image("{version}", "", "host:5000/a/b:1"), "host:5000/a/b:1");
        assert_eq!(image("{kernel}", "", "host:5000/a/b"), "host:5000/a/b:5.15.0-130-generic");
        assert_eq!(image("", "", "r.io/{family}/d:3"), "r.io/atom/d:3-5.15.0-130-generic-ubuntu22.04");
    }

    #[test]
    fn a_tag_or_a_digest_of_the_admins_is_taken_as_it_is() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let explicit = [
            (Image { tag: "mine".into(), ..Image::default() }, "r.io/a/b:mine".to_owned()),
            (Image { digest: digest.clone(), ..Image::default() }, format!("r.io/a/b@{digest}")),
            (Image { name: "a/b:1".into(), ..Image::default() }, "r.io/a/b:1".into()),
            (Image { name: format!("a/b@{digest}"), ..Image::default() }, format!("r.io/a/b@{digest}")),
        ];
        for (given, rendered) in explicit {
            let template = ImageTemplate::of(&section("{kernel}", "9", given), &rendered);
            assert_eq!(template.variables().count(), 0, "{rendered}");
            assert_eq!(template.image(value), Ok(rendered));
        }
        let host = Image { name: "host:5000/a/b".into(), ..Image::default() };
        assert_eq!(ImageTemplate::of(&section("", "", host), "host:5000/a/b:3.0.0").variables().count(), 2);
    }

    #[test]
    fn the_family_may_stand_in_the_name_beside_a_tag() {
        let given = Image { name: "rebellions/{family}/rbln-driver".into(), tag: "mine".into(), ..Image::default() };
        let template = ImageTemplate::of(&section("", "", given), "r.io/rebellions/{family}/rbln-driver:mine");
        assert_eq!(template.variables().collect::<Vec<_>>(), [Variable::Family]);
        assert_eq!(template.image(value).as_deref(), Ok("r.io/rebellions/atom/rbln-driver:mine"));
    }

    #[test]
    fn a_tag_that_is_too_long_is_none() {
        let template = ImageTemplate::of(&section("", "", Image::default()), RENDERED);
        let image = template.image(|_| "x".repeat(70));
        assert!(image.is_err_and(|why| why.ends_with("of its driver's image has more than 128 characters")));
    }
}
