//! What a bundle must not tell: values of environment variables, annotations of others, credentials in arguments and logs.
//!
//! Secrets and `ConfigMaps` are never read. Rules work on every object alike, so that a new field falls under them by itself.

use std::fmt::Write;

use accelerator_api::contract::NPU_RESOURCE_PREFIX;
use serde_json::Value;

/// What stands in the place of what was taken out.
const REDACTED: &str = "<redacted>";

/// Annotations that stay: ours, the vendor's, and Kubernetes' own about deployments.
const KEPT: [&str; 3] = ["petasus.io/", NPU_RESOURCE_PREFIX, "deployment.kubernetes.io/"];

/// Words that make an argument or a setting of a log line a credential.
const CREDENTIALS: [&str; 8] = ["password", "passwd", "secret", "token", "apikey", "api-key", "api_key", "credential"];

/// Takes out of an object, at any depth, what a bundle must not tell.
pub fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "env" => redact_env(field),
                    "annotations" => redact_annotations(field),
                    "args" | "command" => redact_arguments(field),
                    _ => redact(field),
                }
            }
        }
        _ => {}
    }
}

fn redact_env(env: &mut Value) {
    for variable in env.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(value) = variable.get_mut("value") {
            *value = REDACTED.into();
        }
    }
}

fn redact_annotations(annotations: &mut Value) {
    for (key, value) in annotations.as_object_mut().into_iter().flatten() {
        if !KEPT.iter().any(|prefix| key.starts_with(prefix)) {
            *value = REDACTED.into();
        }
    }
}

fn redact_arguments(arguments: &mut Value) {
    let mut is_next = false;
    for argument in arguments.as_array_mut().into_iter().flatten() {
        let Some(text) = argument.as_str().map(str::to_owned) else { continue };
        let names_one = is_credential(text.split('=').next().unwrap_or_default());
        if std::mem::take(&mut is_next) && !text.starts_with('-') {
            *argument = REDACTED.into();
        } else if let (true, Some((name, _))) = (names_one, text.split_once('=')) {
            *argument = format!("{name}={REDACTED}").into();
        } else {
            is_next = names_one && text.starts_with('-');
            *argument = redact_text(&text).into();
        }
    }
}

fn is_credential(name: &str) -> bool {
    let name = name.to_lowercase();
    CREDENTIALS.iter().any(|word| name.contains(word))
}

/// Takes credentials out of text: what follows `Bearer` or `Basic`, what is set to a name of one, and what stands before the
/// `@` of a URL.
#[must_use]
pub fn redact_text(text: &str) -> String {
    text.split_inclusive('\n').map(redact_line).collect()
}

fn redact_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut is_next = false;
    for word in line.split_inclusive([' ', '\t', ',', '\n']) {
        let bare = word.trim_end_matches([' ', '\t', ',', '\n']);
        let end = &word[bare.len()..];
        let trimmed = bare.trim_matches(['"', '\'', '{', '}', '[', ']']);
        let set = bare.split_once(['=', ':']).filter(|(name, value)| {
            is_credential(name) && !value.trim_matches(['"', '\'']).is_empty() && !value.starts_with("//")
        });
        if std::mem::take(&mut is_next) && !trimmed.is_empty() {
            out.push_str(REDACTED);
        } else if let Some((name, _)) = set {
            out.push_str(name);
            out.push('=');
            out.push_str(REDACTED);
        } else if let Some((scheme, rest)) = bare.split_once("://")
            && let Some((_, host)) = rest.split_once('@')
        {
            let _ = write!(out, "{scheme}://{REDACTED}@{host}");
        } else {
            let name = trimmed.trim_end_matches([':', '=', '"', '\'']);
            is_next =
                matches!(name, "Bearer" | "Basic" | "bearer") || trimmed.ends_with([':', '=']) && is_credential(name);
            out.push_str(bare);
        }
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_variables_annotations_of_others_and_credentials_in_arguments_are_taken_out() {
        let mut pod = json!({
            "metadata": {"annotations": {"example.com/x": "hush", "petasus.io/driver-upgrade": "{}",
                "kubectl.kubernetes.io/last-applied-configuration": "hush"}, "managedFields": [{"manager": "m"}]},
            "spec": {"containers": [{
                "env": [{"name": "A", "value": "hush"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "args": ["--token=hush", "--password", "hush", "--level", "info", "--url=https://u:hush@host/x"]}]},
        });
        redact(&mut pod);
        let text = pod.to_string();
        assert!(!text.contains("hush") && !text.contains("managedFields"), "{text}");
        assert_eq!(pod["metadata"]["annotations"]["petasus.io/driver-upgrade"], "{}");
        assert_eq!(pod["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"], "s");
        assert_eq!(pod["spec"]["containers"][0]["args"][3], "--level");
        assert_eq!(pod["spec"]["containers"][0]["args"][4], "info");
    }

    #[test]
    fn settings_of_a_config_are_taken_out_as_well() {
        let mut config = json!({"spec": {"providers": {"rebellions": {"driver": {"enabled": true, "manager": {"env": [{"name": "A", "value": "hush"}]}}}}}});
        redact(&mut config);
        assert!(!config.to_string().contains("hush"));
        assert_eq!(config["spec"]["providers"]["rebellions"]["driver"]["enabled"], true);
    }

    #[test]
    fn logs_keep_their_words_and_lose_credentials() {
        for (line, left) in [
            ("Authorization: Bearer hush.hush\n", "Authorization: Bearer <redacted>\n"),
            ("password=hush, user=u", "password=<redacted>, user=u"),
            ("{\"token\": \"hush\", \"node\": \"n\"}", "{\"token\": <redacted>, \"node\": \"n\"}"),
            ("pull https://u:hush@r.io/x failed", "pull https://<redacted>@r.io/x failed"),
            ("Leading lease=node-labeler", "Leading lease=node-labeler"),
        ] {
            assert_eq!(redact_text(line), left);
        }
    }
}
