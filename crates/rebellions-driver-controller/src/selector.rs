//! Label selectors as kubectl takes them: `app=training,tier in (a,b),!debug`.

use kube::core::{Expression, Selector};

/// Reads a selector; `None` when the text is none that the schema takes. An empty one selects everything.
#[must_use]
pub fn parse(text: &str) -> Option<Selector> {
    let mut rest = text.trim();
    let mut expressions = vec![];
    while !rest.is_empty() {
        // A comma in parentheses separates values, any other requirements.
        let list = rest.find('(').filter(|open| rest.find(',').is_none_or(|comma| open < &comma));
        let end = list.map_or(Some(0), |open| rest[open..].find(')').map(|close| open + close))?;
        let end = rest[end..].find(',').map_or(rest.len(), |comma| end + comma);
        expressions.push(requirement(rest[..end].trim())?);
        match rest.get(end + 1..) {
            Some(next) if next.trim().is_empty() => return None,
            next => rest = next.unwrap_or_default().trim(),
        }
    }
    Some(expressions.into_iter().collect())
}

fn requirement(text: &str) -> Option<Expression> {
    if let Some(key) = text.strip_prefix('!') {
        return Some(Expression::DoesNotExist(key_of(key)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Expression::NotEqual(key_of(key)?, value.trim().into()));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Expression::Equal(key_of(key)?, value.trim().into()));
    }
    let Some((front, values)) = text.split_once('(') else { return Some(Expression::Exists(key_of(text)?)) };
    let values = values.trim_end().strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
    let (key, operator) = front.trim().split_once(' ')?;
    match operator.trim() {
        "in" => Some(Expression::In(key_of(key)?, values)),
        "notin" => Some(Expression::NotIn(key_of(key)?, values)),
        _ => None,
    }
}

fn key_of(text: &str) -> Option<String> {
    let key = text.trim();
    (!key.is_empty() && !key.contains([' ', '=', '!', '(', ')'])).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::SelectorExt;
    use std::collections::BTreeMap;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        parse(selector).unwrap_or_else(|| panic!("{selector:?} is a selector")).matches(&labels)
    }

    #[test]
    fn it_selects_as_kubectl_does() {
        let job = [("app", "training"), ("example.com/tier", "a")];
        for selector in [
            "",
            "app",
            "app=training",
            "app==training",
            " app = training , example.com/tier",
            "app!=web",
            "other!=web",
            "!debug",
            "example.com/tier in (a,b)",
            "example.com/tier in (a, b),app=training",
            "app=training,example.com/tier in ( b ,a ),!debug",
            "app notin (web)",
            "other notin (x)",
        ] {
            assert!(selects(selector, &job), "{selector:?}");
        }
        for selector in
            ["debug", "app=web", "app!=training", "!app", "app in (web)", "app notin (training,x)", "app=", "app,b"]
        {
            assert!(!selects(selector, &job), "{selector:?}");
        }
        assert!(selects("app=", &[("app", "")]));
    }

    #[test]
    fn what_is_none_is_not_taken_for_one() {
        for text in [",a", "a,", "a b", "a in b", "a in (b", "=a", "!", "a,,b", "a near (b)", "in (a)"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    /// The pattern of the schema, without its anchors.
    fn pattern() -> String {
        let crd = serde_json::to_value(accelerator_api::crd()).expect("a CRD");
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/providers/properties/rebellions/properties/driver\
                    /properties/upgradePolicy/properties/waitForJobs/properties/podSelector/pattern";
        let pattern = crd.pointer(path).and_then(serde_json::Value::as_str).expect("a pattern");
        pattern.trim_start_matches('^').trim_end_matches('$').to_owned()
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_the_schema_takes_is_read(text in proptest::string::string_regex(&pattern()).expect("a pattern")) {
            proptest::prop_assert!(parse(&text).is_some(), "{text:?}");
        }
    }
}
