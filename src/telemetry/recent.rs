//! The last lines of the log in memory, for the playground. Only the sandbox keeps them.

use std::{collections::VecDeque, sync::OnceLock};

use parking_lot::Mutex;

/// How many lines to keep.
const LINES: usize = 500;

/// Of one line. Longer ones are cut.
const BYTES: usize = 4096;

/// A process has one log.
static KEPT: OnceLock<Kept> = OnceLock::new();

#[derive(Default)]
struct Kept(Mutex<VecDeque<String>>);

/// Keeps the lines from now on.
pub(crate) fn keep_lines() {
    // A second call changes nothing.
    let _ = KEPT.set(Kept::default());
}

/// The kept lines that contain `text`, the oldest first. None if it is empty.
pub(crate) fn lines_with(text: &str) -> Vec<String> {
    let kept = KEPT.get().filter(|_| !text.is_empty());
    kept.map(|kept| kept.with(text)).unwrap_or_default()
}

/// Adds a line, if lines are kept.
pub(super) fn push(line: &[u8]) {
    if let Some(kept) = KEPT.get() {
        kept.push(line);
    }
}

impl Kept {
    fn push(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(BYTES)]);
        // On a terminal, the line has colours.
        let line = anstream::adapter::strip_str(line.trim_end()).to_string();
        let mut lines = self.0.lock();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock();
        let lines = lines.iter().filter(|line| line.contains(text));
        lines.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_are_forgotten_and_long_ones_are_cut() {
        let kept = Kept::default();
        for number in 0..=LINES {
            kept.push(format!("line {number};\n").as_bytes());
        }
        assert_eq!(kept.with("line 0;"), [""; 0]);
        assert_eq!(kept.with("line 1;"), ["line 1;"]);
        assert_eq!(kept.with("line").len(), LINES);
        kept.push("a".repeat(BYTES + 1).as_bytes());
        assert_eq!(kept.with("aa"), ["a".repeat(BYTES)]);
    }

    #[test]
    fn lines_are_kept_without_colours() {
        let kept = Kept::default();
        kept.push(b"\x1b[32mINFO\x1b[0m decision\n");
        assert_eq!(kept.with("decision"), ["INFO decision"]);
    }
}
