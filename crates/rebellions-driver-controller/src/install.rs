//! What a driver pod installs, and what was installed before it.

use accelerator_api::contract::{DRIVER_LAST_GOOD_ANNOTATION, DRIVER_ROLLED_BACK_ANNOTATION};
use accelerator_operand::digest;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// What of a driver's main container decides what is installed. All else (labels, resources, tolerations, probes) leaves the driver
/// as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Install {
    /// Image.
    pub image: String,
    /// Program, if it is not the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Variable>,
}

/// An environment variable with a literal value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Install {
    /// What the main container of these pods installs.
    #[must_use]
    pub fn of(pod: &PodSpec) -> Option<Self> {
        let Container { image, command, args, env, .. } = pod.containers.first()?.clone();
        let variable = |one: EnvVar| Variable { name: one.name, value: one.value.unwrap_or_default() };
        Some(Self {
            image: image.unwrap_or_default(),
            command: command.unwrap_or_default(),
            args: args.unwrap_or_default(),
            env: env.unwrap_or_default().into_iter().map(variable).collect(),
        })
    }

    /// What it is told apart by: the same on a pod, on its DaemonSet and in every release.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(self)
    }

    /// Makes the main container of these pods install it.
    pub fn apply(&self, pod: &mut PodSpec) {
        let given = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let variable =
            |one: &Variable| EnvVar { name: one.name.clone(), value: Some(one.value.clone()), value_from: None };
        if let Some(main) = pod.containers.first_mut() {
            main.image = Some(self.image.clone());
            main.command = given(&self.command);
            main.args = given(&self.args);
            main.env = (!self.env.is_empty()).then(|| self.env.iter().map(variable).collect());
        }
    }
}

/// What a DaemonSet of the driver says about what it installs, and what it installed before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What its pods install now.
    pub current: Install,
    /// What was wanted, and worked, before.
    pub last_good: Option<Install>,
    /// Digest of what was rolled back.
    pub rolled_back: Option<String>,
}

