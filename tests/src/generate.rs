//! Changes of an AcceleratorConfig, generated from the schema of its CRD: valid ones, invalid ones and everything on the
//! edge. What is what is for the API server to say.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// Texts that mean something somewhere, and some that mean nothing anywhere.
const TEXTS: &[&str] = &[
    "",
    "a",
    "B-c_d",
    "example.com/x",
    "registry.example.com:5000/mirror",
    "v1.2.3",
    "Always",
    "IfNotPresent",
    "Exists",
    "Equal",
    "NoSchedule",
    "NoExecute",
    "100m",
    "1Gi",
    "0",
    "0.5",
    "-1",
    "2Mi",
    "cpu",
    "memory",
    "hugepages-2Mi",
    "ephemeral-storage",
    "example.com/device",
    "container",
    "vm-passthrough",
    "system-node-critical",
    "x y",
    "日本",
    "$(NODE_NAME)",
    "=",
    "PATH",
    "name",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];
const NUMBERS: &[i64] = &[-1, 0, 1, 60, i64::MAX];

/// Generates changes, the same for the same seed.
#[derive(Debug)]
pub struct Generator {
    random: StdRng,
    schema: Value,
}

impl Generator {
    /// Changes of what `spec.providers.rebellions` may hold, but only of these sections.
    #[must_use]
    pub fn new(seed: u64, sections: &[&str]) -> Self {
        let crd = serde_json::to_value(accelerator_api::crd()).unwrap_or_default();
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/providers/properties/rebellions";
        let mut schema = crd.pointer(path).cloned().unwrap_or_default();
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.retain(|name, _| sections.contains(&name.as_str()));
        }
        Self { random: StdRng::seed_from_u64(seed), schema }
    }

    /// The object with one thing set, changed or taken away.
    pub fn change(&mut self, object: &Value) -> Value {
        let mut changed = object.clone();
        let schema = self.schema.clone();
        self.change_at(&schema, &mut changed);
        changed
    }

    /// A whole object.
    pub fn object(&mut self) -> Value {
        let schema = self.schema.clone();
        self.value(&schema)
    }

    fn change_at(&mut self, schema: &Value, value: &mut Value) {
        let properties = schema["properties"].as_object();
        let Some(properties) = properties.filter(|_| value.is_object() || value.is_null()) else {
            *value = self.value(schema);
            return;
        };
        let names: Vec<_> = properties.keys().collect();
        let name = names[self.random.random_range(0..names.len())];
        let below = &properties[name];
        // Most fields are some levels down; the levels above are changed as a whole now and then.
        if below["properties"].is_object() && !self.chance(15) {
            self.change_at(below, &mut value[name.as_str()]);
        } else if self.chance(30) {
            value.as_object_mut().map(|object| object.remove(name));
        } else {
            value[name.as_str()] = self.value(below);
        }
    }

    fn value(&mut self, schema: &Value) -> Value {
        if self.chance(4) {
            return [json!(null), json!(7), json!("text"), json!([]), json!({})][self.random.random_range(0..5)]
                .clone();
        }
        let pick_text = |this: &mut Self| TEXTS[this.random.random_range(0..TEXTS.len())];
        if let Some(allowed) = schema["enum"].as_array().filter(|_| !self.chance(10)) {
            return allowed[self.random.random_range(0..allowed.len())].clone();
        }
        if schema["x-kubernetes-int-or-string"] == true {
            let limits = [json!(0), json!(1), json!(3), json!("10%"), json!("100%"), json!("101%"), json!("many")];
            return limits[self.random.random_range(0..limits.len())].clone();
        }
        match schema["type"].as_str() {
            Some("boolean") => json!(!self.chance(30)),
            Some("integer") => json!(NUMBERS[self.random.random_range(0..NUMBERS.len())]),
            Some("array") => (0..self.random.random_range(0..4)).map(|_| self.value(&schema["items"])).collect(),
            Some("object") => {
                let mut object = Map::new();
                if let Some(properties) = schema["properties"].as_object() {
                    let required = schema["required"].as_array().cloned().unwrap_or_default();
                    for (name, below) in properties {
                        if self.chance(50) || required.iter().any(|one| one == name) {
                            object.insert(name.clone(), self.value(below));
                        }
                    }
                } else {
                    for _ in 0..self.random.random_range(0..4) {
                        let value = self.value(&schema["additionalProperties"]);
                        object.insert(pick_text(self).to_owned(), value);
                    }
                }
                object.into()
            }
            _ => json!(pick_text(self)),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.next_u32() % 100 < percent
    }
}
