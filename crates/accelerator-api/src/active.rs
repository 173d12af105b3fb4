//! Which AcceleratorConfig counts, when there are several.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The index of the object that counts: the oldest by creation time, then by name. Every program uses this one function,
/// so that they agree without talking to each other and whatever order they saw the objects in.
///
/// An object under deletion no longer counts: its operands would be torn down again the moment it is gone.
pub fn active<'a>(objects: impl IntoIterator<Item = &'a ObjectMeta>) -> Option<usize> {
    objects
        .into_iter()
        .enumerate()
        .filter(|(_, meta)| meta.deletion_timestamp.is_none())
        .min_by_key(|(_, meta)| (meta.creation_timestamp.as_ref().map(|time| time.0), meta.name.clone()))
        .map(|(index, _)| index)
}

/// Indices of so many objects, the one that counts first: what has to be done about it is not kept waiting by the others.
pub fn active_first(count: usize, active: Option<usize>) -> impl Iterator<Item = usize> {
    active.into_iter().chain((0..count).filter(move |index| active != Some(*index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn meta(name: &str, second: i64, deleted: bool) -> ObjectMeta {
        let time = |second| Time(Timestamp::from_second(second).expect("a small number of seconds"));
        ObjectMeta {
            name: Some(name.into()),
            creation_timestamp: Some(time(second)),
            deletion_timestamp: deleted.then(|| time(99)),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn the_oldest_counts_then_the_first_name() {
        assert_eq!(active(&[meta("b", 5, false), meta("c", 3, false), meta("a", 3, false)]), Some(2));
        assert_eq!(active(&[]), None);
    }

    #[test]
    fn an_object_under_deletion_does_not_count() {
        assert_eq!(active(&[meta("old", 1, true), meta("new", 2, false)]), Some(1));
        assert_eq!(active(&[meta("old", 1, true)]), None);
    }
}
