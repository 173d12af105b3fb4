//! Kubeconfig files. JSON, which every reader of YAML reads.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Who a kubeconfig is for.
pub enum User<'a> {
    /// A client certificate in these files, without their endings.
    Certificate(&'a Path),
    /// A token in this file, which is read again when it changes.
    TokenFile(&'a Path),
}

/// How to reach an API server: a cluster's entry in a kubeconfig.
#[must_use]
pub fn entry(server: &str, authority: &Path) -> Value {
    json!({"server": server, "certificate-authority": authority})
}

/// Writes a kubeconfig.
pub fn write(path: &Path, entry: &Value, user: &User<'_>) -> anyhow::Result<PathBuf> {
    let user: Value = match user {
        User::Certificate(stem) => json!({
            "client-certificate": stem.with_extension("crt"),
            "client-key": stem.with_extension("key"),
        }),
        User::TokenFile(file) => json!({"tokenFile": file}),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": entry}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user"}}],
        "current-context": "testbed",
    });
    std::fs::write(path, serde_json::to_vec_pretty(&config)?)?;
    Ok(path.into())
}
