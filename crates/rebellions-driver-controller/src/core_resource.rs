//! What makes a type of our own a resource of Kubernetes' core group to kube, so that no more of an object is read than is needed.

/// Implements [`kube::Resource`] for a type: its kind, plural, scope, and the field with its metadata.
macro_rules! core_resource {
    ($type:ident, $kind:literal, $plural:literal, $scope:ty, $($metadata:ident).+) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                "".into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.$($metadata).+
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.$($metadata).+
            }
        }
    };
}

pub(crate) use core_resource;