impl History {
    /// That of a DaemonSet as it is in the cluster.
    #[must_use]
    pub fn of(live: &DaemonSet) -> Option<Self> {
        let pod = live.spec.as_ref()?.template.spec.as_ref()?;
        let annotations = live.annotations();
        Some(Self {
            current: Install::of(pod)?,
            last_good: annotations.get(DRIVER_LAST_GOOD_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
            rolled_back: annotations.get(DRIVER_ROLLED_BACK_ANNOTATION).cloned(),
        })
    }

    /// What comes after this when the spec asks for `asked`: the last good one, as long as the spec asks for what was rolled back.
    /// `is_current_good` says whether what is installed now works on any node; only then is it worth going back to.
    #[must_use]
    pub fn next(before: Option<&Self>, asked: Install, is_current_good: bool) -> Self {
        let Some(before) = before else { return Self { current: asked, ..Self::default() } };
        if before.has_given_up(&asked)
            && let Some(last_good) = &before.last_good
        {
            return Self { current: last_good.clone(), ..before.clone() };
        }
        let has_changed = before.current.digest() != asked.digest();
        let last_good =
            if has_changed && is_current_good { Some(before.current.clone()) } else { before.last_good.clone() };
        let last_good = last_good.filter(|one| one.digest() != asked.digest());
        Self { current: asked, last_good, rolled_back: None }
    }

    /// Whether what the spec asks for has been given up.
    #[must_use]
    pub fn has_given_up(&self, asked: &Install) -> bool {
        self.last_good.is_some() && self.rolled_back.as_ref() == Some(&asked.digest())
    }

    /// The same after what the spec asks for has been given up; `None` when there is nothing to go back to.
    #[must_use]
    pub fn roll_back(&self) -> Option<Self> {
        let last_good = self.last_good.clone()?;
        let rolled_back = Some(self.current.digest());
        Some(Self { current: last_good.clone(), last_good: Some(last_good), rolled_back })
    }

    /// Writes what was before down on a DaemonSet.
    pub fn annotate(&self, daemon_set: &mut DaemonSet) {
        let last_good = self.last_good.as_ref().and_then(|install| serde_json::to_string(install).ok());
        for (key, value) in
            [(DRIVER_LAST_GOOD_ANNOTATION, last_good), (DRIVER_ROLLED_BACK_ANNOTATION, self.rolled_back.clone())]
        {
            if let Some(value) = value {
                daemon_set.metadata.annotations.get_or_insert_default().insert(key.into(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn install(image: &str) -> Install {
        Install { image: image.into(), ..Install::default() }
    }

    fn pod(main: &serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({"containers": [main, {"name": "second", "image": "x"}]})).expect("a pod")
    }

    #[test]
    fn only_what_is_installed_changes_the_digest() {
        let main =
            json!({"name": "m", "image": "i:1", "command": ["c"], "args": ["a"], "env": [{"name": "A", "value": "1"}]});
        let digest = |change: &[(&str, serde_json::Value)]| {
            let mut main = main.clone();
            for (key, value) in change {
                main[*key] = value.clone();
            }
            Install::of(&pod(&main)).expect("a container").digest()
        };
        let before = digest(&[]);
        let same = [
            ("name", json!("other")),
            ("imagePullPolicy", json!("Always")),
            ("resources", json!({"limits": {"cpu": "1"}})),
            ("volumeMounts", json!([{"name": "v", "mountPath": "/v"}])),
            ("securityContext", json!({"privileged": true})),
            ("terminationMessagePath", json!("/dev/termination-log")),
        ];
        assert_eq!(digest(&same), before);
        for other in [
            ("image", json!("i:2")),
            ("command", json!(["d"])),
            ("args", json!([])),
            ("env", json!([{"name": "A", "value": "2"}])),
            ("env", json!([{"name": "B", "value": "1"}])),
        ] {
            assert_ne!(digest(std::slice::from_ref(&other)), before, "{other:?}");
        }
        let empty = [("env", json!([{"name": "A"}]))];
        assert_eq!(digest(&empty), digest(&[("env", json!([{"name": "A", "value": ""}]))]), "as it is stored");
    }

    /// It is on pods in clusters: a release that makes another reloads every driver.
    #[test]
    fn the_digest_is_what_it_was() {
        let main = json!({"name": "m", "image": "i:1", "args": ["init"], "env": [{"name": "A", "value": "1"}]});
        let text = r#"{"image":"i:1","args":["init"],"env":[{"name":"A","value":"1"}]}"#;
        let install = Install::of(&pod(&main)).expect("a container");
        assert_eq!(serde_json::to_string(&install).expect("JSON"), text);
        assert_eq!(install.digest(), "23ef467a597221ce4fbcef9579722730c94e66f598eb0fb9cbf9ad6838d6d50f");
    }

    #[test]
    fn what_is_applied_is_what_is_read() {
        let before = pod(&json!({"name": "m", "image": "i:1", "command": ["c"], "env": [{"name": "A", "value": "1"}]}));
        let wanted = Install { image: "i:2".into(), args: vec!["init".into()], ..Install::default() };
        let mut after = before.clone();
        wanted.apply(&mut after);
        assert_eq!(Install::of(&after), Some(wanted));
        assert_eq!(
            (&after.containers[0].name, &after.containers[1]),
            (&before.containers[0].name, &before.containers[1])
        );
    }

    #[test]
    fn what_worked_before_is_remembered_until_something_else_works() {
        let [one, two, three] = ["1", "2", "3"].map(install);
        let first = History::next(None, one.clone(), false);
        assert_eq!(first, History { current: one.clone(), ..History::default() });
        assert_eq!(History::next(Some(&first), one.clone(), true), first, "nothing new");
        let second = History::next(Some(&first), two.clone(), true);
        assert_eq!((&second.current, second.last_good.as_ref()), (&two, Some(&one)));
        assert_eq!(History::next(Some(&second), two.clone(), true), second, "nothing new");
        let third = History::next(Some(&second), three.clone(), false);
        assert_eq!((&third.current, third.last_good.as_ref()), (&three, Some(&one)), "the second never worked");
        let third = History::next(Some(&second), three, true);
        assert_eq!(third.last_good.as_ref(), Some(&two));
        let back = History::next(Some(&second), one.clone(), false);
        assert_eq!(back, History { current: one, ..History::default() }, "by the admin, to what worked");
    }

    #[test]
    fn what_is_rolled_back_stays_so_until_the_spec_asks_for_something_else() {
        let [one, two, three] = ["1", "2", "3"].map(install);
        assert_eq!(History::next(None, one.clone(), false).roll_back(), None);
        let second = History::next(Some(&History::next(None, one.clone(), false)), two.clone(), true);
        let back = second.roll_back().expect("something to go back to");
        assert_eq!((&back.current, &back.rolled_back), (&one, &Some(two.digest())));
        assert_eq!(History::next(Some(&back), two, true), back, "the spec still asks for it");
        let next = History::next(Some(&back), three.clone(), true);
        assert_eq!(next, History { current: three, last_good: Some(one.clone()), rolled_back: None });
        assert_eq!(History::next(Some(&back), one.clone(), true), History { current: one, ..History::default() });
    }

    #[test]
    fn a_daemon_set_keeps_it() {
        let mut daemon_set: DaemonSet = serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec":
            {"containers": [{"name": "m", "image": "1"}]}}}}))
        .expect("a DaemonSet");
        assert_eq!(History::of(&daemon_set), Some(History { current: install("1"), ..History::default() }));
        let history =
            History { current: install("1"), last_good: Some(install("0")), rolled_back: Some("digest".into()) };
        history.annotate(&mut daemon_set);
        assert_eq!(History::of(&daemon_set), Some(history));
    }
}
