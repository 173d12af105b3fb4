//! Colours, on a terminal only.

use std::io::IsTerminal;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As it should be.
    Green,
    /// It goes on by itself.
    Yellow,
    /// Somebody has to act.
    Red,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    has_colours: bool,
}

impl Style {
    /// That of standard output: colours on a terminal, unless `NO_COLOR` says otherwise. Source: no-color.org.
    #[must_use]
    pub fn of_stdout() -> Self {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { has_colours: std::io::stdout().is_terminal() && !is_refused }
    }

    /// Without colours.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// A text in a colour.
    #[must_use]
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
        };
        if self.has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_colours_only_where_they_are_wanted() {
        assert_eq!(Style::plain().paint(Colour::Red, "x"), "x");
        assert_eq!(Style { has_colours: true }.paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
    }
}
