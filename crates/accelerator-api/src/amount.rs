//! Schema rules for a number or a percentage of something.

/// At least one.
pub(crate) const SOME: &str = "type(self) == int ? self >= 1 && self <= 2147483647 : self.matches('^[0-9]+%$') && int(self.replace('%', '')) >= 1 && int(self.replace('%', '')) <= 100";

/// What [`SOME`] demands.
pub(crate) const SOME_MESSAGE: &str = "must be a number from 1 to 2147483647, or a percentage from 1% to 100%";

/// None, or any.
pub(crate) const ANY: &str = "type(self) == int ? self >= 0 && self <= 2147483647 : self.matches('^[0-9]+%$') && int(self.replace('%', '')) <= 100";

/// What [`ANY`] demands.
pub(crate) const ANY_MESSAGE: &str = "must be a number from 0 to 2147483647, or a percentage from 0% to 100%";
