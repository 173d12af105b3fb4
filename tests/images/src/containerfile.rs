//! The Containerfile, as far as it says what an image is: its last stages, which take files from the build and set what a
//! runtime reads. What is not understood is refused, so that an archive is never another image than the one that is built.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// The stage that every image begins with.
const COMMON: &str = "image";

/// The argument that is the commit.
const REVISION: &str = "REVISION";

/// What a runtime and people read of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// User and group that it runs as; empty for root.
    pub user: String,
    /// What it starts.
    pub entrypoint: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The images that a Containerfile makes, by name. `revision` is the commit; without one, what the Containerfile says then.
pub fn images(text: &str, revision: Option<&str>) -> anyhow::Result<BTreeMap<String, Stage>> {
    let mut arguments = BTreeMap::new();
    let mut common = None;
    let mut images = BTreeMap::new();
    let stages = text.split("\nFROM ").skip(1);
    for stage in stages {
        let (from, rest) = stage.split_once('\n').context("FROM without anything behind")?;
        let (base, name) = from.split_once(" AS ").with_context(|| format!("FROM {from}: a stage without a name"))?;
        match (base, name) {
            ("scratch", COMMON) => common = Some(read(Stage::default(), COMMON, rest, &mut arguments, revision)?),
            (COMMON, _) => {
                let before = common.clone().with_context(|| format!("{name} is in front of {COMMON}"))?;
                let stage = read(before, name, rest, &mut arguments, revision)?;
                images.insert(name.to_owned(), stage);
            }
            // It runs in a container; its product is the same without one.
            (_, "build") => {}
            _ => bail!("FROM {from}: not understood"),
        }
    }
    ensure!(!images.is_empty(), "no stage begins with FROM {COMMON}");
    Ok(images)
}

fn read(
    mut stage: Stage,
    name: &str,
    lines: &str,
    arguments: &mut BTreeMap<String, String>,
    revision: Option<&str>,
) -> anyhow::Result<Stage> {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').with_context(|| format!("{line}: not understood"))?;
        match instruction {
            "ARG" => {
                let (key, default) = rest.split_once('=').with_context(|| format!("{line}: no default"))?;
                let given = revision.filter(|_| key == REVISION);
                arguments.insert(key.into(), given.unwrap_or(default).into());
            }
            "LABEL" => {
                let (key, value) = rest.split_once('=').with_context(|| format!("{line}: no value"))?;
                stage.labels.insert(key.into(), substitute(value.trim_matches('"'), arguments));
            }
            "USER" => stage.user = rest.into(),
            "ENTRYPOINT" => stage.entrypoint = serde_json::from_str(rest).with_context(|| line.to_owned())?,
            "COPY" if rest == format!("--from=build /images/{name}/ /") => {}
            _ => bail!("{line}: not understood"),
        }
    }
    Ok(stage)
}

fn substitute(value: &str, arguments: &BTreeMap<String, String>) -> String {
    arguments.iter().fold(value.to_owned(), |value, (key, argument)| value.replace(&format!("${{{key}}}"), argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# Words.
ARG BUILDER=b
FROM ${BUILDER} AS build
RUN make

FROM scratch AS image
ARG REVISION=unknown
LABEL a="1 2"
LABEL revision="${REVISION}"
USER 1:2
ENTRYPOINT ["/program"]

FROM image AS x
# More words.
LABEL a="3"
COPY --from=build /images/x/ /
"#;

    #[test]
    fn each_image_is_the_common_stage_and_its_own() {
        let stage = |a: &str, revision: &str| Stage {
            user: "1:2".into(),
            entrypoint: vec!["/program".into()],
            labels: [("a".into(), a.into()), ("revision".into(), revision.into())].into(),
        };
        assert_eq!(images(TEXT, None).expect("images"), [("x".into(), stage("3", "unknown"))].into());
        assert_eq!(images(TEXT, Some("abc")).expect("images"), [("x".into(), stage("3", "abc"))].into());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (old, new, expected) in [
            ("USER 1:2", "EXPOSE 80", "EXPOSE 80: not understood"),
            ("/images/x/ /", "/images/y/ /", "COPY --from=build /images/y/ /: not understood"),
            ("FROM image AS x", "FROM debian AS x", "FROM debian AS x: not understood"),
            ("FROM image AS x", "FROM image", "FROM image: a stage without a name"),
            ("FROM scratch AS image\n", "FROM scratch AS other\n", "FROM scratch AS other: not understood"),
        ] {
            let error = images(&TEXT.replace(old, new), None).expect_err(new).to_string();
            assert_eq!(error, expected);
        }
        assert!(images("\nFROM b AS build\n", None).is_err());
    }
}
