//! Where the demo is shown: redrawn in place on a terminal, a line per change elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::view::{Paint, Picture};

/// Without a terminal: the least time between two lines of the same act.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The output.
pub struct Screen {
    is_terminal: bool,
    paint: Paint,
    begun: Instant,
    /// Lines of the picture that the next one replaces.
    drawn: usize,
    last: Option<Picture>,
    /// Without a terminal: the last line that was printed, and when.
    lined: Option<(Instant, String)>,
}

impl Screen {
    /// Standard output, as it is.
    pub fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let paint = Paint(is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
        Self { is_terminal, paint, begun: Instant::now(), drawn: 0, last: None, lined: None }
    }

    /// A new act begins.
    pub fn act(&mut self, title: &str) {
        self.keep();
        self.begun = Instant::now();
        self.lined = None;
        self.print(&[String::new(), self.paint.bold(title)]);
    }

    /// How it is painted.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// What there is to see now.
    pub fn show(&mut self, picture: Picture) {
        if self.is_terminal {
            self.erase();
            self.print(&picture.lines);
            self.drawn = picture.lines.len();
        } else if self.lined.as_ref().is_none_or(|(at, line)| *line != picture.line && at.elapsed() >= LINE_EVERY) {
            self.lined = Some((Instant::now(), picture.line.clone()));
            self.print(&[format!("[{:5.1} s] {}", self.begun.elapsed().as_secs_f32(), picture.line)]);
        }
        self.last = Some(picture);
    }

    /// Leaves the last picture where it is; draws it where only lines were shown.
    pub fn keep(&mut self) {
        if let Some(picture) = self.last.take()
            && !self.is_terminal
        {
            self.print(&picture.lines);
        }
        self.drawn = 0;
    }

    /// Something to say below the picture.
    pub fn say(&mut self, text: &str) {
        self.keep();
        self.print(&text.lines().map(str::to_owned).collect::<Vec<_>>());
    }

    fn erase(&self) {
        if self.drawn > 0 {
            // Up, and everything below away.
            write(&format!("\x1b[{}F\x1b[J", self.drawn));
        }
    }

    fn print(&self, lines: &[String]) {
        let width = self.is_terminal.then(terminal_width).flatten();
        let text: String = lines.iter().map(|line| clip(line, width) + "\n").collect();
        write(&text);
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever stopped reading does not want to be told.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// A line that does not wrap, or redrawing would miscount. Escape sequences take no room.
fn clip(line: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return line.to_owned() };
    let (mut out, mut room, mut escape) = (String::new(), width, false);
    for character in line.chars() {
        escape |= character == '\x1b';
        if escape {
            escape = character != 'm';
            out.push(character);
        } else if room > 0 {
            room -= 1;
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room_and_are_never_cut() {
        assert_eq!(clip("\x1b[1mabcdef\x1b[0m", Some(3)), "\x1b[1mabc\x1b[0m");
        assert_eq!(clip("abc", None), "abc");
    }
}
